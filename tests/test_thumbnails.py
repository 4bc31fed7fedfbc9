"""Thumbnails in several sizes, drawn when they are asked for, in rows that are true to their shapes."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from search_app.core.thumbnails import Thumbnails
from search_app.web.shapes import shape, shape_styles
from storage.errors import NoSuchKeyError
from storage.keys import thumbnail_key
from storage.store import open_storage

IDS = [f"{n:064x}" for n in range(3)]


def webp(width: int, height: int) -> bytes:
    """Return a drawn WebP of a size."""
    data = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(data, "WEBP")
    return data.getvalue()


def size(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


@pytest.fixture
def storage(tmp_path):
    made = open_storage(f"file:{tmp_path}")
    for image_id, (width, height) in zip(IDS, [(512, 256), (100, 50), (512, 512)], strict=True):
        made.put(thumbnail_key(image_id), webp(width, height))
    return made


def test_a_smaller_thumbnail_keeps_the_shape_and_none_is_made_larger(storage):
    thumbnails = Thumbnails(storage)
    assert size(thumbnails.get(IDS[0])) == (512, 256)
    assert size(thumbnails.get(IDS[0], 320)) == (320, 160)
    assert size(thumbnails.get(IDS[0], 192)) == (192, 96)
    assert thumbnails.get(IDS[1], 320) == thumbnails.get(IDS[1])
    with pytest.raises(NoSuchKeyError):
        thumbnails.get("f" * 64, 192)


def test_drawn_thumbnails_are_kept_until_there_is_no_more_room(storage):
    first = Thumbnails(storage).get(IDS[0], 320)
    thumbnails = Thumbnails(storage, room=len(first))
    thumbnails.get(IDS[0], 320)
    storage.put(thumbnail_key(IDS[0]), webp(256, 512))
    assert thumbnails.get(IDS[0], 320) == first
    thumbnails.get(IDS[2], 192)
    assert size(thumbnails.get(IDS[0], 320)) == (160, 320)


def test_a_drawn_thumbnail_goes_with_the_stored_one(storage):
    thumbnails = Thumbnails(storage)
    thumbnails.get(IDS[0], 320)
    storage.delete(thumbnail_key(IDS[0]))
    with pytest.raises(NoSuchKeyError):
        thumbnails.get(IDS[0], 320)


def test_a_damaged_thumbnail_is_sent_as_it_is(storage):
    storage.put(thumbnail_key(IDS[0]), b"damaged")
    assert Thumbnails(storage).get(IDS[0], 192) == b"damaged"


@pytest.mark.parametrize(("width", "height"), [(100, 100), (4032, 3024), (3, 4), (1080, 2400), (6000, 1500)])
def test_the_class_of_a_shape_has_its_ratio(width, height):
    styles = dict(line.rstrip("}").split("{--r:") for line in shape_styles().splitlines())
    assert float(styles[f".{shape(width, height)}"]) == pytest.approx(width / height, rel=0.016)


def test_extreme_and_unknown_shapes_have_a_class_that_exists_or_none():
    styles = shape_styles()
    assert all(f".{shape(*each)}{{" in styles for each in ((100_000, 1), (1, 100_000)))
    assert shape(None, None) == shape(0, 5) == ""
