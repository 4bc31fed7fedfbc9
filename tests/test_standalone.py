"""Towers without torch: the same vectors, in a process that imports neither torch nor transformers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import model_folders
import numpy as np
import pytest
from picture_files import draw_picture
from PIL import Image
from waiting import PATIENCE_S

from models.encoders import (
    EXACT,
    PairedTextEncoder,
    load_caption_text_encoder,
    load_image_encoder,
    load_text_encoder,
)
from models.fast import standalone
from models.fast.standalone import (
    CLOSE,
    NOTE,
    REFUSED,
    TOWER,
    WEIGHTS,
    OnnxTextEncoder,
    PictureSteps,
    QuickTowers,
    load_quick_caption_text_encoder,
    load_quick_image_encoder,
    load_quick_text_encoder,
)
from models.hub import ModelSource
from models.profiles import Profile, get_profile

TEXTS = [
    "",
    "cat",
    "A Red BOAT at sea!",
    "Zwei gelbe Vögel",
    "\U0001f600 emoji\u00a0space",
    "word " * 300,
    "[SEP] x",
]
LAYOUTS = {
    "pair": model_folders.save_pair,
    "clip": model_folders.save_clip,
    "siglip": model_folders.save_siglip,
}


@pytest.fixture(params=["pocket", *LAYOUTS])
def profile(request, tmp_path) -> Profile:
    if request.param == "pocket":
        return get_profile("pocket")
    return get_profile("clip", model_dir=LAYOUTS[request.param](tmp_path / "model"))


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def pictures() -> list[Image.Image]:
    """Return pictures of many shapes, also narrower than any filter."""
    sizes = ((640, 480), (480, 640), (33, 97), (1200, 100), (1, 50), (224, 224))
    return [draw_picture(number, size=size) for number, size in enumerate(sizes)]


def kept(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "standalone").iterdir() if path.is_dir())


def test_every_layout_gives_the_vectors_of_torch(profile, cache):
    exact = load_image_encoder(profile), load_text_encoder(profile)
    for _ in range(2):  # made, then read
        images, texts = (
            load_quick_image_encoder(profile, cache=cache),
            load_quick_text_encoder(profile, cache=cache),
        )
        assert (str(images.execution), type(texts)) == ("onnx fp32", OnnxTextEncoder)
        assert np.abs(images.embed_images(pictures()) - exact[0].embed_images(pictures())).max() <= CLOSE
        assert np.abs(texts.embed_texts(TEXTS) - exact[1].embed_texts(TEXTS)).max() <= CLOSE
        assert (images.revision, texts.revision) == (exact[0].revision, exact[1].revision)
        assert texts.embed_texts([]).shape == (0, profile.dims)
        assert list(map(texts.reads_whole, TEXTS)) == list(map(exact[1].reads_whole, TEXTS))
    assert len(kept(cache)) == 2


def test_all_towers_of_a_profile_are_made_ahead(profile, cache):
    towers = QuickTowers(profile, cache)
    assert not towers.are_kept()
    towers.make()
    assert towers.are_kept()
    made = kept(cache)
    load_quick_image_encoder(profile, cache=cache)
    load_quick_text_encoder(profile, cache=cache)
    assert kept(cache) == made
    (made[0] / TOWER).write_bytes(b"damaged")
    assert not towers.are_kept()


def test_captions_models_of_berts_kind_are_kept_too(cache, tmp_path):
    source = ModelSource(str(model_folders.save_sentence_model(tmp_path / "minilm")))
    profile = replace(get_profile("pocket"), caption_text_model=source, caption_dims=384)
    exact = load_caption_text_encoder(profile).embed_texts(TEXTS)
    quick = load_quick_caption_text_encoder(profile, cache=cache)
    assert isinstance(quick, OnnxTextEncoder)
    assert np.abs(quick.embed_texts(TEXTS) - exact).max() <= CLOSE


def test_the_processors_steps_are_taken_pixel_by_pixel(profile):
    exact = load_image_encoder(profile)
    lean = replace(exact, processor=PictureSteps.of(exact.processor))
    for picture in pictures():
        np.testing.assert_array_equal(lean.preprocess(picture), exact.preprocess(picture))


SEARCH_WITHOUT_TORCH = """
import sys
from pathlib import Path
from PIL import Image
from models.fast.standalone import load_quick_image_encoder, load_quick_text_encoder
from models.profiles import get_profile
profile, cache = get_profile("pocket"), Path(sys.argv[1])
load_quick_text_encoder(profile, cache=cache).embed_texts(["a red boat"])
load_quick_image_encoder(profile, cache=cache).embed_images([Image.new("RGB", (99, 77))])
print(sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules)))
"""


def test_a_kept_tower_needs_neither_torch_nor_transformers(cache):
    for said in ("['sentence_transformers', 'torch', 'transformers']", "[]"):
        done = subprocess.run(
            [sys.executable, "-c", SEARCH_WITHOUT_TORCH, str(cache)],
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
        assert done.stdout.strip() == said


def test_other_files_of_a_model_are_another_tower(cache, tmp_path):
    profile = get_profile("clip", model_dir=model_folders.save_clip(tmp_path / "model"))
    first = load_quick_text_encoder(profile, cache=cache).embed_texts(["cat"])
    model_folders.save_clip(tmp_path / "model", seed=8)
    second = load_quick_text_encoder(profile, cache=cache).embed_texts(["cat"])
    assert np.abs(first - second).max() > CLOSE
    assert np.abs(second - load_text_encoder(profile).embed_texts(["cat"])).max() <= CLOSE


@pytest.mark.parametrize("damage", ["cut", "overwritten", "no weights", "no note"])
def test_a_damaged_tower_is_made_again(cache, damage):
    profile = get_profile("pocket")
    exact = load_quick_text_encoder(profile, cache=cache).embed_texts(TEXTS)
    (place,) = kept(cache)
    tower = place / TOWER
    if damage == "cut":
        tower.write_bytes(tower.read_bytes()[:1000])
    elif damage == "overwritten":
        tower.write_bytes(bytes(tower.stat().st_size))
    else:
        (place / (NOTE if damage == "no note" else WEIGHTS)).unlink()
    again = load_quick_text_encoder(profile, cache=cache)
    assert isinstance(again, OnnxTextEncoder)
    np.testing.assert_allclose(again.embed_texts(TEXTS), exact, atol=CLOSE)


def test_a_tower_that_does_not_agree_is_not_kept(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(standalone, "CLOSE", -1.0)  # nothing agrees
    profile = get_profile("clip", model_dir=model_folders.save_clip(tmp_path / "model"))
    for _ in range(2):
        assert load_quick_image_encoder(profile, cache=cache).execution == EXACT
        assert isinstance(load_quick_text_encoder(profile, cache=cache), PairedTextEncoder)
    assert ["differ by" in (place / REFUSED).read_text() for place in kept(cache)] == [True, True]


def test_where_nothing_can_be_kept_the_exact_tower_answers(tmp_path):
    (tmp_path / "file").touch()
    encoder = load_quick_text_encoder(get_profile("pocket"), cache=tmp_path / "file")
    assert encoder.embed_texts(["a boat"]).shape == (1, 128)
