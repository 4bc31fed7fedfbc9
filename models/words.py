"""Read the text that is written in a picture, with PP-OCR's detector and recogniser.

The detector first sees a small copy of the picture, and a count of sharp edges tells where letters may be
that are too small for that copy. Where both find nothing, nothing is read, which costs a fraction. Where they
find something, the detector looks at that part again in full size, and the recogniser reads the lines. A part
is cut out narrowly, since blurred backgrounds look like text when they are seen large.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image, Resampling

from models.errors import ModelError, first_line

READ_EDGE = 2000
"""pixels of the longer edge from which on a picture is reduced before it is read"""
PROBE_EDGE = 480
"""of the small copy: letters of 14 pixels in a picture of 1600 are still seen in it"""
PART_EDGE = 736
"""of a part, as the detector sees it; the recogniser gets the lines in full size"""
SMALLEST_EDGE = 32
"""of anything that the detector takes"""
TILE, SHARP, DENSE, TILES = 16, 60, (0.25, 0.4), 6
"""pixels of a tile; grey levels of a sharp edge; their share of a tile of letters; such tiles of a part"""
BLOT, LEAST_SHARP = 64, 0.1
"""pixels of the small copy from which on a line is no text if it has a smaller share of sharp edges"""
MOST_FINE = 2 * PROBE_EDGE * PROBE_EDGE
"""pixels of the parts that are looked at for their edges alone: foliage has as many"""
INSIDE = 4
"""a part of sharp edges is left out in one that is seen anyway and at most so many times as large"""
MAYBE, SURELY = 0.3, 0.5
"""the detector's confidence, in the small copy and in a part"""
LEAST_CONFIDENCE, LEAST_ALONE = 0.5, 0.95
"""of the recogniser in a line that is kept, and in a single letter: an edge or a twig looks like one"""
MARGIN = (0.7, 3.0)
"""around a part: heights of its text, and pixels of the small copy"""
GROWTH, ROUNDS, CLOSE = 1.7, 3, 0.3
"""a part grows by so many heights of a line beyond the lines read in it, so often, unless that is little"""
MOST_PARTS, MOST_LINES, LONGEST_LINE = 32, 400, 500
"""of one picture, and characters of one line"""

Box = tuple[float, float, float, float]
"""left, top, right and bottom, in pixels"""
FoundLine = tuple[str, float, np.ndarray]
"""letters, the recogniser's confidence and the corners `[4, 2]` in pixels"""


@dataclass(frozen=True)
class TextLine:
    """A line of text in a picture."""

    text: str
    confidence: float
    """0 to 1, the recogniser's"""
    corners: tuple[tuple[float, float], ...]
    """four points (x, y), 0 to 1 of the picture's width and height, clockwise from the first letter's top"""


