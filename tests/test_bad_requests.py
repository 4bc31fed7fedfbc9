"""Requests that cannot be answered are 4xx, and answers say nothing about the server's insides."""

from __future__ import annotations

import http.client
import io
import json
import random
import socket
from urllib.parse import urlsplit

import pytest
from elasticsearch import Elasticsearch
from fuzz_requests import CHECKS, check_quickly, damaged, seeds
from http_fronts import closed_port, proxy, serving
from test_login import sign_in
from test_rest import application_on, problem

from es_config.client import engine_errors
from es_config.errors import EngineError, RefusedQueryError
from es_config.index import ImageIndex
from es_config.requests import Filters, count_stars, filter_clauses, simplified
from models.errors import ModelError
from search_app.core.logs import AuditLog, audit_path
from search_app.core.parts import MAX_DIMS, read_vector
from search_app.core.query import Query, load_query
from search_app.core.searcher import SearchService
from search_app.core.users import Role, UserStore, secret_key, users_path
from search_app.errors import QueryError
from search_app.settings import AppSettings
from search_app.web.app import create_app
from search_app.web.http import FORM_ROOM, MAX_JSON
from search_app.web.login import Login
from storage.errors import StorageError

JSON = "application/json"
PASSWORD = "a long enough password"


@pytest.fixture(scope="module")
def app(gallery):
    settings = AppSettings(max_upload=200_000, trusted_hosts=("localhost",))
    return create_app(service=SearchService(gallery.searcher), storage=gallery.storage, settings=settings)


@pytest.fixture
def web(app):
    return app.test_client()


def post(web, body: str):
    """Send a search as a JSON body."""
    return web.post("/api/v1/search", data=body, content_type=JSON)


@pytest.mark.parametrize("depth", [500, 1_000, 5_000, 60_000])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"q":', "}")])
def test_json_nested_ever_so_deep_is_a_400_problem(web, gallery, depth, left, right):
    deep = left * depth + "1" + right * depth
    for response in (
        post(web, deep[: MAX_JSON - 1]),
        web.put(f"/api/v1/images/{gallery.ids['boat']}/caption", data=deep[:MAX_JSON], content_type=JSON),
    ):
        assert problem(response, 400)


def test_a_vector_of_any_dims_fits_as_text_and_more_is_a_413_problem(web):
    longest = ", ".join(["-1.2345678901234567e-05"] * MAX_DIMS)
    refused = problem(post(web, f'{{"vector": [{longest}], "path": {json.dumps("😀" * 1_000)}}}'), 400)
    assert f"{MAX_DIMS} dims" in refused  # it was read: the index has fewer
    many = "{" + ",".join(f'"k{number}": 1' for number in range(30_000)) + "}"
    assert f"{MAX_JSON} bytes" in problem(post(web, many), 413)
    caption = json.dumps({"caption": "a" * MAX_JSON})
    assert problem(web.put("/api/v1/images/x/caption", data=caption, content_type=JSON), 413)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://["}, {"Origin": "http://[::1"}, {"Origin": "null"}, {"Host": "["},
        {"Host": "[::1"}, {"Host": "a:b:c"}, {"Host": ""}, {"Host": "localhost:99999999"}, {"Host": "é"},
        {"Range": "bytes=9-1"}, {"Range": "x"}, {"If-None-Match": '"'}, {"If-Modified-Since": "yesterday"},
        {"Content-Type": "multipart/form-data"}, {"Content-Type": "multipart/form-data; boundary=\xff"},
        {"Content-Type": "application/json; charset=rot13"}, {"Content-Type": ";;;"},
        {"Authorization": "Bearer"}, {"Authorization": "Basic x"}, {"Authorization": "\xff"},
        {"Cookie": "glimpse=\xff; ;;=="}, {"Accept": "q=;"}, {"Sec-Fetch-Site": "?"},
    ],
    ids=str,
)  # fmt: skip
def test_odd_headers_are_no_failure_of_the_server(web, gallery, headers):
    paths = (
        "/",
        "/api/v1/search?q=a",
        f"/api/v1/images/{gallery.ids['boat']}/thumbnail",
        "/static/page.css",
    )
    answers = [web.get(path, headers=headers) for path in paths]
    answers += [web.post(path, headers=headers, data=b"x") for path in ("/picture", "/api/v1/search")]
    answers += [web.post(path, headers=headers, data=b"x") for path in ("/api/v1/images", "/add")]
    assert [answer.status_code for answer in answers if answer.status_code >= 500] == []
    for answer in answers:
        answer.close()


