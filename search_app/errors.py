"""The errors that `search_app` raises on purpose."""


class QueryError(Exception):
    """A query is not valid; the message says which part and what is allowed. HTTP status 400 unless said."""

    status = 400


class TooLargeError(QueryError):
    """A query or an upload is over its limit."""

    status = 413
