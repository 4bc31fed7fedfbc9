"""A started model of the local node: its tokenizer, its TorchScript, and the texts that wait for it."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from es_config.local_node.rest import RestError

MAX_THREADS = max(8, os.cpu_count() or 1)
MAX_THREADS_PER_ALLOCATION = 32
MAX_QUEUE = 100_000
TRUNCATE = ("first", "second", "none", "balanced")
WARM_UP_RUNS = 3
"""TorchScript compiles itself during its first runs"""
MAX_WORD = 100
"""letters; a longer word is unknown"""


@dataclass(frozen=True)
class TokenizationKind:
    """The special tokens of a tokenization, and the number of tensors that its models take."""

    start: str
    end: str
    pad: str
    mask: str
    inputs: int
    unknown: str = "[UNK]"


KINDS = {
    "bert": TokenizationKind(start="[CLS]", end="[SEP]", pad="[PAD]", mask="[MASK]", inputs=4),
    "mpnet": TokenizationKind(start="<s>", end="</s>", pad="<pad>", mask="<mask>", inputs=2),
}


@dataclass(frozen=True)
class TokenIds:
    """The tokens of one text, special ones included."""

    ids: tuple[int, ...]
    is_truncated: bool


class WordPieceTokenizer:
    """Tokenizes with an uploaded vocabulary of kind `bert` or `mpnet`.

    The reference implementation and Elasticsearch give the same tokens for a plain text: one without emoji,
    control characters and no-break spaces. Raises `RestError` 409 if the vocabulary lacks a special token.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        kind: TokenizationKind,
        do_lower_case: bool = False,
        with_special_tokens: bool = True,
        max_sequence_length: int = 512,
        truncate: str = "first",
    ) -> None:
        from tokenizers import AddedToken, Tokenizer
        from tokenizers.models import WordPiece
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        self.kind = kind
        self._longest, self._is_strict = max_sequence_length, truncate == "none"
        special = (kind.start, kind.end) if with_special_tokens else ()
        ids = {word: number for number, word in enumerate(vocabulary)}
        for token in (kind.unknown, kind.pad, *special):
            if token not in ids:
                raise RestError(409, f"stored vocabulary is missing required [{token}] token")
        self._special = [ids[token] for token in special]
        model = WordPiece(vocab=ids, unk_token=kind.unknown, max_input_chars_per_word=MAX_WORD)
        self._tokenizer = Tokenizer(model)
        self._tokenizer.normalizer = BertNormalizer(lowercase=do_lower_case)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()
        if kind.mask in ids:
            self._tokenizer.add_special_tokens([AddedToken(kind.mask, normalized=False)])

    def encode(self, text: str, *, truncate: str | None = None) -> TokenIds:
        """Return the ids of `text`, cut to the longest sequence. With `truncate="none"` it raises 400.

        `truncate` replaces the tokenizer's own for this text.
        """
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        length, room = len(ids) + len(self._special), self._longest - len(self._special)
        is_strict = self._is_strict if truncate is None else truncate == "none"
        if length > self._longest and is_strict:
            limits = f"[{length}] exceeds the maximum sequence length [{self._longest}]"
            raise RestError(400, f"Input too large. The tokenized input length {limits}")
        start, end = self._special[:1], self._special[1:]
        return TokenIds((*start, *ids[:room], *end), is_truncated=length > self._longest)


@dataclass(frozen=True)
class DeploymentParameters:
    """The size of a deployment: worker threads, torch threads for each of them, places in the queue."""

    number_of_allocations: int = 1
    threads_per_allocation: int = 1
    queue_capacity: int = 10_000
    priority: str = "normal"
    cache_size: str | None = None
    """shown as it was given; there is no cache"""

    def faults(self) -> list[str]:
        """Return everything that Elasticsearch would refuse, in its words."""
        threads, faults = self.threads_per_allocation, []
        if self.number_of_allocations < 1:
            faults.append("[number_of_allocations] must be a positive integer")
        if threads < 1:
            faults.append("[threads_per_allocation] must be a positive integer")
        if threads > MAX_THREADS_PER_ALLOCATION or threads.bit_count() != 1:
            limit = f"must be a power of 2 less than or equal to {MAX_THREADS_PER_ALLOCATION}"
            faults.append(f"[threads_per_allocation] {limit}")
        if self.queue_capacity < 1:
            faults.append("[queue_capacity] must be a positive integer")
        if self.queue_capacity > MAX_QUEUE:
            faults.append(f"[queue_capacity] must be less than {MAX_QUEUE}")
        for name in ("number_of_allocations", "threads_per_allocation"):
            if self.priority == "low" and getattr(self, name) > 1:
                faults.append(f"[{name}] must be 1 when [priority] is low")
        return faults

    def check(self) -> None:
        """Raise `RestError`: 400 for values that Elasticsearch refuses, 429 for too many threads."""
        if faults := self.faults():
            raise RestError.of_faults(faults)
        if self.number_of_allocations * self.threads_per_allocation > MAX_THREADS:
            raise RestError(
                429,
                "Could not start deployment because there are not enough resources to provide all requested"
                " allocations: [number_of_allocations] times [threads_per_allocation] must be at most"
                f" {MAX_THREADS} here",
            )


