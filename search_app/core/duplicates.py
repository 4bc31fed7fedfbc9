"""Groups of duplicates, and the picture of each that would be kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from es_config.documents import one_line


@dataclass(frozen=True)
class PictureFiles:
    """The files of one picture: each file on this machine's disks once, however many paths lead to it."""

    paths: tuple[str, ...]
    """absolute, the one to keep first: the oldest, and of equally old files that with the shortest path"""
    elsewhere: tuple[str, ...] = ()
    """relative paths that this machine knows no file of: another one ingested them, or the file is gone"""

    @property
    def first(self) -> str:
        """The path that stands for the picture."""
        return (self.paths or self.elsewhere or ("",))[0]


@dataclass(frozen=True)
class ExactDuplicates:
    """One content in several files."""

    image_id: str
    files: PictureFiles
    keep: str
    """path of the file that would be kept"""
    why: str


@dataclass(frozen=True)
class NearDuplicate:
    """One picture of a group whose pictures look the same."""

    image_id: str
    files: PictureFiles
    distance: int
    """bits, 0 to 64, in which its hash differs from that of the group's first picture"""
    width: int
    """pixels"""
    height: int
    size_bytes: int
    relative_path: str = ""
    """the first path that the index knows"""
    taken: str | None = None
    """ISO 8601, by the clocks of the place"""
    caption: str | None = None
    keywords: int = 0
    favourite: bool = False


@dataclass(frozen=True)
class NearDuplicates:
    """Pictures that look the same, two or more."""

    pictures: tuple[NearDuplicate, ...]
    keep: str
    """path of the picture that would be kept"""
    keep_id: str
    why: str


@dataclass(frozen=True)
class Duplicates:
    """Groups of duplicates."""

    pictures: int
    """documents that were compared"""
    distance: int
    exact: tuple[ExactDuplicates, ...]
    near: tuple[NearDuplicates, ...]

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of `glimpse duplicates --json`."""
        return asdict(self)

    def in_words(self) -> str:
        """Return the groups for people, each with its paths, and a last line that sums up."""
        lines = []
        for exact in self.exact:
            count = len(exact.files.paths) + len(exact.files.elsewhere)
            lines += [f"exact, {count} files; keep {one_line(exact.keep)}: {exact.why}"]
            lines += [*_listed(exact.files, "  "), ""]
        for group in self.near:
            lines.append(f"near, {len(group.pictures)} pictures; keep {one_line(group.keep)}: {group.why}")
            for each in group.pictures:
                lines += _listed(each.files, f"  {each.distance:2} bits  {each.width}x{each.height}  ")
            lines.append("")
        sums = f"{self.pictures} pictures: {len(self.exact)} exact and {len(self.near)} near groups"
        return "\n".join([*lines, sums])


def _listed(files: PictureFiles, begin: str) -> list[str]:
    return [
        *(f"{begin}{one_line(path)}" for path in files.paths),
        *(f"{begin}{one_line(path)}  (not on this machine)" for path in files.elsewhere),
    ]
