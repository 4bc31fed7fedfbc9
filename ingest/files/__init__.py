"""Files: found, read, watched, and their metadata."""
