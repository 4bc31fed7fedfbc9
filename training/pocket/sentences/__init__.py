"""Sentences about the drawn world in four languages."""
