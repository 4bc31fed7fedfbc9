"""The one error that `storage` raises on purpose."""


class StorageError(Exception):
    """A store cannot be opened, read or written; the message says why and what to do."""
