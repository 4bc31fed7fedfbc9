"""What the doors tell a person about an evaluation, in one sentence."""

from __future__ import annotations


class EvaluationError(Exception):
    """Why an evaluation cannot be made, and the way out."""


class LabelError(EvaluationError):
    """What is wrong with a file of queries or runs, with its line."""
