"""Watched folders: every change in them reaches the index, in spite of interruptions."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from elasticsearch import Elasticsearch
from film_files import save_film
from http_fronts import proxy
from picture_files import save_picture
from waiting import PATIENCE_S, wait_until
from watchdog.observers import inotify_c

from demo.world.draw import draw as draw_scene
from demo.world.scene import sample
from es_config.client import EngineSettings, connect
from es_config.index import ImageIndex
from glimpse import main
from ingest.files import events as waiting
from ingest.files.events import POLLING, FolderEvents, GonePaths, InotifyObserver, PendingPaths
from ingest.files.walk import Exclusions, walk
from ingest.history.ingested_files import IngestHistory
from ingest.options import IngestOptions, PruneOptions
from ingest.pipeline.run import ingest_paths
from ingest.report import IngestSummary
from ingest.watch import FolderWatch, Places
from ingest.wiring import Dependencies, create_index
from models.encoders import Lazy, load_caption_text_encoder, load_image_encoder
from models.profiles import get_profile
from storage.store import FolderStorage

ROOT = Path(__file__).parent.parent
LONG_AGO = 1_600_000_000


def draw(path: Path, seed: int) -> Path:
    """Draw a small picture that was last changed long ago."""
    save_picture(path, seed, size=(40, 30))
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


def paths(index: ImageIndex) -> list[str]:
    """Return the paths of every document, those of one joined, as searches find them."""
    hits = index.search({"query": {"match_all": {}}, "size": 100}).hits
    return sorted("+".join(sorted(hit.source["relative_path"])) for hit in hits)


class Told:
    """Everything that a watch reports."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.rounds: list[IngestSummary] = []

    @property
    def failures(self) -> list[str]:
        return [each.path for summary in self.rounds for each in summary.failures]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(8):
        draw(tmp_path / "pictures" / f"{number}.png", number)
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def tiny_models(tiny_pair: Path) -> dict:
    profile = get_profile("pocket", model_dir=tiny_pair)
    return {
        "image_encoder": Lazy(lambda: load_image_encoder(profile)),
        "caption_encoder": Lazy(lambda: load_caption_text_encoder(profile)),
    }


@pytest.fixture
def index(client: Elasticsearch, index_name: str, tiny_pair: Path) -> ImageIndex:
    index = ImageIndex(client, alias=index_name)
    create_index(index, get_profile("pocket", model_dir=tiny_pair))
    return index


