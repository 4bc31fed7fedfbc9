"""An index says its own profile to every command, and a new one is made for `clip`."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import voice_folders
from click.testing import CliRunner, Result
from gallery import NAMED, jpeg
from model_folders import save_pair
from waiting import wait_until

import glimpse
from es_config.index import ImageIndex
from models.profiles import POCKET_WEIGHTS
from search_app.core.searcher import SearchService
from search_app.core.voice import build_transcriber
from search_app.wiring import AliasFollower


@dataclass(frozen=True)
class Shell:
    """Types commands without a word about profiles."""

    environ: dict[str, str]
    pictures: Path

    def __call__(self, *words: object, **changed: str) -> Result:
        return CliRunner(env={**self.environ, **changed}).invoke(glimpse.main, list(map(str, words)))


@pytest.fixture
def shell(node, index_name, tmp_path, monkeypatch) -> Shell:
    """A home, four pictures, and a folder of models in the layout of `clip`, some of them random."""
    monkeypatch.delenv("GLIMPSE_PROFILE")
    models = save_pair(tmp_path / "models")
    shutil.copytree(models / "text", models / "caption_text")
    for slot in ("caption", "voice"):
        shutil.copytree(POCKET_WEIGHTS / slot, models / slot)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, scene in NAMED.items():
        (pictures / f"{name}.jpg").write_bytes(jpeg(scene))
    environ = {
        "ELASTICSEARCH_URL": node.url,
        "ELASTICSEARCH_API_KEY": node.key,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_MODEL_DIR": str(models),
        "GLIMPSE_TEXT_LANE": "local",
    }
    return Shell(environ, pictures)


def test_no_command_needs_the_profile_of_an_index_and_another_is_refused(shell, client, index_name):
    first = shell("ingest", shell.pictures)
    assert first.exit_code == 0, first.output
    assert ImageIndex(client, alias=index_name).meta().profile == "clip"
    commands = [
        ("ingest", shell.pictures, "--captions", "off"),
        ("caption",),
        ("search", "a red boat", "--json"),
        (
            "tune",
            "--queries",
            _queries(shell),
            "--samples",
            40,
            "--rounds",
            3,
            "--target-recall",
            0.8,
            "--dry-run",
        ),
        ("evaluate", "--queries", _labels(shell), "--mode", "image"),
    ]
    for command in commands:
        done = shell(*command)
        assert done.exit_code == 0, (command, done.output)
        other = shell(*command, "--profile", "siglip2")
        assert other.exit_code == 1, command
        assert "holds vectors of profile 'clip', not 'siglip2': leave --profile out" in other.stderr
        # The variable names the models of new indices, so this one goes on as it is.
        assert shell(*command, GLIMPSE_PROFILE="siglip2").exit_code == 0, command
    calibrated = shell("calibrate")
    assert "captions" in calibrated.stderr  # too few to learn from, which is no fault of the profile
    described = shell("describe", shell.pictures / "boat.jpg", "--json")
    assert described.exit_code == 0, described.output
    assert len(json.loads(described.stdout)["nearest"]) == len(NAMED)
    state = json.loads(shell("model", "status", "--json").stdout)
    assert state["model_id"] == "glimpse__clip-text"


def _queries(shell: Shell) -> Path:
    path = shell.pictures.parent / "queries.jsonl"
    path.write_text("".join(f'{{"query": "boat {number}"}}\n' for number in range(40)))
    return path


def _labels(shell: Shell) -> Path:
    path = shell.pictures.parent / "labels.jsonl"
    path.write_text('{"query": "a red boat", "relevant": ["boat.jpg"]}\n')
    return path


def test_a_new_index_is_for_photographs_or_as_the_environment_says(shell, client, index_name):
    for changed, profile in (({}, "clip"), ({"GLIMPSE_PROFILE": "siglip2"}, "siglip2")):
        assert shell("index", "create", **changed).exit_code == 0
        assert ImageIndex(client, alias=index_name).meta().profile == profile
        assert shell("index", "delete", "--yes").exit_code == 0


def test_a_model_that_cannot_be_loaded_leaves_no_index(shell, client, index_name):
    weights = Path(shell.environ["GLIMPSE_MODEL_DIR"]) / "image" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    done = shell("ingest", shell.pictures)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "cannot be loaded" in done.stderr
    assert not ImageIndex(client, alias=index_name).exists()


def test_the_voice_follows_the_profile_of_the_index(gallery, tmp_path):
    other = voice_folders.save_whisper(tmp_path / "other ears")
    former = gallery.searcher
    profile = replace(former.profile, name="clip", voice_model=str(other))
    newer = type(former)(
        index=former.index,
        profile=profile,
        text_encoder=former.texts.encoder,
        image_encoder=former.image_encoder,
    )
    follower = AliasFollower(
        SearchService(former),
        renew=lambda now: newer if now is former else None,
        open_indexer=None,
        open_transcriber=lambda row: build_transcriber(row, None),
        warn=pytest.fail,
        every_s=0.01,
    )
    first = follower.transcriber
    assert first is not None
    assert first.get().name == "voice"
    with follower:
        wait_until(lambda: follower.transcriber is not first)
    assert follower.transcriber.get().name == "other ears"
