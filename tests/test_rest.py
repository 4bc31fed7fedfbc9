"""The REST API: the same answers as the searcher, problem documents, and how the service is."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from gallery import jpeg, pocket
from openapi_core import Config, OpenAPI
from openapi_core.contrib.werkzeug import WerkzeugOpenAPIRequest, WerkzeugOpenAPIResponse
from waiting import used_up
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from demo.world.scene import Group, Scene
from es_config.index import ImageIndex
from models.encoders import Lazy
from models.pixels import REQUESTS
from search_app.core.parts import decode_vector, encode_vector
from search_app.core.query import Query
from search_app.core.searcher import Searcher, SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app

UNSEEN = Scene("sea", "sunset", (Group("boat", "red", 2),), None, 99)


@pytest.fixture(scope="module")
def app(gallery):
    settings = AppSettings(max_upload=200_000)
    return create_app(service=SearchService(gallery.searcher), storage=gallery.storage, settings=settings)


@pytest.fixture
def web(app):
    return app.test_client()


def answer(response) -> dict:
    """Return the JSON of a good answer, without the time it took."""
    assert response.status_code == 200, response.text
    return {**response.json, "took_ms": 0}


def problem(response, status: int) -> str:
    """Return the sentence of a problem document that has this status."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/problem+json"
    assert response.json.keys() == {"type", "title", "status", "detail"}
    assert response.json["status"] == status
    assert "Traceback" not in response.text
    return response.json["detail"]


def test_the_answer_is_the_searchers_answer(web, gallery):
    query = Query(text="a red boat", k=3)
    expected = json.loads(json.dumps({**gallery.searcher.search(query).to_json(), "took_ms": 0}))
    response = web.get("/api/v1/search", query_string={"q": "a red boat", "k": 3})
    assert answer(response) == expected
    assert list(response.json) == list(expected)


def test_ten_hits_are_the_default(web):
    assert len(answer(web.get("/api/v1/search?q=a+cat"))["hits"]) == 10


def test_a_picture_of_the_index_is_its_own_first_hit(web, gallery):
    found = answer(web.get(f"/api/v1/search?like={gallery.ids['boat']}&k=2"))
    assert found["query"] == found["hits"][0]["image_id"] == gallery.ids["boat"]
    assert found["lane"] is None


def test_get_and_post_agree_on_a_vector(web, gallery):
    # An address rounds the numbers, which may change the order of pictures that are as near as each other.
    written = encode_vector(gallery.searcher.index.vector(gallery.ids["cats"]))
    by_address = answer(web.get("/api/v1/search", query_string={"vector": written}))
    by_body = answer(web.post("/api/v1/search", json={"vector": decode_vector(written)}))
    assert by_address == by_body
    assert by_body["hits"][0]["image_id"] == gallery.ids["cats"]


def test_a_json_body_takes_the_same_parameters(web):
    asked = {"q": "a cat", "k": 2, "path": "named/", "exact": True}
    written = {**asked, "exact": "true"}
    by_address = answer(web.get("/api/v1/search", query_string=written))
    assert answer(web.post("/api/v1/search", json=asked)) == by_address


def test_filters_alone_list_the_newest_and_every_list_can_be_sorted(web, gallery):
    newest = answer(web.get("/api/v1/search?tag=summer+day"))
    assert [hit["path"] for hit in newest["hits"]] == ["named/cats.jpg", "named/boat.jpg"]
    assert (newest["query"], newest["sort"], newest["total"]) == ("", "newest", 2)
    assert (newest["hits"][0]["score"], newest["hits"][0]["similarity"]) == (None, None)
    by_body = answer(web.post("/api/v1/search", json={"tag": "summer day", "sort": "oldest", "k": 1}))
    assert [hit["path"] for hit in by_body["hits"]] == ["named/boat.jpg"]
    form = {"q": "", "path": "named/", "sort": "name", "k": "3", "page": "2"}
    assert [hit["path"] for hit in answer(web.post("/api/v1/search", data=form))["hits"]] == [
        "named/house.jpg"
    ]
    assert answer(web.get("/api/v1/search?sort=added&k=1"))["total"] == len(gallery.ids)


