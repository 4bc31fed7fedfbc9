"""`glimpse ingest --precision`: what the index notes, what may join it, and what is refused."""

import json

import pytest
from click.testing import CliRunner
from picture_files import save_picture

from es_config.index import ImageIndex
from glimpse import main
from ingest.sample import sample_pictures


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


def execution(client, environ):
    return ImageIndex(client, alias=environ["GLIMPSE_INDEX"]).meta().execution


def test_the_index_notes_backend_precision_and_agreement_and_fp32_may_join(environ, pictures, client):
    done = ingest(environ, pictures, "--precision", "int8", "--limit", 4, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["embedded"] == 4
    assert "Pictures are embedded in onnx int8: smallest cosine 0.999" in done.stderr
    noted = execution(client, environ)
    assert noted["int8"].pop("cosine") >= 0.999
    assert noted == {"int8": {"backend": "onnx", "overlap": None, "pictures": 6}}
    assert ingest(environ, pictures, "--precision", "fp32").exit_code == 0
    assert set(execution(client, environ)) == {"int8", "fp32"}


def test_without_options_a_small_tower_runs_exactly(environ, pictures, client):
    assert ingest(environ, pictures).exit_code == 0
    assert execution(client, environ) == {"fp32": {"backend": "torch"}}


def test_a_precision_that_does_not_fit_the_index_is_refused(environ, pictures, client):
    ingest(environ, pictures, "--limit", 1)
    index = ImageIndex(client, alias=environ["GLIMPSE_INDEX"])
    index.note("execution", {"bf16": {"backend": "torch", "cosine": 0.9, "overlap": 0.5, "pictures": 64}})
    done = ingest(environ, pictures, "--precision", "int8")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: The index holds vectors in bf16, which do not agree with fp32")
    assert len(done.stderr.splitlines()) == 1


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