class WordReader:
    """PP-OCR through ONNX Runtime. Its `revision` is the fingerprint of its models. One picture at a time."""

    def __init__(self, engine: Any, revision: str) -> None:
        """Take a `RapidOCR`, whose arguments stay from one call to the next, and so are always given."""
        self._engine, self.revision = engine, revision
        self._lock = threading.Lock()

    def read(self, image: Image) -> tuple[TextLine, ...]:
        """Return the lines of an upright RGB picture, from top to bottom, or none.

        Raises whatever ONNX Runtime and OpenCV raise for a strange picture.
        """
        image = reduced(image)
        with self._lock:
            found: list[FoundLine] = []
            for part in self._parts(image):
                found = _united(found, self._read_part(image, part))
        lines = [_line(text, score, corners, image.size) for text, score, corners in found]
        lines.sort(key=lambda each: (min(y for _, y in each.corners), each.corners[0][0]))
        return tuple(lines[:MOST_LINES])

    def has_text(self, image: Image) -> bool:
        """Return whether there may be text in a picture: the cheap look that comes first."""
        with self._lock:
            return bool(self._parts(reduced(image)))

    def _parts(self, image: Image) -> list[Box]:
        """Return the parts of a picture that may hold text, those with small letters first."""
        seen = self._seen(image)
        fine = [
            each
            for each in fine_parts(image)
            if not any(_holds(part, each) and _area(part) <= INSIDE * _area(each) for part in seen)
        ]
        return [*fine, *seen][:MOST_PARTS]

    def _seen(self, image: Image) -> list[Box]:
        """Return the parts in which the detector sees text in a small copy, apart from each other."""
        small = _scaled(image, PROBE_EDGE)
        seen = self._engine(
            _pixels(small), use_det=True, use_cls=False, use_rec=False, box_thresh=MAYBE
        ).boxes
        if seen is None:
            return []
        sharp = _sharp_edges(small)
        across, down = image.width / small.width, image.height / small.height
        heights, pixels = MARGIN
        boxes = []
        for corners in seen:
            if _height(corners) > BLOT and _share(sharp, corners) < LEAST_SHARP:
                continue
            margin = heights * _height(corners) + pixels
            left, top, right, bottom = _around(corners, margin)
            boxes.append(_inside((left * across, top * down, right * across, bottom * down), image))
        return _merged(boxes)

    def _read_part(self, image: Image, part: Box) -> list[FoundLine]:
        """Read a part, and again with more around it as long as lines come close to its edges."""
        best: list[FoundLine] = []
        for _ in range(ROUNDS):
            lines = self._read_once(image, part)
            if _weight(lines) <= _weight(best):
                break
            best = lines
            height = float(np.median([_height(corners) for _, _, corners in lines]))
            grown = _inside(_around(np.concatenate([each for _, _, each in lines]), GROWTH * height), image)
            is_news = (
                before - after if side < 2 else after - before
                for side, (before, after) in enumerate(zip(part, grown, strict=True))
            )
            if max(is_news) <= CLOSE * height:
                break
            part = grown
        return best

    def _read_once(self, image: Image, part: Box) -> list[FoundLine]:
        cut = image.crop((int(part[0]), int(part[1]), int(part[2]), int(part[3])))
        found = self._engine(_pixels(cut), use_det=True, use_cls=True, use_rec=True, box_thresh=SURELY)
        if found.boxes is None or getattr(found, "txts", None) is None:
            return []
        offset = np.array([int(part[0]), int(part[1])])
        lines = zip(found.txts, found.scores, found.boxes, strict=True)
        return [
            (text.strip(), float(score), corners + offset)
            for text, score, corners in lines
            if score >= LEAST_ALONE or len(text.strip()) > 1
        ]


