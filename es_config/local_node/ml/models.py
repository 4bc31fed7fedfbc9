"""The trained models of the local node: on disk, with their configurations, and as running deployments."""

from __future__ import annotations

import json
import logging
import platform
import re
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
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
from es_config.local_node.rest import RestError

_log = logging.getLogger(__name__)

MAX_ID = 64
VALID_ID = re.compile(r"[a-z0-9](?:[a-z0-9_\-.]*[a-z0-9])?")
KEPT = (
    *("description", "estimated_operations", "metadata", "model_size_bytes", "model_type"),
    *("platform_architecture", "prefix_strings", "tags"),
)
GIVEN_BY_THE_NODE = ("version", "created_by", "create_time", "license_level", "location")
GENERATED = {
    "created_by": "api_user",
    "version": "12.0.0",
    "estimated_operations": 0,
    "license_level": "platinum",
}
"""fields that Elasticsearch adds to a model; the version is that of its machine-learning configurations"""
NOT_HERE = ("definition", "compressed_definition", "default_field_map")
"""fields of models that are no TorchScript, and of ingest pipelines"""
TOKENIZATION: dict[str, Any] = {
    "do_lower_case": False,
    "with_special_tokens": True,
    "max_sequence_length": 512,
    "truncate": "first",
    "span": -1,
}
RUNNABLE = (
    "it runs [pytorch] models for [text_embedding] with one input field and a tokenization"
    f" [{', '.join(KINDS)}]"
)


