"""Labels, metrics, intervals and comparisons, beside numbers worked out by hand."""

import json
import math
import re

import numpy as np
import pytest

from evaluation.compare_models import (
    ModelComparison,
    ModelScores,
    Picture,
    caption_questions,
    check_format,
    plot_comparison,
)
from evaluation.errors import EvaluationError, LabelError
from evaluation.evaluate import (
    Difference,
    Estimate,
    EvaluationReport,
    Run,
    compare_runs,
    difference,
    estimate,
    load_runs,
    make_run,
    metric_names,
    query_metrics,
    save_runs,
    score_run,
)
from evaluation.labels import find_answers, picture_finder, read_labels

ID = "ab" * 32


def labels(tmp_path, *lines):
    """Write lines to a file and read it."""
    path = tmp_path / "queries.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return read_labels(path)


def line(query, *relevant, **more):
    """Return one labelled query as JSON."""
    return json.dumps({"query": query, "relevant": relevant, **more})


def run_of(name, **ranked):
    """Return a run with these rankings."""
    return Run(name, "pocket", "image", "local", 10, {key: tuple(ids) for key, ids in ranked.items()}, 1.0)


def answers_of(tmp_path, *lines):
    """Return the answers of labelled lines, every name standing for itself."""
    found = labels(tmp_path, *lines)
    return find_answers(found.queries, find=lambda names: {name: [name] for name in names})


def test_metrics_are_those_worked_out_by_hand():
    values = query_metrics(
        {"two answers": ("d1", "d2"), "first": ("d1",), "nothing": ("d1",)},
        {"two answers": ("d3", "d1", "d4"), "first": ("d1", "d2")},
        k=10,
    )
    gain = 1 / math.log2(3)
    assert values["recall@1"].tolist() == [0, 1, 0]
    assert values["recall@5"].tolist() == [0.5, 1, 0]
    assert values["mrr@10"].tolist() == [0.5, 1, 0]
    assert values["ndcg@10"] == pytest.approx([gain / (1 + gain), 1, 0])


def test_only_the_first_k_hits_count():
    values = query_metrics({"q": ("d3",)}, {"q": ("d1", "d2", "d3")}, k=2)
    assert {name: value.tolist() for name, value in values.items()} == {
        name: [0.0] for name in ("recall@1", "recall@2", "mrr@2", "ndcg@2")
    }
    assert metric_names(10) == ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10")


def test_an_interval_holds_the_mean_and_shrinks_with_more_queries():
    few = estimate(np.array([0, 1] * 10, float))
    many = estimate(np.array([0, 1] * 1000, float))
    assert few.mean == many.mean == 0.5
    assert few.low < 0.35
    assert few.high > 0.65
    assert (many.low, many.high) == pytest.approx((0.478, 0.522), abs=0.004)


def test_chance_explains_small_differences_and_not_large_ones():
    rng = np.random.default_rng(1)
    first = rng.random(200)
    same = difference(first, first + rng.normal(0, 0.1, 200))
    better = difference(first, first + 0.1 + rng.normal(0, 0.1, 200))
    assert same.p_value > 0.05
    assert better.p_value < 0.001
    assert better.low < better.mean < better.high
    assert difference(first, first).p_value == 1
    # Four queries that all gain: 2 of the 16 ways to give signs are as far from 0.
    assert difference(np.zeros(4), np.ones(4)).p_value == pytest.approx(2 / 16, abs=0.02)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{not json", "Line 2 of .* is not JSON"),
        ("[1]", "Line 2 of .* is not a JSON object"),
        ('{"query": ""}', "Line 2 of .*: query must be some words"),
        ('{"relevant": ["a"]}', "Line 2 of .* asks nothing"),
        ('{"query": "a", "relevant": "b"}', "relevant must be an array"),
        ('{"query": "a", "relevant": [1]}', "relevant must be an array"),
        ('{"query": "a", "answers": []}', "unknown entry 'answers'"),
        ('{"vector": [1, "a"]}', "vector must be an array of finite numbers"),
        ('{"vector": [0, 0]}', "not all zero"),
        ('{"vector": [NaN]}', "finite numbers"),
        ('{"query": "a", "language": 3}', "language must be a text"),
        (f'{{"query": "{"a" * 1001}"}}', "1001 characters"),
    ],
)
def test_a_line_that_is_wrong_is_named_with_the_reason(tmp_path, text, complaint):
    with pytest.raises(LabelError, match=complaint):
        labels(tmp_path, line("a boat", ID), text)


