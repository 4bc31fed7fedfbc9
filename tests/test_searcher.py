"""The searcher on a real node: its hits and its refusals."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from gallery import DATES, FILLERS, NAMED, pocket

from es_config.documents import IndexMeta, IndexOptions
from es_config.errors import EngineError
from es_config.index import ImageIndex
from es_config.requests import Filters
from models.encoders import Lazy
from models.hub import ModelSource
from search_app.core.query import Query
from search_app.core.searcher import Searcher, TextVectors
from search_app.errors import NotFoundError, QueryError

EVERYTHING = len(NAMED) + FILLERS


@pytest.fixture(scope="module")
def searcher(gallery):
    return gallery.searcher


def first(searcher, **asked):
    """Return the first hit."""
    return searcher.search(Query(**asked)).hits[0]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a red boat at sea in the sunshine", "boat"),
        ("deux chats noirs dans un pré sous un ciel nuageux", "cats"),
        ("ein blaues Haus in der Wüste bei Nacht", "house"),
        ("un coche amarillo en la ciudad bajo la lluvia", "car"),
    ],
)
def test_words_in_four_languages_find_their_picture(searcher, gallery, text, name):
    hit = first(searcher, text=text)
    assert (hit.image_id, hit.path) == (gallery.ids[name], f"named/{name}.jpg")


def test_words_find_captions_too(searcher, gallery):
    response = searcher.search(Query(text="a red boat at sea, in the sunshine", mode="caption", k=20))
    assert response.hits[0].image_id == gallery.ids["boat"]
    assert {hit.image_id for hit in response.hits} == {gallery.ids[name] for name in NAMED}


@pytest.mark.parametrize("text", ["🎈", " 🎈\ufe0f 🐈 ", "\u200b"])
@pytest.mark.parametrize("mode", ["image", "caption"])
def test_a_text_without_a_word_is_not_embedded_as_an_empty_one(searcher, text, mode):
    with pytest.raises(QueryError, match="The models read no emoji .*: ask in words"):
        searcher.search(Query(text=text, mode=mode))


def test_a_picture_finds_itself_first(searcher, gallery):
    hit = first(searcher, image=gallery.files["cats"])
    assert hit.image_id == gallery.ids["cats"]
    assert hit.similarity > 0.999


def test_a_picture_file_finds_its_captions_words(searcher, gallery, tmp_path):
    path = tmp_path / "IMG_1.jpg"
    path.write_bytes(gallery.files["house"])
    response = searcher.search(Query(image=path, mode="caption"))
    assert response.hits[0].image_id == gallery.ids["house"]
    assert response.query == "IMG_1.jpg"


@pytest.mark.parametrize("mode", ["image", "caption"])
def test_a_picture_of_the_index_finds_its_like(searcher, gallery, mode):
    response = searcher.search(Query(like=gallery.ids["car"], mode=mode))
    assert response.hits[0].image_id == gallery.ids["car"]
    assert response.lane is None


def test_a_vector_of_the_index_finds_its_picture(searcher, gallery):
    vector = searcher.index.vector(gallery.ids["boat"])
    hit = first(searcher, vector=tuple(vector.tolist()))
    assert hit.image_id == gallery.ids["boat"]
    assert hit.score == pytest.approx((1 + hit.similarity) / 2, abs=1e-5)


def test_exact_search_orders_as_numpy_does(searcher, gallery):
    query = np.random.default_rng(5).normal(size=searcher.profile.dims).astype(np.float32)
    query /= np.linalg.norm(query)
    cosines = {image_id: float(searcher.index.vector(image_id) @ query) for image_id in gallery.ids.values()}
    response = searcher.search(Query(vector=tuple(query.tolist()), k=EVERYTHING, exact=True))
    assert response.num_candidates is None
    assert [hit.similarity for hit in response.hits] == pytest.approx(
        sorted(cosines.values(), reverse=True), abs=1e-5
    )


def test_the_answer_says_what_was_asked_and_found(searcher, gallery):
    response = searcher.search(Query(text="a red boat", k=3)).to_json()
    asked = ["query", "mode", "lane", "k", "num_candidates", "took_ms", "total", "hits"]
    assert list(response) == [*asked, "partial", "shards", "shards_failed", "sort"]
    assert {**response, "took_ms": 0, "hits": []} == {
        "query": "a red boat", "mode": "image", "lane": "local", "k": 3, "num_candidates": 100,
        "took_ms": 0, "total": 3, "hits": [], "partial": False, "shards": 1, "shards_failed": 0,
        "sort": "relevance",
    }  # fmt: skip
    hit = searcher.search(Query(like=gallery.ids["boat"], k=1)).to_json()["hits"][0]
    told = ["image_id", "score", "similarity", "path", "caption", "thumbnail_url", "why", "relevance"]
    assert list(hit) == [*told, "cut_short", "favourite", "width", "height", "film"]
    assert hit["caption"].startswith("a red boat")
    assert hit["thumbnail_url"] == f"/api/v1/images/{gallery.ids['boat']}/thumbnail"


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (Filters(date_from=date(2021, 7, 1), date_to=date(2021, 7, 1)), {"boat"}),
        (Filters(date_from=date(2022, 1, 1)), {"cats"}),
        (Filters(place=(48.9, 2.3, "20km")), {"boat"}),
        (Filters(camera="drawn world brush"), {"cats"}),
        (Filters(tag="sea"), {"boat"}),
        (Filters(tag="Summer Day"), {"boat", "cats"}),
        (Filters(tag="summer"), set()),
        (Filters(path="named/"), set(NAMED)),
        (Filters(path="*/c*.jpg"), {"cats", "car"}),
        (Filters(path="nowhere/"), set()),
    ],
)
@pytest.mark.parametrize("exact", [False, True])
def test_filters_leave_the_pictures_that_pass_them(searcher, gallery, filters, names, exact):
    assert DATES.keys() == {"boat", "cats"}
    response = searcher.search(Query(text="anything", filters=filters, exact=exact))
    assert {hit.image_id for hit in response.hits} == {gallery.ids[name] for name in names}
    assert response.total == len(names)


def test_pages_follow_each_other_without_gap_or_repetition(searcher):
    whole = searcher.search(Query(text="a cat", k=EVERYTHING)).hits
    pages = [searcher.search(Query(text="a cat", k=25, page=page)) for page in (1, 2, 3, 4)]
    assert [len(page.hits) for page in pages] == [25, 25, EVERYTHING - 50, 0]
    assert tuple(hit for page in pages for hit in page.hits) == whole
    assert [page.num_candidates for page in pages] == [100, 100, 200, 200]


def test_num_candidates_is_sent_as_asked_and_grows_with_the_page(searcher):
    assert searcher.prepare(Query(text="a", num_candidates=17)).body["knn"]["num_candidates"] == 17
    deep = searcher.prepare(Query(text="a", num_candidates=17, page=5)).body["knn"]
    assert (deep["k"], deep["num_candidates"]) == (50, 50)


def test_a_search_by_id_is_one_request_without_the_vector(searcher, gallery):
    body = searcher.prepare(Query(like=gallery.ids["boat"])).body
    lookup = {"index": searcher.index.name(), "id": gallery.ids["boat"], "path": "image_embedding"}
    assert body["knn"]["query_vector_builder"] == {"lookup": lookup}
    assert body["_source"] == [
        "relative_path",
        "caption",
        "film",
        "cut_short",
        "width",
        "height",
        "favourite",
    ]


@pytest.mark.parametrize("asked", [{}, {"exact": True}, {"mode": "caption"}])
@pytest.mark.parametrize("unknown", ["0" * 64, "no id/at all", "x" * 600])
def test_an_unknown_image_id_is_not_found(searcher, unknown, asked):
    with pytest.raises(NotFoundError, match="holds no picture with the id"):
        searcher.search(Query(like=unknown, **asked))


def test_a_vector_of_other_dims_is_refused_with_both_numbers(searcher):
    dims = searcher.profile.dims
    with pytest.raises(QueryError, match=f"has 3 dims, and image_embedding of the index has {dims}"):
        searcher.search(Query(vector=(1.0, 0.0, 0.0)))


def test_a_picture_is_not_compared_with_captions_of_another_space(searcher, gallery):
    apart = replace(searcher.profile, caption_text_model=ModelSource("another/model"))
    other = Searcher(index=searcher.index, profile=apart, text_encoder=None, image_encoder=None)
    for asked in ({"like": gallery.ids["boat"]}, {"image": gallery.files["boat"]}):
        with pytest.raises(QueryError, match="use words, or mode image"):
            other.search(Query(mode="caption", **asked))


def test_an_index_of_another_profile_is_refused_with_the_way_out(searcher):
    other = Searcher(
        index=searcher.index,
        profile=replace(searcher.profile, name="clip"),
        text_encoder=None,
        image_encoder=None,
    )
    with pytest.raises(EngineError, match="leave --profile out"):
        other.search(Query(text="a"))


def test_weights_that_an_index_notes_later_are_compared_before_the_next_search(client, index_name):
    profile, texts, images = pocket()
    index = ImageIndex(client, alias=index_name)
    index.create(
        IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity), IndexOptions()
    )
    searcher = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    for _ in range(2):
        assert searcher.search(Query(text="a")).hits == ()
    index.note("revisions", {"text": "sha256:of-others"})
    for _ in range(2):
        with pytest.raises(EngineError, match="made with other weights of profile 'pocket'"):
            searcher.search(Query(text="a"))


def test_a_tuned_operating_point_is_used(client, index_name):
    profile, texts, images = pocket()
    index = ImageIndex(client, alias=index_name)
    points = {"10": {"num_candidates": 37, "oversample": 2.0}}
    meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity, points)
    index.create(meta, IndexOptions())
    tuned = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    section = tuned.prepare(Query(text="a")).body["knn"]
    assert (section["num_candidates"], section["rescore_vector"]) == (37, {"oversample": 2.0})
    chosen = tuned.prepare(Query(text="a", num_candidates=50)).body["knn"]
    assert chosen["num_candidates"] == 50
    assert tuned.prepare(Query(text="a", k=11)).body["knn"]["num_candidates"] == 74
    assert tuned.search(Query(text="a")).hits == ()


def test_a_list_has_every_picture_once_and_those_without_a_date_last(searcher, gallery):
    pages = [searcher.search(Query(sort="newest", k=25, page=page)) for page in (1, 2, 3, 4)]
    ids = [hit.image_id for page in pages for hit in page.hits]
    assert [len(page.hits) for page in pages] == [25, 25, EVERYTHING - 50, 0]
    assert set(ids) == set(gallery.ids.values())
    assert ids[:2] == [gallery.ids["cats"], gallery.ids["boat"]]
    assert {page.total for page in pages} == {EVERYTHING}
    assert {(hit.score, hit.similarity, hit.why) for hit in pages[0].hits} == {(None, None, None)}
    assert (pages[0].query, pages[0].lane, pages[0].num_candidates, pages[0].sort) == (
        "",
        None,
        None,
        "newest",
    )
    oldest = searcher.search(Query(sort="oldest", k=2)).hits
    assert [hit.image_id for hit in oldest] == [gallery.ids["boat"], gallery.ids["cats"]]


def test_filters_alone_list_the_pictures_that_pass(searcher):
    named = Filters(path="named/")
    by_name = searcher.search(Query(filters=named, sort="name"))
    assert [hit.path for hit in by_name.hits] == [f"named/{name}.jpg" for name in sorted(NAMED)]
    assert (by_name.total, searcher.search(Query(filters=named, k=1)).total) == (4, 4)


def test_what_was_added_last_comes_first(client, index_name):
    profile, texts, images = pocket()
    index = ImageIndex(client, alias=index_name)
    meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
    index.create(meta, IndexOptions(shards=2))
    for number, day in enumerate((3, 9, 6)):
        document = {"image_id": f"{number}", "indexed_at": f"2024-01-0{day}", "relative_path": f"{day}.jpg"}
        client.index(index=index_name, id=f"{number}", document=document)
    index.refresh()
    fresh = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    assert [hit.path for hit in fresh.search(Query(sort="added")).hits] == ["9.jpg", "6.jpg", "3.jpg"]
    # Without a single photograph's date or name, nothing is lost either.
    for sort in ("newest", "oldest", "name"):
        assert len(fresh.search(Query(sort=sort)).hits) == 3


@pytest.mark.parametrize("mode", ["image", "hybrid"])
@pytest.mark.parametrize("exact", [False, True])
def test_a_question_in_the_order_of_names_keeps_its_hits_and_scores(searcher, mode, exact):
    asked = {"text": "a red boat", "mode": mode, "exact": exact}
    nearest = searcher.search(Query(k=100, **asked)).hits
    pages = [searcher.search(Query(k=25, page=page, sort="name", **asked)) for page in (1, 2, 3, 4)]
    hits = [hit for page in pages for hit in page.hits]
    assert hits == sorted(nearest, key=lambda hit: hit.path.split("/")[-1])
    assert [page.total for page in pages] == [EVERYTHING] * 4
    newest = searcher.search(Query(k=3, sort="newest", **asked))
    assert [hit.path for hit in newest.hits[:2]] == ["named/cats.jpg", "named/boat.jpg"]
    assert newest.hits[0].similarity is not None


def test_without_an_index_the_sentence_says_how_to_make_one(client):
    profile, texts, images = pocket()
    missing = ImageIndex(client, alias=f"test-{uuid.uuid4()}")
    alone = Searcher(
        index=missing, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    with pytest.raises(EngineError, match="glimpse ingest"):
        alone.search(Query(text="a"))
    with pytest.raises(EngineError, match="glimpse ingest"):
        alone.search(Query(sort="newest"))


class CountingEncoder:
    """A text encoder that remembers its texts and returns the text's length as the vector."""

    revision = "1"
    lane = "infer"

    def __init__(self):
        self.asked = []

    def embed_texts(self, texts):
        """Return float32 `[n, 1]`."""
        self.asked += texts
        return np.array([[len(text)] for text in texts], np.float32)


