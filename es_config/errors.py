"""The errors that `es_config` raises on purpose."""


class EngineError(Exception):
    """Elasticsearch, the node or the index refuses a task. The message has the reason and the way out.

    The message is for the operator and may name addresses, folders and indexes. `for_visitors` is for whoever
    opens the page, and names none of them.
    """

    for_visitors = "The search engine cannot do this at the moment: `glimpse doctor` on the server says why."

    def __init__(self, sentence: str, *, for_visitors: str | None = None) -> None:
        super().__init__(sentence)
        if for_visitors is not None:
            self.for_visitors = for_visitors


class NotAllowedError(EngineError):
    """The API key lacks a right. The message names it."""


class RefusedQueryError(EngineError):
    """Elasticsearch cannot parse a query or does not accept its values. The mistake is the caller's."""
