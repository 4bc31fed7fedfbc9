"""Training of the pocket models: towers, captioner and voice model for the drawn world."""
