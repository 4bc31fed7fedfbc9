"""Whether Elasticsearch can run a model: told from its folder's small files, before any weight is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from es_config.errors import EngineError

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
