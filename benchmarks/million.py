"""A million documents in one local node, by type of index: loading, searching, filtering, a restart, crowds.

Takes hours, so it runs by name alone: `python -m benchmarks million`. Settings from the environment:

- `GLIMPSE_BENCH_VECTORS`: how many documents (1 000 000).
- `GLIMPSE_BENCH_TYPES`: types of index, with commas (`int8_hnsw,int4_hnsw,bbq_hnsw`).
- `GLIMPSE_BENCH_HEAP_MB`: the heap of the node (4096).
- `GLIMPSE_BENCH_FOLDER`: where vectors and indices lie meanwhile; some 12 GB for a million.

Each figure goes into `benchmarks/results/million.json` as soon as it is known, with the machine, the versions
and the commit.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.geometry import BLOCK, DIMS, Geometry, fitted, likeness, real_vectors
from benchmarks.report import Figure, clock, machine, percentile, show
from benchmarks.tuning import peak
from es_config.client import connect, engine_settings
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.errors import EngineError
from es_config.index import ImageIndex
from es_config.local_node.node import LocalNode
from es_config.scan import point_in_time
from es_config.vector_field import VectorField, read_vector_field
from ingest.pipeline.write import TOGETHER
from search_app.core.query import default_candidates
from tuning.points import Point, Setting
from tuning.queries import Queries
from tuning.run import Goal, exact_latency, tune
from tuning.sweep import JudgedQueries, Subject, measure_recall, scanned_truth, search_body

VECTORS = int(os.environ.get("GLIMPSE_BENCH_VECTORS", "1000000"))
TYPES = os.environ.get("GLIMPSE_BENCH_TYPES", "int8_hnsw,int4_hnsw,bbq_hnsw").split(",")
HEAP_MB = int(os.environ.get("GLIMPSE_BENCH_HEAP_MB", "4096"))
RESULTS = Path(__file__).parent / "results" / "million.json"
TARGETS = (0.95, 0.99)
K = 10
SAMPLES = 1600
JUDGED = 400
"""queries that show the recall of a filtered search and of a graph library"""
TIMED = 300
"""searches of each latency"""
USERS = (1, 8, 32)
CROWD_S = 20.0
SHARES = {"10 %": 10, "1 %": 100, "0.1 %": 1000}
"""filters by the share of documents that pass: every n-th"""
GIB, MIB = 2**30, 2**20
META = IndexMeta("clip", {}, DIMS, DIMS, "cosine")


def main() -> bool:
    """Measure, print, and keep."""
    with tempfile.TemporaryDirectory(
        prefix="glimpse-bench-", dir=os.environ.get("GLIMPSE_BENCH_FOLDER")
    ) as name:
        corpus = made(Path(name))
        results = Results.opened()
        met = [results.keep("vectors", _likeness(corpus))]
        for index_type in TYPES:
            met += _type(corpus, Path(name) / index_type, index_type, results)
        met.append(results.keep("graph libraries", libraries(corpus, Path(name))))
    return all(met)


@dataclass
class Results:
    """Figures by part, kept as JSON."""

    parts: dict[str, Any]

    @classmethod
    def opened(cls) -> Results:
        """Return the figures of earlier runs."""
        return cls(json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {})

    def keep(self, part: str, figures: Sequence[Figure]) -> bool:
        """Print the figures of a part, and write them. Return whether all targets are met."""
        self.parts[f"{VECTORS} × {DIMS}, {part}"] = {
            "when": datetime.now(UTC).isoformat(timespec="minutes"),
            "machine": machine(),
            "figures": [
                {
                    "name": each.name,
                    "value": float(f"{each.value:.5g}"),
                    "unit": each.unit,
                    "target": each.target,
                }
                for each in figures
            ],
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(self.parts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return show(part, figures)


@dataclass(frozen=True)
class MadeVectors:
    """Vectors of pictures in a file, and queries for them."""

    path: Path
    queries: np.ndarray
    """float32 `[n, DIMS]`"""

    @cached_property
    def vectors(self) -> np.ndarray:
        """The pictures' vectors, float32 `[VECTORS, DIMS]`, read from the file as they are needed."""
        return np.memmap(self.path, np.float32, "r", shape=(VECTORS, DIMS))

    def blocks(self, every: int = 1) -> Iterator[tuple[list[str], np.ndarray]]:
        """Give ids and vectors, of every n-th picture."""
        for start in range(0, VECTORS, BLOCK):
            rows = np.arange(start, min(start + BLOCK, VECTORS))
            rows = rows[rows % every == 0]
            yield [image_id(int(row)) for row in rows], np.asarray(self.vectors[rows])

    def judged(self, count: int, every: int = 1) -> JudgedQueries:
        """Return the first queries with their exact neighbours among every n-th picture."""
        queries = self.queries[:count]
        truth = scanned_truth(self.blocks(every), queries, k=K, similarity="cosine")
        return JudgedQueries(queries, truth)


