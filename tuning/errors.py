"""The one error that `tuning` raises on purpose."""


class TuneError(Exception):
    """Something cannot be measured, or no setting meets the target. The message names the way out."""
