"""Sharing one ingest among many machines: every file belongs to exactly one part, whoever asks."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ingest.errors import IngestError

SHAPE = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Part:
    """The `number`-th of `of` shares, counted from 1."""

    number: int = 1
    of: int = 1

    def holds(self, name: str) -> bool:
        """Whether a relative path belongs to this part: by its hash, so nobody needs a list of all files."""
        if self.of == 1:
            return True
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.of == self.number - 1


def parse_part(text: str) -> Part:
    """Read `3/16`, the third of sixteen parts. Raises `IngestError`."""
    match = SHAPE.fullmatch(text.strip())
    number, of = (int(each) for each in match.groups()) if match else (0, 0)
    if not 1 <= number <= of:
        raise IngestError(f"'{text}' is no part: write 3/16 for the third of sixteen.")
    return Part(number, of)