def fine_parts(image: Image) -> list[Box]:
    """Return the parts of a picture with many sharp edges close together, as small letters have them.

    The densest come first. A part that is too large to be looked at gives way to the denser ones in it.
    """
    import cv2

    sharp = _sharp_edges(image)
    rows, columns = (-(-size // TILE) for size in sharp.shape)
    padded = np.zeros((rows * TILE, columns * TILE), np.float32)
    padded[: sharp.shape[0], : sharp.shape[1]] = sharp
    shares = cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA)
    found: list[Box] = []
    left = MOST_FINE
    for least in DENSE:
        dense = shares > least
        around = cv2.dilate(dense.astype(np.uint8), np.ones((3, 5), np.uint8))
        _, numbers, places, _ = cv2.connectedComponentsWithStats(around, connectivity=8)
        counts = np.bincount(numbers[dense], minlength=len(places))
        for number in sorted(range(1, len(places)), key=lambda each: -counts[each] / places[each][4]):
            across, down, width, height = (int(each) * TILE for each in places[number][:4])
            box = _inside((across, down, across + width, down + height), image)
            is_new = not any(_overlap(each, box) for each in found)
            if counts[number] >= TILES and width * height <= left and is_new:
                left -= width * height
                found.append(box)
    return found


def _sharp_edges(image: Image) -> np.ndarray:
    """Return where the grey levels of neighbours differ much, bool `[height, width]`."""
    import cv2

    grey = np.asarray(image.convert("L"))
    sharp: np.ndarray = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > SHARP
    return sharp


def _share(sharp: np.ndarray, corners: np.ndarray) -> float:
    left, top, right, bottom = (max(0, int(each)) for each in _around(corners, 1))
    return float(sharp[top : bottom + 1, left : right + 1].mean())


def _united(lines: Sequence[FoundLine], more: Sequence[FoundLine]) -> list[FoundLine]:
    """Return lines of two parts, of those at the same place the one that says more."""
    united = list(lines)
    for line in more:
        met = [each for each in united if _same_place(each[2], line[2])]
        if _weight(met) < _weight([line]):
            united = [each for each in united if not any(each is other for other in met)]
            united.append(line)
    return united


def _same_place(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether the middle of one box is inside the other, or the other way round."""
    import cv2

    return any(
        cv2.pointPolygonTest(box.astype(np.float32), tuple(map(float, points.mean(axis=0))), False) >= 0
        for box, points in ((one, other), (other, one))
    )


def reduced(image: Image) -> Image:
    """Return a picture whose longer edge is at most `READ_EDGE`, itself if it is no larger."""
    return _scaled(image, READ_EDGE)


def load_word_reader(*, threads: int | None = None) -> WordReader:
    """Load the models of the package `rapidocr` and download nothing. Raises `ModelError`.

    ONNX Runtime gets `threads`, by default half of the processors, so that searches go on meanwhile.
    """
    try:
        import rapidocr

        logging.getLogger("RapidOCR").setLevel(logging.ERROR)
        folder = Path(rapidocr.__file__).parent / "models"
        engine = rapidocr.RapidOCR(params=_parameters(folder, threads or max(1, (os.cpu_count() or 2) // 2)))
        reader = WordReader(engine, _fingerprint(folder))
        blank = np.full((SMALLEST_EDGE, 64, 3), 255, np.uint8)
        for use_det in (True, False):  # loads all three, so that one that is damaged is told now
            engine(blank, use_det=use_det, use_cls=not use_det, use_rec=not use_det)
    except Exception as error:  # the package, ONNX Runtime and OpenCV each raise their own
        raise ModelError(
            f"The models that read text in pictures cannot be used ({first_line(error)}): install the package"
            " again with `pip install --force-reinstall rapidocr`."
        ) from error
    return reader


DETECTOR, RECOGNISER = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"
TURNS = "ch_ppocr_mobile_v2.0_cls_mobile.onnx"


def _parameters(folder: Path, threads: int) -> dict[str, Any]:
    # With the paths given, the package looks for nothing and asks no server.
    models = {"Det": DETECTOR, "Rec": RECOGNISER, "Cls": TURNS}
    paths = {f"{role}.model_path": str(folder / name) for role, name in models.items()}
    return paths | {
        "Global.log_level": "error",
        "Global.text_score": LEAST_CONFIDENCE,
        "Global.max_side_len": READ_EDGE,
        "Det.limit_type": "max",  # the other one enlarges a narrow picture without bound
        "Det.limit_side_len": PART_EDGE,
        "EngineConfig.onnxruntime.intra_op_num_threads": threads,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    }


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (DETECTOR, RECOGNISER):
        digest.update((folder / name).read_bytes())
    return f"PP-OCRv6-small-{digest.hexdigest()[:12]}"


def _scaled(image: Image, edge: int) -> Image:
    scale = edge / max(image.size)
    if scale >= 1:
        return image
    size = (max(SMALLEST_EDGE, round(image.width * scale)), max(SMALLEST_EDGE, round(image.height * scale)))
    return image.resize(size, Resampling.BILINEAR, reducing_gap=2.0)


def _pixels(image: Image) -> np.ndarray:
    """Return blue, green and red, uint8 `[height, width, 3]`, and never too little for the detector."""
    pixels = np.asarray(image.convert("RGB"))[:, :, ::-1]
    rows, columns = (max(0, SMALLEST_EDGE - size) for size in pixels.shape[:2])
    return np.pad(pixels, ((0, rows), (0, columns), (0, 0)), mode="edge") if rows or columns else pixels


def _height(corners: np.ndarray) -> float:
    """Return the shorter side of a box in pixels."""
    across, down = np.linalg.norm(corners[0] - corners[1]), np.linalg.norm(corners[0] - corners[3])
    return float(min(across, down))


def _around(points: np.ndarray, margin: float) -> Box:
    (left, top), (right, bottom) = points.min(axis=0) - margin, points.max(axis=0) + margin
    return float(left), float(top), float(right), float(bottom)


def _inside(box: Box, image: Image) -> Box:
    left, top, right, bottom = box
    return max(0.0, left), max(0.0, top), min(float(image.width), right), min(float(image.height), bottom)


def _merged(boxes: Sequence[Box]) -> list[Box]:
    """Return boxes that do not overlap and cover the given ones."""
    apart: list[Box] = []
    waiting = list(boxes)
    while waiting:
        box = waiting.pop()
        met = next((each for each in apart if _overlap(each, box)), None)
        if met is None:
            apart.append(box)
            continue
        apart.remove(met)
        waiting.append((min(met[0], box[0]), min(met[1], box[1]), max(met[2], box[2]), max(met[3], box[3])))
    return sorted(apart, key=lambda each: (each[1], each[0]))


def _holds(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _weight(lines: Sequence[FoundLine]) -> float:
    return sum(len(text) * score for text, score, _ in lines)


def _line(text: str, score: float, corners: np.ndarray, size: tuple[int, int]) -> TextLine:
    relative = np.clip(corners / np.array(size), 0, 1)
    points = tuple((round(float(x), 4), round(float(y), 4)) for x, y in relative)
    return TextLine(text[:LONGEST_LINE], round(score, 3), points)
