"""Upload a text model with eland, start and stop it, and embed texts with `_infer`."""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from elasticsearch import ApiError, ConnectionTimeout, Elasticsearch, NotFoundError, TransportError

from es_config.client import WANTED, explain, read_version, refusal
from es_config.documents import unit_rows
from es_config.errors import EngineError

if TYPE_CHECKING:
    from eland.ml.pytorch import PyTorchModel

REQUEST_TIMEOUT_S = 300
PART_BYTES, SMALLEST_PART_BYTES = 2**20, 2**16
"""of a definition's part, a third more as base64. A large model has 10 000 of the smallest."""
START_TIMEOUT = "120s"


MODEL_ID = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,62}[a-z0-9])?")


def check_model_id(model_id: str) -> None:
    """Raise `EngineError` when Elasticsearch would refuse the id of a trained model."""
    if not MODEL_ID.fullmatch(model_id):
        raise EngineError(
            f"'{model_id}' cannot be a model's id in Elasticsearch: give --es-model-id at most 64 lowercase"
            " letters, digits, '_', '-' and '.', with a letter or a digit at both ends."
        )


@dataclass(frozen=True)
class DeploymentOptions:
    """How Elasticsearch runs the model."""

    number_of_allocations: int = 1
    threads_per_allocation: int = 1
    queue_capacity: int = 1024


@dataclass(frozen=True)
class ModelStatus:
    """The state of a model in Elasticsearch."""

    model_id: str
    state: str
    """`absent`, `incomplete`, `stopped`, or the deployment's: `starting`, `started`, `stopping`, `failed`"""
    dims: int | None = None
    size_bytes: int = 0
    revision: str | None = None
    """of the weights that were uploaded; None when Glimpse did not upload it"""
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
        """End the deployment, if there is one."""
        with expected(self.model_id):
            self.client.ml.stop_trained_model_deployment(model_id=self.model_id, force=force)

    def delete(self, *, force: bool = False) -> None:
        """Remove the model, but a deployed one only with `force`."""
        with expected(self.model_id):
            if force:
                self.client.ml.stop_trained_model_deployment(model_id=self.model_id, force=True)
            self.client.ml.delete_trained_model(model_id=self.model_id, force=force)


@contextmanager
def expected(model_id: str = "") -> Iterator[None]:
    """Turn a refusal of Elasticsearch into one sentence, an `EngineError`."""
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


def _refused(error: ApiError, model_id: str) -> EngineError:
    reason = refusal(error.body, error.message)
    if error.status_code == 404:
        return EngineError(
            f"There is no model {model_id} in Elasticsearch ({reason}): run `glimpse model upload`."
        )
    if error.status_code == 403:
        return EngineError(
            f"Elasticsearch does not allow this ({reason}); text models need a Platinum or trial licence."
            " Search works without: --text-lane local."
        )
    if error.status_code in (401, 413, 503):
        return explain(error)
    return EngineError(f"Elasticsearch refused: {reason}")


PAIR = "sentence-transformers/clip-ViT-B-32-multilingual-v1"
TWO_TOWERS = ("clip", "clip_vision_model", "siglip", "siglip2", "siglip_vision_model", "chinese_clip")
SUPPORTED_TOKENIZERS = (
    "BertTokenizer",
    "DistilBertTokenizer",
    "MPNetTokenizer",
    "RobertaTokenizer",
    "XLMRobertaTokenizer",
    "DebertaV2Tokenizer",
)
"""Those that eland takes for text embedding; the local node runs the first three."""
LONGEST_WITHOUT_LIMIT = 512


@dataclass(frozen=True)
class TextModelSource:
    """A text model to upload."""

    folder: Path
    name: str
    """for people"""
    revision: str
    """fingerprint of its weights"""
    dims: int | None = None
    """the width that its vectors must have; None: any"""
    task_type: str = "text_embedding"
    max_model_input_length: int | None = None
    """tokens; None: the model's own limit"""


