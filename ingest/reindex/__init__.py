"""Another index for other models."""
