"""Find models in the cache of Hugging Face's client without asking the hub, or download them once.

The cache has the layout of that client (`blobs/`, `snapshots/`), and either goes on with the other's files.
The downloads are our own for three reasons: each request has a time limit, the content is compared with its
checksum, and one progress bar counts the bytes of all models.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import quote, urlparse

from models.errors import ModelError

if TYPE_CHECKING:
    import requests

ROLES = ("image", "text", "caption", "caption_text", "voice")
"""the models of a profile, and the folders of `--model-dir` that hold them"""
IN_WORDS = {
    "image": "image model",
    "text": "text model",
    "caption": "captioner",
    "caption_text": "text model of captions",
    "voice": "voice model",
}
USED_PLACES = re.compile(r"^(\d+_[^/]+/)?[^/]+$")
"""files of the repository itself and of sentence-transformers' modules, not those of `onnx/` and the like"""
CONFIGS = re.compile(r"\.(json|txt|model)$|(^|/)vocabulary\.")
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.bin")
"""in the order in which libraries look for them; of the others' shards an index of that name tells"""
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model")
CHUNK = 1 << 16
"""bytes: so many are lost at most where a download is cut"""
TRIES = 5
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNREACHABLE = {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN}


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a hub name with a pinned revision, or a local folder."""

    name: str
    revision: str | None = None
    size_mb: int = field(default=0, compare=False)
    """megabytes to download, about"""
    slot: Path | None = field(default=None, compare=False)
    """the folder of `--model-dir` that would be taken instead, if it existed"""

    @property
    def is_local(self) -> bool:
        """Whether it is a folder."""
        return Path(self.name).is_absolute()


@dataclass(frozen=True)
class MissingModel:
    """A model that is not on this machine yet."""

    role: str
    name: str
    size_bytes: int
    """bytes that are left to download, about"""

    def __str__(self) -> str:
        return f"the {IN_WORDS[self.role]} {self.name} ({self.size_bytes / 1e6:.0f} MB)"


class DownloadError(ModelError):
    """A model cannot be downloaded. The message says why, and the way out."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    name: str
    size: int
    etag: str
    """SHA-256 of a large file, Git's own SHA-1 of a small one; its name in the cache"""


Report = Callable[[int, int], None]
"""receives the bytes that are there and all bytes, again and again"""


def local_folder(source: ModelSource, *, role: str = "image") -> Path:
    """Return the folder that holds the model, downloading it on first use.

    The hub is asked only when something is missing in the cache. Honours `HF_HOME`, `HF_ENDPOINT`,
    `HF_HUB_OFFLINE`, `HF_HUB_ETAG_TIMEOUT` and `HF_HUB_DOWNLOAD_TIMEOUT`. Raises `ModelError`, whose message
    has the cause and the way out, when the model is neither here nor to be had.
    """
    found = found_folder(source, role=role)
    if found is None:
        fetch_missing({role: source}, say=logging.getLogger(__name__).warning)
        found = found_folder(source, role=role)
    if found is None:
        raise DownloadError(
            f"The repository {source.name} holds no {IN_WORDS[role]} that Glimpse can load: it has no "
            f"{lacking(_snapshot(source) or Path(), role)}."
        )
    return found


def found_folder(source: ModelSource, *, role: str) -> Path | None:
    """Return the model's folder if all of it is on this machine, without asking the hub.

    Raises `ModelError` for a named folder that does not exist.
    """
    if source.is_local:
        if not Path(source.name).is_dir():
            raise ModelError(f"There is no model folder {source.name}; check --model-dir.")
        return Path(source.name)
    folder = _snapshot(source)
    return folder if folder and lacking(folder, role) is None else None


def missing(sources: Mapping[str, ModelSource]) -> list[MissingModel]:
    """Return the models, by role, that are not on this machine, each once. Does not ask the hub."""
    absent = {
        source: MissingModel(role, source.name, _left(source))
        for role, source in reversed(list(sources.items()))
        if found_folder(source, role=role) is None
    }
    return list(reversed(absent.values()))


def _left(source: ModelSource) -> int:
    """Return about how many bytes of a model are not in the cache."""
    blobs = _repository(source) / "blobs"
    here = sum(path.stat().st_size for path in blobs.iterdir()) if blobs.is_dir() else 0
    return max(0, source.size_mb * 1_000_000 - here)


