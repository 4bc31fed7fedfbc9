"""Build and search a graph of hnswlib or FAISS on vectors of a file: the price of having no engine.

`python -m benchmarks.graph_library LIBRARY FOLDER COUNT`, started by `benchmarks/million.py` in a process of
its own, so that its memory can be told. Prints JSON. Both have the same `m`, `ef_construction` and threads.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil

from benchmarks.geometry import BLOCK, DIMS
from benchmarks.report import percentile

M, EF_CONSTRUCTION, K = 16, 100, 10
BREADTHS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
TARGETS = (0.95, 0.99)
Search = Callable[[np.ndarray, int], np.ndarray]
"""a query, float32 `[1, DIMS]`, and the breadth of the search -> the numbers of its neighbours"""


def main(library: str, folder: Path, count: int) -> None:
    """Build, search, and print."""
    vectors = np.memmap(folder / "vectors.f32", np.float32, "r", shape=(count, DIMS))
    queries = np.load(folder / "queries.npy")
    right = [set(ids) for ids in json.loads((folder / "truth.json").read_text(encoding="utf-8"))]
    threads = os.cpu_count() or 1
    begun = time.perf_counter()
    search = BUILDERS[library](_blocks(vectors), count, threads)
    seconds, memory = time.perf_counter() - begun, psutil.Process().memory_info()
    found: dict[str, float] = {
        "documents a second": count / seconds,
        "memory of its own, GiB": (memory.rss - memory.shared) / 2**30,  # the file of vectors is shared
    }
    for target in TARGETS:
        for breadth in BREADTHS:
            recall, taken = _measured(search, queries, right, breadth)
            if recall >= target:
                found[f"recall@{K} ≥ {target}: breadth"] = breadth
                found[f"recall@{K} ≥ {target}: p50, ms"] = percentile(taken, 50)
                found[f"recall@{K} ≥ {target}: p95, ms"] = percentile(taken, 95)
                break
    print(json.dumps(found))


def _measured(
    search: Search, queries: np.ndarray, right: list[set[str]], breadth: int
) -> tuple[float, list[float]]:
    taken, hits = [], 0
    for query, wanted in zip(queries, right, strict=True):
        begun = time.perf_counter()
        numbers = search(query[None, :], breadth)
        taken.append(1000 * (time.perf_counter() - begun))
        hits += sum(f"{int(number):064x}" in wanted for number in numbers)
    return hits / (K * len(queries)), taken


def _blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(vectors), BLOCK):
        yield np.asarray(vectors[start : start + BLOCK])


def _hnswlib(blocks: Iterator[np.ndarray], count: int, threads: int) -> Search:
    import hnswlib

    graph = hnswlib.Index(space="ip", dim=DIMS)
    graph.init_index(max_elements=count, M=M, ef_construction=EF_CONSTRUCTION)
    graph.set_num_threads(threads)
    for block in blocks:
        graph.add_items(block)

    def search(query: np.ndarray, breadth: int) -> np.ndarray:
        graph.set_ef(breadth)
        labels, _ = graph.knn_query(query, k=K, num_threads=1)
        found: np.ndarray = labels[0]
        return found

    return search


def _faiss(blocks: Iterator[np.ndarray], count: int, threads: int) -> Search:
    import faiss

    faiss.omp_set_num_threads(threads)
    graph = faiss.IndexHNSWFlat(DIMS, M, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = EF_CONSTRUCTION
    for block in blocks:
        graph.add(block)
    assert graph.ntotal == count

    def search(query: np.ndarray, breadth: int) -> np.ndarray:
        graph.hnsw.efSearch = breadth
        _, labels = graph.search(query, K)
        found: np.ndarray = labels[0]
        return found

    return search


BUILDERS: dict[str, Callable[[Iterator[np.ndarray], int, int], Search]] = {
    "hnswlib": _hnswlib,
    "faiss": _faiss,
}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
