"""Rank fusion by numbers worked out by hand."""

import pytest

from es_config.documents import Hit, SearchResult
from search_app.core.hybrid import EVEN as ALL_EVEN
from search_app.core.hybrid import POCKET, fuse, fuse_results

EVEN = {"a": 1.0, "b": 1.0}


def test_a_picture_of_two_rankings_gets_the_sum_of_both():
    first, second, third = fuse({"a": ["x", "y"], "b": ["y", "z"]}, weights=EVEN)
    # y: 1/(60+2) + 1/(60+1) = 0.016129 + 0.016393; x: 1/61; z: 1/62
    assert (first.image_id, first.ranks) == ("y", {"a": 2, "b": 1})
    assert first.score == pytest.approx(0.032522, abs=1e-6)
    assert (second.image_id, second.score) == ("x", pytest.approx(0.016393, abs=1e-6))
    assert (third.image_id, third.score) == ("z", pytest.approx(0.016129, abs=1e-6))


def test_a_weight_multiplies_what_a_ranking_gives():
    fused = fuse({"a": ["x"], "b": ["y"]}, weights={"a": 0.5, "b": 2.0})
    # y: 2/61 = 0.032787; x: 0.5/61 = 0.008197
    assert [(each.image_id, round(each.score, 6)) for each in fused] == [("y", 0.032787), ("x", 0.008197)]


def test_equal_scores_are_ordered_by_the_best_rank_and_then_by_id():
    # One weight of 62/61 makes a second place worth 1/61, as a first place of the other ranking is.
    fused = fuse({"a": ["p", "b"], "b": ["c"]}, weights={"a": 62 / 61, "b": 1.0})
    assert [each.image_id for each in fused] == ["p", "c", "b"]
    mirrored = {"a": ["z", "y"], "b": ["y", "z"]}
    assert [each.image_id for each in fuse(mirrored, weights=EVEN)] == ["y", "z"]


def test_the_order_in_which_rankings_come_does_not_matter():
    rankings = {"a": ["u", "v", "w"], "b": ["w", "u", "v"], "c": ["v", "w", "u"]}
    weights = dict.fromkeys("abc", 1.0)
    orders = (("a", "b", "c"), ("c", "a", "b"), ("b", "c", "a"))
    answers = [
        [each.image_id for each in fuse({name: rankings[name] for name in order}, weights=weights)]
        for order in orders
    ]
    assert answers == [["u", "v", "w"]] * 3


def test_a_picture_with_every_word_comes_before_one_that_is_first_in_all_else():
    def result(*hits: tuple[str, str]) -> SearchResult:
        found = (Hit(image_id, 9.0, 0.5, {}, tuple(words.split())) for image_id, words in hits)
        return SearchResult(tuple(found), len(hits), 1)

    results = {name: result(("most", "red"), ("none", "")) for name in ("visual", "meaning", "words")}
    results["written"] = result(("most", "summer fair"), ("every", "summer fair 1904"))
    for weights in (ALL_EVEN, POCKET):
        found = fuse_results(results, weights=weights, words=("Summer", "fair", "1904"))
        assert [each.image_id for each in found] == ["every", "most", "none"]
        found = fuse_results(results, weights=weights, words=("summer", "photo"))  # a photo says nothing
        assert [each.image_id for each in found] == ["most", "every", "none"]


def test_an_empty_ranking_changes_nothing():
    with_it = fuse({"a": ["x", "y"], "b": []}, weights=EVEN)
    assert with_it == fuse({"a": ["x", "y"]}, weights=EVEN)
    assert fuse({"a": [], "b": []}, weights=EVEN) == []


def test_a_picture_that_a_ranking_names_twice_counts_once():
    assert [each.ranks for each in fuse({"a": ["x", "x"]}, weights=EVEN)] == [{"a": 1}]