def cache_folder() -> Path:
    """Return the folder of downloaded models."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def free_megabytes() -> int:
    """Return the megabytes that are free on the disk of downloaded models."""
    folder = cache_folder()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(there).free // 1_000_000


def _repository(source: ModelSource) -> Path:
    return cache_folder() / f"models--{source.name.replace('/', '--')}"


def is_cached(folder: Path, source: ModelSource | None = None) -> bool:
    """Whether a folder lies in the cache, as a part of `source` if that is given."""
    return (_repository(source) if source else cache_folder()) in folder.parents


def _snapshot(source: ModelSource) -> Path | None:
    """Return the cached folder of the source's revision, whole or not, or None."""
    repository = _repository(source)
    revision = source.revision
    if revision is None:
        reference = repository / "refs" / "main"
        if not reference.is_file():
            return None
        revision = reference.read_text(encoding="utf-8").strip()
    folder = repository / "snapshots" / revision
    return folder if folder.is_dir() else None


def towers_folder(folder: Path) -> Path:
    """Return the folder that holds a pair's weights: sentence-transformers keeps CLIP in `0_CLIPModel`."""
    nested = folder / "0_CLIPModel"
    return nested if nested.is_dir() else folder


def lacking(folder: Path, role: str) -> str | None:
    """Return the name of a file without which the folder's model cannot be loaded, or None."""
    base = towers_folder(folder)
    for place in dict.fromkeys([base, *_modules(folder)]):
        if not (place / "config.json").is_file():
            return f"{place.relative_to(folder) / 'config.json'}"
        if not place.name.endswith("_Pooling") and not _loaded_names_in(place):
            return f"{place.relative_to(folder) / 'model.safetensors'}"
    if role in ("image", "caption") and not (base / "preprocessor_config.json").is_file():
        return "preprocessor_config.json"
    if role != "image" and not any((base / name).is_file() for name in TOKENIZERS):
        return "tokenizer.json"
    return None


def _modules(folder: Path) -> list[Path]:
    """Return the folders of sentence-transformers' modules that hold something."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return [folder / each["path"] for each in modules if not each["type"].endswith("Normalize")]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, AttributeError):
        return []  # loading says what is wrong with it


def loaded_names(names: Iterable[str]) -> list[str]:
    """Return those of the file names of one folder that a library loads as weights, in the order of names."""
    there = set(names)
    for whole in WEIGHTS:
        if whole in there:
            return [whole]
        stem, suffix = whole.rsplit(".", 1)
        shard = re.compile(rf"^{stem}-(\d+)-of-(\d+)\.{suffix}$")
        shards = sorted(name for name in there if shard.match(name))
        if shards and f"{whole}.index.json" in there:
            return shards if all(f"-of-{len(shards):05}." in name for name in shards) else []
    return []


def loaded_weights(folder: Path) -> list[Path]:
    """Return the files of weights that are loaded from a model's folder, sorted.

    Each module has its safetensors, or else its older `.bin`: a clone with both gives the same files as a
    download.
    """
    base = towers_folder(folder)
    places = {base, *(path for path in base.glob("[0-9]*_*") if path.is_dir())}
    return sorted(place / name for place in places for name in _loaded_names_in(place))


def _loaded_names_in(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return loaded_names(path.name for path in folder.iterdir() if path.is_file())


def fingerprint(folder: Path) -> str:
    """Return `sha256:` and 16 hex digits over the weights that are loaded from the folder.

    A download, a clone and a copy of the same model have the same fingerprint.
    """
    return _fingerprint(loaded_weights(folder))


def older_fingerprints(folder: Path) -> Iterator[str]:
    """Yield the fingerprints of older versions for the same weights: they counted files that nobody loads."""
    for base in dict.fromkeys([folder, towers_folder(folder)]):
        safe, older = sorted(base.rglob("*.safetensors")), sorted(base.rglob("pytorch_model.bin"))
        yield _fingerprint(sorted([*safe, *older]))
        # A download brought of the older files only those of Dense layers.
        yield _fingerprint(sorted([*safe, *(path for path in older if path.parent.name.endswith("_Dense"))]))


def _fingerprint(weights: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in weights:
        digest.update(_digest(path))
    return f"sha256:{digest.hexdigest()[:16]}"


def _digest(path: Path) -> bytes:
    """Return the SHA-256 of a file. A large one in the cache bears it as its name."""
    stored = path.resolve()
    if stored.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", stored.name):
        return bytes.fromhex(stored.name)
    found = stored.stat()
    return _read_digest(stored, found.st_size, found.st_mtime_ns)


@lru_cache
def _read_digest(path: Path, _size: int, _changed_ns: int) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def needed_names(names: Iterable[str]) -> list[str]:
    """Return those of a repository's file names that Glimpse loads: small ones first, weights last.

    A download that is cut therefore never leaves weights without the files that belong to them.
    """
    used = [name for name in names if USED_PLACES.match(name) and "open_clip" not in name]
    places: dict[str, list[str]] = {}
    for name in used:
        place, _, file = name.rpartition("/")
        places.setdefault(place, []).append(file)
    weights = {
        f"{place}/{file}" if place else file
        for place, files in places.items()
        for file in loaded_names(files)
    }
    configs = sorted(name for name in used if CONFIGS.search(name) and not name.endswith(".index.json"))
    indices = sorted(name for name in used if name.endswith(".index.json") and _has_shards(name, weights))
    return [*configs, *indices, *sorted(weights)]


def _has_shards(index: str, weights: set[str]) -> bool:
    stem, suffix = index.removesuffix(".index.json").rsplit(".", 1)
    return any(name.startswith(f"{stem}-") and name.endswith(suffix) for name in weights)


@dataclass(frozen=True)
class Transfer:
    """One file on its way from the hub, or from the cache into a folder."""

    role: str
    source: ModelSource
    file: RemoteFile
    final: Path
    url: str | None = None
    """None copies `original`"""
    original: Path | None = None
    link: Path | None = None
    """the snapshot's name for the file, in the cache"""
    lock: Path | None = None

    @property
    def part(self) -> Path:
        """The place of the file while it is not whole."""
        return self.final.with_name(f"{self.final.name}.incomplete")

    def here(self) -> int:
        """Return how many of its bytes are there."""
        return min(self.file.size, self.part.stat().st_size) if self.part.is_file() else 0


