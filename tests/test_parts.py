"""Parts of an ingest: every file belongs to one of them, on every machine the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import IngestError
from ingest.files.walk import Candidate, Shard, parse_shard, walk


@settings(max_examples=300, deadline=None)
@given(name=st.text(), of=st.integers(1, 300))
def test_every_name_belongs_to_exactly_one_part(name, of):
    assert sum(Shard(number, of).holds(name) for number in range(1, of + 1)) == 1


def test_parts_are_the_same_on_every_machine_and_much_alike_in_size():
    names = [f"2019/IMG_{number:04}.jpg" for number in range(3200)]
    sizes = [sum(Shard(number, 16).holds(name) for name in names) for number in range(1, 17)]
    assert sum(sizes) == 3200
    assert 150 < min(sizes) <= max(sizes) < 250
    assert [name for name in names[:30] if Shard(3, 16).holds(name)] == [
        name for name in names[:30] if parse_shard("3/16").holds(name)
    ]
    assert [number for number in range(12) if Shard(1, 3).holds(f"{number}.jpg")] == [0, 6, 10]


def test_a_walk_in_parts_finds_everything_once(tmp_path: Path):
    for number in range(20):
        (tmp_path / f"{number}.jpg").touch()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    whole = list(walk([tmp_path]))
    parts = [list(walk([tmp_path], shard=Shard(number, 3))) for number in (1, 2, 3)]
    together = [each for part in parts for each in part]
    assert sorted(map(str, together)) == sorted(map(str, whole))
    assert all(any(isinstance(each, Candidate) for each in part) for part in parts)


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "-1/3", "1/3/5", ""])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(IngestError, match=r"is no part: write 3/16"):
        parse_shard(text)
