"""`glimpse ingest --precision`: the index's note of it, and the runs it accepts and refuses."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from picture_files import save_picture
from PIL import Image

from es_config.documents import IndexMeta, IndexOptions
from es_config.index import ImageIndex
from es_config.meta import change_meta
from glimpse import main
from ingest.errors import IngestError
from ingest.wiring import EncoderOptions, check_weights, create_index, load_image_encoder_for, sample_pictures
from models.encoders import load_caption_text_encoder
from models.errors import ModelError
from models.fast.choose import Requested, probe
from models.hub import ModelSource
from models.profiles import Weights, get_profile


@pytest.fixture
def environ(node, tmp_path, tiny_pair, index_name):
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_MODEL_DIR": str(tiny_pair),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_INGEST_CAPTIONS": "off",
    }


@pytest.fixture
def pictures(tmp_path):
    for number in range(6):
        save_picture(tmp_path / "pictures" / f"{number}.png", number)
    return tmp_path / "pictures"


def ingest(environ, *arguments):
    return CliRunner().invoke(main, ["ingest", *map(str, arguments)], env=environ)


def drawn(number):
    return Image.new("RGB", (32, 32), (40 * number, 90, 255 - 40 * number))


def execution(client, environ):
    return ImageIndex(client, alias=environ["GLIMPSE_INDEX"]).meta().execution


def test_the_index_notes_backend_precision_and_agreement_and_fp32_may_join(environ, pictures, client):
    done = ingest(environ, pictures, "--precision", "int8", "--limit", 4, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["embedded"] == 4
    noted = execution(client, environ)
    agrees = noted["int8"].pop("cosine") >= 0.999
    assert noted == {"int8": {"backend": "onnx", "overlap": None, "pictures": 6}}
    joined = ingest(environ, pictures, "--precision", "fp32")
    if agrees:
        assert "Pictures are embedded in onnx int8: smallest cosine " in done.stderr
        assert joined.exit_code == 0
        assert set(execution(client, environ)) == {"int8", "fp32"}
    else:
        assert not probe().int8, "eight bits overflow on other processors only"
        assert "Warning: onnx int8 does not agree with fp32: smallest cosine 0.9" in done.stderr
        assert joined.exit_code == 1
        assert "The index holds vectors in int8, which do not agree with fp32" in joined.stderr


def test_without_options_a_small_tower_runs_exactly(environ, pictures, client):
    assert ingest(environ, pictures).exit_code == 0
    assert execution(client, environ) == {"fp32": {"backend": "torch"}}


def test_a_precision_that_does_not_fit_the_index_is_refused(environ, pictures, client):
    ingest(environ, pictures, "--limit", 1)
    index = ImageIndex(client, alias=environ["GLIMPSE_INDEX"])
    index.note("execution", {"int8": {"backend": "onnx", "cosine": 0.9, "overlap": 0.5, "pictures": 64}})
    done = ingest(environ, pictures, "--precision", "bf16")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: The index holds vectors in int8, which do not agree with fp32")
    assert len(done.stderr.splitlines()) == 1


def image_weights(folder: Path, content: bytes) -> Weights:
    """Return the weights of a folder with this content."""
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(content)
    return Weights(ModelSource(str(folder)), "image")


def test_of_two_runs_with_different_weights_that_start_at_once_one_is_let_in(client, index_name, tmp_path):
    """An index that does not note its weights yet, as those made by earlier versions."""
    meta = IndexMeta("pocket", {}, dims=16, caption_dims=16, similarity="cosine")
    two = [image_weights(tmp_path / name, name.encode()) for name in ("one", "other")]
    for _ in range(8):
        index = ImageIndex(client, alias=index_name)
        index.create(meta, IndexOptions())
        barrier = threading.Barrier(2)

        def start(weights, barrier=barrier):
            mine = ImageIndex(client, alias=index_name)
            barrier.wait()
            try:
                check_weights(mine, weights)
            except IngestError as error:
                return str(error)
            return "let in"

        with ThreadPoolExecutor(2) as pool:
            told = sorted(pool.map(start, two))
        assert told[1] == "let in"
        assert told[0].startswith(f"The index '{index_name}' was made with other weights (image sha256:")
        index.delete()


def test_a_new_index_notes_the_weights_of_its_profile_before_any_picture_is_read(
    client, index_name, tiny_pair, tmp_path
):
    profile = get_profile("pocket", model_dir=tiny_pair)
    index = ImageIndex(client, alias=index_name)
    create_index(index, profile)
    revisions = index.meta().revisions
    assert revisions == {
        "image": profile.image_revision(),
        "text": profile.text_revision(),
        "caption_text": load_caption_text_encoder(profile).revision,
    }
    other = image_weights(tmp_path / "other", b"other")
    with pytest.raises(
        IngestError, match=rf"other weights \(image {revisions['image']}, here {other.revision}\)"
    ):
        check_weights(index, other)


def test_a_run_that_chose_a_precision_while_another_did_goes_by_what_that_one_noted(
    client, index_name, tiny_pair, tmp_path
):
    profile = get_profile("pocket", model_dir=tiny_pair)
    create_index(ImageIndex(client, alias=index_name), profile)

    def sample():
        """Asked while a precision is chosen: meanwhile another run notes one that does not agree."""
        note = {"int8": {"backend": "onnx", "cosine": 0.9, "overlap": 0.5, "pictures": 64}}
        ImageIndex(client, alias=index_name).note("execution", note)
        return [drawn(number) for number in range(6)]

    choice = EncoderOptions(requested=Requested("auto", "bf16"), sample=sample)
    index = ImageIndex(client, alias=index_name)
    with pytest.raises(ModelError, match="holds vectors in int8, which do not agree with fp32"):
        load_image_encoder_for(profile, index, choice, cache=tmp_path)
    assert set(ImageIndex(client, alias=index_name).meta().execution) == {"int8"}


def test_an_index_of_before_precision_was_noted_holds_fp32(environ, pictures, client):
    assert ingest(environ, pictures, "--limit", 1).exit_code == 0
    index = ImageIndex(client, alias=environ["GLIMPSE_INDEX"])
    change_meta(client, index.name(), lambda meta: meta | {"execution": {}})
    assert ingest(environ, pictures, "--precision", "bf16").exit_code == 0
    assert set(execution(client, environ)) == {"fp32", "bf16"}


def test_impossible_pairs_of_options_are_refused_before_anything_is_read(environ, pictures):
    done = ingest(environ, pictures, "--precision", "bf16", "--backend", "onnx")
    assert done.exit_code == 1
    assert (
        "The backend onnx does not run in bf16; leave out --backend, or use --backend torch." in done.stderr
    )


def test_the_sample_is_spread_over_the_files_and_leaves_out_copies_and_broken_ones(tmp_path):
    for number in range(20):
        save_picture(tmp_path / f"{number:02d}.png", number)
    save_picture(tmp_path / "00copy.png", 0)
    (tmp_path / "10broken.png").write_bytes(b"\x89PNG no picture")
    assert len(sample_pictures([tmp_path])) == 20
    assert len(sample_pictures([tmp_path], count=5)) == 5
    assert sample_pictures([tmp_path / "nothing"]) == []
