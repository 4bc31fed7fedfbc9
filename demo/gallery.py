"""Draw the demo's pictures: scenes no model was trained on, with dates, places and cameras."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo.world.draw import write_picture
from demo.world.scene import Scene, sample

SIZE = 512
"""pixels on a side"""


def file_name(scene: Scene, number: int) -> str:
    """Return a file name like a camera's, which does not describe the picture."""
    return f"{scene.place}/IMG_{number:04d}.jpg"


def gallery_scenes(count: int) -> list[Scene]:
    """Return the first `count` scenes of the gallery.

    Three of five show one group, because most queries name one.
    """
    found = sample("demo", 4 * count)
    one = iter([scene for scene in found if len(scene.groups) == 1])
    two = iter([scene for scene in found if len(scene.groups) == 2])
    return [next(one if position % 5 in (0, 2, 4) else two) for position in range(count)]


def draw_gallery(folder: Path, count: int, *, drawn: Callable[[], None] = lambda: None) -> int:
    """Draw the first `count` pictures of the demo into `folder` and return the number of new ones.

    A picture appears under its name only once it is whole, so an interrupted run leaves no half ones.
    """
    missing = [
        (scene, folder / file_name(scene, number))
        for number, scene in enumerate(gallery_scenes(count))
        if not (folder / file_name(scene, number)).exists()
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda job: _draw(*job), missing):
            drawn()
    return len(missing)


def _draw(scene: Scene, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part.jpg")
    write_picture(scene, unfinished, SIZE)
    unfinished.replace(path)
