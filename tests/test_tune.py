"""`glimpse tune` on a real node: recall that numpy confirms, the pick, the check, and bad input."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from http_fronts import proxy
from vector_index import clustered, plain_index

from es_config.aliases import Alias
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.index import ImageIndex
from es_config.scan import point_in_time, sample_view
from es_config.vector_field import read_extent, read_vector_field
from glimpse import main
from tuning.commands.tune import read_queries
from tuning.errors import TuneError
from tuning.points import Setting
from tuning.queries import Corpus, Queries, QuerySources, draw_queries
from tuning.run import Goal, tune, with_truth
from tuning.sweep import JudgedQueries, Subject, measure, measure_recall, scanned_truth

DIMS = 32
QUICK = Goal(target=0.95, default=Setting(100), rounds=5)


def quiet(_text: str) -> None:
    """Say nothing."""


def run(node, *arguments: str, status: int = 0):
    """Return the output of a command that must have ended with `status`."""
    done = CliRunner().invoke(main, [*arguments], env={"ELASTICSEARCH_URL": node.url, "COLUMNS": "200"})
    assert done.exit_code == status, done.output
    return done


@pytest.fixture(scope="module")
def vectors():
    return clustered(1500, DIMS)


@pytest.fixture
def subject(client, index_name, vectors):
    """An `int8_hnsw` index of 1 500 vectors, in a view that is open."""
    plain_index(client, index_name, vectors, index_type="int8_hnsw")
    with point_in_time(client, index_name) as view:
        yield Subject(view, read_vector_field(client, index_name, "v"), 10)


def with_exact(vectors, queries, **more) -> JudgedQueries:
    """Return queries with their neighbours among `vectors`, whose ids are 0, 1, …"""
    ids = [str(n) for n in range(len(vectors))]
    return JudgedQueries(queries, scanned_truth([(ids, vectors)], queries, k=10, similarity="cosine", **more))


def test_recall_is_what_numpy_says(client, subject, vectors):
    queries = clustered(20, DIMS, seed=5)
    recalls, operations = measure_recall(subject, with_exact(vectors, queries), Setting(10))
    for query, recall in zip(queries, recalls, strict=True):
        answer = client.search(index=subject.field.index, body=subject.body(query, Setting(10)))
        found = {int(hit["_id"]) for hit in answer["hits"]["hits"]}
        assert recall == pytest.approx(len(found & set(np.argsort(-vectors @ query)[:10].tolist())) / 10)
    assert 0.5 < recalls.mean() < 1
    assert 10 < operations < 1500
    assert measure(subject, with_exact(vectors, queries), Setting(200, 3.0)).recall == 1.0


def test_a_filter_changes_the_truth_and_the_search_alike(subject):
    even = Subject(subject.view, subject.field, 10, ({"term": {"even": True}},))
    drawn = Queries(clustered(20, DIMS, seed=6), "labelled")
    sample = with_truth(even, drawn, say=quiet)
    assert sample.truth.documents == 750
    assert all(int(each) % 2 == 0 for right in sample.truth.right for each in right)
    assert measure(even, sample, Setting(300, 3.0)).recall == 1.0


def test_a_run_picks_the_cheapest_setting_that_holds_on_other_queries(client, subject):
    found = tune(client, subject, Queries(clustered(300, DIMS, seed=7), "labelled"), goal=QUICK, say=quiet)
    assert found.pick.meets(0.95)
    assert found.held_out.confirms(0.95)
    assert found.held_out.queries == 150
    assert found.pick in found.points
    assert found.default.setting == Setting(100)
    assert {point.latency.samples for point in found.points} <= {5, 25}
    assert found.exact.p50_ms > 0
    assert found.changed is None


def test_an_index_that_changes_meanwhile_is_noticed_and_the_recall_stays_true(client, subject):
    def write(text: str) -> None:
        if text.startswith("Latency of the exact"):
            client.index(index=subject.field.index, id="new", document={"even": True}, refresh=True)

    found = tune(client, subject, Queries(clustered(200, DIMS, seed=8), "labelled"), goal=QUICK, say=write)
    assert found.changed.startswith("The index changed while it was tuned (from 1500 to 1501 documents)")


def test_vectors_all_alike_tie_and_no_search_misses(client, index_name):
    alike = np.repeat(clustered(1, DIMS), 300, axis=0)
    plain_index(client, index_name, alike)
    with point_in_time(client, index_name) as view:
        subject = Subject(view, read_vector_field(client, index_name, "v"), 10)
        drawn = Queries(clustered(60, DIMS, seed=9), "noise")
        found = tune(client, subject, drawn, goal=QUICK, say=quiet)
    assert found.pick.recall == 1.0
    assert found.pick.setting == QUICK.default  # all are compared anyway: fewer candidates save nothing


def test_fewer_documents_than_k_are_said_and_tuned(client, index_name):
    plain_index(client, index_name, clustered(4, DIMS))
    said = []
    with point_in_time(client, index_name) as view:
        subject = Subject(view, read_vector_field(client, index_name, "v"), 10)
        drawn = Queries(clustered(100, DIMS, seed=9), "noise")
        found = tune(client, subject, drawn, goal=QUICK, say=said.append)
    assert (found.pick.recall, found.documents) == (1.0, 4)
    assert any("Only 4 documents can be found, fewer than k = 10" in text for text in said)


def test_too_few_queries_are_refused_with_what_they_can_show(client, subject):
    drawn = Queries(clustered(20, DIMS), "labelled")
    with pytest.raises(
        TuneError, match=r"20 queries are too few to show a recall of 0\.99 .* shows 0\.9[45]"
    ):
        tune(client, subject, drawn, goal=Goal(target=0.99), say=quiet)


def test_the_best_source_of_queries_is_taken(client, index_name):
    plain_index(client, index_name, clustered(60, DIMS))
    client.indices.put_mapping(index=index_name, properties={"caption": {"type": "text"}})
    asked = []

    def embed(texts):
        asked.extend(texts)
        return clustered(len(texts), DIMS)

    def draw(**more):
        asked.clear()
        with point_in_time(client, index_name) as view:
            corpus = Corpus(view, read_vector_field(client, index_name, "v"), 60)
            return draw_queries(corpus, QuerySources(**more), size=70, seed=1)

    noisy = draw(embed=embed)
    assert (noisy.source, noisy.vectors.shape, asked) == ("noise", (70, DIMS), [])
    assert np.linalg.norm(noisy.vectors, axis=1) == pytest.approx(np.ones(70), abs=1e-5)
    for n in range(60):
        client.update(index=index_name, id=str(n), doc={"caption": f"caption {n}"})
    client.indices.refresh(index=index_name)
    assert draw(embed=embed).source == "captions"
    assert sorted(asked) == sorted(f"caption {n}" for n in range(60))
    assert draw().source == "noise"  # no model is known for a plain index
    texts = [f"query {n}" for n in range(100)]
    assert draw(embed=embed, logged=lambda: [*texts, *texts]).source == "log"
    assert len(set(asked)) == len(asked) == 70
    assert draw(embed=embed, labelled=["a", "b", "a"]).source == "labelled"
    assert sorted(asked) == ["a", "b"]
    with pytest.raises(TuneError, match="was not made by Glimpse"):
        draw(labelled=["a"])
    with pytest.raises(TuneError, match=rf"has 2 dims, and v of {index_name} has {DIMS}"):
        draw(labelled=[(1.0, 2.0)])
    with pytest.raises(TuneError, match="give one kind in one file"):
        draw(embed=embed, labelled=["a", (1.0, 2.0)])


def test_queries_are_words_or_vectors_of_a_file_of_labels(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"query": " a red\u2028boat ", "relevant": ["x"]}\n\n{"vector": [1, 0.5]}\n', "utf-8-sig"
    )
    assert read_queries(path) == ["a red\u2028boat", (1.0, 0.5)]
    path.write_text('{"query": "a red boat"}\n{"vector": [0, 0]}\n')
    with pytest.raises(TuneError, match="Line 2 of .* vector must be an array of finite numbers"):
        read_queries(path)
    with pytest.raises(TuneError, match="cannot be read"):
        read_queries(tmp_path / "none.jsonl")


def test_a_sample_is_drawn_by_chance_and_alike_for_the_same_seed(client, index_name, vectors):
    plain_index(client, index_name, vectors)
    with point_in_time(client, index_name) as view:
        first, found = sample_view(view, field="v", size=200, documents=1500, seed=3)
        again, _ = sample_view(view, field="v", size=200, documents=1500, seed=3)
        other, _ = sample_view(view, field="v", size=200, documents=1500, seed=4)
        every, _ = sample_view(view, field="v", size=5000, documents=1500)
    assert len(set(first)) == 200
    np.testing.assert_array_equal(found, vectors[[int(n) for n in first]])
    assert set(first) == set(again) != set(other)
    assert 550 < np.mean([int(n) for n in first]) < 950
    assert len(every) == 1500


def test_a_plain_index_is_tuned_drawn_and_left_alone_unless_told(node, client, index_name, vectors, tmp_path):
    plain_index(client, index_name, vectors, index_type="int8_hnsw")
    client.indices.put_mapping(index=index_name, meta={"owner": "somebody"})
    plot = tmp_path / "recall.html"
    arguments = (
        "tune",
        "--index",
        index_name,
        "--field",
        "v",
        "--samples",
        "100",
        "--target-recall",
        "0.95",
        "--rounds",
        "3",
    )
    done = run(node, *arguments, "--plot", str(plot))
    assert "image vectors of the index with noise" in done.stdout
    assert "Pick: num_candidates" in done.stdout
    assert "Nothing was written." in done.stdout
    page = plot.read_text()
    for part in ("<svg", "default: num_candidates 100", "pick: num_candidates", ">exact<"):
        assert part in page
    answer = json.loads(run(node, *arguments, "-k", "5", "--json", "--write").stdout)
    pick = answer["pick"]
    assert {"num_candidates", "oversample", "recall", "recall_low", "p50_ms", "p95_ms"} <= pick.keys()
    assert pick["recall_low"] >= 0.95
    assert pick in answer["points"]
    assert answer["queries"] == {"source": "noise", "count": 100}
    meta = client.indices.get_mapping(index=index_name)[index_name]["mappings"]["_meta"]
    assert meta["owner"] == "somebody"
    assert meta["operating_points"]["v:5"]["num_candidates"] == pick["num_candidates"]


def picture_index(client, alias: str, vectors: np.ndarray) -> ImageIndex:
    """Return an index that Glimpse made, with these vectors."""
    index = ImageIndex(client, alias=alias)
    dims = vectors.shape[1]
    index.create(IndexMeta("pocket", {}, dims, dims, "cosine"), IndexOptions())
    documents = [
        ImageDocument(
            image_id=f"{n:064x}", image_name=f"{n}.jpg", relative_path=(f"{'ab'[n % 2]}/{n}.jpg",),
            image_embedding=vector, width=1, height=1, size_bytes=1, indexed_at=datetime.now(UTC),
        )
        for n, vector in enumerate(vectors)
    ]  # fmt: skip
    assert not index.add(documents).failed
    index.refresh()
    return index


def test_the_pick_is_stored_used_and_checked(node, client, index_name, vectors):
    index = picture_index(client, index_name, vectors)
    arguments = (
        "tune",
        "--index",
        index_name,
        "--samples",
        "100",
        "--target-recall",
        "0.95",
        "--rounds",
        "3",
    )
    filtered = run(node, *arguments, "--path", "a/", "--json")
    assert json.loads(filtered.stdout)["documents"] == 750
    assert "not written" in filtered.stderr
    assert ImageIndex(client, alias=index_name).meta().operating_points == {}
    assert (
        "No operating point is stored" in run(node, "tune", "--index", index_name, "--check", status=1).stderr
    )
    assert "Written into the index." in run(node, *arguments).stdout
    (key,) = points = ImageIndex(client, alias=index_name).meta().operating_points
    assert (key, points[key]["field"], points[key]["documents"]) == ("10", "image_embedding", 1500)
    assert points[key]["points"]
    assert len(json.dumps(points)) < 10_000
    assert "still meets 0.95" in run(node, "tune", "--index", index_name, "--check").stdout
    index.note(
        "operating_points", {"10": {**points[key], "num_candidates": 10, "oversample": None, "target": 0.999}}
    )
    other = run(node, "tune", "--index", index_name, "--check", "-k", "50", status=1)
    assert f"run `glimpse tune -k 50 --index {index_name}` first" in other.stderr
    failed = run(node, "tune", "--index", index_name, "--check", "--json", status=1)
    assert json.loads(failed.stdout)["ok"] is False


def test_what_was_measured_is_noted_where_it_was_measured_though_the_alias_was_switched(
    node, client, index_name, vectors
):
    index = picture_index(client, index_name, vectors)
    alias, former = Alias(client, alias=index_name), index.name()
    alias.begin(index.meta(), IndexOptions())

    def switching(_method: str, path: str) -> None:
        if "search" in path and alias.behind(alias.former) is None:
            alias.switch()

    with proxy(node.url, switching) as url:
        run(
            SimpleNamespace(url=url),
            "tune",
            "--index",
            index_name,
            "--samples",
            "100",
            "--rounds",
            "3",
            "--target-recall",
            "0.9",
        )
    assert alias.behind(alias.former) == former
    noted = {name: read_vector_field(client, name, "image_embedding").meta for name in (former, index_name)}
    assert list(noted[former]["operating_points"]) == ["10"]
    assert noted[index_name]["operating_points"] == {}


def test_a_target_that_nothing_reaches_says_the_best_and_the_change(node, client, index_name):
    plain_index(client, index_name, clustered(1000, 64), index_type="bbq_flat")
    arguments = ("tune", "--index", index_name, "--field", "v", "-k", "2", "--rounds", "3")
    done = run(node, *arguments, "--samples", "200", "--target-recall", "0.985", status=1)
    assert "No setting of v in" in done.stderr
    assert "the best is num_candidates" in done.stderr
    # Which change it names depends on how far below the best is: test_tuning_choice.py has each.
    assert "--index-type int8_hnsw" in done.stderr or "--samples" in done.stderr
    assert "oversample" in done.stdout  # the table is there all the same


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--field", "even"), "is of type boolean, not dense_vector; name one with --field: v"),
        (("--field", "nothing"), "has no field 'nothing'"),
        (("--field", "v"), "is empty"),
        (("--field", "v", "--plot", "recall.gif"), "A plot is written as .png, .svg, .html"),
        (("--index", "test-no-such-index"), "There is no index 'test-no-such-index'"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(node, client, index_name, arguments, sentence):
    plain_index(client, index_name, clustered(0, DIMS), dims=DIMS)
    done = run(node, "tune", "--index", index_name, *arguments, status=1)
    assert sentence in done.stderr
    assert "Traceback" not in done.output


def test_filters_that_nothing_passes_and_filters_that_are_none(node, client, index_name):
    plain_index(client, index_name, clustered(30, DIMS))
    arguments = ("tune", "--index", index_name, "--field", "v", "--filter")
    assert "--filter is not JSON" in run(node, *arguments, "{", status=2).stderr
    none = run(node, *arguments, '{"ids": {"values": ["no"]}}', status=1)
    assert "holds no vectors in 'v' that pass the filters" in none.stderr


def test_one_document_is_tuned(node, client, index_name):
    plain_index(client, index_name, clustered(1, DIMS))
    arguments = (
        "tune",
        "--index",
        index_name,
        "--field",
        "v",
        "--samples",
        "100",
        "--target-recall",
        "0.9",
        "--rounds",
        "3",
    )
    answer = json.loads(run(node, *arguments, "--json").stdout)
    assert (answer["documents"], answer["pick"]["recall"]) == (1, 1.0)


def test_the_extent_counts_writes(client, index_name):
    plain_index(client, index_name, clustered(3, DIMS))
    before = read_extent(client, index_name)
    client.update(index=index_name, id="1", doc={"even": True}, refresh=True)
    assert read_extent(client, index_name).last_sequence == before.last_sequence + 1
