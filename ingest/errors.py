"""The errors that `ingest` raises on purpose, and the reasons why single files fail."""

from __future__ import annotations

from dataclasses import dataclass


class IngestError(Exception):
    """A run cannot go on. The message names the reason and the way out."""


@dataclass(frozen=True)
class Fault:
    """Why one file, picture or caption cannot be used."""

    reason: str
    """in words, for people alone"""
    lasting: bool = False
    """whether it lies in the file's content: reading that again is vain until it changes"""
    pixels: int | None = None
    """of a picture that is over the limit of pixels: it lasts while the limit is lower"""

    def __str__(self) -> str:
        """Return the reason."""
        return self.reason

    def of(self, what: str) -> Fault:
        """Return the same fault of a part of the picture, such as its caption."""
        return Fault(f"{what}: {self.reason}", self.lasting, self.pixels)


class UnreadableImageError(IngestError):
    """One file cannot be used as a picture. The run goes on and reports the fault."""

    def __init__(self, reason: str, *, lasting: bool = False, pixels: int | None = None) -> None:
        super().__init__(reason)
        self.fault = Fault(reason, lasting, pixels)
