"""A `dense_vector` field of any index: what the mapping says, and whether documents come or go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from es_config.client import engine_errors
from es_config.errors import EngineError
from es_config.meta import change_meta

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elasticsearch import Elasticsearch

QUANTISED = ("int8", "int4", "bbq")


@dataclass(frozen=True)
class VectorField:
    """One field that kNN can search."""

    index: str
    """the name of the index itself, not of an alias"""
    name: str
    dims: int
    similarity: str
    index_type: str
    m: int | None
    ef_construction: int | None
    oversample: float | None
    """what Elasticsearch rescores by when a search does not say; None: it does not rescore"""
    shards: int
    meta: Mapping[str, Any]
    """the mapping's `_meta`"""

    @property
    def is_quantised(self) -> bool:
        """Whether rescoring can raise recall: the graph is walked with coarser vectors than are stored."""
        return self.index_type.startswith(QUANTISED)

    @property
    def is_exact(self) -> bool:
        """Whether a kNN search looks at every stored vector anyway."""
        return self.index_type == "flat"

    @property
    def has_graph(self) -> bool:
        """Whether a search walks a graph, and `num_candidates` means something."""
        return self.index_type.endswith("hnsw")

    @property
    def is_ours(self) -> bool:
        """Whether the index was made by Glimpse."""
        return "profile" in self.meta and "revisions" in self.meta


@dataclass(frozen=True)
class Extent:
    """How much an index holds; two that differ mean that it changed in between."""

    documents: int
    last_sequence: int
    """highest sequence number of any shard; -1 when nothing was ever written"""


def read_vector_field(client: Elasticsearch, index: str, field: str) -> VectorField:
    """Return the field. Raises EngineError when `index` is not one index, or `field` cannot be searched."""
    with engine_errors():
        answer = client.options(ignore_status=404).indices.get(index=index)
    if answer.meta.status == 404:
        raise EngineError(f"There is no index '{index}': run `glimpse ingest`, or name another with --index.")
    if len(answer.body) != 1:
        raise EngineError(f"'{index}' names {len(answer.body)} indices: name one of them with --index.")
    ((name, found),) = answer.body.items()
    mappings = found["mappings"]
    properties = mappings.get("properties", {})
    mapping = _at(properties, field)
    _check(name, field, mapping, properties)
    options = mapping.get("index_options", {})
    return VectorField(
        index=name,
        name=field,
        dims=mapping["dims"],
        similarity=mapping.get("similarity", "cosine"),
        index_type=options.get("type", "hnsw"),
        m=options.get("m"),
        ef_construction=options.get("ef_construction"),
        oversample=options.get("rescore_vector", {}).get("oversample"),
        shards=int(found["settings"]["index"]["number_of_shards"]),
        meta=mappings.get("_meta", {}),
    )


def read_extent(client: Elasticsearch, index: str) -> Extent:
    """Return how many documents are searchable and how far writing has come. Raises EngineError."""
    last = max((each["max_seq_no"] for each in sequence_numbers(client, index)), default=-1)
    with engine_errors():
        return Extent(int(client.count(index=index)["count"]), last)


def sequence_numbers(client: Elasticsearch, index: str) -> list[dict[str, int]]:
    """Return `seq_no` of the index's statistics for each primary shard. Raises EngineError."""
    with engine_errors():
        answer = client.indices.stats(index=index, metric="docs", level="shards")
    shards = (copies for each in answer["indices"].values() for copies in each["shards"].values())
    return [copy["seq_no"] for copies in shards for copy in copies if copy["routing"]["primary"]]


def note_meta(client: Elasticsearch, field: VectorField, section: str, entries: Mapping[str, Any]) -> None:
    """Merge `entries` into one section of the `_meta` of any index; the rest stays. Raises EngineError."""
    change_meta(client, field.index, lambda meta: {**meta, section: {**meta.get(section, {}), **entries}})


def _at(properties: Mapping[str, Any], field: str) -> dict[str, Any] | None:
    found: Any = {"properties": properties}
    for part in field.split("."):
        found = (found.get("properties") or {}).get(part) if isinstance(found, dict) else None
    return found


def _vector_fields(properties: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for name, mapping in properties.items():
        if mapping.get("type") == "dense_vector":
            names.append(prefix + name)
        names += _vector_fields(mapping.get("properties", {}), f"{prefix}{name}.")
    return names


def _check(index: str, field: str, mapping: Any, properties: Mapping[str, Any]) -> None:
    """Raise EngineError unless the field holds numbers that kNN searches."""
    others = _vector_fields(properties)
    way_out = (
        f"name one with --field: {', '.join(others)}" if others else "the index has no dense_vector at all"
    )
    if mapping is None:
        raise EngineError(f"The index {index} has no field '{field}'; {way_out}.")
    if mapping.get("type") != "dense_vector":
        kind = mapping.get("type", "object")
        raise EngineError(f"The field '{field}' of {index} is of type {kind}, not dense_vector; {way_out}.")
    if not mapping.get("index", True):
        raise EngineError(f"The field '{field}' of {index} is not indexed, so kNN cannot search it.")
    if "dims" not in mapping:
        raise EngineError(f"The field '{field}' of {index} has no dims yet: no document has a vector.")
    if mapping.get("element_type", "float") in ("byte", "bit"):
        raise EngineError(
            f"The field '{field}' of {index} holds {mapping['element_type']} vectors: only float is measured."
        )
