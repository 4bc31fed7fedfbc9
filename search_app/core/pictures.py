"""Pictures that people show or add: decode one, and the result of adding one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from PIL.Image import Image, frombytes

from models.child_process import Facts, run_apart
from models.pixels import (
    FORMATS,
    REQUESTS,
    Limits,
    NoRoomError,
    PictureError,
    TooSlowError,
    decoding,
    load,
    memory_of,
    open_image,
    orientation,
    shrink,
    to_rgb,
    to_srgb,
    upright,
)
from search_app.errors import BusyError, QueryError


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


@dataclass(frozen=True)
class OpenedFile:
    """The file of a picture, open for reading. Whoever asks for it closes `stream`."""

    stream: BinaryIO
    name: str
    """its own name, without folders"""
    size: int
    """bytes"""
    media_type: str
    is_shown: bool
    """whether every browser shows such a file"""
    version: str = ""
    """changes with the content, where the picture's id does not tell it"""


class Originals(Protocol):
    """Opens the files that pictures were made from, where they lie."""

    def paths(self, image_id: str, source: Mapping[str, Any]) -> list[str]:
        """Return the absolute paths of a document's picture, as far as this machine knows them."""

    def name(self, image_id: str, source: Mapping[str, Any]) -> str | None:
        """Return the name of the file that `open` would open, as far as that is known, or None for none."""

    def open(self, image_id: str, source: Mapping[str, Any], *, near: bool = False) -> OpenedFile | None:
        """Open the file of a document's picture, or return None where none has its content now.

        With `near`, no other machine is asked for it. Raises `StorageError` or `EngineError`.
        """

    def film(self, image_id: str, source: Mapping[str, Any]) -> OpenedFile | None:
        """Open the film of a live or motion photo, or return None for any other picture. Raises as `open`."""

    def render(self, image_id: str, source: Mapping[str, Any]) -> bytes | None:
        """Return a WebP of a picture, or None as `open` does. Raises `QueryError` and `BusyError`, too."""


@contextmanager
def opened_picture(data: bytes, *, limits: Limits = REQUESTS) -> Iterator[Image]:
    """Decode a picture file's content: RGB, oriented by its EXIF, see-through parts on white, reduced.

    Room in the budget of the limits is held until the end. Raises `QueryError` when it is no picture, is
    damaged or over a limit, and `BusyError` when too many wait for room.
    """
    try:
        image = open_image(data)
    except PictureError as error:
        if error.pixels is None:
            raise QueryError(f"This is not a picture that can be read: use {', '.join(FORMATS)}.") from error
        raise _too_many(error, limits) from error
    with image:
        try:
            limits.check(image, data)
        except PictureError as error:
            if error.pixels is None:
                raise QueryError(f"The picture cannot be used to search: it is {error}.") from error
            raise _too_many(error, limits) from error
        memory = memory_of(image, data)
        with ExitStack() as held:
            try:
                held.enter_context(limits.budget.room(memory))
            except NoRoomError as error:
                raise no_room() from error
            try:
                if limits.is_apart(image, data):
                    facts, body = run_apart(decode_in_child, data, seconds=limits.seconds, memory=memory)
                    picture = frombytes("RGB", tuple(facts["size"]), body)
                else:
                    picture = _decode(image, data)
            except TooSlowError as error:
                raise QueryError(f"The picture cannot be used to search: {error}.") from error
            except PictureError as error:
                raise QueryError(
                    "The picture is damaged and cannot be decoded; try another copy of it."
                ) from error
            yield picture


def cut_out(image: Image, part: tuple[float, float, float, float]) -> Image:
    """Return a part of a picture: (left, top, width, height), from 0 to 1. Raises `QueryError`."""
    left, top, width, height = part
    if not (0 <= left < 1 and 0 <= top < 1 and 0 < width <= 1 and 0 < height <= 1):  # NaN, too
        raise QueryError(
            "The part must lie in the picture: left and top below 100 %, width and height over 0 %."
        )
    across, down = image.size
    first = int(left * across), int(top * down)
    last = min(across, round((left + width) * across)), min(down, round((top + height) * down))
    return image.crop((*first, max(last[0], first[0] + 1), max(last[1], first[1] + 1)))


def no_room() -> BusyError:
    """Return the error for a picture that waited for room in the budget of all requests in vain."""
    return BusyError(
        "Too many pictures are being decoded at the moment; send this one again in a few seconds.",
        retry_after_s=3,
    )


def _too_many(error: PictureError, limits: Limits) -> QueryError:
    limit = error.limit or limits.pixels
    which = ", the most for its format" if limit < limits.pixels else ""
    return QueryError(
        f"The picture has more than {limit / 1_000_000:.3g} million pixels{which}; make it smaller first."
    )


def decode_in_child(data: bytes) -> tuple[Facts, bytes]:
    """Decode a picture that was let in, in a process of its own."""
    picture = _decode(open_image(data), data)
    return {"size": picture.size}, picture.tobytes()


def _decode(image: Image, data: bytes) -> Image:
    with decoding():
        image = load(image, data)  # some formats tell their EXIF data only then
        return upright(to_srgb(shrink(to_rgb(image))), orientation(image.getexif()))
