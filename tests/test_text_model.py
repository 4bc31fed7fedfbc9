"""Uploading a text model with eland: its vectors, and the refusals before anything is sent."""

import json
from pathlib import Path

import numpy as np
import pytest
from hard_texts import hard_texts
from http_fronts import proxy
from model_folders import TINY, save_sentence_clip, save_siglip, save_text_tower, save_vision_tower
from tiny_torchscript import config, fresh_model

from es_config.client import EngineSettings, connect
from es_config.errors import EngineError
from es_config.text_model import (
    SMALLEST_PART_BYTES,
    DeploymentOptions,
    TextModelSource,
    TrainedModel,
    check_folder,
    export,
    longest_text,
    upload,
)


@pytest.fixture
def model(client):
    """A model that nobody uploaded yet."""
    with fresh_model(client) as model_id:
        yield TrainedModel(client, model_id=model_id)


@pytest.fixture
def source(tiny_pair) -> TextModelSource:
    return TextModelSource(tiny_pair / "text", name="the tiny model", revision="sha256:tiny", dims=16)


def test_a_model_goes_through_its_whole_life(model, source):
    told = []
    assert model.status().state == "absent"
    upload(model, source, say=told.append)
    stopped = model.status()
    assert (stopped.state, stopped.dims, stopped.revision) == ("stopped", 16, "sha256:tiny")
    assert told[0] == "Exporting the tiny model"
    assert told[1].endswith(f"as {model.model_id}")
    model.start(DeploymentOptions(number_of_allocations=2))
    started = model.status()
    assert (started.state, started.number_of_allocations) == ("started", 2)
    with pytest.raises(EngineError, match="currently deployed; use force"):
        model.delete()
    model.stop()
    model.stop()
    model.delete()
    assert model.status().state == "absent"
    with pytest.raises(EngineError, match="run `glimpse model upload`"):
        model.delete()
    with pytest.raises(EngineError, match="run `glimpse model upload`"):
        model.start()


def test_an_upload_replaces_only_where_it_is_told_to(model, source):
    model.client.ml.put_trained_model(model_id=model.model_id, **config())
    assert model.status().state == "incomplete"
    with pytest.raises(EngineError, match="a half-uploaded model .* --clear-previous"):
        upload(model, source)
    upload(model, source, clear_previous=True)
    model.start()
    with pytest.raises(EngineError, match="There is a model .* --clear-previous"):
        upload(model, source)
    upload(model, source, clear_previous=True)
    assert model.status().state == "stopped"


def test_a_definition_passes_a_proxy_in_smaller_parts(node, model, source, tmp_path):
    definition, _, _ = export(source, tmp_path, version="9.5.3")
    size, sent = Path(definition).stat().st_size, []
    largest = 120_000
    assert size * 4 / 3 > largest, "one part must be too large"

    def listen(method: str, path: str) -> None:
        sent.append((method, path.partition("?")[0].rpartition(f"{model.model_id}/")[2]))

    with (
        proxy(node.url, listen, largest=largest) as url,
        connect(EngineSettings(url, local_key=node.key)) as limited,
    ):
        upload(TrainedModel(limited, model_id=model.model_id), source)
    parts = [path for method, path in sent if method == "PUT" and path.startswith("definition/")]
    assert parts == [f"definition/{n}" for n in range(-(-size // SMALLEST_PART_BYTES))]
    model.start()
    assert model.status().state == "started"


def test_a_model_that_no_proxy_lets_pass_leaves_nothing_behind(node, model, source):
    with (
        proxy(node.url, lambda *_: None, largest=50_000) as url,
        connect(EngineSettings(url, local_key=node.key)) as limited,
        pytest.raises(EngineError, match=r"takes no request of this size \(413\).*client_max_body_size"),
    ):
        upload(TrainedModel(limited, model_id=model.model_id), source)
    assert model.status().state == "absent"


def test_a_model_of_another_width_leaves_the_previous_one_alone(model, source):
    upload(model, source)
    wide = TextModelSource(source.folder, name="the tiny model", revision="x", dims=512)
    with pytest.raises(EngineError, match="gives vectors of 16 dims and the profile needs 512"):
        upload(model, wide, clear_previous=True)
    assert model.status().state == "stopped"


def test_the_export_gives_the_encoders_own_vectors(source, tmp_path):
    import torch
    from sentence_transformers import SentenceTransformer

    definition, exported, vocabulary = export(source, tmp_path, version="9.5.3")
    options = exported.to_dict()["inference_config"]["text_embedding"]
    assert options["embedding_size"] == 16
    assert options["tokenization"] == {"bert": {"do_lower_case": True, "max_sequence_length": 64}}
    assert len(json.loads(Path(vocabulary).read_text())["vocabulary"]) > 60
    script = torch.jit.load(definition)
    original = SentenceTransformer(str(source.folder), device="cpu")
    for text in hard_texts(60):
        tokens = original.tokenize([text])
        ids = tokens["input_ids"]
        with torch.inference_mode():
            exported_vector = script(
                ids, torch.ones_like(ids), torch.zeros_like(ids), torch.arange(ids.shape[1])[None]
            )[0].numpy()
        assert np.abs(exported_vector - original.encode(text)).max() <= 1e-4, text


@pytest.mark.parametrize(
    ("save", "reason"),
    [
        (
            lambda path: save_sentence_clip(path, dims=8, size=TINY, pixels=32),
            "image model of its pair",
        ),
        (save_vision_tower, "image model of its pair"),
        (save_siglip, "image model of its pair"),
    ],
)
def test_an_image_model_is_refused_with_the_name_of_its_text_model(tmp_path, save, reason):
    with pytest.raises(EngineError, match=reason) as error:
        check_folder(save(tmp_path), name="clip-ViT-B-32")
    assert "--hub-model-id sentence-transformers/clip-ViT-B-32-multilingual-v1" in str(error.value)


def test_clips_own_tokenizer_is_refused(tmp_path):
    folder = save_text_tower(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    with pytest.raises(
        EngineError, match=r"tokenizer of it \(CLIPTokenizer\).*clip-ViT-B-32-multilingual-v1"
    ):
        check_folder(folder, name="it")


def test_a_folder_that_would_lose_its_dense_layer_is_refused(tmp_path):
    folder = save_text_tower(tmp_path)
    (folder / "modules.json").unlink()
    with pytest.raises(EngineError, match="no modules.json: its pooling and Dense layers would be lost"):
        check_folder(folder, name="it")


def test_damaged_settings_are_named(tmp_path):
    folder = save_text_tower(tmp_path)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(EngineError, match="tokenizer_config.json is not valid JSON"):
        check_folder(folder, name="it")


def test_the_longest_text_is_the_models_own_limit(tmp_path):
    folder = save_text_tower(tmp_path)
    assert longest_text(folder) == 64
    (folder / "sentence_bert_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    assert longest_text(folder) == 512


def test_a_damaged_model_leaves_nothing_in_elasticsearch(model, tmp_path):
    folder = save_text_tower(tmp_path)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(EngineError, match="cannot be exported for Elasticsearch"):
        upload(model, TextModelSource(folder, name="it", revision="x"))
    assert model.status().state == "absent"
