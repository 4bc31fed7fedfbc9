"""Whether things at the edges of panoramas are found, against other ways to make one vector of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.report import Figure, clock, show
from demo.world.draw import Land, draw, draw_rain, draw_sky
from demo.world.scene import Group, Scene, lay_out, sample
from models.encoders import finite_unit_rows, load_image_encoder, load_text_encoder, tiles_of
from models.profiles import get_profile
from training.pocket.sentences.grammar import say
from training.pocket.sentences.statements import Mention, Statement

STRIPS, OTHERS, SIDE = 200, 300, 256
DEPTH = 10
"""a strip is found if it is among this many, beside the others and ordinary pictures"""


def main() -> bool:
    """Measure, print, and return whether 0.9 of the strips are found by the thing at an edge."""
    profile = get_profile("pocket")
    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    scenes = [each for each in sample("test", 5 * STRIPS) if len(each.groups) == 1][:STRIPS]
    others = sample("demo", OTHERS)
    beside = images.embed_images([draw(each, SIDE) for each in others])
    said = texts.embed_texts([_said(scene.groups[0], number) for number, scene in enumerate(scenes)])
    shown = [scene.groups for scene in (*scenes, *others)]
    figures = []
    for place in ("edge", "middle"):
        target = "≥ 0.9" if place == "edge" else ""
        strips = [_strip(scene, number, place=place) for number, scene in enumerate(scenes)]
        with clock() as spent:
            vectors = images.embed_images(strips)
        found = _found(said, np.concatenate([vectors, beside]), shown)
        figures.append(Figure(f"found by what stands at the {place}", found, "", target))
        figures.append(Figure("CPU a strip", 1000 * spent.cpu / STRIPS, "ms"))
        tiles = [images.embed_images(tiles_of(strip)) for strip in strips]
        squares = [_middle_square(strip) for strip in strips]
        ways = {
            "the middle square": images.embed_images(squares),
            "the mean of tiles": finite_unit_rows(np.stack([each.mean(axis=0) for each in tiles])),
            "the maximum of tiles": finite_unit_rows(np.stack([_largest(each) for each in tiles])),
        }
        for way, other in ways.items():
            figures.append(Figure(f"  by {way}", _found(said, np.concatenate([other, beside]), shown)))
        best = np.stack([(each @ said.T).max(axis=0) for each in tiles], axis=1)
        figures.append(
            Figure("  by a vector for each tile", _share(np.hstack([best, said @ beside.T]), shown))
        )
    strips = [
        _strip(scene, number, place="edge", other=scenes[number - 1]) for number, scene in enumerate(scenes)
    ]
    vectors = images.embed_images(strips)
    best = np.stack([(images.embed_images(tiles_of(strip)) @ said.T).max(axis=0) for strip in strips], axis=1)
    # The strip after a scene's own has it too, at the other end.
    both = [(*scene.groups, *scenes[number - 1].groups) for number, scene in enumerate(scenes)]
    shown = [*both, *(scene.groups for scene in others)]
    figures.append(
        Figure("two things, one at each end", _found(said, np.concatenate([vectors, beside]), shown))
    )
    figures.append(Figure("  by a vector for each tile", _share(np.hstack([best, said @ beside.T]), shown)))
    return show(f"{STRIPS} drawn strips of 4:1 to 10:1, pocket, recall@{DEPTH}", figures)


def _said(group: Group, number: int) -> str:
    mention = Mention(group.kind, group.colour, group.count)
    return say(Statement(None, None, (mention,), None), "en", Random(number))


def _strip(scene: Scene, number: int, *, place: str, other: Scene | None = None) -> Image.Image:
    """Return a strip of empty land with the scene's subjects at one end, or in the middle.

    With another scene, its subjects stand at the other end.
    """
    count = 4 + number % 7
    strip = Image.new("RGB", (SIDE * count, SIDE))
    for tile in range(count):
        strip.paste(_empty(replace(scene, seed=scene.seed + tile + 1)), (tile * SIDE, 0))
    left = {"edge": (number % 2) * (count - 1) * SIDE, "middle": (count - 1) * SIDE // 2}[place]
    strip.paste(draw(scene, SIDE), (left, 0))
    if other:
        strip.paste(draw(other, SIDE), ((count - 1) * SIDE - left, 0))
    return strip


def _empty(scene: Scene) -> Image.Image:
    image = Image.new("RGB", (2 * SIDE, 2 * SIDE))
    canvas, rng = ImageDraw.Draw(image, "RGBA"), Random(f"picture/{scene.seed}")
    light = draw_sky(image, canvas, scene.weather, rng, lay_out(scene))
    Land(image, canvas, weather=scene.weather, rng=rng, light=light).draw_place(scene.place)
    if scene.weather == "rain":
        draw_rain(canvas, image.width, rng)
    return image.reduce(2)


def _middle_square(strip: Image.Image) -> Image.Image:
    left = (strip.width - strip.height) // 2
    return strip.crop((left, 0, left + strip.height, strip.height))


def _largest(vectors: np.ndarray) -> np.ndarray:
    """Return the number farthest from zero in each place of vectors `[n, dims]`."""
    row: np.ndarray = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)[0]
    return row


def _found(said: np.ndarray, vectors: np.ndarray, shown: Sequence[Sequence[Group]]) -> float:
    return _share(said @ vectors.T, shown)


def _share(similarities: np.ndarray, shown: Sequence[Sequence[Group]]) -> float:
    """Return the share of queries whose strip, of the same number, is among the first `DEPTH`.

    Other pictures that answer the query too are left out.
    """
    found = 0
    for number, row in enumerate(similarities):
        wanted = shown[number][0]
        same = np.array(
            [any((wanted.kind, wanted.colour) == (g.kind, g.colour) for g in each) for each in shown]
        )
        found += int((row[~same] > row[number]).sum()) < DEPTH
    return found / len(similarities)
