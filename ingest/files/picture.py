"""Read one picture file, draw its thumbnail, and keep its original."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image as pil
from PIL.Image import Exif, Image, Resampling

from ingest.errors import UnreadableImageError
from ingest.files.metadata import CameraData, camera_data, words_of
from ingest.files.walk import RAW_EXTENSIONS, why
from models.pixels import (
    MAX_PIXELS,
    ORIENTATION,
    PictureError,
    check_pixels,
    decoding,
    draft,
    open_image,
    orientation,
    register_formats,
    shrink,
    to_rgb,
    upright,
)
from storage.keys import original_key
from storage.store import Storage

SMALLEST_PREVIEW = 512
"""pixels of the longer edge; a smaller preview gives way to the sensor's own pixels"""
DATE = 306
NO_DATE = ("1969:12:31", "1970:01:01")
"""the day that LibRaw writes into the preview of a file without a date, in one time zone or another"""
FLIPS = {3: 3, 5: 8, 6: 6}
"""LibRaw's turn of a picture -> EXIF's orientation"""


@dataclass(frozen=True)
class RawPicture:
    """The preview of a RAW file, and the size of the whole picture."""

    image: Image
    size: tuple[int, int]
    """(width, height) of the sensor's picture, not yet turned upright"""
    exif: Exif
    """with an orientation that is right for `image`"""


def is_raw(path: Path | None) -> bool:
    """Return whether a file is a camera's RAW file by its name: by its content it may pass for a TIFF."""
    return path is not None and path.suffix.lower() in RAW_EXTENSIONS


def open_raw(data: bytes, *, extension: str) -> RawPicture:
    """Return the preview of a RAW file. Raises `UnreadableImageError`, without `rawpy` with how to get it."""
    try:
        import rawpy
    except ImportError as error:
        raise UnreadableImageError(
            f"a RAW file: `pip install rawpy` to read it, or leave it out with --exclude '*{extension}'"
        ) from error
    register_formats()
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            return _picture(rawpy, raw, data)
    except rawpy.LibRawError as error:
        said = error.args[0] if error.args else type(error).__name__
        reason = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise UnreadableImageError(
            f"damaged, or a RAW file that rawpy does not know ({reason})", lasting=True
        ) from error


def _picture(rawpy: Any, raw: Any, data: bytes) -> RawPicture:
    size, turn = (raw.sizes.width, raw.sizes.height), FLIPS.get(raw.sizes.flip, 1)
    image = _preview(rawpy, raw)
    if image is None or max(image.size) < SMALLEST_PREVIEW:
        image = pil.fromarray(raw.postprocess(half_size=True, use_camera_wb=True, user_flip=0))
    exif = image.getexif()
    if not exif:
        with suppress(Exception):  # most RAW files are TIFFs; Pillow raises whatever the others lead it to
            exif.load_from_fp(io.BytesIO(data))
    if str(exif.get(DATE)).startswith(NO_DATE):
        del exif[DATE]
    exif.setdefault(ORIENTATION, turn)
    return RawPicture(image, size, exif)


def _preview(rawpy: Any, raw: Any) -> Image | None:
    """Return the preview as the camera stored it. LibRaw writes the EXIF of the file into it."""
    try:
        preview = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if preview.format == rawpy.ThumbFormat.JPEG:
        return pil.open(io.BytesIO(preview.data), formats=("JPEG",))
    return pil.fromarray(preview.data)


MAX_BYTES = 1 << 30
LARGE = 40_000_000
"""pixels; pictures from this size on are decoded one at a time, so that memory stays bounded"""


@dataclass(frozen=True)
class FileContent:
    """The bytes of one file and their SHA-256 in hex, which is the id of the picture."""

    data: bytes
    image_id: str


@dataclass(frozen=True)
class ImageFile:
    """One picture file, decoded."""

    image_id: str
    image: Image
    """RGB, upright, and smaller than the file's if that is much larger than any model or thumbnail needs"""
    width: int
    """pixels of the whole picture, upright"""
    height: int
    size_bytes: int
    exif: CameraData
    """the description may be that of XMP or IPTC"""
    tags: tuple[str, ...]
    """keywords of XMP and IPTC"""
    phash: str
    """perceptual hash, 64 bits in hex: pictures that look alike differ in few bits"""
    format: str
    """what the content is, as Pillow calls it, whatever the file's name says; of a RAW file, its preview"""


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Read, check and decode a file. Raises `UnreadableImageError` with the reason."""
    return decode(read_content(path), path=path, max_pixels=max_pixels)


def read_content(path: Path) -> FileContent:
    """Read a regular file whole and hash it. Raises `UnreadableImageError`."""
    try:
        # Without O_NONBLOCK, opening a named pipe waits for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImageError("not a regular file")
            if status.st_size > MAX_BYTES:
                raise UnreadableImageError(f"larger than {MAX_BYTES >> 20} MiB", lasting=True)
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UnreadableImageError(why(error)) from error
    if not data:
        raise UnreadableImageError("the file is empty", lasting=True)
    return FileContent(data, hashlib.sha256(data).hexdigest())


def decode(content: FileContent, *, path: Path | None, max_pixels: int = MAX_PIXELS) -> ImageFile:
    """Decode a file's bytes, all of them. Raises `UnreadableImageError` for whatever is no whole picture.

    Of the `path` only the extension matters: it tells RAW files.
    """
    with _decoding(content, path, max_pixels) as (image, raw):
        size = raw.size if raw else image.size
        draft(image)
        image.load()
        tags = raw.exif if raw else image.getexif()
        turn = orientation(tags)
        facts, words = camera_data(tags), words_of(image)
        pixels = upright(shrink(to_rgb(image)), turn)
    width, height = size if (turn < 5) else size[::-1]
    return ImageFile(
        image_id=content.image_id,
        image=pixels,
        width=width,
        height=height,
        size_bytes=len(content.data),
        exif=replace(facts, description=facts.description or words.description),
        tags=words.tags,
        phash=perceptual_hash(pixels),
        format=image.format or "RAW",
    )


def whole_picture(content: FileContent, *, path: Path, max_pixels: int = MAX_PIXELS) -> Image:
    """Return a picture upright with all of its pixels, RGB or RGBA. Raises `UnreadableImageError`."""
    with _decoding(content, path, max_pixels) as (image, raw):
        image.load()
        turn = orientation(raw.exif if raw else image.getexif())
        return upright(image.convert("RGBA") if image.has_transparency_data else to_rgb(image), turn)


def perceptual_hash(image: Image) -> str:
    """Return imagehash's `phash` in hex: 64 bits."""
    import imagehash

    # What the hash looks at; antialiased, with no pixel cut off: a copy of any size gives the same.
    small = image.convert("L").resize((32, 32), Resampling.LANCZOS, reducing_gap=3.0)
    return str(imagehash.phash(small))


