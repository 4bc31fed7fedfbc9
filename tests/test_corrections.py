"""Captions that people correct, through the REST API and the page's form."""

from __future__ import annotations

import pytest

from search_app.core.query import Query
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app

SAID = "Grandmother's zeppelin over the quarry"


def application(own_gallery, **settings):
    """Return a test client."""
    return create_app(
        service=SearchService(own_gallery.searcher),
        storage=own_gallery.storage,
        settings=AppSettings(**settings),
    ).test_client()


@pytest.fixture(scope="module")
def web(own_gallery):
    return application(own_gallery)


def put(web, image_id, **more):
    """Send a correction."""
    return web.put(f"/api/v1/images/{image_id}/caption", **more)


def test_a_corrected_caption_is_kept_and_found_at_once(own_gallery, web):
    image_id = own_gallery.ids["other3"]
    before = own_gallery.searcher.index.vector(image_id)
    response = put(web, image_id, json={"caption": f"  {SAID}\n"})
    assert response.status_code == 200, response.text
    assert (response.json["caption"], response.json["caption_source"]) == (SAID, "human")
    assert response.json["thumbnail_url"] == f"/api/v1/images/{image_id}/thumbnail"
    for mode in ("caption", "hybrid"):
        hit = own_gallery.searcher.search(Query(text=SAID, mode=mode, k=60)).hits
        found = next(each for each in hit if each.image_id == image_id)
        assert found.caption == SAID
    assert own_gallery.searcher.search(Query(text=SAID, mode="caption")).hits[0].image_id == image_id
    assert "caption words: grandmother's, zeppelin, over, quarry" in found.why
    assert (own_gallery.searcher.index.vector(image_id) == before).all()


def test_no_later_pass_takes_a_corrected_caption(own_gallery, web):
    assert put(web, own_gallery.ids["other4"], json={"caption": SAID}).status_code == 200
    waiting = {
        one.image_id for page in own_gallery.searcher.index.captions().missing(every=True) for one in page
    }
    assert own_gallery.ids["other5"] in waiting
    assert own_gallery.ids["other4"] not in waiting


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"json": {"caption": ""}}, 400, "The caption is empty"),
        ({"json": {"caption": " \n\t\u0000"}}, 400, "The caption is empty"),
        ({"json": {"caption": "x" * 1001}}, 400, "1001 characters; at most 1000"),
        ({"json": {"caption": 7}}, 400, "caption must be a text"),
        ({"json": {"caption": None}}, 400, "caption must be a text"),
        ({"json": {"text": "a"}}, 400, "and nothing else"),
        ({"json": {"caption": "a", "caption_source": "model"}}, 400, "and nothing else"),
        ({"json": ["a"]}, 400, "and nothing else"),
        ({"data": b'{"caption": "\\ud800"}', "content_type": "application/json"}, 400, "not valid Unicode"),
        ({"data": b'{"caption": ', "content_type": "application/json"}, 400, "JSON body must be"),
        ({"data": b"\xff\xfe", "content_type": "application/json"}, 400, "JSON body must be"),
        ({"data": {"caption": "a"}}, 415, "Send the caption as JSON"),
        ({"data": "a", "content_type": "text/plain"}, 415, "Send the caption as JSON"),
        ({}, 415, "Send the caption as JSON"),
    ],
)
def test_what_is_no_caption_is_refused_and_changes_nothing(own_gallery, web, body, status, sentence):
    image_id = own_gallery.ids["boat"]
    response = put(web, image_id, **body)
    assert (response.status_code, response.content_type) == (status, "application/problem+json")
    assert sentence in response.json["detail"]
    assert own_gallery.searcher.picture(image_id)["caption"].startswith("a red boat")


@pytest.mark.parametrize("unknown", ["0" * 64, "x" * 600])
def test_a_picture_that_is_not_there_gets_no_caption(web, own_gallery, unknown):
    response = put(web, unknown, json={"caption": "a"})
    assert (response.status_code, response.content_type) == (404, "application/problem+json")
    assert own_gallery.searcher.index.count() == 60


def test_a_read_only_server_and_another_sites_page_write_nothing(own_gallery, web):
    image_id = own_gallery.ids["boat"]
    closed = application(own_gallery, read_only=True)
    assert put(closed, image_id, json={"caption": "a"}).status_code == 403
    foreign = {"Origin": "http://elsewhere.example"}
    assert put(web, image_id, json={"caption": "a"}, headers=foreign).status_code == 403
    assert web.post(f"/images/{image_id}/caption", data={"caption": "a"}, headers=foreign).status_code == 403
    assert own_gallery.searcher.picture(image_id)["caption"].startswith("a red boat")
    assert 'id="correct"' not in closed.get(f"/images/{image_id}").text


def test_the_pages_form_writes_without_a_script_and_comes_back(own_gallery, web):
    image_id = own_gallery.ids["car"]
    html = web.get(f"/images/{image_id}?q=a+car").text
    assert f'action="/images/{image_id}/caption?q=a+car"' in html
    assert f'data-url="/api/v1/images/{image_id}/caption"' in html
    said = "Übung <b>macht</b> den Meister"
    response = web.post(f"/images/{image_id}/caption?q=a+car", data={"caption": said})
    assert (response.status_code, response.location) == (303, f"/images/{image_id}?q=a+car")
    html = web.get(response.location).text
    assert "Übung &lt;b&gt;macht&lt;/b&gt; den Meister</h1>" in html
    assert "Caption written by a person" in html
    refused = web.post(f"/images/{image_id}/caption", data={"caption": " "})
    assert (refused.status_code, "The caption is empty" in refused.text) == (400, True)


def test_the_page_says_who_wrote_a_caption(own_gallery, web):
    assert "No caption yet; this is the file's name." in web.get(
        f"/images/{own_gallery.ids['other9']}"
    ).text.replace("&#39;", "'")
    assert "Correct the caption" in web.get(f"/images/{own_gallery.ids['boat']}").text
