"""Workers on the nodes of a Ray cluster, one for each node, or for each of its GPUs."""

from __future__ import annotations

import logging
import platform
import socket
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ingest.errors import IngestError
from ingest.workers.driver import LEASES_EACH, Answered, CrewEvent, Joined, Lost, WorkerOrder
from ingest.workers.lease import WorkerFailure, failure_of

CLIENT_PORT = 10001
CONNECT_S = 5.0
"""seconds that the head node has to accept a connection"""
ROOM_S = 60.0
"""seconds in which the first node must have room for a worker"""
LOOK_S = 5.0
"""seconds between two looks at the nodes of the cluster"""
INSTALL = "pip install 'glimpse-search[ray]'"


class RayWorker:
    """A worker as an actor of Ray. It answers with an error instead of raising it."""

    def __init__(self) -> None:
        self._worker: Any = None

    def open(self, order: WorkerOrder) -> WorkerFailure | None:
        """Connect. Return why this node cannot work."""
        from ingest.workers.worker import LeaseWorker

        try:
            self._worker = LeaseWorker(order)
        except Exception as error:  # told to the driver, which ends the run
            return failure_of(error)
        return None

    def work(self, packed: bytes) -> bytes | WorkerFailure:
        """Do a lease, as `LeaseWorker.work`."""
        answer: bytes | WorkerFailure = self._worker.work(packed)
        return answer


@dataclass
class _Actor:
    handle: Any
    node: str
    has_room: bool = False
    """whether it has been opened, so that its node had room for it"""
    calls: dict[Any, int | None] = field(default_factory=dict)
    """reference of a call -> number of its lease, or None for opening"""


