"""The index as a public contract: its mapping for one profile, its documents, their hits and similarities."""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from es_config.errors import EngineError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class FilmMoment:
    """The place of a picture in the film that it was taken from."""

    id: str
    """SHA-256 of the film's file, the same for all of its moments"""
    time_ms: int
    duration_ms: int
    is_moment: bool = False
    """False for the picture that stands for the whole film, whose document has the film's own id"""
    moments: tuple[int, ...] | None = None
    """in the document of the whole film, the times of its moments; None if nobody has looked for them"""
    codec: str | None = None
    """as FFmpeg calls it, such as `h264`"""
    has_sound: bool = False


def moment_id(film_id: str, time_ms: int) -> str:
    """Return the id of a film's moment: 64 hexadecimal digits, as all ids are."""
    return hashlib.sha256(f"{film_id} {time_ms}".encode()).hexdigest()


def content_id(image_id: str, source: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the file that a picture comes from: of a film's moment that is the film's."""
    found = (source.get("film") or {}).get("id")
    return found if isinstance(found, str) else image_id


@dataclass(frozen=True)
class ImageDocument:
    """One picture as the index keeps it.

    `image_id` is the SHA-256 of the file's content, in hex, or of a film's moment its `moment_id`.
    """

    image_id: str
    image_name: str
    relative_path: tuple[str, ...]
    image_embedding: np.ndarray
    """float32 `[dims]`, unit length"""
    width: int
    """pixels, after orientation"""
    height: int
    size_bytes: int
    indexed_at: datetime
    phash: str | None = None
    caption: str | None = None
    caption_source: str | None = None
    """who wrote the caption: `model`, `description` (the file itself says it) or `human`"""
    caption_embedding: np.ndarray | None = None
    """float32 `[caption_dims]`, unit length"""
    exif_date: datetime | None = None
    exif_location: tuple[float, float] | None = None
    """(latitude, longitude) in degrees, WGS 84"""
    exif_camera: str | None = None
    exif_local_date: datetime | None = None
    """without a time zone: as the clocks of the place showed it"""
    exif_offset: str | None = None
    """of those clocks from UTC, as in `+02:00`"""
    exif_date_source: str | None = None
    """where the date was read, such as `EXIF` or `file name`"""
    exif_places: tuple[str, ...] = ()
    """names of the place by its coordinates, the nearest first"""
    exif_places_by: str | None = None
    """the list of places that gave these names, also where it has none"""
    tags: tuple[str, ...] = ()
    title: str | None = None
    people: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    """names of the place, the nearest first"""
    rating: int | None = None
    """1 to 5 stars"""
    words: Mapping[str, Any] | None = None
    """the text in the picture, as `words_fields` makes it; None if nobody has read it"""
    film: FilmMoment | None = None
    """None for a picture that is no part of a film"""
    cut_short: bool = False
    """whether the end of the file is missing, and with it less than a tenth of the picture"""


@dataclass(frozen=True)
class StoredDocument:
    """One document as it lies in an index, with its vectors: for export, and for import without models."""

    image_id: str
    source: Mapping[str, Any]
    """everything but the vectors"""
    vectors: Mapping[str, np.ndarray]
    """float32 `[dims]` by field"""


class WrittenLine(Protocol):
    """A line of text in a picture."""

    @property
    def text(self) -> str:
        """Return the letters."""

    @property
    def confidence(self) -> float:
        """Return 0 to 1."""

    @property
    def corners(self) -> Sequence[tuple[float, float]]:
        """Return four points (x, y), 0 to 1 of the upright picture's width and height."""


def words_fields(lines: Sequence[WrittenLine], *, by: str) -> dict[str, Any]:
    """Return the fields of a document for the text in its picture, which the reader `by` has read."""
    return {
        "words": [line.text for line in lines],
        "words_by": by,
        "words_fault": None,
        "words_lines": [
            {
                "text": line.text,
                "confidence": line.confidence,
                "box": [coordinate for point in line.corners for coordinate in point],
            }
            for line in lines
        ],
    }


def words_fault(reason: str) -> dict[str, Any]:
    """Return the fields for a picture in which nothing can be read, for this reason."""
    return {"words": None, "words_by": None, "words_fault": reason, "words_lines": None}


LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d"})
"""letters that Unicode does not take apart"""
DIACRITICS = re.compile(r"[\u0300-\u036f]")
NAME_WORD = re.compile(r"[^\W_]+")
MOST_FOLDERS = 12
"""of a path, from its end, at which a filter may begin"""
NAMES_EDITION = 2
"""of `name_fields`: documents of a lower one are completed"""
ONE_FORMAT = {"jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "tif": "tiff", "heif": "heic", "hif": "heic"}
"""ending of a file's name -> the format as people call it, where both differ"""
LONGEST_ENDING = 5
"""characters of a file name's ending that names a format"""


def same_letters(text: str) -> str:
    """Return a text in one form of Unicode and in one case: `ZÜRICH` and `Zu\u0308rich` are `zürich`."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def folded(text: str) -> str:
    """Return a text in one case without diacritics: `Zürich` is `zurich`."""
    plain = DIACRITICS.sub("", unicodedata.normalize("NFKD", text.casefold())).translate(LETTERS)
    return unicodedata.normalize("NFC", plain).casefold()


def name_words(text: str) -> str:
    """Return the words of a name, folded, and the parts of those that are written in one.

    `SummerHoliday_2019` is `summerholiday summer holiday 2019`.
    """
    found: dict[str, None] = {}
    for word in NAME_WORD.findall(unicodedata.normalize("NFC", text)):
        found[folded(word)] = None
        cuts = [at for at in range(1, len(word)) if _begins_part(word[at - 1], word[at])]
        parts = [word[start:end] for start, end in zip([0, *cuts], [*cuts, None], strict=True)]
        found |= {folded(part): None for part in parts if len(part) > 1}
    return " ".join(found)


def _begins_part(before: str, char: str) -> bool:
    return (before.islower() and char.isupper()) or before.isdigit() != char.isdigit()


def name_fields(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return `names` of a document from its other fields: all that a person may call the picture by.

    `path` holds the end of each path from each of its folders on, so that a filter may begin at any, and
    `within` each path's folders from the first on: `a` and `a/b` of `a/b/c.jpg`. Names of places are those
    that people wrote and those of the coordinates; `place_keys` are the same folded.
    """
    paths, exif = paths_of(source), source.get("exif") or {}
    folders, files, ends, within, formats = [], [], [], [], []
    for path in paths:
        parts = path.split("/")
        folders += parts[:-1]
        within += ["/".join(parts[:end]) for end in range(1, len(parts))]
        formats.append(format_of(parts[-1]))
        files.append(parts[-1].rsplit(".", 1)[0])
        keyed = same_letters(path).split("/")
        first = max(0, len(keyed) - MOST_FOLDERS)
        ends += ["/".join(keyed[start:]) for start in (0, *range(max(1, first), len(keyed)))]
    names = {
        "file": files,
        "folders": folders,
        "tags": source.get("tags") or (),
        "people": source.get("people") or (),
        "title": [source["title"]] if source.get("title") else (),
        "places": [*(source.get("places") or ()), *(exif.get("places") or ())],
        "camera": [exif["camera"]] if exif.get("camera") else (),
    }
    found: dict[str, Any] = {
        name: list(dict.fromkeys(filter(None, map(name_words, values)))) for name, values in names.items()
    }
    keywords = [*names["tags"], *names["people"]]
    found["keywords"] = list(dict.fromkeys(map(same_letters, keywords)))
    found["place"] = list(dict.fromkeys(names["places"]))
    found["place_keys"] = list(dict.fromkeys(map(place_key, names["places"])))
    found["format"] = sorted(set(filter(None, formats)))
    for name, values in (("path", ends), ("within", within)):
        found[name] = list(dict.fromkeys(value for value in values if len(value.encode()) <= LONGEST_TERM))
    found["edition"] = NAMES_EDITION
    return {"names": {name: values for name, values in found.items() if values}}


def format_of(file_name: str) -> str:
    """Return the format that a file's name tells, such as `jpeg`, or an empty text."""
    _, dot, ending = file_name.lower().rpartition(".")
    is_one = dot and 0 < len(ending) <= LONGEST_ENDING and ending.isalnum() and ending.isascii()
    return ONE_FORMAT.get(ending, ending) if is_one else ""


def place_key(name: str) -> str:
    """Return the form in which names of places are compared: one case, without diacritics."""
    return " ".join(folded(name).split())


LONGEST_TERM = 32_766
"""bytes: Lucene's limit"""


def local_fields(date: str) -> dict[str, str]:
    """Return the local date and the offset that a date of a document with an offset tells."""
    aware = datetime.fromisoformat(date)
    fields = {"local_date": aware.replace(tzinfo=None).isoformat()}
    offset = aware.isoformat()[len(fields["local_date"]) :]
    return fields | ({"offset": offset} if offset not in ("", "+00:00") else {})


def read_point(location: object) -> tuple[float, float] | None:
    """Return (latitude, longitude) of a geo_point in any of the forms that a `_source` may hold, or None."""
    parts: Sequence[Any] = ()
    if isinstance(location, Mapping):
        parts = location.get("lat"), location.get("lon")
    elif isinstance(location, list):
        parts = location[::-1]
    elif isinstance(location, str):
        parts = location.split(",")
    try:
        latitude, longitude = parts
        point = float(latitude), float(longitude)
    except (ValueError, TypeError):
        return None
    return point if abs(point[0]) <= 90 and abs(point[1]) <= 180 else None


def paths_of(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the relative paths of a document's `_source`.

    Elasticsearch keeps a document as its writer sent it: a single path may be a plain string.
    """
    paths = source.get("relative_path") or ()
    return (paths,) if isinstance(paths, str) else tuple(paths)


def shown_path(source: Mapping[str, Any], image_id: str) -> str:
    """Return the path that names a picture in messages, or its id if it has none."""
    return (paths_of(source) or (image_id,))[0]


def one_line(text: str) -> str:
    """Return text for a terminal: line breaks and control characters are spelled out, never obeyed.

    Every command prints paths and other words of strangers in this form, so that they can be compared.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")
"""control characters, and those that turn the direction of the text around them"""


def without_controls(text: str) -> str:
    """Return a text on one line, with a space in place of line breaks and control characters."""
    return " ".join(CONTROLS.sub(" ", text).split())


@dataclass(frozen=True)
class Hit:
    """One neighbour that Elasticsearch returned."""

    image_id: str
    score: float
    """Elasticsearch's `_score`"""
    similarity: float
    """the field's raw similarity, recovered from the score: the cosine for `cosine`"""
    source: dict[str, Any]
    """the document's `_source`, which never holds vectors"""
    matched: tuple[str, ...] = ()
    """the names of the named queries that it satisfies"""


@dataclass(frozen=True)
class SearchResult:
    """The hits of one request, with the time that Elasticsearch reported."""

    hits: tuple[Hit, ...]
    total: int
    took_ms: int
    shards: int = 1
    shards_failed: int = 0
    """those that did not answer: what they hold is missing, where partial answers are accepted"""


@dataclass(frozen=True)
class AddResult:
    """The outcome of one bulk request: `failed` maps an image id to the reason."""

    added: int
    failed: dict[str, str]


SIMILARITIES = ("cosine", "dot_product", "l2_norm", "max_inner_product")


def from_score(similarity: str, score: float) -> float:
    """Return the raw similarity behind a kNN `_score`: cosine, dot product, or for `l2_norm` the distance.

    The formulas are those of Elasticsearch's `dense_vector` reference, solved for the similarity.
    """
    if similarity in ("cosine", "dot_product"):
        return 2 * score - 1
    if similarity == "l2_norm":
        return math.sqrt(max(0.0, 1 / score - 1))
    if similarity == "max_inner_product":
        return score - 1 if score >= 1 else 1 - 1 / score
    raise ValueError(f"unknown similarity {similarity!r}; known: {', '.join(SIMILARITIES)}")


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return `vectors` `[n, dims]` divided by their lengths. A zero vector stays zero."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def read_hits(answer: Mapping[str, Any], *, similarity: str | None) -> SearchResult:
    """Return the hits of an answer. Without a field's `similarity`, that of a hit is its score."""
    hits = []
    for hit in answer["hits"]["hits"]:
        score = float(hit.get("_score") or 0.0)
        raw = score if similarity is None else from_score(similarity, score)
        matched = tuple(hit.get("matched_queries", ()))
        hits.append(Hit(hit["_id"], score, raw, hit.get("_source", {}), matched))
    total = answer["hits"].get("total", {}).get("value", len(hits))
    shards = answer.get("_shards", {})
    failed = int(shards.get("failed", 0))
    return SearchResult(tuple(hits), int(total), int(answer["took"]), int(shards.get("total", 1)), failed)


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


def lacking_fields(mappings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the contract's fields, without vectors, that a mapping of an earlier version does not have."""
    contract = json.loads(TEMPLATE.read_text(encoding="utf-8"))["mappings"]["properties"]
    lacking = _lacking(contract, mappings.get("properties", {}))
    return {name: field for name, field in lacking.items() if name not in VECTOR_FIELDS}


def _lacking(contract: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    lacking = {name: field for name, field in contract.items() if name not in found}
    for name in contract.keys() & found.keys():
        more = _lacking(contract[name].get("properties", {}), found[name].get("properties", {}))
        lacking |= {name: {"properties": more}} if more else {}
    return lacking


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
