"""Find picture files in folders, in a stable order, with names that JSON and terminals can take."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time
import unicodedata
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Protocol

from pathspec import GitIgnoreSpec

from ingest.errors import IngestError
from ingest.files.live_photos import FILM_PARTS, film_parts, is_film_part
from ingest.files.sidecars import Siblings, siblings_in

LONGEST_STEM = 100
"""characters that are kept of an uploaded file's name"""
RAW_EXTENSIONS = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mrw", ".nef", ".nrw"}
    | {".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
"""of cameras' RAW files, whose previews `rawpy` reads"""
EXTENSIONS = RAW_EXTENSIONS | frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"}
    | {".tif", ".tiff", ".heic", ".heif", ".hif", ".avif", ".jxl"}
)
FILM_EXTENSIONS = frozenset({".mp4", ".m4v", ".mov", ".qt", ".webm", ".mkv", ".3gp", ".3g2"})
OTHER_EXTENSIONS = frozenset(
    {".aae", ".avi", ".csv", ".db", ".doc", ".docx", ".eps", ".gz", ".htm", ".html", ".ini", ".js", ".json"}
    | {".lrcat", ".m4a", ".md", ".mp3", ".mpg", ".pdf", ".psd", ".py", ".svg", ".txt", ".wav", ".weba"}
    | {".xls", ".xlsx", ".xml", ".xmp", ".yaml", ".yml", ".zip", ".m4b", ".mka"}
)
"""of files that are passed over unread; of files with any other extension, the content tells"""
SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP|GIF8[79]a|II\*\0|MM\0\*|II\+\0|MM\0\+"
    rb"|BM....\0\0\0\0|....ftyp(heic|heix|heim|heis|mif1|msf1|avif|avis)"
    rb"|\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    re.DOTALL,
)
"""how the content of a picture begins"""
MOV = re.compile(
    rb"....(?:ftyp(?!heic|heix|heim|heis|mif1|msf1|avif|avis|M4A |M4B |crx )|moov|wide|mdat)", re.DOTALL
)
MATROSKA = re.compile(rb"\x1a\x45\xdf\xa3")
"""how the content of a film begins: of MP4 and MOV, of WebM and Matroska"""
HEAD_BYTES = 16
"""of a file, which tell its kind"""
DEFAULT_EXCLUDES = (
    "@eaDir/", "#recycle/", "#snapshot/", "@Recycle/", "@Recently-Snapshot/", "$RECYCLE.BIN/", "RECYCLER/",
    "System Volume Information/", "lost+found/", "__MACOSX/", "node_modules/",
    "*.lrdata/", "*.lrcat-data/", "*.cocatalog/", "CaptureOne/Cache/",
    "**/*.photoslibrary/**/derivatives/", "**/*.photoslibrary/resources/", "**/*.photoslibrary/database/",
    "**/*.photoslibrary/Thumbnails/", "**/*.photoslibrary/Previews/", "**/*.photolibrary/Thumbnails/",
    "**/*.photolibrary/Previews/", "**/*.aplibrary/Thumbnails/", "**/*.aplibrary/Previews/",
)  # fmt: skip
"""what other programs leave beside pictures: bins, thumbnails, previews; patterns of gitignore"""
HIDDEN = ".*"
"""the rule that leaves out hidden names"""
HIDING_MARK = ".nomedia"
"""a file by which people tell programs to leave a folder out, with all below it"""
IGNORE_FILES = (".glimpseignore", ".ignore", ".ppignore", ".plexignore")
"""files with patterns of gitignore for what is below their folder; an empty one stands for all of it"""


