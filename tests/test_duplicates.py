"""Copies are found by content and by look, and different pictures are kept apart."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from demo.world.draw import draw
from demo.world.scene import sample
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.index import ImageIndex
from es_config.scan import HashedImage, hashes_body, scan_hashes
from glimpse import main
from ingest.duplicates import (
    DEFAULT_DISTANCE,
    MANY_PAIRS,
    PictureFacts,
    PictureFiles,
    files_of,
    find_duplicates,
    group_near_duplicates,
    near_pairs,
)
from ingest.files.picture import FileContent, decode
from ingest.files.walk import Stamp
from ingest.history.ingested_files import IngestedFile


def no_facts(_: list[str]) -> dict[str, PictureFacts]:
    return {}


def no_notes(_: str) -> tuple[IngestedFile, ...]:
    return ()


def groups_by_hand(hashes: list[int], distance: int) -> list[list[int]]:
    """Compare all with all and join near-duplicates."""
    group = list(range(len(hashes)))
    for one, other in combinations(range(len(hashes)), 2):
        if group[one] != group[other] and (hashes[one] ^ hashes[other]).bit_count() <= distance:
            low, high = sorted((group[one], group[other]))
            group = [low if each == high else each for each in group]
    found = [[place for place, label in enumerate(group) if label == wanted] for wanted in sorted(set(group))]
    return [places for places in found if len(places) > 1]


def phash(image: Image.Image, kind: str, **options: object) -> int:
    """Return the hash that ingest gives a picture that was saved like this."""
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return int(decode(FileContent(memory.getvalue(), "0" * 64), path=None).phash, 16)


@settings(max_examples=60, deadline=None)
@given(
    near=st.lists(st.tuples(st.integers(0, 4), st.lists(st.integers(0, 63), max_size=12)), max_size=25),
    distance=st.integers(0, 3),
)
def test_groups_are_those_of_comparing_all_with_all(near, distance):
    seeds = [int(value) for value in np.random.default_rng(3).integers(0, 2**64, 5, dtype=np.uint64)]
    hashes = [seeds[seed] ^ sum(1 << bit for bit in set(bits)) for seed, bits in near]
    found = group_near_duplicates(np.array(hashes, np.uint64), distance=distance)
    assert [group.tolist() for group in found] == groups_by_hand(hashes, distance)


@pytest.mark.parametrize("distance", range(4))
@pytest.mark.parametrize("seeds", [8, 200, 700], ids=["tight", "loose", "random"])
def test_clusters_and_chance_give_the_groups_of_brute_force(seeds, distance):
    dice = np.random.default_rng(seeds)
    hashes = dice.integers(0, 2**64, seeds, dtype=np.uint64)[dice.integers(0, seeds, 700)]
    for _ in range(4):
        flips = np.uint64(1) << dice.integers(0, 64, len(hashes), dtype=np.uint64)
        hashes ^= np.where(dice.random(len(hashes)) < 0.6, flips, np.uint64(0))
    found = group_near_duplicates(hashes, distance=distance)
    assert [group.tolist() for group in found] == groups_by_hand(hashes.tolist(), distance)


def test_pairs_come_in_blocks_that_are_joined_to_the_same_groups():
    flips = [sum(1 << bit for bit in bits) for bits in combinations(range(64), 3)]
    flips = np.random.default_rng(6).choice(np.array(flips, np.uint64), 20_000, replace=False)
    hashes = np.uint64(0x9F20DB249F28D764) ^ flips
    blocks = [len(left) for left, _ in near_pairs(hashes, distance=3)]
    assert len(blocks) > 1
    assert max(blocks) < MANY_PAIRS + len(hashes)
    (group,) = group_near_duplicates(hashes, distance=3)
    assert len(group) == len(hashes)


def test_no_near_pair_is_missed_wherever_its_bits_are():
    dice = np.random.default_rng(4)
    one = dice.integers(0, 2**64, 2000, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in dice.choice(64, 3, replace=False)) for _ in range(2000)]
    values = np.unique(np.concatenate([one, one ^ np.array(flips, np.uint64)]))
    pairs = {
        tuple(sorted(pair))
        for left, right in near_pairs(values, distance=3)
        for pair in zip(left.tolist(), right.tolist(), strict=True)
    }
    assert len(pairs) >= 2000
    for left, right in pairs:
        assert (int(values[left]) ^ int(values[right])).bit_count() <= 3


def test_hashes_that_are_all_the_same_are_one_group_at_once():
    (group,) = group_near_duplicates(np.full(200_000, 0x9F20DB249F28D764, np.uint64), distance=3)
    assert len(group) == 200_000


def test_a_hundred_thousand_hashes_take_seconds():
    dice = np.random.default_rng(5)
    hashes = dice.integers(0, 2**64, 100_000, dtype=np.uint64)
    hashes[-500:] = hashes[:500] ^ np.uint64(0b10110)
    found = group_near_duplicates(hashes, distance=3)
    assert [group.tolist() for group in found] == [[place, 99_500 + place] for place in range(500)]


@pytest.mark.parametrize("distance", [-1, 4])
def test_a_distance_that_makes_no_sense_is_refused(distance):
    with pytest.raises(ValueError, match="between 0 and 3"):
        group_near_duplicates(np.zeros(2, np.uint64), distance=distance)


def test_copies_are_near_and_different_scenes_are_not():
    scenes = [draw(scene, 512) for scene in sample("test", 40)]
    originals = [phash(image, "PNG") for image in scenes]
    for image, original in zip(scenes[:12], originals, strict=False):
        copies = [
            phash(image, "JPEG", quality=50),
            phash(image, "WEBP", quality=60),
            phash(image.resize((200, 200)), "JPEG"),
            phash(image.resize((800, 800)), "PNG"),
        ]
        assert max((original ^ copy).bit_count() for copy in copies) <= DEFAULT_DISTANCE
    assert group_near_duplicates(np.array(originals, np.uint64), distance=DEFAULT_DISTANCE) == []


def test_pictures_of_one_colour_are_in_no_group():
    flat = [phash(Image.new("RGB", (64, 64), colour), "PNG") for colour in ("white", "black", "red")]
    images = [HashedImage(f"{place:064x}", value, (f"{place}.png",)) for place, value in enumerate(flat)]
    assert find_duplicates([images], facts_of=no_facts, notes_of=no_notes, distance=3).near == ()


def test_a_picture_that_is_gone_meanwhile_is_in_no_group():
    value = 0x9F20DB249F28D764
    blocks = [[HashedImage("a", value, ("a.png",))], [HashedImage("bb", value ^ 1, ("b.png",))]]
    alone = {"a": PictureFacts(("a.png",), 4, 3, 100)}
    assert find_duplicates(blocks, facts_of=lambda _: alone, notes_of=no_notes).near == ()
    two = {"a": PictureFacts(("z.png",), 4, 3, 100), "bb": PictureFacts(("b.png",), 4, 3, 90)}
    (group,) = find_duplicates(blocks, facts_of=lambda _: two, notes_of=no_notes).near
    assert [each.image_id for each in group.pictures] == ["bb", "a"]
    assert (group.keep, group.why) == ("z.png", "the largest file")


def test_a_file_counts_once_however_many_paths_lead_to_it(tmp_path):
    (tmp_path / "2020").mkdir()
    for name, time in (("2020/x.jpg", 50), ("later.jpg", 90), ("copy of x.jpg", 50)):
        (tmp_path / name).write_bytes(b"the same")
        os.utime(tmp_path / name, (time, time))
    (tmp_path / "link.jpg").symlink_to(tmp_path / "later.jpg")
    os.link(tmp_path / "later.jpg", tmp_path / "hard.jpg")

    def note(name: str, relative: str) -> IngestedFile:
        return IngestedFile(os.fsencode(tmp_path / name), relative, "a", Stamp(8, 1), "none")

    nested = [note("2020/x.jpg", "2020/x.jpg"), note("2020/x.jpg", "x.jpg")]
    assert files_of(nested, ["2020/x.jpg", "x.jpg"]) == PictureFiles((str(tmp_path / "2020/x.jpg"),))
    linked = [note(name, name) for name in ("later.jpg", "link.jpg", "hard.jpg", "gone.jpg")]
    assert files_of(
        linked, ["later.jpg", "link.jpg", "hard.jpg", "gone.jpg", "far/away.jpg"]
    ) == PictureFiles((str(tmp_path / "hard.jpg"),), ("gone.jpg", "far/away.jpg"))
    everything = files_of([*linked, *nested, note("copy of x.jpg", "copy of x.jpg")], [])
    names = ("2020/x.jpg", "copy of x.jpg", "hard.jpg")
    assert everything.paths == tuple(str(tmp_path / name) for name in names), "the oldest first"


def test_the_request_reads_columns_and_no_documents():
    assert hashes_body(size=7) == {
        "query": {"bool": {"must_not": [{"term": {"film.is_moment": True}}]}},
        "size": 7,
        "sort": ["_shard_doc"],
        "track_total_hits": False,
        "_source": False,
        "docvalue_fields": ["phash", "relative_path", "film.id"],
    }


@pytest.fixture
def index(client, index_name) -> ImageIndex:
    """Six pictures: two near ones, one of them with two paths, and others with hashes of all kinds."""
    made = ImageIndex(client, alias=index_name)
    made.create(
        IndexMeta(
            profile="pocket", revisions={}, dims=4, caption_dims=4, similarity="cosine", operating_points={}
        ),
        IndexOptions(),
    )
    first = ImageDocument(
        image_id="",
        image_name="x.png",
        relative_path=(),
        image_embedding=np.array([1, 0, 0, 0], np.float32),
        width=1,
        height=1,
        size_bytes=1,
        indexed_at=datetime.now(UTC),
    )
    given = {
        "a": ("9f20db249f28d764", ("one/a.png", "two/a.png")),
        "b": ("9f20db249f28d765", ("small\n.jpg",)),
        "c": ("60df24db60d7289b", ("other.png",)),
        "d": (None, ("d.png",)),
        "e": ("strange", ("e.png",)),
        "f": ("8000000000000000", ("white.png",)),
    }
    made.add(
        [
            replace(first, image_id=name * 64, phash=value, relative_path=paths)
            for name, (value, paths) in given.items()
        ]
    )
    made.refresh()
    return made


def test_every_picture_is_read_in_blocks(client, index):
    blocks = list(scan_hashes(client, index.name(), size=4))
    assert [len(block) for block in blocks] == [4, 2]
    found = {each.image_id[0]: each for block in blocks for each in block}
    assert found["a"] == HashedImage("a" * 64, 0x9F20DB249F28D764, ("one/a.png", "two/a.png"))
    assert (found["d"].phash, found["e"].phash) == (None, None)


def test_the_command_lists_groups_with_their_paths(node, index, tmp_path: Path):
    environ = {"ELASTICSEARCH_URL": node.url, "GLIMPSE_HOME": str(tmp_path), "GLIMPSE_INDEX": index.alias}
    shown = CliRunner().invoke(main, ["duplicates"], env=environ)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines() == [
        "exact, 2 files; keep one/a.png: the first path, since none of them is on this machine",
        "  one/a.png  (not on this machine)",
        "  two/a.png  (not on this machine)",
        "",
        "near, 2 pictures; keep one/a.png: the best path",
        "   0 bits  1x1  one/a.png  (not on this machine)",
        "   0 bits  1x1  two/a.png  (not on this machine)",
        r"   1 bits  1x1  small\n.jpg  (not on this machine)",
        "",
        "6 pictures: 1 exact and 1 near groups",
    ]
    told = json.loads(
        CliRunner().invoke(main, ["duplicates", "--json", "--distance", "0"], env=environ).stdout
    )
    assert told == {
        "pictures": 6,
        "distance": 0,
        "exact": [
            {
                "image_id": "a" * 64,
                "files": {"paths": [], "elsewhere": ["one/a.png", "two/a.png"]},
                "keep": "one/a.png",
                "why": "the first path, since none of them is on this machine",
            }
        ],
        "near": [],
    }
    missing = CliRunner().invoke(main, ["duplicates", "--index", "nothing-there"], env=environ)
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "There is no index 'nothing-there'" in missing.stderr
