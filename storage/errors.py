"""The errors that `storage` raises on purpose."""


class StorageError(Exception):
    """A store cannot be opened, read or written. The message names the reason and the way out.

    The message is for the operator and may name folders and buckets; `for_visitors` names none.
    """

    for_visitors = (
        "The files of the pictures cannot be reached at the moment: the log of the server says why."
    )


class NoSuchKeyError(StorageError):
    """The store works but holds nothing under this key, or no store can have such a key."""


class UnansweredError(StorageError):
    """One object cannot be read, was not answered in time or not whole. Others may well be."""
