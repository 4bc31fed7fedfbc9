"""A started deployment on the local node: a TorchScript behind a bounded queue, run by its own threads."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from es_config.local_node.ml.requests import DeploymentParameters
from es_config.local_node.ml.tokenizer import Tokens, WordPieceTokenizer
from es_config.local_node.rest import RestError

WARM_UP_RUNS = 3
"""TorchScript compiles itself during its first runs"""


@dataclass(frozen=True)
class Embedding:
    """What the model gave for one text."""

    vector: list[float]
    is_truncated: bool


@dataclass
class Counters:
    """What `_stats` tells of a deployment."""

    inference_count: int = 0
    inference_ms: float = 0.0
    error_count: int = 0
    rejected_execution_count: int = 0
    timeout_count: int = 0
    last_access: int = 0
    """milliseconds since 1970, 0 before the first inference"""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, milliseconds: float = 0.0, **counts: int) -> None:
        """Count what happened, from any thread."""
        with self.lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)
            self.inference_ms += milliseconds
            self.last_access = int(time.time() * 1000)


class Deployment:
    """Runs the model of `definition`, every text on its own: no vector depends on its neighbours.

    Raises `RuntimeError` when the definition is not a TorchScript that takes such tokens.
    """

    def __init__(
        self,
        *,
        config: dict[str, Any],
        definition: Path,
        tokenizer: WordPieceTokenizer,
        parameters: DeploymentParameters,
    ) -> None:
        self.config = config
        self.parameters = parameters
        self.counters = Counters()
        self.start_time = int(time.time() * 1000)
        self._tokenizer = tokenizer
        self._model = _load(definition)
        for _ in range(WARM_UP_RUNS):
            self._run(tokenizer.encode("a picture"))
        self._queue: queue.Queue[tuple[Future, Tokens] | None] = queue.Queue(parameters.queue_capacity)
        self._free = threading.Semaphore(parameters.number_of_allocations)
        self._threads = [
            threading.Thread(target=self._work, name=f"glimpse-inference-{number}", daemon=True)
            for number in range(parameters.number_of_allocations)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pending(self) -> int:
        """Texts that wait in the queue."""
        return self._queue.qsize()

    def infer(self, texts: Sequence[str], *, truncate: str, timeout_s: float) -> list[Embedding]:
        """Return one embedding for each text; any failure fails all of them, as in Elasticsearch.

        Raises `RestError`: 400 too long, 408 out of time, 429 queue full, 500 the model failed.
        """
        deadline = time.monotonic() + timeout_s
        encoded = [self._tokenizer.encode(text, truncate=truncate) for text in texts]
        futures = self._run_at_once(encoded) or self._submit(encoded)
        try:
            vectors = [future.result(max(0.0, deadline - time.monotonic())) for future in futures]
            if time.monotonic() > deadline:
                raise FutureTimeoutError
        except FutureTimeoutError as error:
            self._give_up(futures, timeout_count=1)
            reason = f"timeout [{timeout_s:g}s] waiting for inference result"
            raise RestError(408, reason) from error
        except RuntimeError as error:
            self._give_up(futures, error_count=1)
            reason = f"Error in inference process: [{_first_line(error)}]"
            raise RestError(500, reason) from error
        return [
            Embedding(vector, tokens.is_truncated) for vector, tokens in zip(vectors, encoded, strict=True)
        ]

    def close(self) -> None:
        """Let the running texts end, and refuse those that wait."""
        while True:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                break
            if waiting is not None and waiting[0].set_running_or_notify_cancel():
                waiting[0].set_exception(RuntimeError("the deployment was stopped"))
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout=10)

    def _run_at_once(self, encoded: list[Tokens]) -> list[Future] | None:
        """Run a single text in the caller's own thread where an allocation is free: two hand-overs less."""
        if len(encoded) != 1 or not self._queue.empty() or not self._free.acquire(blocking=False):
            return None
        try:
            future: Future = Future()
            self._use_threads()
            self._finish(future, encoded[0])
            return [future]
        finally:
            self._free.release()

    def _submit(self, encoded: list[Tokens]) -> list[Future]:
        futures: list[Future] = []
        for tokens in encoded:
            future: Future = Future()
            try:
                self._queue.put_nowait((future, tokens))
            except queue.Full as error:
                self._give_up(futures, rejected_execution_count=1)
                reason = "inference process queue is full. Unable to execute command"
                raise RestError(429, reason, "es_rejected_execution_exception") from error
            futures.append(future)
        return futures

    def _give_up(self, futures: list[Future], **counts: int) -> None:
        self.counters.add(**counts)
        for future in futures:
            future.cancel()

    def _work(self) -> None:
        self._use_threads()
        while (job := self._queue.get()) is not None:
            future, tokens = job
            with self._free:
                if future.set_running_or_notify_cancel():
                    self._finish(future, tokens)

    def _use_threads(self) -> None:
        """Bound torch's own threads; it holds for the thread that says it."""
        import torch

        if torch.get_num_threads() != self.parameters.threads_per_allocation:
            torch.set_num_threads(self.parameters.threads_per_allocation)

    def _finish(self, future: Future, tokens: Tokens) -> None:
        started = time.perf_counter()
        try:
            future.set_result(self._run(tokens))
            self.counters.add(inference_count=1, milliseconds=(time.perf_counter() - started) * 1000)
        except Exception as error:  # whatever an uploaded model raises must not end this thread
            future.set_exception(RuntimeError(_first_line(error)))

    def _run(self, tokens: Tokens) -> list[float]:
        import torch

        length = len(tokens.ids)
        ids = torch.tensor([tokens.ids], dtype=torch.long)
        ones = torch.ones_like(ids)
        extra = (torch.zeros_like(ids), torch.arange(length).unsqueeze(0))
        with torch.inference_mode():
            output = self._model(*(ids, ones, *extra)[: self._tokenizer.kind.inputs])
        tensor = output[0] if isinstance(output, tuple) else output
        return tensor.float().reshape(-1, tensor.shape[-1])[0].tolist()


def _load(definition: Path) -> Any:
    import torch

    return torch.jit.load(str(definition), map_location="cpu").eval()


def _first_line(error: Exception) -> str:
    """Return the last line that says something: TorchScript puts the Python error below its own stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
