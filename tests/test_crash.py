"""Ingest that is killed, and goes on: the index is the one of a run that nobody disturbed."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from crashes import contents, differences, ingest_undisturbed, kill_after, start_ingest, thumbnails
from http_fronts import proxy
from picture_files import save_picture
from waiting import Hold

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


@dataclass
class Runs:
    """Runs of the command on the pictures."""

    corpus: Path
    models: Path
    started: list[subprocess.Popen] = field(default_factory=list)

    def start(self, home: Path, alias: str, url: str) -> subprocess.Popen:
        """Start one that will be killed."""
        self.started.append(start_ingest(self.corpus, url=url, home=home, models=self.models, alias=alias))
        return self.started[-1]

    def finish(self, home: Path, alias: str, url: str) -> dict:
        """Run one to its end, and return its JSON."""
        return ingest_undisturbed(self.corpus, url=url, home=home, models=self.models, alias=alias)


@pytest.fixture
def runs(tiny_pair: Path, corpus: Path) -> Iterator[Runs]:
    """Runs on the corpus. Processes still running at the end are ended."""
    made = Runs(corpus, tiny_pair)
    yield made
    for process in made.started:
        process.kill()
        process.wait()


def test_after_kills_at_random_moments_the_index_is_that_of_an_undisturbed_run(
    client, node, index_name, runs, tmp_path
):
    killed, whole = f"{index_name}-killed", f"{index_name}-whole"
    moments = sorted(random.Random(7).sample(range(1, GOOD - 5), KILLS))
    for moment in moments:
        # Nothing is written beyond the moment, so that no run is over before it is killed.
        beyond = Hold(lambda _, path, at=moment: "_bulk" in path and thumbnails(tmp_path / "killed") >= at)
        with proxy(node.url, beyond) as url:
            process = runs.start(tmp_path / "killed", killed, url)
            assert kill_after(process, tmp_path / "killed", stored=moment) == -9
            beyond.drop()
    written = len(contents(client, killed))
    assert written > 0
    last = runs.finish(tmp_path / "killed", killed, node.url)
    undisturbed = runs.finish(tmp_path / "whole", whole, node.url)
    assert (undisturbed["indexed"], undisturbed["failed"]) == (GOOD, 1)
    assert last["failed"] + last["failed_before"] == 1
    # Nothing that is in the index is embedded again.
    assert last["embedded"] <= GOOD - written
    found = contents(client, killed)
    assert len(found) == GOOD
    assert differences(found, contents(client, whole)) == []
    assert thumbnails(tmp_path / "killed") == thumbnails(tmp_path / "whole") == GOOD
    assert len((tmp_path / "killed" / "failed.jsonl").read_text().splitlines()) == 1
