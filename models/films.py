"""Take pictures out of films, within bounds of time, memory and number.

A film is opened in a process of its own (`models/child_process.py`), which reads the file itself: films are
too large to be handed over. FFmpeg decodes in one thread there.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image
from PIL.Image import Resampling, Transpose

from models.child_process import Facts, run_apart
from models.pixels import FILES, LONG_EDGE, SHORT_EDGE, PictureError

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

EVERY_S, SOONEST_S = 4.0, 1.0
"""a moment so long after the last one is taken if it looks different at all; sooner if the scene changed"""
SCENE, SAME = 0.12, 0.025
"""difference of two pictures, 0 to 1: a new scene, and as good as none"""
MOST_MOMENTS = 120
MOST_LOOKS = 4 * MOST_MOMENTS
"""pictures of a film that are decoded to choose from"""
MOST_FORWARD = 600
"""pictures that are decoded on the way from a key picture to another one"""
INTRO_S, INTRO_STEP_S = 8.0, 0.4
"""how far from the beginning, and how often, the first good picture is looked for; then here and there"""
LATER = (0.1, 0.25, 0.5, 0.75)
"""shares of the length"""
READ_S, LIMIT_S = 45.0, 75.0
"""after the first a film is left with the moments that were found; after the second it has failed"""
SCAN_S = 10.0
"""for finding the key pictures of a film that has no list of them"""
MEMORY = 1536 << 20
"""bytes that FFmpeg may take"""
MOST_PIXELS = 1 << 26
"""of a picture of a film: 8192 x 8192"""
DARK, FLAT, BLURRED = 24, 6.0, 10.0
"""mean and deviation of 255 under which a picture is black, and the strongest edges of a blurred one"""
QUALITY = 90
LONGEST_TAG, MOST_TAGS = 2_000, 60
HD_LINES = 720
"""films from here on have the colours of BT.709 unless they say otherwise"""


@dataclass(frozen=True)
class FilmPicture:
    """A picture of a film."""

    time_ms: int
    webp: bytes
    """upright RGB, as large as models and thumbnails need"""


@dataclass(frozen=True)
class Film:
    """The facts of a film, and pictures of it."""

    duration_ms: int
    width: int
    """pixels, upright"""
    height: int
    codec: str
    """as FFmpeg calls it"""
    has_sound: bool
    tags: Mapping[str, str]
    """what the file says of itself, by lower-case names"""
    first: FilmPicture
    """the first good picture: neither black nor blurred, unless all are"""
    moments: tuple[FilmPicture, ...] = ()
    """later ones, each in a scene of its own or some seconds after the last"""


def read_film(path: Path, *, container: str, moments: bool) -> Film:
    """Return a film's facts and its first good picture, with its `moments` too if they are wanted.

    Raises `PictureError` for whatever FFmpeg makes no picture of within the bounds.
    """
    with FILES.budget.room(MEMORY):
        facts, body = run_apart(
            film_in_child,
            b"",
            seconds=LIMIT_S,
            memory=MEMORY,
            path=str(path),
            container=container,
            most=MOST_MOMENTS if moments else 0,
        )
    pictures, position = [], 0
    for time_ms, size in facts.pop("pictures"):
        pictures.append(FilmPicture(time_ms, body[position : position + size]))
        position += size
    first, *later = pictures
    return Film(**facts, first=first, moments=tuple(later))


def film_picture(path: Path, *, container: str, time_ms: int, edge: int) -> Image.Image:
    """Return the upright RGB picture of a film at a time, its longer edge at most `edge` pixels.

    Raises `PictureError`.
    """
    with FILES.budget.room(MEMORY):
        facts, body = run_apart(
            picture_in_child,
            b"",
            seconds=LIMIT_S,
            memory=MEMORY,
            path=str(path),
            container=container,
            time_ms=time_ms,
            edge=edge,
        )
    return Image.frombytes("RGB", tuple(facts["size"]), body)


def film_in_child(_data: bytes, *, path: str, container: str, most: int) -> tuple[Facts, bytes]:
    """Read a film in a process of its own."""
    with _opened(path, container) as player:
        first = player.first_good()
        chosen = [first, *(player.moments(first, most) if most else ())]
        files = [_webp(shot.picture) for shot in chosen]
        facts = {
            "duration_ms": max(player.duration_ms, *(shot.time_ms for shot in chosen)),
            "width": first.size[0],
            "height": first.size[1],
            "codec": player.stream.codec_context.name,
            "has_sound": bool(player.box.streams.audio),
            "tags": player.tags(),
            "pictures": [(shot.time_ms, len(file)) for shot, file in zip(chosen, files, strict=True)],
        }
    return facts, b"".join(files)


def picture_in_child(
    _data: bytes, *, path: str, container: str, time_ms: int, edge: int
) -> tuple[Facts, bytes]:
    """Return one picture of a film in a process of its own."""
    with _opened(path, container) as player:
        frame = player.frame_at(time_ms / 1000)
        if frame is None:
            raise PictureError("a film without a picture at this time")
        picture = player.picture(frame, short=edge, long=edge)
    return {"size": picture.size}, picture.tobytes()


@dataclass(frozen=True)
class _Shot:
    time_ms: int
    picture: Image.Image
    size: tuple[int, int]
    """pixels of the film's own picture, upright"""
    sketch: np.ndarray
    """float32 `[16, 16, 3]`, 0 to 1"""
    quality: float
    """how far it is from black and blurred; a good one has at least 1"""


