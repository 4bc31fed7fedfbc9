"""Strong, weak and none: the bar of each query, its fit, and its display."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import gallery as drawn
import numpy as np
import pytest
from click.testing import CliRunner
from http_fronts import proxy

from demo.world.scene import sample
from es_config.aliases import Alias
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.index import ImageIndex
from es_config.relevance import Calibration, comparable, read_calibration, scores_of
from es_config.scan import read_sample
from evaluation.calibrate import (
    QueryScores,
    about,
    area,
    fit,
    make_phrases,
    read_vocabulary,
    scramble,
    shares,
    stem_of,
)
from evaluation.errors import EvaluationError
from glimpse import main
from models.encoders import Lazy
from search_app.core.compose import VectorSample
from search_app.core.query import Query
from search_app.core.searcher import Evidence, Marks, Searcher, SearchService
from search_app.errors import QueryError
from search_app.settings import AppSettings
from search_app.web.app import create_app
from training.pocket.sentences.grammar import caption
from training.pocket.sentences.statements import full

CAPTIONS = ["a red boat at sea", "two boats in the rain", "a blue house", "houses in the rain", "a cat"] * 3


@pytest.fixture(scope="module")
def captioned(client):
    """The gallery's pictures, each with a caption, behind an alias of their own."""
    index = ImageIndex(client, alias=f"test-{uuid.uuid4()}")
    profile, _, _ = drawn.pocket()
    index.create(
        IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity), IndexOptions()
    )
    index.add([_document(name, *row) for name, row in drawn._embedded().items()])
    index.refresh()
    yield index
    index.delete()


def _document(name, said, image_vector, caption_vector) -> ImageDocument:
    plain = drawn._document(name, said, image_vector, caption_vector)
    return replace(plain, caption=said, caption_embedding=caption_vector, indexed_at=datetime.now(UTC))


