"""The one error that `models` raises on purpose."""


class ModelError(Exception):
    """A profile or a model cannot be used; the message says why and what to do."""


def first_line(error: Exception) -> str:
    """Return what a library's error says in its first line, or at least its kind."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__
