"""The drawn world: seeded scenes and their pictures."""
