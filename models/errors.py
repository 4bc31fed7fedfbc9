"""The one error that `models` raises on purpose."""


class ModelError(Exception):
    """A profile or a model cannot be used; the message says why and what to do."""
