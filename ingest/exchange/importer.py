"""Make documents of vectors that were made elsewhere: checked, in bounded memory, and never twice."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from es_config.bulk import Meanwhile, document_source
from es_config.client import cache_folder, connect, engine_settings, glimpse_home
from es_config.documents import (
    VECTOR_FIELDS,
    IndexMeta,
    IndexOptions,
    StoredDocument,
    name_fields,
    paths_of,
    unit_rows,
)
from es_config.errors import EngineError
from es_config.hidden import HiddenPictures
from es_config.index import ImageIndex, PathsChanged
from ingest.errors import IngestError, UnreadableImageError
from ingest.exchange.exporter import read_export
from ingest.exchange.shards import CAPTION_VECTORS, IMAGE_VECTORS, METADATA, Block, Row, VectorSources
from ingest.files.picture import pixel_limit, read_image, thumbnail
from ingest.files.walk import Failure, valid_unicode
from ingest.pipeline.parallel import ahead, ordered_map, write_behind
from ingest.pipeline.read import new_document
from ingest.report import Progress
from ingest.wiring import EncoderOptions, choose_image_encoder, index_meta
from models.encoders import ImageEncoder, Lazy
from models.fast.choose import Requested
from models.pixels import MAX_PIXELS, register_formats
from models.profiles import PROFILES, Profile, get_profile
from storage.errors import StorageError
from storage.keys import IMAGE_ID, thumbnail_key
from storage.store import Storage, default_store, open_storage

PATH_COLUMNS = ("image_path", "relative_path", "path", "file_name", "filename", "url", "key")
"""names of the column of paths, in the order of preference"""
ID_COLUMNS = ("image_id", "sha256")
DOCUMENT = "document"
"""column of an export with the whole document as JSON"""
SAMPLE, SAMPLE_SHARDS = 64, 8
"""pictures that are compared with their vectors, and shards whose first rows they are taken from"""
FITS, MISFITS = 0.9, 0.1
"""cosine of a picture's own vector, and the share of the sample that may be below it"""
AHEAD = 2
"""blocks that are read while one is written"""
NAMED_FAILURES = 1000
"""failed rows that are named; all are counted"""
ADDRESS = re.compile(r"^([a-z][a-z0-9+.-]+)://", re.IGNORECASE)


@dataclass(frozen=True)
class ImportOptions:
    """Options of an import."""

    pictures: Path | None = None
    """folder below which the pictures are read for their ids, sizes, dates and thumbnails"""
    path_column: str | None = None
    caption_column: str = "caption"
    check: bool = True
    """compare a sample of pictures with their vectors, where they can be read"""
    limit: int | None = None
    """rows to look at"""
    dry_run: bool = False
    max_pixels: int = MAX_PIXELS
    threads: int = 4


@dataclass
class ImportSummary:
    """The results of an import: `rows` = `added` + `known` + `failed`."""

    rows: int = 0
    added: int = 0
    """new documents; in a dry run, those there would be"""
    known: int = 0
    """rows whose picture the index had already, or had from an earlier row"""
    paths_added: int = 0
    """known pictures that got one more path"""
    failed: int = 0
    compared: int = 0
    """pictures that were read and fitted their vectors"""
    by_path: int = 0
    """new documents whose id is made of their path, as their content is unknown"""
    seconds: float = 0.0
    interrupted: bool = False
    dry_run: bool = False
    failures: list[Failure] = field(default_factory=list)
    """the first of those that failed"""

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of `glimpse import --json`."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