@pytest.mark.parametrize("distance", ["0km", "0.0m", "9e26km", "999999999999999999999999999km", "20101km"])
def test_a_distance_of_nothing_or_beyond_the_earth_is_a_400_problem(web, distance):
    assert "place" in problem(web.get(f"/api/v1/search?q=a&place=0,0,{distance}"), 400)


@pytest.mark.parametrize("distance", ["20100km", "0.0000001m", "12000mi", "10nmi"])
def test_every_distance_on_earth_is_answered(web, distance):
    assert web.get(f"/api/v1/search?q=a&place=0,0,{distance}").status_code == 200


@pytest.mark.parametrize(
    "number", ["3e38", "1e39", "1e-320", "1e-30", "1e400", "0", "-0.0", "NaN", "-Infinity"]
)
def test_a_vector_without_a_length_that_counts_is_a_400_problem(web, gallery, number):
    dims = gallery.searcher.profile.dims
    for mode in ("image", "caption"):
        body = f'{{"mode": "{mode}", "vector": [{", ".join([number] * dims)}]}}'
        assert "vector" in problem(post(web, body), 400)


@pytest.mark.parametrize("number", ["1e16", "1e-16", "-1", "5"])
def test_a_vector_of_any_sound_length_is_answered(web, gallery, number):
    body = f'{{"vector": [{", ".join([number] * gallery.searcher.profile.dims)}]}}'
    assert post(web, body).status_code == 200


@pytest.mark.parametrize("letter", ["\ufdfa", "中", "a"])
@pytest.mark.parametrize("mode", ["hybrid", "words"])
def test_a_word_as_long_as_a_query_may_be_is_answered(web, letter, mode):
    """Elasticsearch reads the first letter as eighteen, each of the second as a word."""
    answer = web.get("/api/v1/search", query_string={"q": 1000 * letter, "mode": mode})
    assert answer.status_code == 200, answer.json["detail"]


def test_runs_of_wildcards_are_written_as_short_as_possible():
    assert simplified("**/*?**x") == "*/?*x"
    assert simplified(r"a\**") == r"a\**"  # a star that stands for itself, and one for anything
    assert (count_stars("*" * 1_000), count_stars(r"\*\*"), count_stars("a?b*c*")) == (1, 0, 2)
    assert filter_clauses(Filters(path="a**b")) == [
        {
            "bool": {
                "should": [
                    {"wildcard": {"names.path": {"value": "a*b"}}},
                    {"wildcard": {"relative_path": {"value": "a*b"}}},
                ],
                "minimum_should_match": 1,
            }
        }
    ]


def test_a_pattern_has_at_most_16_stars(web, gallery):
    assert Query(text="a", filters=Filters(path="*a" * 16))
    for path in ("*a" * 17, "*a" * 500):
        assert "at most 16" in problem(web.get("/api/v1/search", query_string={"q": "a", "path": path}), 400)
    found = web.get("/api/v1/search", query_string={"q": "a", "path": f"{'*' * 500}boat.jpg"})
    assert [hit["image_id"] for hit in found.json["hits"]] == [gallery.ids["boat"]]


@pytest.mark.parametrize(
    "name", ["q", "like", "camera", "tag", "path", "mode", "place", "vector", "k", "\ud800"]
)
def test_half_a_surrogate_pair_is_a_400_problem(web, name):
    assert problem(post(web, json.dumps({"q": "a", name: "\ud800"})), 400)


