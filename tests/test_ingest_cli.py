"""`glimpse ingest` as a person or a script meets it: summaries, exit codes, a sentence for each trouble."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from elasticsearch import Elasticsearch
from http_fronts import proxy
from model_folders import save_pair
from picture_files import save_picture
from waiting import PATIENCE_S, Hold, after, wait_until

from es_config.documents import IndexMeta, IndexOptions
from es_config.index import ImageIndex
from glimpse import main
from ingest.files.walk import Failure
from ingest.report import BarProgress, IngestSummary, LineProgress, in_words
from models.fast.standalone import QuickTowers
from models.profiles import get_profile

ROOT = Path(__file__).parent.parent
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def environ(node, tmp_path: Path, models: Path, index_name: str) -> dict[str, str]:
    """The settings of a command, as environment variables."""
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_MODEL_DIR": str(models),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_INGEST_CAPTIONS": "off",
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(5):
        save_picture(tmp_path / "pictures" / f"{number}.png", number)
    return tmp_path / "pictures"


def glimpse(environ: dict[str, str], *arguments: object) -> Result:
    return CliRunner().invoke(main, ["ingest", *map(str, arguments)], env=environ)


def test_a_person_at_a_terminal_finds_the_models_of_searches_made_ahead(environ, pictures, models, tmp_path):
    """A process of its own, which outlives the ingest, makes the form that a first search waits for."""
    environ["GLIMPSE_CACHE"] = str(tmp_path / "cache")
    towers = QuickTowers(get_profile("clip", model_dir=models), tmp_path / "cache")
    command = [sys.executable, "-m", "glimpse", "ingest", str(pictures)]
    places = {"cwd": ROOT, "env": {**os.environ, **environ}, "timeout": PATIENCE_S}
    subprocess.run(command, check=True, **places, stdin=subprocess.DEVNULL, capture_output=True)
    assert not (towers.cache / "standalone").exists()
    person, terminal = os.openpty()
    with os.fdopen(person, "rb", buffering=0) as seen, os.fdopen(terminal, "wb") as stream:
        places.pop("timeout")
        process = subprocess.Popen(command, **places, stdin=stream, stdout=subprocess.DEVNULL, stderr=stream)
        while process.poll() is None:
            if select.select([seen], [], [], 0.1)[0]:
                seen.read(65536)  # or the terminal is full, and the command waits
        assert process.returncode == 0
        wait_until(towers.are_kept)


def test_a_folder_is_ingested_and_a_second_run_adds_nothing(environ, pictures):
    first = json.loads(glimpse(environ, pictures, "--json").stdout)
    assert first.pop("seconds") > 0
    assert first.pop("captions")["pictures"] == 0
    assert (first["words"].pop("seconds"), first.pop("words")["pictures"]) == (0, 0)
    assert first == {
        "files": 5,
        "indexed": 5,
        "skipped": 0,
        "paths_added": 0,
        "embedded": 5,
        "completed": 0,
        "updated": 0,
        "moments": 0,
        "cut_short": [],
        "failed": 0,
        "failed_before": 0,
        "interrupted": False,
        "dry_run": False,
        "failures": [],
        "passed_over": {"kinds": {}, "rules": {}, "film_parts": 0},
        "unused_patterns": [],
        "pruned": {"gone": [], "documents": 0, "human_captions": 0, "failures": [], "refused": None},
    }
    second = glimpse(environ, pictures)
    assert second.stdout.startswith("5 files: 0 indexed, 5 known already, 0 failed, in ")
    assert (second.exit_code, second.stderr) == (0, "")
    assert len(list((Path(environ["GLIMPSE_HOME"]) / "store").rglob("*.webp"))) == 5


def test_a_bad_file_is_named_on_stderr_and_the_exit_code_is_one(environ, pictures):
    (pictures / "2b\n.png").write_text("no picture")
    done = glimpse(environ, pictures, "--json")
    assert done.exit_code == 1
    assert done.stderr == f"Skipped {pictures}/2b\\n.png: not a picture in a known format\n"
    answer = json.loads(done.stdout)
    assert (answer["indexed"], answer["failed"]) == (5, 1)
    assert answer["failures"] == [
        {"path": f"{pictures}/2b\n.png", "reason": "not a picture in a known format"}
    ]


def test_names_in_invalid_utf8_survive_the_command_line_and_json(environ, tmp_path):
    folder = tmp_path / os.fsdecode(b"dossier\xe9")
    save_picture(folder / "a.png", 1)
    (folder / os.fsdecode(b"\xff.png")).touch()
    done = glimpse(environ, folder, "--json")
    assert json.loads(done.stdout)["failures"] == [
        {"path": str(tmp_path / r"dossier\xe9" / r"\xff.png"), "reason": "the file is empty"}
    ]


def test_options_reach_the_run(environ, pictures, tmp_path):
    environ["GLIMPSE_STORE"] = f"file:{tmp_path}/thumbs"
    answer = json.loads(glimpse(environ, pictures, "--json", "--limit", 3, "--exclude", "0.png").stdout)
    assert (answer["files"], answer["indexed"]) == (3, 3)
    assert len(list((tmp_path / "thumbs").rglob("*.webp"))) == 3
    environ |= {"GLIMPSE_ORIGINALS": "original", "GLIMPSE_NO_GPS": "1"}
    again = json.loads(glimpse(environ, pictures, "--json", "--limit", 3, "--exclude", "0.png").stdout)
    assert (again["files"], again["skipped"]) == (3, 3)
    kept = sorted(path.read_bytes() for path in (tmp_path / "thumbs" / "originals").rglob("*.png"))
    assert kept == sorted((pictures / f"{number}.png").read_bytes() for number in (1, 2, 3))
    environ |= {"GLIMPSE_MAX_PIXELS": "100", "GLIMPSE_INGEST_EXCLUDE": "0.*"}
    done = glimpse(environ, pictures, "--threads", 1, "--batch-size", 1)
    sentence = "4.png: 0.0192 megapixels are over the limit of 0.0001 (--max-pixels)"
    assert done.stderr == f"Skipped {pictures}/{sentence}\n"


def test_what_was_left_out_is_said_at_the_end(environ, pictures):
    for name in ("a.blend", "b.blend", "film.avi", "@eaDir/x/small.jpg", ".hidden/x.jpg"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        (pictures / name).touch()
    done = glimpse(environ, pictures, "--dry-run", "--exclude", "0.png", "--exclude", "absent")
    assert done.stderr.splitlines() == [
        "3 files of other kinds were left out: 2 .blend, 1 .avi.",
        "Left out by default or by a mark: @eaDir (1).",
        "--exclude 'absent' fitted nothing.",
    ]
    answer = json.loads(glimpse(environ, pictures, "--dry-run", "--json", "--exclude", "0.png").stdout)
    assert answer["passed_over"] == {
        "kinds": {".blend": 2, ".avi": 1},
        "rules": {".*": 1, "0.png": 1, "@eaDir/": 1},
        "film_parts": 0,
    }


def test_a_dry_run_creates_nothing(environ, pictures, client):
    done = glimpse(environ, pictures, "--dry-run")
    assert done.stdout.startswith("5 files: 5 would be indexed, 0 known already, 0 failed")
    assert not client.indices.exists(index=environ["GLIMPSE_INDEX"])
    assert not Path(environ["GLIMPSE_HOME"]).exists()


def test_the_index_records_what_made_its_vectors(environ, pictures, client):
    glimpse(environ, pictures)
    meta = ImageIndex(client, alias=environ["GLIMPSE_INDEX"]).meta()
    assert (meta.profile, meta.dims, meta.caption_dims, meta.similarity) == ("pocket", 16, 16, "cosine")
    assert set(meta.revisions) == {"image", "text", "caption_text"}, "the captioner is noted with its caption"
    assert all(revision.startswith("sha256:") for revision in meta.revisions.values())


def test_an_index_made_beforehand_learns_its_weights_from_the_first_run(environ, pictures, client):
    index = ImageIndex(client, alias=environ["GLIMPSE_INDEX"])
    meta = IndexMeta("pocket", {}, dims=16, caption_dims=16, similarity="cosine")
    index.create(meta, IndexOptions())
    glimpse(environ, pictures)
    assert set(ImageIndex(client, alias=environ["GLIMPSE_INDEX"]).meta().revisions) == {"image", "text"}


def test_other_weights_of_the_same_shape_are_refused(environ, pictures, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    glimpse(environ, pictures, "--limit", "2")
    other = save_pair(tmp_path / "other")
    weights = load_file(other / "image" / "model.safetensors")
    weights = {name: value + torch.ones_like(value) for name, value in weights.items()}
    save_file(weights, other / "image" / "model.safetensors", metadata={"format": "pt"})
    done = glimpse(environ | {"GLIMPSE_MODEL_DIR": str(other)}, pictures)
    assert done.exit_code == 1
    assert "was made with other weights (image sha256:" in done.stderr
    assert "glimpse index delete" in done.stderr


def test_an_index_of_other_dims_is_refused(environ, pictures, tmp_path):
    glimpse(environ, pictures, "--limit", "1")
    wide = save_pair(tmp_path / "wide", dims=32)
    done = glimpse(environ | {"GLIMPSE_MODEL_DIR": str(wide)}, pictures)
    assert done.exit_code == 1
    assert "holds vectors of 16 dims, and profile 'pocket' makes 32" in done.stderr


@pytest.mark.parametrize(
    ("changed", "arguments", "expected"),
    [
        ({"ELASTICSEARCH_URL": NOWHERE}, (), (1, f"No Elasticsearch answers at {NOWHERE}")),
        ({"ELASTICSEARCH_URL": ""}, (), (1, "run `glimpse up` or set ELASTICSEARCH_URL")),
        ({}, ("--profile", "nonsense"), (1, "There is no profile 'nonsense'; choose one of: pocket")),
        ({"GLIMPSE_STORE": "ftp://x"}, (), (1, "one of these schemes: file:")),
        ({}, ("--limit", "-1"), (2, "Invalid value for '--limit'")),
        ({}, ("--batch-size", "0"), (2, "Invalid value for '--batch-size'")),
        ({}, ("absent-folder",), (2, "Path 'absent-folder' does not exist")),
    ],
)
def test_each_trouble_is_one_sentence(environ, pictures, changed, arguments, expected):
    code, sentence = expected
    done = glimpse(environ | changed, pictures, *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_store_that_cannot_be_written_is_one_sentence(environ, pictures, tmp_path):
    (tmp_path / "file").touch()
    done = glimpse(environ, pictures, "--store", tmp_path / "file")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: Stopped after 0 pictures were indexed. 'thumbnails/")
    assert done.stderr.count("\n") == 1


def test_no_path_is_a_usage_error(environ):
    assert glimpse(environ).exit_code == 2


def test_a_folder_without_pictures_is_no_failure(environ, tmp_path):
    (tmp_path / "empty").mkdir()
    done = glimpse(environ, tmp_path / "empty")
    assert (done.exit_code, done.stdout) == (0, "No pictures found.\n")


def test_ctrl_c_ends_with_a_summary_and_the_next_run_goes_on(environ, tmp_path, client: Elasticsearch):
    folder = tmp_path / "many"
    for number in range(200):
        save_picture(folder / f"{number:03}.png", number)
    command = [sys.executable, str(ROOT / "glimpse.py"), "ingest", str(folder), "--json", "--batch-size", "1"]
    second = Hold(after(1, "_bulk"))
    with proxy(environ["ELASTICSEARCH_URL"], second) as url:
        process = subprocess.Popen(
            command,
            env=os.environ | environ | {"ELASTICSEARCH_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: second.is_reached, running=process)
        process.send_signal(signal.SIGINT)
        second.release()
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    answer = json.loads(stdout)
    assert (process.returncode, answer["interrupted"], stderr) == (130, True, "")
    written = client.count(index=environ["GLIMPSE_INDEX"])["count"]
    assert 0 < answer["indexed"] == written < 200
    again = json.loads(glimpse(environ, folder, "--json").stdout)
    assert (again["indexed"], again["skipped"]) == (200 - written, written)


def test_without_a_terminal_a_line_comes_now_and_then():
    stream = io.StringIO()
    with LineProgress(stream, every_s=0.0) as progress:
        progress.start(2)
        progress.advance()
        progress.failed(Failure("a\x1b[31m.png", "the file is empty"))
        progress.advance()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("1 of 2 files, ")
    assert lines[1] == r"Skipped a\x1b[31m.png: the file is empty"
    assert lines[2].endswith("/s, 0 s left")


def test_while_more_files_are_found_a_line_says_so():
    stream = io.StringIO()
    with LineProgress(stream, every_s=0.0) as progress:
        progress.start(2, so_far=True)
        progress.advance()
        progress.start(3)
        progress.advance()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("1 of 2 or more files, ")
    assert lines[0].endswith(" s or more left")
    assert lines[1].startswith("2 of 3 files, ")
    assert lines[1].endswith(" s left")


def test_a_terminal_shows_a_bar_with_total_rate_and_time_left(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with BarProgress() as progress:
        progress.start(2)
        progress.advance()
        progress.failed(Failure("[bold]a.png", "the file is empty"))
        progress.advance()
    shown = capsys.readouterr().err
    assert "Skipped [bold]a.png: the file is empty" in shown
    assert "2/2" in shown
    assert "/s" in shown
    assert "0:00:00" in shown


def test_the_summary_names_what_happened():
    summary = IngestSummary(
        files=10, indexed=6, skipped=3, paths_added=1, embedded=6, failures=(Failure("a", "b"),), seconds=2.0
    )
    assert in_words(summary) == (
        "10 files: 6 indexed, 3 known already (1 under a new path), 1 failed, in 2.0 s (5.0/s)."
    )
