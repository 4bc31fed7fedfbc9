"""Decode pictures of any kind to upright RGB, within bounds of time and memory."""

from __future__ import annotations

import ctypes
import io
import math
import re
import struct
import sys
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError
from PIL.Image import Transpose
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    IMAGELENGTH,
    IMAGEWIDTH,
    PLANAR_CONFIGURATION,
    ImageFileDirectory_v2,
    TiffImageFile,
)

from models.errors import first_line

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "HEIF", "AVIF", "JXL")
MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|GIF8|II\*\0|MM\0\*|....ftyp(heic|heix|mif1|msf1|avif|avis)|BM",
    re.DOTALL,
)
MAX_PIXELS = 200_000_000
"""of a file in a folder, unless --max-pixels says otherwise"""
MAX_REQUEST_PIXELS = 200_000_000
"""of a picture that a request brings; some formats may have fewer, for what they take of the budget"""
PNG, TIFF, END_OF_JPEG = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*"), b"\xff\xd9"
JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
"""how files begin, and how a JPEG ends"""
UNREAD_TIFF = "a kind of TIFF that is not read; save it as PNG or JPEG"
SEPARATE_PLANES = 2
NOT_IN_WHEELS = ("webp", "lzma", "jbig")
"""compressions of TIFF that Pillow knows by name, and its wheels cannot decode"""
TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
LARGEST_TEXT, LARGEST_TEXTS = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
"""bytes of one text of a PNG, and of all"""
CUT_SHORT = "cut_short"
MOST_MISSING = 0.1
"""share of the rows of a JPEG"""
SHORT_EDGE, LONG_EDGE = 384, 512
"""pixels that are left at least, when they were there: no tower looks closer"""
MOST_PIXELS = 16_000_000
"""of a reduced picture"""
ORIENTATION = 0x0112
LARGEST_PROFILE = 4 << 20
"""bytes of a colour profile; more is no profile of RGB"""
SAMPLE_BITS = (8, 10, 12, 14, 16)
SAME_COLOUR = 2
"""levels of 255 that rounding makes"""


class PictureError(Exception):
    """Bytes are not a usable picture. The message is the reason, a phrase such as "damaged or cut short"."""

    def __init__(self, reason: str, *, pixels: int | None = None, limit: int | None = None) -> None:
        super().__init__(reason)
        self.pixels = pixels
        """the number of pixels, if they are too many"""
        self.limit = limit
        """how many they may be, if that is known"""


class TooSlowError(PictureError):
    """A picture was not decoded in time. A machine with less to do might."""