def valid_unicode(name: str) -> str:
    r"""Return a name as valid Unicode: bytes that are no UTF-8 become `\xNN`, all else stays as it is.

    Two different names in one folder keep different texts unless one spells out the other's `\xNN`.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    return name


def safe_name(name: str, extension: str) -> str:
    """Return the safe name of a file of this name and content: no folders, nothing that a shell obeys.

    Names come from strangers; `extension` is that of the content, and replaces a picture's extension.
    """
    last = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1])
    stem, dot, suffix = last.rpartition(".")
    stem = stem if dot and f".{suffix.lower()}" in EXTENSIONS else last
    kept = "".join(char if char.isprintable() and char not in '<>:"|?*' else "_" for char in stem)
    return f"{kept[:LONGEST_STEM].strip(' ._') or 'picture'}.{extension}"


SETTLED_NS = 2_000_000_000
"""a file changed as lately as this may change again within one tick of its clock (two seconds on FAT)"""


@dataclass(frozen=True)
class Stamp:
    """Size and time of a file. The same stamp twice means the same content."""

    size: int
    """bytes"""
    mtime_ns: int
    """nanoseconds; -1 for a file that was changed too lately to be told by it, which no file ever has"""

    @property
    def is_settled(self) -> bool:
        """Whether the stamp can stand for the content."""
        return self.mtime_ns >= 0


UNSETTLED = "unsettled"
"""the stamp of sidecars of which one changed too lately, or could not be read: they are read once more"""


def with_stamps(candidate: Candidate) -> Candidate:
    """Return a candidate with the present stamps of its file and of those sidecars that are there."""
    if not candidate.sidecars:
        return replace(candidate, stamp=stamp_of(candidate.path))
    found = {name: stamp_of(candidate.path.with_name(name)) for name in candidate.sidecars}
    there = {name: stamp for name, stamp in found.items() if stamp}
    return replace(
        candidate,
        stamp=stamp_of(candidate.path),
        sidecars=tuple(there),
        sidecars_stamp=stamp_of_sidecars(there),
    )


def stamp_of_sidecars(stamps: Mapping[str, Stamp]) -> str:
    """Return one stamp of a candidate's sidecars, by their names: empty without any."""
    if not stamps:
        return ""
    if not all(stamp.is_settled for stamp in stamps.values()):
        return UNSETTLED
    parts = "\n".join(f"{stamp.size} {stamp.mtime_ns} {name}" for name, stamp in stamps.items())
    return hashlib.blake2b(os.fsencode(parts), digest_size=12).hexdigest()


def stamp_of(path: Path) -> Stamp | None:
    """Return the present stamp of a regular file, or None for anything else and on errors."""
    try:
        status = os.stat(path)  # noqa: PTH116 - this is called once for every file of a run
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    settled = status.st_mtime_ns < time.time_ns() - SETTLED_NS
    return Stamp(status.st_size, status.st_mtime_ns if settled else -1)


def is_gone(path: str | bytes | Path) -> bool:
    """Whether there is certainly no such file: a closed folder or a failing disk proves nothing.

    Neither does an address, which only a listing can tell.
    """
    if is_address(path):
        return False
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def device_of(folder: str) -> int | None:
    """Return the number of the device that holds a folder, or None if the folder cannot be asked."""
    try:
        return os.stat(folder).st_dev  # noqa: PTH116
    except (OSError, ValueError):
        return None


