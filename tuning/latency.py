"""The latency pass: all settings in turn, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import cycle, islice
from random import Random
from typing import TypeVar

from tuning.points import Latency

MANY = 1000
"""samples from which a 99th percentile is worth its name"""
WARM_UP = 10
"""requests of each setting that are sent first and not counted"""

Key = TypeVar("Key")
Request = TypeVar("Request")


def percentile(samples: list[float], q: float) -> float:
    """Return the q-th percentile (0 to 100) by linear interpolation between the nearest ranks."""
    ordered = sorted(samples)
    place = q / 100 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(samples: list[float]) -> Latency:
    """Return the percentiles of milliseconds."""
    p99 = percentile(samples, 99) if len(samples) >= MANY else None
    return Latency(percentile(samples, 50), percentile(samples, 95), p99, len(samples))


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