def trained_model(model_id: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a new model with every default filled in.

    Raises `RestError` 400 for values that Elasticsearch refuses, and for a model that this node cannot run.
    """
    if (named := given.get("model_id", model_id)) != model_id:
        where = f"'{named}' specified in the body differs from '{model_id}' specified as a URL argument"
        raise RestError(400, f"Inconsistent model_id; {where}")
    if model_id.startswith(".") and VALID_ID.fullmatch(model_id[1:]):
        raise RestError(
            400, f"The local node has no packaged models such as [{model_id}]: upload a model of yours"
        )
    if faults := _faults(model_id, given):
        raise RestError.of_faults(faults)
    [(task, options)] = given["inference_config"].items()
    [(kind, chosen)] = options.get("tokenization", {"bert": {}}).items()
    fields = given.get("input", {"field_names": ["input"]})["field_names"]
    for name, value, is_supported in (
        ("model_type", given["model_type"], given["model_type"] == "pytorch"),
        ("input.field_names", fields, len(fields) == 1),
        ("inference_config", task, task == "text_embedding"),
        ("tokenization", kind, kind in KINDS),
        *((name, "given", name not in given) for name in NOT_HERE),
    ):
        if not is_supported:
            raise RestError(400, f"The local node cannot run a model with [{name}] [{value}]; {RUNNABLE}")
    kept = {name: options[name] for name in ("embedding_size", "results_field") if name in options}
    return {
        "model_id": model_id,
        "tags": [],
        **GENERATED,
        **{name: given[name] for name in KEPT if name in given},
        "input": {"field_names": fields},
        "inference_config": {"text_embedding": {**kept, "tokenization": {kind: {**TOKENIZATION, **chosen}}}},
        "create_time": int(time.time() * 1000),
    }


def _faults(model_id: str, given: Mapping[str, Any]) -> list[str]:
    """Return the faults that Elasticsearch finds in a new model, in its order and words."""
    tags, metadata, faults = given.get("tags", []), given.get("metadata", {}), []
    rule = "lowercase alphanumeric (a-z and 0-9), hyphens or underscores"
    if "model_type" not in given:
        faults.append("[model_type] must be set if [definition] is not defined.")
    if "inference_config" not in given:
        faults.append("[inference_config] must not be null.")
    if not VALID_ID.fullmatch(model_id):
        end = "must start and end with alphanumeric"
        faults.append(f"Invalid model_id; '{model_id}' can contain {rule}; {end}")
    if len(model_id) > MAX_ID:
        faults.append(f"Invalid model_id; '{model_id}' cannot contain more than {MAX_ID} characters.")
    if bad := [tag for tag in tags if not VALID_ID.fullmatch(tag) or len(tag) > MAX_ID]:
        end = f"must start and end with alphanumeric, and must be less than {MAX_ID} characters"
        faults.append(f"Invalid tags [{', '.join(bad)}]; must only can contain {rule}, {end}")
    if model_id in tags:
        faults.append("none of the tags must equal the model_id")
    if "input" in given:
        names = given["input"]["field_names"]
        if not names:
            faults.append("[input.field_names] must not be empty")
        if any("." in name and "" in name.split(".") for name in names):
            faults.append("[input.field_names] must only contain valid dot delimited field names")
    forbidden = [name for name in GIVEN_BY_THE_NODE if name in given]
    forbidden += [
        f"metadata.{name}" for name in ("total_feature_importance", "model_aliases") if name in metadata
    ]
    forbidden += ["model_package"] if "model_package" in given else []
    faults += [f"illegal to set [{name}] at inference model creation" for name in forbidden]
    return faults


class ModelStore:
    """One folder for each model below `root`: configuration, vocabulary, definition and deployment.

    Every file appears whole or not at all, and a folder without a configuration is no model, so that a node
    that was killed finds nothing half-written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.RLock()
        root.mkdir(parents=True, exist_ok=True)
        for left_over in {path.name for path in root.iterdir()} - {*self.ids()}:
            shutil.rmtree(root / left_over, ignore_errors=True)

    def ids(self) -> list[str]:
        """Return the ids of all models, sorted."""
        return sorted(path.parent.name for path in self._root.glob("[!.]*/config.json"))

    def create(self, config: dict[str, Any]) -> None:
        """Keep a new model. Raises `RestError` 400 if its id is taken or a tag, or a tag is an id."""
        with self._lock:
            if config["model_id"] in (ids := self.ids()):
                raise _exists(f"[{config['model_id']}]")
            if taken := sorted({*config["tags"]} & {*ids}):
                raise RestError(
                    400, f"The provided tags [{', '.join(taken)}] must not match existing model_ids"
                )
            if any(config["model_id"] in self.config(each)["tags"] for each in ids):
                reason = f"The provided model_id {config['model_id']} must not match existing tags"
                raise RestError(400, reason)
            folder = self._root / config["model_id"]
            shutil.rmtree(folder, ignore_errors=True)  # it may be left of a model that was deleted in part
            (folder / "parts").mkdir(parents=True)
            _write(folder / "config.json", json.dumps(config).encode())

    def config(self, model_id: str) -> dict[str, Any]:
        """Return the configuration with `model_size_bytes`. Raises `RestError` 404 for an unknown model."""
        config = json.loads((self._folder(model_id) / "config.json").read_bytes())
        size = self.definition_length(model_id) or config.get("model_size_bytes", 0)
        return {**GENERATED, **config, "model_size_bytes": size}

    def put_part(self, model_id: str, part: int, data: bytes, *, total_length: int, total_parts: int) -> None:
        """Keep one part of the definition, in any order. Raises `RestError` 400 if it is there already."""
        with self._lock:
            definition, parts = self._definition(model_id)
            if definition.exists() or part in (int(each.name[:5]) for each in parts):
                raise _exists(f"chunked doc [{model_id}][{part}]")
            if parts and _totals(parts[0]) != (total_parts, total_length):
                reason = (
                    "[total_parts] and [total_definition_length] must be the same in all definition parts"
                )
                raise RestError(400, reason)
            # The name holds the announced totals, so that they appear together with the content.
            _write(definition.parent / "parts" / f"{part:05d}.{total_parts}.{total_length}", data)

    def put_vocabulary(self, model_id: str, words: list[str]) -> None:
        """Keep the vocabulary. Raises `RestError` 400 if there is one already."""
        target = self._folder(model_id) / "vocabulary.json"
        with self._lock:
            if target.exists():
                raise _exists(f"vocabulary [{model_id}]")
            _write(target, json.dumps({"vocabulary": words}).encode())

    def vocabulary(self, model_id: str) -> list[str]:
        """Return the tokens in the order of their ids. Raises `RestError` 404 before they were uploaded."""
        path = self._folder(model_id) / "vocabulary.json"
        if not path.exists():
            raise RestError(404, f"Could not find vocabulary document [{model_id}_vocabulary]")
        words: list[str] = json.loads(path.read_bytes())["vocabulary"]
        return words

    def definition_length(self, model_id: str) -> int:
        """Return the length in bytes that the client announced, 0 before the first part."""
        definition, parts = self._definition(model_id)
        if definition.exists():
            return definition.stat().st_size
        return _totals(parts[0])[1] if parts else 0

    def is_defined(self, model_id: str) -> bool:
        """Return True if every part of the definition is there."""
        definition, parts = self._definition(model_id)
        size = len(parts), sum(part.stat().st_size for part in parts)
        return definition.exists() or (bool(parts) and _totals(parts[0]) == size)

    def definition(self, model_id: str) -> Path:
        """Return the file of the definition, made of its parts on first use. Raises `RestError`."""
        with self._lock:
            definition, parts = self._definition(model_id)
            if not self.is_defined(model_id):
                reason = "truncated. Unable to deserialize trained model definition" if parts else "not found"
                raise RestError(400 if parts else 404, f"Model definition {reason} [{model_id}]")
            if not definition.exists():
                partial = definition.with_suffix(".tmp")
                with partial.open("wb") as whole:
                    for part in parts:
                        with part.open("rb") as stream:
                            shutil.copyfileobj(stream, whole)
                partial.rename(definition)
                for part in parts:
                    part.unlink()
        return definition

    def deployment(self, model_id: str) -> DeploymentParameters | None:
        """Return the parameters that a deployment was started with, or None if there is none."""
        path = self._folder(model_id) / "deployment.json"
        return DeploymentParameters(**json.loads(path.read_bytes())) if path.exists() else None

    def set_deployment(self, model_id: str, parameters: DeploymentParameters | None) -> None:
        """Note that a deployment was started, or with None that it was stopped."""
        path = self._folder(model_id) / "deployment.json"
        if parameters is None:
            path.unlink(missing_ok=True)
        else:
            _write(path, json.dumps(asdict(parameters)).encode())

    def delete(self, model_id: str) -> None:
        """Remove a model. Raises `RestError` 404 if there is no such model."""
        with self._lock:
            (self._folder(model_id) / "config.json").unlink()
            shutil.rmtree(self._root / model_id)

    def _folder(self, model_id: str) -> Path:
        if model_id not in self.ids():  # an id that no model has never becomes a path
            raise RestError(404, f"Could not find trained model [{model_id}]")
        return self._root / model_id

    def _definition(self, model_id: str) -> tuple[Path, list[Path]]:
        """Return the file of the whole definition, and those of the parts that it is to be made of."""
        folder = self._folder(model_id)
        return folder / "definition.pt", sorted((folder / "parts").glob("[0-9]*"))


def _totals(part: Path) -> tuple[int, int]:
    """Return the (total_parts, total_definition_length) that the client announced with this part."""
    _, total_parts, total_length = part.name.split(".")
    return int(total_parts), int(total_length)


def _exists(what: str) -> RestError:
    reason = f"Trained machine learning model {what} already exists"
    return RestError(400, reason, "resource_already_exists_exception")


def _write(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}")
    partial.write_bytes(content)
    partial.replace(path)


def missing_deployment(model_id: str) -> RestError:
    """Return the 404 for a deployment that was never started or has been stopped."""
    return RestError(404, f"No known model deployment with id [{model_id}]")


def platform_architecture() -> str:
    """Return the platform of this machine as Elasticsearch names it, such as `linux-x86_64`."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    return f"{platform.system().lower()}-{machine}"


class LocalModels:
    """The models in `store`, and the deployments that run in this process."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        self.running: dict[str, Deployment] = {}
        self.failures: dict[str, str] = {}
        """id → the reason why a deployment could not be loaded again after a restart"""
        self._changing = threading.RLock()

    def matching(
        self, expression: str, *, tags: Sequence[str] = (), allow_no_match: bool = True
    ) -> list[str]:
        """Return the ids that a list of names and wildcards stands for. Raises `RestError` 404.

        Models that lack one of the `tags` are not there.
        """
        ids = [each for each in self.store.ids() if not tags or {*tags} <= {*self.store.config(each)["tags"]}]
        found: set[str] = set()
        for name in expression.split(","):
            pattern = ".*".join(map(re.escape, name.split("*")))
            matches = (
                ids if name in ("_all", "*", "") else [each for each in ids if re.fullmatch(pattern, each)]
            )
            if not matches and ("*" not in name or not allow_no_match) and name != "_all":
                raise RestError(404, f"No known trained model with model_id [{name}]")
            found.update(matches)
        return sorted(found)

    def start(self, model_id: str, parameters: DeploymentParameters) -> Deployment:
        """Load the model and note that it runs. Raises `RestError`, and then nothing was started."""
        with self._changing:
            if self.store.deployment(model_id) is not None:
                reason = f"an existing deployment with the same id [{model_id}] exist"
                raise RestError(400, f"Could not start model deployment because {reason}")
            deployment = self._load(model_id, parameters)
            self.store.set_deployment(model_id, parameters)
            self.running[model_id] = deployment
            return deployment

    def update(self, model_id: str, number_of_allocations: int) -> Deployment:
        """Give a deployment another number of workers. Texts that wait are finished by the old ones.

        Raises `RestError`, and then nothing has changed.
        """
        with self._changing:
            if model_id not in self.store.ids() or (parameters := self.store.deployment(model_id)) is None:
                raise missing_deployment(model_id)
            before = self.deployment(model_id)
            parameters = replace(parameters, number_of_allocations=number_of_allocations)
            deployment = self._load(model_id, parameters)
            deployment.go_on_from(before)
            self.store.set_deployment(model_id, parameters)
            self.running[model_id] = deployment  # the old workers end with their last text
            return deployment

    def stop(self, model_id: str, *, allow_no_match: bool = True, finish_pending_work: bool = False) -> None:
        """End a deployment. Without one, raise `RestError` 404 unless `allow_no_match`."""
        with self._changing:
            if model_id in self.store.ids() and self.store.deployment(model_id) is not None:
                self.store.set_deployment(model_id, None)
                self.failures.pop(model_id, None)
                if (deployment := self.running.pop(model_id, None)) is not None:
                    deployment.close(finish_pending_work=finish_pending_work)
            elif not allow_no_match:
                raise missing_deployment(model_id)

    def delete(self, model_id: str, *, force: bool) -> None:
        """Remove a model. Raises `RestError` 404 if it is unknown, 409 if it is deployed and not `force`."""
        with self._changing:
            if self.store.deployment(model_id) is not None and not force:
                reason = "as it is currently deployed; use force to delete the model"
                raise RestError(409, f"Cannot delete model [{model_id}] {reason}")
            self.stop(model_id)
            self.store.delete(model_id)

    def deployment(self, model_id: str) -> Deployment:
        """Return the deployment, loaded again if the node was restarted. Raises `RestError`."""
        if (running := self.running.get(model_id)) is not None:
            return running
        with self._changing:
            parameters = self.store.deployment(model_id)
            if parameters is None:
                way_out = "Please deploy with the start trained model deployment API."
                raise RestError(409, f"Model [{model_id}] must be deployed to use. {way_out}")
            if model_id not in self.running:
                try:
                    self.running[model_id] = self._load(model_id, parameters)
                except RestError as error:
                    self.failures[model_id] = str(error)
                    raise RestError(409, f"Trained model [{model_id}] is [failed]: {error}") from error
                self.failures.pop(model_id, None)
            return self.running[model_id]

    def load_deployments(self) -> None:
        """Load the deployments of a node that was restarted, log failures and note them for `_stats`."""
        for model_id in self.store.ids():
            try:
                if self.store.deployment(model_id) is not None:
                    self.deployment(model_id)
            except RestError as error:
                _log.warning("The deployment [%s] could not be loaded: %s", model_id, error)

    def _load(self, model_id: str, parameters: DeploymentParameters) -> Deployment:
        parameters.check()
        config, definition = self.store.config(model_id), self.store.definition(model_id)
        wanted, here = config.get("platform_architecture"), platform_architecture()
        if wanted not in (None, here):
            fault = f"is platform specific and incompatible with ML nodes in the cluster; expected [{wanted}]"
            reason = f"The model being deployed ([{model_id}]) {fault}; but was [{here}]"
            raise RestError(400, reason, "illegal_argument_exception")
        [(kind, options)] = config["inference_config"]["text_embedding"]["tokenization"].items()
        tokenizer = WordPieceTokenizer(
            self.store.vocabulary(model_id),
            kind=KINDS[kind],
            do_lower_case=options["do_lower_case"],
            with_special_tokens=options["with_special_tokens"],
            max_sequence_length=options["max_sequence_length"],
            truncate=options["truncate"],
        )
        try:
            return Deployment(config, definition, tokenizer, parameters)
        except RuntimeError as error:
            reason = f"the following nodes failed with errors [{{{NODE_NAME}={last_line(error)}}}]"
            raise RestError(500, f"Could not start trained model deployment, {reason}") from error