SHAPE = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `of` shares, counted from 1."""

    number: int = 1
    of: int = 1

    def holds(self, name: str) -> bool:
        """Whether a relative path belongs to this shard: by its hash, so nobody needs a list of all files."""
        if self.of == 1:
            return True
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.of == self.number - 1


def parse_shard(text: str) -> Shard:
    """Read `3/16`, the third of sixteen parts. Raises `IngestError`."""
    match = SHAPE.fullmatch(text.strip())
    number, of = (int(each) for each in match.groups()) if match else (0, 0)
    if not 1 <= number <= of:
        raise IngestError(f"'{text}' is no part: write 3/16 for the third of sixteen.")
    return Shard(number, of)


EVERYTHING = Shard()


class Origin(Protocol):
    """An object that is no file of this machine, such as one of a bucket, an archive or the web."""

    @property
    def address(self) -> str:
        """Return its whole name, such as `s3://bucket/key`, by which the history knows it."""

    def stamp(self) -> Stamp | None:
        """Ask for its present stamp where listing did not tell it, or return None."""

    def read(self) -> tuple[bytes, Stamp | None]:
        """Return its content, with the stamp if reading tells it.

        Raises `UnreadableImageError` for this object, and `StorageError` where no other can be read either.
        """

    def stream(self) -> tuple[Iterator[bytes], Stamp | None]:
        """Return the same in pieces, for a film, which may be larger than memory.

        The iterator raises as `read` does.
        """

    def open(self, noted: Stamp) -> BinaryIO | None:
        """Return its content as a file that can be read from anywhere, or None if it is another one now.

        Opening raises as `read` does, reading raises `OSError`.
        """

    def beside(self, name: str, most: int) -> bytes | None:
        """Return the content of one of its sidecars, or None if that is gone.

        Raises `UnreadableImageError` for one of more than `most` bytes.
        """

    def caption(self) -> str | None:
        """Return the words that lie beside it."""


ADDRESS = re.compile(rb"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_address(path: str | bytes | Path) -> bool:
    """Return whether a noted path is the address of an `Origin` and no path of this machine."""
    return ADDRESS.match(os.fsencode(path)) is not None


@dataclass(frozen=True)
class Candidate:
    """A file, or an object of another source, that may be a picture."""

    path: Path
    """of an object, its name: nothing but the extension counts"""
    relative_path: str
    """below the folder that was named, forward slashes, readable whatever bytes the name holds"""
    stamp: Stamp | None = None
    """of the file before it was read, where somebody asked"""
    sidecars: tuple[str, ...] = ()
    """names of files in the same folder that say more about it, the one that counts most first"""
    sidecars_stamp: str = ""
    """of the sidecars before they were read, where somebody asked; empty without any"""
    has_news: bool = False
    """whether its sidecars are not those that the index knows"""
    origin: Origin | None = None
    """how to name and read an object that is no file of this machine"""

    @property
    def has_sidecars(self) -> bool:
        """Whether sidecars say more about it, or the index has to unlearn some."""
        return bool(self.sidecars) or self.has_news

    @property
    def place(self) -> str:
        """The absolute path, or the address."""
        return self.origin.address if self.origin else os.path.abspath(self.path)  # noqa: PTH100 - of links, too

    @property
    def shown(self) -> str:
        """The path or the address as messages name it."""
        return valid_unicode(self.origin.address if self.origin else str(self.path))


@dataclass(frozen=True)
class Failure:
    """A file or a folder that could not be used, and why."""

    path: str
    reason: str


@dataclass
class PassedOver:
    """Files and folders that a walk left out, counted."""

    kinds: dict[str, int] = field(default_factory=dict)
    """extension, or `no extension` -> files that are no pictures by it, or by their content"""
    rules: dict[str, int] = field(default_factory=dict)
    """pattern, or file such as `.nomedia` -> files and folders that it left out"""
    film_parts: int = 0
    """films of live photos, which belong to their pictures"""

    def add_kinds(self, names: Iterable[str]) -> None:
        """Count files that are no pictures by their name or content, and no sidecars."""
        for name in names:
            kind = os.path.splitext(name)[1].lower() or NO_EXTENSION  # noqa: PTH122
            self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def add_rule(self, rule: str) -> None:
        """Count a file or folder that a rule leaves out."""
        self.rules[rule] = self.rules.get(rule, 0) + 1


@dataclass(frozen=True)
class Exclusions:
    """The files and folders that a walk leaves out: by patterns, and by marks that people set in folders."""

    patterns: tuple[str, ...] = ()
    """of gitignore, for relative paths; a later one wins, and `!pattern` takes in again"""
    defaults: bool = True
    """whether hidden names and `DEFAULT_EXCLUDES` are left out, too"""
    films: bool = False
    """whether films are left out, too"""

    def __post_init__(self) -> None:
        """Raise `IngestError` for a pattern that cannot be read."""
        try:
            _ = self._spec
        except ValueError as error:
            raise IngestError(f"--exclude: {error}") from error

    @cached_property
    def _lines(self) -> tuple[str, ...]:
        return (
            *(DEFAULT_EXCLUDES if self.defaults else ()),
            *(each for each in self.patterns if each.strip()),
        )

    @cached_property
    def _spec(self) -> GitIgnoreSpec:
        # In a file, "#" begins a comment; here, it begins a name such as #recycle.
        return _gitignore(f"\\{line}" if line.startswith("#") else line for line in self._lines)

    def rule(self, relative: str, *, folder: bool, ignores: Sequence[IgnoreFile] = ()) -> str | None:
        """Return the rule that leaves out a file or folder: a pattern, an ignore file's name, or None."""
        if self.defaults and relative.rpartition("/")[2].startswith("."):
            return HIDDEN
        path = _normal(relative) + "/" * folder
        found = self._spec.check_file(path)
        if found.include and found.index is not None:
            return self._lines[found.index]
        if found.include is None:
            for each in ignores:
                if each.leaves_out(path):
                    return each.name
        return None

    def unused(self, passed_over: PassedOver) -> tuple[str, ...]:
        """Return the patterns of a user that left nothing out."""
        taken = tuple(each for each in self.patterns if each.strip() and not each.startswith("!"))
        return tuple(each for each in taken if each not in passed_over.rules)


