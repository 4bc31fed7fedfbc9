"""The trained models of the local node: on disk, with their configurations, and as running deployments."""

from __future__ import annotations

import fnmatch
import json
import logging
import re
import shutil
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from es_config.local_node.install import NODE_NAME
from es_config.local_node.ml.deployment import (
    KINDS,
    Deployment,
    DeploymentParameters,
    WordPieceTokenizer,
    last_line,
)
from es_config.local_node.ml.requests import bad_request, invalid, one_of
from es_config.local_node.rest import RestError

_log = logging.getLogger(__name__)

VALID_ID = re.compile(r"[a-z0-9](?:[a-z0-9_\-.]*[a-z0-9])?")
MAX_ID = 64
INDEX = "local-node"
CONFIG_FIELDS = (
    "description",
    "inference_config",
    "input",
    "metadata",
    "model_type",
    "tags",
    "prefix_strings",
)
NOT_EMULATED = ("bert_ja", "deberta_v2", "roberta", "xlm_roberta")
TOKENIZATION: dict[str, Any] = {
    "do_lower_case": False,
    "with_special_tokens": True,
    "max_sequence_length": 512,
    "truncate": "first",
    "span": -1,
}
TRUNCATE = one_of("first", "second", "none")


def trained_model(model_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a new model with every default filled in. Raises `RestError` 400."""
    if not VALID_ID.fullmatch(model_id):
        raise bad_request(
            f"Invalid model_id; '{model_id}' can contain lowercase alphanumeric (a-z and 0-9), hyphens or"
            " underscores; must start and end with alphanumeric"
        )
    if len(model_id) > MAX_ID:
        raise bad_request(f"Invalid model_id; '{model_id}' cannot contain more than {MAX_ID} characters.")
    if given.get("model_type") != "pytorch":
        raise bad_request("The local node keeps models of [model_type] [pytorch] only")
    field_names = (given.get("input") or {}).get("field_names")
    if not isinstance(field_names, list) or len(field_names) != 1:
        raise invalid("[input.field_names] must name exactly one field")
    return {
        "model_id": model_id,
        "tags": [],
        **{name: given[name] for name in CONFIG_FIELDS if name in given},
        "inference_config": {"text_embedding": _text_embedding(given.get("inference_config"))},
        "version": "12.0.0",
        "created_by": "api_user",
        "create_time": int(time.time() * 1000),
        "model_size_bytes": 0,
        "estimated_operations": 0,
        "license_level": "platinum",
        "location": {"index": {"name": INDEX}},
    }


def _text_embedding(given: Any) -> dict[str, Any]:
    task, options = _only_entry(given, "inference_config")
    if task != "text_embedding":
        raise bad_request(f"The local node runs [text_embedding] models only, not [{task}]")
    return {
        **{key: value for key, value in options.items() if key in ("embedding_size", "results_field")},
        "vocabulary": {"index": INDEX},
        "tokenization": _tokenization(options.get("tokenization") or {"bert": {}}),
    }


def _tokenization(given: Any) -> dict[str, Any]:
    kind, options = _only_entry(given, "tokenization")
    if kind in NOT_EMULATED:
        raise bad_request(f"The local node cannot run tokenization [{kind}]; it runs [{', '.join(KINDS)}]")
    if kind not in KINDS:
        raise bad_request(f"unknown field [{kind}]", kind="named_object_not_found_exception")
    unknown = next((name for name in options if name not in TOKENIZATION), None)
    if unknown is not None:
        reason = f"[{kind}_tokenization] unknown field [{unknown}]"
        raise bad_request(reason, kind="x_content_parse_exception")
    full = {**TOKENIZATION, **options}
    if type(full["max_sequence_length"]) is not int or full["max_sequence_length"] <= 0:
        raise bad_request("[max_sequence_length] must be positive", kind="illegal_argument_exception")
    if full["span"] != -1:
        raise bad_request("The local node does not cut texts into windows; [span] must be [-1]")
    try:
        return {kind: {**full, "truncate": TRUNCATE("truncate", full["truncate"])}}
    except ValueError as error:
        raise bad_request(str(error), kind="illegal_argument_exception") from error


def _only_entry(given: Any, name: str) -> tuple[str, dict[str, Any]]:
    """Return key and value of an object that must hold one entry, an object too. Raises `RestError` 400."""
    if isinstance(given, dict) and len(given) == 1:
        [(key, options)] = given.items()
        if isinstance(options, dict):
            return key, options
    raise invalid(f"[{name}] must hold exactly one configuration")


class ModelStore:
    """One folder for each model below `root`: configuration, vocabulary, definition and deployment.

    Every file appears whole or not at all, so that a node that was killed finds nothing half-written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)
        for left_over in root.glob(".*"):
            shutil.rmtree(left_over)

    def ids(self) -> list[str]:
        """Return the ids of all models, sorted."""
        return sorted(path.name for path in self._root.iterdir() if not path.name.startswith("."))

    def create(self, config: dict[str, Any]) -> None:
        """Keep a new model. Raises `RestError` 400 if its id is taken."""
        folder = self._root / f".{uuid.uuid4().hex}"
        (folder / "parts").mkdir(parents=True)
        _write(folder / "config.json", config)
        try:
            folder.rename(self._root / config["model_id"])
        except OSError as error:
            shutil.rmtree(folder)
            raise _exists(f"Trained machine learning model [{config['model_id']}] already exists") from error

    def config(self, model_id: str) -> dict[str, Any]:
        """Return the configuration with `model_size_bytes`. Raises `RestError` 404 for an unknown model."""
        config = _read(self._folder(model_id) / "config.json")
        return {**config, "model_size_bytes": self.definition_length(model_id)}

    def put_part(self, model_id: str, part: int, data: bytes, *, total_length: int, total_parts: int) -> None:
        """Keep one part of the definition, in any order. Raises `RestError` 400 if it is there already."""
        parts = self._folder(model_id) / "parts"
        # The name holds the announced totals, so that they appear together with the content.
        target = parts / f"{part:05d}.{total_parts}.{total_length}"
        partial = parts / f".{uuid.uuid4().hex}"
        with self._lock:
            if self._assembled(model_id).exists() or next(parts.glob(f"{part:05d}.*"), None):
                raise _exists(
                    f"Trained machine learning model chunked doc [{model_id}][{part}] already exists"
                )
            try:
                partial.write_bytes(data)
                partial.rename(target)
            finally:
                partial.unlink(missing_ok=True)

    def put_vocabulary(self, model_id: str, vocabulary: Mapping[str, Any]) -> None:
        """Keep the vocabulary. Raises `RestError` 400 if there is one already."""
        target = self._folder(model_id) / "vocabulary.json"
        with self._lock:
            if target.exists():
                raise _exists(f"Trained machine learning model vocabulary [{model_id}] already exists")
            _write(target, vocabulary)

    def vocabulary(self, model_id: str) -> list[str] | None:
        """Return the tokens in the order of their ids, or None before they were uploaded."""
        path = self._folder(model_id) / "vocabulary.json"
        return _read(path)["vocabulary"] if path.exists() else None

    def definition_length(self, model_id: str) -> int:
        """Return the length in bytes that the client announced, 0 before the first part."""
        if self._assembled(model_id).exists():
            return self._assembled(model_id).stat().st_size
        parts = self._parts(model_id)
        return _totals(parts[0])[1] if parts else 0

    def is_defined(self, model_id: str) -> bool:
        """Return True if every part of the definition is there."""
        try:
            self.check_definition(model_id)
        except RestError:
            return False
        return True

    def check_definition(self, model_id: str) -> None:
        """Raise `RestError` 404 without any part, and 400 if parts are missing or disagree."""
        if self._assembled(model_id).exists():
            return
        parts = self._parts(model_id)
        if not parts:
            raise RestError(404, f"Could not find trained model definition [{model_id}]")
        total_parts, total_length = _totals(parts[0])
        other = next((part for part in parts if _totals(part)[1] != total_length), None)
        if other is not None:
            raise bad_request(
                f"[{model_id}] [total_definition_length] must be the same in all model definition parts."
                f" The value [{_totals(other)[1]}] in model definition part [{int(other.name[:5])}] does not"
                f" match the value [{total_length}] in part [{int(parts[0].name[:5])}]. Unable to deploy"
                " model, please delete and recreate the model definition"
            )
        if len(parts) < total_parts or sum(part.stat().st_size for part in parts) != total_length:
            raise bad_request(
                f"Model definition truncated. Unable to deserialize trained model definition [{model_id}]"
            )

    def definition(self, model_id: str) -> Path:
        """Return the file that holds the whole definition, made of its parts on first use."""
        self.check_definition(model_id)
        assembled = self._assembled(model_id)
        with self._lock:
            if not assembled.exists():
                parts, partial = self._parts(model_id), assembled.with_suffix(".tmp")
                with partial.open("wb") as whole:
                    for part in parts:
                        with part.open("rb") as stream:
                            shutil.copyfileobj(stream, whole)
                partial.rename(assembled)
                for part in parts:
                    part.unlink()
        return assembled

    def deployment(self, model_id: str) -> DeploymentParameters | None:
        """Return the parameters that a deployment was started with, or None if there is none."""
        path = self._folder(model_id) / "deployment.json"
        return DeploymentParameters(**_read(path)) if path.exists() else None

    def set_deployment(self, model_id: str, parameters: DeploymentParameters | None) -> None:
        """Note that a deployment was started, or with None that it was stopped."""
        path = self._folder(model_id) / "deployment.json"
        if parameters is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, parameters.as_dict())

    def delete(self, model_id: str) -> None:
        """Remove a model at once. Raises `RestError` 404 if there is no such model."""
        doomed = self._root / f".{uuid.uuid4().hex}"
        self._folder(model_id).rename(doomed)
        shutil.rmtree(doomed)

    def _folder(self, model_id: str) -> Path:
        if model_id not in self.ids():  # an id that no model has never becomes a path
            raise RestError(404, f"Could not find trained model [{model_id}]")
        return self._root / model_id

    def _assembled(self, model_id: str) -> Path:
        return self._folder(model_id) / "definition.pt"

    def _parts(self, model_id: str) -> list[Path]:
        return sorted((self._folder(model_id) / "parts").glob("[0-9]*"))


