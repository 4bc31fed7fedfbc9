"""Searches through `glimpse serve` beside the same kNN requests sent raw, in turn, by wall clock and by CPU.

A search by words is compared with encoding the words here and sending the vector, one by a picture of the
index with the raw request alone. Both go over a connection that stays open, and both answers are parsed. The
text models are `pocket`, the smallest there is, and one of the size of the `clip` profile's with random
weights.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from benchmarks.engine import fresh_index, node
from benchmarks.report import Figure, percentile, show
from benchmarks.serving import glimpse_serve
from es_config.documents import ImageDocument, IndexMeta, IndexOptions
from es_config.home import find_running
from es_config.requests import knn_body
from models.fast.standalone import load_quick_text_encoder
from models.profiles import Profile, get_profile
from search_app.core.searcher import SOURCE

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
DOCUMENTS = 5000
TURNS = int(os.environ.get("GLIMPSE_BENCH_TURNS", "1500"))
WARM_UP = 200
K, CANDIDATES = 10, 100
TEXT_RATIO, ADDED_MS = "≤ 1.15", "≤ 1"


@dataclass
class Spent:
    """Milliseconds of each turn, by wall clock and by CPU of all processes that take part."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def main() -> bool:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="glimpse-bench-") as folder, node(Path(folder)) as (client, url):
        return all(
            [
                _measure(Path(folder), client, url, get_profile("pocket"), by_id=True),
                _measure(Path(folder), client, url, _as_large_as_clip(Path(folder))),
            ]
        )


def _as_large_as_clip(home: Path) -> Profile:
    """Return profile `clip` with a text tower of its size and random weights, which knows a few words."""
    from model_folders import save_text_tower, save_vision_tower

    save_vision_tower(home / "clip" / "image", dims=512)
    save_text_tower(home / "clip" / "text", dims=512, hidden=768, layers=6)
    return get_profile("clip", model_dir=home / "clip")


def _measure(home: Path, client: Any, url: str, profile: Profile, *, by_id: bool = False) -> bool:
    """Print the figures of one profile, and return whether its targets are met."""
    with fresh_index(client) as index:
        _fill(index, profile)
        texts = load_quick_text_encoder(profile, cache=home / "cache")
        texts.embed_texts(["a picture"])
        options = ["--index", index.alias]
        if (home / profile.name).exists():
            options += ["--profile", profile.name, "--model-dir", str(home / profile.name)]
        with (
            glimpse_serve(home, *options) as (port, server),
            closing(HTTPConnection("127.0.0.1", port)) as page,
            closing(HTTPConnection(urlsplit(url).netloc)) as raw,
        ):
            asked = Asked(page, raw, index.name(), texts)
            clocks = [_cpu_clock(server), _cpu_clock(find_running(home).pid)]
            words = _in_turn(asked.by_words, asked.by_words_raw, _sentences(WARM_UP + TURNS), clocks)
            what = f"{DOCUMENTS} documents × {profile.dims}, k {K}, num_candidates {CANDIDATES}"
            name = f"search by words, text model of {profile.name}, {what}"
            met = show(name, _figures("encoding + raw", *words))
            if by_id:
                ids = [_id(n * 7 % DOCUMENTS) for n in range(WARM_UP + TURNS)]
                pictures = _in_turn(asked.by_id, asked.by_id_raw, ids, clocks)
                met &= show(f"search by image id, {what}", _figures("raw", *pictures, by_words=False))
            return met


def _figures(name: str, rest: Spent, raw: Spent, *, by_words: bool = True) -> list[Figure]:
    pairs = list(zip(rest.wall, raw.wall, strict=True))
    added = percentile([a - b for a, b in pairs], 50)
    ratio = percentile([a / b for a, b in pairs], 50)
    return [
        Figure(f"{name}, p50", percentile(raw.wall, 50), "ms"),
        Figure("through REST, p50", percentile(rest.wall, 50), "ms"),
        Figure("REST ÷ that, p50", percentile(rest.wall, 50) / percentile(raw.wall, 50)),
        Figure("REST ÷ that, p50 of the pairs", ratio, "", TEXT_RATIO if by_words else ""),
        Figure("REST − that, p50 of the pairs", added, "ms", "" if by_words else ADDED_MS),
        Figure(f"{name}, mean of the processors", float(np.mean(raw.cpu)), "ms"),
        Figure("through REST, mean of the processors", float(np.mean(rest.cpu)), "ms"),
    ]