@dataclass(frozen=True)
class IgnoreFile:
    """One of `IGNORE_FILES` in a folder."""

    name: str
    prefix: str
    """relative path of its folder, with a slash at the end, or nothing"""
    spec: GitIgnoreSpec

    def leaves_out(self, path: str) -> bool:
        """Return whether it leaves out a relative path below its folder."""
        return self.spec.match_file(path[len(self.prefix) :])


def _gitignore(lines: Iterable[str]) -> GitIgnoreSpec:
    return GitIgnoreSpec.from_lines(_normal(line) for line in lines)


def _normal(text: str) -> str:
    """Return one form of a name that can be written in several: files from Macs have the other one."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def ignore_files(folder: Path, relative: str, names: Iterable[str]) -> tuple[IgnoreFile, ...]:
    """Return the ignore files among the `names` of a folder, without those that cannot be read."""
    found = []
    for name in IGNORE_FILES:
        if name not in names:
            continue
        try:
            lines = (folder / name).read_text(encoding="utf-8", errors="replace")[:MOST_PATTERNS].splitlines()
            patterns = [line for line in lines if line.strip() and not line.startswith("#")]
            found.append(IgnoreFile(name, _normal(relative), _gitignore(patterns or ["*"])))
        except (OSError, ValueError):
            continue
    return tuple(found)


MOST_PATTERNS = 1 << 16
"""characters of an ignore file that are read"""


def is_film_name(name: str) -> bool:
    """Return whether a name has the extension of a film."""
    return os.path.splitext(name)[1].lower() in FILM_EXTENSIONS  # noqa: PTH122 - called for every file of a run


def container_of(head: bytes) -> str | None:
    """Return FFmpeg's name for the kind of film that a file's first bytes promise, or None."""
    if MOV.match(head):
        return "mov"
    return "matroska" if MATROSKA.match(head) else None


def is_picture(path: str | Path, *, gone: bool = False, films: bool = True) -> bool:
    """Return whether a file is a picture, or one of the `films`: by its extension, or else by its content.

    If there is no such file, return `gone`.
    """
    extension = os.path.splitext(path)[1].lower()  # noqa: PTH122 - this is called once for every file of a run
    if extension in EXTENSIONS or extension in OTHER_EXTENSIONS:
        return extension in EXTENSIONS
    if extension in FILM_EXTENSIONS:
        return films
    try:
        # Without O_NONBLOCK, opening a named pipe waits for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return gone
    except (OSError, ValueError):
        return False
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        head = os.read(descriptor, HEAD_BYTES) if is_file else b""
        return SIGNATURE.match(head) is not None or (films and container_of(head) is not None)
    except OSError:
        return False
    finally:
        os.close(descriptor)


Identity = tuple[int, int]
"""device and inode of a folder"""


NO_PATTERNS = Exclusions()
NO_EXTENSION = "no extension"


@dataclass(frozen=True)
class Entrance:
    """Where a walk goes in: a folder or file that was named, or a link to a folder that it follows."""

    path: Path
    relative: str
    """what the relative paths below begin with: nothing, or names that end in a slash; a file's own name"""