def in_words(summary: ImportSummary, *, check: bool = True) -> list[str]:
    """Return the results as sentences."""
    would = "would be " if summary.dry_run else ""
    moved = f" ({summary.paths_added} under a new path)" if summary.paths_added else ""
    rate = summary.rows / summary.seconds if summary.seconds else 0.0
    text = (
        f"{summary.rows} rows: {summary.added} {would}added, {summary.known} known already{moved},"
        f" {summary.failed} failed, in {summary.seconds:.1f} s ({rate:.0f}/s)."
    )
    again = " The same command goes on from there."
    sentences = [f"Interrupted. {text}{again}" if summary.interrupted else text]
    if check and summary.rows and not summary.compared:
        sentences.append(
            "No picture could be read to compare it with its vector: that the profile made these vectors is"
            " your word. Name a folder of pictures with --pictures to have it checked."
        )
    if summary.by_path:
        sentences.append(
            f"{summary.by_path} pictures have ids made of their paths, as the metadata has no SHA-256 of the"
            " files: `glimpse ingest` would add those files once more. With --pictures they are read."
        )
    return sentences


@dataclass(frozen=True)
class _Picture:
    document: StoredDocument
    thumbnail: bytes = b""
    by_path: bool = False


@dataclass(frozen=True)
class _Prepared:
    pictures: Sequence[_Picture]
    failures: Sequence[Failure]


