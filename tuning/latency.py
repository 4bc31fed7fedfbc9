"""The latency pass: all settings in turn, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import cycle, islice
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from es_config.client import engine_errors
from es_config.exact import exact_by_sequence, has_painless, script_body
from tuning.points import Latency, Setting

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

    from tuning.sweep import Subject

MANY = 1000
"""samples from which a 99th percentile is worth its name"""
WARM_UP = 10
"""requests of each setting that are sent first and not counted"""
EXACT_SAMPLES, EXACT_SECONDS, FEWEST_EXACT = 30, 10.0, 3

Key = TypeVar("Key")
Request = TypeVar("Request")


def latencies(
    client: Elasticsearch,
    searches: Mapping[Key, list[tuple[str, dict[str, Any]]]],
    *,
    rounds: int,
    seed: int = 0,
) -> dict[Key, Latency]:
    """Return what the searches of each key (index and body) take, asked in turn. Raises EngineError."""
    taken = interleaved(lambda search: send(client, *search), searches, rounds=rounds, seed=seed)
    return {key: summary(samples) for key, samples in taken.items()}


def interleaved(
    send: Callable[[Request], object],
    requests: Mapping[Key, list[Request]],
    *,
    rounds: int,
    seed: int = 0,
    warm_up: int = WARM_UP,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, list[float]]:
    """Return milliseconds of `rounds` requests of each key.

    In every round each key sends its next request, in an order drawn anew: none is always the one that runs
    after a slow neighbour. Requests are used again when there are fewer than rounds.
    """
    random = Random(seed)
    taken: dict[Key, list[float]] = {key: [] for key in requests}
    upcoming = {key: islice(cycle(each), warm_up + rounds) for key, each in requests.items()}
    for turn in range(warm_up + rounds):
        for key in random.sample(list(requests), len(requests)):
            request = next(upcoming[key])
            begin = clock()
            send(request)
            if turn >= warm_up:
                taken[key].append(1000 * (clock() - begin))
    return taken


def summary(samples: list[float]) -> Latency:
    """Return the percentiles of milliseconds, interpolated between the nearest ranks."""
    import numpy as np

    p50, p95, p99 = np.percentile(samples, [50, 95, 99]).tolist()
    return Latency(p50, p95, p99 if len(samples) >= MANY else None, len(samples))


def send(client: Elasticsearch, index: str, body: dict[str, Any]) -> object:
    """Send a search to an index as it is now. Raises EngineError."""
    with engine_errors():
        return client.search(index=index, body=body)


def exact_latency(
    client: Elasticsearch, subject: Subject, queries: np.ndarray, *, last_sequence: int
) -> Latency:
    """Return milliseconds of the server's exact search: 30 requests, fewer when they take over 10 s together.

    Raises EngineError.
    """
    scripts = not subject.field.is_exact and has_painless(client)
    taken: list[float] = []
    started = time.perf_counter()
    for query in queries[: EXACT_SAMPLES + 1]:
        body = _exact_body(subject, query, last_sequence=last_sequence, scripts=scripts)
        begin = time.perf_counter()
        send(client, subject.field.index, body)
        taken.append(1000 * (time.perf_counter() - begin))
        if len(taken) > FEWEST_EXACT and time.perf_counter() - started > EXACT_SECONDS:
            break
    return summary(taken[1:] or taken)  # the first one warms up


def _exact_body(subject: Subject, query: np.ndarray, *, last_sequence: int, scripts: bool) -> dict[str, Any]:
    field = subject.field
    if field.is_exact:
        return subject.body(query, Setting(subject.k))
    common = {"field": field.name, "query_vector": query, "k": subject.k, "filters": subject.filters}
    if scripts:
        return script_body(similarity=field.similarity, **common)
    return exact_by_sequence(last_sequence=last_sequence, **common)