def walk(
    paths: Sequence[Path],
    *,
    exclude: Exclusions = NO_PATTERNS,
    limit: int | None = None,
    shard: Shard = EVERYTHING,
    passed_over: PassedOver | None = None,
) -> Iterator[Candidate | Failure]:
    """Yield the pictures of folders and every file named explicitly, folder by folder in the order of names.

    Links are followed, each folder is visited once, and real folders are visited before links to them. Of
    all that, only what belongs to `shard`: files by their relative path, failures by their path; and at most
    `limit` files. What is left out is counted in `passed_over`, in every shard.
    """
    files = 0
    for found in _walk(paths, exclude, passed_over or PassedOver()):
        if isinstance(found, Entrance):
            continue
        if shard.holds(found.relative_path if isinstance(found, Candidate) else found.path):
            files += isinstance(found, Candidate)
            if limit is not None and files > limit:
                return
            yield found


def entrances(paths: Sequence[Path], *, exclude: Exclusions = NO_PATTERNS) -> list[Entrance]:
    """Return where a walk goes in, in its order: a file that can be reached twice is named by the first."""
    return [found for found in _walk(paths, exclude, PassedOver()) if isinstance(found, Entrance)]


def _walk(
    paths: Sequence[Path], exclude: Exclusions, passed_over: PassedOver
) -> Iterator[Candidate | Failure | Entrance]:
    visited: set[Identity] = set()
    beside = Beside()
    for path in paths:
        name = valid_unicode(path.name)
        if os.path.isdir(path):  # noqa: PTH112 - false, not an error, where a folder is closed
            yield from _walk_folder(path, exclude, visited, passed_over)
        elif rule := None if name.startswith(".") else exclude.rule(name, folder=False):
            passed_over.add_rule(rule)
        else:
            yield Entrance(path, name)
            yield beside.joined(Candidate(path, name))


