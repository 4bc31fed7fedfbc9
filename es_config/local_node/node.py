"""The local node: Elasticsearch in a background process, started, found and stopped by its GLIMPSE_HOME."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from es_config.errors import EngineError
from es_config.home import (
    PROGRAM,
    START_TIMEOUT_S,
    RunningNode,
    files_for_owner,
    find_running,
    private_folder,
)
from es_config.local_node.install import NodeHome, fetch_jars, find_java

FREE_PORTS = "9200-9300"
UP_ALREADY = (
    "The local node is up already, so --heap and --port change nothing: run `glimpse down`, then `glimpse up`"
    " with them."
)
SHARDS_TIMEOUT_S = 30.0
STILL_LOOKS = 4
"""looks, a second each, in which no shard is opened or looked for, until one that is missing is lost"""
UNDER_WAY = ("initializing_shards", "number_of_in_flight_fetch", "number_of_pending_tasks")
STOP_TIMEOUT_S = 30.0
MIN_HEAP_MB = 256
DEFAULT_HEAP_MB = (512, 4096)
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CODE = Path(__file__).resolve().parents[2]
"""the folder that holds the package `es_config`"""


@dataclass(frozen=True)
class NodeStart:
    """The outcome of `up`."""

    node: RunningNode
    new: bool
    """False if the node was up before"""
    seconds: float


class LocalNode:
    """Starts, finds and stops the node of one GLIMPSE_HOME, and announces long steps with `say`."""

    def __init__(
        self, glimpse_home: Path, *, environ: Mapping[str, str], say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.glimpse_home = glimpse_home.absolute()
        self.home = NodeHome(glimpse_home)
        self._environ = environ
        self._say = say

    def running(self) -> RunningNode | None:
        """Return the node of this home, or None."""
        return find_running(self.glimpse_home)

    def up(
        self, *, port: int | None = None, heap_mb: int | None = None, timeout_s: float = START_TIMEOUT_S
    ) -> NodeStart:
        """Start the node unless it is running, and return when its indices can be searched.

        Without `port`, the node listens where it did last, or on the first free port from 9200 on. Raises
        EngineError if Java or the jars are missing, the port is taken, or the node is not ready within
        `timeout_s` seconds.
        """
        begin = time.monotonic()
        try:
            private_folder(self.glimpse_home)
            private_folder(self.home.root)
            with files_for_owner(), FileLock(self.home.lock_file, timeout=timeout_s, mode=0o600):
                node = self.running()
                if node is None:
                    self._wait(self._spawn(port, heap_mb), begin + timeout_s)
                else:
                    if heap_mb is not None or (port is not None and not node.url.endswith(f":{port}")):
                        self._say(UP_ALREADY)
                    if not node.ready:
                        self._wait(None, begin + timeout_s)
        except Timeout:
            raise EngineError(
                f"Another `glimpse up` has been starting the node for {timeout_s:.0f} s: "
                f"see {self.home.process_log}."
            ) from None
        except OSError as error:
            raise EngineError(
                f"{self.home.root} cannot hold the local node ({error}): free space there, or set "
                "GLIMPSE_HOME to a folder that can be written."
            ) from error
        ready = self.running()
        if ready is None:
            raise self._failure("stopped as soon as it was ready")
        return NodeStart(ready, node is None, time.monotonic() - begin)

    def down(self, *, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop the node, or kill it after `timeout_s` seconds. Return False if no node was running."""
        node = self.running()
        if node is None:
            self.home.process_file.unlink(missing_ok=True)
            return False
        try:
            process = psutil.Process(node.pid)
            process.send_signal(signal.SIGTERM)
            if not has_ended(process, timeout_s=timeout_s):
                process.kill()  # every acknowledged write is in the translog: nothing is lost
                has_ended(process, timeout_s=timeout_s)
        except psutil.NoSuchProcess:
            pass
        self.home.process_file.unlink(missing_ok=True)
        return True

    def _spawn(self, port: int | None, heap_mb: int | None) -> subprocess.Popen[bytes]:
        """Start the process, detached from the terminal and from this process's group."""
        if port is not None:
            check_port(port)
        java, notes = find_java(self._environ)
        for note in notes:
            self._say(note)
        jars = fetch_jars(say=self._say)
        ports = str(port) if port is not None else ",".join([*self.home.last_port(), FREE_PORTS])
        self.home.prepare(jars, http_port=ports)
        self.home.process_file.unlink(missing_ok=True)
        self.home.elasticsearch_log.unlink(missing_ok=True)
        command = [sys.executable, "-m", PROGRAM, "--home", str(self.glimpse_home)]
        command += ["--java", str(java.home), "--heap-mb", str(heap_megabytes(heap_mb))]
        # The process must find this very code, however it is installed and wherever the process starts.
        path = os.pathsep.join(filter(None, (str(CODE), self._environ.get("PYTHONPATH"))))
        with self.home.process_log.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.home.root,
                env={**self._environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Nobody else waits for it: the node may outlive this process, and must not stay behind as a zombie.
        threading.Thread(target=process.wait, name="reap the local node", daemon=True).start()
        return process

    def _wait(self, process: subprocess.Popen[bytes] | None, deadline: float) -> None:
        """Wait until the node is ready, and leave no half-started process behind on any failure."""
        try:
            while not ((node := self.running()) and node.ready):
                if (process is not None and process.poll() is not None) or (process is None and node is None):
                    raise self._failure("did not start")
                if time.monotonic() > deadline:
                    raise self._failure("was not ready in time")
                time.sleep(0.1)
            red = _wait_for_shards(node.url, min(deadline, time.monotonic() + SHARDS_TIMEOUT_S))
            if red:
                self._say(
                    f"The index {', '.join(red)} lacks a part that cannot be opened (its health is red): run"
                    " `glimpse doctor`, which names the part and the way out."
                )
        except BaseException:
            if process is not None:
                process.kill()
                process.wait()
                self.home.process_file.unlink(missing_ok=True)
            raise

    def _failure(self, what: str) -> EngineError:
        """Return an error with the last one of the log that explains it."""
        for log in (self.home.process_log, self.home.elasticsearch_log):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
            errors = [line.strip() for line in lines if re.search(r"Exception|Error\b|ERROR|FATAL", line)]
            if errors:
                innermost = re.sub(r"^(?:[\w.$]+: )+(?=[\w.$]+: )", "", errors[-1])[:300].rstrip(".")
                return EngineError(f"The local node {what}: {innermost}. The whole story is in {log}.")
        return EngineError(f"The local node {what}. The whole story is in {self.home.process_log}.")


def has_ended(process: psutil.Process, *, timeout_s: float) -> bool:
    """Wait for a process to end and return True if it has, even if its parent has not noticed yet."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(0)  # reaps a child of this process
            return True
        except psutil.NoSuchProcess:
            return True
    return False


def _wait_for_shards(url: str, deadline: float) -> list[str]:
    """Wait until every index can be searched, but not for ever. Return the names of those that cannot.

    Where nothing is being opened any more for some seconds, what is missing stays missing.
    """
    request = f"{url}/_cluster/health?wait_for_status=yellow&timeout=1s"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    still = 0
    while time.monotonic() < deadline and still < STILL_LOOKS:
        try:
            with opener.open(request, timeout=5) as response:
                health = json.load(response)
        except urllib.error.HTTPError as late:  # the status is 408 while shards are being opened
            health = json.load(late)
        except OSError:
            time.sleep(0.1)
            continue
        if not health["timed_out"]:
            return []
        still = 0 if any(health[each] for each in UNDER_WAY) else still + 1
    try:
        with opener.open(f"{url}/_cluster/health?level=indices", timeout=5) as response:
            indices = json.load(response)["indices"]
    except OSError:
        return []
    return sorted(name for name, index in indices.items() if index["status"] == "red")


def heap_megabytes(asked: int | None, *, memory_mb: int | None = None) -> int:
    """Return the Java heap in MB: `asked` if it fits, else a quarter of the memory, from 512 MB to 4 GB."""
    memory_mb = memory_mb or memory_megabytes()
    if asked is None:
        least, most = DEFAULT_HEAP_MB
        return max(least, min(most, memory_mb // 4))
    if not MIN_HEAP_MB <= asked <= memory_mb * 3 // 4:
        raise EngineError(
            f"A heap of {asked} MB is not possible here: choose from {MIN_HEAP_MB} MB to "
            f"{memory_mb * 3 // 4} MB, which is three quarters of the memory."
        )
    return asked


def memory_megabytes() -> int:
    """Return the memory of this machine, or of the container that runs this process."""
    total = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        total = min(total, int(CGROUP_LIMIT.read_text(encoding="ascii")))
    return total >> 20


def check_port(port: int) -> None:
    """Raise EngineError if another program listens on `port` of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EngineError(
                f"Port {port} cannot be used ({error.strerror}): choose another with --port, or leave "
                "--port out and a free one is taken."
            ) from error
