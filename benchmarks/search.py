"""A search through Flask beside the same kNN request sent raw, in turn."""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, percentile, show
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from models.encoders import Lazy, load_image_encoder, load_text_encoder
from models.profiles import get_profile
from search_app.core.searcher import SOURCE, Searcher, SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from storage.store import open_storage

DOCUMENTS = 5000
SAMPLES = 500
WARM_UP = 100
K, CANDIDATES = 10, 100


def main() -> bool:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory(prefix="glimpse-bench-") as store,
        node() as (client, url),
        fresh_index(client) as index,
    ):
        _fill(index)
        app = _app(index, Path(store))
        flask, raw = _in_turn(app.test_client(), url, index.name())
    ratio = percentile(flask, 50) / percentile(raw, 50)
    return show(
        f"search by image id, {DOCUMENTS} documents, k {K}, num_candidates {CANDIDATES}",
        [
            Figure("raw kNN request, p50", percentile(raw, 50), "ms"),
            Figure("raw kNN request, p95", percentile(raw, 95), "ms"),
            Figure("through Flask, p50", percentile(flask, 50), "ms"),
            Figure("through Flask, p95", percentile(flask, 95), "ms"),
            Figure("Flask ÷ raw, p50", ratio, "", "≤ 2.5"),
        ],
    )


def _fill(index) -> None:
    profile = get_profile("pocket")
    index.create(
        IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity), IndexOptions()
    )
    vectors = np.random.default_rng(0).normal(size=(DOCUMENTS, profile.dims)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index.add([_document(n, vector) for n, vector in enumerate(vectors)])
    index.refresh()


def _document(number: int, vector: np.ndarray) -> ImageDocument:
    return ImageDocument(
        image_id=f"{number:064x}",
        image_name=f"{number}.jpg",
        relative_path=(f"folder/{number}.jpg",),
        image_embedding=vector,
        width=512,
        height=512,
        size_bytes=1,
        indexed_at=datetime.now(UTC),
    )


def _app(index, store: Path):
    profile = get_profile("pocket")
    texts = load_text_encoder(profile)
    images = load_image_encoder(profile)
    searcher = Searcher(
        index=index,
        profile=profile,
        text_encoder=Lazy(lambda: texts),
        image_encoder=Lazy(lambda: images),
    )
    return create_app(
        service=SearchService(searcher), storage=open_storage(f"file:{store}"), settings=AppSettings()
    )


def _in_turn(web, url: str, name: str) -> tuple[list[float], list[float]]:
    """Return milliseconds of Flask's and of raw requests, one of each in turn, after a warm-up."""
    flask, raw = [], []
    with closing(HTTPConnection(urlsplit(url).netloc)) as connection:
        for n in range(WARM_UP + SAMPLES):
            image_id = f"{n * 7 % DOCUMENTS:064x}"
            begin = time.perf_counter()
            response = web.get(f"/api/v1/search?like={image_id}&k={K}&num_candidates={CANDIDATES}")
            middle = time.perf_counter()
            answer = _raw(connection, name, image_id)
            end = time.perf_counter()
            found = [hit["image_id"] for hit in response.json["hits"]]
            assert found == [hit["_id"] for hit in answer["hits"]["hits"]], image_id
            if n >= WARM_UP:
                flask.append(1000 * (middle - begin))
                raw.append(1000 * (end - middle))
    return flask, raw


def _raw(connection: HTTPConnection, name: str, image_id: str) -> dict:
    """Send the request on a connection that stays open, and parse the answer."""
    lookup = {"lookup": {"index": name, "id": image_id, "path": "image_embedding"}}
    knn = {"field": "image_embedding", "query_vector_builder": lookup, "k": K, "num_candidates": CANDIDATES}
    body = json.dumps({"knn": knn, "size": K, "_source": SOURCE})
    connection.request("POST", f"/{name}/_search", body, {"Content-Type": "application/json"})
    return json.load(connection.getresponse())
