"""How long the server's own exact search takes: what approximate search is compared with."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from es_config.client import engine_errors
from es_config.exact import exact_by_sequence, has_painless, script_body
from tuning.latency import summary
from tuning.points import Latency, Setting

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

    from tuning.sweep import Subject

SAMPLES = 30
SECONDS = 10.0
FEWEST = 3


def exact_latency(
    client: Elasticsearch, subject: Subject, queries: np.ndarray, *, last_sequence: int
) -> Latency:
    """Return milliseconds of the exact search: 30 requests, fewer when they take over 10 s together."""
    scripts = not subject.field.is_exact and has_painless(client)
    bodies = [
        _body(subject, query, last_sequence=last_sequence, scripts=scripts)
        for query in queries[: SAMPLES + 1]
    ]
    taken: list[float] = []
    started = time.perf_counter()
    for body in bodies:
        begin = time.perf_counter()
        with engine_errors():
            client.search(index=subject.field.index, body=body)
        taken.append(1000 * (time.perf_counter() - begin))
        if len(taken) > FEWEST and time.perf_counter() - started > SECONDS:
            break
    return summary(taken[1:] or taken)  # the first one warms up


def _body(subject: Subject, query: np.ndarray, *, last_sequence: int, scripts: bool) -> dict[str, Any]:
    field = subject.field
    if field.is_exact:
        return subject.body(query, Setting(subject.k))
    common = {"field": field.name, "query_vector": query, "k": subject.k, "filters": subject.filters}
    if scripts:
        return script_body(similarity=field.similarity, **common)
    return exact_by_sequence(last_sequence=last_sequence, **common)
