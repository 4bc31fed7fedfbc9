"""The errors that `storage` raises on purpose."""


class StorageError(Exception):
    """A store cannot be opened, read or written. The message names the reason and the way out."""


class NoSuchKeyError(StorageError):
    """The store works and holds nothing under this key, or the key is none that a store can have."""
