"""Files in GLIMPSE_HOME: private ones, and the process file by which programs find the local node."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil

OTHERS = 0o077
"""the rights of a file's group and of everybody else"""
OWNER_ONLY = 0o600
"""the rights of a file that its owner alone reads and writes"""


def private_folder(path: Path) -> None:
    """Make a folder that its owner alone can enter, or take the rights of others from it.

    A folder of another user, a shared one such as /tmp, and a person's whole home stay as they are. Raises
    OSError if the folder cannot be made.
    """
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.stat().st_mode & stat.S_ISVTX and path.resolve() != Path.home().resolve():
        _close(path)


def private_file(path: Path) -> None:
    """Make an empty file unless there is one, and take the rights of others from it. Raises OSError."""
    path.touch(mode=OWNER_ONLY)
    _close(path)


def _close(path: Path) -> None:
    found = path.stat()
    if found.st_uid == os.getuid() and found.st_mode & OTHERS:
        with suppress(OSError):  # some file systems have no rights
            path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)


@contextmanager
def files_for_owner() -> Iterator[None]:
    """Let this process and those that it starts make files that their owner alone can read."""
    before = os.umask(OTHERS)
    try:
        yield
    finally:
        os.umask(before)


PROGRAM = "es_config.local_node.process"
PROGRAMS = {PROGRAM, "es_config.node_process"}
"""with the name under which an older Glimpse started its node, which `glimpse down` must still end"""
START_TIMEOUT_S = 120
"""for how long `glimpse up` waits"""


@dataclass(frozen=True)
class RunningNode:
    """A node whose process is alive."""

    pid: int
    url: str
    """empty until the node listens"""
    ready: bool
    key: str | None = field(default=None, repr=False)
    """the API key that the routes of `_ml` want before they change anything"""


def node_folder(glimpse_home: Path) -> Path:
    """Return the folder of the local node in a GLIMPSE_HOME."""
    return glimpse_home.absolute() / "node"


def process_file(glimpse_home: Path) -> Path:
    """Return the path of the process file in a GLIMPSE_HOME."""
    return node_folder(glimpse_home) / "process.json"


def key_file(glimpse_home: Path) -> Path:
    """Return the path of the file with the API key in a GLIMPSE_HOME."""
    return node_folder(glimpse_home) / "api_key"


def read_key(glimpse_home: Path) -> str | None:
    """Return the API key, or None if there is none, or none that this user may read."""
    try:
        return key_file(glimpse_home).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


def make_key(glimpse_home: Path) -> str:
    """Return the API key, made when a node starts for the first time."""
    if not (key := read_key(glimpse_home)):
        key = secrets.token_urlsafe(32)
        _replace(key_file(glimpse_home), key)
    return key


def find_running(glimpse_home: Path) -> RunningNode | None:
    """Return the running node of a GLIMPSE_HOME, or None if the file outlived its process."""
    try:
        found = json.loads(process_file(glimpse_home).read_text(encoding="utf-8"))
        process = psutil.Process(found["pid"])
        command = process.cmdline()
        # Its command tells it from another process with its number, whatever is done to the clock.
        is_node = command == found.get("command", command) and not PROGRAMS.isdisjoint(command)
        if not is_node or process.status() == psutil.STATUS_ZOMBIE:
            return None
        return RunningNode(process.pid, found["url"], found["state"] == "ready", read_key(glimpse_home))
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, psutil.Error):
        return None


def write_process_file(glimpse_home: Path, *, url: str, state: Literal["starting", "ready"]) -> None:
    """Describe this process in the process file, of which no reader ever sees half."""
    process = {"pid": os.getpid(), "command": psutil.Process().cmdline(), "url": url, "state": state}
    _replace(process_file(glimpse_home), json.dumps(process))


def _replace(path: Path, content: str) -> None:
    """Write a file that its owner alone can read."""
    partial = path.with_suffix(".tmp")
    private_file(partial)
    partial.write_text(content, encoding="utf-8")
    partial.replace(path)