@pytest.fixture
def watching(index: ImageIndex, tiny_models: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a context manager that ingests and watches folders in a thread, and gives their messages.

    Nothing needs to be still for long.
    """
    monkeypatch.setattr(waiting, "QUIET_S", 0.4)

    @contextmanager
    def watch(*folders: Path, client: Elasticsearch | None = None, **options: object) -> Iterator[Told]:
        told, ended, errors = Told(), threading.Event(), []
        ours = ImageIndex(client, alias=index.alias) if client else index
        wanted = IngestOptions(**options)

        def run(there, changes=None):
            path = tmp_path / "notes.sqlite"
            history = IngestHistory(path, index=ours.uuid(), max_pixels=wanted.max_pixels)
            storage = FolderStorage(tmp_path / "store")
            try:
                needs = Dependencies(index=ours, storage=storage, **tiny_models, captioner=None)
                return ingest_paths(
                    there, dependencies=needs, history=history, options=wanted, changes=changes
                )
            finally:
                history.close()

        def idle() -> bool:
            if ended.is_set():
                raise KeyboardInterrupt
            return False

        def work() -> None:
            try:
                loop.run_forever()
            except KeyboardInterrupt:
                return
            except BaseException as error:
                errors.append(error)

        with FolderWatch(
            folders,
            options=wanted,
            run=run,
            idle=idle,
            say=told.sentences.append,
            finished=told.rounds.append,
        ) as loop:
            run(folders)
            thread = threading.Thread(target=work)
            thread.start()
            try:
                yield told
            finally:
                ended.set()
                thread.join(PATIENCE_S)
        assert not errors

    return watch


@pytest.fixture
def environ(node, index_name: str, tiny_pair: Path, tmp_path: Path) -> dict[str, str]:
    """The settings of a command, as environment variables."""
    return os.environ | {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_MODEL_DIR": str(tiny_pair),
        "GLIMPSE_PRECISION": "fp32",
        "GLIMPSE_BACKEND": "torch",
    }


def test_the_command_follows_what_happens_in_a_folder(environ, client, pictures, tmp_path):
    def lines() -> list[dict]:
        return [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]

    index = ImageIndex(client, alias=environ["GLIMPSE_INDEX"])
    command = [sys.executable, "-m", "glimpse", "ingest", str(pictures), "--watch", "--prune", "--json"]
    slow = draw(tmp_path / "slow.png", 20).read_bytes()
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=out, stderr=err)
    try:
        wait_until(lambda: "Watching" in (tmp_path / "err").read_text(), running=process)
        for number in range(40, 44):
            draw(tmp_path / "come" / "deep" / f"{number}.png", number)
        (tmp_path / "come").rename(pictures / "come")
        (pictures / "0.png").rename(pictures / "moved.png")
        (pictures / "1.png").unlink()
        draw(tmp_path / "other.png", 30).replace(pictures / "2.png")
        with (pictures / "slow.png").open("wb") as file:
            for start in range(0, len(slow), len(slow) // 5):
                file.write(slow[start : start + len(slow) // 5])
                file.flush()
                time.sleep(0.5)
        come = [f"come/deep/{number}.png" for number in range(40, 44)]
        wanted = sorted([*come, "moved.png", "slow.png", *(f"{number}.png" for number in range(2, 8))])
        wait_until(lambda: paths(index) == wanted)
        captioned = {"query": {"exists": {"field": "caption"}}, "size": 0}
        wait_until(lambda: index.search(captioned).total == len(wanted))
        wait_until(lambda: sum(each["captions"]["written"] for each in lines()) >= len(wanted))
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
    told = lines()
    assert sum(each["failed"] for each in told) == 0
    assert sum(each["embedded"] for each in told) == 8 + 4 + 1 + 1
    assert sum(each["paths_added"] for each in told) == 1
    gone = [path for each in told for path in each["pruned"]["gone"]]
    assert gone == [str(pictures / "1.png")]
    assert re.search(r"Watched for \d:\d\d:\d\d", (tmp_path / "err").read_text())


def test_a_file_that_stays_damaged_is_named_once_and_taken_when_its_rest_comes(
    watching, pictures, index, tmp_path
):
    whole = draw(tmp_path / "whole.png", 9).read_bytes()
    with watching(pictures) as told:
        (pictures / "new.png").write_bytes(whole[:90])
        os.utime(pictures / "new.png", (LONG_AGO, LONG_AGO))
        wait_until(lambda: told.failures)
        with (pictures / "new.png").open("ab") as file:
            file.write(whole[90:])
        wait_until(lambda: "new.png" in paths(index))
    assert told.failures == [str(pictures / "new.png")]
    assert (tmp_path / "failed.jsonl").read_text() == ""


def test_without_prune_the_documents_of_deleted_files_stay_and_moved_ones_move(watching, pictures, index):
    draw(pictures / "folder" / "1.png", 1)
    (pictures / "1.png").unlink()
    with watching(pictures, exclude=Exclusions(("left out",))) as told:
        (pictures / "0.png").unlink()
        for name in (".hidden", "left out"):
            draw(pictures / name / "8.png", 8)
        (pictures / "folder").rename(pictures / "album")
        wait_until(lambda: "album/1.png" in paths(index))
    assert paths(index) == [f"{number}.png" for number in (0, *range(2, 8))] + ["album/1.png"]
    assert sum(each.embedded for each in told.rounds) == 0


def test_sidecars_that_come_change_and_go_reach_the_pictures_beside_them(watching, pictures, index):
    def told(name: str) -> list[str]:
        hits = index.search({"query": {"term": {"relative_path": name}}}).hits
        return [each for hit in hits for each in hit.source.get("tags") or []]

    with watching(pictures) as watch:
        for word in ("boat", "harbour"):
            put_sidecar(pictures / "0.png.xmp", word)
            wait_until(lambda word=word: told("0.png") == [word])
        put_sidecar(pictures / "1.xmp", "house")
        (pictures / "0.png.xmp").unlink()
        draw(pictures / "new.png", 30)
        put_sidecar(pictures / "new.xmp", "new")
        wait_until(lambda: (told("0.png"), told("1.png"), told("new.png")) == ([], ["house"], ["new"]))
    assert sum(each.embedded for each in watch.rounds) == 1
    assert not watch.failures


def test_films_that_come_change_and_go_are_followed_with_all_their_moments(watching, pictures, index):
    scenes = [draw_scene(scene, 64) for scene in sample("demo", 3)]

    def films() -> dict[str, int]:
        """Return how many documents there are of each film, by its path."""
        index.refresh()
        hits = index.search({"query": {"exists": {"field": "film.id"}}, "size": 100}).hits
        return Counter(each for hit in hits for each in hit.source["relative_path"])

    def tags() -> set[str]:
        index.refresh()
        hits = index.search({"query": {"exists": {"field": "film.id"}}, "size": 100}).hits
        return {" ".join(hit.source.get("tags") or []) for hit in hits}

    made = save_film(pictures.parent / "made.mp4", [(scene, 3) for scene in scenes])
    other = save_film(pictures.parent / "other.mp4", [(scenes[1], 3), (scenes[0], 3)])
    with watching(pictures, films="moments", prune=PruneOptions(prune=True, anyway=True)) as watch:
        shutil.copy(made, pictures / "lake.mp4")
        wait_until(lambda: films() == {"lake.mp4": 3})
        put_sidecar(pictures / "lake.mp4.xmp", "sunset")
        wait_until(lambda: tags() == {"sunset"})
        shutil.copy(other, pictures / "lake.mp4")
        wait_until(lambda: films() == {"lake.mp4": 2})
        (pictures / "lake.mp4.xmp").unlink()
        wait_until(lambda: tags() == {""})
        (pictures / "lake.mp4").rename(pictures / "sea.mp4")
        wait_until(lambda: films() == {"sea.mp4": 2})
        save_film(pictures / "IMG_1.mov", [(scenes[2], 1)])
        draw(pictures / "IMG_1.png", 40)
        wait_until(lambda: films() == {"sea.mp4": 2} and index.of_path("IMG_1.png"))
        (pictures / "sea.mp4").unlink()
        wait_until(lambda: not films())
    assert not watch.failures


def put_sidecar(path: Path, word: str) -> None:
    space = "http://purl.org/dc/elements/1.1/"
    path.write_text(f'<x xmlns:dc="{space}"><dc:subject>{word}</dc:subject></x>')
    os.utime(path, (LONG_AGO, LONG_AGO))


def test_many_deletions_at_once_are_refused(watching, pictures, index, monkeypatch):
    monkeypatch.setattr(waiting, "QUIET_S", 5.0)  # a pause of this machine does not part the three
    with watching(pictures, prune=PruneOptions(prune=True)) as told:
        for number in range(3):
            (pictures / f"{number}.png").unlink()
        wait_until(lambda: told.rounds)
    assert "3 of 8 files are gone" in told.rounds[0].pruned.refused
    assert len(paths(index)) == 8


def test_what_happens_while_elasticsearch_is_away_is_not_lost(watching, node, pictures, index):
    away = threading.Event()
    answer = (503, b'{"error": {"type": "unavailable", "reason": "away"}, "status": 503}')
    with proxy(node.url, lambda *_: answer if away.is_set() else None) as url:
        client = connect(EngineSettings(url))
        with watching(pictures, client=client) as told:
            away.set()
            draw(pictures / "new.png", 9)
            wait_until(lambda: told.sentences)
            away.clear()
            wait_until(lambda: "new.png" in paths(index))
        client.close()
    assert [sentence.split()[0] for sentence in told.sentences] == ["Error:", "It"]
    assert "Nothing is lost" in told.sentences[0]


def test_a_disk_that_was_unplugged_is_looked_through_when_it_is_back(watching, pictures, index, tmp_path):
    with watching(pictures, prune=PruneOptions(prune=True)) as told:
        pictures.rename(tmp_path / "away")
        wait_until(lambda: told.sentences)
        draw(tmp_path / "away" / "new.png", 9)
        (tmp_path / "away").rename(pictures)
        wait_until(lambda: "new.png" in paths(index))
        draw(pictures / "newer.png", 10)
        wait_until(lambda: "newer.png" in paths(index))
    assert len(paths(index)) == 10
    assert "is not there any more" in told.sentences[0]
    assert "is there again" in told.sentences[1]


def test_a_new_link_leads_to_a_folder_that_is_watched_too(watching, pictures, index, tmp_path):
    draw(tmp_path / "linked" / "9.png", 9)
    with watching(pictures):
        (pictures / "link").symlink_to(tmp_path / "linked")
        wait_until(lambda: "link/9.png" in paths(index))
        draw(tmp_path / "linked" / "10.png", 10)
        wait_until(lambda: "link/10.png" in paths(index))


def test_folders_are_polled_and_the_user_told_why_where_the_system_watches_no_more(tmp_path):
    said: list[str] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def say(sentence: str) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        said.append(sentence)

    folder_events = FolderEvents(say=say)
    lowest = os.dup(0)  # the number that the next open file would get
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        folder_events.observe([(str(tmp_path), True)])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        (tmp_path / "new.png").touch()
        wait_until(lambda: len(folder_events.pending))
    finally:
        folder_events.close()
    assert (folder_events.is_polling, said) == (True, [POLLING])
    assert "fs.inotify.max_user_watches" in POLLING


def test_lost_events_are_noticed(tmp_path):
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for each in files:
        each.touch()
    folder_events = FolderEvents(say=pytest.fail)
    folder_events.observe([(str(tmp_path), True)])
    observer = folder_events.observer
    assert isinstance(observer, InotifyObserver)
    events = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    try:
        with observer.inotify._lock:  # nobody reads the kernel's queue now
            for _ in range(events):
                for each in files:
                    os.utime(each)
        wait_until(lambda: folder_events.is_lost)
    finally:
        folder_events.close()


def test_folders_are_polled_when_a_folder_below_cannot_be_watched(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    add_watch = inotify_c.inotify_add_watch

    def limited(descriptor: int, path: bytes, mask: int) -> int:
        if path.endswith(b"below"):
            ctypes.set_errno(errno.ENOSPC)
            return -1
        return add_watch(descriptor, path, mask)

    monkeypatch.setattr(inotify_c, "inotify_add_watch", limited)
    said: list[str] = []
    folder_events = FolderEvents(say=said.append)
    try:
        folder_events.observe([(str(tmp_path), True)])
        (tmp_path / "below" / "new.png").touch()
        wait_until(lambda: len(folder_events.pending))
    finally:
        folder_events.close()
    assert (folder_events.is_polling, said) == (True, [POLLING])


def test_every_file_has_the_name_that_a_full_run_gives_it(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    for name in (
        "a.png",
        "b.txt",
        ".h/c.png",
        ".d.png",
        "x/e.JPG",
        "x/y/f.png",
        "skip/g.png",
        "x/h\udcff.png",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name in ("i.png", "deep/j.png", "skip/k.png"):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).touch()
    for link, target in (("link", other), ("again", root / "x"), ("loop", root), (".h2", other)):
        (root / link).symlink_to(target)
    (tmp_path / "named").symlink_to(root)
    everything = [
        f"{here}/{name}" for top in (root, other) for here, _, names in os.walk(top) for name in names
    ]
    for named in (
        [root],
        [tmp_path / "named"],
        [root / "x", root],
        [root, root / "x"],
        [root / ".h"],
        [root / "a.png", other],
        [other, root],
    ):
        places = Places(named, exclude=Exclusions(("skip",)))
        told = {(each.path, each.relative_path) for path in everything if (each := places.named(path))}
        assert told == {
            (each.path, each.relative_path)
            for each in walk(named, exclude=Exclusions(("skip",)))
            if hasattr(each, "relative_path")
        }


def test_a_file_is_taken_when_it_is_quiet_and_a_stream_of_them_starves_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "QUIET_S", 2.0)  # and all steps are exact
    now = [0.0]
    line = PendingPaths(clock=lambda: now[0])

    def after(seconds: float) -> list[str]:
        now[0] += seconds
        return [Path(path).name for path in line.take()]

    def come(name: str) -> None:
        line.touch(str(draw(tmp_path / name, 1)))

    come("a.png")
    assert after(1.5) == []
    come("b.png")
    assert after(0.5) == ["a.png"]
    come("b.png")  # it is still being written
    assert after(1.5) == []
    assert after(0.5) == ["b.png"]
    taken = []
    for number in range(8):  # one more every half second, never a pause
        come(f"{number}.png")
        taken += after(0.5)
    assert taken[:3] == ["0.png", "1.png", "2.png"]
    after(5)
    line.touch(str(tmp_path / "growing.png"))
    (tmp_path / "growing.png").touch()  # just now, whatever the clock of events says
    assert after(2) == []  # something writes it without events
    os.utime(tmp_path / "growing.png", (LONG_AGO, LONG_AGO))
    assert after(2) == ["growing.png"]
    come("c.png")
    line.put_back(["gone.png"])
    assert after(0) == ["gone.png"]
    later = time.time() + 60  # a clock that is ahead keeps no file waiting
    os.utime(tmp_path / "c.png", (later, later))
    assert after(2) == ["c.png"]


def test_a_round_takes_some_of_many_files_the_first_ones_first():
    line = PendingPaths(clock=lambda: 0.0)
    line.put_back(str(number) for number in range(waiting.MOST + 1))
    assert line.take() == [str(number) for number in range(waiting.MOST)]
    assert (line.take(), line.take()) == ([str(waiting.MOST)], [])


def test_what_goes_within_a_short_time_is_counted_together(monkeypatch):
    monkeypatch.setattr(waiting, "QUIET_S", 2.0)
    now = [0.0]
    gone = GonePaths(clock=lambda: now[0])
    going = [Path(str(number)) for number in range(300)]
    for path in going[:100]:
        gone.add([path])
        now[0] += 0.5
        assert gone.take() == ()
    now[0] += waiting.QUIET_S
    assert gone.take() == tuple(going[:100])
    assert gone.take() == ()
    answers = []
    for path in going[100:]:  # for longer than a minute
        gone.add([path])
        now[0] += 0.5
        answers.append(gone.take())
    assert [len(each) for each in answers if each] == [waiting.LONGEST_GONE_S / 0.5]


@pytest.mark.parametrize("other", [["--dry-run"], ["--limit", "3"]])
def test_a_watch_that_writes_nothing_is_refused(other, tmp_path):
    done = CliRunner().invoke(main, ["ingest", str(tmp_path), "--watch", *other])
    assert done.exit_code == 2
    assert f"does not go with {other[0]}" in done.stderr
