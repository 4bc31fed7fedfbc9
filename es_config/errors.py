"""The one error that `es_config` raises on purpose."""


class EngineError(Exception):
    """Elasticsearch, the node or the index cannot do what was asked; the message says why and what to do."""
