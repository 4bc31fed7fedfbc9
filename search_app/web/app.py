"""Build the Flask application from the parts that are handed in."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, abort, g, make_response, redirect, request
from flask.json.provider import DefaultJSONProvider
from flask.typing import ResponseReturnValue
from flask_smorest import Api
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from werkzeug.exceptions import HTTPException

from es_config.errors import EngineError
from es_config.overview import Overview
from models.encoders import Lazy
from models.voice import Transcriber
from search_app.core.browse import Browser
from search_app.core.hiding import HiddenIds
from search_app.core.pictures import Originals
from search_app.core.searcher import SearchService, lane_of
from search_app.core.suggest import Suggester
from search_app.core.users import Role
from search_app.settings import AppSettings
from search_app.web.api import rest_blueprint
from search_app.web.assets import Assets, add_assets
from search_app.web.browse import browse_blueprint
from search_app.web.captions import caption_blueprint, caption_page_blueprint
from search_app.web.compression import add_compression
from search_app.web.duplicates import (
    DuplicateFinder,
    FindDuplicates,
    duplicates_blueprint,
    duplicates_page_blueprint,
)
from search_app.web.hiding import OpenRemover, can_put_away, hiding_blueprint, hiding_page_blueprint
from search_app.web.hosts import ANY_ADDRESS, is_address
from search_app.web.http import (
    EXPECTED,
    FORM_ROOM,
    MACHINE_PATHS,
    PROBLEM_TYPE,
    FormRequest,
    ProblemSchema,
    body_limit,
    problem,
    requires_role,
    sentence_of,
    status_of,
    visitors_sentence,
)
from search_app.web.languages import add_languages, translated
from search_app.web.login import READING, Login, add_limits, add_login, refuse_foreign_pages
from search_app.web.openapi import openapi_blueprint
from search_app.web.originals import NoOriginals, originals_blueprint
from search_app.web.page import page_blueprint, render_error
from search_app.web.selection import selection_blueprint, selection_page_blueprint
from search_app.web.status import StatusReader, status_blueprint, status_page_blueprint
from search_app.web.tuning import tuning_blueprint
from search_app.web.uploads import (
    PictureIndexer,
    Uploads,
    add_page_blueprint,
    count_uploads,
    upload_blueprint,
)
from search_app.web.voice import voice_blueprint, voice_queue, words_of
from storage.store import Storage

RETRY_AFTER_S = 5
"""seconds until Elasticsearch, a store or a model may answer again"""
MOVING = frozenset({"hiding", "hiding_page", "uploads", "add_page"})
"""blueprints whose routes put pictures away and bring them back"""
BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""seconds"""


def health_blueprint(*, service: SearchService) -> Blueprint:
    """Return /healthz and /readyz."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> dict[str, str]:
        """Answer as long as the process lives."""
        return {"status": "alive"}

    @health.get("/readyz")
    def readyz() -> dict[str, object]:
        """Answer 200 when a search would work, otherwise a 503 problem document with the reason."""
        searcher = service.searcher
        images = searcher.index.count()
        searcher.check_profile()
        return {
            "status": "ready",
            "index": searcher.index.name(),
            "images": images,
            "profile": searcher.profile.name,
            "lane": lane_of(searcher.texts.encoder.get()),
        }

    return health


def add_metrics(app: Flask) -> None:
    """Count and time every request by route, and serve the numbers at /metrics."""
    registry = CollectorRegistry()
    labels = ("method", "route")
    requests = Counter("glimpse_requests", "Requests answered", (*labels, "status"), registry=registry)
    seconds = Histogram(
        "glimpse_request_seconds", "Time to answer", labels, registry=registry, buckets=BUCKETS
    )

    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def count(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        method = request.method if route != "none" else "none"
        requests.labels(method, route, response.status_code).inc()
        if "started" in g:  # a refused Host header ends the request before it starts
            seconds.labels(method, route).observe(time.perf_counter() - g.started)
        return response

    @app.get("/metrics")
    @requires_role(Role.OWNER)
    def metrics() -> Response:
        """Send the numbers in Prometheus's text format."""
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data: blob:; media-src 'self'; style-src 'self';"
        " script-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}


class ProblemApi(Api):
    """flask-smorest's OpenAPI document, with problem documents as its errors."""

    ERROR_SCHEMA = ProblemSchema
    DEFAULT_RESPONSE_CONTENT_TYPE = PROBLEM_TYPE

    def handle_http_exception(self, error: HTTPException) -> ResponseReturnValue:
        """Answer an error that Flask, werkzeug or webargs raised."""
        status = error.code or HTTPStatus.INTERNAL_SERVER_ERROR
        sentence = translated(sentence_of(error, max_upload=self._app.config["MAX_UPLOAD"]))
        response = make_response(answer_error(status, sentence))
        for name, value in error.get_headers():  # such as Allow, which a 405 must have
            if name.lower() not in ("content-type", "content-length"):
                response.headers[name] = value
        return response


