"""The trained models of the local node and their deployments: what each `_ml/trained_models` request does."""

from __future__ import annotations

import fnmatch
import logging
import threading

from es_config.local_node.ml.config import tokenizer
from es_config.local_node.ml.deployment import Deployment
from es_config.local_node.ml.requests import DeploymentParameters, bad_request
from es_config.local_node.ml.store import ModelStore
from es_config.local_node.rest import RestError

_log = logging.getLogger(__name__)


class LocalModels:
    """Everything that is known of the models: on disk in `store`, in memory the deployments that run."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self._running: dict[str, Deployment] = {}
        self._failed: dict[str, str] = {}
        self._changing = threading.RLock()

    def matching(self, expression: str, *, allow_no_match: bool = True) -> list[str]:
        """Return the ids that a list of names and wildcards stands for. Raises `RestError` 404."""
        ids, found = self.store.ids(), []
        for name in expression.split(","):
            matches = ids if name in ("_all", "*", "") else fnmatch.filter(ids, name)
            if not matches and ("*" not in name or not allow_no_match) and name != "_all":
                raise unknown_model(name)
            found.extend(match for match in matches if match not in found)
        return sorted(found)

    def start(self, model_id: str, parameters: DeploymentParameters) -> Deployment:
        """Load the model and remember that it runs. Raises `RestError`, and then nothing was started."""
        with self._changing:
            self.matching(model_id)
            if self.store.deployment(model_id) is not None:
                raise bad_request(
                    "Could not start model deployment because an existing deployment with the same id"
                    f" [{model_id}] exist"
                )
            deployment = self._load(model_id, parameters)
            self.store.set_deployment(model_id, parameters.as_dict())
            self._running[model_id] = deployment
            return deployment

    def stop(self, model_id: str, *, allow_no_match: bool = True) -> None:
        """End a deployment; without one, raise `RestError` 404 unless `allow_no_match`."""
        with self._changing:
            if model_id not in self.store.ids() or self.store.deployment(model_id) is None:
                if allow_no_match:
                    return
                reason = f"No known model deployment with id [{model_id}]"
                raise RestError(404, reason)
            self.store.set_deployment(model_id, None)
            self._failed.pop(model_id, None)
            if (deployment := self._running.pop(model_id, None)) is not None:
                deployment.close()

    def delete(self, model_id: str, *, force: bool) -> None:
        """Remove a model. Raises `RestError` 404 unknown, 409 deployed and not `force`."""
        with self._changing:
            if self.store.config(model_id) and self.store.deployment(model_id) is not None and not force:
                raise RestError(
                    409,
                    f"Cannot delete model [{model_id}] as it is currently deployed; use force to delete the"
                    " model",
                )
            self.stop(model_id)
            self.store.delete(model_id)

    def deployment(self, model_id: str) -> Deployment:
        """Return what runs the model, loading it where the node was restarted since. Raises `RestError`."""
        running = self._running.get(model_id)
        if running is not None:
            return running
        with self._changing:
            if self.store.config(model_id) and self.store.deployment(model_id) is None:
                raise RestError(
                    409,
                    f"Model [{model_id}] must be deployed to use. Please deploy with the start trained model"
                    " deployment API.",
                )
            if model_id not in self._running:
                self._running[model_id] = self._restart(model_id)
            return self._running[model_id]

    def running(self, model_id: str) -> Deployment | None:
        """Return what runs the model, or None when it is not loaded."""
        return self._running.get(model_id)

    def failure(self, model_id: str) -> str | None:
        """Return why the deployment could not be loaded again after a restart, or None."""
        return self._failed.get(model_id)

    def load_deployments(self) -> None:
        """Load what ran before the node was restarted; failures are logged and shown by `_stats`."""
        for model_id in self.store.ids():
            try:
                if self.store.deployment(model_id) is not None:
                    self.deployment(model_id)
            except RestError as error:
                _log.warning("The deployment [%s] could not be loaded: %s", model_id, error)

    def _restart(self, model_id: str) -> Deployment:
        try:
            parameters = DeploymentParameters(**(self.store.deployment(model_id) or {}))
            deployment = self._load(model_id, parameters)
        except RestError as error:
            self._failed[model_id] = str(error)
            raise RestError(409, f"Trained model [{model_id}] is [failed]: {error}") from error
        self._failed.pop(model_id, None)
        return deployment

    def _load(self, model_id: str, parameters: DeploymentParameters) -> Deployment:
        config = self.store.config(model_id)
        self.store.check_definition(model_id)
        words = self.store.vocabulary(model_id)
        if words is None:
            raise _cannot_start(
                f"[{model_id}] Could not find vocabulary document [{model_id}_vocabulary] for model "
            )
        try:
            return Deployment(
                config=config,
                definition=self.store.definition(model_id),
                tokenizer=tokenizer(config, words),
                parameters=parameters,
            )
        except RuntimeError as error:
            raise _cannot_start(str(error).strip().splitlines()[-1]) from error


def unknown_model(model_id: str) -> RestError:
    """Return the answer about a model that does not exist."""
    reason = f"No known trained model with model_id [{model_id}]"
    return RestError(404, reason)


def _cannot_start(reason: str) -> RestError:
    return RestError(
        500,
        "Could not start trained model deployment, the following nodes failed with errors"
        f" [{{glimpse-local={reason}}}]",
    )
