"""The errors that `storage` raises on purpose."""


class StorageError(Exception):
    """A store cannot be opened, read or written. The message names the reason and the way out."""


class NoSuchKeyError(StorageError):
    """The store works but holds nothing under this key, or no store can have such a key."""
