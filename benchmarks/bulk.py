"""The bulk stage alone, beside `helpers.bulk` of lists of numbers and of packed vectors, in turn.

`GLIMPSE_BENCH_VECTORS` sets how many documents each way writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from statistics import median

import numpy as np

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, Spent, clock, show
from es_config.bulk import document_source
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.index import ImageIndex
from ingest.pipeline.write import TOGETHER

VECTORS = int(os.environ.get("GLIMPSE_BENCH_VECTORS", "20000"))
DIMS = 512
CLUSTERS = 200
ROUNDS = 3
META = IndexMeta("pocket", {}, DIMS, DIMS, "cosine")
Way = Callable[[object, ImageIndex, list[ImageDocument]], None]


def main() -> bool:
    """Measure and print."""
    documents = _documents(VECTORS)
    spent: dict[str, list[Spent]] = {name: [] for name in WAYS}
    with node() as (client, _):
        for turn in range(ROUNDS):
            for name in list(WAYS) if turn % 2 == 0 else reversed(WAYS):
                spent[name].append(_write(client, WAYS[name], documents))
    return show(f"bulk, {VECTORS} documents with {DIMS} dims, int8_hnsw", _figures(spent))


def _figures(spent: dict[str, list[Spent]]) -> list[Figure]:
    def ratio(way: str, other: str, what: str) -> float:
        pairs = zip(spent[way], spent[other], strict=True)
        return median(getattr(theirs, what) / getattr(ours, what) for ours, theirs in pairs)

    rates = [
        Figure(name, VECTORS / median(each.wall for each in times), "docs/s") for name, times in spent.items()
    ]
    return [
        *rates,
        Figure("ingest ÷ lists, speed", ratio("ingest", "lists", "wall"), "", "≥ 2.0"),
        Figure("the same, CPU of this process spared", ratio("ingest", "lists", "cpu"), "times"),
        Figure("ingest ÷ packed, speed", ratio("ingest", "packed", "wall"), "", "≥ 0.9"),
        Figure("settings for bulk ÷ as usual, speed", ratio("ingest", "refreshed", "wall")),
    ]


def _documents(count: int) -> list[ImageDocument]:
    """Unit vectors in clusters, as those of pictures are."""
    dice = np.random.default_rng(1)
    centres = dice.standard_normal((CLUSTERS, DIMS))
    vectors = centres[dice.integers(0, CLUSTERS, count)] + 0.7 * dice.standard_normal((count, DIMS))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return [
        ImageDocument(
            image_id=f"{number:064x}",
            image_name=f"{number}.jpg",
            relative_path=(f"{number // 1000}/{number}.jpg",),
            image_embedding=vector,
            width=500,
            height=375,
            size_bytes=100_000,
            indexed_at=datetime.now(UTC),
        )
        for number, vector in enumerate(vectors)
    ]


def _write(client, way: Way, documents: list[ImageDocument]) -> Spent:
    """Time one way until all is searchable and merged, since another way may have merged already."""
    with fresh_index(client) as index:
        index.create(META, IndexOptions())
        with clock() as spent:
            way(client, index, documents)
            index.refresh()
            while client.indices.stats(index=index.alias)["_all"]["total"]["merges"]["current"]:
                time.sleep(0.05)
        assert index.count() == len(documents)
    return spent


def _refreshed(_, index: ImageIndex, documents: list[ImageDocument]) -> None:
    for start in range(0, len(documents), TOGETHER):
        assert not index.add(documents[start : start + TOGETHER], only_new=True).failed


def _ingest(_, index: ImageIndex, documents: list[ImageDocument]) -> None:
    """As the writer of a run does whose model is faster than Elasticsearch."""
    with index.bulk_load() as load:
        for start in range(0, len(documents), TOGETHER):
            assert not index.add(documents[start : start + TOGETHER], only_new=True).failed
            load.wrote(TOGETHER)
        index.refresh()


def _packed(client, index: ImageIndex, documents: list[ImageDocument]) -> None:
    _helper(client, index, ((each.image_id, document_source(each)) for each in documents))


def _lists(client, index: ImageIndex, documents: list[ImageDocument]) -> None:
    def sources() -> Iterator[tuple[str, dict]]:
        for each in documents:
            yield (
                each.image_id,
                document_source(each) | {"image_embedding": each.image_embedding.tolist()},
            )

    _helper(client, index, sources())


def _helper(client, index: ImageIndex, sources: Iterator[tuple[str, dict]]) -> None:
    from elasticsearch.helpers import bulk

    bulk(client, ({"_index": index.alias, "_id": image_id, **source} for image_id, source in sources))


WAYS: dict[str, Way] = {"ingest": _ingest, "refreshed": _refreshed, "packed": _packed, "lists": _lists}