@dataclass(frozen=True)
class Asked:
    """The four ways to ask. Each returns the ids of its hits."""

    page: HTTPConnection
    raw: HTTPConnection
    index: str
    texts: Any

    def by_words(self, words: str) -> list[str]:
        """Ask the server for words."""
        return self._rest(f"q={quote(words)}")

    def by_id(self, image_id: str) -> list[str]:
        """Ask the server for pictures like one of the index."""
        return self._rest(f"like={image_id}")

    def _rest(self, asked: str) -> list[str]:
        self.page.request("GET", f"/api/v1/search?{asked}&k={K}&num_candidates={CANDIDATES}")
        return [hit["image_id"] for hit in json.loads(self.page.getresponse().read())["hits"]]

    def by_words_raw(self, words: str) -> list[str]:
        """Encode words, and send the vector."""
        return self._knn(query_vector=self.texts.embed_texts([words])[0])

    def by_id_raw(self, image_id: str) -> list[str]:
        """Let Elasticsearch look a vector up."""
        return self._knn(like_id=image_id, index=self.index)

    def _knn(self, **subject: Any) -> list[str]:
        body = knn_body(**subject, k=K, num_candidates=CANDIDATES) | {"_source": SOURCE}
        head = {"Content-Type": "application/json"}
        self.raw.request("POST", f"/{self.index}/_search", json.dumps(body).encode(), head)
        return [hit["_id"] for hit in json.loads(self.raw.getresponse().read())["hits"]["hits"]]


def _in_turn(
    rest: Callable[[str], list[str]],
    raw: Callable[[str], list[str]],
    asked: Sequence[str],
    clocks: Sequence[int],
) -> tuple[Spent, Spent]:
    """Ask both ways, each as often first as second, and compare their hits."""
    spent = Spent(), Spent()
    for turn, each in enumerate(asked):
        found = {}
        for way in (0, 1) if turn % 2 else (1, 0):
            cpu, wall = _cpu(clocks), time.perf_counter()
            found[way] = (rest, raw)[way](each)
            wall, cpu = time.perf_counter() - wall, _cpu(clocks) - cpu
            if turn >= WARM_UP:
                spent[way].wall.append(1000 * wall)
                spent[way].cpu.append(1000 * cpu)
        assert found[0] == found[1], each
    return spent


def _cpu_clock(pid: int) -> int:
    """Return the clock of another process's CPU time, as Linux numbers it."""
    return (~pid << 3) | 2


def _cpu(clocks: Sequence[int]) -> float:
    return time.process_time() + sum(map(time.clock_gettime, clocks))


def _sentences(number: int) -> list[str]:
    """Return as many different lines of eight words, so that none is remembered from an earlier turn."""
    from model_folders import WORDS

    rng = Random("search")
    found: dict[str, None] = {}
    while len(found) < number:
        found[" ".join(rng.choices(WORDS, k=8))] = None
    return list(found)


def _fill(index, profile: Profile) -> None:
    index.create(
        IndexMeta(profile.name, {}, profile.dims, profile.caption_dims, profile.similarity), IndexOptions()
    )
    vectors = np.random.default_rng(0).normal(size=(DOCUMENTS, profile.dims)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index.add([_document(n, vector) for n, vector in enumerate(vectors)])
    index.refresh()


def _id(number: int) -> str:
    return f"{number:064x}"


def _document(number: int, vector: np.ndarray) -> ImageDocument:
    return ImageDocument(
        image_id=_id(number),
        image_name=f"{number}.jpg",
        relative_path=(f"folder/{number}.jpg",),
        image_embedding=vector,
        width=512,
        height=512,
        size_bytes=1,
        indexed_at=datetime.now(UTC),
    )