def upload(
    model: TrainedModel,
    source: TextModelSource,
    *,
    clear_previous: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Export the model as TorchScript and put it into Elasticsearch as `model`.

    A model that is there already is replaced only with `clear_previous`, and only once the export succeeded.
    When the upload fails, what it left is deleted. Raises `EngineError`.
    """
    check_folder(source.folder, name=source.name)
    state = model.status().state
    if state != "absent" and not clear_previous:
        half = "a half-uploaded" if state == "incomplete" else "a"
        raise EngineError(
            f"There is {half} model {model.model_id} in Elasticsearch already; replace it with"
            " --clear-previous."
        )
    with tempfile.TemporaryDirectory(prefix="glimpse-model-") as scratch, expected(model.model_id):
        version = read_version(model.client) or f"{WANTED}.0"
        say(f"Exporting {source.name}")
        definition, config, vocabulary = export(source, Path(scratch), version=version)
        if state != "absent":
            model.delete(force=True)
        say(f"Uploading {Path(definition).stat().st_size / 1e6:.1f} MB as {model.model_id}")
        from eland.ml.pytorch import (
            PyTorchModel,
        )  # imported once warnings of its import are hushed: by `export`

        uploaded = PyTorchModel(model.client, model.model_id)
        uploaded.put_config(config=config)
        try:
            _put_definition(model, uploaded, definition, config)
            uploaded.put_vocab(vocabulary)
        except BaseException:
            ignoring = model.client.options(ignore_status=404)
            ignoring.ml.delete_trained_model(model_id=model.model_id, force=True)
            raise


def _put_definition(model: TrainedModel, uploaded: PyTorchModel, definition: str, config: Any) -> None:
    """Send the TorchScript in parts, smaller ones where the server takes none of this size."""
    size = PART_BYTES
    while True:
        try:
            return uploaded.put_model(definition, chunk_size=size)
        except ApiError as error:
            if error.status_code != 413 or size <= SMALLEST_PART_BYTES:
                raise
        size //= 2
        model.delete(force=True)  # all parts of a model have one size
        uploaded.put_config(config=config)


def export(source: TextModelSource, scratch: Path, *, version: str) -> tuple[str, Any, str]:
    """Return the TorchScript file, eland's configuration and the vocabulary file, all below `scratch`.

    `version` is Elasticsearch's. Raises `EngineError` when the model cannot be exported or has another width.
    """
    with _quietly_on_the_cpu():
        from eland.common import parse_es_version
        from eland.ml.pytorch.transformers import TransformerModel

        try:
            model = TransformerModel(
                model_id=str(source.folder),
                task_type=source.task_type,
                es_version=parse_es_version(version),  # without it eland leaves embedding_size out
                # without it eland takes the tokenizer's limit, and the two lanes would cut texts differently
                max_model_input_size=source.max_model_input_length or longest_text(source.folder),
            )
            definition, config, vocabulary = model.save(str(scratch))
        except Exception as error:  # eland, transformers, safetensors and torch each raise their own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise EngineError(f"{source.name} cannot be exported for Elasticsearch ({reason}).") from error
    size = getattr(config.inference_config, "embedding_size", None)  # only models that embed have one
    if source.dims is not None and size != source.dims:
        raise EngineError(
            f"{source.name} gives vectors of {size} dims and the profile needs {source.dims};"
            " choose the text model that belongs to the profile's image model."
        )
    config.description = f"Text model {source.name}, uploaded by Glimpse"
    config.metadata = {**(config.metadata or {}), "glimpse_revision": source.revision}
    return definition, config, vocabulary


@contextmanager
def _quietly_on_the_cpu() -> Iterator[None]:
    """Silence the libraries, and hide GPUs from torch, as a model half on a GPU cannot be traced."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "KINETO_LOG_LEVEL": "99"}
    before = {name: os.environ.get(name) for name in hidden}
    os.environ.update(hidden)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def check_folder(folder: Path, *, name: str) -> None:
    """Raise `EngineError`, naming the model to use instead, when `folder` cannot become a text model."""
    if (folder / "0_CLIPModel").is_dir() or _read(folder / "config.json").get("model_type") in TWO_TOWERS:
        raise EngineError(
            f"{name} is the image model of its pair, and its tokenizer cannot be used in Elasticsearch;"
            f" upload the text model of the pair: --hub-model-id {PAIR}."
        )
    if not (folder / "modules.json").is_file():
        raise EngineError(
            f"{name} has no modules.json: its pooling and Dense layers would be lost silently; use a model"
            " that was saved by sentence-transformers."
        )
    tokenizer = str(_read(folder / "tokenizer_config.json").get("tokenizer_class")).removesuffix("Fast")
    if tokenizer not in SUPPORTED_TOKENIZERS:
        raise EngineError(
            f"The tokenizer of {name} ({tokenizer}) cannot be used in Elasticsearch; choose a model with one"
            f" of {', '.join(SUPPORTED_TOKENIZERS)}, such as {PAIR}."
        )


def longest_text(folder: Path) -> int:
    """Return the model's own limit in tokens, which the local lane keeps as well."""
    limit = _read(folder / "sentence_bert_config.json").get("max_seq_length")
    if limit is None:
        limit = _read(folder / "tokenizer_config.json").get("model_max_length")
    if not isinstance(limit, int | float) or not 1 <= limit <= LONGEST_WITHOUT_LIMIT:
        return LONGEST_WITHOUT_LIMIT
    return int(limit)


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, empty if it is absent."""
    if not path.is_file():
        return {}
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise EngineError(f"{path} is not valid JSON ({error}); copy the model again.") from error
    if not isinstance(settings, dict):
        raise EngineError(f"{path} is not the configuration of a model; copy the model again.")
    return settings


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
    """`_infer` is not available at the moment. `cause` is the reason in two words."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


class InferTextEncoder:
    """Embeds texts with the model deployed as `model_id`, in the lane `infer`.

    `revision` is the fingerprint of the profile's weights, and `matches` says whether another note means the
    same ones. A deployed model with other weights is refused: vectors of other weights have the right width
    and mean nothing.
    """

    lane = "infer"

    def __init__(
        self,
        client: Elasticsearch,
        *,
        model_id: str,
        dims: int,
        revision: str,
        matches: Callable[[str], bool] = lambda _noted: False,
        timeout_s: float = 5.0,
    ) -> None:
        self.model_id = model_id
        self.dims = dims
        self.revision = revision
        self._matches = matches
        self._timeout_s = timeout_s
        self._client = client.options(request_timeout=timeout_s + 1, max_retries=0)
        self._checked = False

    def embed_texts(self, texts: Sequence[str], *, on_cut: Callable[[], None] | None = None) -> np.ndarray:
        """Return float32 `[n, dims]`, unit length. Raises `InferUnavailableError`, naming the way out.

        `on_cut` is called when the model left out the end of a text.
        """
        self._check_once()
        rows = [np.zeros((0, self.dims), np.float32)]
        for start in range(0, len(texts), DOCS_A_REQUEST):
            rows.append(self._embed(texts[start : start + DOCS_A_REQUEST], on_cut))
        return np.concatenate(rows)

    def _embed(self, texts: Sequence[str], on_cut: Callable[[], None] | None) -> np.ndarray:
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
        if on_cut and any(one.get("is_truncated") for one in answer["inference_results"]):
            on_cut()
        return unit_rows(vectors)

    def _check_once(self) -> None:
        """Compare the revisions, once for each time that the model was out of reach."""
        if self._checked:
            return
        answer = self._call(self._client.ml.get_trained_models, model_id=self.model_id)
        metadata = answer["trained_model_configs"][0].get("metadata") or {}
        deployed = metadata.get("glimpse_revision", self.revision)
        if deployed != self.revision and not self._matches(deployed):
            raise InferUnavailableError(
                "other weights",
                f"the model {self.model_id} in Elasticsearch was uploaded from other weights than the profile"
                " has: run `glimpse model upload --clear-previous --start`",
            )
        self._checked = True

    def _call(self, function: Any, **arguments: Any) -> Any:
        try:
            return function(**arguments)
        except ApiError as error:
            self._checked = False
            cause, reason = CAUSES.get(
                error.status_code, (f"status {error.status_code}", refusal(error.body, error.message))
            )
            raise InferUnavailableError(cause, reason) from error
        except ConnectionTimeout as error:
            raise InferUnavailableError(*CAUSES[408]) from error
        except TransportError as error:
            self._checked = False
            raise InferUnavailableError("connection", "Elasticsearch cannot be reached") from error
