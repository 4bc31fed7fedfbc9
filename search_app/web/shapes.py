"""Classes for the aspect ratios of pictures, since the page's policy allows no style in its HTML."""

from __future__ import annotations

import math

STEP = 1.03
"""from one class to the next: a ratio is met to 1.5 %, which is a crop that nobody sees"""
NARROWEST, WIDEST = 1 / 5, 8.0


def shape(width: int | None, height: int | None) -> str:
    """Return the class for the aspect ratio of a picture, empty where its size is not known."""
    return f"shape{_number(width / height)}" if width and height else ""


def shape_styles() -> str:
    """Return a style sheet that gives every class its ratio as `--r`."""
    numbers = range(_number(NARROWEST), _number(WIDEST) + 1)
    return "".join(f".shape{n}{{--r:{STEP**n:.3g}}}\n" for n in numbers)


def _number(ratio: float) -> int:
    return round(math.log(min(max(ratio, NARROWEST), WIDEST), STEP))
