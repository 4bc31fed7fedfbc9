"""A trained model in Elasticsearch by its id: its state, and starting, stopping and deleting it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from es_config.client import explain, refusal
from es_config.errors import EngineError

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

REQUEST_TIMEOUT_S = 300
START_TIMEOUT = "120s"


@dataclass(frozen=True)
class DeploymentOptions:
    """How Elasticsearch runs the model."""

    number_of_allocations: int = 1
    threads_per_allocation: int = 1
    queue_capacity: int = 1024


@dataclass(frozen=True)
class ModelStatus:
    """What Elasticsearch knows of a model."""

    model_id: str
    state: str
    """`absent`, `incomplete`, `stopped`, or the deployment's: `starting`, `started`, `stopping`, `failed`"""
    dims: int | None = None
    size_bytes: int = 0
    revision: str | None = None
    """what the model was uploaded from, None when Glimpse did not upload it"""
    number_of_allocations: int = 0
    threads_per_allocation: int = 0
    inference_count: int = 0
    reason: str | None = None


class TrainedModel:
    """One trained model of a cluster. Every method raises `EngineError`."""

    def __init__(self, client: Elasticsearch, *, model_id: str) -> None:
        self.model_id = model_id
        self.client = client.options(request_timeout=REQUEST_TIMEOUT_S)

    def status(self) -> ModelStatus:
        """Return the model's state, `absent` included."""
        from elasticsearch import NotFoundError

        with expected():
            try:
                found = self.client.ml.get_trained_models(model_id=self.model_id, include="definition_status")
                stats = self.client.ml.get_trained_models_stats(model_id=self.model_id)
            except NotFoundError:
                return ModelStatus(self.model_id, "absent")
        return _status(found["trained_model_configs"][0], stats["trained_model_stats"][0])

    def start(self, options: DeploymentOptions | None = None) -> None:
        """Deploy the model and wait until it answers."""
        options = options or DeploymentOptions()
        with expected(self.model_id):
            self.client.ml.start_trained_model_deployment(
                model_id=self.model_id,
                number_of_allocations=options.number_of_allocations,
                threads_per_allocation=options.threads_per_allocation,
                queue_capacity=options.queue_capacity,
                timeout=START_TIMEOUT,
                wait_for="started",
            )

    def stop(self, *, force: bool = False) -> None:
        """End the deployment; without one nothing happens."""
        with expected(self.model_id):
            self.client.ml.stop_trained_model_deployment(model_id=self.model_id, force=force)

    def delete(self, *, force: bool = False) -> None:
        """Remove the model; one that is deployed only with `force`."""
        with expected(self.model_id):
            if force:
                self.client.ml.stop_trained_model_deployment(model_id=self.model_id, force=True)
            self.client.ml.delete_trained_model(model_id=self.model_id, force=force)


@contextmanager
def expected(model_id: str = "") -> Iterator[None]:
    """Turn what Elasticsearch refuses into one sentence, an `EngineError`."""
    from elasticsearch import ApiError, TransportError

    try:
        yield
    except ApiError as error:
        raise _refused(error, model_id) from error
    except TransportError as error:
        raise explain(error) from error


def _status(config: dict[str, Any], stats: dict[str, Any]) -> ModelStatus:
    deployment = stats.get("deployment_stats") or {}
    at_rest = "stopped" if config.get("fully_defined", True) else "incomplete"
    options = (config.get("inference_config") or {}).get("text_embedding") or {}
    return ModelStatus(
        model_id=config["model_id"],
        state=deployment.get("state", at_rest),
        dims=options.get("embedding_size"),
        size_bytes=stats["model_size_stats"]["model_size_bytes"],
        revision=(config.get("metadata") or {}).get("glimpse_revision"),
        number_of_allocations=deployment.get("number_of_allocations", 0),
        threads_per_allocation=deployment.get("threads_per_allocation", 0),
        inference_count=deployment.get("inference_count", 0),
        reason=deployment.get("reason"),
    )


def _refused(error: Any, model_id: str) -> EngineError:
    reason = refusal(error.body, str(error))
    if error.status_code == 404:
        return EngineError(
            f"There is no model {model_id} in Elasticsearch ({reason}): run `glimpse model upload`."
        )
    if error.status_code == 403:
        return EngineError(
            f"Elasticsearch does not allow this ({reason}); text models need a Platinum or trial licence."
            " Search works without: --text-lane local."
        )
    if error.status_code in (401, 503):
        return explain(error)
    return EngineError(f"Elasticsearch refused: {reason}")
