"""Draw a scene, with sky, ground and weather, in memory or as a file with EXIF data like a camera's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from PIL import ExifTags, Image, ImageDraw

from demo.world.pen import Colour, Pen, mix
from demo.world.scene import AFLOAT, FLYING, HORIZON, Placed, Scene, lay_out
from demo.world.subjects import SUBJECTS

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
    column = Image.new("RGB", (1, 64))
    column.putdata([mix(top, bottom, step / 63) for step in range(64)])
    return column.resize(
        (width, height), Image.Resampling.NEAREST if height < 200 else Image.Resampling.BILINEAR
    )


def free_spot(placed: Sequence[Placed], rng: Random, *, y: float) -> float:
    """Return the x at which a sun or moon at height `y` is farthest from the subjects."""

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
    """Draw the sky and return the x of its sun or moon, which stays clear of the subjects."""
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
    """The land of one picture in one weather.

    `light` is the x of the sun or moon, None when there is neither.
    """

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
        """Draw the background, the ground and its details."""
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
        if self._light is not None:
            self._glitter(self._light)

    def _glitter(self, light: float) -> None:
        for step in range(11):
            x, y = light + self._rng.uniform(-0.03, 0.03), 0.565 + step * 0.038
            x, y = x * self._width, y * self._width
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


WATER, FOAM, SAND = (52, 136, 200), (206, 232, 246), (238, 212, 150)


class Footing:
    """The ground under and in front of each subject, on a canvas `width` pixels wide."""

    def __init__(self, draw: ImageDraw.ImageDraw, width: int, *, place: str, weather: str):
        self._draw, self._width, self._place, self._weather = draw, width, place, weather

    def _lit(self, colour: Colour) -> Colour:
        return lit(colour, self._weather)

    def _foot(self, one: Placed, share: float) -> tuple[float, float, float]:
        """Return the middle of a subject at `share` of its size below its centre, and half its width."""
        y = (one.y + one.size * share) * self._width
        return one.x * self._width, y, one.size * self._width * 0.5

    def draw_under(self, one: Placed) -> None:
        """Draw the island, pond or shadow under a subject that does not fly."""
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
        """Draw water in front of a boat, which lies in it, or a fish, which leaps out of it."""
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


CAMERAS = ("Drawn World Pencil", "Drawn World Crayon", "Drawn World Brush")


def draw(scene: Scene, size: int = 256) -> Image.Image:
    """Return the RGB picture of `scene`, `size` pixels square.

    Equal arguments give equal bytes.
    """
    scale = 3 if size <= 128 else 2
    image = Image.new("RGB", (size * scale, size * scale))
    canvas = ImageDraw.Draw(image, "RGBA")
    rng, placed = Random(f"picture/{scene.seed}"), lay_out(scene)
    light = draw_sky(image, canvas, scene.weather, rng, placed)
    Land(image, canvas, weather=scene.weather, rng=rng, light=light).draw_place(scene.place)
    footing = Footing(canvas, image.width, place=scene.place, weather=scene.weather)
    for one in placed:
        footing.draw_under(one)
        _draw_subject(canvas, one, image.width)
        footing.draw_before(one)
    if scene.weather == "rain":
        draw_rain(canvas, image.width, rng)
    return image.reduce(scale)


def _draw_subject(canvas: ImageDraw.ImageDraw, one: Placed, width: int) -> None:
    lift = 0.1 if one.kind == "fish" else 0.0
    at = (one.x * width, (one.y - lift * one.size) * width)
    pen = Pen(canvas, at=at, size=one.size * width, facing=one.facing, colour=one.colour)
    SUBJECTS[one.kind](pen)
    pen.paint()


def _sexagesimal(degrees: float) -> tuple[float, float, float]:
    whole = int(degrees)
    minutes = int((degrees - whole) * 60)
    return float(whole), float(minutes), round((degrees - whole - minutes / 60) * 3600, 2)


TOWNS = (
    (38.7139, -9.1394), (48.1374, 11.5755), (47.3769, 8.5417), (48.8566, 2.3522), (40.4168, -3.7038),
    (59.3293, 18.0686), (52.3676, 4.9041), (41.9028, 12.4964), (37.9838, 23.7275), (50.0755, 14.4378),
    (35.6895, 139.6917), (-33.8688, 151.2093), (-34.6037, -58.3816), (37.7749, -122.4194), (45.4375, 12.3358),
    (53.5511, 9.9937), (43.2965, 5.3698), (30.0444, 31.2357), (-22.9068, -43.1729), (1.2897, 103.8501),
)  # fmt: skip
"""latitude and longitude of large towns"""


def exif(scene: Scene, *, description: str | None = None) -> Image.Exif:
    """Return the date with its offset, the position and the camera, all derived from the scene's seed.

    Dates lie in 2020 to 2025; positions lie in and around a few towns.
    """
    rng = Random(f"exif/{scene.seed}")
    moment = datetime(2020, 1, 1) + timedelta(seconds=rng.randrange(6 * 365 * 86400))
    town, off = TOWNS[int(rng.uniform(0, len(TOWNS)))], rng.uniform(-0.04, 0.04)
    latitude, longitude = town[0] + off, town[1] - off
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "Glimpse"
    tags[ExifTags.Base.Model] = rng.choice(CAMERAS)
    if description:
        tags[ExifTags.Base.ImageDescription] = description
    details = tags.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal] = moment.strftime("%Y:%m:%d %H:%M:%S")
    details[ExifTags.Base.OffsetTimeOriginal] = f"{rng.randrange(-8, 10):+03d}:00"
    place = tags.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef] = "N" if latitude >= 0 else "S"
    place[ExifTags.GPS.GPSLatitude] = _sexagesimal(abs(latitude))
    place[ExifTags.GPS.GPSLongitudeRef] = "E" if longitude >= 0 else "W"
    place[ExifTags.GPS.GPSLongitude] = _sexagesimal(abs(longitude))
    return tags


def write_picture(scene: Scene, path: Path, size: int = 512, *, description: str | None = None) -> Path:
    """Save the picture with its EXIF data and return `path`, whose suffix chooses JPEG, PNG or WebP."""
    draw(scene, size).save(path, exif=exif(scene, description=description), quality=90)
    return path