@contextmanager
def _decoding(
    content: FileContent, path: Path | None, max_pixels: int
) -> Iterator[tuple[Image, RawPicture | None]]:
    """Open a picture for decoding. Errors of the picture become `UnreadableImageError`."""
    raw = open_raw(content.data, extension=path.suffix) if path and is_raw(path) else None
    try:
        image = raw.image if raw else open_image(content.data)
        if not raw:
            check_pixels(image, max_pixels)
        with decoding(image, large=LARGE):
            yield image, raw
    except PictureError as error:
        if error.pixels is None:
            raise UnreadableImageError(str(error), lasting=True) from error
        raise UnreadableImageError(
            f"{error.pixels / 1e6:g} megapixels are over the limit of {max_pixels / 1e6:g} (--max-pixels)",
            pixels=error.pixels,
        ) from error


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow open pictures up to `max_pixels`, and keep its warnings off the screen, until the end."""
    before = pil.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        pil.MAX_IMAGE_PIXELS = max_pixels  # Pillow refuses twice as many by itself
        try:
            yield
        finally:
            pil.MAX_IMAGE_PIXELS = before


THUMBNAIL_EDGE = 512
ICC_LIMIT = 4096
"""bytes; a colour profile that is larger costs more than the thumbnail's difference in colour is worth"""


def thumbnail(image: Image) -> bytes:
    """Return a WebP whose longer edge is at most 512 pixels, without the metadata of the original."""
    if max(image.size) > THUMBNAIL_EDGE:
        image = image.copy()
        image.thumbnail((THUMBNAIL_EDGE, THUMBNAIL_EDGE), Resampling.BICUBIC, reducing_gap=2.0)
    profile = image.info.get("icc_profile") or b""
    data = io.BytesIO()
    # Making thumbnails costs most of what decodes. Beside method 2 at quality 80 this takes 0.58 of the time,
    # for files 7 % larger and 0.5 dB less: measured on 120 photographs.
    image.save(data, "WEBP", quality=77, method=0, icc_profile=profile if len(profile) <= ICC_LIMIT else b"")
    return data.getvalue()


NONE, WEBP, ORIGINAL = FORMS = ("none", "webp", "original")
FORMAT_EXTENSIONS = {
    "JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "DIB": "bmp",
    "TIFF": "tiff", "HEIF": "heic", "AVIF": "avif",
}  # fmt: skip
"""what Pillow calls a format -> the extension under which the store keeps it"""
QUALITY, LONGEST_EDGE = 85, 16383
"""of WebP: the quality, and the pixels that its format allows"""


def keep_original(
    content: FileContent, *, path: Path, storage: Storage, form: str, max_pixels: int = MAX_PIXELS
) -> None:
    """Put a picture into the store in one of `FORMS`, unless it is there already or the form is `none`.

    Of a RAW file, which no browser shows, it is always the WebP copy of its preview. Raises
    `UnreadableImageError` and `StorageError`.
    """
    if form == NONE:
        return
    as_it_is = form == ORIGINAL and not is_raw(path)
    key = original_key(content.image_id, extension_of(content.data) if as_it_is else "webp")
    if not storage.exists(key):
        copy = content.data if as_it_is else webp(whole_picture(content, path=path, max_pixels=max_pixels))
        storage.put(key, copy)


def extension_of(data: bytes) -> str:
    """Return the extension for a picture's bytes. Raises `UnreadableImageError`."""
    try:
        with open_image(data) as image:
            return FORMAT_EXTENSIONS[image.format or ""]
    except (PictureError, KeyError) as error:
        raise UnreadableImageError("damaged or cut short", lasting=True) from error


def webp(image: Image) -> bytes:
    """Return a WebP copy without the metadata of the original but with its colour profile.

    It has all pixels, up to WebP's limit of 16 383 an edge. Of the photographs of Flickr8k it takes half of
    the space of the JPEG, at a PSNR of 37 dB.
    """
    if max(image.size) > LONGEST_EDGE:
        image.thumbnail((LONGEST_EDGE, LONGEST_EDGE))
    data = io.BytesIO()
    image.save(data, "WEBP", quality=QUALITY, method=4, icc_profile=image.info.get("icc_profile") or b"")
    return data.getvalue()
