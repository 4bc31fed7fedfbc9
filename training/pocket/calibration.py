"""Draw the calibration pictures of eight-bit models: `python -m training.pocket.calibration`.

They are kept beside the weights, so that the product calibrates without drawing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demo.world.draw import draw
from demo.world.scene import sample
from models.profiles import CALIBRATION_PICTURES

if TYPE_CHECKING:
    from PIL import Image

COUNT = 16
SIZE = 96
"""pixels on a side"""


def calibration_strip() -> Image.Image:
    """Return the same `COUNT` drawn RGB pictures side by side, at every call."""
    from PIL import Image

    strip = Image.new("RGB", (COUNT * SIZE, SIZE))
    for number, scene in enumerate(sample("train", COUNT)):
        strip.paste(draw(scene, SIZE), (number * SIZE, 0))
    return strip


def main() -> None:
    """Write the strip beside the weights."""
    calibration_strip().save(CALIBRATION_PICTURES, optimize=True)


if __name__ == "__main__":
    main()
