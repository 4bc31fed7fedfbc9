"""Two lanes to a text's vector: `_infer` in Elasticsearch, and the same model in this process.

Both give the same vector for the same text, so that nothing else needs to know which one answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from es_config.errors import EngineError
from es_config.text_model import InferTextEncoder, InferUnavailableError
from models.encoders import (
    Lazy,
    TextEncoder,
    load_text_encoder,
    plain_text,
)
from models.profiles import Profile
from search_app.errors import QueryError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

CHOICES = ("auto", "infer", "local")
RETRY_AFTER_S = 60.0
RETRY_SOON_S = 5.0
PASSING_CAUSES = ("queue full", "time-out", "connection")
USUAL_CAUSE = "not uploaded"
"""nobody has put the model into Elasticsearch, and nobody has to: not worth a warning"""


class TextLanes:
    """A text encoder that chooses its lane: `auto` tries `_infer`, and uses the local model while that fails.

    It warns once for each cause but the usual one and tries again after a while; a success forgets the
    causes. `infer` and
    `local` use that lane alone. `lane` is the one that answered last; `embed` says it for each answer.
    Thread-safe.
    """

    def __init__(
        self,
        *,
        choice: str,
        infer: InferTextEncoder | None,
        load_local: Callable[[], TextEncoder],
        dims: int,
        revision: str,
        warn: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.dims = dims
        self.revision = revision
        self.lane = "local" if choice == "local" or infer is None else "infer"
        self.cause: str | None = None
        self._infer = None if choice == "local" else infer
        self._only_infer = choice == "infer"
        self._local = Lazy(load_local)
        self._warn, self._clock = warn, clock
        self._warned: set[str] = set()
        self._retry_at = 0.0
        self._told_cut = False
        self._lock = threading.Lock()

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length.

        Raises `EngineError` when `infer` alone is allowed and cannot be had, `ModelError` when the local
        model cannot be loaded.
        """
        return self.embed(texts)[0]

    def embed(self, texts: Sequence[str]) -> tuple[np.ndarray, str]:
        """Return the vectors as `embed_texts` does, with the lane that made them."""
        plain = [plain_text(text) for text in texts]
        vectors = self._try_infer(self._infer, plain) if self._infer and self._may_try() else None
        lane = "local" if vectors is None else "infer"
        if vectors is None:
            local = self._local.get()
            vectors = local.embed_texts(plain)
            reads_whole = getattr(local, "reads_whole", None)
            if reads_whole and not all(map(reads_whole, plain)):
                self.tell_cut()
        self.lane = lane
        return vectors, lane

    def tell_cut(self) -> None:
        """Warn, once, that the end of a text was left out."""
        with self._lock:
            is_new, self._told_cut = not self._told_cut, True
        if is_new:
            self._warn("the query is longer than the text model reads: the end of it was left out.")

    def _may_try(self) -> bool:
        """Whether to ask `_infer`. After a failure, one thread at a time does."""
        if self._only_infer:
            return True
        with self._lock:
            if self._clock() < self._retry_at:
                return False
            if self.cause is not None:
                self._retry_at = self._clock() + RETRY_SOON_S
            return True

    def _try_infer(self, infer: InferTextEncoder, texts: list[str]) -> np.ndarray | None:
        try:
            vectors = infer.embed_texts(texts, on_cut=self.tell_cut)
        except InferUnavailableError as error:
            if self._only_infer:
                raise EngineError(
                    f"Text cannot be embedded in Elasticsearch: {error}. Or use --text-lane local."
                ) from error
            self._fall_back(error)
            return None
        with self._lock:
            self.cause = None
            self._warned.clear()
        return vectors

    def _fall_back(self, error: InferUnavailableError) -> None:
        wait = RETRY_SOON_S if error.cause in PASSING_CAUSES else RETRY_AFTER_S
        with self._lock:
            self.cause = error.cause
            self._retry_at = self._clock() + wait
            is_new = error.cause not in (*self._warned, USUAL_CAUSE)
            self._warned.add(error.cause)
        if is_new:
            self._warn(f"Text is embedded in this process, not in Elasticsearch: {error}.")


def text_lanes(
    profile: Profile,
    client: Elasticsearch | None,
    *,
    choice: str = "auto",
    warn: Callable[[str], None] = lambda _: None,
    load_local: Callable[[Profile], TextEncoder] = load_text_encoder,
) -> TextLanes:
    """Return the profile's text encoder. Raises `QueryError` for a lane that the profile does not have."""
    if choice not in CHOICES:
        raise QueryError(f"There is no text lane '{choice}'; choose one of: {', '.join(CHOICES)}.")
    has_infer = "infer" in profile.text_lanes
    if choice == "infer" and not has_infer:
        raise QueryError(
            f"The text model of profile {profile.name} runs in this process only: use another lane."
        )
    weights = profile.weights("text")
    infer = None
    if client is not None and has_infer and choice != "local":
        infer = InferTextEncoder(
            client,
            model_id=profile.es_model_id,
            dims=profile.dims,
            revision=weights.revision,
            matches=weights.matches,
        )
    return TextLanes(
        choice=choice,
        infer=infer,
        load_local=lambda: load_local(profile),
        dims=profile.dims,
        revision=weights.revision,
        warn=warn,
    )
