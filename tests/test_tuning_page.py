"""/tuning as a person meets it: before and after tuning, and a query beside its exact answer."""

from __future__ import annotations

import re
from html import unescape

import pytest

from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from search_app.web.tuning import chart, nice, slider_steps

POINT = {
    "num_candidates": 15,
    "oversample": 2.0,
    "recall": 0.9951,
    "recall_low": 0.9913,
    "p50_ms": 0.8,
    "p95_ms": 1.2,
    "target": 0.99,
    "documents": 60,
    "field": "image_embedding",
    "measured_at": "2026-01-02T03:04:05+00:00",
    "exact_p50_ms": 8.0,
    "default_num_candidates": 100,
    "points": [[10, None, 0.9, 0.5, 300], [100, None, 0.95, 1.0, 900], [15, 2.0, 0.9951, 0.8, 400]],
}


def web(gallery, monkeypatch, points: dict):
    """Return a test client of an index whose `_meta` says `points`."""
    meta = gallery.searcher.index.meta()
    monkeypatch.setattr(
        gallery.searcher.index, "meta", lambda: type(meta)(**{**vars(meta), "operating_points": points})
    )
    app = create_app(service=SearchService(gallery.searcher), storage=gallery.storage, settings=AppSettings())
    return app.test_client()


def show(response) -> str:
    """Return the page's HTML, with its entities resolved."""
    assert response.status_code == 200, response.text[:2000]
    return unescape(response.text)


def test_without_tuning_the_page_says_how_to_do_it(gallery, monkeypatch):
    html = show(web(gallery, monkeypatch, {}).get("/tuning"))
    assert "glimpse tune" in html
    assert "a search for 10 looks at 100 candidates" in html
    assert "<polyline" not in html


def test_what_was_measured_is_drawn_with_default_pick_and_exact(gallery, monkeypatch):
    html = show(web(gallery, monkeypatch, {"10": POINT}).get("/tuning"))
    assert "99.51 %" in html
    assert "0.80 ms" in html
    assert html.count("<polyline") == 2
    for kind in ('circle class="pick"', 'rect class="default"', 'path class="exact"'):
        assert kind in html.split("<figcaption>")[0]
    assert "15 candidates, oversample 2: recall 0.9951, 0.80 ms" in html
    assert "style=" not in html
    assert not re.search(r"<script(?![^>]* src=)", html)


def test_a_query_is_shown_beside_its_exact_answer(gallery, monkeypatch):
    client = web(gallery, monkeypatch, {"10": POINT})
    html = show(client.get("/tuning?q=a+red+boat"))
    assert (
        "With 15 candidates, oversample 2 (what a search uses): 10 of the 10 nearest pictures are found."
        in (" ".join(html.split()))
    )
    assert html.count('<a href="/images/') == 10
    assert f"/images/{gallery.ids['boat']}" in html
    assert "Missed" not in html


def test_what_is_missed_and_what_is_wrong_are_marked(gallery, monkeypatch):
    client = web(gallery, monkeypatch, {"10": POINT})
    index = gallery.searcher.index
    search = index.search

    def misses_one(body):
        result = search(body)
        if body["knn"] is not None and not isinstance(body["knn"], list) and "rescore_vector" in body["knn"]:
            exact = body["knn"]["num_candidates"] == 10_000
            return result if exact else type(result)(result.hits[1:], result.total, result.took_ms)
        return result

    monkeypatch.setattr(index, "search", misses_one)
    html = show(client.get("/tuning?q=a+red+boat&step=0"))
    assert "9 of the 10 nearest pictures are found, 1 is missed" in " ".join(html.split())
    assert f"/images/{gallery.ids['boat']}" in html.split("Missed, although they are nearer")[1]


@pytest.mark.parametrize("address", ["?k=x&step=-1", "?k=99999&step=99999", "?step=1e3", "?k=7"])
def test_numbers_out_of_range_are_brought_into_it(gallery, monkeypatch, address):
    show(web(gallery, monkeypatch, {"10": POINT}).get(f"/tuning{address}"))


def test_a_picture_that_the_index_does_not_hold_is_not_found(gallery, monkeypatch):
    response = web(gallery, monkeypatch, {}).get("/tuning?like=nothing")
    assert response.status_code == 404
    assert "The index holds no picture with the id 'nothing'." in unescape(response.text)


def test_every_page_leads_there(gallery, monkeypatch):
    assert 'href="/tuning"' in show(web(gallery, monkeypatch, {}).get("/"))


def test_the_slider_holds_the_default_and_the_operating_point():
    steps = slider_steps(10, {"10": POINT})
    assert {10, 15, 100} <= set(steps)
    assert steps == sorted(set(steps))
    assert steps[-1] <= 800
    assert 10_000 >= slider_steps(100, {})[-1] >= 200


def test_a_dot_lies_where_its_numbers_say():
    drawn = chart(POINT)
    dots = {dot.num_candidates: dot for curve in drawn.curves for dot in curve.dots}
    assert dots[10].x < dots[15].x < dots[100].x < drawn.exact.x <= drawn.right
    assert drawn.exact.y == drawn.top
    assert dots[10].y > dots[100].y > drawn.target_y > dots[15].y
    assert (dots[15].kind, dots[100].kind, dots[10].kind) == ("pick", "default", "")
    assert chart({"target": 0.99}) is None


def test_ticks_are_round_numbers():
    assert nice(0.3, 12) == [0.5, 1, 2, 5, 10]
