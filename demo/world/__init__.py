"""The drawn world: scenes by seed, and their pictures."""