def fetch(
    sources: Mapping[str, ModelSource],
    *,
    to: Path | None = None,
    verify: bool = False,
    report: Report = lambda _done, _total: None,
) -> None:
    """Download models by role into the cache, or into the folders `<to>/<role>/` that `--model-dir` takes.

    Whatever is there is left alone; a download that was cut goes on. With `verify`, files that are there are
    compared with the hub's checksums, and damaged ones are downloaded anew. Raises `DownloadError`.
    """
    planned: list[Transfer] = []
    with _open_session() as session:
        for role, source in _once(sources).items():
            with _explained(role, source):
                planned += _planned(session, role, source, to=to, verify=verify)
        total = sum(each.file.size for each in planned)
        done = sum(each.here() for each in planned)
        if planned:
            _check_room(planned[0].final, total - done, to=to)
            report(done, total)
        for each in planned:
            before = done - each.here()

            def so_far(here: int, before: int = before) -> None:
                report(before + here, total)

            with _explained(each.role, each.source, each):
                _transfer(session, each, so_far)
            done = before + each.file.size


def fetch_missing(sources: Mapping[str, ModelSource], *, say: Callable[[str], None]) -> None:
    """Download the models that are not on this machine, said once in a sentence, with a bar on a terminal.

    Raises `DownloadError`.
    """
    from huggingface_hub import constants

    absent = missing(sources)
    if absent:
        size = sum(each.size_bytes for each in absent)
        say(
            f"Fetching {', '.join(map(str, absent))} from {urlparse(constants.ENDPOINT).netloc}:"
            f" {in_mb(size)} in all, once."
        )
        with download_bar() as report:
            fetch({each.role: sources[each.role] for each in absent}, report=report)


LINE_EVERY_S = 10.0


