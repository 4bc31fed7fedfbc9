"""The way in: picture files become documents in the index."""