def upload(web, data: bytes, **fields):
    """Send a picture as a form does."""
    return web.post("/api/v1/search", data={"image": (io.BytesIO(data), "photo.jpg"), **fields})


def test_a_hybrid_hit_says_why_and_any_other_does_not(web, gallery):
    asked = {"q": "a red boat", "k": 60}
    found = answer(web.get("/api/v1/search", query_string={**asked, "mode": "hybrid"}))
    assert (found["mode"], found["hits"][0]["image_id"]) == ("hybrid", gallery.ids["boat"])
    assert found["hits"][0]["why"] == "visual 1st; caption meaning 1st; caption words: red, boat"
    assert all(hit["why"] for hit in found["hits"])
    assert {hit["why"] for hit in answer(web.get("/api/v1/search", query_string=asked))["hits"]} == {None}


def test_hybrid_takes_an_uploaded_picture_and_no_raw_vector(web, gallery):
    form = {"image": (io.BytesIO(gallery.files["car"]), "car.jpg"), "mode": "hybrid"}
    assert answer(web.post("/api/v1/search", data=form))["hits"][0]["image_id"] == gallery.ids["car"]
    refused = web.post("/api/v1/search", json={"vector": [1.0, 0.0], "mode": "hybrid"})
    assert "choose mode image or caption" in problem(refused, 400)


def test_an_uploaded_picture_finds_itself(web, gallery):
    found = answer(upload(web, gallery.files["car"], k="3"))
    assert found["hits"][0]["image_id"] == gallery.ids["car"]
    assert len(found["hits"]) == 3


