"""Putting a sentence-transformers text model into Elasticsearch with eland."""

from __future__ import annotations

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
from es_config.text_model_folder import check_folder, longest_text
from es_config.trained_model import TrainedModel, expected

if TYPE_CHECKING:
    from elasticsearch import Elasticsearch


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
