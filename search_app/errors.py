"""The errors that `search_app` raises on purpose."""


class QueryError(Exception):
    """An invalid query. The message names the part and the allowed values. HTTP status 400 by default."""

    status = 400


class NotFoundError(QueryError):
    """The index holds no picture with the id that was asked for."""

    status = 404


class TooLargeError(QueryError):
    """A query or an upload is over its limit."""

    status = 413


class BusyError(QueryError):
    """Too many requests at once. The same will work in `retry_after_s` seconds."""

    status = 503

    def __init__(self, sentence: str, *, retry_after_s: int) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class WrongTypeError(QueryError):
    """A request's body is not of a type that its route reads."""

    status = 415


class PlacesError(Exception):
    """The list of places cannot be read or kept. The message says why."""


class UserError(Exception):
    """A user or a token cannot be made, changed or found. The message says why and how to go on."""


class ServeError(Exception):
    """The server cannot start. The message names the reason and the way out."""
