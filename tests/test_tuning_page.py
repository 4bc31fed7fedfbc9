"""/tuning as a person meets it: before and after tuning, and a query beside its exact answer."""

from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree

import pytest

from search_app.core.recall_chart import stored_chart
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from search_app.web.tuning import slider_steps

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
    assert "chart.svg" not in html


def test_what_was_measured_is_drawn_with_default_pick_and_exact(gallery, monkeypatch):
    client = web(gallery, monkeypatch, {"10": POINT})
    html = show(client.get("/tuning"))
    assert "99.51 %" in html
    assert "0.80 ms" in html
    assert "<td>15</td><td>2</td><td>0.9951</td><td>0.80</td><td>400</td>" in html
    address, text = re.search(r'<img src="(/tuning/chart.svg[^"]+)"[^>]* alt="([^"]+)"', html).groups()
    assert text.startswith("Recall against latency of 3 settings.")
    assert "style=" not in html
    assert not re.search(r"<script(?![^>]* src=)", html)
    drawn = client.get(address)
    assert drawn.mimetype == "image/svg+xml"
    assert drawn.headers["Content-Security-Policy"].endswith("style-src 'unsafe-inline'")
    texts = [
        each.text for each in ElementTree.fromstring(drawn.data).iter("{http://www.w3.org/2000/svg}text")
    ]
    for label in (
        "as the index says", "oversample 2", "target", "exact", "60 documents · k = 10",
        "default: num_candidates 100", "pick: num_candidates 15, oversample 2",
    ):  # fmt: skip
        assert label in texts


def test_there_is_no_chart_of_what_was_not_measured(gallery, monkeypatch):
    response = web(gallery, monkeypatch, {"10": POINT}).get("/tuning/chart.svg?k=24")
    assert response.status_code == 404
    assert "run `glimpse tune -k 24` first" in unescape(response.text)


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
    assert "9 of the 10 nearest pictures are found. 1 is missed." in " ".join(html.split())
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
    chart = stored_chart(POINT, k=10)
    assert [[(dot.p50_ms, dot.recall) for dot in dots] for dots in chart.curves.values()] == [
        [(0.5, 0.9), (1.0, 0.95)], [(0.8, 0.9951)]
    ]  # fmt: skip
    assert (chart.pick.p50_ms, chart.pick.recall) == (0.8, 0.9951)
    assert (chart.default.p50_ms, chart.default.recall) == (1.0, 0.95)
    assert (chart.exact_ms, chart.target) == (8.0, 0.99)
    assert stored_chart({"target": 0.99}, k=10) is None
