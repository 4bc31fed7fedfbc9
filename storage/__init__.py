"""Bytes by key: where thumbnails are kept."""
