"""How the service is: alive, ready, and in numbers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

from search_app.subjects import lane_of

if TYPE_CHECKING:
    from search_app.core.searcher import Searcher

BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""seconds"""


def health_blueprint(*, searcher: Searcher) -> Blueprint:
    """Return /healthz and /readyz."""
    health = Blueprint("health", __name__)

    @health.get("/healthz")
    def healthz() -> dict[str, str]:
        """Answer as long as the process lives."""
        return {"status": "alive"}

    @health.get("/readyz")
    def readyz() -> dict[str, object]:
        """Answer 200 when a search would work; otherwise a 503 problem document says why."""
        images = searcher.index.count()
        searcher.check_profile()
        return {
            "status": "ready",
            "index": searcher.index.name(),
            "images": images,
            "profile": searcher.profile.name,
            "lane": lane_of(searcher.texts.encoder),
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
    def metrics() -> Response:
        """Send the numbers in Prometheus's text format."""
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
