"""Train the voice model on synthetic speech."""
