"""The index as a public contract: `images_index.json`, filled in for one profile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from es_config.documents import SIMILARITIES
from es_config.errors import EngineError

TEMPLATE = Path(__file__).with_name("images_index.json")
VECTOR_FIELDS = {"image_embedding": "dims", "caption_embedding": "caption_dims"}
MODE_FIELDS = {"image": "image_embedding", "caption": "caption_embedding"}
"""mode of a search -> the vector field that it asks"""
INDEX_TYPES = ("hnsw", "int8_hnsw", "int4_hnsw", "bbq_hnsw")


@dataclass(frozen=True)
class IndexOptions:
    """Options of a new index, always written out, as the engine's defaults change."""

    type: str = "int8_hnsw"
    m: int = 16
    ef_construction: int = 100
    shards: int = 1
    replicas: int = 0
    replicas_later: bool = False
    """make the replicas when the first ingest ends: faster, and until then a lost disk loses the index"""
    similarity: str | None = None
    """instead of the profile's"""

    @property
    def graph(self) -> dict[str, Any]:
        """The `index_options` of a vector field."""
        return {"type": self.type, "m": self.m, "ef_construction": self.ef_construction}


@dataclass(frozen=True)
class IndexMeta:
    """The models and findings of an index, kept in the mapping's `_meta`."""

    profile: str
    revisions: dict[str, str]
    dims: int
    caption_dims: int
    similarity: str
    operating_points: dict[str, Any] = field(default_factory=dict)
    """by `glimpse tune`: for each `k`, as text, its `num_candidates`, `oversample` and figures"""
    relevance: dict[str, Any] = field(default_factory=dict)
    """by `glimpse calibrate`: for each mode, the thresholds of a strong and of a weak hit"""
    execution: dict[str, Any] = field(default_factory=dict)
    """how vectors of pictures were made: for each precision its backend and how it agreed with fp32"""
    bulk_load: dict[str, Any] = field(default_factory=dict)
    """settings to restore when the last ingest ends, such as `number_of_replicas`; `runs`: who writes"""


def with_options(meta: IndexMeta, options: IndexOptions) -> IndexMeta:
    """Return `meta` with the similarity that was asked for. Raises EngineError for an unknown choice."""
    chosen = replace(meta, similarity=options.similarity or meta.similarity)
    if chosen.similarity not in SIMILARITIES:
        raise EngineError(
            f"There is no similarity '{chosen.similarity}'; choose one of: {', '.join(SIMILARITIES)}."
        )
    if options.type not in INDEX_TYPES:
        raise EngineError(
            f"There is no index type '{options.type}'; choose one of: {', '.join(INDEX_TYPES)}."
        )
    return chosen


def index_body(meta: IndexMeta, options: IndexOptions) -> dict[str, Any]:
    """Return the body of `PUT <index>`: the template with everything of one profile filled in."""
    body: dict[str, Any] = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    later = options.replicas_later and options.replicas > 0
    body["settings"] |= {
        "number_of_shards": options.shards,
        "number_of_replicas": 0 if later else options.replicas,
    }
    body["mappings"]["_meta"] = asdict(meta)
    if later:
        body["mappings"]["_meta"]["bulk_load"] = {"number_of_replicas": options.replicas}
    for name, dims in VECTOR_FIELDS.items():
        body["mappings"]["properties"][name] |= {
            "dims": getattr(meta, dims),
            "similarity": meta.similarity,
            "index_options": options.graph,
        }
    return body


def read_meta(index: str, mappings: Mapping[str, Any]) -> IndexMeta:
    """Return the `_meta` of an index. Raises EngineError when the index was not made by Glimpse."""
    meta = mappings.get("_meta", {})
    try:
        needed = (each for each in fields(IndexMeta) if each.default_factory is MISSING or each.name in meta)
        return IndexMeta(**{each.name: meta[each.name] for each in needed})
    except KeyError as missing:
        raise EngineError(
            f"The index {index} was not created by Glimpse (its mapping lacks _meta.{missing.args[0]}): "
            "delete it, or choose another alias, then run `glimpse index create`."
        ) from None


def differences(meta: IndexMeta, mappings: Mapping[str, Any]) -> list[str]:
    """Return the departures of a mapping from the contract, in words."""
    wanted = index_body(meta, IndexOptions())["mappings"]
    found = mappings.get("properties", {})
    wrong = [f"{name} is missing" for name in wanted["properties"] if name not in found]
    wrong += [f"{name} is not part of the contract" for name in found if name not in wanted["properties"]]
    wrong += (
        [f"dynamic is {mappings.get('dynamic')}, not strict"] if mappings.get("dynamic") != "strict" else []
    )
    for name, each in wanted["properties"].items():
        for key in ("type", "dims", "similarity"):
            if name in found and key in each and found[name].get(key) != each[key]:
                wrong.append(f"{name}.{key} is {found[name].get(key)}, not {each[key]}")
    return wrong
