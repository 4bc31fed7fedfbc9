"""A large index through Flask: start page, a year, counts, completion, a composed question, beside targets.

`python -m benchmarks browse` loads 100 000 documents with made vectors; `GLIMPSE_BENCH_DOCUMENTS` says
another number. Each request asks for something else, so that no answer that was kept is measured.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, percentile, show
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from models.encoders import Lazy, load_image_encoder
from models.fast.standalone import load_quick_text_encoder
from models.profiles import get_profile
from search_app.core.searcher import Searcher, SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app
from storage.store import open_storage

DOCUMENTS = int(os.environ.get("GLIMPSE_BENCH_DOCUMENTS", "100000"))
TOGETHER = 2_000
SAMPLES = 60
TARGET = "≤ 300"
FIRST_DAY = datetime(2004, 1, 1)
DAYS = 20 * 365
CAMERAS, FOLDERS, TAGS, PEOPLE, PLACES = 40, 400, 3_000, 200, 800


def main() -> bool:
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory(prefix="glimpse-bench-") as store,
        node() as (client, _url),
        fresh_index(client) as index,
    ):
        _fill(index)
        web = _app(index, Path(store)).test_client()
        figures = []
        for name, addresses in _walks().items():
            before = _cpu_ms(client)
            times = [_timed(web, address) for address in addresses]
            figures += [
                Figure(f"{name}, p50", percentile(times, 50), "ms"),
                Figure(f"{name}, p95", percentile(times, 95), "ms", TARGET),
                Figure(f"{name}, of the processors", (_cpu_ms(client) - before) / len(times), "ms"),
            ]
    return show(f"browsing {DOCUMENTS} pictures", figures)


def _walks() -> dict[str, list[str]]:
    rng = np.random.default_rng(1)
    days = [FIRST_DAY + timedelta(days=int(day)) for day in rng.integers(0, DAYS, SAMPLES)]
    numbers = [int(number) for number in rng.integers(0, DOCUMENTS, SAMPLES)]
    return {
        "start page": ["/"] * SAMPLES,
        "browse by year": [f"/?taken={each.year}&date_from={each:%Y-%m-%d}" for each in days],
        "browse by month": [f"/?taken={each:%Y-%m}&page={n % 3 + 1}" for n, each in enumerate(days)],
        "counts of filters": [f"/api/v1/facets?date_from={each:%Y-%m-%d}" for each in days],
        "counts of hits": [f"/api/v1/facets?like={number:064x}" for number in numbers],
        "composed: words, not wanted ones, a picture": [
            f"/?q=boat+{n}&minus=rain+{n}&like={number:064x}^0.5" for n, number in enumerate(numbers)
        ],
        "completion": [f"/api/v1/suggest?q=ta{n % 10}&limit={n % 20 + 1}" for n in range(SAMPLES)],
        "an empty list": [f"/?camera=none{n}&taken={each.year}" for n, each in enumerate(days)],
    }


def _cpu_ms(client) -> float:
    """Return the processor time of this process and the node, which a busy machine changes little."""
    nodes = client.nodes.stats(metric="process")["nodes"].values()
    return 1000 * time.process_time() + sum(node["process"]["cpu"]["total_in_millis"] for node in nodes)


def _timed(web, address: str) -> float:
    begin = time.perf_counter()
    response = web.get(address)
    took = 1000 * (time.perf_counter() - begin)
    assert response.status_code == 200, f"{address}: {response.text[:300]}"
    return took


def _fill(index) -> None:
    profile = get_profile("pocket")
    meta = IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity)
    index.create(meta, IndexOptions())
    with index.bulk_load() as load:
        for documents in _documents(profile.dims):
            assert not index.add(documents).failed
            load.wrote(len(documents))
    index.refresh()


def _documents(dims: int) -> Iterator[list[ImageDocument]]:
    rng = np.random.default_rng(0)
    for start in range(0, DOCUMENTS, TOGETHER):
        vectors = rng.normal(size=(min(TOGETHER, DOCUMENTS - start), dims)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        yield [_document(start + n, vector, rng) for n, vector in enumerate(vectors)]


def _document(number: int, vector: np.ndarray, rng: np.random.Generator) -> ImageDocument:
    day = FIRST_DAY + timedelta(days=int(rng.integers(DAYS)), seconds=int(rng.integers(86_400)))
    year, place = day.year, int(rng.zipf(1.4)) % PLACES
    tags = {f"tag{int(each) % TAGS}" for each in rng.zipf(1.3, 3)}
    return ImageDocument(
        image_id=f"{number:064x}",
        image_name=f"IMG_{number:06}.jpg",
        relative_path=(f"{year}/{year}-{day:%m} trip {number % FOLDERS}/IMG_{number:06}.jpg",),
        image_embedding=vector,
        width=4000,
        height=3000,
        size_bytes=4_000_000,
        indexed_at=datetime.now(UTC),
        phash=hashlib.sha256(str(number).encode()).hexdigest()[:16],
        exif_date=day.replace(tzinfo=UTC),
        exif_local_date=day,
        exif_camera=f"Maker Model {int(rng.zipf(1.5)) % CAMERAS}",
        exif_places=(f"Town {place}", f"Country {place % 40}"),
        exif_places_by="made",
        tags=tuple(sorted(tags)),
        people=(f"Person {int(rng.zipf(1.4)) % PEOPLE}",) if number % 4 == 0 else (),
    )


def _app(index, store: Path):
    profile = get_profile("pocket")
    texts, images = load_quick_text_encoder(profile, cache=store / "cache"), load_image_encoder(profile)
    texts.embed_texts(["a picture"])
    searcher = Searcher(
        index=index, profile=profile, text_encoder=Lazy(lambda: texts), image_encoder=Lazy(lambda: images)
    )
    return create_app(
        service=SearchService(searcher), storage=open_storage(f"file:{store}"), settings=AppSettings()
    )


if __name__ == "__main__":
    main()