def open_image(data: bytes) -> Image.Image:
    """Open the bytes of a picture without decoding its pixels. Raises `PictureError`."""
    register_formats()
    try:
        image = Image.open(
            io.BytesIO(_without_large_texts(data)), formats=[each for each in FORMATS if each in Image.OPEN]
        )
    except UnidentifiedImageError as error:
        raise PictureError(_why_unknown(data)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow gives the number only in its message; it refuses from twice its limit on.
        number = re.search(r"\d+", str(error))
        pixels = int(number[0]) if number else 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
        raise PictureError("too many pixels", pixels=pixels) from error
    except Exception as error:  # decoders raise anything for damaged bytes
        raise _damaged(error) from error
    if not (image.width and image.height):
        raise PictureError("a picture without pixels")
    if isinstance(image, TiffImageFile) and _is_misread(image):
        raise PictureError(UNREAD_TIFF)
    return image


def _why_unknown(data: bytes) -> str:
    """Say why no decoder takes a file: it is damaged, of a kind that is not read, or no picture."""
    if data.startswith(JPEG_XL):
        return (
            "damaged or cut short"
            if "JXL" in Image.ID
            else "a JPEG XL file: `pip install pillow-jxl-plugin` to read it"
        )
    if data.startswith(TIFF):
        return UNREAD_TIFF if _has_tiff_tags(data) else "damaged or cut short"
    return "damaged or cut short" if MAGIC.match(data) else "not a picture in a known format"


def _has_tiff_tags(data: bytes) -> bool:
    """Return whether the first directory of a TIFF can be read and tells a size."""
    stream = io.BytesIO(data)
    try:
        directory = ImageFileDirectory_v2(stream.read(8))
        stream.seek(directory.next)
        directory.load(stream)
        return bool(directory[IMAGEWIDTH] > 0 and directory[IMAGELENGTH] > 0)
    except Exception:  # a damaged directory leads Pillow to anything
        return False


def _is_misread(image: TiffImageFile) -> bool:
    """Return whether a TIFF opens, but not as it is: Pillow takes planes of 16 bits for pixels."""
    bits = image.tag_v2.get(BITSPERSAMPLE) or (1,)
    return image.tag_v2.get(PLANAR_CONFIGURATION) == SEPARATE_PLANES and max(bits) > 8 and len(bits) > 1


def _without_large_texts(data: bytes) -> bytes:
    """Return a PNG without the texts and the colour profile that are larger than Pillow takes.

    Other files are returned as they are. Programs write whole workflows and histories of edits there: they
    cost themselves and not the picture.
    """
    if not data.startswith(PNG):
        return data
    kept, position, begin, room = [], len(PNG), 0, LARGEST_TEXTS
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind in TEXT_CHUNKS:
            # Without room for more nothing is unpacked: thousands of texts would take a minute.
            size = _text_size(data[position + 8 : end - 4], kind) if room >= 0 else 0
            room -= size
            if size > LARGEST_TEXT or room < 0:
                kept.append(data[begin:position])
                begin = end
        position = end
    return b"".join([*kept, data[begin:]]) if kept else data


def _text_size(body: bytes, kind: bytes) -> int:
    """Return the size of a PNG chunk's text, unpacked, or one more than `LARGEST_TEXT` if it is larger."""
    packed = body.partition(b"\0")[2][1:]
    if kind == b"iTXt":
        is_packed, rest = body.partition(b"\0")[2][:1] == b"\1", packed[1:]
        packed = rest.partition(b"\0")[2].partition(b"\0")[2] if is_packed else b""
    if kind == b"tEXt" or not packed:
        return len(body)
    try:
        return len(zlib.decompressobj().decompress(packed, LARGEST_TEXT + 1))
    except zlib.error:
        return 0  # Pillow leaves it aside


def load(image: Image.Image, data: bytes, *, reduce: bool = True) -> Image.Image:
    """Decode the pixels of an opened picture and return the picture that has them.

    `data` is the file's content. With `reduce`, the picture is reduced as `draft` does.

    A JPEG of which at most a tenth is missing at the end is kept, with `CUT_SHORT` in its `info`: the rest
    is grey. Raises `PictureError`, and whatever a decoder raises.
    """
    if reduce:
        draft(image)
    try:
        image.load()
    except OSError as error:
        if image.format == "TIFF" and image.info.get("compression") in NOT_IN_WHEELS:
            raise PictureError(UNREAD_TIFF) from error
        if image.format not in ("JPEG", "MPO"):
            raise
        whole = Image.open(io.BytesIO(data + END_OF_JPEG), formats=("JPEG", "MPO"))
        if reduce:
            draft(whole)
        whole.load()
        missing = _missing(whole)
        if missing > MOST_MISSING or "progressive" in whole.info:
            raise PictureError("damaged or cut short: more than a tenth is missing") from None
        whole.info[CUT_SHORT] = True
        return whole
    return image


def _missing(image: Image.Image) -> float:
    """Return the share of rows at the end of a picture that are all of one colour."""
    pixels = np.asarray(image)
    same = (pixels == pixels[-1, -1]).reshape(len(pixels), -1).all(axis=1)
    return float(np.argmin(same[::-1]) / len(same)) if not same.all() else 1.0


@contextmanager
def decoding() -> Iterator[None]:
    """Turn any error of a decoder into `PictureError`."""
    try:
        yield
    except PictureError:
        raise
    except MemoryError as error:
        raise PictureError("decoding it takes more memory than there is for a picture of its size") from error
    except Exception as error:  # decoders raise anything for damaged bytes
        raise _damaged(error) from error


def _damaged(error: Exception) -> PictureError:
    said = first_line(error)[:200]
    if "build `libjxl`" in said:  # the decoder of JPEG XL advises those who built it
        return PictureError("damaged or cut short")
    return PictureError(f"damaged or cut short ({said})")


@cache
def register_formats() -> None:
    """Teach Pillow every format, once, before threads decode."""
    import pillow_heif

    # Pillow warns above its own limit, which is one for the whole process; ours are checked for each picture.
    Image.MAX_IMAGE_PIXELS = max(MAX_PIXELS, MAX_REQUEST_PIXELS)

    pillow_heif.register_heif_opener()
    with suppress(ImportError):  # an extra; `_why_unknown` names it
        import pillow_jxl  # noqa: F401
    Image.init()


def draft_factor(image: Image.Image) -> int:
    """Return by how much a picture can be reduced without a loss that a tower sees, at least 1."""
    return max(1, min(min(image.size) // SHORT_EDGE, max(image.size) // LONG_EDGE))


def draft(image: Image.Image) -> None:
    """Let the JPEG decoder skip detail that no tower sees. Other formats ignore it."""
    factor = draft_factor(image)
    if factor > 1 and image.mode in ("RGB", "L"):
        image.draft(image.mode, (image.width // factor, image.height // factor))


def orientation(exif: Image.Exif) -> int:
    """Return EXIF's orientation, 1 to 8, or 1 (upright) for any other value."""
    try:
        value = int(exif.get(ORIENTATION, 1))
    except Exception:  # EXIF may hold anything, and Pillow then raises anything
        return 1
    return value if value in range(1, 9) else 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Return RGB: transparency on white, 16 bits and floats brought to 8, inks and greys by their profile.

    A profile of RGB colours stays in `info`, for `to_srgb`, which costs less once the picture is small.
    """
    profile = image.info.get("icc_profile")
    space = profile[16:20] if isinstance(profile, bytes) else b""
    if image.mode in ("CMYK", "LAB") or (image.mode == "L" and space == b"GRAY"):
        image, space = _as_srgb(image), b""
    if image.mode.startswith(("I", "F")):
        image = _eight_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(layer, mask=layer.getchannel("A"))
        is_grey = image.mode == "LA"
    elif image.mode == "RGB":
        return image
    else:
        rgb = image.convert("RGB")
        is_grey = image.mode in ("1", "L")
    if space == b"RGB " and not is_grey:
        rgb.info["icc_profile"] = profile
    else:
        rgb.info.pop("icc_profile", None)  # it describes the colours of the other mode
    return rgb


def to_srgb(image: Image.Image) -> Image.Image:
    """Return an RGB picture in the colours of sRGB, without a profile.

    A profile that cannot be read is left aside. A camera's wide colours, taken for sRGB, look dull to people
    and to models alike.
    """
    profile = image.info.pop("icc_profile", None)
    if not isinstance(profile, bytes) or len(profile) > LARGEST_PROFILE:
        return image
    transform = _transform_to_srgb(profile)
    if transform is None:
        return image
    return ImageCms.applyTransform(image, transform) or image


@lru_cache(maxsize=16)
def _transform_to_srgb(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return the transformation from a profile's RGB, or None if it changes nothing or cannot be read."""
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    seen = np.asarray(ImageCms.applyTransform(Image.fromarray(colours), transform))
    # Most profiles of photographs are one of the many forms of sRGB itself.
    return None if np.abs(seen.astype(int) - colours).max() <= SAME_COLOUR else transform


def shrink(image: Image.Image) -> Image.Image:
    """Return an RGB picture reduced by a whole factor, as far as the encoders and the thumbnail allow."""
    factor = max(draft_factor(image), math.ceil(math.sqrt(image.width * image.height / MOST_PIXELS)))
    return image.reduce(factor) if factor > 1 else image


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the picture turned upright by EXIF's `orientation`, 1 to 8."""
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _as_srgb(image: Image.Image) -> Image.Image:
    """Return CMYK or LAB as RGB by its colour profile, or unchanged if the profile is unusable."""
    profile = image.info.get("icc_profile")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        rgb = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image
    if rgb is None:  # only a transformation in place returns nothing
        return image
    rgb.info.pop("icc_profile", None)  # sRGB is what everybody assumes
    return rgb


def _eight_bits(image: Image.Image) -> Image.Image:
    values: np.ndarray = np.asarray(image).astype(np.float32)
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    if image.mode.startswith("I") and values.min(initial=0) >= 0 and values.max(initial=0) <= 65535:
        # Cameras and scanners write 10, 12 or 14 bits into 16: taken for 16, such a picture is black.
        top = next(2**bits - 1 for bits in SAMPLE_BITS if values.max(initial=0) <= 2**bits - 1)
        values = values * (255.0 / top)
    else:
        low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else (values.min(), values.max())
        values = (values - low) * (255.0 / max(high - low, 1e-9))
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8), "L")


MAX_SCANS = 100
"""of a JPEG: an encoder writes about ten, and each costs the time of all pixels"""
MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""of a JPEG, except those without a length between compressed data"""
SEQUENTIAL = (0xC0, 0xC1)
END_OF_IMAGE, START_OF_SCAN, WITHOUT_LENGTH = 0xD9, 0xDA, (0x01, 0xD8)
PLAIN_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "zstd", "group3", "group4")
"""compressions of TIFF whose time follows from the number of pixels"""
DEAR_PIXELS, DEAR_JPEG = 16_000_000, 400_000_000
"""pixels, and of a JPEG pixels times scans, from which on a picture is decoded in a process of its own"""
MEGABYTE = 1 << 20


class NoRoomError(Exception):
    """The budget is used up, and as many wait for room as may."""


class Budget:
    """A weighted semaphore: bytes that all pictures under way may take together, first come, first served.

    `waiting` threads may wait for room, each at most `seconds`. None means without a bound. A picture counts
    at least `least`, and one that is larger than the budget takes all of it.
    """

    def __init__(
        self, size: int, *, least: int = 0, waiting: int | None = None, seconds: float | None = None
    ) -> None:
        self.size, self._least, self._waiting, self._seconds = size, least, waiting, seconds
        self._free = size
        self._line: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def room(self, weight: int) -> Iterator[None]:
        """Wait for room and hold it. Raises `NoRoomError`."""
        weight = min(max(weight, self._least), self.size)
        with self._changed:
            self._wait(weight)
            self._free -= weight
        try:
            yield
        finally:
            with self._changed:
                self._free += weight
                self._changed.notify_all()

    def _wait(self, weight: int) -> None:
        if not self._line and self._free >= weight:
            return
        if self._waiting is not None and len(self._line) >= self._waiting:
            raise NoRoomError
        ticket = object()
        self._line.append(ticket)
        try:
            if not self._changed.wait_for(
                lambda: self._line[0] is ticket and self._free >= weight, self._seconds
            ):
                raise NoRoomError
        finally:
            self._line.remove(ticket)
            self._changed.notify_all()


@dataclass(frozen=True)
class Limits:
    """The limits of one picture, and the budget that it shares with others."""

    pixels: int
    within_budget: bool
    """whether a picture that would take more than the whole budget is refused, or waits to have it alone"""
    side: int
    seconds: float
    """for decoding, where that is done in a process of its own"""
    always_apart: bool
    """whether every picture is decoded there, or only one that looks dear"""
    budget: Budget

    def check(self, image: Image.Image, data: bytes) -> None:
        """Raise `PictureError` when an opened picture is over a limit. `data` is the file's content."""
        pixels, limit = image.width * image.height, self.pixels
        if self.within_budget:
            limit = min(limit, self.budget.size * pixels // max(1, memory_of(image, data)))
        if pixels > limit:
            raise PictureError("too many pixels", pixels=pixels, limit=limit)
        if max(image.size) > self.side:
            raise PictureError(f"a side of {max(image.size)} pixels is over the limit of {self.side}")
        if scans_of(image, data) > MAX_SCANS:
            raise PictureError(f"a JPEG of more than {MAX_SCANS} scans; save it again with another program")

    def is_apart(self, image: Image.Image, data: bytes) -> bool:
        """Return whether an opened picture is decoded in a process of its own."""
        return self.always_apart or is_dear(image, data)


FILES = Limits(
    pixels=MAX_PIXELS,
    within_budget=False,
    side=65_535,
    seconds=60,
    always_apart=False,
    budget=Budget(4096 * MEGABYTE),
)
"""of files in folders; --max-pixels moves the first one"""
REQUESTS = Limits(
    pixels=MAX_REQUEST_PIXELS,
    within_budget=True,
    side=30_000,
    seconds=15,
    always_apart=True,
    budget=Budget(900 * MEGABYTE, least=100 * MEGABYTE, waiting=24, seconds=20),
)
"""of pictures that requests bring, to search with and to add: the budget is that of the whole server"""


def scans_of(image: Image.Image, data: bytes) -> int:
    """Return the number of scans of an opened JPEG, about, and 1 for other formats."""
    if image.format not in ("JPEG", "MPO"):
        return 1
    scans = image.info.get("scans")
    if not isinstance(scans, int):
        # Previews in the metadata have scans, too, and what follows the picture: this is never too low.
        scans = 1 if has_one_scan(data) else data.count(b"\xff\xda")
        image.info["scans"] = scans = count_scans(data) if scans > MAX_SCANS else scans
    return scans


def has_one_scan(data: bytes) -> bool:
    """Return whether a JPEG has only one scan, by its header: that takes no time however long the file is."""
    position = components = 0
    for _ in range(1_000):
        match = MARKER.search(data, position)
        if match is None:
            return False
        marker, position = match[1][0], match.end()
        if marker in SEQUENTIAL:
            components = int.from_bytes(data[position + 7 : position + 8], "big")
        elif marker == START_OF_SCAN:
            return data[position + 2 : position + 3] == bytes([components]) != b"\0"
        if marker not in WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return False


def count_scans(data: bytes) -> int:
    """Return the scans of a JPEG by walking its segments, or `MAX_SCANS` + 1 when it has more."""
    position = scans = 0
    while scans <= MAX_SCANS and (match := MARKER.search(data, position)):
        marker, position = match[1][0], match.end()
        if marker == END_OF_IMAGE:
            break
        if marker in WITHOUT_LENGTH:
            continue
        scans += marker == START_OF_SCAN
        position += max(2, int.from_bytes(data[position : position + 2], "big"))
    return scans


def is_dear(image: Image.Image, data: bytes) -> bool:
    """Return whether the header of an opened picture promises no short time of decoding."""
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO"):
        return pixels * scans_of(image, data) > DEAR_JPEG
    if image.format in ("HEIF", "AVIF", "JXL"):  # what is inside may be larger than the header says
        return True
    if image.format == "TIFF" and image.info.get("compression") not in PLAIN_TIFF:
        return True
    return pixels > DEAR_PIXELS


def memory_of(image: Image.Image, data: bytes) -> int:
    """Return about how many bytes it takes to decode an opened picture, by its header."""
    pixels = image.width * image.height
    if image.format in ("JPEG", "MPO"):
        each = 6 if scans_of(image, data) > 3 else 0
        if image.mode in ("RGB", "L"):
            return pixels * each + 8 * pixels // min(draft_factor(image), 8) ** 2
        return pixels * (each + 12)
    if image.format == "WEBP":
        return pixels * 20
    if image.format in ("HEIF", "AVIF", "JXL"):
        return pixels * 12
    return pixels * (6 if image.mode in ("RGB", "L", "1") and not image.has_transparency_data else 16)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""names of glibc's malloc.h"""
ARENAS = 2


def give_memory_back() -> None:
    """Tell glibc to give large blocks back to the system as soon as they are free.

    Otherwise each thread that decodes keeps the memory of its largest picture. To be called before threads
    start. Other C libraries are left as they are.
    """
    if sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # musl has no mallopt
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 8 * MEGABYTE)
        mallopt(M_TRIM_THRESHOLD, 64 * MEGABYTE)  # with less, each picture costs 6 % more
        mallopt(M_ARENA_MAX, ARENAS)
