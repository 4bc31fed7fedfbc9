"""What a subject stands on: a sand island at sea, a pond for what floats, or its own shadow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.world.layout import Placed
from demo.world.pen import Colour
from demo.world.scene import AFLOAT, FLYING
from demo.world.sky import lit

if TYPE_CHECKING:
    from PIL import ImageDraw

WATER, FOAM, SAND = (52, 136, 200), (206, 232, 246), (238, 212, 150)


class Footing:
    """Draws what is under and in front of subjects, on a canvas `width` pixels wide."""

    def __init__(self, draw: ImageDraw.ImageDraw, width: int, *, place: str, weather: str):
        self._draw, self._width, self._place, self._weather = draw, width, place, weather

    def _lit(self, colour: Colour) -> Colour:
        return lit(colour, self._weather)

    def _foot(self, one: Placed, share: float) -> tuple[float, float, float]:
        """Return the middle of a subject at `share` of its size below its centre, and half its width."""
        y = (one.y + one.size * share) * self._width
        return one.x * self._width, y, one.size * self._width * 0.5

    def draw_under(self, one: Placed) -> None:
        """Draw what is under a subject that does not fly."""
        if one.kind in FLYING:
            return
        x, y, reach = self._foot(one, 0.47)
        if one.kind in AFLOAT:
            if self._place != "sea":
                self._oval(x, y, reach * 1.24, reach * 0.36, self._lit(FOAM))
                self._oval(x, y, reach * 1.18, reach * 0.31, self._lit(WATER))
            self._oval(x, y, reach * 0.85, reach * 0.16, (12, 40, 80, 80))
        elif self._place == "sea":
            self._oval(x, y + reach * 0.06, reach * 1.26, reach * 0.34, self._lit(FOAM))
            self._oval(x, y + reach * 0.02, reach * 1.16, reach * 0.28, self._lit(SAND))
        else:
            self._oval(x, y, reach * 1.0, reach * 0.17, (20, 24, 40, 80))

    def draw_before(self, one: Placed) -> None:
        """Draw water in front of what floats, so that a boat lies in it and a fish leaps out of it."""
        x, y, reach = self._foot(one, 0.46)
        if one.kind == "boat":
            self._bow_wave(x, y, reach)
        elif one.kind == "fish":
            for share in (0.62, 0.36):
                self._ring(x, y, reach * share)
            for dx, dy in ((-0.62, 0.28), (-0.42, 0.5), (0.42, 0.5), (0.62, 0.28)):
                self._oval(x + dx * reach, y - dy * reach, reach * 0.055, reach * 0.085, self._lit(FOAM))

    def _bow_wave(self, x: float, y: float, reach: float) -> None:
        for position in range(-2, 3):
            middle, wide = x + position * reach * 0.4, reach * 0.22
            self._draw.chord((middle - wide, y - wide, middle + wide, y + wide), 0, 180, self._lit(WATER))
            where = (middle - wide, y - wide * 1.1, middle + wide, y + wide * 0.5)
            self._draw.arc(where, 0, 180, self._lit(FOAM), max(1, self._width // 140))

    def _ring(self, x: float, y: float, rx: float) -> None:
        where = (x - rx, y - rx * 0.24, x + rx, y + rx * 0.24)
        self._draw.ellipse(where, outline=self._lit(FOAM), width=max(1, self._width // 150))

    def _oval(self, x: float, y: float, rx: float, ry: float, fill: tuple[int, ...]) -> None:
        self._draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill)
