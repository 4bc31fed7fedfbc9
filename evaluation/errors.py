"""Errors of an evaluation, each one sentence for a person."""

from __future__ import annotations


class EvaluationError(Exception):
    """Why an evaluation cannot be made, and the way out."""


class LabelError(EvaluationError):
    """An error in a file of queries or runs, with its line."""
