"""Signing in: roles, tokens, sessions that end, foreign pages, limits and the audit log."""

from __future__ import annotations

import io
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import pytest
from argon2 import DEFAULT_PARALLELISM, DEFAULT_TIME_COST, PasswordHasher, extract_parameters
from flask import Flask
from flask.testing import FlaskClient
from gallery import Gallery

from es_config.overview import Overview, read_overview
from ingest.duplicates import read_duplicates
from ingest.hiding import Remover
from ingest.history.ingested_files import IngestHistory
from search_app.core.logs import AuditLog, audit_path
from search_app.core.searcher import SearchService
from search_app.core.users import Role, UserStore, secret_key, users_path
from search_app.errors import UserError
from search_app.settings import AppSettings
from search_app.web.app import create_app
from search_app.web.hosts import BehindProxy, parse_networks
from search_app.web.login import COSTLY, GUESSES, LIMITS, OPEN_TO_ALL, READ_LIMITS, WRITES, Login

PASSWORD = "a long enough password"
PEOPLE = {"vera": Role.VIEWER, "carl": Role.CONTRIBUTOR, "olga": Role.OWNER}


@pytest.fixture(scope="module")
def users(tmp_path_factory) -> UserStore:
    path = users_path(tmp_path_factory.mktemp("home") / "glimpse")
    store = UserStore(path, hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    for name, role in PEOPLE.items():
        store.add(name, role, PASSWORD)
    return store


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def audit(tmp_path, warned) -> Iterator[AuditLog]:
    log = AuditLog(audit_path(tmp_path), warn=warned.append)
    yield log
    log.close()


@pytest.fixture
def app(gallery: Gallery, users, tmp_path, audit) -> Flask:
    return create_app(
        service=SearchService(gallery.searcher),
        storage=gallery.storage,
        settings=AppSettings(),
        login=Login(users, audit, secret_key(tmp_path)),
    )


def sign_in(app: Flask, name: str, password: str = PASSWORD, **more) -> FlaskClient:
    """Return a browser in which a person signed in."""
    browser = app.test_client()
    answer = browser.post("/sign-in", data={"name": name, "password": password}, **more)
    assert answer.status_code == 303, answer.text
    return browser


def every_route(app: Flask) -> Iterator[tuple[str, str, str]]:
    """Yield (endpoint, method, path) of every route."""
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<image_id>", "0" * 64).replace("<path:filename>", "look.js")
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            yield rule.endpoint, method, path


def test_every_route_but_those_named_wants_to_know_who_asks(app):
    web = app.test_client()
    refused = {}
    for endpoint, method, path in every_route(app):
        if endpoint in OPEN_TO_ALL:
            continue
        answer = web.open(path, method=method)
        refused[endpoint] = answer.status_code
        if answer.status_code == 303:
            assert answer.location.startswith("/sign-in")
    assert set(refused.values()) == {303, 401}
    assert {"api.search", "api.thumbnail", "page.search", "metrics", "health.readyz"} <= set(refused)


def test_nobody_has_to_sign_in_for_health_and_the_form_itself(app):
    web = app.test_client()
    assert web.get("/healthz").status_code == 200
    with web.get("/static/page.css") as style:
        assert style.status_code == 200
    assert "Password" in web.get("/sign-in").text


def test_a_person_comes_back_to_what_was_asked(app):
    web = app.test_client()
    asked = web.get("/?q=a+red+boat&k=3")
    assert asked.location == "/sign-in?next=%2F%3Fq%3Da%2Bred%2Bboat%26k%3D3"
    done = web.post(asked.location, data={"name": "vera", "password": PASSWORD})
    assert done.location == "/?q=a+red+boat&k=3"
    page = web.get(done.location)
    assert page.status_code == 200
    assert "vera" in page.text
    assert "Sign out" in page.text
    cookie = done.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil"])
def test_signing_in_never_leads_to_another_site(app, elsewhere):
    done = app.test_client().post(
        "/sign-in", query_string={"next": elsewhere}, data={"name": "vera", "password": PASSWORD}
    )
    assert done.location == "/"


@pytest.mark.parametrize("name", ["vera", "nobody", "", "x" * 5000])
def test_a_wrong_password_and_an_unknown_name_look_the_same(app, name):
    answer = app.test_client().post("/sign-in", data={"name": name, "password": "not the password"})
    assert answer.status_code == 401
    assert "Name and password do not fit." in answer.text
    assert "Set-Cookie" not in answer.headers


@dataclass(frozen=True)
class Promise:
    """The rules that a route keeps."""

    role: Role | None
    """whom it answers where people sign in; None for everybody"""
    writes: bool = False
    """whether a read-only server refuses it"""
    limit: str | None = None
    """requests of one person"""
    is_kept: bool = False
    """whether a browser may keep the answer"""


VIEWER, CONTRIBUTOR, OWNER = Role.VIEWER, Role.CONTRIBUTOR, Role.OWNER
LOOK, TYPE, ASK = Promise(VIEWER), Promise(VIEWER, limit="600 per minute"), Promise(VIEWER, limit=COSTLY)
COUNT = Promise(VIEWER, limit="300 per minute")
WRITE, ADD = Promise(CONTRIBUTOR, writes=True, limit=WRITES), Promise(CONTRIBUTOR, writes=True, limit=COSTLY)
REMOVE, REMOVE_MANY = Promise(OWNER, writes=True, limit=WRITES), Promise(OWNER, writes=True, limit=COSTLY)
RUN, COMPARE = Promise(OWNER), Promise(OWNER, limit=COSTLY)
PROMISES = {
    "GET add_page.add": LOOK,
    "POST add_page.add_chosen": ADD,
    "GET api.picture": LOOK,
    "GET api.search": LOOK,
    "POST api.search_by_body": ASK,
    "GET api.thumbnail": replace(LOOK, is_kept=True),
    "GET browse.facets": COUNT,
    "GET browse.suggest": TYPE,
    "POST caption_page.write_caption": WRITE,
    "PUT captions.write_caption": WRITE,
    "GET docs.document": LOOK,
    "GET docs.page": LOOK,
    "GET duplicates.duplicates": COMPARE,
    "GET duplicates_page.duplicates": COMPARE,
    "GET health.healthz": Promise(None),
    "GET health.readyz": LOOK,
    "GET hiding.hidden": RUN,
    "DELETE hiding.put_away": REMOVE,
    "POST hiding.put_chosen_away": REMOVE_MANY,
    "POST hiding.restore": REMOVE,
    "POST hiding.restore_chosen": REMOVE_MANY,
    "POST hiding_page.delete_chosen": REMOVE_MANY,
    "GET hiding_page.hidden": RUN,
    "POST hiding_page.put_chosen_away": REMOVE_MANY,
    "POST hiding_page.restore_chosen": REMOVE_MANY,
    "POST languages.choose": Promise(None),
    "GET login.sign_in": Promise(None),
    "POST login.sign_in": Promise(None, limit=GUESSES),
    "POST login.sign_out": LOOK,
    "GET metrics": RUN,
    "GET originals.film": replace(LOOK, is_kept=True),
    "GET originals.original": replace(LOOK, is_kept=True),
    "GET originals.rendering": replace(COUNT, is_kept=True),
    "GET page.narrow": COUNT,
    "GET page.picture": LOOK,
    "GET page.progress": LOOK,
    "GET page.search": LOOK,
    "POST page.search_by_picture": ASK,
    "GET page.sent": LOOK,
    "POST selection.edit_chosen": ADD,
    "POST selection.export": ASK,
    "PUT selection.mark_favourite": WRITE,
    "DELETE selection.unmark_favourite": WRITE,
    "PUT selection.write_keywords": WRITE,
    "POST selection_page.edit_form": ADD,
    "POST selection_page.export_chosen": ASK,
    "POST selection_page.favourite_form": WRITE,
    "POST selection_page.keywords_form": WRITE,
    "GET static": Promise(None, is_kept=True),
    "GET status.status": LOOK,
    "GET status_page.show": LOOK,
    "GET tuning.chart": RUN,
    "GET tuning.tuning": RUN,
    "POST uploads.add": ADD,
    "POST voice.transcribe": ASK,
}
"""the rules of each route: a new one is written here, or the first test below fails"""
ENTRANCE = ("/sign-in", "/sign-out")
"""routes that have tests of their own"""


def overview(gallery: Gallery, home: Path) -> Overview:
    return read_overview(gallery.searcher.index, home=home, url="", store=f"file:{home}", profile_dims={})


@pytest.fixture
def whole(gallery: Gallery, users, tmp_path, audit) -> Callable[..., Flask]:
    """Return an application with every route, where people sign in."""

    def build(**settings) -> Flask:
        return create_app(
            service=SearchService(gallery.searcher),
            storage=gallery.storage,
            settings=AppSettings(**settings),
            login=Login(users, audit, secret_key(tmp_path)),
            overview=lambda: overview(gallery, tmp_path),
        )

    return build


def promised(app: Flask) -> Iterator[tuple[Promise, str, str]]:
    """Yield (promise, method, path) of every route. The paths name no picture of the index."""
    for endpoint, method, path in every_route(app):
        yield PROMISES[f"{method} {endpoint}"], method, path


def test_every_route_has_its_rules_written_down(whole):
    """Roles are asked by name: none is left to the default of routes that somebody forgot."""
    assert {f"{method} {endpoint}" for endpoint, method, _ in every_route(whole())} == set(PROMISES)


@pytest.mark.parametrize("name", [None, *PEOPLE])
def test_every_route_answers_the_roles_that_it_promises(whole, name):
    app = whole()
    browser = sign_in(app, name) if name else app.test_client()
    for promise, method, path in promised(app):
        if path in ENTRANCE:
            continue
        with browser.open(path, method=method) as answer:
            is_refused = answer.status_code == 403 and "takes the role" in answer.get_data(as_text=True)
            to_form = answer.headers.get("Location", "").startswith("/sign-in")
        is_asked = answer.status_code == 401 or to_form
        assert is_asked == (name is None and promise.role is not None), (method, path)
        assert is_refused == (name is not None and PEOPLE[name] < (promise.role or VIEWER)), (method, path)


def test_a_read_only_server_refuses_each_route_that_changes_something(whole):
    app = whole(read_only=True)
    browser = sign_in(app, "olga")
    for promise, method, path in promised(app):
        if path in ENTRANCE:
            continue
        with browser.open(path, method=method) as answer:
            is_refused = answer.status_code == 403 and "--read-only" in answer.get_data(as_text=True)
        assert is_refused == promise.writes, (method, path)


def test_only_pictures_and_files_are_kept_by_browsers_and_nothing_private_by_proxies(whole, gallery):
    app = whole()
    browser = sign_in(app, "olga")
    for promise, method, path in promised(app):
        if path == "/sign-out":
            continue
        for each in (path, path.replace("0" * 64, gallery.ids["boat"])):
            with browser.open(each, method=method) as answer:
                kept, is_good = answer.headers["Cache-Control"], answer.status_code == 200
            assert (kept == "private, no-store") != (promise.is_kept and is_good), (method, each, kept)
            assert "private" in kept or promise.role is None, (method, each, kept)


def test_each_route_that_costs_or_changes_something_has_its_limit(whole):
    app = whole(rate_limits=True)
    browser = sign_in(app, "olga")
    for promise, method, path in promised(app):
        if path == "/sign-out":
            continue
        with browser.open(path, method=method) as answer:
            told = answer.headers.get("X-RateLimit-Limit")
        assert told == (promise.limit.partition(" ")[0] if promise.limit else None), (method, path)


def test_whoever_writes_too_often_is_asked_to_wait_and_others_are_not(whole):
    app = whole(rate_limits=True)
    browser, other = sign_in(app, "carl"), sign_in(app, "olga")
    allowed = int(COSTLY.partition(" ")[0])
    statuses = [browser.post("/api/v1/images/edit").status_code for _ in range(allowed + 1)]
    assert 429 not in statuses[:-1]
    assert statuses[-1] == 429
    assert other.post("/api/v1/images/edit").status_code != 429
    assert browser.get("/api/v1/search?q=boat").status_code == 200


def test_no_route_answers_the_script_of_a_foreign_page(whole):
    app = whole()
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    browser = sign_in(app, "olga")
    for _, method, path in promised(app):
        with browser.open(path, method=method, headers=foreign) as answer:
            assert answer.status_code == 403, (method, path)
            assert "page of Glimpse itself" in answer.get_data(as_text=True)


@pytest.mark.parametrize("name", PEOPLE)
def test_a_picture_is_corrected_by_those_who_may(app, gallery, name):
    browser = sign_in(app, name)
    page = browser.get(f"/images/{gallery.ids['boat']}").text
    assert ("<textarea" in page) == (PEOPLE[name] >= Role.CONTRIBUTOR)


def test_a_token_is_shown_once_works_for_programs_and_can_be_revoked(app, users):
    secret = users.add_token("vera", "cron job")
    assert secret not in users.path.read_bytes().decode("latin-1")
    headers = {"Authorization": f"Bearer {secret}"}
    web = app.test_client()
    assert web.get("/api/v1/search?q=boat", headers=headers).status_code == 200
    assert web.get("/metrics", headers=headers).status_code == 403
    [token] = users.tokens()
    assert (token.user, token.label) == ("vera", "cron job")
    users.revoke(token.id)
    refused = web.get("/api/v1/search?q=boat", headers=headers)
    assert refused.status_code == 401
    assert "Authorization: Bearer" in refused.json["detail"]
    with pytest.raises(UserError, match="no token"):
        users.revoke(token.id)


@pytest.mark.parametrize("header", ["Bearer ", "Bearer glimpse_x", "Basic dmVyYTp4", "Bearer a b", "x"])
def test_an_odd_token_is_nobodys(app, header):
    answer = app.test_client().get("/api/v1/search?q=boat", headers={"Authorization": header})
    assert answer.status_code == 401


def test_another_password_role_or_removal_ends_the_sessions(app, users):
    users.add("temp", Role.VIEWER, PASSWORD)
    for change in (
        lambda: users.set_password("temp", PASSWORD),
        lambda: users.set_role("temp", Role.OWNER),
        lambda: users.remove("temp"),
    ):
        browser = sign_in(app, "temp")
        assert browser.get("/").status_code == 200
        change()
        assert browser.get("/").status_code == 303


def test_signing_out_ends_the_session_of_the_browser(app):
    browser = sign_in(app, "vera")
    assert browser.post("/sign-out").location == "/sign-in"
    assert browser.get("/").status_code == 303


def test_below_a_path_the_session_is_not_sent_to_neighbours(app):
    app.wsgi_app = BehindProxy(app.wsgi_app, prefix=PREFIX, proxies=())
    web = app.test_client()
    done = web.post(f"{PREFIX}/sign-in", data={"name": "vera", "password": PASSWORD})
    assert f"Path={PREFIX}" in done.headers["Set-Cookie"].split("; ")
    assert web.get(f"{PREFIX}/").status_code == 200
    ended = web.post(f"{PREFIX}/sign-out")
    assert f"Path={PREFIX}" in ended.headers["Set-Cookie"].split("; ")
    assert web.get(f"{PREFIX}/").status_code == 303


def test_a_session_that_another_key_signed_is_worth_nothing(app, gallery, users, audit):
    browser = sign_in(app, "olga")
    cookie = browser.get_cookie("glimpse").value
    other = create_app(
        service=SearchService(gallery.searcher),
        storage=gallery.storage,
        settings=AppSettings(),
        login=Login(users, audit, b"another key of 32 bytes"),
    )
    stranger = other.test_client()
    stranger.set_cookie("glimpse", cookie)
    assert stranger.get("/").status_code == 303


def test_sign_ins_and_writes_are_noted_and_searches_are_not(app, tmp_path):
    app.test_client().post("/sign-in", data={"name": "carl", "password": "a wrong one"})
    browser = sign_in(app, "carl")
    browser.get("/?q=boat")
    browser.put(f"/api/v1/images/{'0' * 64}/caption", json={"caption": "a red boat"})
    noted = [json.loads(line) for line in audit_path(tmp_path).read_text().splitlines()]
    assert [(each["user"], each["action"], each["status"]) for each in noted] == [
        ("carl", "login.sign_in", 401),
        ("carl", "login.sign_in", 303),
        ("carl", "captions.write_caption", 404),
    ]
    assert all(each["address"] == "127.0.0.1" for each in noted)
    assert audit_path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert "a wrong one" not in audit_path(tmp_path).read_text()


def test_an_audit_log_that_cannot_be_written_stops_nobody(app, tmp_path, warned):
    audit_path(tmp_path).mkdir()
    sign_in(app, "vera")
    assert len(warned) == 1
    assert "cannot be written" in warned[0]


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_no_route_takes_a_write_or_a_costly_question_from_a_foreign_page(gallery, headers):
    """Also without a login: it is the default of all routes, of those to come as well."""
    app = create_app(service=SearchService(gallery.searcher), storage=gallery.storage, settings=AppSettings())
    web = app.test_client()
    posts = [(method, path) for _, method, path in every_route(app) if method != "GET"]
    assert len(posts) >= 6
    for method, path in posts:
        files = {"image": (io.BytesIO(b"x"), "x.jpg")}
        assert web.open(path, method=method, data=files, headers=headers).status_code == 403, path


def test_a_foreign_page_embeds_nothing_and_may_link_here(gallery):
    app = create_app(service=SearchService(gallery.searcher), storage=gallery.storage, settings=AppSettings())
    web = app.test_client()
    thumbnail = f"/api/v1/images/{gallery.ids['boat']}/thumbnail"
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert web.get(thumbnail, headers={**foreign, "Sec-Fetch-Mode": "no-cors"}).status_code == 403
    assert web.get("/", headers={**foreign, "Sec-Fetch-Mode": "navigate"}).status_code == 200
    own = web.get(thumbnail, headers={"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"})
    assert own.status_code == 200
    assert own.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert web.get("/").headers["Cache-Control"] == "private, no-store"
    assert web.get("/api/v1/search?q=boat").headers["Cache-Control"] == "private, no-store"


def test_guessing_passwords_ends_after_a_few(gallery, users, tmp_path, audit):
    app = create_app(
        service=SearchService(gallery.searcher),
        storage=gallery.storage,
        settings=AppSettings(rate_limits=True),
        login=Login(users, audit, secret_key(tmp_path)),
    )
    web = app.test_client()
    allowed = int(LIMITS["login.sign_in"].partition(" ")[0])
    for _ in range(allowed):
        assert web.post("/sign-in", data={"name": "", "password": ""}).status_code == 401
    refused = web.post("/sign-in", data={"name": "vera", "password": PASSWORD})
    assert refused.status_code == 429
    assert "asked too often" in refused.text
    assert int(refused.headers["Retry-After"]) > 0
    assert web.get("/sign-in").status_code == 200
    missing = [endpoint for endpoint in (*LIMITS, *READ_LIMITS) if endpoint not in app.view_functions]
    assert not missing


def test_a_guess_at_a_kept_password_is_as_dear_as_argon2_advises(tmp_path):
    store = UserStore(tmp_path / "users.sqlite")
    store.add("vera", Role.VIEWER, PASSWORD)
    with closing(sqlite3.connect(store.path)) as database:
        (kept,) = database.execute("SELECT password FROM users").fetchone()
    found = extract_parameters(kept)
    assert (found.type.name, found.time_cost, found.parallelism) == (
        "ID", DEFAULT_TIME_COST, DEFAULT_PARALLELISM,
    )  # fmt: skip
    assert found.memory_cost >= 65_536
    assert store.sign_in("vera", PASSWORD) == store.get("vera") is not None
    assert store.sign_in("vera", f"{PASSWORD}.") is None


def test_names_and_passwords_that_cannot_be_are_refused_in_one_sentence(users):
    for name in ("", "-x", "a b", "x" * 65, "a\n"):
        with pytest.raises(UserError, match="cannot be a name"):
            users.add(name, Role.VIEWER, PASSWORD)
    with pytest.raises(UserError, match="10 to 1000"):
        users.add("short", Role.VIEWER, "123456789")
    with pytest.raises(UserError, match="already"):
        users.add("vera", Role.VIEWER, PASSWORD)
    for call in (users.remove, lambda name: users.set_role(name, Role.OWNER)):
        with pytest.raises(UserError, match="no user 'nobody'"):
            call("nobody")
    with pytest.raises(UserError, match="no user 'nobody'"):
        users.add_token("nobody", "")
    assert {each.name: each.role for each in users.users()} == PEOPLE


def test_files_of_users_can_be_read_by_their_owner_alone(users, tmp_path):
    assert users.path.stat().st_mode & 0o777 == 0o600
    key = secret_key(tmp_path)
    assert secret_key(tmp_path) == key
    assert (tmp_path / "session.key").stat().st_mode & 0o777 == 0o600
    (tmp_path / "session.key").write_bytes(b"short")
    with pytest.raises(UserError, match="damaged"):
        secret_key(tmp_path)
    broken = UserStore(tmp_path / "broken.sqlite")
    broken.path.write_bytes(b"this is no database, however long it may be" * 100)
    with pytest.raises(UserError, match="mend the file"):
        broken.users()


PAGES = (
    "",
    "?q=a+red+boat&k=3",
    "?sort=newest",
    "status",
    "duplicates",
    "hidden",
    "docs",
    "add",
    "narrow?q=boat",
)
LINK = re.compile(r'(href|src|action|formaction|data-[a-z-]*url|data-root)="([^"#]+)')
PREFIX = "/glimpse"


@pytest.fixture(params=["kept by the proxy", "taken off and named"])
def below(request, own_gallery, tmp_path) -> FlaskClient:
    """Return a browser of an application below a path, without a login."""
    notes = IngestHistory(None)
    app = create_app(
        service=SearchService(own_gallery.searcher),
        storage=own_gallery.storage,
        settings=AppSettings(),
        remover=lambda: Remover(
            index=own_gallery.searcher.index,
            profile=own_gallery.searcher.profile,
            storage=own_gallery.storage,
            image_encoder=own_gallery.searcher.image_encoder,
            caption_encoder=own_gallery.searcher.texts.encoder,
            open_notes=lambda _: notes,
        ),
        find_duplicates=lambda index, distance: read_duplicates(index, notes, distance=distance),
        overview=lambda: overview(own_gallery, tmp_path),
    )
    if request.param == "kept by the proxy":
        app.wsgi_app = BehindProxy(app.wsgi_app, prefix=PREFIX, proxies=())
        return app.test_client()
    behind = BehindProxy(app.wsgi_app, prefix="", proxies=parse_networks(["127.0.0.1"]))

    def proxy(environ, start_response):
        assert environ["PATH_INFO"].startswith(PREFIX), environ["PATH_INFO"]
        taken_off = environ["PATH_INFO"].removeprefix(PREFIX)
        return behind({**environ, "PATH_INFO": taken_off, "HTTP_X_FORWARDED_PREFIX": PREFIX}, start_response)

    app.wsgi_app = proxy
    return app.test_client()


def test_below_a_path_every_link_leads_below_it(below, own_gallery):
    """A page is followed link by link, as a browser does, and nothing leads out of the prefix."""
    waiting = [f"{PREFIX}/{each}" for each in (*PAGES, f"images/{own_gallery.ids['boat']}")]
    seen = set()
    while waiting and len(seen) < 80:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        with below.get(path) as answer:
            assert answer.status_code == 200, path
            text = answer.text if answer.mimetype == "text/html" else ""
        found = [(name, unescape(value)) for name, value in LINK.findall(text)]
        inside = [(name, value) for name, value in found if not value.startswith(("http", "data:"))]
        assert all(value.startswith((PREFIX, "?")) for _, value in inside), (path, inside)
        waiting += [value for name, value in inside if name in ("href", "src") and value.startswith("/")]
    assert len(seen) > 20
    hit = below.get(f"{PREFIX}/api/v1/search?q=boat&k=1").json["hits"][0]
    with below.get(hit["thumbnail_url"]) as thumbnail:
        assert thumbnail.mimetype == "image/webp"
    assert below.get(f"{PREFIX}/openapi.json").json["servers"] == [{"url": PREFIX}]


def test_below_a_path_forms_lead_back_below_it(below, own_gallery):
    image_id = own_gallery.ids["boat"]
    on_it = {"page": f"/images/{image_id}"}
    for path, form in (
        ("/language", {"language": "de", "path": on_it["page"]}),
        (f"/images/{image_id}/caption", {"caption": "a red boat on the sea"}),
        (f"/images/{image_id}/keywords", {"keywords": "Sea, summer day", **on_it}),
        ("/selection/edit", {"id": image_id, "act": "unfavourite", **on_it}),
        ("/picture", {"image": (io.BytesIO(own_gallery.files["boat"]), "boat.jpg")}),
    ):
        answer = below.post(PREFIX + path, data=form)
        assert answer.status_code in (302, 303), (path, answer.text)
        assert answer.location.startswith(f"{PREFIX}/"), (path, answer.location)
        assert below.get(answer.location).status_code == 200, answer.location


def test_the_installed_page_stays_below_its_path(below):
    """The addresses of a manifest count from its own: one that began with a slash would leave the path."""
    [where] = re.findall(r'rel="manifest" href="([^"]+)', below.get(f"{PREFIX}/").text)
    with below.get(where) as answer:
        manifest = answer.get_json(force=True)
    for address in (manifest["start_url"], manifest["scope"], manifest["share_target"]["action"]):
        assert urljoin(where, address).startswith(f"{PREFIX}/")
