"""Draw the picture of a scene, in memory or as a file with EXIF data like a camera's."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from PIL import ExifTags, Image, ImageDraw

from demo.world.landscape import Footing, Land, draw_rain, draw_sky
from demo.world.pen import Pen
from demo.world.scene import Placed, Scene, lay_out
from demo.world.subjects import SUBJECTS

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


def exif(scene: Scene, *, description: str | None = None) -> Image.Exif:
    """Return the date with its offset, the position and the camera, all derived from the scene's seed.

    Dates lie in 2020 to 2025; positions lie between 60° south and 60° north.
    """
    rng = Random(f"exif/{scene.seed}")
    moment = datetime(2020, 1, 1) + timedelta(seconds=rng.randrange(6 * 365 * 86400))
    latitude, longitude = rng.uniform(-60, 60), rng.uniform(-180, 180)
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
