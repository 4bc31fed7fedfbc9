"""Ingest that is killed, and goes on: the index is the one of a run that nobody disturbed."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashes import contents, differences, kill_after, start_ingest, thumbnails
from http_fronts import proxy
from picture_files import save_picture
from waiting import PATIENCE_S, Hold

GOOD, KILLS = 90, 3


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Pictures, copies and a bad file, in two folders."""
    folder = tmp_path / "pictures"
    for number in range(GOOD):
        save_picture(folder / str(number % 2) / f"{number:03}.png", number, size=(60, 40))
    for number in range(0, GOOD, 9):
        shutil.copy(folder / str(number % 2) / f"{number:03}.png", folder / f"copy-{number:03}.png")
    (folder / "bad.png").write_text("no picture")
    return folder


@pytest.fixture
def start(node, tiny_pair: Path, corpus: Path) -> Iterator:
    """Return a function that starts the command. Processes still running at the end are ended."""
    started = []

    def begin(home: Path, alias: str, url: str = node.url):
        started.append(start_ingest(corpus, url=url, home=home, models=tiny_pair, alias=alias))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def test_after_kills_at_random_moments_the_index_is_that_of_an_undisturbed_run(
    client, node, index_name, start, tmp_path
):
    killed, whole = f"{index_name}-killed", f"{index_name}-whole"
    moments = sorted(random.Random(7).sample(range(1, GOOD - 5), KILLS))
    for moment in moments:
        # Nothing is written beyond the moment, so that no run is over before it is killed.
        beyond = Hold(lambda _, path, at=moment: "_bulk" in path and thumbnails(tmp_path / "killed") >= at)
        with proxy(node.url, beyond) as url:
            process = start(tmp_path / "killed", killed, url)
            assert kill_after(process, tmp_path / "killed", stored=moment) == -9
            beyond.drop()
    written = len(contents(client, killed))
    assert written > 0
    runs = start(tmp_path / "killed", killed), start(tmp_path / "whole", whole)
    last, undisturbed = (json.loads(each.communicate(timeout=PATIENCE_S)[0]) for each in runs)
    assert (undisturbed["indexed"], undisturbed["failed"]) == (GOOD, 1)
    assert last["failed"] + last["failed_before"] == 1
    # Nothing that is in the index is embedded again.
    assert last["embedded"] <= GOOD - written
    found = contents(client, killed)
    assert len(found) == GOOD
    assert differences(found, contents(client, whole)) == []
    assert thumbnails(tmp_path / "killed") == thumbnails(tmp_path / "whole") == GOOD
    assert len((tmp_path / "killed" / "failed.jsonl").read_text().splitlines()) == 1
