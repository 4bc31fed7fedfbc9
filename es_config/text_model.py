"""Putting a sentence-transformers text model into Elasticsearch with eland."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from es_config.errors import EngineError
from es_config.trained_model import TrainedModel, expected

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch

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
    """What is uploaded."""

    folder: Path
    name: str
    """what people know the model by"""
    revision: str
    """what tells its weights from others"""
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
        version = model.client.info()["version"]["number"]
        say(f"Exporting {source.name}")
        definition, config, vocabulary = export(source, Path(scratch), version=version)
        if state != "absent":
            model.delete(force=True)
        say(f"Uploading {Path(definition).stat().st_size / 1e6:.1f} MB as {model.model_id}")
        _put(model.client, model.model_id, config=config, definition=definition, vocabulary=vocabulary)


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
    _describe(config, source)
    return definition, config, vocabulary


def _describe(config: Any, source: TextModelSource) -> None:
    size = config.inference_config.embedding_size
    if source.dims is not None and size != source.dims:
        raise EngineError(
            f"{source.name} gives vectors of {size} dims and the profile needs {source.dims};"
            " choose the text model that belongs to the profile's image model."
        )
    config.description = f"Text model {source.name}, uploaded by Glimpse"
    config.metadata = {**(config.metadata or {}), "glimpse_revision": source.revision}


def _put(client: Elasticsearch, model_id: str, *, config: Any, definition: str, vocabulary: str) -> None:
    from eland.ml.pytorch import PyTorchModel

    uploaded = PyTorchModel(client, model_id)
    uploaded.put_config(config=config)
    try:
        uploaded.put_model(definition)
        uploaded.put_vocab(vocabulary)
    except BaseException:
        client.options(ignore_status=404).ml.delete_trained_model(model_id=model_id, force=True)
        raise


@contextmanager
def _quietly_on_the_cpu() -> Iterator[None]:
    """Hide graphics cards from torch, since a model half on a card cannot be traced; hush the libraries."""
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
    tokenizer = _read(folder / "tokenizer_config.json").get("tokenizer_class", "none").removesuffix("Fast")
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
    return int(min(limit or LONGEST_WITHOUT_LIMIT, LONGEST_WITHOUT_LIMIT))


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON file's content; where a file may be absent, nothing is known."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EngineError(f"{path} is not valid JSON ({error}); copy the model again.") from error
