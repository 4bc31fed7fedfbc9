"""Pictures that people show or add: decode one, and the result of adding one."""

from __future__ import annotations

from dataclasses import dataclass

from PIL.Image import Image

from models.pixels import (
    FORMATS,
    MAX_QUERY_PIXELS,
    PictureError,
    check_pixels,
    decoding,
    draft,
    open_image,
    orientation,
    shrink,
    to_rgb,
    upright,
)
from search_app.errors import QueryError

LARGE = 16_000_000
"""pixels; pictures from this size on are decoded one at a time, so that memory stays bounded"""


@dataclass(frozen=True)
class Addition:
    """The result of adding one file to an index: a picture, or the reason in `refused` why it is not one."""

    image_id: str
    is_new: bool = False
    """False if the index had the content already: nothing is written then"""
    path: str | None = None
    caption: str | None = None
    caption_source: str | None = None
    caption_error: str | None = None
    """why the picture is indexed without a caption; `glimpse caption --missing` tries again"""
    refused: str | None = None


def open_picture(data: bytes) -> Image:
    """Decode a picture file's content: RGB, oriented by its EXIF, see-through parts on white, reduced.

    Raises `QueryError` when it is not a picture, is damaged, or unfolds to more than `MAX_QUERY_PIXELS`.
    """
    try:
        image = open_image(data)
        draft(image)
        check_pixels(image, MAX_QUERY_PIXELS)
    except PictureError as error:
        if error.pixels is None:
            raise QueryError(f"This is not a picture that can be read: use {', '.join(FORMATS)}.") from error
        limit = f"{MAX_QUERY_PIXELS // 1_000_000} million pixels"
        raise QueryError(f"The picture has more than {limit}; make it smaller first.") from error
    try:
        with decoding(image, large=LARGE):
            image.load()  # some formats tell their EXIF data only then
            return upright(shrink(to_rgb(image)), orientation(image.getexif()))
    except PictureError as error:
        raise QueryError("The picture is damaged and cannot be decoded; try another copy of it.") from error
