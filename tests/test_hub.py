"""Models are found in the cache without the hub, fetched once, and each failure has its own sentence."""

import fcntl
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from pathlib import Path

import hub as test_hub
import model_folders
import pytest
from click.testing import CliRunner
from PIL import Image
from waiting import PATIENCE_S, wait_until

from glimpse import main
from models.captioning import load_captioner
from models.encoders import load_caption_text_encoder, load_image_encoder, load_text_encoder
from models.errors import ModelError
from models.hub import (
    ROLES,
    DownloadError,
    ModelSource,
    cache_folder,
    fetch,
    fingerprint,
    found_folder,
    in_mb,
    local_folder,
)
from models.profiles import PROFILES, Weights, get_profile
from models.voice import load_transcriber

CLIP = PROFILES["clip"]
IMAGE = CLIP.image_model
LARGE = "0_CLIPModel/model.safetensors"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    root = tmp_path_factory.mktemp("repositories")
    return root, model_folders.save_profile(root)


@pytest.fixture
def hub(repositories, tmp_path, monkeypatch):
    """A hub with the models of `clip`, an empty cache, and time limits of a second."""
    with test_hub.serve(*repositories) as running:
        for name, value in (
            ("ENDPOINT", running.url),
            ("HF_HUB_CACHE", str(tmp_path / "cache")),
            ("HF_HUB_ETAG_TIMEOUT", 1),
            ("HF_HUB_DOWNLOAD_TIMEOUT", 1),
        ):
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield running


def folder_of(source):
    """Return the model's folder in the cache."""
    return cache_folder() / f"models--{source.name.replace('/', '--')}"


def refusal(source=IMAGE, role="image"):
    """Return the sentence of a model that cannot be had."""
    with pytest.raises(DownloadError) as caught:
        local_folder(source, role=role)
    return str(caught.value)


def test_a_download_brings_what_is_loaded_and_asks_nothing_again(hub):
    fetch(CLIP.models())
    assert CLIP.missing() == []
    asked = len(hub.requests)
    assert not any("onnx" in each or "tf_model" in each or "README" in each for each in hub.requests)
    pickles = [each for each in hub.requests if "pytorch_model.bin" in each]
    assert all("blip" in each for each in pickles)  # which has no safetensors
    assert load_image_encoder(CLIP).revision == CLIP.image_revision()
    assert load_text_encoder(CLIP).embed_texts(["a cat"]).shape == (1, 512)
    assert load_caption_text_encoder(CLIP).embed_texts(["a cat"]).shape == (1, 384)
    load_captioner(CLIP.caption_model)
    load_transcriber(CLIP.voice_model)
    assert len(hub.requests) == asked


def test_the_client_of_hugging_face_finds_the_files_in_its_cache(hub):
    from huggingface_hub import snapshot_download

    folder = local_folder(IMAGE)
    offline = snapshot_download(IMAGE.name, revision=IMAGE.revision, local_files_only=True)
    assert Path(offline) == folder
    stored = folder / LARGE
    assert stored.resolve().name == test_hub.sha256(hub.root / IMAGE.name / LARGE)


def test_what_is_missing_is_known_without_the_hub(hub):
    assert [each.role for each in CLIP.missing()] == list(ROLES)
    assert sum(each.size_bytes for each in CLIP.missing()) == CLIP.size_mb * 1_000_000
    fetch({"text": CLIP.text_model})
    hub.requests.clear()
    assert [each.role for each in CLIP.missing()] == ["image", "caption", "caption_text", "voice"]
    assert [each.role for each in CLIP.missing(["text", "caption"])] == ["caption"]
    assert PROFILES["pocket"].missing() == []
    assert hub.requests == []


def test_a_download_a_clone_and_a_copy_are_the_same_weights(hub, tmp_path):
    fetch(CLIP.models())
    fetch(CLIP.models(), to=tmp_path / "slots")
    copied = get_profile("clip", model_dir=tmp_path / "slots")
    for role, source in CLIP.models().items():
        clone = Weights(ModelSource(str(hub.root / source.name)), role)  # with pickles, ONNX and all
        downloaded, copy = CLIP.weights(role), copied.weights(role)
        assert downloaded.revision == clone.revision == copy.revision
        assert downloaded.revision.startswith("sha256:")
    assert copied.caption_dims == CLIP.caption_dims


