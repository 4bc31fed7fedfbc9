"""The page as its HTML says it: states in the address, sentences for mistakes, headers."""

from __future__ import annotations

import hashlib
import io
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import pytest
from gallery import jpeg, pocket
from waiting import used_up

from demo.world.scene import Group, Scene
from es_config.documents import IndexMeta, IndexOptions
from es_config.index import ImageIndex
from models.encoders import Lazy
from models.pixels import REQUESTS
from search_app.core.query import SearchHit, SearchResponse
from search_app.core.searcher import Searcher, SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app

UNSEEN = Scene("sea", "sunset", (Group("boat", "red", 2),), None, 99)


def application(searcher, storage):
    """Return a test client."""
    app = create_app(
        service=SearchService(searcher), storage=storage, settings=AppSettings(max_upload=200_000)
    )
    return app.test_client()


@pytest.fixture(scope="module")
def web(gallery):
    return application(gallery.searcher, gallery.storage)


def show(response, status: int = 200) -> str:
    """Return the page's HTML, with its entities resolved."""
    assert response.status_code == status, response.text[:2000]
    assert response.content_type == "text/html; charset=utf-8"
    return unescape(response.text)


def hits(html: str) -> list[str]:
    """Return the ids of the pictures in the grid, in order."""
    return re.findall(r'class="view" href="/images/([0-9a-f]{64})', html)


def upload(web, data: bytes, address: str = "/picture"):
    """Send a picture as the page's form does."""
    return web.post(address, data={"image": (io.BytesIO(data), "photo.jpg")})


def test_the_start_page_offers_words_in_four_languages_and_pictures(web):
    html = show(web.get("/"))
    assert set(re.findall(r'<a lang="(\w+)"', html)) == {"en", "fr", "de", "es"}
    assert len(hits(html)) == 12
    assert "60 pictures" in html


def test_every_example_of_the_start_page_leads_to_pictures(web):
    for address in re.findall(r'<a lang="\w+" href="([^"]+)"', show(web.get("/"))):
        assert len(hits(show(web.get(address)))) == 24


def test_results_show_thumbnail_caption_similarity_and_lane(web, gallery):
    html = show(web.get("/?q=a+red+boat&path=named/"))
    assert set(hits(html)) == {gallery.ids[name] for name in ("boat", "cats", "house", "car")}
    assert f'src="/api/v1/images/{gallery.ids["boat"]}/thumbnail" alt="a red boat' in html
    assert re.search(r'<meter min="0" max="1" value="0\.\d+"', html)
    assert "text model: local" in html
    assert 'value="a red boat"' in html


def test_the_box_offers_four_modes_in_plain_words(web):
    html = show(web.get("/?q=a+boat&mode=hybrid"))
    options = re.findall(r'<option value="(\w*)"( selected)?>([^<]+)<', html)
    assert options == [
        ("", "", "what the pictures show"),
        ("caption", "", "what their captions say"),
        ("words", "", "the words written in them"),
        ("hybrid", " selected", "all together"),
    ]


def test_a_hybrid_card_says_why_and_any_other_does_not(web, gallery):
    html = show(web.get("/?q=a+red+boat&mode=hybrid"))
    assert hits(html)[0] == gallery.ids["boat"]
    why = re.search(r'<span class="why">(.*?) </span>\n', html).group(1)
    assert re.findall(r"<span>(.*?)</span>", why) == [
        "visual 1st", "caption meaning 1st", "caption words: red, boat",
    ]  # fmt: skip
    assert "by look, caption and words" in html
    assert 'class="why"' not in show(web.get("/?q=a+red+boat"))


def test_a_picture_found_by_its_caption_alone_shows_no_similarity(gallery):
    hit = SearchHit("0" * 64, 0.004, None, "a/b.jpg", "a boat", "/t", "caption words: boat")

    class Found:
        profile, index = gallery.searcher.profile, gallery.searcher.index

        def search(self, query):
            return SearchResponse(query.label, query.mode, None, query.k, 200, 1.0, 1, (hit,))

    html = show(application(Found(), gallery.storage).get("/?q=boat&mode=hybrid"))
    assert "by caption</span>" in html
    assert "<meter" not in html