def test_files_without_queries_are_refused(tmp_path):
    with pytest.raises(LabelError, match="holds no queries"):
        labels(tmp_path, "", "  ")
    (tmp_path / "latin").write_bytes("été".encode("latin-1"))
    with pytest.raises(LabelError, match="not UTF-8 text"):
        read_labels(tmp_path / "latin")


def test_what_is_odd_is_said_and_counted(tmp_path):
    found = labels(tmp_path, line("a boat", ID), line("a boat", "x.jpg"), line("a cat"), line("un chat", ID))
    assert [query.key for query in found.queries] == ["a boat", "a boat #2", "a cat", "un chat"]
    repeated, empty = found.warnings
    assert "1 queries occur more than once" in repeated
    assert "'a boat' (2 times)" in repeated
    assert "1 queries name no relevant picture" in empty


def test_trec_files_are_read(tmp_path):
    (tmp_path / "topics").write_text("q1\ta red boat\nq2 two cats\n")
    (tmp_path / "qrels").write_text("q1 0 my pictures/boat 1.jpg 1\nq1 0 other.jpg 0\nq2 0 cat.jpg 2\n")
    found = read_labels(tmp_path / "topics", qrels=tmp_path / "qrels").queries
    assert [(query.key, query.text, query.relevant) for query in found] == [
        ("q1", "a red boat", ("my pictures/boat 1.jpg",)),
        ("q2", "two cats", ("cat.jpg",)),
    ]
    (tmp_path / "qrels").write_text("q1 0 boat.jpg yes\n")
    with pytest.raises(LabelError, match="Line 1 of .* is not a judgement"):
        read_labels(tmp_path / "topics", qrels=tmp_path / "qrels")


def test_labels_are_ids_paths_or_ends_of_paths():
    places = [(ID, ["sea/boat.jpg", "copy/boat.jpg"]), ("cd" * 32, ["city/boat.jpg"])]
    find = picture_finder(known=lambda ids: [each for each in ids if each == ID], by_name=lambda _: places)
    assert find(
        [ID, "sea/boat.jpg", "/home/me/pictures/city/boat.jpg", "boat.jpg", "cat.jpg", "ef" * 32]
    ) == {
        ID: [ID],
        "sea/boat.jpg": [ID],
        "/home/me/pictures/city/boat.jpg": ["cd" * 32],
        "boat.jpg": [ID, "cd" * 32],
    }


def test_unknown_labels_are_counted_and_only_fatal_when_all_are(tmp_path):
    found = labels(tmp_path, line("a boat", "known", "gone"), line("a cat", "lost"))
    answers = find_answers(found.queries, find=lambda names: {n: [n] for n in names if n == "known"})
    assert [query.key for query in answers.queries] == ["a boat"]
    assert answers.warnings[0].startswith("2 labels name no picture of the index")
    with pytest.raises(EvaluationError, match="No query has a relevant picture .*: 'known' is not in it"):
        find_answers(found.queries, find=lambda _: {})


