"""The commands that ask and serve."""
