"""A tuned point serves its own k, the smaller ones and the pages beyond it."""

from search_app.core.searcher import operating_point, point_key, tuned_points

POINTS = {
    "10": {"num_candidates": 40, "oversample": 3.0},
    "24": {"num_candidates": 90, "oversample": None},
    "caption_embedding:10": {"num_candidates": 15, "oversample": 2.0},
}


def point(k: int, **more) -> dict:
    """Return the point for the pictures' vectors."""
    return operating_point(POINTS, **{"field": "image_embedding", "k": k, **more})


def test_without_tuning_the_default_is_used():
    assert operating_point({}, field="image_embedding", k=10) == {"num_candidates": 100}
    assert operating_point({}, field="image_embedding", k=60) == {"num_candidates": 200}


def test_a_tuned_k_uses_its_own_point():
    assert point(10) == {"num_candidates": 40, "oversample": 3.0}
    assert point(24) == {"num_candidates": 90}


def test_a_smaller_k_takes_the_first_of_the_next_larger_list():
    assert point(5) == {"num_candidates": 40, "oversample": 6.0}  # 30 candidates are rescored either way
    assert point(11) == {"num_candidates": 90}


def test_a_larger_k_doubles_the_candidates_as_pages_go_on():
    assert [point(24 * page)["num_candidates"] for page in (1, 2, 3, 4, 5)] == [90, 180, 360, 360, 720]


def test_candidates_stay_between_k_and_what_elasticsearch_allows():
    assert point(9_000)["num_candidates"] == 10_000
    assert (
        operating_point({"10": {"num_candidates": 10}}, field="image_embedding", k=100)["num_candidates"]
        >= 100
    )


def test_what_is_asked_for_is_done():
    assert point(10, asked=500) == {"num_candidates": 500}
    assert point(10, asked=5) == {"num_candidates": 10}


def test_captions_have_points_of_their_own():
    found = operating_point(POINTS, field="caption_embedding", k=10)
    assert found == {"num_candidates": 15, "oversample": 2.0}
    assert list(tuned_points(POINTS, "image_embedding")) == [10, 24]
    assert tuned_points(POINTS, "caption_embedding") == {10: POINTS[point_key("caption_embedding", 10)]}
    assert point_key("image_embedding", 24) == "24"
