"""The log of sign-ins and writes, in one file of this machine."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

OWNER_ONLY = 0o600
MAX_BYTES = 10_000_000
KEPT = 4
"""older files beside the one that is written"""


class AuditLog:
    """Appends one JSON object a line to a file that its owner alone can read. Thread-safe."""

    def __init__(self, path: Path, *, warn: Callable[[str], None]) -> None:
        """Take the file, and the function to call when it cannot be written. Nothing is opened yet."""
        self._handler = _OwnerOnly(path, maxBytes=MAX_BYTES, backupCount=KEPT, delay=True, encoding="utf-8")
        self._handler.told = warn

    def write(self, action: str, *, user: str | None, address: str, status: int, path: str) -> None:
        """Keep one line. Never raises for want of a disk."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {
            "time": now,
            "user": user,
            "address": address,
            "action": action,
            "path": path,
            "status": status,
        }
        text = json.dumps(line, ensure_ascii=False)
        self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _OwnerOnly(RotatingFileHandler):
    told: Callable[[str], None]

    def _open(self) -> IO[str]:  # type: ignore[override]  # the stubs name the class of text files
        Path(self.baseFilename).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        opener = lambda name, flags: os.open(name, flags, OWNER_ONLY)  # noqa: E731
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=opener)

    def handleError(self, record: logging.LogRecord) -> None:
        del record
        self.told(f"{self.baseFilename} cannot be written: sign-ins and writes are not noted.")


def audit_path(home: Path) -> Path:
    """Return where the audit log of a GLIMPSE_HOME is."""
    return home / "audit.jsonl"
