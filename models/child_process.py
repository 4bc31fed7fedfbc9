"""Decode in a process of its own, which can be ended: a call into a decoder cannot.

A child gets bytes and parameters and returns JSON and bytes, never a pickle: nothing that a hostile file
makes of the child can run in the parent.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from models.pixels import PictureError, TooSlowError, decoding

Facts = dict[str, Any]
"""what JSON can say"""
Decoder = Callable[..., tuple[Facts, bytes]]
"""a function at the top of a module: takes bytes and parameters, returns facts and bytes"""

START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); import models.child_process as c; c.serve()"
SLACK = 512 << 20
"""bytes of address space beside those of the picture: stacks of threads, libraries"""
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
INHERITED_TOO = ("SYSTEMROOT", "TMPDIR", "TEMP", "TMP")
"""variables that a child gets: no password and no key is among them"""
OWN_VARIABLES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
READY = b"\1"
PIPE_BYTES = 1 << 20
"""as much as Linux allows: a file of some megabytes then arrives in a few steps"""


def run_apart(
    decoder: Decoder, data: bytes, *, seconds: float, memory: int, **parameters: str | int | None
) -> tuple[Facts, bytes]:
    """Return `decoder(data, **parameters)` from a child that has `seconds` and `memory` bytes for it.

    Raises `PictureError` when it takes more or crashes.
    """
    name = f"{decoder.__module__}:{decoder.__qualname__}"
    memory += 2 * len(data)
    head = {"decoder": name, "parameters": parameters, "seconds": seconds, "memory": memory}
    child = _idle_or_new()
    try:
        facts, body = child.call(head, data, seconds=seconds)
    except BaseException:
        child.end()
        raise
    _keep(child)
    if error := facts.get("error"):
        raise PictureError(str(error))
    return facts, body


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]

    def call(self, head: Facts, data: bytes, *, seconds: float) -> tuple[Facts, bytes]:
        late = threading.Event()
        assert self.process.stdin
        assert self.process.stdout
        try:
            _write(self.process.stdin, json.dumps(head).encode())
            if self.process.stdout.read(1) != READY:  # loading the libraries takes none of the time
                raise RuntimeError(f"the process for decoding ended with {self.process.wait()}")
            timer = threading.Timer(seconds, self._end_late, [late])
            timer.daemon = True
            timer.start()
            try:
                _write(self.process.stdin, data)
                return json.loads(_read(self.process.stdout)), _read(self.process.stdout)
            finally:
                timer.cancel()
        except (EOFError, OSError) as error:
            if late.is_set():
                raise TooSlowError(f"decoding it takes longer than {seconds:g} seconds") from error
            raise PictureError("damaged, or too much for its decoder, which crashed") from error

    def _end_late(self, late: threading.Event) -> None:
        late.set()
        self.process.kill()

    def end(self) -> None:
        """End the process and close its pipes."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(OSError):
                    pipe.close()
        self.process.wait()


_idle: list[_Child] = []
_lock = threading.Lock()


def _idle_or_new() -> _Child:
    with _lock:
        while _idle:
            child = _idle.pop()
            if child.process.poll() is None:
                return child
            child.end()
    path = json.dumps([entry or str(Path.cwd()) for entry in sys.path])
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", START, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={name: os.environ[name] for name in (*INHERITED, *INHERITED_TOO) if name in os.environ}
        | OWN_VARIABLES,
        pipesize=PIPE_BYTES,
        start_new_session=True,  # Ctrl-C is for the parent
    )
    return _Child(process)


def _keep(child: _Child) -> None:
    """Keep a child for the next picture, one for each processor: more could not run at once."""
    with _lock:
        if len(_idle) < (os.cpu_count() or 1):
            _idle.append(child)
            return
    child.end()


@atexit.register
def end_children() -> None:
    """End the children that wait for work."""
    with _lock:
        while _idle:
            _idle.pop().end()


def serve() -> None:
    """Decode one file after the other until the parent closes the pipe: the program of a child."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints is no answer
    with suppress(EOFError, BrokenPipeError):
        while True:
            head = json.loads(_read(requests))
            module, _, name = head["decoder"].partition(":")
            decoder = getattr(importlib.import_module(module), name)
            _limit(head["seconds"], head["memory"])
            answers.write(READY)
            answers.flush()
            data = _read(requests)
            facts, body = _answer(decoder, data, head["parameters"])
            _write(answers, json.dumps(facts).encode())
            _write(answers, body)
            del data, body


def _answer(decoder: Decoder, data: bytes, parameters: Facts) -> tuple[Facts, bytes]:
    try:
        with decoding():
            return decoder(data, **parameters)
    except PictureError as error:
        return {"error": str(error)}, b""


def _limit(seconds: float, memory: int) -> None:
    """Bound this process: its memory, and its time should the parent be gone, as far as the system can."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        return
    size = pages * resource.getpagesize() + SLACK + memory
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime + seconds * (os.cpu_count() or 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (spent, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _write(pipe: BinaryIO | Any, data: bytes) -> None:
    pipe.write(struct.pack(">Q", len(data)))
    pipe.write(data)
    pipe.flush()


def _read(pipe: BinaryIO | Any) -> bytes:
    """Return the bytes of the next message. Raises `EOFError`."""
    (length,) = struct.unpack(">Q", _exactly(pipe, 8))
    return _exactly(pipe, length)


def _exactly(pipe: BinaryIO | Any, length: int) -> bytes:
    data: bytes = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data