def test_a_picture_without_a_caption_has_an_honest_alternative_text(web, gallery):
    html = show(web.get("/?q=a+tree&path=others/"))
    assert 'alt="Picture without a caption: other' in html
    assert 'alt="Picture without a caption: other9.jpg"' in show(web.get(f"/images/{gallery.ids['other9']}"))


def test_another_picture_in_hybrid_mode_is_compared_with_pictures(web):
    response = upload(web, jpeg(UNSEEN), "/picture?mode=hybrid&k=5")
    assert parse_qs(urlsplit(response.headers["Location"]).query).keys() == {"vector", "k"}
    html = show(web.get(response.headers["Location"]))
    assert 'value="hybrid"' not in html


def test_the_page_and_the_api_show_the_same_hits(web):
    html = show(web.get("/?q=a+cat&page=2"))
    raw = re.search(r'class="raw" href="([^"]+)"', html).group(1)
    assert [hit["image_id"] for hit in web.get(raw).json["hits"]] == hits(html)


def test_pages_follow_each_other_by_their_links(web):
    address, seen = "/?q=a+cat", []
    while address:
        html = show(web.get(address))
        seen += hits(html)
        following = re.search(r'rel="next" href="([^"]+)"', html)
        address = following and following.group(1)
    assert len(seen) == len(set(seen)) == 60


def test_empty_form_fields_do_not_stay_in_the_address(web):
    response = web.get("/?q=a+cat&date_from=&camera=&mode=&like=")
    assert (response.status_code, response.headers["Location"]) == (302, "/?q=a+cat")


def test_words_win_over_the_picture_that_was_shown_before(web, gallery):
    response = web.get(f"/?q=a+cat&like={gallery.ids['boat']}&camera=")
    assert response.headers["Location"] == "/?q=a+cat"


def test_a_picture_of_the_index_becomes_its_id(web, gallery):
    response = upload(web, gallery.files["boat"], "/picture?path=named/")
    assert (response.status_code, response.headers["Location"]) == (
        303,
        f"/?like={gallery.ids['boat']}&path=named%2F",
    )
    html = show(web.get(response.headers["Location"]))
    assert hits(html)[0] == gallery.ids["boat"]
    assert "this picture" in html


def test_any_other_picture_becomes_an_address_that_works_anywhere(web, gallery):
    response = upload(web, jpeg(UNSEEN))
    address = response.headers["Location"]
    assert list(parse_qs(urlsplit(address).query)) == ["vector"]
    restarted = application(gallery.searcher, gallery.storage)
    assert hits(show(restarted.get(address))) == hits(show(web.get(address)))
    assert "Pictures like yours" in show(web.get(address))


def test_a_picture_without_room_is_a_sentence_on_the_page_that_says_when(web):
    with used_up(REQUESTS.budget):
        response = upload(web, jpeg(UNSEEN))
        html = show(response, 503)
        assert "Too many pictures are being decoded at the moment; send this one again" in html
        assert 'name="q"' in html
        assert int(response.headers["Retry-After"]) > 0
    assert upload(web, jpeg(UNSEEN)).status_code == 303


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"", 400, "No picture arrived"),
        (b"hello", 400, "not a picture"),
        (b"x" * 200_001, 413, "over the limit of 0.2 MB"),
        (b"x" * 900_000, 413, "over the limit of 0.2 MB"),
    ],
)
def test_a_bad_upload_is_a_sentence_on_the_page(web, data, status, sentence):
    html = show(upload(web, data), status)
    assert sentence in html
    assert 'name="q"' in html


