"""The table of profiles and the folders that stand in for its rows."""

import ast
from functools import partial
from pathlib import Path

import model_folders
import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from models import profiles
from models.encoders import Execution, load_image_encoder, load_text_encoder
from models.errors import ModelError
from models.fast.choose import run_in
from models.hub import ModelSource, fingerprint, lacking, local_folder
from models.profiles import PROFILES, get_profile, text_dims


def test_every_row_pins_a_revision_or_lies_in_the_repository():
    for profile in PROFILES.values():
        for source in (profile.image_model, profile.text_model, profile.caption_text_model):
            assert Path(source.name).is_absolute() or len(source.revision) == 40, profile.name


def test_every_row_names_its_licence_lanes_and_similarity():
    for profile in PROFILES.values():
        assert profile.licence
        assert profile.languages
        assert set(profile.text_lanes) <= {"infer", "local"}
        assert "local" in profile.text_lanes
        assert profile.similarity == "cosine"


def test_every_row_has_a_name_of_its_own():
    """A copied row that kept its name would replace the other one without a word."""
    table = ast.parse(Path(profiles.__file__).read_text(encoding="utf-8"))
    (rows,) = (
        node.value
        for node in table.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "PROFILES"
    )
    assert len(rows.generators[0].iter.elts) == len(PROFILES)


def test_an_unknown_profile_names_the_known_ones():
    with pytest.raises(ModelError, match="no profile 'nope'; choose one of: pocket, clip, siglip2"):
        get_profile("nope")


def test_a_model_folder_gives_its_own_dims(tmp_path):
    profile = get_profile("clip", model_dir=model_folders.save_pair(tmp_path, dims=24))
    assert (profile.dims, profile.caption_dims, profile.caption_shares_space) == (24, 384, False)
    model_folders.save_text_tower(tmp_path / "caption_text", dims=40)
    profile = get_profile("clip", model_dir=tmp_path)
    assert (profile.dims, profile.caption_dims, profile.caption_shares_space) == (24, 40, False)


def test_the_text_tower_of_a_folder_embeds_captions_where_the_row_says_so(tmp_path):
    profile = get_profile("pocket", model_dir=model_folders.save_pair(tmp_path, dims=24))
    assert (profile.dims, profile.caption_dims, profile.caption_shares_space) == (24, 24, True)


def test_half_a_pair_names_the_folder_that_is_missing(tmp_path):
    model_folders.save_vision_tower(tmp_path / "image")
    with pytest.raises(
        ModelError, match=f"put .*multilingual-v1, or the text model.*, into {tmp_path / 'text'}"
    ):
        get_profile("clip", model_dir=tmp_path)


def test_a_model_with_both_towers_fills_both_folders_of_a_row_that_has_one(tmp_path):
    model_folders.save_clip(tmp_path / "image", dims=24)
    profile = get_profile("clip-b32", model_dir=tmp_path)
    assert profile.text_model == profile.image_model
    assert profile.dims == 24


def test_towers_of_different_dims_are_refused(tmp_path):
    model_folders.save_vision_tower(tmp_path / "image", dims=16)
    model_folders.save_text_tower(tmp_path / "text", dims=24)
    with pytest.raises(ModelError, match="do not belong together: pictures get 16 dims and texts 24"):
        get_profile("clip", model_dir=tmp_path)


def test_a_folder_that_is_absent_or_empty_is_named(tmp_path):
    with pytest.raises(ModelError, match="no model folder .*nowhere"):
        get_profile("clip", model_dir=tmp_path / "nowhere")
    with pytest.raises(ModelError, match="not a model folder: it has no config.json"):
        get_profile("clip", model_dir=tmp_path)


def test_a_text_model_given_as_image_tower_is_refused(tmp_path):
    model_folders.save_text_tower(tmp_path / "image")
    with pytest.raises(ModelError, match="'distilbert' model, which cannot embed pictures"):
        get_profile("clip", model_dir=tmp_path)


def test_a_hub_model_that_cannot_be_had_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ModelError, match="HF_HUB_OFFLINE forbids .* put it into the folder image/ of --model-dir"
    ):
        local_folder(ModelSource("nobody/nothing", "0" * 40))


def test_a_text_model_that_does_not_say_its_width_is_one_sentence(tmp_path):
    (tmp_path / "modules.json").write_text("[]")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ModelError, match="holds a 'gpt2' model, whose width its config.json does not say"):
        text_dims(tmp_path)


def test_equal_weights_have_equal_fingerprints_wherever_they_lie(tmp_path):
    first = model_folders.save_vision_tower(tmp_path / "a")
    second = model_folders.save_vision_tower(tmp_path / "b")
    other = model_folders.save_vision_tower(tmp_path / "c", dims=24)
    assert fingerprint(first) == fingerprint(second) != fingerprint(other)


