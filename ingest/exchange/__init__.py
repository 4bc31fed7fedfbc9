"""Vectors with their metadata as files, in and out."""
