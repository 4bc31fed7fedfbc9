"""Files: found, read, and their metadata."""
