"""The page as its HTML says it: states in the address, sentences for mistakes, headers."""

from __future__ import annotations

import hashlib
import io
import re
from html import unescape
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from gallery import jpeg, pocket
from PIL import Image
from waiting import used_up

from demo.world.scene import Group, Scene
from es_config.documents import IndexMeta, IndexOptions
from es_config.index import ImageIndex
from models.encoders import Lazy
from models.pixels import REQUESTS
from search_app.core.parts import decode_vector
from search_app.core.query import SearchHit, SearchResponse
from search_app.core.searcher import Searcher, SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from search_app.web.page import changed

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


def link(html: str, text: str) -> str:
    """Return the address of the link with this text."""
    pattern = r'<a [^>]*?href="([^"]*)"[^>]*>(?:<span class="unseen">Remove: </span>)?'
    (found,) = set(re.findall(pattern + re.escape(text) + "</a>", re.sub("</?bdi>", "", html)))
    return found


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
    assert f'src="/api/v1/images/{gallery.ids["boat"]}/thumbnail?edge=320" srcset="' in html
    assert '<span class="name" dir="auto">a red boat' in html
    assert re.search(r'class="number">similarity 0\.\d\d; score', html)
    assert "<dt>Text model</dt><dd>local</dd>" in html
    assert 'value="a red boat"' in html


def test_the_box_offers_four_modes_in_plain_words(web):
    html = show(web.get("/?q=a+boat&mode=hybrid"))
    modes = html[html.index('<select name="mode">') :]
    options = re.findall(r'<option value="(\w*)"( selected)?>([^<]+)<', modes[: modes.index("</select>")])
    assert options == [
        ("", "", "what the pictures show"),
        ("caption", "", "what their captions say"),
        ("words", "", "the words written in them"),
        ("hybrid", " selected", "all together"),
    ]


def test_a_hybrid_card_says_why_and_any_other_does_not(web, gallery):
    html = show(web.get("/?q=a+red+boat&mode=hybrid"))
    assert hits(html)[0] == gallery.ids["boat"]
    why = re.search(r'<p class="why">(.*?) </p>\n', html).group(1)
    assert re.findall(r"<span>(.*?)</span>", why) == ["caption words: red, boat"]
    assert re.findall(r'<span class="number">(.*?)</span>', why) == ["visual 1st", "caption meaning 1st"]
    assert "by look, caption and words" in html
    assert 'class="why"' not in show(web.get("/?q=a+red+boat"))


def test_a_picture_found_by_its_caption_alone_shows_no_similarity(gallery):
    hit = SearchHit("0" * 64, 0.004, None, "a/b.jpg", "a boat", "/t", "caption words: boat")

    class Found:
        profile, index = gallery.searcher.profile, gallery.searcher.index
        resolved = staticmethod(gallery.searcher.resolved)

        def search(self, query):
            return SearchResponse(query.label, query.mode, None, query.k, 200, 1.0, 1, (hit,))

    html = show(application(Found(), gallery.storage).get("/?q=boat&mode=hybrid"))
    assert '<span class="number">not among the nearest by look; score 0.0040</span>' in html
    assert ">similarity" not in html


def test_a_picture_without_a_caption_has_an_honest_alternative_text(web, gallery):
    assert '<span class="name" dir="auto">other' in show(web.get("/?q=a+tree&path=others/"))
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


def test_words_and_a_picture_are_one_question(web, gallery):
    response = web.get(f"/?q=a+cat&like={gallery.ids['boat']}&camera=")
    assert response.headers["Location"] == f"/?q=a+cat&like={gallery.ids['boat']}"
    html = show(web.get(response.headers["Location"]))
    assert "“a cat”, like this picture" in html
    assert gallery.ids["boat"] not in hits(html)


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


def test_a_part_of_a_picture_is_searched_with(web, gallery):
    both = Scene("sea", "sunny", (Group("boat", "red", 1), Group("house", "blue", 1)), "left", 5)
    edges = {"left": "0", "top": "0", "width": "50", "height": "100"}
    data = {"image": (io.BytesIO(jpeg(both, 256)), "x.jpg"), **edges}
    shown = web.post("/picture?q=a+boat&path=named/", data=data)
    asked = parse_qs(urlsplit(shown.headers["Location"]).query)
    assert list(asked) == ["q", "vector", "path"]
    vector = np.array(decode_vector(asked["vector"][0]))
    left = Image.open(io.BytesIO(jpeg(both, 256))).crop((0, 0, 128, 256))
    assert vector @ pocket()[2].embed_images([left])[0] > 0.999
    of_index = web.post("/picture", data={"image_id": gallery.ids["boat"], **edges})
    assert hits(show(web.get(of_index.headers["Location"])))
    assert 'name="image_id"' in show(web.get(f"/images/{gallery.ids['boat']}"))
    for wrong, sentence in (
        ({**edges, "width": ""}, "needs left, top, width and height in per cent"),
        ({**edges, "width": "nan"}, "The part must lie in the picture"),
        ({**edges, "left": "100"}, "The part must lie in the picture"),
    ):
        refused = web.post("/picture", data={"image_id": gallery.ids["boat"], **wrong})
        assert sentence in show(refused, 400)
    assert web.post("/picture", data={"image_id": "nowhere", **edges}).status_code == 404


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
        ("/?q=a&k=0", 400, "k must be between 1 and 10000"),
        ("/?q=a&num_candidates=99999", 400, "num_candidates must be between"),
        ("/?path=x&sort=up", 400, "There is no order 'up'; choose one of: relevance, newest"),
        ("/?q=" + "x" * 10_000, 400, "at most 1000 are allowed"),
        ("/?like=nothing", 404, "no picture with the id 'nothing'"),
        ("/images/nothing", 404, "no picture with the id 'nothing'"),
        ("/nothing", 404, "There is nothing at '/nothing'"),
    ],
)
def test_a_mistake_is_a_sentence_on_the_page(web, address, status, sentence):
    html = show(web.get(address, follow_redirects=True), status)
    assert sentence in html
    assert 'name="q"' in html
    assert "Traceback" not in html


