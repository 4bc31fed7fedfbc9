"""The local node: one Elasticsearch of this user's own, in a background process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from es_config.errors import EngineError
from es_config.local_node.install import NodeHome
from es_config.local_node.jars import fetch_jars
from es_config.local_node.java import find_java
from es_config.local_node.limits import check_port, heap_megabytes
from es_config.local_node.state import PROGRAM, RunningNode, ended, find_running, last_error, wait_for_shards

FREE_PORTS = "9200-9300"
START_TIMEOUT_S = 120.0
SHARDS_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Started:
    """What `up` did."""

    node: RunningNode
    new: bool
    """False when the node was up before"""
    seconds: float


class LocalNode:
    """Starts, finds and stops the node of one GLIMPSE_HOME. `say` is told about the steps that take long."""

    def __init__(
        self, glimpse_home: Path, *, environ: Mapping[str, str], say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.glimpse_home = glimpse_home.absolute()
        self.home = NodeHome(glimpse_home)
        self._environ = environ
        self._say = say

    def running(self) -> RunningNode | None:
        """Return the node of this home, or None."""
        return find_running(self.home)

    def up(
        self, *, port: int | None = None, heap_mb: int | None = None, timeout_s: float = START_TIMEOUT_S
    ) -> Started:
        """Start the node unless it runs, and return when its indices can be searched.

        Without `port`, it is the first free one from 9200 on. Raises EngineError when Java or the jars are
        missing, the port is taken, or the node is not ready within `timeout_s` seconds.
        """
        from filelock import FileLock, Timeout

        begin = time.monotonic()
        try:
            self.home.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(self.home.lock_file, timeout=timeout_s):
                node = self.running()
                if node is None:
                    self._wait(self._spawn(port, heap_mb), begin + timeout_s)
                elif not node.ready:
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
        return Started(ready, node is None, time.monotonic() - begin)

    def down(self, *, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """Stop the node, gracefully while `timeout_s` lasts; return False when there was none."""
        import psutil

        node = self.running()
        if node is None:
            self.home.process_file.unlink(missing_ok=True)
            return False
        try:
            process = psutil.Process(node.pid)
            process.send_signal(signal.SIGTERM)
            if not ended(process, timeout_s=timeout_s):
                process.kill()  # every acknowledged write is in the translog: nothing is lost
                ended(process, timeout_s=timeout_s)
        except psutil.NoSuchProcess:
            pass
        self.home.process_file.unlink(missing_ok=True)
        return True

    def _spawn(self, port: int | None, heap_mb: int | None) -> subprocess.Popen:
        """Start the process, detached from the terminal and from this process's group."""
        if port is not None:
            check_port(port)
        java, notes = find_java(self._environ)
        for note in notes:
            self._say(note)
        jars = fetch_jars(say=self._say)
        self.home.prepare(jars, http_port=FREE_PORTS if port is None else str(port))
        self.home.process_file.unlink(missing_ok=True)
        self.home.elasticsearch_log.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            PROGRAM,
            "--home",
            str(self.glimpse_home),
            "--libjvm",
            str(java.libjvm),
        ]
        command += ["--heap-mb", str(heap_megabytes(heap_mb)), *(["--vectors"] if java.has_vectors else [])]
        with self.home.process_log.open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=self.home.root,
                env=self._child_environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _child_environ(self) -> dict[str, str]:
        """Let the process find this very code, whichever way it is installed and wherever it starts."""
        here = str(Path(__file__).resolve().parents[2])
        return {
            **self._environ,
            "PYTHONPATH": os.pathsep.join(filter(None, (here, self._environ.get("PYTHONPATH")))),
        }

    def _wait(self, process: subprocess.Popen | None, deadline: float) -> None:
        """Wait until the node is ready; whatever else happens, no half-started process stays behind."""
        try:
            while not ((node := self.running()) and node.ready):
                if (process is not None and process.poll() is not None) or (process is None and node is None):
                    raise self._failure("did not start")
                if time.monotonic() > deadline:
                    raise self._failure("was not ready in time")
                time.sleep(0.1)
            wait_for_shards(node.url, min(deadline, time.monotonic() + SHARDS_TIMEOUT_S))
        except BaseException:
            if process is not None:
                process.kill()
                process.wait()
                self.home.process_file.unlink(missing_ok=True)
            raise

    def _failure(self, what: str) -> EngineError:
        log, line = last_error(self.home)
        reason = f": {line}" if line else ""
        return EngineError(f"The local node {what}{reason.rstrip('.')}. The whole story is in {log}.")
