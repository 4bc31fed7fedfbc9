"""The six places: what is far away, the ground, and its small things."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from demo.world.layout import HORIZON
from demo.world.pen import Colour
from demo.world.sky import gradient, lit

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

GROUND: dict[str, tuple[Colour, Colour]] = {
    "sea": ((38, 122, 190), (20, 82, 150)),
    "meadow": ((132, 196, 82), (86, 156, 58)),
    "desert": ((234, 200, 134), (212, 166, 96)),
    "city": ((132, 134, 146), (96, 98, 110)),
    "forest": ((78, 128, 70), (52, 96, 56)),
    "mountains": ((240, 246, 252), (206, 222, 240)),
}
WALLS = ((112, 122, 148), (140, 124, 128), (92, 104, 128), (150, 138, 120))


class Land:
    """Draws the ground of one picture in one weather; `light` is the x of a sun or moon."""

    def __init__(
        self,
        image: Image.Image,
        draw: ImageDraw.ImageDraw,
        *,
        weather: str,
        rng: Random,
        light: float | None = None,
    ):
        self._light = light
        self._image, self._draw, self._weather, self._rng = image, draw, weather, rng
        self._width, self._horizon = image.width, HORIZON * image.width

    def _lit(self, colour: Colour) -> Colour:
        return lit(colour, self._weather)

    def draw_place(self, place: str) -> None:
        """Draw what is far away, the ground, and its small things."""
        {"city": self._skyline, "mountains": self._peaks}.get(place, lambda: None)()
        top, bottom = (self._lit(colour) for colour in GROUND[place])
        height = self._width - round(self._horizon)
        self._image.paste(gradient(top, bottom, self._width, height), (0, round(self._horizon)))
        near = {
            "sea": self._waves,
            "meadow": self._grass,
            "desert": self._dunes,
            "city": self._street,
            "forest": self._pines,
            "mountains": self._drifts,
        }
        near[place]()

    def _spot(self, top: float = 0.6) -> tuple[float, float]:
        return self._rng.random() * self._width, self._rng.uniform(top, 1.0) * self._width

    def _poly(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self._draw.polygon([(x * self._width, y * self._width) for x, y in points], self._lit(colour))

    def _waves(self) -> None:
        for _ in range(26):
            (x, y), reach = self._spot(0.57), self._width * self._rng.uniform(0.02, 0.045)
            where = (x - reach, y, x + reach, y + reach * 0.7)
            self._draw.arc(where, 200, 340, self._lit((120, 186, 226)), max(1, self._width // 160))

        for step in range(11 if self._light else 0):
            x, y = (
                (self._light + self._rng.uniform(-0.03, 0.03)) * self._width,
                (0.565 + step * 0.038) * self._width,
            )
            reach = self._rng.uniform(0.012, 0.05) * self._width
            self._draw.line((x - reach, y, x + reach, y), (255, 240, 196, 150), max(1, self._width // 130))

    def _grass(self) -> None:
        x, reach = self._rng.uniform(0.1, 0.9) * self._width, 0.55 * self._width
        far = (x - reach, self._horizon - 0.1 * self._width, x + reach, self._horizon + 0.3 * self._width)
        self._draw.chord(far, 180, 360, self._lit((112, 180, 76)))
        for _ in range(24):
            (x, y), tall = self._spot(0.64), self._width * 0.018
            self._draw.line(
                (x, y, x + tall * 0.4, y - tall), self._lit((64, 132, 48)), max(1, self._width // 180)
            )
        for _ in range(9):
            (x, y), r = self._spot(0.64), self._width * 0.007
            self._draw.ellipse((x - r, y - r, x + r, y + r), self._lit((255, 250, 226)))

    def _dunes(self) -> None:
        for _ in range(3):
            x, y = self._rng.uniform(-0.1, 0.9), self._rng.uniform(0.56, 0.7)
            crest = (x + 0.2, y - 0.07)
            self._poly([(x - 0.2, y + 0.03), crest, (x + 0.62, y + 0.05)], (240, 210, 150))
            self._poly([crest, (x + 0.24, y + 0.04), (x + 0.62, y + 0.05)], (208, 168, 104))
        for x in (self._rng.uniform(0.03, 0.1), self._rng.uniform(0.9, 0.97)):
            self._cactus(x * self._width, self._rng.uniform(0.6, 0.66) * self._width, 0.11 * self._width)

    def _cactus(self, x: float, y: float, tall: float) -> None:
        colour, wide = self._lit((64, 132, 84)), max(2, round(tall * 0.2))
        for points in (
            ((x, y), (x, y - tall)),
            ((x, y - tall * 0.35), (x - tall * 0.32, y - tall * 0.35), (x - tall * 0.32, y - tall * 0.7)),
            ((x, y - tall * 0.5), (x + tall * 0.32, y - tall * 0.5), (x + tall * 0.32, y - tall * 0.85)),
        ):
            self._draw.line(points, colour, wide, joint="curve")

    def _skyline(self) -> None:
        window = (255, 222, 128) if self._weather in ("night", "sunset", "rain") else (206, 226, 240)
        left = -self._rng.random() * 0.05
        while left < 1:
            wide, tall = self._rng.uniform(0.09, 0.15), self._rng.uniform(0.12, 0.34)
            self._tower(left, wide, HORIZON - tall, self._rng.choice(WALLS), window)
            left += wide + 0.008

    def _tower(self, left: float, wide: float, top: float, wall: Colour, window: Colour) -> None:
        self._poly(
            [(left, top), (left + wide, top), (left + wide, HORIZON + 0.02), (left, HORIZON + 0.02)], wall
        )
        unit, columns = self._width, 3
        step = wide / columns
        for row in range(int((HORIZON - top) / 0.045)):
            for column in range(columns):
                if self._rng.random() < 0.7:
                    x, y = (left + (column + 0.28) * step) * unit, (top + 0.018 + row * 0.045) * unit
                    self._draw.rectangle((x, y, x + step * 0.45 * unit, y + 0.02 * unit), window)

    def _street(self) -> None:
        self._poly([(0, HORIZON), (1, HORIZON), (1, HORIZON + 0.035), (0, HORIZON + 0.035)], (176, 178, 184))
        start = self._rng.random() * 0.1
        for position in range(8):
            left = start + position * 0.15 - 0.1
            points = [(left, 0.79), (left + 0.085, 0.79), (left + 0.075, 0.808), (left - 0.01, 0.808)]
            self._poly(points, (236, 232, 214))

    def _pines(self) -> None:
        for base, tall, colour in ((0.57, 0.2, (58, 108, 84)), (0.61, 0.26, (38, 86, 62))):
            for position in range(10):
                x = (position + self._rng.uniform(0.1, 0.9)) / 10
                self._pine(x, base, tall * self._rng.uniform(0.75, 1.25), colour)
        for _ in range(10):
            (x, y), r = self._spot(0.66), self._width * 0.012
            self._draw.ellipse((x - 2 * r, y - r, x + 2 * r, y + r), self._lit((96, 146, 78)))

    def _pine(self, x: float, base: float, tall: float, colour: Colour) -> None:
        self._poly(
            [(x - 0.012, base), (x + 0.012, base), (x + 0.012, base + 0.03), (x - 0.012, base + 0.03)],
            (92, 62, 44),
        )
        for step in range(3):
            low, wide = base - tall * 0.25 * step, 0.075 - 0.016 * step
            self._poly([(x - wide, low), (x + wide, low), (x, low - tall * 0.48)], colour)

    def _peaks(self) -> None:
        for position in range(4):
            x, tall = (position + self._rng.uniform(0.2, 0.8)) / 4, self._rng.uniform(0.2, 0.34)
            top, wide = HORIZON - tall, tall * 0.95
            self._poly([(x - wide, HORIZON + 0.03), (x, top), (x + wide, HORIZON + 0.03)], (128, 144, 176))
            self._poly(
                [(x, top), (x + wide, HORIZON + 0.03), (x + wide * 0.15, HORIZON + 0.03)], (108, 124, 158)
            )
            snow = [(x, top), (x + 0.34 * wide, top + 0.34 * tall), (x + 0.14 * wide, top + 0.28 * tall)]
            snow += [
                (x, top + 0.4 * tall),
                (x - 0.14 * wide, top + 0.28 * tall),
                (x - 0.34 * wide, top + 0.34 * tall),
            ]
            self._poly(snow, (250, 252, 255))

    def _drifts(self) -> None:
        for _ in range(5):
            (x, y), reach = self._spot(0.6), self._width * self._rng.uniform(0.1, 0.2)
            self._draw.chord((x - reach, y, x + reach, y + reach * 0.4), 180, 360, self._lit((250, 252, 255)))
        self._pine(self._rng.choice((0.06, 0.94)), 0.62, 0.2, (74, 120, 112))
