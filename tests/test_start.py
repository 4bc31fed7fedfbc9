"""`glimpse start`: a folder becomes a page that searches it, and says meanwhile how far it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from model_folders import save_pair
from waiting import PATIENCE_S, wait_until

from demo.gallery import draw_gallery
from es_config.index import ImageIndex
from es_config.runs import ENDED, RunFile, in_words, read_outcomes, read_runs
from models.profiles import POCKET_WEIGHTS
from search_app.commands.start import has_browser

COUNT = 12


@dataclass
class Started:
    """A running `glimpse start`."""

    process: subprocess.Popen
    address: str
    log: Path

    def progress(self) -> dict:
        try:
            with urlopen(f"{self.address}/progress", timeout=10) as answer:
                return json.load(answer)
        except (URLError, ConnectionError, TimeoutError):
            return {"running": None, "images": 0}

    def wait(self, images: int, *, said: str = "captions written") -> None:
        wait_until(
            lambda: self.progress() == {"running": "", "images": images} and said in self.log.read_text(),
            running=self.process,
        )

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def start(node, index_name, tmp_path) -> Callable[..., Started]:
    """Start it on a port of its own, in a session of its own as a terminal would have."""
    running: list[Started] = []
    environ = {
        **os.environ,
        "ELASTICSEARCH_URL": node.url,
        "ELASTICSEARCH_API_KEY": node.key,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_TEXT_LANE": "local",
        "HF_HOME": str(tmp_path / "no models"),
        "HF_HUB_OFFLINE": "1",
    }
    environ.pop("GLIMPSE_PROFILE", None)

    def begin(*words: object) -> Started:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = tmp_path / f"log{len(running)}.txt"
        command = [
            sys.executable,
            "-m",
            "glimpse",
            "start",
            *map(str, words),
            "--port",
            str(port),
            "--no-browser",
        ]
        with log.open("w") as file:
            process = subprocess.Popen(
                command, env=environ, stdout=file, stderr=file, cwd=Path(__file__).parent.parent
            )
        running.append(Started(process, f"http://127.0.0.1:{port}", log))
        return running[-1]

    yield begin
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of drawn pictures."""
    draw_gallery(tmp_path / "pictures", COUNT)
    return tmp_path / "pictures"


def test_a_folder_is_served_ingested_and_captioned_and_again_with_what_is_new(
    start, pictures, client, index_name, tmp_path
):
    first = start(pictures, "--profile", "pocket")
    first.wait(COUNT)
    with urlopen(f"{first.address}/api/v1/search?q=a+boat&k=3", timeout=PATIENCE_S) as answer:
        assert [bool(hit["caption"]) for hit in json.load(answer)["hits"]] == [True] * 3
    assert f"{COUNT} captions written" in first.log.read_text()
    assert first.stop() == 0
    draw_gallery(pictures, COUNT + 1)
    again = start(pictures)
    again.wait(COUNT + 1)
    said = again.log.read_text()
    assert f"1 indexed, {COUNT} known already" in said
    assert "1 captions written" in said
    assert again.stop() == 0
    assert [each.name for each in (tmp_path / "home" / "runs").iterdir()] == [ENDED]
    ended = {each.doing: each for each in read_outcomes(tmp_path / "home", index_name)}
    assert (ended["Ingesting"].done, ended["Captioning"].done) == (COUNT + 1, 1)
    assert all(each.whole and not each.failed for each in ended.values())
    assert set(ended) <= {"Ingesting", "Captioning", "Learning which hits are good ones"}
    assert ImageIndex(client, alias=index_name).meta().profile == "pocket"


def test_the_models_of_photographs_come_from_a_folder(start, pictures, client, index_name, tmp_path):
    models = save_pair(tmp_path / "models")
    shutil.copytree(models / "text", models / "caption_text")
    for slot in ("caption", "voice"):
        shutil.copytree(POCKET_WEIGHTS / slot, models / slot)
    run = start(pictures, "--model-dir", models)
    run.wait(COUNT)
    assert "To be downloaded" not in run.log.read_text()
    assert run.stop() == 0
    assert ImageIndex(client, alias=index_name).meta().profile == "clip"


def test_an_interrupted_start_loses_nothing(start, pictures, client, index_name):
    run = start(pictures, "--profile", "pocket")
    wait_until(lambda: run.progress()["images"], running=run.process)
    assert run.stop() == 0
    before = ImageIndex(client, alias=index_name).count()
    assert before > 0
    again = start(pictures)
    again.wait(COUNT, said="known already")  # the first may have had the time for all captions
    assert again.stop() == 0


def test_models_that_cannot_be_had_end_it_after_their_sizes_were_told(start, pictures, client, index_name):
    run = start(pictures)
    assert run.process.wait(PATIENCE_S) == 1
    said = run.log.read_text()
    assert "To be downloaded once, 2.7 GB in all: " in said
    assert "BLIP" in said or "blip" in said
    assert said.splitlines()[-1].startswith("Error: ")
    assert not ImageIndex(client, alias=index_name).exists()


def test_the_state_of_a_run_is_seen_until_it_ends_and_never_after_its_death(tmp_path):
    with RunFile(tmp_path, "images") as file:
        file.write("Ingesting", noun="files", done=123, total=1400)
        (path,) = (tmp_path / "runs").iterdir()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert in_words(read_runs(tmp_path, "images")) == "Ingesting 123 of 1,400 files …"
        assert read_runs(tmp_path, "others") == []
        done = subprocess.Popen([sys.executable, "-c", ""])
        done.wait()
        dead = json.loads(path.read_text())
        dead["run"]["process"] = done.pid
        (tmp_path / "runs" / "1.json").write_text(json.dumps(dead))
        (tmp_path / "runs" / "2.json").write_text("{")
        assert len(read_runs(tmp_path, "images")) == 1
    assert read_runs(tmp_path, "images") == []
    assert in_words([]) == ""


def test_a_browser_is_opened_only_where_there_is_a_window(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    assert has_browser({"DISPLAY": ":0"})
    assert not has_browser({"TERM": "xterm"})
