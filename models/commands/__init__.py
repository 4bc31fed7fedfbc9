"""`glimpse model`."""
