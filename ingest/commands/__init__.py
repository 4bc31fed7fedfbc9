"""The commands that fill an index."""
