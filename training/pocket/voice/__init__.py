"""Training of the voice model on synthetic speech."""
