"""Read from a photograph's file how it was exposed."""

from __future__ import annotations

from typing import IO

from PIL import Image
from PIL.ExifTags import IFD, Base


def exposure(file: IO[bytes]) -> tuple[str, ...]:
    """Return lens, focal length, aperture, time and sensitivity, as photographers write them.

    A file without them, or one that Pillow does not read, has none.
    """
    try:
        with Image.open(file) as image:
            tags = image.getexif().get_ifd(IFD.Exif)
        return tuple(filter(None, (_lens(tags), *_numbers(tags))))
    except (OSError, ValueError, SyntaxError, ArithmeticError, TypeError, LookupError):
        return ()


def _lens(tags: dict[int, object]) -> str:
    lens = str(tags.get(Base.LensModel, "")).strip("\0 ")[:80]
    return lens if lens.isprintable() else ""


def _numbers(tags: dict[int, object]) -> tuple[str, ...]:
    length, aperture = _number(tags, Base.FocalLength), _number(tags, Base.FNumber)
    seconds, iso = _number(tags, Base.ExposureTime), _number(tags, Base.ISOSpeedRatings)
    return (
        f"{length:.3g} mm" if length else "",
        f"f/{aperture:.2g}" if aperture else "",
        _seconds(seconds) if seconds else "",
        f"ISO {iso:.0f}" if iso else "",
    )


def _seconds(seconds: float) -> str:
    return f"1/{1 / seconds:.0f} s" if seconds < 0.4 else f"{seconds:.3g} s"


def _number(tags: dict[int, object], tag: int) -> float:
    """Return a tag's number, 0 where it has none that is more."""
    value = tags.get(tag)
    first = value[0] if isinstance(value, tuple) and value else value
    number = float(first) if first is not None else 0.0  # type: ignore[arg-type]  # TypeError is caught
    return number if 0 < number < 1e6 else 0.0
