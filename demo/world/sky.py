"""The weather: skies behind the land, and what falls in front of everything."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from demo.world.layout import HORIZON, Placed
from demo.world.pen import Colour, mix

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

GRADIENTS: dict[str, tuple[Colour, Colour]] = {
    "sunny": ((74, 164, 246), (206, 236, 255)),
    "cloudy": ((146, 162, 182), (218, 224, 232)),
    "rain": ((66, 80, 98), (138, 150, 162)),
    "sunset": ((92, 62, 146), (255, 150, 88)),
    "night": ((10, 12, 44), (44, 52, 116)),
    "rainbow": ((116, 186, 240), (222, 242, 250)),
}
CLOUDS: dict[str, tuple[Colour, ...]] = {
    "sunny": ((255, 255, 255),),
    "cloudy": ((238, 241, 246), (226, 231, 239)),
    "rain": ((62, 70, 86), (76, 84, 100)),
}
BOW = ((232, 80, 80), (248, 160, 70), (252, 222, 90), (110, 196, 110), (92, 150, 230), (150, 100, 200))
LIGHT: dict[str, tuple[Colour, float]] = {
    "sunny": ((255, 250, 220), 0.04),
    "cloudy": ((150, 160, 176), 0.16),
    "rain": ((66, 80, 98), 0.36),
    "sunset": ((236, 112, 84), 0.26),
    "night": ((14, 18, 58), 0.58),
    "rainbow": ((255, 255, 255), 0.06),
}


def lit(colour: Colour, weather: str) -> Colour:
    """Return a land colour as it looks in that weather."""
    return mix(colour, *LIGHT[weather])


def gradient(top: Colour, bottom: Colour, width: int, height: int) -> Image.Image:
    """Return an RGB picture that fades from `top` to `bottom`."""
    from PIL import Image

    column = Image.new("RGB", (1, 64))
    column.putdata([mix(top, bottom, step / 63) for step in range(64)])
    return column.resize(
        (width, height), Image.Resampling.NEAREST if height < 200 else Image.Resampling.BILINEAR
    )


def free_spot(placed: Sequence[Placed], rng: Random, *, y: float) -> float:
    """Return the x between the borders at which a sun or moon at height `y` is farthest from all subjects."""

    def clearance(x: float) -> float:
        gaps = (max(abs(one.x - x), abs(one.y - y)) - one.size / 2 for one in placed)
        return min(*gaps, 0.3) + rng.random() * 0.02

    return max((0.11, 0.2, 0.34, 0.5, 0.66, 0.8, 0.89), key=clearance)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, fill: tuple[int, ...]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)


def _cloud(draw: ImageDraw.ImageDraw, x: float, y: float, size: float, fill: Colour) -> None:
    for dx, dy, radius in ((-0.5, 0.1, 0.3), (0, -0.1, 0.42), (0.45, 0.08, 0.32)):
        _disc(draw, x + dx * size, y + dy * size, radius * size, fill)
    draw.rounded_rectangle(
        (x - 0.82 * size, y + 0.02 * size, x + 0.8 * size, y + 0.38 * size), 0.18 * size, fill
    )


def _clouds(
    draw: ImageDraw.ImageDraw, width: int, rng: Random, fills: Sequence[Colour], spots: Sequence[float]
) -> None:
    for spot in spots:
        x, y = spot + rng.uniform(-0.07, 0.07), rng.uniform(0.05, 0.2)
        _cloud(draw, x * width, y * width, width * rng.uniform(0.09, 0.13), rng.choice(fills))


def _sun(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, glow: Colour) -> None:
    for grow, alpha in ((2.1, 50), (1.6, 90)):
        _disc(draw, x, y, radius * grow, (*glow, alpha))
    _disc(draw, x, y, radius, (255, 236, 130))


def _night(draw: ImageDraw.ImageDraw, width: int, rng: Random, moon: float) -> None:
    for _ in range(46):
        x, y = rng.random() * width, rng.random() * HORIZON * width
        _disc(draw, x, y, width * rng.choice((0.003, 0.004, 0.006)), (236, 238, 255))
    x, y, radius = moon * width, 0.13 * width, 0.072 * width
    _disc(draw, x, y, radius * 1.5, (255, 244, 200, 30))
    _disc(draw, x, y, radius, (255, 244, 204))
    for dx, dy, size in ((-0.3, -0.2, 0.2), (0.3, 0.25, 0.26), (0.25, -0.4, 0.13)):
        _disc(draw, x + dx * radius, y + dy * radius, size * radius, (232, 218, 176))


def _rainbow(draw: ImageDraw.ImageDraw, width: int, rng: Random) -> None:
    x, radius, band = rng.uniform(0.4, 0.6) * width, 0.53 * width, 0.026 * width
    for colour in BOW:
        where = (x - radius, 0.62 * width - radius, x + radius, 0.62 * width + radius)
        draw.arc(where, 180, 360, colour, round(band) + 1)
        radius -= band


def draw_sky(
    image: Image.Image, draw: ImageDraw.ImageDraw, weather: str, rng: Random, placed: Sequence[Placed]
) -> float | None:
    """Fill the picture with the sky, and return the x of its sun or moon; they stay clear of the subjects."""
    width = image.width
    x = None
    image.paste(gradient(*GRADIENTS[weather], width, round(HORIZON * 1.02 * width)), (0, 0))
    if weather == "sunny":
        x = free_spot(placed, rng, y=0.13)
        _clouds(draw, width, rng, CLOUDS["sunny"], [at for at in (0.15, 0.5, 0.85) if abs(at - x) > 0.3][:2])
        _sun(draw, x * width, 0.13 * width, 0.066 * width, (255, 232, 130))
    elif weather == "sunset":
        # High enough to be seen over the trees and roofs of the places that have some.
        x, y = free_spot(placed, rng, y=HORIZON - 0.2), HORIZON - 0.2
        _sun(draw, x * width, y * width, 0.1 * width, (255, 206, 110))
    elif weather == "night":
        x = free_spot(placed, rng, y=0.13)
        _night(draw, width, rng, x)
    elif weather == "rainbow":
        _rainbow(draw, width, rng)
        _clouds(draw, width, rng, CLOUDS["sunny"], [rng.choice((0.1, 0.9))])
    else:
        _clouds(draw, width, rng, CLOUDS[weather], (0.1, 0.3, 0.5, 0.7, 0.9))
    return x


def draw_rain(draw: ImageDraw.ImageDraw, width: int, rng: Random) -> None:
    """Draw slanting rain over the whole picture."""
    for _ in range(70):
        x, y, length = rng.random() * width, rng.random() * width, rng.uniform(0.02, 0.045) * width
        draw.line((x, y, x - length * 0.35, y + length), (206, 222, 240, 190), max(1, round(width * 0.0045)))