def _totals(part: Path) -> tuple[int, int]:
    """Return the (total_parts, total_definition_length) that the client announced with this part."""
    _, total_parts, total_length = part.name.split(".")
    return int(total_parts), int(total_length)


def _exists(reason: str) -> RestError:
    return bad_request(reason, kind="resource_already_exists_exception")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, content: Any) -> None:
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)


class LocalModels:
    """The models in `store`, and the deployments that run in this process."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self._running: dict[str, Deployment] = {}
        self._failed: dict[str, str] = {}
        self._changing = threading.RLock()

    def matching(self, expression: str, *, allow_no_match: bool = True) -> list[str]:
        """Return the ids that a list of names and wildcards stands for. Raises `RestError` 404."""
        ids = self.store.ids()
        found: set[str] = set()
        for name in expression.split(","):
            matches = ids if name in ("_all", "*", "") else fnmatch.filter(ids, name)
            if not matches and ("*" not in name or not allow_no_match) and name != "_all":
                raise RestError(404, f"No known trained model with model_id [{name}]")
            found.update(matches)
        return sorted(found)

    def start(self, model_id: str, parameters: DeploymentParameters) -> Deployment:
        """Load the model and note that it runs. Raises `RestError`, and then nothing was started."""
        with self._changing:
            self.matching(model_id)
            if self.store.deployment(model_id) is not None:
                raise bad_request(
                    "Could not start model deployment because an existing deployment with the same id"
                    f" [{model_id}] exist"
                )
            deployment = self._load(model_id, parameters)
            self.store.set_deployment(model_id, parameters)
            self._running[model_id] = deployment
            return deployment

    def stop(self, model_id: str, *, allow_no_match: bool = True) -> None:
        """End a deployment; without one, raise `RestError` 404 unless `allow_no_match`."""
        with self._changing:
            if model_id not in self.store.ids() or self.store.deployment(model_id) is None:
                if not allow_no_match:
                    raise RestError(404, f"No known model deployment with id [{model_id}]")
                return
            self.store.set_deployment(model_id, None)
            self._failed.pop(model_id, None)
            if (deployment := self._running.pop(model_id, None)) is not None:
                deployment.close()

    def delete(self, model_id: str, *, force: bool) -> None:
        """Remove a model. Raises `RestError` 404 if it is unknown, 409 if it is deployed and not `force`."""
        with self._changing:
            if self.store.deployment(model_id) is not None and not force:
                raise RestError(
                    409,
                    f"Cannot delete model [{model_id}] as it is currently deployed; use force to delete the"
                    " model",
                )
            self.stop(model_id)
            self.store.delete(model_id)

    def deployment(self, model_id: str) -> Deployment:
        """Return the deployment, loaded again if the node was restarted. Raises `RestError`."""
        running = self._running.get(model_id)
        if running is not None:
            return running
        with self._changing:
            parameters = self.store.deployment(model_id)
            if parameters is None:
                raise RestError(
                    409,
                    f"Model [{model_id}] must be deployed to use. Please deploy with the start trained model"
                    " deployment API.",
                )
            if model_id not in self._running:
                try:
                    self._running[model_id] = self._load(model_id, parameters)
                except RestError as error:
                    self._failed[model_id] = str(error)
                    raise RestError(409, f"Trained model [{model_id}] is [failed]: {error}") from error
                self._failed.pop(model_id, None)
            return self._running[model_id]

    def running(self, model_id: str) -> Deployment | None:
        """Return the deployment if it is loaded, or None."""
        return self._running.get(model_id)

    def failure(self, model_id: str) -> str | None:
        """Return the reason why a deployment could not be loaded again after a restart, or None."""
        return self._failed.get(model_id)

    def load_deployments(self) -> None:
        """Load the deployments of a node that was restarted; failures are logged and shown by `_stats`."""
        for model_id in self.store.ids():
            try:
                if self.store.deployment(model_id) is not None:
                    self.deployment(model_id)
            except RestError as error:
                _log.warning("The deployment [%s] could not be loaded: %s", model_id, error)

    def _load(self, model_id: str, parameters: DeploymentParameters) -> Deployment:
        config = self.store.config(model_id)
        self.store.check_definition(model_id)
        vocabulary = self.store.vocabulary(model_id)
        if vocabulary is None:
            raise _cannot_start(
                f"[{model_id}] Could not find vocabulary document [{model_id}_vocabulary] for model "
            )
        [(kind, options)] = config["inference_config"]["text_embedding"]["tokenization"].items()
        tokenizer = WordPieceTokenizer(
            vocabulary,
            kind=KINDS[kind],
            do_lower_case=options["do_lower_case"],
            with_special_tokens=options["with_special_tokens"],
            max_sequence_length=options["max_sequence_length"],
        )
        try:
            return Deployment(
                config=config,
                definition=self.store.definition(model_id),
                tokenizer=tokenizer,
                parameters=parameters,
            )
        except RuntimeError as error:
            raise _cannot_start(last_line(error)) from error


def _cannot_start(reason: str) -> RestError:
    return RestError(
        500,
        "Could not start trained model deployment, the following nodes failed with errors"
        f" [{{{NODE_NAME}={reason}}}]",
    )
