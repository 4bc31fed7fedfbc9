"""Training of the models in `models/weights/`; see README.md."""
