"""The settings that are tried, the pick among them, and the message when there is none."""

from __future__ import annotations

from dataclasses import replace

from es_config.vector_field import VectorField
from tuning.advise import Advice, IndexVariant, Weight, computed_bytes, recommend, variants, walked_bytes
from tuning.points import HeldOut, Latency, Point, Setting, cheapest, confirmed, finalists, stored_points
from tuning.report import unreachable
from tuning.run import StoredPointCheck
from tuning.sweep import bisect, climb, is_same, oversamples, steps

FIELD = VectorField("photos", "v", 64, "cosine", "int8_hnsw", 16, 100, None, 1, {})


def point(
    candidates: int, oversample: float | None = None, *, low: float = 0.995, p50: float = 1.0, **more
) -> Point:
    """Return a point that meets 0.99 unless it is told otherwise."""
    latency = Latency(p50, 2 * p50, None, 60)
    given = {"recall": low + 0.002, "served": 1.0, "operations": 10.0 * candidates, **more}
    return Point(
        Setting(candidates, oversample), "int8_hnsw", recall_low=low, rescored=oversample or 1.0,
        latency=latency, **given,
    )  # fmt: skip


def test_the_ladder_climbs_by_halves_and_ends_at_its_limits():
    assert list(steps(10, least=10, most=10_000)) == [
        10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 7500, 10_000
    ]  # fmt: skip
    assert list(steps(10, least=30, most=60)) == [30, 50, 60]
    assert list(steps(1, least=1, most=10)) == [1, 2, 3, 5, 8, 10]
    assert list(steps(7, least=7, most=7)) == [7]


def curve_of(recall):
    """Return a function that looks at a setting, and the list of settings it was given."""
    asked = []

    def look(setting: Setting) -> Point:
        asked.append(setting.num_candidates)
        value = recall(setting.num_candidates)
        return point(setting.num_candidates, setting.oversample, low=value, recall=value)

    return look, asked


def test_a_climb_goes_two_steps_beyond_the_target_and_then_closes_in():
    look, asked = curve_of(lambda n: 0.9 + 0.0999 * min(1, n / 190))
    curve = climb(look, k=10, oversample=None, target=0.99, most=10_000)
    assert asked[-1] == 500  # 200, 300 and 500 meet it
    bisect(look, curve, target=0.99)
    met = min(n for n in asked if n >= 172)  # 171.3 is where it is met
    missed = max(n for n in asked if n < 172)
    assert met <= 1.06 * missed + 1


def test_a_climb_goes_beyond_even_where_nothing_is_missed():
    look, asked = curve_of(lambda _: 1.0)
    climb(look, k=10, oversample=None, target=0.99, most=10_000)
    assert asked == [10, 15, 20]


def test_a_climb_stops_where_nothing_rises():
    look, asked = curve_of(lambda n: min(0.95, 0.5 + n / 100))
    climb(look, k=10, oversample=None, target=0.99, most=10_000)
    assert asked[-1] == 200  # nothing rose since 50


def test_only_quantised_fields_are_rescored():
    assert oversamples(replace(FIELD, index_type="hnsw")) == (None,)
    assert oversamples(FIELD) == (None, 1.5, 2.0, 3.0, 5.0)
    bbq = replace(FIELD, index_type="bbq_hnsw", oversample=3.0)
    assert oversamples(bbq) == (None, 2.0, None, 5.0, 10.0)[1:]


def test_more_rescoring_is_given_up_once_it_gains_nothing():
    before = [point(10, 2.0, recall=0.9), point(20, 2.0, recall=0.95)]
    assert is_same(before, [point(20, 3.0, recall=0.9505), point(30, 3.0, recall=0.99)])
    assert not is_same(before, [point(20, 3.0, recall=0.96)])


def test_the_fastest_that_meets_the_target_is_picked():
    points = [point(50, low=0.98, p50=0.5), point(100, p50=2.0), point(60, 2.0, p50=1.0)]
    assert cheapest(points, 0.99).setting == Setting(60, 2.0)
    assert cheapest(points, 0.999) is None


def test_within_noise_the_fewest_compared_vectors_decide():
    points = [point(100, p50=1.00, operations=900), point(90, 2.0, p50=1.04, operations=850)]
    assert cheapest(points, 0.99).setting == Setting(90, 2.0)


def test_a_setting_that_asks_for_more_is_never_picked_for_a_lucky_clock():
    points = [point(100, 2.0, p50=1.3), point(200, 3.0, p50=1.0), point(300, 2.0, p50=0.9)]
    assert cheapest(points, 0.99).setting == Setting(100, 2.0)
    assert next(each.setting for each in finalists(points, 0.99)) == Setting(100, 2.0)


def test_queries_must_be_served_one_by_one_too():
    assert not point(50, low=0.995, served=0.94).meets(0.99)
    assert point(50, low=0.99, served=0.95).meets(0.99)


def test_a_pick_that_fails_on_other_queries_gives_way_to_the_next():
    points = [point(50, p50=1.0), point(80, p50=1.5), point(60, 2.0, p50=3.0)]
    asked = []

    def confirm(candidate: Point) -> HeldOut:
        asked.append(candidate.setting)
        return HeldOut(0.995, 0.985 if candidate.setting.num_candidates == 50 else 0.99, 1.0, 100)

    picked, held_out = confirmed(points, 0.99, confirm)
    assert asked == [Setting(50), Setting(80)]
    assert (picked.setting, held_out.recall) == (Setting(80), 0.995)
    assert confirmed(points, 0.99, lambda _: HeldOut(0.5, 0.4, 0.2, 100)) is None


