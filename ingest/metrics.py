"""Measure a run while it goes on, and publish it for Prometheus on this machine alone."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ingest.errors import IngestError

if TYPE_CHECKING:
    from prometheus_client.core import Metric

LOOPBACK = "127.0.0.1"
STAGES = ("read", "decode", "embed", "write")
"""steps of a run: seconds of several threads add up"""
OUTCOMES = ("indexed", "skipped", "failed_before", "failed")
"""ends of a file; of those that are skipped the index has the content already"""


class RunMeter:
    """Totals of all runs of one process, such as the rounds of a watch. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._seconds: Counter[str] = Counter()
        self.queues: dict[str, Callable[[], int]] = {}
        """name -> how many items wait there at the moment"""
        self.rejections: Callable[[], int] = lambda: 0
        """returns how many operations Elasticsearch has turned away for the moment"""

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts, such as `indexed` and `bytes`."""
        with self._lock:
            self._counts.update(counts)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the body to a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[stage] += time.perf_counter() - begin  # type: ignore[assignment]

    def merge(self, counts: Mapping[str, int], seconds: Mapping[str, float]) -> None:
        """Add the totals of another process."""
        with self._lock:
            self._counts.update(counts)
            for stage, spent in seconds.items():
                self._seconds[stage] += spent  # type: ignore[assignment]

    def totals(self) -> tuple[dict[str, int], dict[str, float]]:
        """Return the counts, and the seconds by stage."""
        with self._lock:
            return dict(self._counts), dict(self._seconds)


class RunCollector:
    """Turns the totals of a meter into metrics when Prometheus asks."""

    def __init__(self, meter: RunMeter) -> None:
        self._meter = meter

    def collect(self) -> Iterable[Metric]:
        """Yield the metrics as they are now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        counts, seconds = self._meter.totals()
        files = CounterMetricFamily(
            "glimpse_ingest_files", "Files that were looked at, by outcome.", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            files.add_metric([outcome], counts.get(outcome, 0))
        yield files
        for name, text in (
            ("embedded", "Vectors made of pictures."),
            ("bytes", "Bytes of files and objects that were read."),
        ):
            yield CounterMetricFamily(f"glimpse_ingest_{name}", text, value=counts.get(name, 0))
        yield CounterMetricFamily(
            "glimpse_ingest_bulk_rejections",
            "Operations that Elasticsearch turned away for the moment, and that were sent again.",
            value=self._meter.rejections(),
        )
        stages = CounterMetricFamily(
            "glimpse_ingest_stage_seconds", "Seconds of all threads, by stage.", labels=["stage"]
        )
        for stage in STAGES:
            stages.add_metric([stage], seconds.get(stage, 0.0))
        yield stages
        queues = GaugeMetricFamily("glimpse_ingest_queue", "Items that wait, by queue.", labels=["queue"])
        for name, length in list(self._meter.queues.items()):
            queues.add_metric([name], length())
        yield queues


@contextmanager
def published(meter: RunMeter, port: int | None) -> Iterator[None]:
    """Publish a meter at `/metrics` of a port of this machine, if there is one, until the end of the body.

    Raises `IngestError` when the port is taken.
    """
    if port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(RunCollector(meter))
    try:
        server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    except (OSError, OverflowError) as error:
        raise IngestError(
            f"Metrics cannot be published on port {port} of this machine ({error}): choose another with"
            " --metrics-port."
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
