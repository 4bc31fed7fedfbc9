"""Train the models of `models/weights/` (see README.md)."""