def made(folder: Path) -> MadeVectors:
    """Write the vectors of a million pictures into a folder, and make queries."""
    geometry: Geometry = fitted()
    path = folder / "vectors.f32"
    with path.open("wb") as file:
        for block in geometry.pictures(VECTORS, seed=1):
            file.write(block.tobytes())
    return MadeVectors(path, geometry.queries(2 * SAMPLES, seed=2))


def _likeness(corpus: MadeVectors) -> list[Figure]:
    pictures, sentences, rows = real_vectors()
    others = np.ones(len(pictures), bool)
    others[rows] = False  # a made query is not about a picture of the index either
    real = likeness(pictures[others], sentences[:JUDGED])
    ours = likeness(np.asarray(corpus.vectors[: int(others.sum())]), corpus.queries[:JUDGED])
    return [
        Figure(f"cosine of neighbour {n}, {whose}", value)
        for whose, values in (("real", real), ("made", ours))
        for n, value in zip((1, 10, 1000), values, strict=True)
    ]


def image_id(number: int) -> str:
    """Return the id of a made picture."""
    return f"{number:064x}"


@dataclass
class Engine:
    """A local node in a folder of its own, which can be restarted."""

    home: Path
    local: LocalNode = field(init=False)

    def __post_init__(self) -> None:
        """Start nothing yet."""
        self.local = LocalNode(self.home, environ=os.environ)

    def up(self) -> float:
        """Start the node, and return after how many seconds it was ready."""
        return self.local.up(heap_mb=HEAP_MB, timeout_s=600).seconds

    def down(self) -> None:
        """Stop the node."""
        self.local.down(timeout_s=300)

    @property
    def client(self) -> Any:
        """A new client."""
        return connect(engine_settings({}, self.home), timeout_s=600)

    @property
    def process(self) -> psutil.Process:
        """The node's process."""
        running = self.local.running()
        assert running
        return psutil.Process(running.pid)

    def mapped_bytes(self) -> int:
        """Return how much of the index's files is in the memory of the node: the page cache that it uses."""
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
        return 1024 * (sizes["Rss"] - sizes["Anonymous"])

    def forget_files(self) -> None:
        """Let the system forget the files of the stopped node, so that the next start is a cold one."""
        subprocess.run(["sync"], check=True)
        for path in self.home.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _type(corpus: MadeVectors, home: Path, index_type: str, results: Results) -> Iterator[bool]:
    engine = Engine(home)
    with ExitStack() as ending:
        ending.callback(engine.down)
        engine.up()
        index = ImageIndex(engine.client, alias="million")
        try:
            index.create(META, IndexOptions(type=index_type))
        except EngineError as error:
            print(f"\n{index_type}: {error}")
            return
        yield results.keep(f"{index_type}, loading", load(engine, index, corpus))
        measured = Measured(engine, corpus, read_vector_field(engine.client, "million", "image_embedding"))
        figures, picks = tuned(measured)
        yield results.keep(f"{index_type}, tuning", figures)
        yield results.keep(f"{index_type}, searching", searching(measured, picks))
        yield results.keep(f"{index_type}, filters", filtered(measured, picks))
        yield results.keep(f"{index_type}, commands", commands(engine))
        yield results.keep(f"{index_type}, after a restart", cold(measured, picks))