@pytest.fixture(scope="module")
def calibrated(captioned, node):
    """The output of `glimpse calibrate` for the captioned pictures, with its figures in the index."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELASTICSEARCH_URL", node.url)
        patch.setenv("GLIMPSE_INDEX", captioned.alias)
        done = CliRunner().invoke(main, ["calibrate", "--false-positive-rate", "0.015"])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def searcher(captioned, client, calibrated):
    assert calibrated
    profile, texts, images = drawn.pocket()
    index = ImageIndex(client, alias=captioned.alias)  # it has not yet believed a `_meta` without bars
    return Searcher(
        index=index,
        profile=profile,
        text_encoder=Lazy(lambda: texts),
        image_encoder=Lazy(lambda: images),
        marks=Marks(VectorSample(index)),
    )


def test_a_bar_with_weights_is_a_gap_test_or_a_z_score():
    gap = Calibration(mean=1, deviation=0, strong=0.3, weak=0.2)
    assert gap.marks([0.45, 0.35, 0.25], 0.1, 0.05) == ["strong", "weak", "none"]
    z = Calibration(mean=1, deviation=4, strong=0, weak=-0.1)
    assert z.marks([0.31, 0.29, 0.19], 0.1, 0.05) == ["strong", "weak", "none"]
    assert z.bars(0.1, 0.05) == pytest.approx((0.2, 0.3))
    assert read_calibration({"image": gap.as_dict()}, "image") == gap
    assert read_calibration({"image": {"mean": 1}}, "image") is None
    assert read_calibration({}, "image") is None


@pytest.mark.parametrize(
    ("similarity", "scores"),
    [
        ("cosine", [1.0, 0.0]),
        ("dot_product", [6.0, 0.0]),
        ("max_inner_product", [6.0, 0.0]),
        ("l2_norm", [-1.0, -np.sqrt(8)]),
    ],
)
def test_scores_are_the_higher_the_nearer_whatever_the_similarity(similarity, scores):
    vectors = comparable(np.array([[3, 0], [0, 2]], np.float32), similarity)
    assert scores_of(np.array([[2, 0]], np.float32), vectors, similarity)[0] == pytest.approx(scores)


def test_words_name_things_when_some_pictures_have_them_and_not_too_many():
    vocabulary = read_vocabulary(CAPTIONS)
    assert {"red", "blue", "cat", "two", "sea"} <= vocabulary.things
    assert vocabulary.common == {"a", "the", "in", "rain", "boat", "hous"}
    assert stem_of("boats") == stem_of("boat") == "boat"
    assert vocabulary.holding("a red cat") == set()
    assert vocabulary.holding("the blue house") == {2, 7, 12}
    assert about("the red boat", 0, vocabulary).stem == "red"
    assert about("zebras", 0, vocabulary) is None
    phrases = make_phrases(CAPTIONS, vocabulary, size=30)
    assert len({(phrase.text, phrase.stem) for phrase in phrases}) == len(phrases) >= 6
    assert all(phrase.stem in map(stem_of, phrase.text.split()) for phrase in phrases)


def test_nonsense_has_the_letters_of_the_words_in_another_order():
    assert sorted(scramble("a red boat", Random(1)).replace(" ", "")) == sorted("aredboat")


def scored(rng, n, shift):
    """Return queries whose background differs from one to the next, with best hits `shift` deviations up."""
    mean, deviation = rng.normal(0, 0.2, n), rng.uniform(0.05, 0.2, n)
    return QueryScores(mean + deviation * (3 + shift + rng.normal(0, 0.5, n)), mean, deviation)


def test_the_fitted_bar_keeps_its_rate_on_queries_that_it_has_not_seen():
    rng = np.random.default_rng(3)
    bars = fit(scored(rng, 1500, 3), scored(rng, 1500, 0), rate=0.01, sample=512)
    unanswered, answered = shares(bars, scored(rng, 20_000, 0)), shares(bars, scored(rng, 20_000, 3))
    assert unanswered["strong"] == pytest.approx(0.01, abs=0.008)
    assert answered["weak"] >= 0.96
    assert unanswered["weak"] == pytest.approx(0.1, abs=0.03)
    one_cut_off = area(scored(rng, 2000, 3).best, scored(rng, 2000, 0).best)
    assert one_cut_off < 0.95  # no cut-off on the score alone tells these apart


def test_what_cannot_be_fitted_is_said():
    rng = np.random.default_rng(3)
    with pytest.raises(EvaluationError, match="A rate of 0.01 needs 149 queries"):
        fit(scored(rng, 100, 3), scored(rng, 100, 0), rate=0.01, sample=512)
    with pytest.raises(EvaluationError, match="score no higher"):
        fit(scored(rng, 300, 0), scored(rng, 300, 3), rate=0.01, sample=512)


def test_the_sample_is_fixed_and_has_the_vectors_as_they_were_sent(captioned, client):
    fields = ["image_embedding", "caption_embedding"]
    found = read_sample(client, captioned.alias, fields=fields, size=20, source=["caption"])
    again = read_sample(client, captioned.alias, fields=fields[:1], size=20)
    assert found.ids == again.ids == tuple(sorted(found.ids))
    assert len(found.ids) == 20
    sent = {drawn._document(name, *row).image_id: row for name, row in drawn._embedded().items()}
    for row, image_id in enumerate(found.ids):
        said, picture, caption = sent[image_id]
        assert found.sources[row]["caption"] == said
        assert found.vectors["image_embedding"][row] == pytest.approx(picture, abs=1e-6)
        assert found.vectors["caption_embedding"][row] == pytest.approx(caption, abs=1e-6)


def test_calibrating_says_what_it_found_and_notes_it(calibrated, captioned, client):
    assert "image: " in calibrated
    assert "unanswered queries:" in calibrated
    noted = ImageIndex(client, alias=captioned.alias).meta().relevance
    bars = read_calibration(noted, "image")
    assert bars.figures["false_positive_rate"] == 0.015
    assert bars.figures["answered"]["weak"] > 0.9
    assert bars.weak <= bars.strong
    assert set(noted) == {"image", "caption"}


@pytest.fixture(scope="module")
def unanswered(searcher):
    """Sentences of scenes that no picture shows, with the hits of each."""
    shown = [scene for scene, _ in drawn.pictures().values()]
    asked = [scene for scene in sample("test", 40) if not any(full(scene).holds(each) for each in shown)]
    texts = [caption(scene, "en", Random(scene.key)) for scene in asked]
    return {text: searcher.search(Query(text=text, k=24)) for text in texts}


def test_pictures_that_fit_are_marked_and_those_that_do_not_are_not(searcher, unanswered):
    shown = [scene for scene, _ in drawn.pictures().values()][:40]
    texts = [caption(scene, "fr", Random(scene.key)) for scene in shown]
    answered = [searcher.search(Query(text=text, k=24)) for text in texts]
    assert np.mean([response.nothing_good for response in answered]) <= 0.05
    assert np.mean([response.nothing_good for response in unanswered.values()]) >= 0.6
    assert np.mean([response.hits[-1].relevance == "none" for response in answered]) >= 0.9


def test_a_hybrid_hit_is_good_when_its_caption_holds_all_words(searcher):
    hits = searcher.search(Query(text="a red boat at sea on a sunny day", mode="hybrid", k=24)).hits
    assert hits[0].relevance == "strong"
    word = next(word for hit in hits for word in hit.caption.split() if len(word) > 4)
    found = searcher.search(Query(text=word, mode="hybrid", k=24)).hits
    told = [hit for hit in found if f"caption words: {word}" in hit.why]
    assert told
    assert all(hit.relevance in ("weak", "strong") for hit in told)


def test_only_words_are_judged(searcher):
    boat = searcher.search(Query(text="a red boat", k=1)).hits[0].image_id
    assert searcher.search(Query(like=boat, k=1)).hits[0].relevance is None


def test_min_relevance_leaves_lower_hits_out_and_the_total_says_so(searcher):
    text = "a red boat at sea on a sunny day"
    every = searcher.search(Query(text=text, k=20))
    good = searcher.search(Query(text=text, k=20, min_relevance="weak"))
    assert [hit for hit in every.hits if hit.relevance != "none"] == list(good.hits)
    assert good.total == len(good.hits) < every.total == 20
    with pytest.raises(QueryError, match="min_relevance is strong or weak, not 'none'"):
        Query(text="a boat", min_relevance="none")
    with pytest.raises(QueryError, match="Only hits of queries in words are marked"):
        Query(like="x", min_relevance="weak")


def test_sorted_hits_are_those_that_fit_unless_none_does(searcher, unanswered):
    nearest = searcher.search(Query(text="a boat", k=100))
    fitting = {hit.image_id for hit in nearest.hits if hit.relevance != "none"}
    assert 0 < len(fitting) < len(nearest.hits)
    by_name = searcher.search(Query(text="a boat", k=100, sort="name"))
    assert ({hit.image_id for hit in by_name.hits}, by_name.total) == (fitting, len(fitting))
    texts = [text for text, response in unanswered.items() if response.nothing_good]
    every = [searcher.search(Query(text=text, k=100)) for text in texts]
    text, total = next((each.query, each.total) for each in every if each.nothing_good)
    nothing = searcher.search(Query(text=text, k=5, sort="name"))
    assert (nothing.nothing_good, len(nothing.hits), nothing.total) == (True, 5, total)


def test_an_index_that_was_not_calibrated_marks_nothing(gallery):
    plain = Marks(VectorSample(gallery.searcher.index, read=lambda *_: pytest.fail("no sample is needed")))
    hits = gallery.searcher.search(Query(text="a red boat")).hits
    vector = gallery.searcher.texts.embed("a red boat")[0]
    marked = plain.marked(Query(text="a red boat"), hits, vector_of=lambda _: vector, evidence=Evidence())
    assert marked == hits
    with pytest.raises(QueryError, match="not calibrated .* run `glimpse calibrate`"):
        gallery.searcher.search(Query(text="a red boat", min_relevance="weak"))


def test_the_page_says_that_nothing_good_was_found_and_offers_the_nearest(searcher, gallery, unanswered):
    text = next(text for text, response in unanswered.items() if response.nothing_good)
    web = create_app(
        service=SearchService(searcher), storage=gallery.storage, settings=AppSettings()
    ).test_client()
    page = web.get("/", query_string={"q": text}).text
    assert "Nothing good found" in page
    assert "nearest anyway" in page
    assert page.count('class="card faint ') == 24
    assert "Nothing good found" not in web.get("/?q=a+red+boat+at+sea").text
    assert (
        "No picture is marked strong."
        in web.get("/", query_string={"q": text, "min_relevance": "strong"}).text
    )
    answer = web.get("/api/v1/search", query_string={"q": text, "min_relevance": "weak"}).json
    assert (answer["total"], answer["hits"]) == (0, [])
    assert web.get("/api/v1/search?q=a+red+boat&k=1").json["hits"][0]["relevance"] in ("strong", "weak")


def test_what_was_learned_is_noted_where_it_was_learned_though_the_alias_was_switched(
    client, index_name, node, monkeypatch
):
    profile, _, _ = drawn.pocket()
    meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
    index, alias = ImageIndex(client, alias=index_name), Alias(client, alias=index_name)
    former = index.create(meta, IndexOptions())
    index.add([_document(name, *row) for name, row in drawn._embedded().items()])
    index.refresh()
    alias.begin(meta, IndexOptions())

    def switching(_method: str, path: str) -> None:
        if "search" in path and alias.behind(alias.former) is None:
            alias.switch()

    with proxy(node.url, switching) as url:
        monkeypatch.setenv("ELASTICSEARCH_URL", url)
        done = CliRunner().invoke(
            main, ["calibrate", "--index", index_name, "--false-positive-rate", "0.015"]
        )
    assert done.exit_code == 0, done.output
    assert f"Noted in {former}." in done.stderr
    assert ImageIndex(client, alias=alias.former).meta().relevance
    assert ImageIndex(client, alias=index_name).meta().relevance == {}


def test_an_index_without_captions_cannot_be_calibrated(client, index_name, node, monkeypatch):
    profile, _, _ = drawn.pocket()
    ImageIndex(client, alias=index_name).create(
        IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity), IndexOptions()
    )
    monkeypatch.setenv("ELASTICSEARCH_URL", node.url)
    done = CliRunner().invoke(main, ["calibrate", "--index", index_name])
    assert done.exit_code == 1
    assert f"has no captions to learn from: run `glimpse caption --index {index_name}` first" in done.stderr


@pytest.fixture
def blind(client, index_name):
    """Captioned pictures whose own vectors say the contrary of their captions."""
    index = ImageIndex(client, alias=index_name)
    profile, _, _ = drawn.pocket()
    index.create(
        IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity), IndexOptions()
    )
    rows = drawn._embedded().items()
    index.add([_document(name, said, -caption, caption) for name, (said, _, caption) in rows])
    index.refresh()
    return index


def test_where_only_captions_tell_the_captions_are_calibrated(blind, node):
    done = CliRunner(env={"ELASTICSEARCH_URL": node.url}).invoke(
        main, ["calibrate", "--index", blind.alias, "--false-positive-rate", "0.015"]
    )
    assert done.exit_code == 0, done.output
    assert "image: not calibrated. Queries that have answers score no higher" in done.stderr
    assert set(ImageIndex(blind._client, alias=blind.alias).meta().relevance) == {"caption"}


def test_an_index_is_calibrated_by_itself_and_again_when_it_has_doubled(
    client, index_name, node, monkeypatch
):
    monkeypatch.setenv("ELASTICSEARCH_URL", node.url)
    monkeypatch.setattr("evaluation.calibrate.FEWEST_CAPTIONS", 30)
    monkeypatch.setattr("evaluation.calibrate.RATE", 0.05)
    index = ImageIndex(client, alias=index_name)
    profile, _, _ = drawn.pocket()
    index.create(
        IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity), IndexOptions()
    )
    documents = [_document(name, *row) for name, row in drawn._embedded().items()]

    def caption_up_to(count: int) -> dict:
        index.add(documents[:count])
        index.refresh()
        done = CliRunner().invoke(main, ["caption", "--index", index_name])
        assert done.exit_code == 0, done.output
        return ImageIndex(client, alias=index_name).meta().relevance

    assert caption_up_to(29) == {}
    first = caption_up_to(30)
    assert first["image"]["figures"]["images"] == 30
    assert caption_up_to(59) == first
    assert caption_up_to(60)["image"]["figures"]["images"] == 60