def test_what_cannot_be_reached_is_said_with_the_change_that_would_help():
    few = [point(100, low=0.97), point(1000, 2.0, low=0.985, recall=0.987)]
    said = unreachable(few, FIELD, 0.99)
    assert "the best is num_candidates 1000, oversample 2, with 0.9870 (at least 0.9850" in said
    assert "m 32 and ef_construction 200 instead of 16 and 100" in said
    assert "--samples" in unreachable([point(100, low=0.985, recall=0.995)], FIELD, 0.99)
    assert "int8_hnsw" in unreachable(few, replace(FIELD, index_type="bbq_hnsw"), 0.99)
    assert "--index-type hnsw" in unreachable(few[:1], FIELD, 0.99)
    assert "kept apart" in unreachable([point(100)], FIELD, 0.99)


def test_what_is_stored_stays_small():
    points = [point(n, low=n / 1000, recall=n / 1000) for n in range(100, 200)]
    rows = stored_points(points)
    assert len(rows) == 48
    assert rows[0] == [152, None, 0.152, 1.0, 1520]
    assert rows[-1][0] == 199
    kept = stored_points(points, keep=(Setting(100), None))
    assert [row[0] for row in kept[:2]] == [100, 153]


def test_a_check_says_what_changed():
    bad = StoredPointCheck(10, Setting(39, 3.0), 0.99, 0.995, 8000, 16_000, HeldOut(0.98, 0.975, 0.97, 800))
    assert not bad.ok
    assert "no longer meets 0.99 (then 0.9950 with 8000 documents, now 16000): run `glimpse tune" in str(bad)
    good = replace(bad, now=HeldOut(0.991, 0.985, 0.97, 800))
    assert "still meets" in str(good)
    assert good.to_json() == {
        "ok": True, "k": 10, "target": 0.99, "stored_recall": 0.995, "stored_documents": 8000,
        "documents": 16_000, "num_candidates": 39, "oversample": 3.0, "recall": 0.991, "recall_low": 0.985,
        "served": 0.97,
    }  # fmt: skip


def advice(
    kind: str, *, p50: float, memory: int, low: float = 0.995, m: int | None = 16, seconds: float = 1
) -> Advice:
    """Return one row of advice."""
    variant = IndexVariant(kind, m, 100 if m else None)
    found = point(50, low=low, p50=p50)
    return Advice(variant, Weight(seconds, 10 * memory, memory, "measured"), found, found.meets(0.99))


def test_the_smallest_that_is_nearly_as_fast_is_recommended():
    found = [
        advice("hnsw", p50=1.0, memory=400),
        advice("int8_hnsw", p50=1.1, memory=110),
        advice("int4_hnsw", p50=2.0, memory=60),
        advice("bbq_hnsw", p50=0.5, memory=20, low=0.9),
    ]
    chosen = recommend(found, target=0.99, sample=100, documents=100)
    assert chosen.advice.variant.index_type == "int8_hnsw"
    assert "The fastest, hnsw, m 16, ef_construction 100" in chosen.sentence
    assert "28% of its memory" in chosen.sentence


def test_of_equal_size_the_one_built_sooner_is_recommended():
    found = [
        advice("hnsw", p50=1.0, memory=400, seconds=9),
        advice("hnsw", p50=1.1, memory=402, seconds=3, m=32),
    ]
    assert recommend(found, target=0.99, sample=1, documents=1).advice.variant.m == 32


def test_types_without_a_graph_grow_with_the_index():
    found = [advice("flat", p50=1.0, memory=300, m=None), advice("hnsw", p50=1.5, memory=400)]
    assert recommend(found, target=0.99, sample=1000, documents=1000).advice.variant.index_type == "flat"
    assert recommend(found, target=0.99, sample=1000, documents=9000).advice.variant.index_type == "hnsw"


def test_when_no_type_is_good_enough_the_best_is_named():
    none = recommend([advice("bbq_hnsw", p50=1, memory=1, low=0.9)], target=0.99, sample=1, documents=1)
    assert none.advice is None
    assert "the best is bbq_hnsw" in none.sentence


def test_every_graph_is_tried_and_one_bit_only_where_it_is_allowed():
    tried = variants(("flat", "hnsw", "bbq_hnsw"), [(16, 100), (32, 200)], dims=32)
    assert [str(each) for each in tried] == [
        "flat", "hnsw, m 16, ef_construction 100", "hnsw, m 32, ef_construction 200"
    ]  # fmt: skip


def test_memory_is_what_a_search_walks_through():
    off_heap = {"total_size_bytes": 1000, "total_vec_size_bytes": 700, "total_veq_size_bytes": 200}
    assert walked_bytes(off_heap) == 300
    assert walked_bytes({"total_size_bytes": 1000, "total_vec_size_bytes": 900}) == 1000
    assert computed_bytes(IndexVariant("int8_hnsw", 16, 100), 10, 128) == 10 * (128 + 32)
    assert computed_bytes(IndexVariant("flat"), 10, 128) == 10 * 512