def create_app(
    *,
    service: SearchService,
    storage: Storage,
    settings: AppSettings,
    hidden_ids: HiddenIds | None = None,
    transcriber: Callable[[], Lazy[Transcriber] | None] = lambda: None,
    indexer: Callable[[], PictureIndexer | None] = lambda: None,
    login: Login | None = None,
    originals: Originals | None = None,
    running: Callable[[], str] = lambda: "",
    remover: OpenRemover = lambda: None,
    find_duplicates: FindDuplicates | None = None,
    overview: Callable[[], Overview] | None = None,
) -> Flask:
    """Build the page and the REST API around a search service and a store.

    `hidden_ids` knows of which pictures no thumbnail is sent; whoever hands it in keeps it fresh, beside what
    is changed here. `transcriber` returns the current one, None when voice is off; `indexer` likewise, None
    when none can be added to. Without a `login` everybody who reaches the server may do everything. Without
    `originals` no ingested file is opened. `remover` returns what puts pictures away, None where nothing can
    be put away; `find_duplicates` groups those that look the same. `running` says what other processes do to
    the index now, and `overview` how it is.
    """
    app = Flask("search_app", static_folder=None)
    add_compression(app)
    add_assets(app, Assets())
    app.request_class = FormRequest
    app.config.update(
        MAX_UPLOAD=settings.max_upload,
        READ_ONLY=settings.read_only,
        MAX_CONTENT_LENGTH=body_limit(settings.max_upload),
        MAX_FORM_MEMORY_SIZE=FORM_ROOM,
        API_TITLE="Glimpse",
        API_VERSION="v1",
        OPENAPI_VERSION="3.0.3",
    )
    app.json = DefaultJSONProvider(app)
    app.json.sort_keys = False
    api = ProblemApi(app)
    queue = voice_queue()
    hear = partial(words_of, transcriber=transcriber, queue=queue)
    api.register_blueprint(
        rest_blueprint(
            service=service,
            storage=storage,
            settings=settings,
            hear=hear,
            hidden_ids=hidden_ids or frozenset(),
            may_restore=partial(can_put_away, remover),
        )
    )
    api.register_blueprint(voice_blueprint(transcriber=transcriber, queue=queue))
    browser, suggester = Browser(lambda: service.searcher), Suggester(lambda: service.searcher)
    api.register_blueprint(browse_blueprint(browser=browser, suggester=suggester))
    app.register_blueprint(
        page_blueprint(
            service=service,
            storage=storage,
            settings=settings,
            browser=browser,
            suggester=suggester,
            running=running,
        )
    )
    uploads = Uploads(
        indexer=indexer,
        max_upload=settings.max_upload,
        count_added=lambda: count_uploads(service.searcher.index),
        max_added=settings.max_added,
    )
    api.register_blueprint(upload_blueprint(uploads=uploads))
    app.register_blueprint(add_page_blueprint(uploads=uploads))
    api.register_blueprint(
        originals_blueprint(service=service, storage=storage, originals=originals or NoOriginals())
    )
    api.register_blueprint(caption_blueprint(service=service))
    app.register_blueprint(caption_page_blueprint(service=service))
    files = originals or NoOriginals()
    api.register_blueprint(selection_blueprint(service=service, storage=storage, originals=files))
    app.register_blueprint(selection_page_blueprint(service=service, storage=storage, originals=files))
    api.register_blueprint(hiding_blueprint(service=service, remover=remover))
    app.register_blueprint(hiding_page_blueprint(remover=remover))
    finder = DuplicateFinder(service, find_duplicates)
    api.register_blueprint(duplicates_blueprint(finder=finder))
    app.register_blueprint(duplicates_page_blueprint(finder=finder))
    app.register_blueprint(tuning_blueprint(service=service))
    if overview is not None:
        reader = StatusReader(overview)
        api.register_blueprint(status_blueprint(reader=reader))
        app.register_blueprint(status_page_blueprint(reader=reader))
    app.register_blueprint(health_blueprint(service=service))
    app.register_blueprint(openapi_blueprint(api))
    add_languages(app, machine_paths=MACHINE_PATHS)
    add_metrics(app)
    if settings.trusted_hosts:
        app.before_request(lambda: _check_host(settings.trusted_hosts))
    refuse_foreign_pages(app)
    if login:
        add_login(app, login)
    if settings.rate_limits:
        add_limits(app)
    answer_expected(app)
    if hidden_ids:
        app.after_request(partial(_note_hidden, hidden_ids))
    app.after_request(_secure)
    return app


def answer_expected(app: Flask) -> None:
    """Let an application answer the errors whose message is meant for people."""

    def answer(error: Exception) -> Response:
        status = status_of(error)
        response = make_response(answer_error(status, visitors_sentence(error)))
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            response.headers["Retry-After"] = getattr(error, "retry_after_s", RETRY_AFTER_S)
        return response

    for expected in EXPECTED:
        app.register_error_handler(expected, answer)


def answer_error(status: int, sentence: str) -> ResponseReturnValue:
    """Answer with a problem document to programs and with a page to people."""
    if request.path.startswith(MACHINE_PATHS):
        return problem(status, sentence)
    return render_error(status, sentence)


def _note_hidden(hidden_ids: HiddenIds, response: Response) -> Response:
    """Learn at once of pictures that this request has put away or brought back."""
    if request.method not in READING and request.blueprint in MOVING:
        with suppress(EngineError):  # it is read again in a few seconds
            hidden_ids.refresh()
    return response


def _check_host(trusted: tuple[str, ...]) -> None:
    # Flask's own TRUSTED_HOSTS cannot hold an IPv6 address.
    try:
        name = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:  # such as `[::1`
        name = request.host
    if name not in trusted and not (ANY_ADDRESS in trusted and is_address(name)):
        abort(400, f"This server does not answer to the name '{name}'; see `glimpse serve --trusted-host`.")


def _within_this_site(location: str) -> str:
    """Return an address without its host: Flask repeats the Host header, and a caller may write any."""
    parts = urlsplit(location)
    path = "/" + parts.path.lstrip("/\\")
    return f"{path}?{parts.query}" if parts.query else path


def _secure(response: Response) -> Response:
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    if (location := response.headers.get("Location")) and location != (path := _within_this_site(location)):
        response.headers["Location"] = path
        response.set_data(redirect(path).get_data())
    response.headers.setdefault("Cache-Control", "private, no-store")
    return response