@pytest.mark.parametrize("safetensors", [True, False], ids=["safetensors", "pytorch_model.bin"])
def test_a_clip_model_as_its_repository_has_it_gives_both_towers(tmp_path, safetensors):
    folder = model_folders.save_clip(tmp_path / "model", dims=24, safetensors=safetensors)
    profile = get_profile("laion-b32" if safetensors else "clip-b32", model_dir=folder)
    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    assert images.embed_images([Image.new("RGB", (60, 40), "red")]).shape == (1, 24)
    assert texts.embed_texts(["a red boat", "a cat"]).shape == (2, 24)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("siglip2", model_folders.save_siglip2),
        ("siglip2-l", model_folders.save_siglip2),
        ("siglip2-so400m", model_folders.save_siglip2),
        ("datacomp-l14", partial(model_folders.save_clip, safetensors=False)),
    ],
)
def test_the_stronger_rows_load_from_folders_of_their_layout(tmp_path, name, save):
    folder = save(tmp_path / "pair", dims=24)
    profile = get_profile(name, model_dir=folder)
    images, texts = load_image_encoder(profile), load_text_encoder(profile)
    assert lacking(folder, "image") is None
    assert lacking(folder, "text") is None
    assert images.embed_images([Image.new("RGB", (60, 40), "red")]).shape == (1, 24)
    vectors = texts.embed_texts(["A Red Boat", "a red boat", "cats"])
    assert vectors[0] == pytest.approx(vectors[1], abs=1e-6)
    assert vectors[0] != pytest.approx(vectors[2], abs=1e-3)
    for way in (Execution("onnx", "fp32"), Execution("onnx", "int8")):
        assert run_in(way, images, cache=tmp_path).embed_images(
            [Image.new("RGB", (60, 40), "red")]
        ).shape == (
            1,
            24,
        )


def test_siglip_2_reads_the_padding_of_its_texts_as_it_was_trained_to(tmp_path):
    import torch

    folder = model_folders.save_siglip2(tmp_path / "pair", dims=24)
    encoder = load_text_encoder(get_profile("siglip2-l", model_dir=folder))
    tokens = AutoTokenizer.from_pretrained(folder)(
        ["a red boat"], padding="max_length", max_length=64, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = encoder.model.get_text_features(input_ids=tokens["input_ids"])[0].numpy()
    expected /= np.linalg.norm(expected)
    assert encoder.embed_texts(["a red boat"])[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "load"),
    [("preprocessor_config.json", load_image_encoder), ("tokenizer.json", load_text_encoder)],
)
def test_a_damaged_file_beside_the_weights_is_one_sentence(name, load, tmp_path):
    folder = model_folders.save_clip(tmp_path, dims=24)
    (folder / name).write_text("{damaged")
    profile = get_profile("clip-b32", model_dir=folder)
    with pytest.raises(ModelError, match="cannot be loaded.*copy or download it again"):
        load(profile)
    (folder / name).unlink()
    if name == "tokenizer.json":  # rebuilt from these two
        load(profile)
        (folder / "vocab.json").unlink()
        (folder / "merges.txt").unlink()
    with pytest.raises(ModelError, match="^The (image processor|tokenizer).*cannot be loaded"):
        load(profile)


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "1",
        "null",
        '{"model_type": "clip", "projection_dim": "x"}',
        '{"model_type": "clip", "projection_dim": [512]}',
        '{"model_type": "clip", "projection_dim": -1}',
        '{"model_type": "siglip", "vision_config": [1]}',
        '{"model_type": "siglip", "vision_config": {"hidden_size": 1.5}}',
        '{"model_type": ["clip"], "projection_dim": 24}',
        '{"model_type": "clip", "projection_dim": 24, "vision_config": {"patch_size": "x"}}',
        '{"model_type": "clip", "projection_dim": 24, "vision_config": {"num_attention_heads": 0}}',
        '{"model_type": "clip", "projection_dim": 24, "text_config": {"hidden_act": "none such"}}',
        '{"model_type": "none such", "projection_dim": 24}',
    ],
)
def test_an_odd_configuration_is_one_sentence(text, tmp_path):
    folder = model_folders.save_clip(tmp_path, dims=24)
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError) as refused:
        load_text_encoder(get_profile("clip-b32", model_dir=folder))
    assert "\n" not in str(refused.value)
    with pytest.raises(ModelError):
        load_image_encoder(get_profile("clip-b32", model_dir=folder))


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        '{"image_processor_type": "none such"}',
        '{"image_processor_type": "CLIPImageProcessor", "image_mean": [1, 2]}',
        '{"image_processor_type": "CLIPImageProcessor", "crop_size": 20}',
        '{"image_processor_type": "CLIPImageProcessor", "size": "x"}',
        '{"feature_extractor_type": "WhisperFeatureExtractor"}',
    ],
)
def test_an_image_processor_that_does_not_fit_its_model_is_one_sentence(text, tmp_path):
    folder = model_folders.save_clip(tmp_path, dims=24)
    (folder / "preprocessor_config.json").write_text(text)
    with pytest.raises(ModelError) as refused:
        load_image_encoder(get_profile("clip-b32", model_dir=folder))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("width", ['"x"', "null", "[1]", "0"])
def test_an_odd_dense_layer_is_one_sentence(width, tmp_path):
    folder = model_folders.save_pair(tmp_path)
    (folder / "text" / "2_Dense" / "config.json").write_text(f'{{"out_features": {width}}}')
    with pytest.raises(ModelError, match="copy the model again"):
        get_profile("clip", model_dir=folder)


def test_a_repository_without_safetensors_gives_its_older_weights(monkeypatch, tmp_path):
    source = PROFILES["clip-b16"].image_model
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / f"models--{source.name.replace('/', '--')}" / "snapshots" / source.revision
    model_folders.save_clip(cached, safetensors=False)
    assert (local_folder(source) / "pytorch_model.bin").is_file()
