"""What the local node may take of this machine: memory and a port."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from es_config.errors import EngineError

MIN_HEAP_MB = 256
DEFAULT_HEAP_MB = (512, 4096)
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def heap_megabytes(asked: int | None, *, memory_mb: int | None = None) -> int:
    """Return the Java heap in MB: `asked` when it fits, else a quarter of the memory, from 512 MB to 4 GB."""
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
    """Return the memory of this machine, or of the container that this process is in."""
    import psutil

    total = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        total = min(total, int(CGROUP_LIMIT.read_text(encoding="ascii")))
    return total >> 20


def check_port(port: int) -> None:
    """Raise EngineError when another program listens on `port` of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EngineError(
                f"Port {port} cannot be used ({error.strerror}): choose another with --port, or leave "
                "--port out and a free one is taken."
            ) from error
