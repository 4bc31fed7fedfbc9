"""Workers that are processes of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

from ingest.options import PROCESSORS
from ingest.workers.driver import LEASES_EACH, Answered, CrewEvent, Joined, Lost, WorkerOrder
from ingest.workers.lease import WorkerFailure, failure_of

# Not by `multiprocessing`, which would import the program that runs here once more.
START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); import ingest.workers.local as l;"
    " l.serve(int(sys.argv[2]))"
)
END_S = 5.0
"""seconds that a worker has to end by itself"""
READY = "ready"


class _Process(NamedTuple):
    process: subprocess.Popen[bytes]
    connection: Connection


class LocalCrew:
    """So many processes of this machine."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._order: WorkerOrder | None = None
        self._processes: dict[str, _Process] = {}

    @property
    def size(self) -> int:
        """Return how many workers there are to be."""
        return self._size

    @property
    def threads(self) -> int:
        """Return the share of the processors that each worker has for reading and decoding."""
        return max(2, PROCESSORS // self._size)

    def start(self, order: WorkerOrder) -> None:
        """Start the processes, which share the processors."""
        self._order = order
        for _ in range(self._size):
            self._add(order)

    def submit(self, worker: str, number: int, lease: bytes) -> None:
        """Give a process a lease. One that has died meanwhile is told by `wait`."""
        with suppress(OSError):
            self._processes[worker].connection.send((number, lease))

    def wait(self, seconds: float) -> list[CrewEvent]:
        """Return the events, after at most so long. A dead process is replaced."""
        ready = wait([each.connection for each in self._processes.values()], seconds)
        workers = [name for name, each in self._processes.items() if each.connection in ready]
        return [self._receive(worker) for worker in workers]

    def close(self) -> None:
        """End all processes. The next run does the work that they have not finished."""
        for each in self._processes.values():
            each.connection.close()  # which ends the process
        for each in self._processes.values():
            try:
                each.process.wait(END_S)
            except subprocess.TimeoutExpired:
                each.process.kill()
                each.process.wait()
        self._processes.clear()

    def _add(self, order: WorkerOrder) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, path, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={"OMP_NUM_THREADS": str(max(1, PROCESSORS // self._size)), **os.environ},
                start_new_session=True,  # Ctrl-C is for the driver
            )
        connection = Connection(ours.detach())
        with suppress(OSError):
            connection.send(order)
        self._processes[str(process.pid)] = _Process(process, connection)

    def _receive(self, worker: str) -> CrewEvent:
        try:
            number, answer = self._processes[worker].connection.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return Lost(worker)
        if answer == READY:
            return Joined(worker)
        if isinstance(answer, WorkerFailure) and number is None:
            raise answer.error()
        return Answered(worker, number, answer)

    def _replace(self, worker: str) -> None:
        dead = self._processes.pop(worker)
        dead.connection.close()
        dead.process.kill()  # it may have closed its end alone
        dead.process.wait()
        if self._order:
            self._add(self._order)


def serve(descriptor: int) -> None:
    """Work until the driver goes: then the connection ends, whatever has become of the driver."""
    connection = Connection(descriptor)
    order: WorkerOrder = connection.recv()
    sending = threading.Lock()

    def send(number: int | None, answer: object) -> None:
        with sending, suppress(OSError):
            connection.send((number, answer))

    from ingest.workers.worker import LeaseWorker

    try:
        worker = LeaseWorker(order)
    except Exception as error:  # told to the driver, which ends the run
        send(None, failure_of(error))
        return

    def do(number: int, lease: bytes) -> None:
        send(number, worker.work(lease))

    send(None, READY)
    pool = ThreadPoolExecutor(LEASES_EACH, thread_name_prefix="lease")
    with suppress(EOFError, OSError):
        while True:
            pool.submit(do, *connection.recv())
    os._exit(0)  # at once: the next run goes on with what is not finished
