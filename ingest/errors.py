"""The errors that `ingest` raises on purpose."""


class IngestError(Exception):
    """A run cannot go on; the message says why and what to do."""


class UnreadableImageError(IngestError):
    """One file cannot be used as a picture; the run goes on and reports the message as its reason."""