class Beside:
    """The sidecars in folders of which only some files are looked at. Each folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[Path, Siblings] = {}

    def joined(self, candidate: Candidate) -> Candidate:
        """Return a candidate with the names of its sidecars."""
        folder = candidate.path.parent
        if folder not in self._folders:
            self._folders[folder] = siblings_in(folder)
        return replace(candidate, sidecars=self._folders[folder].of(candidate.path.name))


@dataclass(frozen=True)
class _Folder:
    entrance: Entrance
    ancestors: tuple[Identity, ...] = ()
    """of the folders above it, which a link must not lead back to"""
    ignores: tuple[IgnoreFile, ...] = ()
    """of the folders above it"""


def _walk_folder(
    root: Path, exclude: Exclusions, visited: set[Identity], passed_over: PassedOver
) -> Iterator[Candidate | Failure | Entrance]:
    real: deque[_Folder] = deque()
    links: deque[_Folder] = deque([_Folder(Entrance(root, ""))])
    while real or links:
        enters = not real
        within = (real or links).popleft()
        folder = within.entrance
        try:
            identity = identity_of(folder.path)
            if identity in within.ancestors:
                raise OSError(errno.ELOOP, "loop")
            entries = [] if identity in visited else _entries(folder.path)
        except OSError as error:
            yield Failure(valid_unicode(str(folder.path)), why(error, kind="folder"))
            continue
        names = {entry.name for entry in entries}
        if HIDING_MARK in names and folder.relative:  # a folder that somebody names is meant
            passed_over.add_rule(HIDING_MARK)
            visited.add(identity)
            continue
        if enters and identity not in visited:
            yield folder
        visited.add(identity)
        ignores = (*within.ignores, *ignore_files(folder.path, folder.relative, names))
        has_parts = not exclude.films and any(name.lower().endswith(FILM_PARTS) for name in names)
        parts = film_parts(folder.path, names) if has_parts else frozenset()
        below: list[_Folder] = []
        siblings, used, others = Siblings(names), set[str](), list[str]()
        for entry in entries:
            relative = folder.relative + valid_unicode(entry.name)
            kind = _kind(entry)
            is_folder = kind in ("folder", "link")
            if rule := exclude.rule(relative, folder=is_folder, ignores=ignores):
                passed_over.add_rule(rule)
            elif isinstance(kind, OSError):
                yield Failure(valid_unicode(entry.path), why(kind))
            elif is_folder:
                child = _Folder(
                    Entrance(Path(entry.path), f"{relative}/"), (*within.ancestors, identity), ignores
                )
                (below if kind == "folder" else links).append(child)
            elif entry.name in parts:
                passed_over.film_parts += 1
            elif is_picture(entry.path, films=not exclude.films):
                sidecars = siblings.of(entry.name)
                used.update(sidecars)
                yield Candidate(Path(entry.path), relative, sidecars=sidecars)
            else:
                others.append(entry.name)
        passed_over.add_kinds(name for name in others if name not in used)
        real.extendleft(reversed(below))


Rules = dict[str, tuple[IgnoreFile, ...] | None]
"""folder -> the ignore files in it and above it, or None if it is marked by `HIDING_MARK`"""


def admits(
    root: Path, rest: str, *, exclude: Exclusions, prefix: str = "", folder: bool = False, rules: Rules
) -> bool:
    """Return whether a walk that goes in at `root` takes the path `rest` below it, as far as rules go.

    `prefix` is what the relative paths begin with there; `folder` tells that `rest` is one. Several calls
    share `rules`, which begin empty.
    """
    here, relative = str(root), prefix
    ignores: tuple[IgnoreFile, ...] = ()
    names = rest.split("/")
    for number, name in enumerate(names, 1):
        if here not in rules:
            hides = relative and os.path.lexists(f"{here}/{HIDING_MARK}")
            names_here = [each for each in IGNORE_FILES if os.path.lexists(f"{here}/{each}")]
            rules[here] = None if hides else (*ignores, *ignore_files(Path(here), relative, names_here))
        inherited = rules[here]
        relative += valid_unicode(name)
        is_folder = folder or number < len(names)
        if inherited is None or exclude.rule(relative, folder=is_folder, ignores=inherited):
            return False
        here, relative, ignores = f"{here}/{name}", f"{relative}/", inherited
    if folder:
        return True
    return not (exclude.films and is_film_name(rest)) and not is_film_part(root / rest)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: os.fsencode(entry.name))


def _kind(entry: os.DirEntry[str]) -> str | OSError:
    try:
        if entry.is_dir():
            return "link" if entry.is_symlink() else "folder"
    except OSError as error:
        return error
    return "file"


def outermost(folders: Iterable[Path]) -> list[Path]:
    """Return the folders that are below no other, so that no file counts twice."""
    whole = {Path(os.path.abspath(folder)) for folder in folders}  # noqa: PTH100 - links stay as they are named
    return sorted(folder for folder in whole if not whole & set(folder.parents))


def identity_of(folder: Path) -> Identity:
    """Return the identity of a folder, wherever it is mounted. Raises `OSError`."""
    status = os.stat(folder)  # noqa: PTH116 - follows a link
    return status.st_dev, status.st_ino


def why(error: OSError, *, kind: str = "file") -> str:
    """Say in words why a file or folder cannot be read."""
    known = {
        errno.EACCES: "permission denied",
        errno.EPERM: "permission denied",
        errno.ENOENT: f"the {kind} vanished before it was read",
        errno.ELOOP: "a symbolic link that leads back to itself",
        errno.ENXIO: "not a regular file",
    }
    return known.get(error.errno or 0, error.strerror or str(error))