def load(engine: Engine, index: ImageIndex, corpus: MadeVectors) -> list[Figure]:
    """Write all documents as an ingest does, with searches during the second half."""
    process = engine.process
    cpu = _cpu(process)
    client = engine.client
    begun, halved = time.perf_counter(), False
    ended = threading.Event()
    meanwhile: list[float] = []
    field = read_vector_field(client, "million", "image_embedding")
    searcher = threading.Thread(target=lambda: _meanwhile(client, field, corpus, meanwhile, ended))
    try:
        with index.bulk_load() as loading:
            for documents in _documents(corpus):
                assert not index.add(documents, only_new=True).failed
                loading.wrote(len(documents))
                if not halved and int(documents[-1].image_id, 16) >= VECTORS // 2:
                    index.refresh()
                    searcher.start()
                    halved = True
            written = time.perf_counter() - begun
    finally:
        ended.set()
        if halved:
            searcher.join()
    index.refresh()
    while client.indices.stats(index="million")["_all"]["total"]["merges"]["current"]:
        time.sleep(0.2)
    merged = time.perf_counter() - begun
    assert index.count() == VECTORS
    client.indices.flush(index="million")
    stats = client.indices.stats(index="million")["_all"]["primaries"]
    heap = client.nodes.stats(metric="jvm")["nodes"].popitem()[1]["jvm"]["mem"]
    off_heap = stats.get("dense_vector", {}).get("off_heap", {})
    return [
        Figure("documents a second, until all are written", VECTORS / written, "docs/s"),
        Figure("documents a second, until all is merged", VECTORS / merged, "docs/s"),
        Figure("CPU of Elasticsearch", _cpu(process) - cpu, "s"),
        Figure("segments", stats["segments"]["count"]),
        Figure("disk", stats["store"]["size_in_bytes"] / GIB, "GiB"),
        *(
            Figure(f"files of vectors, {name.removesuffix('_size_bytes')}", size / GIB, "GiB")
            for name, size in off_heap.items()
            if isinstance(size, int)
        ),
        Figure("heap in use", heap["heap_used_in_bytes"] / GIB, "GiB"),
        Figure("heap at most", heap["heap_max_in_bytes"] / GIB, "GiB"),
        *_latencies("a search while the second half is written", meanwhile),
    ]


def _documents(corpus: MadeVectors) -> Iterator[list[ImageDocument]]:
    now = datetime.now(UTC)
    for start in range(0, VECTORS, TOGETHER):
        rows = range(start, min(start + TOGETHER, VECTORS))
        yield [
            ImageDocument(
                image_id=image_id(row),
                image_name=f"{row}.jpg",
                relative_path=(f"{row // 1000}/{row}.jpg",),
                image_embedding=vector,
                width=4000,
                height=3000,
                size_bytes=3_000_000,
                indexed_at=now,
                phash=f"{row * 2654435761 % 2**64:016x}",
                tags=tuple(f"every {n}" for n in SHARES.values() if row % n == 0),
            )
            for row, vector in zip(rows, np.asarray(corpus.vectors[start : rows.stop]), strict=True)
        ]


def _meanwhile(
    client: Any, field: VectorField, corpus: MadeVectors, taken: list[float], ended: threading.Event
) -> None:
    number = 0
    while not ended.wait(0.25):
        query = corpus.queries[number % len(corpus.queries)]
        body = search_body(field, query, Setting(default_candidates(K)), k=K)
        begun = time.perf_counter()
        client.search(index="million", body=body)
        taken.append(1000 * (time.perf_counter() - begun))
        number += 1