@pytest.mark.parametrize(
    "address",
    [
        "?q=", "?q=%20", "", "?q=a&k=0", "?q=a&k=10001", "?q=a&k=ten", "?q=a&num_candidates=5",
        "?q=a&num_candidates=10001", "?q=a&page=0", "?q=a&mode=x", "?sort=relevance", "?q=a&sort=x", "?tag=",
        "?sort=newest&k=100&page=101", "?q=a&colour=red", "?q=a&date_from=x",
        "?q=a&place=1,x", "?q=a&minus=b^0", "?vector=AAAA", "?vector=%3D", f"?q={'x' * 10_000}",
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_a_400_problem(web, address):
    assert problem(web.get(f"/api/v1/search{address}"), 400)


@pytest.mark.parametrize(
    "body", ["", "{", "[]", "null", '"a"', '{"q": 5}', '{"vector": [1, 2]}', '{"k": {}}']
)
def test_a_body_that_makes_no_sense_is_a_400_problem(web, body):
    assert problem(web.post("/api/v1/search", data=body, content_type="application/json"), 400)


def test_a_bad_picture_is_a_400_problem(web):
    assert "not a picture" in problem(upload(web, b"hello"), 400)
    assert "damaged" in problem(upload(web, jpeg(UNSEEN)[:3000]), 400)
    assert "No picture" in problem(upload(web, b""), 400)
    assert "empty" in problem(web.post("/api/v1/search"), 400)


@pytest.mark.parametrize("size", [200_001, 600_000])
def test_an_upload_over_the_limit_is_a_413_problem(web, size):
    assert "0.2 MB" in problem(upload(web, b"x" * size), 413)


def test_a_search_by_picture_without_room_is_a_503_problem_that_says_when(web):
    picture = jpeg(UNSEEN)
    with used_up(REQUESTS.budget):
        response = upload(web, picture)
        assert "Too many pictures are being decoded" in problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0
        assert answer(web.get("/api/v1/search?q=a+boat&k=1"))["hits"]  # words need no room
    assert answer(upload(web, picture))["hits"]


@pytest.mark.parametrize("unknown", ["0" * 64, "nothing"])
def test_an_unknown_id_is_a_404_problem(web, unknown):
    for path in (f"/search?like={unknown}", f"/images/{unknown}", f"/images/{unknown}/thumbnail"):
        assert unknown in problem(web.get(f"/api/v1{path}"), 404)


def test_an_unknown_route_or_method_is_a_problem_too(web):
    assert problem(web.get("/api/v1/nothing"), 404)
    assert problem(web.delete("/api/v1/search"), 405)


def test_metadata_is_what_the_index_knows(web, gallery):
    shown = answer(web.get(f"/api/v1/images/{gallery.ids['boat']}"))
    assert shown["image_id"] == gallery.ids["boat"]
    assert shown["relative_path"] == ["named/boat.jpg"]
    assert shown["exif"]["camera"] == "Drawn World Pencil"
    assert "image_embedding" not in shown


def test_a_thumbnail_is_webp_and_cached_for_long(web, gallery):
    address = f"/api/v1/images/{gallery.ids['boat']}/thumbnail"
    response = web.get(address)
    assert (response.status_code, response.content_type) == (200, "image/webp")
    assert response.data[8:12] == b"WEBP"
    assert "max-age=31536000" in response.headers["Cache-Control"]
    again = web.get(address, headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_service_says_that_it_is_alive_and_ready(web, gallery):
    assert web.get("/healthz").json == {"status": "alive"}
    ready = web.get("/readyz").json
    assert ready == {
        "status": "ready",
        "index": f"{gallery.alias}-pocket-1",
        "images": len(gallery.ids),
        "profile": "pocket",
        "lane": "local",
    }


def test_metrics_count_requests_by_route_and_status(web):
    web.get("/api/v1/search?q=")
    text = web.get("/metrics").text
    assert 'glimpse_requests_total{method="GET",route="/api/v1/search",status="400"}' in text
    assert 'glimpse_request_seconds_count{method="GET",route="/api/v1/search"}' in text


def test_the_openapi_document_is_true(web, gallery):
    """Every answer is checked against the document that the server itself gives."""
    config = Config(extra_media_type_deserializers={"application/problem+json": json.loads})
    document = OpenAPI.from_dict(
        {**web.get("/openapi.json").json, "servers": [{"url": "http://localhost"}]}, config=config
    )
    addresses = {
        "/api/v1/search?q=a+cat": 200,
        "/api/v1/search?q=a+cat&exact=true": 200,
        "/api/v1/search?q=a+cat&mode=hybrid": 200,
        "/api/v1/search?path=named/": 200,
        f"/api/v1/images/{gallery.ids['boat']}": 200,
        "/api/v1/images/nothing": 404,
        "/api/v1/search?like=nothing": 404,
    }
    for address, status in addresses.items():
        response = web.get(address)
        assert response.status_code == status
        request = WerkzeugOpenAPIRequest(Request(EnvironBuilder(path=address).get_environ()))
        document.validate_response(request, WerkzeugOpenAPIResponse(response))


def test_the_openapi_document_names_every_route_and_parameter(web):
    paths = web.get("/openapi.json").json["paths"]
    assert {(path, method) for path, item in paths.items() for method in item if method != "parameters"} == {
        ("/api/v1/search", "get"),
        ("/api/v1/search", "post"),
        ("/api/v1/images/{image_id}", "get"),
        ("/api/v1/images/{image_id}/thumbnail", "get"),
        ("/api/v1/facets", "get"),
        ("/api/v1/suggest", "get"),
        ("/api/v1/images/{image_id}/caption", "put"),
        ("/api/v1/images", "post"),
        ("/api/v1/images/{image_id}/original", "get"),
        ("/api/v1/images/{image_id}/rendering", "get"),
        ("/api/v1/images/{image_id}/film", "get"),
        ("/api/v1/transcribe", "post"),
        ("/api/v1/images/{image_id}/keywords", "put"),
        ("/api/v1/images/{image_id}/favourite", "put"),
        ("/api/v1/images/{image_id}/favourite", "delete"),
        ("/api/v1/images/edit", "post"),
        ("/api/v1/images/export", "post"),
        ("/api/v1/images/{image_id}", "delete"),
        ("/api/v1/images/{image_id}/restore", "post"),
        ("/api/v1/images/hide", "post"),
        ("/api/v1/images/restore", "post"),
        ("/api/v1/hidden", "get"),
        ("/api/v1/duplicates", "get"),
    }
    names = {parameter["name"] for parameter in paths["/api/v1/search"]["get"]["parameters"]}
    assert names >= {"q", "like", "vector", "k", "num_candidates", "mode", "exact"}
    assert names >= {"place", "camera", "tag", "path"}
    problems = paths["/api/v1/search"]["get"]["responses"]["404"]["content"]
    assert list(problems) == ["application/problem+json"]


@pytest.fixture
def unreachable(gallery):
    """A client of an application whose Elasticsearch is gone."""
    from elasticsearch import Elasticsearch

    nobody = Elasticsearch("http://127.0.0.1:9", max_retries=0, request_timeout=2)
    return application_on(ImageIndex(nobody), gallery)


def application_on(index: ImageIndex, gallery):
    """Return a test client of an application on another index."""
    profile, texts, images = pocket()
    searcher = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    return create_app(
        service=SearchService(searcher), storage=gallery.storage, settings=AppSettings()
    ).test_client()


def test_no_elasticsearch_is_a_503_problem_that_says_what_to_do(unreachable, gallery):
    for address in ("/api/v1/search?q=a", f"/api/v1/images/{'0' * 64}", "/readyz"):
        assert "glimpse up" in problem(unreachable.get(address), 503)
    assert unreachable.get("/healthz").status_code == 200
    assert unreachable.get(f"/api/v1/images/{gallery.ids['boat']}/thumbnail").status_code == 200


def test_no_index_is_a_503_problem_that_says_what_to_do(client, gallery, index_name):
    web = application_on(ImageIndex(client, alias=index_name), gallery)
    assert "glimpse ingest" in problem(web.get("/api/v1/search?q=a"), 503)
    assert problem(web.get("/readyz"), 503)


def test_an_index_of_another_profile_is_not_ready(gallery):
    searcher = gallery.searcher
    other = Searcher(
        index=searcher.index,
        profile=replace(searcher.profile, name="clip"),
        text_encoder=None,
        image_encoder=None,
    )
    web = create_app(
        service=SearchService(other), storage=gallery.storage, settings=AppSettings()
    ).test_client()
    assert "leave --profile out" in problem(web.get("/readyz"), 503)


def test_only_trusted_names_are_answered(gallery):
    settings = AppSettings(trusted_hosts=("localhost", "127.0.0.1", "::1"))
    web = create_app(
        service=SearchService(gallery.searcher), storage=gallery.storage, settings=settings
    ).test_client()
    for host in ("localhost:5000", "127.0.0.1:5000", "[::1]:5000"):
        assert web.get("/healthz", headers={"Host": host}).status_code == 200
    assert problem(web.get("/healthz", headers={"Host": "evil.example"}), 400)


def test_an_unexpected_failure_is_a_500_problem_without_its_insides(gallery, caplog):
    class Broken:
        """A searcher that fails in a way that nobody foresaw."""

        def __getattr__(self, name):
            raise RuntimeError("a secret")

    web = create_app(
        service=SearchService(Broken()), storage=gallery.storage, settings=AppSettings()
    ).test_client()
    sentence = problem(web.get("/api/v1/search?q=a"), 500)
    assert "secret" not in sentence
    assert "a secret" in caplog.text


def test_a_refused_method_says_which_are_allowed(web):
    for path, allowed in (
        ("/api/v1/search", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("/", {"GET", "HEAD", "OPTIONS"}),
    ):
        answer = web.delete(path)
        assert answer.status_code == 405
        assert set(answer.headers["Allow"].split(", ")) == allowed
    assert web.delete("/api/v1/search").json["detail"] == "'/api/v1/search' does not answer to DELETE."
    nothing = web.get("/api/v1/nothing").json["detail"]
    assert nothing == "There is no route '/api/v1/nothing'; the page '/docs' lists them."