@pytest.mark.parametrize("more", ["_external=1&_scheme=javascript", "endpoint=x", "fbclid=abc"])
def test_a_parameter_of_somebody_else_leaves_the_address(web, more):
    response = web.get(f"/?q=a&{more}")
    assert (response.status_code, response.headers["Location"]) == (302, "/?q=a")
    assert "Find the picture you have in mind" in show(web.get(f"/?{more}"))


def test_filters_alone_list_pictures_newest_first_and_in_every_order(web, gallery):
    cats, boat = gallery.ids["cats"], gallery.ids["boat"]
    html = show(web.get("/?q=&tag=summer+day", follow_redirects=True))
    assert hits(html) == [cats, boat]
    assert "2 pictures, newest first" in " ".join(html.split())
    assert not re.search(">similarity|nearest|best match first", html)
    for label, order in (("oldest first", [boat, cats]), ("by name", [boat, cats])):
        html = show(web.get(link(html, label)))
        assert hits(html) == order
    assert 'name="sort" value="name"' in html
    raw = re.search(r'class="raw" href="([^"]+)"', html).group(1)
    assert [hit["image_id"] for hit in web.get(raw).json["hits"]] == [boat, cats]
    assert "No picture passes these filters" in show(web.get("/?camera=x"))


def test_the_start_page_leads_to_a_list_with_every_picture_once(web, gallery):
    address, seen = link(show(web.get("/")), "All pictures, newest first"), []
    while address:
        html = show(web.get(address))
        seen += hits(html)
        following = re.search(r'rel="next" href="([^"]+)"', html)
        address = following and following.group(1)
    assert len(seen) == len(gallery.ids)
    assert set(seen) == set(gallery.ids.values())
    assert seen[0] == gallery.ids["cats"]


def test_hits_can_be_sorted_and_pages_keep_the_order(web):
    html = show(web.get(link(show(web.get("/?q=a+boat")), "newest first")))
    assert "The 60 nearest pictures, newest first" in " ".join(html.split())
    assert 'rel="next" href="/?q=a+boat&sort=newest&page=2"' in html
    assert link(html, "best match first") == "/?q=a+boat"
    last = show(web.get("/?q=a+boat&sort=newest&page=3"))
    assert len(hits(last)) == 12
    assert 'rel="next"' not in last


STATE = "q=a+boat&path=named%2F&mode=hybrid&date_from=2020-01-01&sort=newest"


def test_nothing_is_lost_on_a_link(web, gallery):
    boat = gallery.ids["boat"]
    html = show(web.get(f"/?{STATE}"))
    assert hits(html) == [gallery.ids["cats"], boat]
    for name in ("like", "unlike"):
        refined = re.search(rf'href="/\?([^"]+&{name}={boat}[^"]*)"', html).group(1)
        assert parse_qs(refined) == parse_qs(f"{STATE}&{name}={boat}")
    detail = show(web.get(re.search(rf'href="(/images/{boat}[^"]+)"', html).group(1)))
    back = re.search(r'class="back" href="/\?([^"]+)"', detail).group(1)
    assert parse_qs(back) == parse_qs(STATE)
    like_it = re.search(r'class="main" href="/\?([^"]+)"', detail).group(1)
    assert parse_qs(like_it) == parse_qs(f"{STATE}&like={boat}")
    for box in ("a boat", "named/", "2020-01-01", "newest"):
        assert f'value="{box}"' in detail
    assert '"hybrid" selected' in detail
    assert "Filters: 2 set" in detail
    shown = upload(web, gallery.files["boat"], f"/picture?{STATE}&page=2")
    assert parse_qs(urlsplit(shown.headers["Location"]).query) == parse_qs(f"{STATE}&like={boat}")