def test_weights_that_older_versions_noted_are_known(hub, tmp_path):
    text = CLIP.weights("text")
    assert text.revision == CLIP.text_model.revision  # nothing is here to be hashed
    assert text.matches("sha256:0123456789abcdef")
    fetch({"text": CLIP.text_model})
    text = CLIP.weights("text")
    assert text.matches(CLIP.text_model.revision)  # as indices of the hub's models noted
    assert not text.matches("sha256:0123456789abcdef")
    clone = tmp_path / "clone"
    shutil.copytree(hub.root / CLIP.text_model.name, clone)
    older = old_fingerprint(clone)  # of every file that may be weights
    assert older != fingerprint(clone) == text.revision
    assert Weights(ModelSource(str(clone)), "text").matches(older)
    (clone / "model.safetensors").write_bytes(b"other weights")
    assert not Weights(ModelSource(str(clone)), "text").matches(older)


def old_fingerprint(folder: Path) -> str:
    """Return the fingerprint as it was computed before."""
    import hashlib

    digest = hashlib.sha256()
    for path in sorted([*folder.rglob("*.safetensors"), *folder.rglob("pytorch_model.bin")]):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()[:16]}"


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (401, None, "refuses this login .401.: log in with `hf auth login`, or unset HF_TOKEN"),
        (
            403,
            "GatedRepo",
            "its owner asks for an agreement first: agree on .*/clip-ViT-B-32, and log in",
        ),
        (404, "RepoNotFound", "shows no repository of this name: check the name, or log in"),
        (
            404,
            "RevisionNotFound",
            "no revision 327ab67.* any more: update Glimpse, or put it into",
        ),
        (404, "EntryNotFound", "refuses to give a file of it .404."),
        (429, None, "takes no more requests from here .429.: wait 7 s"),
        (500, None, "has a fault of its own .500.: try again later"),
    ],
)
def test_each_refusal_of_the_hub_has_its_own_sentence(status, code, sentence, hub):
    import re

    hub.status = status
    hub.headers = {"X-Error-Code": code} if code else {}
    hub.headers |= {"Retry-After": "7", "X-Error-Message": "Invalid credentials in Authorization header"}
    said = refusal()
    assert said.startswith("The image model sentence-transformers/clip-ViT-B-32 is not on this machine, and ")
    assert re.search(sentence, said), said
    assert len(hub.requests) == 1  # the hub is not asked again and again


@pytest.mark.usefixtures("hub")
def test_a_name_that_nobody_has_is_not_a_lost_network():
    assert "shows no repository of this name" in refusal(ModelSource("nobody/nothing", "0" * 40))


def test_a_hub_that_never_answers_is_given_up_and_never_asked_for_what_is_cached(hub):
    local_folder(IMAGE)
    hub.hangs = True
    hub.requests.clear()
    assert local_folder(IMAGE).is_dir()
    assert load_image_encoder(CLIP).dims == 512
    assert hub.requests == []
    assert "accepts requests and does not answer: try again later" in refusal(CLIP.text_model, "text")
    assert len(hub.requests) == 1


