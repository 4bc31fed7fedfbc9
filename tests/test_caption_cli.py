"""`glimpse caption` and `glimpse ingest --captions` as a person or a script meets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from elasticsearch import Elasticsearch
from http_fronts import proxy
from waiting import PATIENCE_S, Hold, after, wait_until

from demo.world.draw import write_picture
from demo.world.scene import sample
from es_config.index import ImageIndex
from glimpse import main
from models.profiles import POCKET_WEIGHTS

ROOT = Path(__file__).parent.parent
COUNT = 4


@pytest.fixture
def environ(node, tmp_path: Path, index_name: str) -> dict[str, str]:
    """The settings of a command, as environment variables."""
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_INDEX": index_name,
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Drawn pictures, of which the first carries a caption of its own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, scene in enumerate(sample("demo", COUNT)):
        words = "what the file says" if number == 0 else None
        write_picture(scene, folder / f"{number}.png", 128, description=words)
    return folder


@pytest.fixture
def without_captioner(tmp_path: Path) -> Path:
    """A folder of models with pocket's towers, whose captioner cannot be loaded."""
    folder = tmp_path / "models"
    (folder / "caption").mkdir(parents=True)
    for part in ("image", "text"):
        (folder / part).symlink_to(POCKET_WEIGHTS / part)
    return folder


def glimpse(environ: dict[str, str], *arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), env=environ)


def sources(client: Elasticsearch, alias: str) -> list[str | None]:
    """Return who wrote the captions that a search finds now, one for each picture."""
    hits = ImageIndex(client, alias=alias).search({"query": {"match_all": {}}, "size": 100}).hits
    return sorted(hit.source.get("caption_source", "") for hit in hits)


def test_captions_follow_the_pictures_and_a_second_run_loads_no_captioner(
    environ, pictures, client, without_captioner
):
    first = glimpse(environ, "ingest", pictures)
    assert first.exit_code == 0
    lines = first.stdout.splitlines()
    assert lines[0].startswith("4 files: 4 indexed")
    assert lines[1].startswith("3 captions written, 0 failed, in ")
    assert first.stderr.startswith("The pictures are searchable now; 3 captions follow. Ctrl-C is safe")
    assert sources(client, environ["GLIMPSE_INDEX"]) == ["description", "model", "model", "model"]
    revisions = ImageIndex(client, alias=environ["GLIMPSE_INDEX"]).meta().revisions
    assert set(revisions) == {"image", "text", "caption_text", "caption"}
    second = glimpse(environ, "ingest", pictures, "--model-dir", without_captioner)
    assert (second.exit_code, second.stderr) == (0, "")
    assert second.stdout.startswith("4 files: 0 indexed, 4 known already, 0 failed")
    assert second.stdout.count("\n") == 1


def test_captions_now_are_in_the_documents_from_the_start(environ, pictures, client):
    done = glimpse(environ, "ingest", pictures, "--captions", "now", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    captions = json.loads(done.stdout)["captions"]
    assert (captions["written"], captions["failed"], captions["failures"]) == (3, 0, [])
    assert sources(client, environ["GLIMPSE_INDEX"]) == ["description", "model", "model", "model"]
    hits = client.search(index=environ["GLIMPSE_INDEX"], version=True)["hits"]["hits"]
    assert {hit["_version"] for hit in hits} == {1}, "written once"


def test_captions_off_leaves_them_to_glimpse_caption_which_says_the_same_as_now(
    environ, pictures, client, index_name
):
    def captions() -> dict[str, str]:
        hits = ImageIndex(client, alias=index_name).search({"query": {"match_all": {}}}).hits
        return {hit.source["image_name"]: hit.source.get("caption") for hit in hits}

    glimpse(environ, "ingest", pictures, "--captions", "now")
    now = captions()
    ImageIndex(client, alias=index_name).delete()
    off = glimpse(environ | {"GLIMPSE_INGEST_CAPTIONS": "off"}, "ingest", pictures, "--json")
    assert (off.exit_code, off.stderr, json.loads(off.stdout)["captions"]["pictures"]) == (0, "", 0)
    assert sources(client, index_name) == ["", "", "", "description"]
    done = glimpse(environ, "caption", "--json", "--batch-size", 2)
    answer = json.loads(done.stdout)
    assert answer.pop("seconds") > 0
    assert (done.exit_code, answer) == (
        0,
        {
            "pictures": 3,
            "written": 3,
            "changed": 0,
            "failed": 0,
            "interrupted": False,
            "error": None,
            "failures": [],
        },
    )
    assert captions() == now
    again = glimpse(environ, "caption")
    assert (again.exit_code, again.stdout) == (0, "No picture waits for a caption.\n")
    every = glimpse(environ, "caption", "--all", "--limit", 2)
    assert every.stdout.startswith("2 captions written, 0 failed, in ")
    assert sources(client, index_name) == ["description", "model", "model", "model"]


def test_a_picture_that_fails_is_named_and_tried_again_by_the_next_run(environ, pictures, client):
    glimpse(environ, "ingest", pictures, "--captions", "off")
    thumbnails = sorted((Path(environ["GLIMPSE_HOME"]) / "store").rglob("*.webp"))
    kept = {path: path.read_bytes() for path in thumbnails}
    for path in thumbnails:
        path.write_bytes(b"damaged")
    done = glimpse(environ, "caption")
    assert done.exit_code == 1
    assert done.stdout.startswith("0 captions written, 3 failed")
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("No caption for ") and "its thumbnail is damaged" in line for line in lines)
    assert sources(client, environ["GLIMPSE_INDEX"]) == ["", "", "", "description"]
    # An ingest that has nothing new tries them too, and says so.
    assert glimpse(environ, "ingest", pictures).exit_code == 1
    for path, data in kept.items():
        path.write_bytes(data)
    assert glimpse(environ, "caption").exit_code == 0
    assert sources(client, environ["GLIMPSE_INDEX"]) == ["description", "model", "model", "model"]