def test_each_part_of_a_search_has_a_chip_that_removes_it_alone(web):
    state = f"{STATE}&camera=Pencil&exact=true&k=5"
    html = show(web.get(f"/?{state}"))
    for label, part in (
        ("path named/", "&path=named%2F"),
        ("by look, caption and words", "&mode=hybrid"),
        ("from Jan 1, 2020", "&date_from=2020-01-01"),
        ("newest first", "&sort=newest"),
        ("camera Pencil", "&camera=Pencil"),
        ("exact", "&exact=true"),
    ):
        assert parse_qs(link(html, label + " ×")[2:]) == parse_qs(state.replace(part, ""))
    assert parse_qs(link(html, "Clear")[2:]) == parse_qs("q=a+boat&mode=hybrid&sort=newest&exact=true&k=5")
    assert 'class="chips"' not in show(web.get("/"))


def test_a_changed_state_keeps_the_rest_as_far_as_it_makes_sense():
    asked = {"q": ["a"], "min_relevance": "weak", "mode": "hybrid", "tag": "x", "page": "2"}
    like = {"q": ["a"], "like": ["1"], "tag": "x"}
    assert changed(asked, add={"like": "1"}, shares_space=False) == like
    assert changed(asked, add={"like": "1"}) == {**like, "mode": "hybrid"}
    assert changed(asked, add={"vector": "A"}) == {"q": ["a"], "vector": ["A"], "tag": "x"}
    assert changed({**asked, "mode": "words"}, add={"minus": "b"})["mode"] == "words"
    assert changed(like, add={"unlike": "1"}) == {"q": ["a"], "unlike": ["1"], "tag": "x"}
    assert changed(like, add={"like": "1"}) == like
    assert changed(like, remove=("like", 0)) == {"q": ["a"], "tag": "x"}
    assert changed({"q": ["a", "b^2"]}, weigh=("q", 1, 0.5)) == {"q": ["a", "b^0.5"]}
    assert changed(asked, q=None) == {"mode": "hybrid", "tag": "x"}
    assert changed(asked, page=3) == {**asked, "page": "3"}
    assert changed({"sort": "newest", "k": "5"}, add={"like": "1"}) == {"like": ["1"], "k": "5"}
    assert changed({"sort": "name"}, q="a") == {"q": ["a"], "sort": "name"}
    assert changed({"q": ["a"], "sort": "newest"}, add={"like": "1"})["sort"] == "newest"


def test_chips_show_every_part_of_a_question_and_weigh_it(web, gallery):
    boat, cats = gallery.ids["boat"], gallery.ids["cats"]
    state = f"q=a+boat&q=at+night^2&like={boat}&minus=red+boats&unlike={cats}^0.5&path=named/"
    html = show(web.get(f"/?{state}"))
    parts = [
        ("“a boat” ×", "q=a+boat&"),
        ("“at night” ×", "q=at+night^2&"),
        ("path named/ ×", "&path=named/"),
    ]
    parts += [("not “red boats” ×", "&minus=red+boats"), ("not like this picture ×", f"&unlike={cats}^0.5")]
    for label, part in parts:
        assert parse_qs(link(html, label)[2:]) == parse_qs(state.replace(part, ""))
    weights = re.findall(r'class="weight" href="/\?([^"]+)"', html)
    assert parse_qs(unescape(weights[0])) == parse_qs(state.replace("a+boat", "a+boat^2"))
    assert parse_qs(unescape(weights[1])) == parse_qs(state.replace("night^2", "night^0.5"))
    assert parse_qs(unescape(weights[4])) == parse_qs(state.replace("^0.5", ""))
    hidden = re.findall(r'type="hidden" name="(q|like|minus|unlike)" value="([^"]+)"', html)
    assert [("q", "at night^2"), ("like", boat), ("minus", "red boats"), ("unlike", f"{cats}^0.5")] == hidden


def test_what_a_visitor_writes_is_never_markup(web):
    text = '"><script>alert(1)</script>'
    for address in ("/", "/images/x"):
        response = web.get(address, query_string={"q": text, "camera": text})
        assert "<script>alert" not in response.text


def test_the_detail_page_shows_metadata_neighbours_and_the_way_back(web, gallery):
    html = show(web.get(f"/images/{gallery.ids['boat']}?q=a+boat&page=2"))
    for fact in (
        "Jul 1, 2021, 12",
        "Drawn World Pencil",
        "48.8500, 2.3500",
        "128 × 128",
        ">named/</a>boat.jpg",
    ):
        assert fact in html
    assert 'class="back" href="/?q=a+boat&page=2"' in html
    assert f'class="main" href="/?q=a+boat&like={gallery.ids["boat"]}"' in html
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
            r"(?:src|<link[^>]*href)=\"(?:https?:)?//|\sstyle=|<style|\son\w+=|<script>", response.text
        )
        for link in re.findall(r"<a [^>]*href=\"(?:https?:)?//[^>]*>", response.text):
            assert 'rel="noopener noreferrer"' in link  # a map, which nothing asks until somebody clicks


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