@pytest.mark.usefixtures("hub")
def test_no_network_and_a_name_that_is_not_found_are_told_apart(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "127.0.0.1:9 cannot be reached: connect this machine to the internet" in refusal()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.invalid")
    assert "the name hub.invalid is not found: connect this machine" in refusal()


def test_a_page_of_a_captive_portal_is_not_the_hub(hub):
    hub.status, hub.headers = 200, {"Content-Type": "text/html"}
    assert "gives an answer that is not Hugging Face's: check HF_ENDPOINT and the proxy" in refusal()


def test_a_download_that_is_cut_goes_on_where_it_was(hub):
    size = (hub.root / IMAGE.name / LARGE).stat().st_size
    hub.cut_at = size - 100
    said = refusal()
    (part,) = (folder_of(IMAGE) / "blobs").glob("*.incomplete")
    cut_at = part.stat().st_size
    assert 0 < cut_at < size
    assert f"the download was cut: run the same command again (it goes on at {in_mb(cut_at)} of" in said
    assert found_folder(IMAGE, role="image") is None
    hub.cut_at = None
    hub.requests.clear()
    seen = []
    fetch({"image": IMAGE}, report=lambda done, total: seen.append((done, total)))
    assert load_image_encoder(CLIP).dims == 512
    assert any(each.endswith(f"{LARGE} bytes={cut_at}-") for each in hub.requests)
    assert sum("safetensors" in each for each in hub.requests) == 2  # the redirection and the rest
    assert seen[0] == (cut_at, size)
    assert seen[-1] == (size, size)


def test_a_file_that_arrives_damaged_is_not_kept(hub, monkeypatch, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(hub.root, damaged)
    listing = hub.listing(IMAGE.name)
    weights = damaged / IMAGE.name / LARGE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    monkeypatch.setattr(hub, "root", damaged)
    monkeypatch.setattr(hub, "listing", lambda _repository: listing)
    assert "does not arrive as Hugging Face has it (its checksum differs)" in refusal()
    assert found_folder(IMAGE, role="image") is None


def test_more_bytes_than_the_disk_has_are_not_begun(hub):
    hub.sizes[LARGE] = 10**18
    said = refusal()
    assert "The models need 1000000000.0 GB of disk" in said
    assert "set HF_HOME to a folder on a larger disk" in said
    assert not any("resolve" in each for each in hub.requests)


def test_a_disk_that_fills_up_on_the_way_is_one_sentence(hub, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "glimpse", "model", "fetch", "--profile", "clip"],
        env=hub.environ(tmp_path / "home"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert "the disk is full: free some of it, or set HF_HOME to a folder on a larger disk" in done.stderr
    assert "Traceback" not in done.stderr


def glimpse(*arguments, **environ):
    """Run a command in this process, where the hub of the test is known."""
    return CliRunner().invoke(main, list(map(str, arguments)), env=environ)


def test_fetch_brings_all_models_and_the_next_run_only_looks(hub):
    first = glimpse("model", "fetch", "--profile", "clip")
    assert first.exit_code == 0, first.output
    assert first.stdout == f"The models of profile clip are in {cache_folder()}.\n"
    assert CLIP.missing() == []
    hub.hangs = True
    assert glimpse("model", "fetch", "--profile", "clip").stdout == first.stdout


def on_a_terminal(command: list[str], environ: dict[str, str]) -> str:
    """Run a command on a terminal of 80 columns and return everything that it wrote there."""
    person, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    said = b""
    with subprocess.Popen(command, env=environ, stdin=terminal, stdout=terminal, stderr=terminal) as run:
        os.close(terminal)
        with suppress(OSError):  # of Linux, when the last writer has closed it
            while piece := os.read(person, 65536):
                said += piece
        os.close(person)
    assert run.returncode == 0, said
    return said.decode()


def test_a_terminal_shows_one_bar_of_bytes_and_none_where_nothing_is_fetched(hub, tmp_path):
    command = [sys.executable, "-m", "glimpse", "model", "fetch", "--profile", "clip"]
    environ = {**hub.environ(tmp_path), "TERM": "xterm-256color"}
    first, again = on_a_terminal(command, environ), on_a_terminal(command, environ)
    lines = re.split(r"\r\n|\r", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", first))
    bars = [each for each in lines if each.startswith("Downloading")]
    assert re.search(r"[\d.]+/[\d.]+ MB", bars[-1]), bars
    assert max(map(len, bars)) <= 80
    said = [each for each in lines if each.strip() and each not in bars]
    assert [each.split()[0] for each in said] == ["Fetching", "The"], said
    assert "Downloading" not in again


def test_fetch_goes_on_after_a_kill(hub, tmp_path):
    size = (hub.root / IMAGE.name / LARGE).stat().st_size
    hub.cut_at, hub.slow = size - 100, threading.Event()
    command = [sys.executable, "-m", "glimpse", "model", "fetch", "--profile", "clip"]
    environ = hub.environ(tmp_path)
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        stored = test_hub.sha256(hub.root / IMAGE.name / LARGE)
        parts = f"hub/models--{IMAGE.name.replace('/', '--')}/blobs/{stored}.incomplete"
        wait_until(lambda: sum(each.stat().st_size for each in tmp_path.glob(parts)), running=run)
        run.send_signal(signal.SIGKILL)
    (part,) = tmp_path.glob(parts)
    here = part.stat().st_size
    hub.slow.set()
    hub.cut_at = None
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    assert any(each.endswith(f"{LARGE} bytes={here}-") for each in hub.requests)
    assert part.with_suffix("").stat().st_size == size


def test_fetch_finds_damaged_and_missing_files_and_brings_them_again(hub):
    fetch(CLIP.models())
    folder = local_folder(CLIP.text_model, role="text")
    tokenizer, weights = folder / "tokenizer.json", (folder / "2_Dense" / "model.safetensors").resolve()
    tokenizer.unlink()
    (folder / "vocab.txt").unlink()
    content = bytearray(weights.read_bytes())
    content[0] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_text_encoder(CLIP)
    assert "run `glimpse model fetch --profile clip --verify`" in str(caught.value)
    hub.requests.clear()
    done = glimpse("model", "fetch", "--profile", "clip", "--verify")
    assert done.exit_code == 0, done.output
    given = [each for each in hub.requests if "/resolve/" in each and "/cdn/" not in each]
    assert [each.rsplit("/", 1)[1] for each in given] == ["model.safetensors"]  # the others lie in the cache
    assert load_text_encoder(CLIP).embed_texts(["a cat"]).shape == (1, 512)


def test_a_folder_of_models_needs_no_hub_and_names_what_it_lacks(hub, tmp_path):
    slots = tmp_path / "usb stick" / "models"
    done = glimpse("model", "fetch", "--profile", "clip", "--to", slots)
    assert done.stdout.endswith(f"Use them with --profile clip --model-dir '{slots}'\n"), done.output
    assert {path.name for path in slots.iterdir()} == set(ROLES)
    assert not list(slots.rglob("*.incomplete"))
    assert not cache_folder().exists()
    hub.hangs = True
    hub.requests.clear()
    profile = get_profile("clip", model_dir=slots)
    assert profile.missing() == []
    assert load_text_encoder(profile).embed_texts(["a cat"]).shape == (1, 512)
    assert load_caption_text_encoder(profile).embed_texts(["a cat"]).shape == (1, 384)
    load_captioner(profile.caption_model)
    load_transcriber(profile.voice_model)
    assert hub.requests == []
    for role, source in list(profile.models().items())[2:4]:
        shutil.rmtree(source.name)
        less = get_profile("clip", model_dir=slots)
        assert [each.role for each in less.missing()] == [role]
        assert f"or put it into {slots / role} (docs/offline.md)" in refusal(less.models()[role], role)
        Path(source.name).mkdir()
        shutil.copytree(hub.root / CLIP.models()[role].name, slots / role, dirs_exist_ok=True)


def test_the_sizes_are_those_of_all_models():
    rows = json.loads(glimpse("model", "list", "--json").stdout)
    sizes = {row["name"]: row["size_mb"] for row in rows}
    assert sizes["pocket"] == 0
    assert sizes["clip"] == 609 + 543 + 990 + 91 + 487
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert f"{sizes['clip'] / 1000:.1f} GB" in readme


@pytest.fixture
def environ(node_home, index_name, monkeypatch, tmp_path):
    """Commands of this test have an index of their own."""
    monkeypatch.setenv("GLIMPSE_HOME", str(node_home))
    monkeypatch.setenv("GLIMPSE_INDEX", index_name)
    monkeypatch.setenv("GLIMPSE_STORE", f"file:{tmp_path / 'store'}")


@pytest.mark.usefixtures("environ", "client")
def test_from_the_first_download_on_no_command_asks_the_hub(hub, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for color in ("red", "green", "blue"):
        Image.new("RGB", (80, 60), color).save(pictures / f"{color}.png")
    first = glimpse("ingest", pictures, "--profile", "clip")
    assert first.exit_code in (0, 1), first.output  # a random captioner may find no words
    assert first.stderr.count("Fetching the image model") == 1
    assert first.stderr.count("Fetching the captioner") == 1
    assert "Fetching 1" not in first.stderr
    assert "3 indexed" in first.output
    fetch(CLIP.models())
    hub.requests.clear()
    hub.hangs = True
    for arguments in (
        ("ingest", pictures),
        ("search", "a red boat", "--text-lane", "local"),
        ("search", "--image", pictures / "red.png"),
        ("search", "a cat", "--mode", "caption", "--text-lane", "local"),
        ("caption", "--all", "--limit", "1"),
    ):
        done = glimpse(*arguments, "--profile", "clip")
        assert done.exit_code in (0, 1), done.output
        assert "Error" not in done.output
        assert "Fetching" not in done.output
    slots = tmp_path / "slots"
    fetch(CLIP.models(), to=slots)
    copied = glimpse(
        "search", "a red boat", "--profile", "clip", "--model-dir", slots, "--text-lane", "local"
    )
    assert copied.exit_code == 0, copied.output
    assert hub.requests == []


@pytest.mark.usefixtures("environ", "client")
def test_a_first_run_without_the_models_leaves_no_index(hub, tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (80, 60), "red").save(tmp_path / "pictures" / "red.png")
    hub.status = 500
    done = glimpse("ingest", tmp_path / "pictures", "--profile", "clip")
    assert done.exit_code == 1
    assert "has a fault of its own (500): try again later" in done.output
    assert "There is no index" in glimpse("index", "status").output
