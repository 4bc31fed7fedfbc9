"""Draw flat shapes with an outlined silhouette, in the coordinates of one subject's box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

PAINT: dict[str, Colour] = {
    "red": (224, 44, 48),
    "blue": (40, 104, 226),
    "green": (44, 160, 74),
    "yellow": (252, 212, 48),
    "orange": (246, 134, 24),
    "purple": (138, 56, 188),
    "pink": (252, 146, 196),
    "black": (40, 40, 48),
    "white": (250, 250, 250),
}
INK = (38, 36, 52)
CREAM = (255, 246, 224)
WOOD = (134, 86, 48)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Return `one` with `share` (0 to 1) of `other` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


@dataclass(frozen=True)
class Shape:
    """A recorded shape in pixels: `polygon`, `line`, `ellipse` or `dome` (its upper half).

    `points` are the corners; of an ellipse or dome, two opposite corners of its box.
    """

    form: str
    points: list[Point]
    fill: Colour
    width: float = 0.0


class Pen:
    """Record shapes in a box that spans -0.5 to 0.5 both ways (y down), then paint them outlined.

    The outlines are painted before all fills, so only the silhouette keeps one.
    """

    def __init__(self, draw: ImageDraw.ImageDraw, *, at: Point, size: float, facing: int, colour: str):
        """Place a box of side `size` around `at`, both in pixels, mirrored if `facing` is -1."""
        self._draw, self._at, self._size, self._facing = draw, at, size, facing
        self._shapes: list[Shape] = []
        self.body = PAINT[colour]
        self.dark = mix(self.body, INK, 0.28) if colour != "black" else (20, 20, 26)
        self.light = mix(self.body, (255, 255, 255), 0.42 if colour != "black" else 0.24)
        if colour == "white":
            self.dark, self.light = (206, 212, 224), (228, 232, 240)
        # A black subject needs a pale rim to be seen at night, and every other a dark one on snow or cloud.
        self._rim = (196, 202, 220) if colour == "black" else mix(INK, self.body, 0.18)

    def _point(self, x: float, y: float) -> Point:
        return self._at[0] + x * self._size * self._facing, self._at[1] + y * self._size

    def _corners(self, x: float, y: float, rx: float, ry: float) -> list[Point]:
        (cx, cy), rx, ry = self._point(x, y), rx * self._size, ry * self._size
        return [(cx - rx, cy - ry), (cx + rx, cy + ry)]

    def poly(self, points: Sequence[Point], fill: Colour) -> None:
        """Record a filled polygon."""
        self._shapes.append(Shape("polygon", [self._point(*point) for point in points], fill))

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Record a filled ellipse by centre and radii."""
        self._shapes.append(Shape("ellipse", self._corners(x, y, rx, ry), fill))

    def dome(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Record the upper half of an ellipse whose flat side is at `y`."""
        self._shapes.append(Shape("dome", self._corners(x, y, rx, ry), fill))

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        """Record a filled rectangle."""
        self.poly([(left, top), (right, top), (right, bottom), (left, bottom)], fill)

    def line(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """Record a line whose `width` is a share of the box's side."""
        placed = [self._point(*point) for point in points]
        self._shapes.append(Shape("line", placed, fill, width * self._size))

    def eye(self, x: float, y: float, r: float) -> None:
        """Record a friendly eye."""
        self.ellipse(x, y, r, r * 1.15, (255, 255, 255))
        self.ellipse(x + r * 0.25, y + r * 0.1, r * 0.6, r * 0.75, INK)

    def paint(self) -> None:
        """Paint the recorded shapes on the canvas."""
        rim = max(1.0, self._size * 0.022)
        for shape in self._shapes:
            self._rim_of(shape, rim)
        for shape in self._shapes:
            self._fill(shape)

    def _rim_of(self, shape: Shape, rim: float) -> None:
        points = shape.points
        if shape.form == "polygon":
            self._draw.line([*points, points[0], points[1]], self._rim, round(2 * rim), joint="curve")
        elif shape.form == "line":
            self._draw.line(points, self._rim, round(shape.width + 2 * rim), joint="curve")
        else:
            (left, top), (right, bottom) = points
            grown = (left - rim, top - rim, right + rim, bottom + rim)
            if shape.form == "dome":
                self._draw.chord(grown, 180, 360, self._rim)
            else:
                self._draw.ellipse(grown, self._rim)

    def _fill(self, shape: Shape) -> None:
        if shape.form == "polygon":
            self._draw.polygon(shape.points, shape.fill)
        elif shape.form == "line":
            self._draw.line(shape.points, shape.fill, max(1, round(shape.width)), joint="curve")
        elif shape.form == "dome":
            self._draw.chord(shape.points, 180, 360, shape.fill)
        else:
            self._draw.ellipse(shape.points, shape.fill)
