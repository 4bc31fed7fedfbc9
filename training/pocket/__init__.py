"""Train the pocket models for the drawn world: towers, captioner and voice model."""