def test_scores_are_also_given_by_language(tmp_path):
    answers = answers_of(
        tmp_path, line("a boat", "1", language="en"), line("ein Boot", "1", language="de"), line("?", "2")
    )
    run = make_run(
        answers.queries,
        search=lambda _: (["1"], "local"),
        name="image",
        profile="pocket",
        mode="image",
        k=10,
    )
    scores = {score.language: score for score in score_run(run, answers)}
    assert {name: score.queries for name, score in scores.items()} == {"all": 3, "de": 1, "en": 1}
    assert scores["all"].metrics["recall@1"].mean == pytest.approx(2 / 3)
    assert scores["de"].metrics["ndcg@10"] == Estimate(1, 1, 1)
    report = EvaluationReport(tuple(scores.values()), (), (run,))
    assert "0.667" in "\n".join(report.lines())
    assert report.to_json()["runs"][0] == {
        "name": "image", "profile": "pocket", "mode": "image", "lane": "local", "k": 10,
        "query_ms": run.query_ms,
    }  # fmt: skip


def test_runs_come_back_from_their_file(tmp_path):
    runs = [run_of("image", a=["1", "2"]), run_of("hybrid", a=[])]
    save_runs(tmp_path / "run.json", runs)
    assert load_runs(tmp_path / "run.json") == runs
    for text in ("{}", "[]", '{"format": "glimpse-runs 1", "runs": [{}]}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(LabelError, match="holds no runs"):
            load_runs(tmp_path / "other.json")


def test_two_runs_are_compared_over_the_queries_that_both_were_asked(tmp_path):
    names = [f"q{n}" for n in range(30)]
    answers = answers_of(tmp_path, *(line(name, "1") for name in [*names, "only one"]))
    good = run_of("good", **{name: ["1"] for name in names}, only=["1"])
    bad = run_of("bad", **{name: ["2"] for name in names})
    found = compare_runs(bad, good, answers)
    assert found.queries == 30
    assert found.verdict.startswith("good is better than bad (ndcg@10 +1.000, p = 0.0001")
    assert "No difference" in compare_runs(good, good, answers).verdict
    with pytest.raises(EvaluationError, match="share no query"):
        compare_runs(run_of("other", x=["1"]), good, answers)


def result(name, quality, speed):
    """Return the scores of a profile."""
    metrics = {
        "recall@1": Estimate(quality, quality, quality),
        "ndcg@10": Estimate(quality, quality, quality),
    }
    return ModelScores(name, 16, metrics, speed, 5.0, 1_000_000, {})


@pytest.mark.parametrize(
    ("p_value", "speeds", "advice"),
    [
        (0.001, (10, 40), "Take a: its nDCG@10 of 0.800 is the best, beyond chance"),
        (0.3, (10, 40), "Take b: chance alone could explain why a finds more .* 4.0 times as many pictures"),
        (0.3, (40, 10), "Take a: it finds at least as much as b, and none of these is faster"),
    ],
)
def test_the_advice_weighs_quality_chance_and_speed(tmp_path, p_value, speeds, advice):
    results = (result("a", 0.8, speeds[0]), result("b", 0.7, speeds[1]))
    comparison = ModelComparison(results, {"b": Difference(-0.1, -0.2, 0.0, p_value)}, 10, 10, "captions", 10)
    assert re.match(advice, comparison.recommendation)
    assert comparison.recommendation in list(comparison.lines())
    plot_comparison(comparison, tmp_path / "models.svg")
    assert (tmp_path / "models.svg").read_text().startswith("<?xml")


def test_a_plot_needs_a_known_format_and_a_folder(tmp_path):
    with pytest.raises(EvaluationError, match=".png, .svg, .pdf, and 'plot.gif' is none of them"):
        check_format(tmp_path / "plot.gif")
    with pytest.raises(EvaluationError, match="no folder"):
        check_format(tmp_path / "nowhere" / "plot.png")


def test_pictures_of_one_caption_answer_it_together():
    pictures = [Picture("1", None, ("a boat",)), Picture("2", None, ("a boat",)), Picture("3", None)]
    assert [(each.text, each.relevant) for each in caption_questions(pictures)] == [("a boat", ("1", "2"))]