@dataclass(frozen=True)
class _Look:
    """A time of a film at which to look."""

    seconds: float
    key: int | None = None
    """a time stamp shortly after a key picture, which is the one to look at"""


@contextmanager
def _opened(path: str, container: str) -> Iterator[_Player]:
    import av

    av.logging.set_level(av.logging.PANIC)
    # A file object and a given format: nothing in a film can make FFmpeg open another file or an address.
    with Path(path).open("rb") as file, av.open(file, format=container, metadata_errors="replace") as box:
        cover = av.stream.Disposition.attached_pic
        streams = [each for each in box.streams.video if not each.disposition & cover]
        if not streams:
            raise PictureError("sound without pictures")
        stream = streams[0]
        if stream.codec_context.width * stream.codec_context.height > MOST_PIXELS:
            raise PictureError(f"pictures of more than {MOST_PIXELS / 1e6:.3g} megapixels")
        stream.codec_context.thread_count = 1
        yield _Player(cast("InputContainer", box), stream)


class _Player:
    """Finds and judges the pictures of an open film."""

    def __init__(self, box: InputContainer, stream: VideoStream) -> None:
        self.box, self.stream = box, stream
        self._end = time.monotonic() + READ_S
        self._base = stream.time_base or Fraction(1, 1000)
        self._start = (stream.start_time or 0) * self._base
        self._keys = self._key_times()

    @property
    def duration_ms(self) -> int:
        """The length, as far as it is known."""
        return round(float(self._duration) * 1000)

    def tags(self) -> dict[str, str]:
        """Return the metadata of the file and of its pictures."""
        found = {**self.stream.metadata, **self.box.metadata}
        return {name.lower(): value[:LONGEST_TAG] for name, value in list(found.items())[:MOST_TAGS]}

    def first_good(self) -> _Shot:
        """Return the first good picture, or the best of those looked at. Raises `PictureError`."""
        best: _Shot | None = None
        for frame in self._candidates():
            shot = self._shot(frame)
            if shot.quality >= 1:
                return shot
            if best is None or shot.quality > best.quality:
                best = shot
        if best is None:
            raise PictureError("damaged, or a film whose pictures are not decoded here")
        return best

    def moments(self, first: _Shot, most: int) -> list[_Shot]:
        """Return up to `most` good pictures after the first, each different from the one before."""
        last, chosen = first, []
        for look in self._looks(first.time_ms / 1000):
            if self._is_late():
                break
            frame = self._key_at(look.key) if look.key is not None else self.frame_at(look.seconds)
            if frame is None or self._time_ms(frame) < last.time_ms + SOONEST_S * 1000:
                continue
            shot = self._shot(frame)
            difference = float(np.abs(shot.sketch - last.sketch).mean())
            passed = (shot.time_ms - last.time_ms) / 1000
            if shot.quality >= 1 and (difference >= SCENE or (difference >= SAME and passed >= EVERY_S)):
                chosen.append(shot)
                last = shot
        step = max(1.0, len(chosen) / most)
        return [chosen[int(place * step)] for place in range(min(most, len(chosen)))]

    def frame_at(self, seconds: float) -> VideoFrame | None:
        """Return the last picture that is shown at a time, or None where none can be decoded."""
        wanted = Fraction(seconds).limit_denominator(1_000_000) + self._start
        found = None
        with suppress(_ffmpeg_error()):
            self.box.seek(int(wanted / self._base), stream=self.stream)
            for number, frame in enumerate(self._frames()):
                if frame.pts is not None and frame.pts * self._base > wanted and found is not None:
                    break
                found = frame
                late = number > MOST_FORWARD or self._is_late()
                if late or (frame.pts is not None and frame.pts * self._base >= wanted):
                    break
        return found

    def picture(self, frame: VideoFrame, *, short: int, long: int) -> Image.Image:
        """Return a picture upright, in RGB, and no larger than its edges need to be."""
        from av.video.reformatter import Colorspace

        width, height = frame.width, frame.height
        if (aspect := self.stream.sample_aspect_ratio) and 0.1 < aspect < 10:
            width = max(1, round(width * float(aspect)))
        scale = min(1.0, max(short / min(width, height), long / max(width, height)))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        says_nothing = frame.colorspace not in {int(each) for each in Colorspace}
        space = Colorspace.ITU709 if says_nothing and frame.height >= HD_LINES else None
        rgb = frame.reformat(width=size[0], height=size[1], format="rgb24", src_colorspace=space)
        turns = {90: Transpose.ROTATE_90, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_270}
        turn = round((frame.rotation or 0) / 90) * 90 % 360
        image = Image.fromarray(rgb.to_ndarray())
        return image.transpose(turns[turn]) if turn in turns else image

    def _candidates(self) -> Iterator[VideoFrame]:
        """Yield pictures of the beginning, then some from farther on."""
        due = 0.0
        with suppress(_ffmpeg_error()):
            self.box.seek(int(self._start / self._base), stream=self.stream)
            for frame in self._frames():
                seconds = self._time_ms(frame) / 1000
                if seconds > INTRO_S or self._is_late():
                    break
                if seconds >= due:
                    due = seconds + INTRO_STEP_S
                    yield frame
        for share in LATER:
            seconds = float(self._duration) * share
            later = None if seconds <= INTRO_S or self._is_late() else self.frame_at(seconds)
            if later is not None:
                yield later

    def _looks(self, first: float) -> list[_Look]:
        """Return where to look: at key pictures, which begin scenes, and in the gaps between them."""
        end, last = float(self._duration), first
        looks: list[_Look] = []
        stop = int((self._duration + self._start) / self._base)
        for place, key in enumerate([*self._keys, stop]):
            seconds = float(key * self._base - self._start)
            while min(seconds, end) - last > 1.5 * EVERY_S:
                last += EVERY_S
                looks.append(_Look(last))
            if place < len(self._keys) and seconds - last >= SOONEST_S:
                # Some containers list key pictures in the order of decoding, somewhat before they are shown.
                following = self._keys[place + 1] if place + 1 < len(self._keys) else max(stop, key)
                looks.append(_Look(seconds, (key + following) // 2))
                last = seconds
        step = max(1.0, len(looks) / MOST_LOOKS)
        return [looks[int(place * step)] for place in range(min(MOST_LOOKS, len(looks)))]

    def _key_times(self) -> list[int]:
        """Return the time stamps of key pictures, as far as they are found, and learn the length."""
        said = [self.stream.duration and self.stream.duration * self._base]
        said.append(self.box.duration and Fraction(self.box.duration, 1_000_000))
        self._duration = max((each for each in said if each), default=Fraction(0))
        keys = [each.timestamp for each in self.stream.index_entries if each.is_keyframe]
        last, until = 0, time.monotonic() + SCAN_S
        if len(keys) < 2 or not self._duration or self.box.format.name.startswith("matroska"):
            keys = []
            with suppress(_ffmpeg_error()):
                for packet in self.box.demux(self.stream):
                    if packet.pts is not None:
                        last = max(last, packet.pts + (packet.duration or 0))
                        keys += [packet.pts] if packet.is_keyframe else []
                    if time.monotonic() > until:
                        break
            if not self._duration:
                self._duration = max(Fraction(0), last * self._base - self._start)
        return sorted(keys)

    def _key_at(self, key: int) -> VideoFrame | None:
        """Return the last key picture up to a time stamp, or None where none can be decoded."""
        with suppress(_ffmpeg_error()):
            self.box.seek(key, stream=self.stream)
            return next(self._frames(), None)
        return None

    def _frames(self) -> Iterator[VideoFrame]:
        """Yield pictures from where the film stands. A damaged stretch is passed over."""
        error_class, faults = _ffmpeg_error(), 0
        for packet in self.box.demux(self.stream):
            try:
                yield from self.stream.decode(packet)
            except error_class:
                faults += 1
                if faults > MOST_FORWARD:
                    return

    def _shot(self, frame: VideoFrame) -> _Shot:
        picture = self.picture(frame, short=SHORT_EDGE, long=LONG_EDGE)
        width, height = frame.width, frame.height
        if (aspect := self.stream.sample_aspect_ratio) and 0.1 < aspect < 10:
            width = max(1, round(width * float(aspect)))
        is_turned = (picture.width > picture.height) != (width > height)
        size = (height, width) if is_turned else (width, height)
        sketch = np.asarray(picture.resize((16, 16), Resampling.BOX), np.float32) / 255
        return _Shot(self._time_ms(frame), picture, size, sketch, _quality(picture))

    def _time_ms(self, frame: VideoFrame) -> int:
        return max(0, int(((frame.pts or 0) * self._base - self._start) * 1000))

    def _is_late(self) -> bool:
        return time.monotonic() > self._end


def _quality(picture: Image.Image) -> float:
    """Return the least of light, contrast and sharpness, each 1 where it is just enough."""
    small = picture.convert("L").resize((160, 160), Resampling.BILINEAR, reducing_gap=2.0)
    grey: np.ndarray = np.asarray(small, np.float32)
    edges = np.abs(4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:])
    light, contrast = float(np.percentile(grey, 90)) / DARK, float(grey.std()) / FLAT
    return min(light, contrast, float(np.percentile(edges, 99)) / BLURRED)


def _webp(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=QUALITY, method=0)
    return data.getvalue()


def _ffmpeg_error() -> Any:
    from av.error import FFmpegError

    return FFmpegError
