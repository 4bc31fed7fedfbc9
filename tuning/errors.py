"""The one error that `tuning` raises on purpose."""


class TuneError(Exception):
    """Something cannot be measured, or no setting meets the target; the message says what to do."""
