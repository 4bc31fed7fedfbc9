"""Profiles of models, and the encoders that turn pictures and texts into vectors."""
