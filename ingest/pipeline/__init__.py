"""One run: read, embed, caption, write."""