def test_a_form_field_over_its_room_is_named(web):
    for path, field in (("/api/v1/search", "note"), ("/picture", "a b")):
        form = {field: "x" * (FORM_ROOM + 1), "image": (io.BytesIO(b"x"), "a.jpg")}
        response = web.post(path, data=form)
        assert response.status_code == 413
        assert f"The field '{field}' of the form is over its room" in response.text.replace("&#39;", "'")


def test_a_form_of_too_many_fields_and_a_body_over_the_limit_say_so(web):
    many = {f"f{number}": "x" for number in range(1_001)}
    assert "too many fields" in problem(
        web.post("/api/v1/search", data={**many, "image": (io.BytesIO(b"x"), "a")}), 413
    )
    large = {"image": (io.BytesIO(b"x" * 600_000), "a.jpg")}
    assert "The picture is over the limit" in problem(web.post("/api/v1/search", data=large), 413)
    response = web.post(
        "/api/v1/search", data="q=" + "x" * 600_000, content_type="application/x-www-form-urlencoded"
    )
    assert "The request is over the limit" in problem(response, 413)


def test_controls_that_turn_the_direction_of_a_caption_are_removed(own_gallery):
    service = SearchService(own_gallery.searcher)
    web = create_app(service=service, storage=own_gallery.storage, settings=AppSettings()).test_client()
    address = f"/api/v1/images/{own_gallery.ids['boat']}/caption"
    for control in "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x00\x7f":
        assert web.put(address, json={"caption": f"two{control}boats"}).json["caption"] == "two boats"
    assert web.put(address, json={"caption": "قاربان"}).json["caption"] == "قاربان"
    assert problem(web.put(address, json={"caption": "\u202e\u2066"}), 400)


@pytest.mark.parametrize(
    "path", ["/static//x", "/static//\\evil.example", "//static//evil.example/..", "///static//x?a=b"]
)
def test_no_redirect_repeats_a_foreign_host(gallery, path):
    web = create_app(
        service=SearchService(gallery.searcher), storage=gallery.storage, settings=AppSettings()
    ).test_client()
    response = web.get(path, headers={"Host": "evil.example"})
    location = response.headers.get("Location", "/")
    assert "http://evil.example" not in response.text
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))


FAULTS = {
    "parsing_exception": 400, "illegal_argument_exception": 400, "too_many_clauses": 413,
    "query_shard_exception": 400,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "status"), FAULTS.items())
@pytest.mark.parametrize("mode", ["image", "hybrid"])
def test_what_elasticsearch_does_not_accept_is_a_400_problem_with_its_reason(
    node, gallery, kind, status, mode
):
    cause = {"type": kind, "reason": "no such thing"}
    error = {"type": "search_phase_execution_exception", "reason": "all shards failed", "root_cause": [cause]}
    body: dict = {"error": {**error, "failed_shards": [{"shard": 0, "reason": cause}]}, "status": status}

    def decide(_method: str, path: str) -> tuple[int, bytes] | None:
        if "_msearch" in path:
            return 200, json.dumps({"took": 1, "responses": [body, body, body]}).encode()
        return (status, json.dumps(body).encode()) if "_search" in path else None

    with proxy(node.url, decide) as url, Elasticsearch(url) as client:
        web = application_on(ImageIndex(client, alias=gallery.alias), gallery)
        sentence = problem(web.get(f"/api/v1/search?q=a&mode={mode}"), 400)
        assert sentence == "The search engine does not accept the query (no such thing): change it."


def test_an_overloaded_elasticsearch_is_a_503_problem_with_a_time_to_wait(node, gallery):
    error = {"type": "es_rejected_execution_exception", "reason": "queue is full"}
    full = 429, json.dumps({"error": error, "status": 429}).encode()
    with (
        proxy(node.url, lambda _, path: full if "_search" in path else None) as url,
        Elasticsearch(url) as client,
    ):
        web = application_on(ImageIndex(client, alias=gallery.alias), gallery)
        response = web.get("/api/v1/search?q=a")
        assert "overloaded" in problem(response, 503)
        assert int(response.headers["Retry-After"]) > 0