@contextmanager
def download_bar(doing: str = "Downloading") -> Iterator[Report]:
    """Show bytes, rate and time left on stderr: one bar on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield _lines(sys.stderr)
        return
    from rich import progress
    from rich.console import Console

    with progress.Progress(
        progress.TextColumn(doing),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None, visible=False)  # until something is downloaded

        def report(done: int, total: int) -> None:
            if bar.tasks[0].total is None:  # what was there before counts for no rate
                bar.reset(task, total=total, completed=done, visible=True)
            bar.update(task, completed=done)

        yield report


def _lines(stream: TextIO) -> Report:
    said = time.monotonic()
    begun: list[tuple[float, int]] = []

    def report(done: int, total: int) -> None:
        nonlocal said
        now = time.monotonic()
        begun[:] = begun or [(now, done)]
        if now - said < LINE_EVERY_S:
            return
        said = now
        rate = (done - begun[0][1]) / max(0.001, now - begun[0][0])
        left = f", {(total - done) / rate:.0f} s left" if rate else ""
        stream.write(f"{in_mb(done)} of {in_mb(total)}, {rate / 1e6:.1f} MB/s{left}\n")
        stream.flush()

    return report


def _once(sources: Mapping[str, ModelSource]) -> dict[str, ModelSource]:
    """Return each source under its first role."""
    first = {source: role for role, source in reversed(list(sources.items()))}
    return {role: source for role, source in sources.items() if first[source] == role}


def _planned(
    session: requests.Session, role: str, source: ModelSource, *, to: Path | None, verify: bool
) -> list[Transfer]:
    """Return the files that are not where they are to be."""
    found = found_folder(source, role=role)
    if found and (to is None or source.is_local or not verify):
        if to is not None:
            return _copies(role, source, found, to / role)
        if source.is_local or not verify:
            return []
    commit, files = _listing(session, source)
    if to is None:
        transfers = [_into_cache(role, source, commit, file) for file in files]
    else:
        transfers = [
            Transfer(role, source, file, to / role / file.name, url=_url(source, commit, file.name))
            for file in files
        ]
    return [each for each in transfers if not _is_here(each, verify=verify)]


def slot_files(sources: Mapping[str, ModelSource]) -> dict[str, Path]:
    """Return the files of models that are on this machine, by the names that they have in `--model-dir`.

    Raises `ModelError` when one is not here.
    """
    folders = {role: local_folder(source, role=role) for role, source in _once(sources).items()}
    return {f"{role}/{name}": folder / name for role, folder in folders.items() for name in _names_in(folder)}


def _names_in(folder: Path) -> list[str]:
    return needed_names(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _copies(role: str, source: ModelSource, folder: Path, slot: Path) -> list[Transfer]:
    names = _names_in(folder)
    copies = [
        Transfer(
            role,
            source,
            RemoteFile(name, (folder / name).stat().st_size, ""),
            slot / name,
            original=(folder / name).resolve(),
        )
        for name in names
    ]
    return [each for each in copies if not _is_here(each, verify=False)]


def _into_cache(role: str, source: ModelSource, commit: str, file: RemoteFile) -> Transfer:
    repository = _repository(source)
    return Transfer(
        role,
        source,
        file,
        repository / "blobs" / file.etag,
        url=_url(source, commit, file.name),
        link=repository / "snapshots" / commit / file.name,
        lock=cache_folder() / ".locks" / repository.name / f"{file.etag}.lock",
    )


def _is_here(transfer: Transfer, *, verify: bool) -> bool:
    """Whether the file is whole where it belongs. With `verify`, a damaged one is removed."""
    place = transfer.link or transfer.final
    for path in {place, transfer.final} if verify else ():
        if path.is_file() and not _is_intact(path, transfer.file):
            transfer.final.unlink(missing_ok=True)
            place.unlink(missing_ok=True)
    return place.is_file() and place.stat().st_size == transfer.file.size


def _is_intact(path: Path, file: RemoteFile) -> bool:
    """Whether the content has the hub's checksum: SHA-256, or Git's SHA-1 of small files."""
    digest = hashlib.sha256() if len(file.etag) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(file.etag) != 64:
        digest.update(f"blob {file.size}\0".encode())
    with path.open("rb") as stream:
        while block := stream.read(CHUNK):
            digest.update(block)
    return digest.hexdigest() == file.etag


def _check_room(place: Path, needed: int, *, to: Path | None) -> None:
    there = next(folder for folder in place.parents if folder.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise DownloadError(
            f"The models need {in_mb(needed)} of disk, and {there} has {in_mb(free)} left: free some, or "
            + ("choose another folder." if to else "set HF_HOME to a folder on a larger disk.")
        )


def in_mb(size: float) -> str:
    """Return a size in words."""
    if size < 1e7:
        return f"{size / 1e6:.1f} MB"
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def _transfer(session: requests.Session, each: Transfer, so_far: Callable[[int], None]) -> None:
    from filelock import FileLock

    each.final.parent.mkdir(parents=True, exist_ok=True)
    if each.original is not None:
        _copy(each.original, each, so_far)
        return
    if each.lock is None or each.link is None:
        _download(session, each, so_far)
        return
    each.lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(each.lock):  # Hugging Face's own client takes the same one
        if not (each.final.is_file() and each.final.stat().st_size == each.file.size):
            _download(session, each, so_far)
        each.link.parent.mkdir(parents=True, exist_ok=True)
        each.link.unlink(missing_ok=True)
        try:
            each.link.symlink_to(os.path.relpath(each.final, each.link.parent))
        except OSError:  # Windows without the right to make links
            each.final.replace(each.link)


def _copy(original: Path, each: Transfer, so_far: Callable[[int], None]) -> None:
    copied = 0
    with original.open("rb") as source, each.part.open("wb") as part:
        while block := source.read(CHUNK):
            part.write(block)
            copied += len(block)
            so_far(copied)
    each.part.replace(each.final)


def _download(session: requests.Session, each: Transfer, so_far: Callable[[int], None]) -> None:
    """Download a file, going on where it was cut, and compare its checksum.

    It is tried again a few times, and once after a try that brought nothing.
    """
    import requests

    vain = 0
    for number in range(1, TRIES + 1):
        before = each.here()
        try:
            _stream(session, each, so_far)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            vain += each.here() == before
            if vain == 2 or number == TRIES:
                raise
            time.sleep(1)
            continue
        if _is_intact(each.part, each.file):
            each.part.replace(each.final)
            return
        each.part.unlink()
        if before == 0:  # else the part may have been another program's
            break
    raise DownloadError(
        f"The file {each.file.name} of {each.source.name} does not arrive as Hugging Face has it (its"
        " checksum differs): check the proxy, if there is one, then run the same command again."
    )


def _stream(session: requests.Session, each: Transfer, so_far: Callable[[int], None]) -> None:
    here = each.here()
    if here == each.file.size and each.part.is_file():
        return
    ranged = {"Range": f"bytes={here}-"} if here else {}
    with _get(session, str(each.url), **ranged) as response, each.part.open("ab") as part:
        if response.status_code != 206:
            here = 0
        part.truncate(here)
        for block in response.iter_content(CHUNK):
            part.write(block)
            here += len(block)
            so_far(here)


def _open_session() -> requests.Session:
    import requests
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    session = requests.Session()
    session.headers.update(build_hf_headers(library_name="glimpse"))
    session.headers["Accept-Encoding"] = "identity"  # a compressed file could not be gone on with
    return session


def _get(session: requests.Session, url: str, **headers: str) -> requests.Response:
    """Ask the hub within the time limits of its client. Raises its errors and those of requests."""
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled(url)
    limits = (constants.HF_HUB_ETAG_TIMEOUT, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    response = session.get(url, headers=headers, timeout=limits, stream=True)
    try:
        hf_raise_for_status(response)
    except BaseException:
        response.close()
        raise
    return response


def _url(source: ModelSource, commit: str, name: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{quote(source.name)}/resolve/{commit}/{quote(name)}"


def _listing(session: requests.Session, source: ModelSource) -> tuple[str, list[RemoteFile]]:
    """Return the commit and the files to download, and note the commit of a branch in the cache."""
    from huggingface_hub import constants

    revision = source.revision or "main"
    address = f"{constants.ENDPOINT}/api/models/{quote(source.name)}/revision/{revision}?blobs=true"
    with _get(session, address) as response:
        answer: dict[str, Any] = response.json()
    files = {each["rfilename"]: each for each in answer["siblings"]}
    if source.revision is None:
        reference = _repository(source) / "refs" / revision
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(answer["sha"], encoding="utf-8")
    return answer["sha"], [
        RemoteFile(
            name, files[name]["size"], (files[name].get("lfs") or {}).get("sha256") or files[name]["blobId"]
        )
        for name in needed_names(files)
    ]


@contextmanager
def _explained(role: str, source: ModelSource, transfer: Transfer | None = None) -> Iterator[None]:
    """Turn an error of a download into one sentence with its cause and the way out."""
    try:
        yield
    except ModelError:
        raise
    # Each error of requests, and so of the hub, is an OSError. The others come from an answer of no hub.
    except (OSError, KeyError, TypeError, ValueError) as error:
        cause = _cause(error, role, source)
        if transfer and transfer.url and (here := transfer.here()):
            cause += f" (it goes on at {in_mb(here)} of {in_mb(transfer.file.size)})"
        raise DownloadError(
            f"The {IN_WORDS[role]} {source.name} is not on this machine, and {cause}."
        ) from error


def _cause(error: Exception, role: str, source: ModelSource) -> str:
    """Return why a download failed, and the way out, from the error's type and status code."""
    import requests
    from huggingface_hub import constants, errors

    host = urlparse(constants.ENDPOINT).netloc
    place = source.slot or f"the folder {role}/ of --model-dir"
    without = f"or put it into {place} (docs/offline.md)"
    if role == "voice" and source.slot is None:
        without = "or name its folder with --voice-model"
    kinds: list[tuple[type[Exception], str]] = [
        (
            errors.OfflineModeIsEnabled,
            f"HF_HUB_OFFLINE forbids to download it: unset that, {without}",
        ),
        (
            errors.GatedRepoError,
            f"its owner asks for an agreement first: agree on {constants.ENDPOINT}/{source.name}, and log in"
            " with `hf auth login`",
        ),
        (
            errors.RevisionNotFoundError,
            f"its repository has no revision {source.revision} any more: update Glimpse, {without}",
        ),
        (
            errors.RepositoryNotFoundError,
            f"{host} shows no repository of this name: check the name, or log in with `hf auth login` if it"
            " is a private one",
        ),
        (requests.exceptions.ProxyError, "the proxy cannot be reached: check HTTPS_PROXY"),
        (
            requests.exceptions.SSLError,
            f"the certificate of {host} is not trusted: name your network's own one in REQUESTS_CA_BUNDLE",
        ),
        (requests.exceptions.ConnectTimeout, f"{host} does not answer: check the network, {without}"),
        (
            requests.exceptions.ReadTimeout,
            f"{host} accepts requests and does not answer: try again later, {without}",
        ),
        (requests.exceptions.ChunkedEncodingError, "the download was cut: run the same command again"),
    ]
    for kind, cause in kinds:
        if isinstance(error, kind):
            return cause
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _refusal(error.response, host)
    if isinstance(error, requests.ConnectionError):
        return _no_connection(error, host, without)
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        return _disk_fault(error)
    return f"{host} gives an answer that is not Hugging Face's: check HF_ENDPOINT and the proxy"