@dataclass(frozen=True)
class Measured:
    """A loaded index."""

    engine: Engine
    corpus: MadeVectors
    field: VectorField

    def body(self, number: int, setting: Setting, filters: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
        """Return the search for one of the queries."""
        query = self.corpus.queries[number % len(self.corpus.queries)]
        return search_body(self.field, query, setting, k=K, filters=filters)


def tuned(measured: Measured) -> tuple[list[Figure], dict[float, Point]]:
    """Tune for each target, and return the picks."""
    figures: list[Figure] = []
    picks: dict[float, Point] = {}
    client = measured.engine.client
    for target in TARGETS:
        with peak() as memory, clock() as spent, point_in_time(client, "million") as view:
            tuning = tune(
                client,
                Subject(view, measured.field, K),
                Queries(measured.corpus.queries[:SAMPLES], "labelled"),
                goal=Goal(target=target, default=Setting(default_candidates(K))),
                say=lambda _: None,
            )
        figures += [
            Figure(f"recall@{K} ≥ {target}: one run of tuning", spent.wall, "s", "≤ 600"),
            Figure(f"recall@{K} ≥ {target}: memory that it adds", memory[0] / MIB, "MiB", "≤ 1024"),
        ]
        pick, held_out = tuning.pick, tuning.held_out
        if pick is None or held_out is None:
            best = max(tuning.points, key=lambda point: point.recall)
            figures.append(Figure(f"recall@{K} ≥ {target}: not reached; best", best.recall))
            continue
        picks[target] = pick
        figures += [
            Figure(f"recall@{K} ≥ {target}: num_candidates", pick.setting.num_candidates),
            Figure(f"recall@{K} ≥ {target}: oversample", pick.setting.oversample or 1.0),
            Figure(f"recall@{K} ≥ {target}: on queries kept apart", held_out.recall, "", f"≥ {target}"),
            Figure(f"recall@{K} ≥ {target}: vectors compared", pick.operations),
        ]
    return figures, picks


def searching(measured: Measured, picks: dict[float, Point]) -> list[Figure]:
    """Time searches at the picked settings, alone and in crowds, and the exact search."""
    figures: list[Figure] = []
    for target, pick in picks.items():
        bodies = [measured.body(number, pick.setting) for number in range(TIMED)]
        for users in USERS:
            begun = time.perf_counter()
            taken = crowd(measured.engine, bodies, users=users, seconds=CROWD_S)
            rate = len(taken) / (time.perf_counter() - begun)
            name = f"recall@{K} ≥ {target}, {users} user{'s' * (users > 1)}"
            figures += [*_latencies(name, taken), Figure(f"{name}: searches a second", rate)]
    figures.append(Figure("page cache that the node uses", measured.engine.mapped_bytes() / GIB, "GiB"))
    client = measured.engine.client
    with point_in_time(client, "million") as view:
        exact = exact_latency(
            client, Subject(view, measured.field, K), measured.corpus.queries, last_sequence=10 * VECTORS
        )
    figures.append(Figure("exact search: p50", exact.p50_ms, "ms"))
    figures += [
        Figure(f"p50 at recall@{K} ≥ {target} ÷ exact", _named(figures, target) / exact.p50_ms)
        for target in picks
    ]
    return figures


def _named(figures: Sequence[Figure], target: float) -> float:
    return next(each.value for each in figures if each.name == f"recall@{K} ≥ {target}, 1 user: p50")


def filtered(measured: Measured, picks: dict[float, Point]) -> list[Figure]:
    """Time searches with filters, and show their recall."""
    figures: list[Figure] = []
    client = measured.engine.client
    for share, every in SHARES.items():
        judged = measured.corpus.judged(JUDGED, every)
        filters = ({"term": {"tags": f"every {every}"}},)
        with point_in_time(client, "million") as view:
            subject = Subject(view, measured.field, K, filters)
            for target, pick in picks.items():
                recalls, _ = measure_recall(subject, judged, pick.setting)
                bodies = [measured.body(number, pick.setting, filters) for number in range(TIMED)]
                taken = crowd(measured.engine, bodies, users=1, seconds=CROWD_S)
                name = f"{share} pass, setting for {target}"
                figures += [Figure(f"{name}: recall", float(recalls.mean())), *_latencies(name, taken)]
    return figures


def commands(engine: Engine) -> list[Figure]:
    """Run the commands that measure an index, with their memory."""
    figures: list[Figure] = []
    for name, arguments in {
        "tune": ["tune", "--dry-run"],
        "advise": ["advise"],
        "duplicates": ["duplicates", "--json"],
    }.items():
        seconds, largest = _watched(engine, arguments)
        figures += [
            Figure(f"glimpse {name}", seconds, "s", "≤ 600"),
            Figure(f"glimpse {name}: largest resident memory", largest / MIB, "MiB", "≤ 1024"),
        ]
    return figures


def _watched(engine: Engine, arguments: list[str]) -> tuple[float, int]:
    environ = {**os.environ, "GLIMPSE_HOME": str(engine.home), "GLIMPSE_INDEX": "million"}
    begun, largest = time.perf_counter(), 0
    with subprocess.Popen(
        [sys.executable, "-m", "glimpse", *arguments], env=environ, stdout=subprocess.DEVNULL
    ) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                largest = max(largest, watched.memory_info().rss)
            time.sleep(0.1)
    assert process.returncode == 0, arguments
    return time.perf_counter() - begun, largest


def cold(measured: Measured, picks: dict[float, Point]) -> list[Figure]:
    """Restart the node with nothing of its files in memory, and time the first searches."""
    engine = measured.engine
    engine.down()
    engine.forget_files()
    begun = time.perf_counter()
    engine.up()
    ready = time.perf_counter() - begun
    setting = picks[min(picks)].setting if picks else Setting(default_candidates(K))
    client, taken = engine.client, list[float]()
    for number in range(TIMED):
        body = measured.body(number, setting)
        begun = time.perf_counter()
        client.search(index="million", body=body)
        taken.append(1000 * (time.perf_counter() - begun))
    return [
        Figure("node ready", ready, "s"),
        Figure("first search", taken[0], "ms"),
        *_latencies("searches 2 to 50", taken[1:50]),
        *_latencies("the last 100", taken[-100:]),
    ]


def crowd(engine: Engine, bodies: Sequence[dict[str, Any]], *, users: int, seconds: float) -> list[float]:
    """Return milliseconds of searches that so many users send, each one after the other.

    The requests are made ready before, and sent without the client, whose own work would count as well.
    """
    import urllib3

    running = engine.local.running()
    assert running
    ready = [json.dumps(body).encode() for body in bodies]
    end = time.perf_counter() + seconds
    taken: list[list[float]] = [[] for _ in range(users)]

    def ask(user: int) -> None:
        with urllib3.PoolManager(maxsize=1) as pool:
            number = user
            while time.perf_counter() < end:
                begun = time.perf_counter()
                answer = pool.request(
                    "POST",
                    f"{running.url}/million/_search",
                    body=ready[number % len(ready)],
                    headers={"content-type": "application/json"},
                )
                taken[user].append(1000 * (time.perf_counter() - begun))
                assert answer.status == 200, answer.data[:300]
                number += users

    threads = [threading.Thread(target=ask, args=(user,)) for user in range(users)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return [each for some in taken for each in some[3:]]  # without those that open the connection


def libraries(corpus: MadeVectors, folder: Path) -> list[Figure]:
    """Build the graphs of hnswlib and FAISS on the same vectors, each in a process of its own."""
    judged = corpus.judged(JUDGED)
    answers = folder / "truth.json"
    answers.write_text(json.dumps([sorted(right) for right in judged.truth.right]), encoding="utf-8")
    np.save(folder / "queries.npy", corpus.queries[:JUDGED])
    figures: list[Figure] = []
    for library in ("hnswlib", "faiss"):
        command = [sys.executable, "-m", "benchmarks.graph_library", library, str(folder), str(VECTORS)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"\n{library}: {done.stderr.strip().splitlines()[-1]}")
            continue
        figures += [Figure(f"{library}: {name}", value) for name, value in json.loads(done.stdout).items()]
    return figures or [Figure("graph libraries that are installed", 0)]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _latencies(name: str, taken: list[float]) -> list[Figure]:
    if not taken:
        return []
    return [
        Figure(f"{name}: p50", percentile(taken, 50), "ms"),
        Figure(f"{name}: p95", percentile(taken, 95), "ms"),
    ]
