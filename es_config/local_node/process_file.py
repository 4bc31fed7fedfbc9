"""The process file, in which the local node tells other processes its address and state."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PROGRAM = "es_config.local_node.process"
FORMER_PROGRAM = "es_config.node_process"
"""the name under which an older Glimpse started its node, which `glimpse down` must still end"""
START_TIMEOUT_S = 120
"""for how long `glimpse up` waits"""


@dataclass(frozen=True)
class RunningNode:
    """A node whose process is alive."""

    pid: int
    url: str
    """empty until the node listens"""
    ready: bool


def node_folder(glimpse_home: Path) -> Path:
    """Return the folder of the local node in a GLIMPSE_HOME."""
    return glimpse_home.absolute() / "node"


def process_file(glimpse_home: Path) -> Path:
    """Return the path of the process file in a GLIMPSE_HOME."""
    return node_folder(glimpse_home) / "process.json"


def find_running(glimpse_home: Path) -> RunningNode | None:
    """Return the running node of a GLIMPSE_HOME, or None if the file outlived its process."""
    import psutil

    try:
        found = json.loads(process_file(glimpse_home).read_text(encoding="utf-8"))
        process = psutil.Process(found["pid"])
        is_ours = (  # not another process with its number
            abs(process.create_time() - found["created"]) < 5
            and process.status() != psutil.STATUS_ZOMBIE
            and not {PROGRAM, FORMER_PROGRAM}.isdisjoint(process.cmdline())
        )
        return RunningNode(process.pid, found["url"], found["state"] == "ready") if is_ours else None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


def write_process_file(glimpse_home: Path, *, url: str, state: Literal["starting", "ready"]) -> None:
    """Describe this process in a file that is replaced as a whole, so that no reader sees half of it."""
    import psutil

    created = psutil.Process().create_time()
    process = {"pid": os.getpid(), "created": created, "url": url, "state": state, "since": time.time()}
    path = process_file(glimpse_home)
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(process), encoding="utf-8")
    partial.replace(path)
