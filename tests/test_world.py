"""The drawn world: scenes, splits, edits, pictures, labels and files."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from PIL import ExifTags, Image

from demo.world.draw import draw, free_spot, write_picture
from demo.world.scene import SPLITS, Group, Scene, lay_out, sample, scene
from models.profiles import CALIBRATION_PICTURES
from training.pocket import coding
from training.pocket.calibration import calibration_strip
from training.pocket.coding import patch_labels
from training.pocket.pool import EDITABLE, edits
from training.pocket.sentences.statements import MANY, Mention, Statement, full, partial

BOAT, CATS = Group("boat", "red", 1), Group("cat", "black", 2)
PAIR = Scene("sea", "rain", (BOAT, CATS), "left", seed=7)


def facts_that_differ(one: Scene, other: Scene) -> int:
    """Count places, weathers, relations and group facts that are not equal, groups taken in order."""
    pairs = [(one.place, other.place), (one.weather, other.weather), (one.relation, other.relation)]
    for a, b in zip(one.groups, other.groups, strict=True):
        pairs += [(a.kind, b.kind), (a.colour, b.colour), (a.count, b.count)]
    return sum(a != b for a, b in pairs)


def test_a_scene_is_the_same_for_ever():
    assert scene("demo", 3) == scene("demo", 3)
    assert scene("test", 0).key == "forest|night|alone|3 green cat"


def test_an_unknown_split_is_refused_by_name():
    with pytest.raises(ValueError, match="train, test, demo"):
        scene("holdout", 0)


def test_the_seed_is_no_part_of_the_description():
    assert replace(PAIR, seed=8).key == PAIR.key


def test_every_scene_belongs_to_the_split_that_its_description_says():
    keys = {split: {one.key for one in sample(split, 150)} for split in SPLITS}
    assert all(one.split == split for split in SPLITS for one in sample(split, 150))
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["demo"]
    assert not keys["test"] & keys["demo"]


def test_a_sample_repeats_no_description():
    assert len({one.key for one in sample("demo", 300)}) == 300


@pytest.mark.parametrize("fact", ["place", "weather", "count", "kind", "colour"])
def test_an_edit_changes_one_fact_and_keeps_the_seed(fact):
    changed = edits(PAIR, fact)
    assert changed
    assert {facts_that_differ(PAIR, new) for new in changed} == {1}
    assert {new.seed for new in changed} == {PAIR.seed}


def test_exchanging_colours_keeps_everything_else():
    (changed,) = edits(PAIR, "colours")
    assert [group.colour for group in changed.groups] == ["black", "red"]
    assert [group.kind for group in changed.groups] == ["boat", "cat"]


def test_editing_the_relation_only_moves_groups_to_where_they_can_be():
    assert [new.key for new in edits(PAIR, "relation")] == ["sea|rain|left|2 black cat|1 red boat"]
    birds = replace(PAIR, groups=(Group("bird", "red", 1), CATS))
    assert {(new.relation, new.groups[0].kind) for new in edits(birds, "relation")} == {
        ("left", "cat"),
        ("above", "bird"),
    }


def test_a_lone_group_has_no_relation_and_no_colours_to_exchange():
    alone = Scene("sea", "rain", (BOAT,), None)
    assert edits(alone, "relation") == []
    assert edits(alone, "colours") == []


@pytest.mark.parametrize("size", [96, 200])
def test_a_picture_has_the_asked_size_and_is_drawn_alike_twice(size):
    picture = draw(PAIR, size)
    assert (picture.size, picture.mode) == ((size, size), "RGB")
    assert picture.tobytes() == draw(PAIR, size).tobytes()


def test_every_edit_can_be_seen():
    for fact in EDITABLE:
        for new in edits(PAIR, fact)[:3]:
            assert draw(new, 96).tobytes() != draw(PAIR, 96).tobytes()


def test_subjects_stay_in_the_picture_and_the_left_ones_are_on_the_left():
    for shown in sample("demo", 300):
        placed = lay_out(shown)
        assert len(placed) == sum(group.count for group in shown.groups)
        assert all(one.x - one.size / 2 > -0.03 and one.x + one.size / 2 < 1.03 for one in placed)
        assert all(one.y - one.size / 2 > -0.03 and one.y + one.size / 2 < 1.03 for one in placed)
        first, second = ([one for one in placed if one.group == position] for position in (0, 1))
        if shown.relation == "left":
            assert max(one.x for one in first) < min(one.x for one in second)
        elif shown.relation == "above":
            assert max(one.y for one in first) < min(one.y for one in second)


def test_the_sun_is_clear_of_every_subject():
    for shown in sample("demo", 300):
        placed = lay_out(shown)
        x = free_spot(placed, Random(0), y=0.13)
        assert all(max(abs(one.x - x), abs(one.y - 0.13)) > one.size / 2 for one in placed)


def test_patch_labels_name_what_is_there():
    labels = patch_labels(PAIR)
    kind, colour, count, slot = labels
    assert labels.shape == (4, 8, 8)
    assert {tuple(row) for row in np.stack([kind, colour, count, slot], axis=-1).reshape(-1, 4)} == {
        (0, 0, 0, 0),
        (1, 1, 1, 1),
        (5, 8, 2, 2),
    }
    assert slot[:, :4].max() == 1
    assert slot[:, 5:].max() == 2


def test_a_query_can_say_less_than_everything():
    cats = Statement(mentions=(Mention("cat", None, MANY),))
    assert cats.holds(PAIR)
    assert not cats.holds(replace(PAIR, groups=(BOAT, replace(CATS, count=1))))
    turned = (Mention("cat", "black", None), Mention("boat", None, 1))
    assert Statement(mentions=turned).holds(PAIR)
    assert not Statement(mentions=turned, relation="left").holds(PAIR)
    assert not Statement(mentions=full(PAIR).mentions[:1], complete=True).holds(PAIR)


def test_partial_statements_are_true_of_their_scene():
    rng = Random(0)
    assert all(partial(shown, rng).holds(shown) for shown in sample("train", 300))


def test_whole_batches_are_judged_as_single_statements_are():
    rng = Random(1)
    scenes = sample("train", 150)
    scenes += [rng.choice(edits(shown, "count")) for shown in scenes]
    statements = [full(shown) for shown in scenes] + [partial(shown, rng) for shown in scenes]
    found = coding.holds(coding.statement_codes(statements), coding.scene_codes(scenes))
    assert found.tolist() == [[said.holds(shown) for shown in scenes] for said in statements]
    assert found.sum() > 1.5 * len(statements)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_file_tells_when_where_and_with_what_it_was_taken(tmp_path, suffix):
    path = write_picture(PAIR, tmp_path / f"picture{suffix}", 64, description="a red boat")
    with Image.open(path) as image:
        tags = image.getexif()
        details, place = tags.get_ifd(ExifTags.IFD.Exif), tags.get_ifd(ExifTags.IFD.GPSInfo)
        assert image.size == (64, 64)
    assert tags[ExifTags.Base.ImageDescription] == "a red boat"
    assert tags[ExifTags.Base.Model].startswith("Drawn World ")
    assert details[ExifTags.Base.DateTimeOriginal][:2] == "20"
    assert details[ExifTags.Base.OffsetTimeOriginal][3:] == ":00"
    assert place[ExifTags.GPS.GPSLatitudeRef] in "NS"
    assert 0 <= float(place[ExifTags.GPS.GPSLatitude][0]) <= 60
    assert 0 <= float(place[ExifTags.GPS.GPSLongitude][2]) < 60.01


def test_the_calibration_pictures_in_the_repository_are_those_that_the_command_draws():
    with Image.open(CALIBRATION_PICTURES) as kept:
        assert kept.mode == "RGB"
        np.testing.assert_array_equal(kept, calibration_strip())