def test_a_text_is_embedded_once_for_each_model_and_lane():
    encoder = CountingEncoder()
    vectors = TextVectors(Lazy(lambda: encoder))
    assert [vectors.embed("boat")[1] for _ in range(3)] == ["infer"] * 3
    encoder.lane = "local"
    assert vectors.embed("boat")[1] == "local"
    encoder.revision = "2"
    vectors.embed("boat")
    assert encoder.asked == ["boat"] * 3


def test_the_memory_of_texts_is_bounded_and_forgets_the_oldest():
    encoder = CountingEncoder()
    vectors = TextVectors(Lazy(lambda: encoder), size=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        vectors.embed(text)
    assert encoder.asked == ["a", "b", "c", "b"]


def hybrid(searcher, **asked):
    """Return the answer of mode hybrid."""
    return searcher.search(Query(mode="hybrid", **asked))


@pytest.mark.parametrize("exact", [False, True])
def test_hybrid_finds_by_look_and_by_words_and_says_why(searcher, gallery, exact):
    response = hybrid(searcher, text="red boats in the sunshine", k=5, exact=exact)
    first = response.hits[0]
    assert (response.mode, first.image_id) == ("hybrid", gallery.ids["boat"])
    assert first.why == "visual 1st; caption meaning 1st; caption words: red, boats, sunshine"
    assert first.score == pytest.approx(1.25 / 61, abs=1e-6)
    assert first.similarity == pytest.approx(0.436, abs=0.005)
    assert (response.num_candidates, response.total) == (None if exact else 200, 5)


def test_words_of_another_language_meet_no_english_captions(searcher, gallery):
    hit = hybrid(searcher, text="ein blaues Haus in der Wüste bei Nacht", k=1).hits[0]
    assert (hit.image_id, hit.why) == (gallery.ids["house"], "visual 1st; caption meaning 1st")


def test_hybrid_pages_follow_each_other_without_gap_or_repetition(searcher):
    whole = hybrid(searcher, text="a cat", k=10).hits
    pages = [hybrid(searcher, text="a cat", k=5, page=page).hits for page in (1, 2)]
    assert pages[0] + pages[1] == whole
    deep = [hybrid(searcher, text="a cat", k=25, page=page) for page in (1, 2, 3, 4)]
    assert [len(page.hits) for page in deep] == [25, 25, EVERYTHING - 50, 0]
    assert deep[2].total == EVERYTHING


def test_filters_hold_in_every_part_of_hybrid(searcher, gallery):
    response = hybrid(searcher, text="a red boat", filters=Filters(path="named/c*"))
    assert {hit.image_id for hit in response.hits} == {gallery.ids["cats"], gallery.ids["car"]}


@pytest.mark.parametrize("asked", ["like", "image"])
def test_hybrid_takes_pictures_where_they_share_a_space_with_captions(searcher, gallery, asked):
    given = {"like": gallery.ids["car"], "image": gallery.files["car"]}
    first = hybrid(searcher, **{asked: given[asked]}).hits[0]
    assert (first.image_id, first.why) == (gallery.ids["car"], "visual 1st; caption meaning 1st")


def test_hybrid_refuses_what_has_no_place_in_both_spaces(searcher, gallery):
    with pytest.raises(QueryError, match="choose mode image or caption"):
        Query(vector=(1.0,), mode="hybrid")
    with pytest.raises(NotFoundError, match="holds no picture"):
        hybrid(searcher, like="0" * 64)
    apart = replace(searcher.profile, caption_text_model=ModelSource("another/model"))
    other = Searcher(index=searcher.index, profile=apart, text_encoder=None, image_encoder=None)
    with pytest.raises(QueryError, match="use words, or mode image"):
        hybrid(other, image=gallery.files["boat"])


def test_hybrid_embeds_a_text_once_where_the_space_is_shared(searcher):
    class Counting:
        revision, asked = "1", 0

        def embed_texts(self, texts):
            self.asked += 1
            return np.ones((len(texts), searcher.profile.dims), np.float32)

    encoder = Counting()
    own = Searcher(
        index=searcher.index, profile=searcher.profile, text_encoder=Lazy(lambda: encoder), image_encoder=None
    )
    hybrid(own, text="a boat")
    assert encoder.asked == 1


def test_hybrid_without_captions_orders_as_the_pictures_do(searcher):
    only = Filters(path="others/")
    response = hybrid(searcher, text="a tree", filters=only)
    by_look = searcher.search(Query(text="a tree", filters=only))
    assert [hit.image_id for hit in response.hits] == [hit.image_id for hit in by_look.hits]
    assert response.hits[1].why == "visual 2nd"
