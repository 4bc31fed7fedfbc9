"""Text vectors by Elasticsearch itself: `POST _ml/trained_models/<id>/_infer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from es_config.client import refusal
from es_config.errors import EngineError
from es_config.similarity import unit_rows

if TYPE_CHECKING:
    import numpy as np
    from elasticsearch import Elasticsearch

DOCS_A_REQUEST = 64
CAUSES = {
    401: ("not allowed", "this login may not use the model: it needs the privilege monitor_ml"),
    403: (
        "licence",
        "the licence does not include `_infer` (it needs Platinum or a trial), or the login may not",
    ),
    404: ("not uploaded", "the model is not in Elasticsearch: run `glimpse model upload --start`"),
    408: ("time-out", "the model did not answer in time"),
    409: ("not started", "the model is not started: run `glimpse model start`"),
    429: ("queue full", "the model's queue is full"),
}


class InferUnavailableError(EngineError):
    """`_infer` cannot be had at the moment; `cause` names why in two words."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


class InferTextEncoder:
    """Embeds texts with the model deployed as `model_id`; the lane `infer`.

    `revision` is what the model was uploaded from. A deployed model that says it came from something else is
    refused: vectors of other weights have the right width and mean nothing.
    """

    lane = "infer"

    def __init__(
        self, client: Elasticsearch, *, model_id: str, dims: int, revision: str, timeout_s: float = 5.0
    ) -> None:
        self.model_id = model_id
        self.dims = dims
        self.revision = revision
        self._timeout_s = timeout_s
        self._client = client.options(request_timeout=timeout_s + 1, max_retries=0)
        self._checked = False

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length. Raises `InferUnavailableError`, naming the way out."""
        import numpy as np

        self._check_once()
        rows = [np.zeros((0, self.dims), np.float32)]
        for start in range(0, len(texts), DOCS_A_REQUEST):
            rows.append(self._embed(texts[start : start + DOCS_A_REQUEST]))
        return np.concatenate(rows)

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        import numpy as np

        docs = [{"text_field": text} for text in texts]
        answer = self._call(
            self._client.ml.infer_trained_model,
            model_id=self.model_id,
            docs=docs,
            timeout=f"{round(self._timeout_s * 1000)}ms",
        )
        vectors = np.array([one["predicted_value"] for one in answer["inference_results"]], np.float32)
        if vectors.shape != (len(texts), self.dims):
            raise InferUnavailableError(
                "other dims",
                f"the model {self.model_id} in Elasticsearch gives {vectors.shape[-1]} dims and the profile"
                f" needs {self.dims}: run `glimpse model upload --clear-previous --start`",
            )
        return unit_rows(vectors)

    def _check_once(self) -> None:
        """Compare the revisions, once for each time that the model was out of reach."""
        if self._checked:
            return
        answer = self._call(self._client.ml.get_trained_models, model_id=self.model_id)
        metadata = answer["trained_model_configs"][0].get("metadata") or {}
        deployed = metadata.get("glimpse_revision", self.revision)
        if deployed != self.revision:
            raise InferUnavailableError(
                "other weights",
                f"the model {self.model_id} in Elasticsearch was uploaded from other weights than the profile"
                " has: run `glimpse model upload --clear-previous --start`",
            )
        self._checked = True

    def _call(self, function: Any, **arguments: Any) -> Any:
        from elasticsearch import ApiError, ConnectionTimeout, TransportError

        try:
            return function(**arguments)
        except ApiError as error:
            self._checked = False
            cause, reason = CAUSES.get(
                error.status_code, (f"status {error.status_code}", refusal(error.body, str(error)))
            )
            raise InferUnavailableError(cause, reason) from error
        except ConnectionTimeout as error:
            raise InferUnavailableError(*CAUSES[408]) from error
        except TransportError as error:
            self._checked = False
            raise InferUnavailableError("connection", "Elasticsearch cannot be reached") from error
