"""The error that `es_config` raises on purpose."""


class EngineError(Exception):
    """Elasticsearch, the node or the index refuses a task. The message has the reason and the way out."""


class NotAllowedError(EngineError):
    """The API key lacks a right. The message names it."""
