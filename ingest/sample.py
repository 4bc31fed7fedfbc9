"""Some of the person's own pictures, to compare vectors of different precision on."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from ingest.errors import UnreadableImageError
from ingest.files.picture import MAX_PIXELS, read_image
from ingest.files.walk import Candidate, walk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

PICTURES = 64
FILES = 2048
"""how far the walk goes for them: a million files are not looked through"""


def sample_pictures(
    paths: Sequence[Path],
    *,
    exclude: Sequence[str] = (),
    max_pixels: int = MAX_PIXELS,
    count: int = PICTURES,
    files: int = FILES,
) -> list[Image]:
    """Return up to `count` RGB pictures, each content once, spread evenly over the first `files` files.

    Files that cannot be read are left out: the run itself will say so.
    """
    found = (each for each in walk(paths, exclude=exclude) if isinstance(each, Candidate))
    candidates = list(islice(found, files))
    pictures: dict[str, Image] = {}
    for candidate in _spread(candidates, count):
        if len(pictures) == count:
            break
        try:
            file = read_image(candidate.path, max_pixels=max_pixels)
        except UnreadableImageError:
            continue
        pictures.setdefault(file.image_id, file.image)
    return list(pictures.values())


def _spread(candidates: list[Candidate], count: int) -> list[Candidate]:
    """Return all candidates in an order whose first `count` are spread evenly."""
    step = max(1, len(candidates) // max(1, count))
    return [candidate for start in range(step) for candidate in candidates[start::step]]