@dataclass(kw_only=True)
class ImportJob:
    """An import with its parts. The index exists only once everything has been checked."""

    sources: VectorSources
    profile: Profile
    index: ImageIndex
    create: Callable[[], None]
    """makes the index, if there is none"""
    storage: Storage
    encoder: Lazy[ImageEncoder]
    options: ImportOptions
    has_caption_vectors: bool = False
    """whether vectors of captions are those of this index's model"""
    summary: ImportSummary = field(default_factory=ImportSummary, init=False)

    def run(self, progress: Progress) -> ImportSummary:
        """Check, then write. Ctrl-C ends it early with a summary. Raises `IngestError` and `ModelError`."""
        begin, options, summary = time.monotonic(), self.options, self.summary
        summary.dry_run = options.dry_run
        register_formats()
        with pixel_limit(options.max_pixels):
            if options.check:
                summary.compared = compare_sample(self.sources, self.encoder, options)
            progress.start(min(self.sources.rows, options.limit or self.sources.rows))
            try:
                self._all(progress)
            except KeyboardInterrupt:
                summary.interrupted = True
            except (EngineError, StorageError) as error:
                raise IngestError(
                    f"Stopped after {summary.added} pictures were added. {error} Nothing is lost: once that"
                    " is mended, the same command goes on from there."
                ) from error
        summary.seconds = time.monotonic() - begin
        return summary

    def _all(self, progress: Progress) -> None:
        if self.options.dry_run:
            with closing(ahead(self._prepared(), size=AHEAD)) as blocks:
                for prepared in blocks:
                    self._count(prepared, progress, self._write_nothing(prepared))
            return
        self.create()
        self.index.complete_mapping()
        with self.index.bulk_load() as load:
            try:
                with closing(ahead(self._prepared(), size=AHEAD)) as blocks:

                    def write(prepared: _Prepared) -> None:
                        load.wrote(len(prepared.pictures))
                        self._count(prepared, progress, self._write(prepared.pictures))

                    write_behind(blocks, write, name="import")
            finally:
                with suppress(EngineError):
                    self.index.refresh()

    def _prepared(self) -> Generator[_Prepared]:
        """Yield the blocks with everything in them checked, and as documents."""
        left = self.options.limit
        with ThreadPoolExecutor(self.options.threads, thread_name_prefix="read") as pool:
            for shard in self.sources.shards:
                for block in shard.blocks():
                    if left is not None and left <= 0:
                        return
                    number = len(block.rows) if left is None else min(left, len(block.rows))
                    left = None if left is None else left - number
                    yield self._prepare(shard.table.path, block, number, pool)

    def _prepare(self, file: Path, block: Block, number: int, pool: ThreadPoolExecutor) -> _Prepared:
        faults = vector_faults(block.vectors[:number])
        vectors = unit_rows(block.vectors[:number])
        captions = self._captions(block)

        def make(place: int) -> _Picture | Failure:
            where = f"{file}, row {block.start + place}"
            if fault := faults.get(place):
                return Failure(where, fault)
            named = {"image_embedding": vectors[place]}
            if captions is not None and captions[place].any():
                named["caption_embedding"] = captions[place]
            try:
                return picture_of(block.rows[place], named, self.options)
            except _BadRowError as error:
                return Failure(where, str(error))

        if self.options.pictures:
            made = list(ordered_map(pool, make, range(number), window=4 * self.options.threads))
        else:
            made = [make(place) for place in range(number)]
        return _Prepared(
            [each for each in made if isinstance(each, _Picture)],
            [each for each in made if isinstance(each, Failure)],
        )

    def _captions(self, block: Block) -> np.ndarray | None:
        if block.caption_vectors is None or not self.has_caption_vectors:
            return None
        usable = np.isfinite(block.caption_vectors).all(axis=1, keepdims=True)
        return unit_rows(np.where(usable, block.caption_vectors, np.float32(0)))

    def _write(self, pictures: Sequence[_Picture]) -> dict[str, int | str]:
        """Write new pictures, and add paths to known ones. Return by image id 1 for new, 0, or the fault."""
        merged = _merged(pictures)
        hidden = HiddenPictures(self.index)
        known = self.index.known(list(merged))
        known |= hidden.known([each for each in merged if each not in known])  # what was put away stays away
        new = [each for image_id, each in merged.items() if image_id not in known]
        for picture in new:  # first: no document is without the thumbnail that it could have
            if picture.thumbnail:
                self.storage.put(thumbnail_key(picture.document.image_id), picture.thumbnail)
        refused = self.index.add_stored([each.document for each in new]).failed if new else {}
        paths = {
            image_id: [path for path in paths_of(each.document.source) if path not in known[image_id]]
            for image_id, each in merged.items()
            if image_id in known
        }
        # Another writer added the same content at the same time: its document stays, with our paths.
        for image_id, reason in refused.items():
            if reason is Meanwhile.CHANGED:
                paths[image_id] = list(paths_of(merged[image_id].document.source))
        lacking = {image_id: more for image_id, more in paths.items() if more}
        changed = self.index.add_paths(lacking) if lacking else PathsChanged()
        away = hidden.add_paths({image_id: lacking[image_id] for image_id in changed.absent})
        left = dict.fromkeys(away.absent, "it left the index meanwhile: import it again")
        failed = changed.failed | away.failed | left
        self.summary.paths_added += len(lacking) - len(failed)
        faults = {image_id: reason for image_id, reason in refused.items() if image_id not in paths} | failed
        self.summary.by_path += sum(each.by_path and each.document.image_id not in refused for each in new)
        return {
            image_id: str(faults[image_id]) if image_id in faults else int(image_id not in paths)
            for image_id in merged
        }

    def _write_nothing(self, prepared: _Prepared) -> dict[str, int | str]:
        merged = _merged(prepared.pictures)
        known = self.index.known(list(merged)) if self.index.exists() else {}
        return {image_id: int(image_id not in known) for image_id in merged}

    def _count(self, prepared: _Prepared, progress: Progress, outcome: Mapping[str, int | str]) -> None:
        summary, seen = self.summary, set()
        failures = list(prepared.failures)
        for picture in prepared.pictures:
            image_id = picture.document.image_id
            result = outcome[image_id]
            if isinstance(result, str):
                name = (*paths_of(picture.document.source), image_id)[0]
                failures.append(Failure(name, f"the index refused it: {result}"))
            else:
                is_new = bool(result) and image_id not in seen
                summary.added += is_new
                summary.known += not is_new
            seen.add(image_id)
        for failure in failures:
            if len(summary.failures) < NAMED_FAILURES:
                summary.failures.append(failure)
                progress.failed(failure)
        summary.failed += len(failures)
        done = len(prepared.pictures) + len(prepared.failures)
        summary.rows += done
        for _ in range(done):
            progress.advance()