class Deployment:
    """Runs a TorchScript, one text at a time in each worker: no vector depends on its neighbours.

    Raises `RuntimeError` if the definition is not a TorchScript that takes such tokens.
    """

    def __init__(
        self,
        config: dict[str, Any],
        definition: Path,
        tokenizer: WordPieceTokenizer,
        parameters: DeploymentParameters,
    ) -> None:
        import torch

        self.config = config
        self.parameters = parameters
        self.counts: Counter[str] = Counter()
        """the events that `_stats` shows, such as `inference_count`"""
        self.inference_ms = 0.0
        """milliseconds that all inferences took together"""
        self.start_time = int(time.time() * 1000)
        self._tokenizer = tokenizer
        self._model = torch.jit.load(str(definition), map_location="cpu").eval()
        for _ in range(WARM_UP_RUNS):
            self._run(tokenizer.encode("a picture"))
        self._lock = threading.Lock()
        self._unfinished: set[Future[list[float]]] = set()
        # A thread bounds torch's threads for itself alone.
        self._workers = ThreadPoolExecutor(
            parameters.number_of_allocations,
            thread_name_prefix="glimpse-inference",
            initializer=torch.set_num_threads,
            initargs=(parameters.threads_per_allocation,),
        )

    @property
    def pending(self) -> int:
        """Texts that wait in the queue."""
        return max(0, len(self._unfinished) - self.parameters.number_of_allocations)

    def infer(
        self, texts: Sequence[str], *, timeout_s: float, truncate: str | None = None
    ) -> list[tuple[list[float], bool]]:
        """Return (vector, whether the text was cut) for each text, or fail as a whole.

        `truncate` replaces the model's own for this request.
        Raises `RestError`: 400 text too long, 408 out of time, 429 queue full, 500 the model failed.
        """
        deadline = time.monotonic() + timeout_s
        encoded = [self._tokenizer.encode(text, truncate=truncate) for text in texts]
        futures: list[Future[list[float]]] = []
        try:
            futures = self._submit(encoded)
            vectors = [future.result(max(0.0, deadline - time.monotonic())) for future in futures]
        except TimeoutError as error:
            self._count("timeout_count")
            raise RestError(408, f"timeout [{timeout_s:g}s] waiting for inference result") from error
        except (RuntimeError, CancelledError) as error:
            self._count("error_count")
            reason = str(error) or "the deployment was stopped"
            raise RestError(500, f"Error in inference process: [{reason}]") from error
        finally:
            for future in futures:
                future.cancel()
        return [(vector, tokens.is_truncated) for vector, tokens in zip(vectors, encoded, strict=True)]

    def go_on_from(self, before: Deployment) -> None:
        """Take over the counts and the start of the deployment that this one replaces."""
        self.counts, self._lock = before.counts, before._lock
        self.inference_ms, self.start_time = before.inference_ms, before.start_time

    def close(self, *, finish_pending_work: bool = False) -> None:
        """Let the texts that run end by themselves, and refuse or finish those that wait."""
        self._workers.shutdown(wait=False, cancel_futures=not finish_pending_work)

    def _submit(self, encoded: list[TokenIds]) -> list[Future[list[float]]]:
        """Queue all texts of a request, or none."""
        room = self.parameters.number_of_allocations + self.parameters.queue_capacity
        with self._lock:
            if len(self._unfinished) + len(encoded) <= room:
                futures = [self._workers.submit(self._timed_run, tokens) for tokens in encoded]
                self._unfinished.update(futures)
                for future in futures:
                    future.add_done_callback(self._unfinished.discard)
                return futures
        self._count("rejected_execution_count")
        reason = "inference process queue is full. Unable to execute command"
        raise RestError(429, reason, "es_rejected_execution_exception")

    def _count(self, event: str, *, milliseconds: float = 0.0) -> None:
        with self._lock:
            self.counts[event] += 1
            self.inference_ms += milliseconds

    def _timed_run(self, tokens: TokenIds) -> list[float]:
        started = time.perf_counter()
        try:
            vector = self._run(tokens)
        except Exception as error:  # an uploaded model may raise anything
            raise RuntimeError(last_line(error)) from error
        self._count("inference_count", milliseconds=(time.perf_counter() - started) * 1000)
        return vector

    def _run(self, tokens: TokenIds) -> list[float]:
        import torch

        ids = torch.tensor([tokens.ids], dtype=torch.long)
        inputs = (ids, torch.ones_like(ids), torch.zeros_like(ids), torch.arange(len(tokens.ids))[None])
        with torch.inference_mode():
            output = self._model(*inputs[: self._tokenizer.kind.inputs])
        tensor = output[0] if isinstance(output, tuple) else output
        vector: list[float] = tensor.float().reshape(-1, tensor.shape[-1])[0].tolist()
        return vector


def last_line(error: Exception) -> str:
    """Return the last line of an error: TorchScript puts the Python error below its own stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