PAGE = b"<html><head><title>413 Request Entity Too Large</title></head><body><h1>nginx</h1></body></html>"


def test_a_proxy_that_answers_html_is_one_sentence_without_html(node, gallery):
    for status, expected in (
        (413, "client_max_body_size"),
        (418, "answered 418 (413 Request Entity Too Large)"),
    ):
        with (
            proxy(
                node.url, lambda _, path, status=status: (status, PAGE) if "_search" in path else None
            ) as url,
            Elasticsearch(url) as client,
            pytest.raises(EngineError) as caught,
        ):
            ImageIndex(client, alias=gallery.alias).search({"size": 1})
        assert expected in str(caught.value)
        assert "<" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_closed_index_says_how_to_open_it(node, gallery):
    closed = {"type": "index_closed_exception", "reason": "closed", "index": "images-pocket-1"}
    body = 400, json.dumps({"error": {**closed, "root_cause": [closed]}, "status": 400}).encode()
    with (
        proxy(node.url, lambda _, path: body if "_search" in path else None) as url,
        Elasticsearch(url) as client,
    ):
        with pytest.raises(
            EngineError, match=r"is closed: open it with `POST images-pocket-1/_open`\.$"
        ) as caught:
            ImageIndex(client, alias=gallery.alias).search({"size": 1})
        assert not isinstance(caught.value, RefusedQueryError)
        web = application_on(ImageIndex(client, alias=gallery.alias), gallery)
        sentence = problem(web.get("/api/v1/search?q=a"), 503)
        assert "closed" in sentence
        assert "images-pocket-1" not in sentence


def test_the_real_engine_refuses_a_query_as_the_callers_mistake(client, gallery):
    for query in (
        {"nonsense": {}},
        {"geo_distance": {"distance": "0km", "exif.location": "0,0"}},
        {"knn": {"field": "image_embedding", "query_vector": [3e38] * 128, "k": 1}},
    ):
        with pytest.raises(RefusedQueryError):
            ImageIndex(client, alias=gallery.alias).search({"query": query})
    with pytest.raises(RefusedQueryError), engine_errors():
        client.search(index=gallery.alias, from_=20_000)


SECRET = "/home/somebody/secret place"


class Failing:
    """A store and an index that fail with the operator's sentence."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name):
        raise self._error


@pytest.fixture
def users(tmp_path):
    store = UserStore(users_path(tmp_path / "home"))
    for name, role in (("vera", Role.VIEWER), ("olga", Role.OWNER)):
        store.add(name, role, PASSWORD)
    return store


ERRORS = [EngineError(SECRET), StorageError(SECRET), ModelError(SECRET)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_visitors_read_no_path_and_the_log_and_owners_do(gallery, users, tmp_path, caplog, error):
    searcher = replace_index(gallery, Failing(error))
    parts = {"service": SearchService(searcher), "storage": Failing(error), "settings": AppSettings()}
    paths = ("/", "/?q=a", "/images/x", "/api/v1/search?q=a", f"/api/v1/images/{'0' * 64}/thumbnail")
    web = create_app(**parts).test_client()
    for path in paths:
        if path == "/" and not isinstance(error, EngineError):
            continue
        response = web.get(path)
        assert response.status_code == 503, path
        assert SECRET not in response.text
    assert caplog.text.count(SECRET) == 1  # each request has it, and the log would only grow
    assert SECRET in web.get("/readyz").json["detail"]  # for the operator's programs
    audit = AuditLog(audit_path(tmp_path), warn=lambda _: None)
    app = create_app(**parts, login=Login(users, audit, secret_key(tmp_path)))
    for name, is_told in (("vera", False), ("olga", True)):
        browser = sign_in(app, name, PASSWORD)
        for path in ("/?q=a", "/readyz"):
            assert (SECRET in browser.get(path).text) == is_told
    audit.close()


def replace_index(gallery, index):
    """Return the gallery's searcher with another index."""
    from search_app.core.searcher import Searcher

    former = gallery.searcher
    return Searcher(
        index=index,
        profile=former.profile,
        text_encoder=former.texts.encoder,
        image_encoder=former.image_encoder,
    )