def _merged(pictures: Sequence[_Picture]) -> dict[str, _Picture]:
    """Return one picture for each content, with the paths of all rows that have it."""
    merged: dict[str, _Picture] = {}
    for each in pictures:
        image_id = each.document.image_id
        first = merged.setdefault(image_id, each)
        more = [
            path for path in paths_of(each.document.source) if path not in paths_of(first.document.source)
        ]
        if more:
            source = {**first.document.source, "relative_path": [*paths_of(first.document.source), *more]}
            document = StoredDocument(image_id, {**source, **name_fields(source)}, first.document.vectors)
            merged[image_id] = _Picture(document, first.thumbnail, first.by_path)
    return merged


class _BadRowError(IngestError):
    """One row cannot become a document. The import goes on."""


def vector_faults(vectors: np.ndarray) -> dict[int, str]:
    """Return by row why a vector `[n, dims]` cannot be used."""
    finite = np.isfinite(vectors).all(axis=1)
    zero = ~vectors.any(axis=1)
    faults = {int(place): "its vector holds values that are no numbers" for place in np.flatnonzero(~finite)}
    return faults | {int(place): "its vector is zero" for place in np.flatnonzero(zero & finite)}


def picture_of(row: Row, vectors: Mapping[str, np.ndarray], options: ImportOptions) -> _Picture:
    """Return the document of a row. Raises `_BadRowError`."""
    if row.get(DOCUMENT):
        return _Picture(_exported(str(row[DOCUMENT]), vectors))
    path = path_of(row, options)
    relative = relative_path(path, options.pictures)
    caption = row.get(options.caption_column)
    said = {"caption": str(caption), "caption_source": "description"} if caption else {}
    if options.pictures and (found := _file(path, options.pictures)):
        with suppress(UnreadableImageError):  # its metadata are there all the same
            file = read_image(found, max_pixels=options.max_pixels)
            # The placeholder is unpacked again: the vector is that of the row.
            source = document_source(new_document(file, relative)) | said
            source.pop("image_embedding", None)
            return _Picture(StoredDocument(file.image_id, source, vectors), thumbnail(file.image))
    image_id, by_path = _identity(row, path)
    source = {
        "image_id": image_id,
        "image_name": relative.rsplit("/", 1)[-1],
        "relative_path": [relative],
        **said,
        **{name: row[name] for name in ("width", "height") if _is_size(row.get(name))},
        "indexed_at": datetime.now(UTC).isoformat(),
    }
    return _Picture(StoredDocument(image_id, {**source, **name_fields(source)}, vectors), by_path=by_path)