@pytest.mark.parametrize(
    ("address", "status", "sentence"),
    [
        ("/?q=", 400, "The query is empty"),
        ("/?camera=x", 400, "The query is empty"),
        ("/?q=a&k=0", 400, "k must be between 1 and 10000"),
        ("/?q=a&num_candidates=99999", 400, "num_candidates must be between"),
        ("/?q=a&_external=1&_scheme=javascript", 400, "There is no parameter '_external'"),
        ("/?q=a&endpoint=x&camera=", 400, "There is no parameter 'endpoint'"),
        ("/?q=" + "x" * 10_000, 400, "at most 1000 are allowed"),
        ("/?like=nothing", 404, "no picture with the id 'nothing'"),
        ("/images/nothing", 404, "no picture with the id 'nothing'"),
        ("/nothing", 404, "not found"),
    ],
)
def test_a_mistake_is_a_sentence_on_the_page(web, address, status, sentence):
    html = show(web.get(address, follow_redirects=True), status)
    assert sentence in html
    assert 'name="q"' in html
    assert "Traceback" not in html


def test_what_a_visitor_writes_is_never_markup(web):
    text = '"><script>alert(1)</script>'
    for address in ("/", "/images/x"):
        response = web.get(address, query_string={"q": text, "camera": text})
        assert "<script>alert" not in response.text


def test_the_detail_page_shows_metadata_neighbours_and_the_way_back(web, gallery):
    html = show(web.get(f"/images/{gallery.ids['boat']}?q=a+boat&page=2"))
    for fact in ("2021-07-01 12:00", "Drawn World Pencil", "48.8500, 2.3500", "128 × 128", "named/boat.jpg"):
        assert fact in html
    assert 'class="back" href="/?q=a+boat&page=2"' in html
    assert f'class="main" href="/?like={gallery.ids["boat"]}"' in html
    assert len(hits(html)) == 6
    assert gallery.ids["boat"] not in hits(html)


def test_nothing_comes_from_elsewhere_and_nothing_is_inline(web, gallery):
    for address in ("/", "/?q=a+cat", f"/images/{gallery.ids['boat']}", "/?q=a&k=0"):
        response = web.get(address)
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert not re.search(
            r"(?:src|href)=\"(?:https?:)?//|\sstyle=|<style|\son\w+=|<script>", response.text
        )


def test_static_files_are_small(web):
    for name in ("glimpse.css", "written.css", "picture.js", "keys.js", "look.js", "caption.js"):
        with web.get(f"/static/{name}") as response:
            assert 0 < len(response.data) < 16_000


def test_an_empty_index_says_how_to_fill_it(client, index_name, gallery):
    profile, texts, images = pocket()
    index = ImageIndex(client, alias=index_name)
    meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
    index.create(meta, IndexOptions())
    empty = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    web = application(empty, gallery.storage)
    assert "glimpse ingest" in show(web.get("/"))
    assert "glimpse ingest" in show(web.get("/?q=a"))
    assert "No picture has a caption yet" in show(web.get("/?q=a&mode=caption"))
    assert "No picture passes these filters" in show(web.get("/?q=a&path=x"))


def test_without_elasticsearch_the_page_says_so_and_stays_usable(gallery):
    from elasticsearch import Elasticsearch

    profile, texts, images = pocket()
    nobody = ImageIndex(Elasticsearch("http://127.0.0.1:9", max_retries=0, request_timeout=2))
    web = application(
        Searcher(
            index=nobody,
            profile=profile,
            text_encoder=Lazy(lambda: texts),
            image_encoder=Lazy(lambda: images),
        ),
        gallery.storage,
    )
    for address in ("/", "/?q=a+cat", f"/images/{'0' * 64}"):
        html = show(web.get(address), 503)
        assert "glimpse up" in html
        assert 'name="q"' in html
    assert "glimpse up" in show(upload(web, gallery.files["boat"]), 503)


def test_the_id_of_a_picture_is_the_hash_of_its_file(gallery):
    assert gallery.ids["boat"] == hashlib.sha256(gallery.files["boat"]).hexdigest()