def test_the_address_of_elasticsearch_is_the_operators(gallery):
    with closed_port() as port, Elasticsearch(f"http://127.0.0.1:{port}", max_retries=0) as nobody:
        web = application_on(ImageIndex(nobody, alias=gallery.alias), gallery)
        for path in ("/", "/?q=a", "/api/v1/search?q=a"):
            assert f":{port}" not in web.get(path).text


def test_a_file_of_a_vector_that_is_nested_too_deeply_is_a_sentence():
    with pytest.raises(QueryError, match="not a vector"):
        read_vector(b"[" * 100_000)


def test_the_document_tells_the_errors_of_every_route(web):
    document = web.get("/openapi.json", headers={"Host": "localhost"}).json
    for path, methods in document["paths"].items():
        operations = {name: each for name, each in methods.items() if name in ("get", "post", "put")}
        for method, operation in operations.items():
            statuses = set(operation["responses"])
            assert statuses >= {"400", "401", "403", "503"}, (method, path)
            assert ("413" in statuses) == (method in ("post", "put")), (method, path)
            for status in statuses - {"200", "201", "default"}:
                assert list(operation["responses"][status]["content"]) == ["application/problem+json"]
                assert operation["responses"][status]["description"]


def test_the_real_server_answers_odd_bytes_in_paths_and_queries(app):
    with serving(app) as address:
        place = urlsplit(address)
        for path in (
            "/%ff%fe", "/%00", "/api/v1/search?q=%ff", "/api/v1/images/%ed%a0%80", "/static/%ff", "/?%ff=%ff",
            "/api/v1/images/%0d%0aX:%20y/original", "/images/%f0%9f%98%80", "/%e2%80%ae",
        ):  # fmt: skip
            connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
            connection.request("GET", path, headers={"Host": "localhost"})
            assert connection.getresponse().status < 500, path
            connection.close()


@pytest.mark.parametrize("body", ["-1\r\n", "0x5\r\nabcde\r\n0\r\n\r\n", "5;a\nx\r\nabcde\r\n0\r\n\r\n"])
def test_chunks_that_are_not_written_as_http_wants_are_the_clients_mistake(app, body):
    with serving(app) as address:
        place = urlsplit(address)
        with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
            header = "POST /api/v1/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(f"{header}{body}".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_sender_who_goes_away_half_way_leaves_the_server_well(app):
    with serving(app) as address:
        place = urlsplit(address)
        for _ in range(3):
            with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
                connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\nabc")
        connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
        connection.request("GET", "/healthz", headers={"Host": "localhost"})
        assert connection.getresponse().status == 200
        connection.close()


# werkzeug leaves the files of a form that it refuses half-way to be collected.
@pytest.mark.filterwarnings("ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("target", CHECKS)
def test_damaged_requests_are_read_or_refused_in_a_sentence(target):
    for seed in seeds(target):
        check_quickly(target, seed)
    for number in range(150):
        check_quickly(target, damaged(target, random.Random(number)))


@pytest.mark.parametrize(
    "arguments",
    [{"a\n": 1}, {"q": "x", "mode": "a\nb"}, {"q": "x", "min_relevance": "\x1b"}, {"place": "1\n"}],
)
def test_a_sentence_that_repeats_what_was_asked_is_one_line(arguments):
    with pytest.raises(QueryError) as refused:
        load_query(arguments)
    assert str(refused.value).isprintable()