@pytest.mark.parametrize("when", ["now", "later"])
def test_a_captioner_that_cannot_be_loaded_costs_no_picture(
    environ, pictures, client, without_captioner, when
):
    done = glimpse(
        environ | {"GLIMPSE_MODEL_DIR": str(without_captioner)}, "ingest", pictures, "--captions", when
    )
    assert done.exit_code == 1
    assert done.stdout.startswith("4 files: 4 indexed, 0 known already, 0 failed")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: The pictures are searchable, but not all have captions: ")
    assert "no config.json" in last
    assert last.endswith("`glimpse caption` goes on from there.")
    assert "Traceback" not in done.stderr
    assert sources(client, environ["GLIMPSE_INDEX"]) == ["", "", "", "description"]
    alone = glimpse(environ, "caption", "--model-dir", without_captioner)
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert "no config.json" in alone.stderr
    assert glimpse(environ, "caption").exit_code == 0


def test_a_dry_run_captions_nothing(environ, pictures, client):
    for when in ("now", "later"):
        done = glimpse(environ, "ingest", pictures, "--captions", when, "--dry-run")
        assert done.stdout.startswith("4 files: 4 would be indexed")
        assert (done.exit_code, done.stderr) == (0, "")
    assert not client.indices.exists(index=environ["GLIMPSE_INDEX"])


def test_each_trouble_of_captions_is_one_sentence(environ, pictures, client):
    absent = glimpse(environ, "caption")
    assert (absent.exit_code, absent.stdout) == (1, "")
    assert "There is no index" in absent.stderr
    assert not client.indices.exists(index=environ["GLIMPSE_INDEX"])
    glimpse(environ, "ingest", pictures, "--captions", "off")
    other = glimpse(environ, "caption", "--profile", "clip")
    assert (other.exit_code, other.stdout) == (1, "")
    assert "holds vectors of profile 'pocket', not 'clip': leave --profile out" in other.stderr
    for arguments in (["--limit", "-1"], ["--batch-size", "0"], ["extra"]):
        assert glimpse(environ, "caption", *arguments).exit_code == 2
    assert glimpse(environ, "ingest", pictures, "--captions", "soon").exit_code == 2
    closed = glimpse(environ | {"ELASTICSEARCH_URL": "http://127.0.0.1:9"}, "caption")
    assert (closed.exit_code, closed.stderr.count("\n")) == (1, 1)


def test_ctrl_c_ends_a_pass_with_a_summary_and_the_next_one_goes_on(environ, tmp_path, client):
    folder = tmp_path / "many"
    folder.mkdir()
    for number, scene in enumerate(sample("demo", 30)):
        write_picture(scene, folder / f"{number}.png", 64)
    glimpse(environ, "ingest", folder, "--captions", "off")
    alias = environ["GLIMPSE_INDEX"]
    command = [sys.executable, str(ROOT / "glimpse.py"), "caption", "--json", "--batch-size", "1"]
    written = {"query": {"term": {"caption_source": "model"}}}
    third = Hold(after(2, "_bulk"))
    with proxy(environ["ELASTICSEARCH_URL"], third) as url:
        process = subprocess.Popen(
            command,
            env=os.environ | environ | {"ELASTICSEARCH_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: third.is_reached, running=process)
        process.send_signal(signal.SIGINT)
        third.release()
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    answer = json.loads(stdout)
    assert (process.returncode, answer["interrupted"], stderr) == (130, True, "")
    done = client.count(index=alias, **written)["count"]
    assert 0 < answer["written"] == done < 30
    again = json.loads(glimpse(environ, "caption", "--json").stdout)
    assert (again["written"], again["interrupted"]) == (30 - done, False)