def _refusal(response: requests.Response, host: str) -> str:
    status = response.status_code
    if status == 429:
        pause = response.headers.get("Retry-After", "")
        wait = f"{pause} s" if pause.isdigit() else "some minutes"
        return f"{host} takes no more requests from here (429): wait {wait}, or log in with `hf auth login`"
    if status in (401, 403):
        return f"{host} refuses this login ({status}): log in with `hf auth login`, or unset HF_TOKEN"
    if status >= 500:
        return f"{host} has a fault of its own ({status}): try again later"
    return f"{host} refuses to give a file of it ({status}): update Glimpse, or try again later"


def _no_connection(error: requests.ConnectionError, host: str, without: str) -> str:
    """Return why there is no connection: the first error of the operating system, which the others wrap."""
    reasons: list[BaseException] = [error]
    while inner := reasons[-1].__cause__ or reasons[-1].__context__:
        reasons.append(inner)
    if any(isinstance(each, socket.gaierror) for each in reasons):
        return f"the name {host} is not found: connect this machine to the internet, {without}"
    if any(isinstance(each, OSError) and each.errno in UNREACHABLE for each in reasons):
        return f"{host} cannot be reached: connect this machine to the internet, {without}"
    return "the download was cut: run the same command again"


def _disk_fault(error: OSError) -> str:
    place = f" {error.filename}" if error.filename else ""
    if error.errno in NO_ROOM:
        return "the disk is full: free some of it, or set HF_HOME to a folder on a larger disk"
    return (
        f"its files cannot be written ({error.strerror or error}{place}): change the rights of that folder,"
        " or set HF_HOME to another one"
    )
