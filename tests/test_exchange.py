"""Vectors from elsewhere become documents, and an index becomes files that make the same index again."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pytest
from click.testing import CliRunner, Result
from gallery import pocket
from picture_files import draw_picture, save_picture, truncate
from pyarrow import parquet

from es_config.index import ImageIndex
from es_config.requests import knn_body
from es_config.scan import point_in_time, scan_documents
from glimpse import main
from ingest.exchange.importer import relative_path
from ingest.exchange.shards import natural

FIELDS = ["image_embedding", "caption_embedding"]


@pytest.fixture
def environ(node, tmp_path: Path, index_name: str) -> dict[str, str]:
    return {
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(tmp_path / "home"),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_INGEST_CAPTIONS": "off",
    }


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """The vectors of the pictures of seeds 0 to 11, float32 `[12, dims]`."""
    return pocket()[2].embed_images([draw_picture(seed) for seed in range(12)])


@pytest.fixture
def made_elsewhere(tmp_path: Path, vectors: np.ndarray) -> Path:
    """Pictures with vectors and metadata in two shards, the tenth of which comes after the ninth."""
    paths = [save_picture(tmp_path / "pictures" / "set" / f"{seed}.png", seed) for seed in range(12)]
    for name, some in ((9, slice(0, 8)), (10, slice(8, 12))):
        rows = {"image_path": list(map(str, paths[some])), "caption": ["a drawing"] * len(paths[some])}
        write(tmp_path / "made", name, vectors[some].astype(np.float16), rows)
    return tmp_path / "made"


def write(folder: Path, number: int, vectors: np.ndarray, columns: dict[str, list]) -> None:
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    np.save(folder / "img_emb" / f"img_emb_{number}.npy", vectors)
    parquet.write_table(arrow.table(columns), folder / "metadata" / f"metadata_{number}.parquet")


def glimpse(environ: dict[str, str], *arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)), env=environ)


def imported(environ: dict[str, str], *arguments: object) -> dict:
    done = glimpse(environ, "import", *arguments, "--json")
    assert done.exit_code in (0, 1), done.stderr
    return json.loads(done.stdout)


def documents(client, index: str) -> dict:
    with point_in_time(client, index) as view:
        return {each.image_id: each for page in scan_documents(view, fields=FIELDS) for each in page}


def hits(client, index: str, vector: np.ndarray, field: str) -> list[tuple[str, float]]:
    # Without rescoring, quantised scores depend on how segments came about.
    body = knn_body(query_vector=vector, field=field, k=20, num_candidates=200, oversample=3)
    found = ImageIndex(client, alias=index).search(body).hits
    return [(each.image_id, round(each.similarity, 4)) for each in found]


def test_an_export_makes_the_same_index_again(gallery, environ, client, tmp_path, index_name):
    folder = tmp_path / "export"
    done = glimpse(environ, "export", folder, "--index", gallery.alias, "--shard-size", 25)
    assert done.stdout == f"60 pictures with their vectors are in {folder}, in 3 shards.\n", done.stderr
    table = parquet.read_table(folder / "metadata")
    assert sorted(table["sha256"].to_pylist()) == sorted(gallery.ids.values())
    assert np.load(folder / "img_emb" / "img_emb_0002.npy", mmap_mode="r").shape == (10, 128)

    done = glimpse(environ, "import", folder, "--no-check")
    assert done.stdout.startswith("60 rows: 60 added, 0 known already, 0 failed, in "), done.stderr
    before, after = documents(client, gallery.alias), documents(client, index_name)
    assert {image_id: each.source for image_id, each in after.items()} == {
        image_id: each.source for image_id, each in before.items()
    }
    for image_id, document in before.items():
        assert after[image_id].vectors.keys() == document.vectors.keys()
        for name, vector in document.vectors.items():
            np.testing.assert_allclose(after[image_id].vectors[name], vector, atol=1e-6)
    for field in FIELDS:
        query = before[gallery.ids["boat"]].vectors[field]
        assert hits(client, index_name, query, field) == hits(client, gallery.alias, query, field)

    again = glimpse(environ, "import", folder, "--no-check")
    assert again.stdout.startswith("60 rows: 0 added, 60 known already, 0 failed, in ")
    occupied = glimpse(environ, "export", folder)
    assert occupied.exit_code == 1
    assert "holds an export already" in occupied.stderr
    note = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(note | {"whole": False}))
    assert "was cut short" in glimpse(environ, "import", folder).stderr
    assert glimpse(environ, "export", folder).exit_code == 0  # an unfinished one is written anew
    assert imported(environ, folder, "--no-check")["known"] == 60


def test_vectors_of_clip_retrieval_become_documents_that_ingest_recognises(
    environ, client, made_elsewhere, index_name, vectors
):
    tried = imported(environ, made_elsewhere, "--profile", "pocket", "--dry-run")
    assert (tried["added"], tried["compared"]) == (12, 12)
    assert not client.indices.exists(index=index_name)
    pictures = made_elsewhere.parent / "pictures"
    part = imported(environ, made_elsewhere, "--profile", "pocket", "--pictures", pictures, "--limit", 5)
    whole = imported(environ, made_elsewhere, "--pictures", pictures)
    assert (part["added"], part["known"], part["by_path"]) == (5, 0, 0)
    assert (whole["added"], whole["known"], whole["compared"]) == (7, 5, 12)
    found = documents(client, index_name)
    for seed in range(12):
        data = (pictures / "set" / f"{seed}.png").read_bytes()
        document = found[hashlib.sha256(data).hexdigest()]
        assert document.source["relative_path"] == [f"set/{seed}.png"]
        assert (document.source["width"], document.source["caption"]) == (160, "a drawing")
        assert document.vectors["image_embedding"] @ vectors[seed] > 0.999
    assert len(list((Path(environ["GLIMPSE_HOME"]) / "store").rglob("*.webp"))) == 12
    ingested = json.loads(glimpse(environ, "ingest", pictures, "--json").stdout)
    assert (ingested["files"], ingested["indexed"], ingested["embedded"]) == (12, 0, 0)


def test_without_pictures_the_metadata_say_who_they_are(environ, client, made_elsewhere, index_name):
    shutil.rmtree(made_elsewhere.parent / "pictures")
    done = glimpse(environ, "import", made_elsewhere, "--profile", "pocket")
    assert done.stdout.startswith("12 rows: 12 added, 0 known already, 0 failed, in ")
    assert "is your word" in done.stderr
    assert "12 pictures have ids made of their paths" in done.stderr
    assert imported(environ, made_elsewhere)["known"] == 12
    root = str(made_elsewhere.parent / "pictures")[1:]
    assert {each.source["relative_path"][0] for each in documents(client, index_name).values()} == {
        f"{root}/set/{seed}.png" for seed in range(12)
    }


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: np.roll(rows, 3, axis=0), "vectors and metadata are not in the same order"),
        (lambda rows: rows[:, ::-1].copy(), "another model made them"),
    ],
)
def test_vectors_that_are_not_those_of_the_pictures_are_refused(
    *, spoil, said, environ, client, tmp_path, index_name, vectors
):
    paths = [str(save_picture(tmp_path / f"{seed}.png", seed)) for seed in range(12)]
    write(tmp_path / "made", 0, spoil(vectors), {"image_path": paths})
    done = glimpse(environ, "import", tmp_path / "made", "--profile", "pocket")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr
    assert not client.indices.exists(index=index_name)


def test_a_bad_row_costs_nothing_else_and_a_content_is_there_once(
    environ, client, tmp_path, index_name, vectors
):
    rows = vectors[:6].copy()
    rows[1, 5], rows[2] = np.nan, 0
    ids = [None, None, None, None, "a" * 64, "a" * 64]
    paths = ["https://example.org/x/0.jpg?size=2", "1.jpg", "2.jpg", None, "../4.jpg", "sub/5.jpg"]
    write(tmp_path / "made", 0, rows, {"url": paths, "sha256": ids})
    done = glimpse(environ, "import", tmp_path / "made", "--profile", "pocket", "--json")
    summary = json.loads(done.stdout)
    assert (done.exit_code, summary["rows"], summary["added"], summary["known"]) == (1, 6, 2, 1)
    assert [each["reason"].split(":")[0] for each in summary["failures"]] == [
        "its vector holds values that are no numbers",
        "its vector is zero",
        "it has no path",
    ]
    found = sorted(tuple(each.source["relative_path"]) for each in documents(client, index_name).values())
    assert found == [("4.jpg", "sub/5.jpg"), ("example.org/x/0.jpg",)]


def test_a_line_that_is_cut_stops_the_import_and_the_mended_file_goes_on(environ, tmp_path):
    path = tmp_path / "rows.jsonl"
    unit = np.random.default_rng(1).normal(size=(1100, 128)).round(3).tolist()
    lines = [json.dumps({"path": f"{n}.jpg", "emb": vector}) for n, vector in enumerate(unit)]
    path.write_text("\n".join([*lines[:-1], lines[-1][:100]]))
    command = ["--metadata", path, "--vector-column", "emb", "--profile", "pocket"]
    cut = glimpse(environ, "import", *command)
    assert cut.exit_code == 1
    assert "line 1100, is not JSON" in cut.stderr
    path.write_text("\n".join(lines))
    mended = imported(environ, *command)
    assert (mended["added"], mended["known"], mended["failed"]) == (100, 1000, 0)


def bad_inputs(folder: Path, kind: str) -> list[object]:
    """Write files with one fault, and return the options that name them."""
    rows, paths = np.ones((4, 128), np.float32), {"image_path": ["a", "b", "c", "d"]}
    spoilt = {
        "lengths": (rows[:3], paths),
        "dtype": (rows.astype(int), paths),
        "dims": (rows[:, :64], paths),
        "flat": (rows[0], paths),
        "column": (rows, {"picture": ["a", "b", "c", "d"]}),
    }
    write(folder, 0, *spoilt.get(kind, (rows, paths)))
    npy, table = folder / "img_emb/img_emb_0.npy", folder / "metadata/metadata_0.parquet"
    more: list[object] = [] if kind == "no profile" else ["--profile", "pocket"]
    match kind:
        case "cut vectors":
            truncate(npy)
        case "cut metadata":
            truncate(table)
        case "no metadata":
            table.unlink()
        case "one more":
            np.save(folder / "img_emb" / "img_emb_1.npy", rows)
        case "vector column":
            return ["--metadata", table, "--vector-column", "emb", *more]
    return [folder, *more]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("lengths", "has 3 vectors and"),
        ("dtype", "holds int64, no vectors"),
        ("dims", "The vectors have 64 dims, and profile 'pocket' has 128"),
        ("flat", "has the shape (128,)"),
        ("column", "has no column 'image_path'; it has: picture."),
        ("cut vectors", "is no whole file of NumPy"),
        ("cut metadata", "is no whole Parquet file"),
        ("no metadata", "There is no metadata there"),
        ("one more", "There are 1 files of metadata and 2 of vectors"),
        ("vector column", "has no column 'emb'; it has: image_path."),
        ("no profile", "Name the profile whose model made these vectors"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    *, kind, said, environ, client, tmp_path, index_name
):
    done = glimpse(environ, "import", *bad_inputs(tmp_path / "made", kind))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    assert said in done.stderr
    assert not client.indices.exists(index=index_name)


def test_names_are_in_the_order_of_their_numbers_and_paths_stay_below():
    names = ["img_emb_10.npy", "img_emb_9.npy", "a.npy"]
    assert sorted(names, key=lambda name: natural(Path(name))) == ["a.npy", "img_emb_9.npy", "img_emb_10.npy"]
    assert relative_path("../../etc/x.jpg", None) == "etc/x.jpg"
    assert relative_path("s3://bucket/a%20b/c.jpg", None) == "bucket/a b/c.jpg"
    assert relative_path("/data/set/1.jpg", Path("/data")) == "set/1.jpg"