def _exported(text: str, vectors: Mapping[str, np.ndarray]) -> StoredDocument:
    try:
        source = json.loads(text)
        image_id = source["image_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise _BadRowError(f"its column '{DOCUMENT}' holds no document of an export") from error
    if not isinstance(image_id, str) or not IMAGE_ID.fullmatch(image_id):
        raise _BadRowError(f"its document has no usable id ({image_id!r})")
    plain = {name: each for name, each in source.items() if name not in VECTOR_FIELDS}
    return StoredDocument(image_id, plain, vectors)


def path_of(row: Row, options: ImportOptions) -> str:
    """Return the path or address of a row. Raises `_BadRowError`."""
    names = (options.path_column,) if options.path_column else PATH_COLUMNS
    value = next((row[name] for name in names if row.get(name)), None)
    if not isinstance(value, (str, int)) or not str(value).strip("/. "):
        raise _BadRowError(f"it has no path: {' or '.join(names)} is empty")
    return str(value)


def relative_path(path: str, folder: Path | None) -> str:
    """Return the relative path of a document: below `folder` if it is there, without host and port names.

    Of an address, the path begins with the host.
    """
    if match := ADDRESS.match(path):
        parts = urlsplit(path)
        path = f"{parts.hostname or ''}{unquote(parts.path)}" if match[1].lower() != "file" else parts.path
    elif folder and Path(path).is_absolute() and Path(path).is_relative_to(folder.absolute()):
        path = Path(path).relative_to(folder.absolute()).as_posix()
    kept = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return valid_unicode("/".join(kept))


def _file(path: str, folder: Path | None) -> Path | None:
    """Return the file of a picture on this machine, or None."""
    if ADDRESS.match(path):
        return None
    found = (folder or Path()) / path
    try:
        return found if found.is_file() else None
    except (OSError, ValueError):
        return None


def _identity(row: Row, path: str) -> tuple[str, bool]:
    """Return the SHA-256 of the content if the row has it, or one made of the path, and which it is."""
    for name in ID_COLUMNS:
        if IMAGE_ID.fullmatch(value := str(row.get(name) or "").lower()):
            return value, False
    text = f"glimpse import\0{path}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest(), True


def _is_size(value: object) -> bool:
    return isinstance(value, int) and 0 < value < 1 << 31


def compare_sample(sources: VectorSources, encoder: Lazy[ImageEncoder], options: ImportOptions) -> int:
    """Embed up to 64 pictures that can be read, and return how many there were.

    Raises `IngestError` when their vectors are not those of the files: of another model, or in another
    order. Raises `ModelError` when the model cannot be loaded.
    """
    found = []
    for shard in sources.shards[:SAMPLE_SHARDS]:
        block = next(shard.blocks(), None)
        if block:
            here = [(block, place, file) for place, file in _readable(block, options)]
            step = max(1, len(here) * min(SAMPLE_SHARDS, len(sources.shards)) // SAMPLE)
            found += here[::step]
    images, kept = [], []
    for block, place, path in found[:SAMPLE]:
        with suppress(UnreadableImageError):
            images.append(read_image(path, max_pixels=options.max_pixels).image)
            kept.append((block, place, path))
    if not images:
        return 0
    own = encoder.get().embed_images(images)
    given = unit_rows(np.stack([block.vectors[place] for block, place, _ in kept]))
    cosines = (own * given).sum(axis=1)
    misfits = np.flatnonzero(~(cosines >= FITS))
    if len(misfits) > MISFITS * len(kept):
        raise IngestError(_misfit_in_words(own, kept, cosines, misfits))
    return len(kept)


def _readable(block: Block, options: ImportOptions) -> Iterator[tuple[int, Path]]:
    faults = vector_faults(block.vectors)
    for place, row in enumerate(block.rows):
        with suppress(_BadRowError):
            path = _file(path_of(row, options), options.pictures)
            if path and place not in faults:
                yield place, path


def _misfit_in_words(
    own: np.ndarray, kept: Sequence[tuple[Block, int, Path]], cosines: np.ndarray, misfits: np.ndarray
) -> str:
    said = f"{len(misfits)} of {len(kept)} pictures do not fit their vectors (median cosine"
    said += f" {float(np.median(cosines)):.2f})"
    block, place, path = kept[int(misfits[0])]
    others = unit_rows(np.nan_to_num(block.vectors)) @ own[int(misfits[0])]
    best = int(others.argmax())
    if others[best] >= FITS and best != place:
        return (
            f"{said}: {path} is row {block.start + place}, and fits the vector of row {block.start + best},"
            " so vectors and metadata are not in the same order. Nothing was written."
        )
    return (
        f"{said}: another model made them. Name its profile with --profile; --no-check imports them all the"
        " same. Nothing was written."
    )


def open_import(
    folder: Path | None,
    sources: VectorSources | None,
    environ: Mapping[str, str],
    *,
    profile_name: str | None,
    model_dir: Path | None,
    alias: str,
    store: str | None,
    options: ImportOptions,
) -> ImportJob:
    """Connect, and check the vectors against the profile. Nothing is written yet.

    `folder` has the layout of an export, or of clip-retrieval; otherwise `sources` say what there is.
    Raises `IngestError`, `EngineError`, `ModelError` or `StorageError`.
    """
    exported = read_export(folder) if folder else None
    sources = sources or sources_of(folder or Path())
    _check_columns(sources, options)
    home, cache = glimpse_home(environ), cache_folder(environ)
    index = ImageIndex(connect(engine_settings(environ, home)), alias=alias)
    exists = index.exists()
    declared = profile_name or (exported.profile if exported else None)
    if not exists and declared is None:
        raise IngestError(
            "Name the profile whose model made these vectors with --profile: nothing in them says it, and"
            f" texts are embedded by it later. There are {', '.join(PROFILES)}."
        )
    profile = get_profile(index.choose_profile(declared, default=str(declared)), model_dir=model_dir)
    meta = exported if exported and exported.profile == profile.name else index_meta(profile)
    dims = index.meta().dims if exists else meta.dims
    if sources.dims not in (None, dims):
        raise IngestError(
            f"The vectors have {sources.dims} dims, and profile '{profile.name}' has {dims}: name the profile"
            " whose model made them with --profile."
        )
    has_captions = _check_captions(sources, index.meta() if exists else meta, exported)
    if exists and exported:
        _check_weights(index, exported)

    def create() -> None:
        if not index.exists():
            try:
                index.create(meta, exported_options(folder) if exported else IndexOptions())
            except EngineError:
                if not index.exists():  # another machine created it at the same moment
                    raise
        index.check_profile(profile.name, dims)

    encoder_options = EncoderOptions(requested=Requested("auto", "fp32"))
    return ImportJob(
        sources=sources,
        profile=profile,
        index=index,
        create=create,
        storage=open_storage(store or default_store(home, alias)),
        encoder=Lazy(lambda: choose_image_encoder(profile, encoder_options, noted={}, cache=cache).encoder),
        options=options,
        has_caption_vectors=has_captions,
    )


def sources_of(folder: Path) -> VectorSources:
    """Return the files of a folder in the layout of clip-retrieval. Raises `IngestError`."""
    for name in (IMAGE_VECTORS, METADATA):
        if not (folder / name).is_dir():
            raise IngestError(
                f"{folder} has no folder '{name}': it is no export. Name the files with --vectors and"
                " --metadata."
            )
    captions = folder / CAPTION_VECTORS
    return VectorSources(
        vectors=[folder / IMAGE_VECTORS],
        metadata=[folder / METADATA],
        caption_vectors=[captions] if captions.is_dir() else [],
    )


def _check_columns(sources: VectorSources, options: ImportOptions) -> None:
    """Raise `IngestError` if a file of metadata has no column that names pictures."""
    wanted = (options.path_column,) if options.path_column else (*PATH_COLUMNS, DOCUMENT)
    for shard in sources.shards:
        if shard.rows and not set(wanted) & set(shard.table.columns):
            raise IngestError(
                f"{shard.table.path} has no column '{wanted[0]}'; it has: {', '.join(shard.table.columns)}."
                " Name that of the paths with --path-column."
            )


def exported_options(folder: Path | None) -> IndexOptions:
    """Return the options of the index that an export was made from."""
    found = json.loads((folder or Path()).joinpath("export.json").read_text(encoding="utf-8"))
    return IndexOptions(**found["options"])


def _check_captions(sources: VectorSources, meta: IndexMeta, exported: IndexMeta | None) -> bool:
    """Return whether vectors of captions may be written. Raises `IngestError` for a wrong length."""
    files = [shard.caption_vectors for shard in sources.shards if shard.caption_vectors]
    for each in files:
        if each.dims != meta.caption_dims:
            raise IngestError(
                f"{each.path} has {each.dims} dims, and captions here have {meta.caption_dims}: leave"
                " --caption-vectors out."
            )
    noted = meta.revisions.get("caption_text")
    theirs = exported.revisions.get("caption_text") if exported else None
    return bool(files) and (noted is None or theirs is None or noted == theirs)


def _check_weights(index: ImageIndex, exported: IndexMeta) -> None:
    """Raise `IngestError` if the index notes other weights than the export."""
    noted, theirs = index.meta().revisions.get("image"), exported.revisions.get("image")
    if noted and theirs and noted != theirs:
        raise IngestError(
            f"The vectors were made with other weights (image {theirs}) than those of the index"
            f" '{index.alias}' ({noted}): import them into another index with --index."
        )
