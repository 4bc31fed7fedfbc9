"""The state of the local node as other processes see it: its process file, its shards, its logs."""

from __future__ import annotations

import contextlib
import json
import re
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from es_config.local_node.install import NodeHome

if TYPE_CHECKING:
    from psutil import Process

PROGRAM = "es_config.local_node.process"
FORMER_PROGRAM = "es_config.node_process"
"""the name under which an older Glimpse started its node, which `glimpse down` must still end"""


@dataclass(frozen=True)
class RunningNode:
    """A node process that lives."""

    pid: int
    url: str
    """empty until the node listens"""
    ready: bool


def find_running(home: NodeHome) -> RunningNode | None:
    """Return the node of `home`, or None; a process file that outlived its process means nothing."""
    try:
        process = json.loads(home.process_file.read_text(encoding="utf-8"))
        node = RunningNode(process["pid"], process["url"], process["state"] == "ready")
        return node if _is_ours(node.pid, process["created"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_ours(pid: int, created: float) -> bool:
    """Whether `pid` is still the process that wrote the process file, and not another that got its number."""
    import psutil

    try:
        process = psutil.Process(pid)
        return (
            abs(process.create_time() - created) < 5
            and process.status() != psutil.STATUS_ZOMBIE
            and not {PROGRAM, FORMER_PROGRAM}.isdisjoint(process.cmdline())
        )
    except psutil.Error:
        return False


def ended(process: Process, *, timeout_s: float) -> bool:
    """Wait until a process has ended, though its parent may not have noticed; return whether it has."""
    import psutil

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if not process.is_running():
                return True
            if process.status() == psutil.STATUS_ZOMBIE:
                with contextlib.suppress(psutil.TimeoutExpired):
                    process.wait(0)  # a child of this process goes for good
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def wait_for_shards(url: str, deadline: float) -> None:
    """Wait until every index can be searched; a damaged one must not keep the others from use."""
    request = f"{url}/_cluster/health?wait_for_status=yellow&timeout=1s"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        try:
            with opener.open(request, timeout=5) as response:
                if not json.load(response)["timed_out"]:
                    return
        except OSError:  # the status is 408 while shards are being opened
            time.sleep(0.1)


def last_error(home: NodeHome) -> tuple[Path, str]:
    """Return the log that explains a failed start, and its last line that names an error, or no text."""
    for log in (home.process_log, home.elasticsearch_log):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        errors = [line.strip() for line in lines if re.search(r"Exception|Error\b|ERROR|FATAL", line)]
        if errors:
            return log, _brief(errors[-1])
    return home.process_log, ""


def _brief(line: str) -> str:
    """Keep the innermost cause of a Java exception, in one line's length."""
    return re.sub(r"^(?:[\w.$]+: )+(?=[\w.$]+: )", "", line)[:300]