class RayCrew:
    """Workers on all nodes of a cluster. Nodes that come get one, and nodes that go take theirs with them."""

    def __init__(self, address: str, *, room_s: float = ROOM_S) -> None:
        """Connect to the head node, such as `ray://head:10001`. Raises `IngestError`."""
        self._address, self._room_s = address, room_s
        self._ray = _connect(address)
        self._order: WorkerOrder | None = None
        self._actors: dict[str, _Actor] = {}
        self._made = 0
        self._looked = 0.0
        self._alone_since = time.monotonic()

    @property
    def size(self) -> int:
        """Return how many workers the nodes of the moment have."""
        return max(1, sum(_workers_on(each) for each in self._nodes()))

    @property
    def threads(self) -> None:
        """Return None: each node has its own number of processors."""
        return None

    def start(self, order: WorkerOrder) -> None:
        """Start a worker on each node."""
        self._order = order
        self._alone_since = time.monotonic()
        self._look()

    def submit(self, worker: str, number: int, lease: bytes) -> None:
        """Give a worker a lease."""
        actor = self._actors[worker]
        with _cluster_errors(self._address):
            actor.calls[actor.handle.work.remote(lease)] = number

    def wait(self, seconds: float) -> list[CrewEvent]:
        """Return the events, after at most so long. Raises `IngestError` without a node left."""
        if time.monotonic() - self._looked > LOOK_S:
            self._look()
        owners = {call: name for name, actor in self._actors.items() for call in actor.calls}
        if any(actor.has_room for actor in self._actors.values()):
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > self._room_s:
            raise IngestError(
                f"No node of the Ray cluster at {self._address} has had room for a worker for"
                f" {self._room_s:g} s: see `ray status` there, and end what holds its processors."
            )
        if not owners:
            time.sleep(seconds)
            return []
        with _cluster_errors(self._address):
            ready, _ = self._ray.wait(list(owners), num_returns=1, timeout=seconds)
        return [event for call in ready for event in self._take(owners[call], call)]

    def close(self) -> None:
        """End all workers, and leave the cluster."""
        with suppress(Exception):  # the cluster may be gone, and its workers with it
            for actor in self._actors.values():
                self._ray.kill(actor.handle)
        self._actors.clear()
        self._ray.shutdown()

    def _take(self, name: str, call: Any) -> list[CrewEvent]:
        actor = self._actors.get(name)
        if actor is None or call not in actor.calls:
            return []
        number = actor.calls.pop(call)
        errors = self._ray.exceptions
        deaths = (
            errors.RayActorError,
            errors.ActorUnschedulableError,  # its node went before it was there
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
            errors.OwnerDiedError,
        )
        try:
            with _cluster_errors(self._address):
                answer = self._ray.get(call)
        except deaths:
            return self._lose(name)
        except errors.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise IngestError(
                f"A worker on the Ray cluster cannot run ({reason}): install the same Glimpse on all nodes,"
                " for the Python that Ray runs with there."
            ) from error
        if number is None:
            if isinstance(answer, WorkerFailure):
                raise answer.error()
            actor.has_room = True
            return [Joined(name)]
        return [Answered(name, number, answer)]

    def _lose(self, name: str) -> list[CrewEvent]:
        actor = self._actors.pop(name)
        self._looked = 0.0  # see soon whether its node is there
        with suppress(Exception):  # it may live on a node that cannot be reached
            self._ray.kill(actor.handle)
        return [Lost(name)] if actor.has_room else []

    def _nodes(self) -> list[dict[str, Any]]:
        with _cluster_errors(self._address):
            return [each for each in self._ray.nodes() if each["Alive"]]

    def _look(self) -> None:
        """Start workers on nodes that have none."""
        self._looked = time.monotonic()
        for node in self._nodes():
            name = node["NodeID"]
            there = sum(actor.node == name for actor in self._actors.values())
            for _ in range(_workers_on(node) - there):
                self._add(node)

    def _add(self, node: dict[str, Any]) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there, workers = node["Resources"], _workers_on(node)
        with _cluster_errors(self._address):
            handle = (
                self._ray.remote(RayWorker)
                .options(
                    num_cpus=max(1, int(there.get("CPU", 0) // workers)),
                    num_gpus=1 if there.get("GPU") else 0,
                    max_concurrency=LEASES_EACH,
                    max_restarts=0,  # a new one is made here
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                )
                .remote()
            )
            self._made += 1
            actor = _Actor(handle, node["NodeID"])
            actor.calls[handle.open.remote(self._order)] = None
        self._actors[f"{self._made} on {node['NodeManagerAddress']}"] = actor


def _workers_on(node: dict[str, Any]) -> int:
    """Return how many workers a node has: one for each GPU, or one. Without processors it has none."""
    there = node["Resources"]
    return max(1, int(there.get("GPU", 0))) if there.get("CPU", 0) >= 1 else 0


class _cluster_errors:
    """Turns the loss of the connection into a sentence."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Raise `IngestError` in place of an error of the connection."""
        if isinstance(error, ConnectionError):
            raise IngestError(
                f"The connection to the Ray cluster at {self._address} is lost: see `ray status` on its head"
                " node; the same command goes on from there."
            ) from error


def _connect(address: str) -> Any:
    """Return the module `ray`, connected. Raises `IngestError` with the way out."""
    try:
        import ray
        from ray.util.client import ray as _  # noqa: F401 - needs grpc, which is part of the extra
    except ImportError as error:
        raise IngestError(f"--on {address} needs Ray: {INSTALL}") from error
    parts = urlsplit(address)
    try:
        port = parts.port or CLIENT_PORT
    except ValueError as error:
        raise IngestError(f"'{address}' names no head node: write ray://HOST:{CLIENT_PORT}.") from error
    if not parts.hostname:
        raise IngestError(f"'{address}' names no head node: write ray://HOST:{CLIENT_PORT}.")
    try:
        socket.create_connection((parts.hostname, port), CONNECT_S).close()
    except OSError as error:
        raise IngestError(
            f"No head node of Ray answers at {address} ({error.strerror or error}): start it there with `ray"
            " start --head`, or correct the address."
        ) from error
    try:
        # Of its warnings, all that matters is in the sentences here.
        with warnings.catch_warnings(action="ignore"):
            ray.init(f"ray://{parts.hostname}:{port}", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise IngestError(
            f"{address} answers, but no connection to Ray comes about: give the port of the head node's"
            f" client server, {CLIENT_PORT} by default, or start it with GRPC_ENABLE_FORK_SUPPORT=0."
        ) from error
    except RuntimeError as error:
        raise IngestError(
            f"The Ray cluster at {address} does not fit ({_first_line(error)}): run the same Ray and the same"
            f" Python as there; here they are Ray {ray.__version__} and Python {platform.python_version()}."
        ) from error
    return ray


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".:")
