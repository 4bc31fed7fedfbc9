"""A started model of the local node: its tokenizer, its TorchScript, and the texts that wait for it."""

from __future__ import annotations

import threading
import time
import unicodedata
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from es_config.local_node.rest import RestError

WARM_UP_RUNS = 3
"""TorchScript compiles itself during its first runs"""

MAX_CHUNK = 512
"""letters between two white spaces, after which Elasticsearch's tokenizers cut"""
MAX_WORD = 100
DROPPED = ("Cc", "Cf", "Co", "Cs")
SPACES = ("Zs", "Zl", "Zp")
NO_BREAK_SPACES = "\u00a0\u2007\u202f"
SINGLE_LETTER_WORDS = "[!-/:-@\\[-`{-~\\p{P}\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
"""punctuation and ideographs"""


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
    """Tokenizes as Elasticsearch does with an uploaded vocabulary of kind `bert` or `mpnet`.

    Elasticsearch differs from the reference implementation in a few characters: it drops those beyond the
    Basic Multilingual Plane (emoji) and control characters, does not split at no-break spaces, and recognises
    only the mask token in a text. Raises `RestError` 409 if the vocabulary lacks a special token.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        kind: TokenizationKind,
        do_lower_case: bool = False,
        with_special_tokens: bool = True,
        max_sequence_length: int = 512,
    ) -> None:
        self.kind = kind
        self.max_sequence_length = max_sequence_length
        special = (kind.start, kind.end) if with_special_tokens else ()
        known = set(vocabulary)
        for token in (kind.unknown, kind.pad, *special):
            if token not in known:
                raise RestError(409, f"stored vocabulary is missing required [{token}] token")
        kept = {kind.unknown, kind.mask, *special}
        ids = {
            word.lower() if do_lower_case and word not in kept else word: number
            for number, word in enumerate(vocabulary)
        }
        self._special = [ids[token] for token in special]
        self._tokenizer = _tokenizer(ids, kind, do_lower_case=do_lower_case)

    def encode(self, text: str, *, truncate: str = "first") -> TokenIds:
        """Return the ids of `text`, cut to `max_sequence_length`; with `truncate="none"` raise 400."""
        ids = self._tokenizer.encode(_chunks(text), is_pretokenized=True, add_special_tokens=False).ids
        length, room = len(ids) + len(self._special), self.max_sequence_length - len(self._special)
        if length > self.max_sequence_length and truncate == "none":
            raise RestError(
                400,
                f"Input too large. The tokenized input length [{length}] exceeds the maximum sequence length"
                f" [{self.max_sequence_length}]",
            )
        start, end = self._special[:1], self._special[1:]
        return TokenIds((*start, *ids[:room], *end), is_truncated=length > self.max_sequence_length)


def _tokenizer(ids: dict[str, int], kind: TokenizationKind, *, do_lower_case: bool) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import Split

    made = Tokenizer(WordPiece(vocab=ids, unk_token=kind.unknown, max_input_chars_per_word=MAX_WORD))
    if do_lower_case:
        made.normalizer = BertNormalizer(clean_text=False, handle_chinese_chars=False)
    made.pre_tokenizer = Split(Regex(SINGLE_LETTER_WORDS), "isolated")
    if kind.mask in ids:
        made.add_special_tokens([AddedToken(kind.mask, normalized=False)])
    return made


def _chunks(text: str) -> list[str]:
    """Drop characters that Elasticsearch drops, and cut at Java's white space and after 512 letters."""
    letters = []
    for letter in text:
        category = unicodedata.category(letter)
        if letter in "\n\r\t" or (category in SPACES and letter not in NO_BREAK_SPACES):
            letters.append(" ")
        elif ord(letter) <= 0xFFFF and category not in DROPPED:
            letters.append(letter)
    words = "".join(letters).split(" ")
    return [word[i : i + MAX_CHUNK] for word in words for i in range(0, len(word), MAX_CHUNK)]


@dataclass(frozen=True)
class DeploymentParameters:
    """The size of a deployment: worker threads, torch threads for each of them, places in the queue."""

    number_of_allocations: int = 1
    threads_per_allocation: int = 1
    queue_capacity: int = 1024
    priority: str = "normal"

    def as_dict(self) -> dict[str, Any]:
        """Return the parameters as they are kept on disk."""
        return asdict(self)


@dataclass
class InferenceCounts:
    """The events of a deployment that `_stats` shows."""

    inference_count: int = 0
    error_count: int = 0
    rejected_execution_count: int = 0
    timeout_count: int = 0


@dataclass(frozen=True)
class TextEmbedding:
    """The model's answer to one text."""

    vector: list[float]
    is_truncated: bool


class Deployment:
    """Runs a TorchScript, one text at a time in each worker: no vector depends on its neighbours.

    Raises `RuntimeError` if the definition is not a TorchScript that takes such tokens.
    """

    def __init__(
        self,
        *,
        config: dict[str, Any],
        definition: Path,
        tokenizer: WordPieceTokenizer,
        parameters: DeploymentParameters,
    ) -> None:
        import torch

        self.config = config
        self.parameters = parameters
        self.counts = InferenceCounts()
        self.inference_ms = 0.0
        """milliseconds that all inferences took together"""
        self.last_access = 0
        """milliseconds since 1970, 0 before the first inference"""
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

    def infer(self, texts: Sequence[str], *, truncate: str, timeout_s: float) -> list[TextEmbedding]:
        """Return an embedding for each text; one failure fails the whole request, as in Elasticsearch.

        Raises `RestError`: 400 text too long, 408 out of time, 429 queue full, 500 the model failed.
        """
        deadline = time.monotonic() + timeout_s
        encoded = [self._tokenizer.encode(text, truncate=truncate) for text in texts]
        futures: list[Future[list[float]]] = []
        try:
            futures = self._submit(encoded)
            vectors = [future.result(max(0.0, deadline - time.monotonic())) for future in futures]
        except TimeoutError as error:
            self._count(timeout_count=1)
            raise RestError(408, f"timeout [{timeout_s:g}s] waiting for inference result") from error
        except (RuntimeError, CancelledError) as error:
            self._count(error_count=1)
            reason = str(error) or "the deployment was stopped"
            raise RestError(500, f"Error in inference process: [{reason}]") from error
        finally:
            for future in futures:
                future.cancel()
        return [
            TextEmbedding(vector, tokens.is_truncated)
            for vector, tokens in zip(vectors, encoded, strict=True)
        ]

    def close(self) -> None:
        """Refuse the texts that wait, and let those that run end by themselves."""
        self._workers.shutdown(wait=False, cancel_futures=True)

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
        self._count(rejected_execution_count=1)
        reason = "inference process queue is full. Unable to execute command"
        raise RestError(429, reason, "es_rejected_execution_exception")

    def _count(self, *, milliseconds: float = 0.0, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                setattr(self.counts, name, getattr(self.counts, name) + count)
            self.inference_ms += milliseconds
            self.last_access = int(time.time() * 1000)

    def _timed_run(self, tokens: TokenIds) -> list[float]:
        started = time.perf_counter()
        try:
            vector = self._run(tokens)
        except Exception as error:  # an uploaded model may raise anything
            raise RuntimeError(last_line(error)) from error
        self._count(inference_count=1, milliseconds=(time.perf_counter() - started) * 1000)
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
