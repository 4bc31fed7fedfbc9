"""Listen to file system events, and hold each file back until it is complete."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from stat import S_ISDIR
from typing import TYPE_CHECKING

from watchdog import events
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import InotifyFD
from watchdog.observers.polling import PollingObserver

from ingest.files.walk import SETTLED_NS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

POLL_S = 2.0
HEARD = [
    events.DirCreatedEvent,
    events.DirDeletedEvent,
    events.DirMovedEvent,
    events.FileAttribEvent,
    events.FileClosedEvent,
    events.FileCreatedEvent,
    events.FileDeletedEvent,
    events.FileModifiedEvent,
    events.FileMovedEvent,
]
"""not that a file was opened or read: we do that ourselves"""

POLLING = (
    "The system cannot watch so many folders: they are looked through every few seconds instead, which costs"
    " time. Raise fs.inotify.max_user_watches, and perhaps max_user_instances, with sysctl and start again."
)


class Listener(FileSystemEventHandler):
    """Puts what happened where the watch looks for it; what it means is seen from the disk."""

    def __init__(self, pending: Pending) -> None:
        self.pending = pending
        self.new_folders: deque[str] = deque()
        self.lost = False
        """the queue of events was full: only a walk can tell what happened"""
        self.limited = False
        """the kernel watches no more folders"""

    def dispatch(self, event: FileSystemEvent) -> None:
        """Take one event; a path that was a folder gets a slash at its end."""
        path, target = os.fsdecode(event.src_path), os.fsdecode(event.dest_path)
        if isinstance(event, events.DirCreatedEvent):
            self.new_folders.append(path)
        elif event.is_directory:
            self.pending.touch(f"{path}/")
        elif isinstance(event, events.FileModifiedEvent | events.FileClosedEvent):
            closes = sys.platform == "linux"  # elsewhere nobody tells that a file is closed
            self.pending.touch(path, is_open=closes and isinstance(event, events.FileModifiedEvent))
        else:
            self.pending.touch(path)
        if isinstance(event, events.DirMovedEvent):
            self.new_folders.append(target)
        elif isinstance(event, events.FileMovedEvent):
            self.pending.touch(target, is_open=False)


def listen(
    folders: Sequence[tuple[str, bool]], listener: Listener, *, polling: bool, say: Callable[[str], None]
) -> tuple[BaseObserver, bool]:
    """Start to observe folders, and return whether that is done by looking at them every few seconds.

    This is done where the system cannot tell, and `say` is told so. Raises `OSError` when a folder is not
    there.
    """
    logging.getLogger("watchdog").addHandler(logging.NullHandler())  # what it warns of is dealt with here
    listener.lost = listener.limited = False
    if not polling:
        observer = _native(folders, listener)
        if observer and not listener.limited:
            return observer, False
        if observer:
            close(observer)
        say(POLLING)
        listener.limited = False
    return _started(PollingObserver(timeout=POLL_S), folders, listener), True


def close(observer: BaseObserver) -> None:
    """Stop observing."""
    observer.stop()
    observer.join()


def _native(folders: Sequence[tuple[str, bool]], listener: Listener) -> BaseObserver | None:
    try:
        if sys.platform != "linux":
            return _started(Observer(), folders, listener)

        return _started(InotifyObserver(listener), folders, listener)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError:
        return None


def _started(observer: BaseObserver, folders: Sequence[tuple[str, bool]], listener: Listener) -> BaseObserver:
    for folder, recursive in folders:
        observer.schedule(listener, folder, recursive=recursive, event_filter=HEARD)
    try:
        observer.start()
    except OSError:
        observer.stop()
        raise
    return observer


LIMITS = {errno.ENOSPC, errno.EMFILE}


class _Descriptor(InotifyFD):
    """Tells what watchdog does not: that a folder below is not watched, and that events are lost."""

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._told = listener

    def add_callback(self, *arguments, **options):
        try:
            return super().add_callback(*arguments, **options)
        except OSError as error:
            if error.errno in LIMITS:
                self._told.limited = True
            raise

    def handle_event(self, event) -> None:
        super().handle_event(event)
        if event.is_queue_overflow:
            self._told.lost = True


class InotifyObserver(BaseObserver):
    """Raises `OSError` on construction or start where inotify cannot be had."""

    def __init__(self, listener: Listener) -> None:
        self._descriptor = _Descriptor(listener)
        self._descriptor.start()
        super().__init__(InotifyEmitter, inotify_fd=self._descriptor)

    def on_thread_stop(self) -> None:
        """Stop reading once nobody listens."""
        super().on_thread_stop()
        self._descriptor.stop()
        self._descriptor.join()


STILL_S = 1.0
"""a file is taken when nothing happened to it for so long"""
FRESH_S = SETTLED_NS / 1e9 + 0.1
"""and when it was written so long ago: its time can then tell the next run that it did not change"""
OPEN_S = 30.0
"""a file that was written and not closed yet is waited for so long: copies over slow lines pause"""
GATHER_S = 1.0
"""files that are still wait so long for others that are not, so that a burst is one round"""
LAST_GONE_S, LONGEST_GONE_S = 2.0, 60.0
"""what is gone waits for so long after the last that went, and never longer"""
MOST = 500
"""files of one round, so that the first of many are found before the last are read"""


@dataclass
class _Seen:
    since: float
    """when something last happened, in seconds of the clock"""
    is_open: bool = False
    state: tuple[int, int, bool] | None = None
    """size, time of change, whether it is a folder; None for nothing there, or before the first look"""
    still_at: float | None = None


class Pending:
    """Real paths that wait; `touch` may be called by any thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paths: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._paths)

    def touch(self, path: str, *, is_open: bool | None = None) -> None:
        """Something happened to a path; `is_open` when it was written or closed."""
        with self._lock:
            seen = self._paths.setdefault(path, _Seen(0.0))
            seen.since, seen.still_at = self._clock(), None
            if is_open is not None:
                seen.is_open = is_open

    def put_back(self, paths: Iterable[str]) -> None:
        """Let paths wait that could not be dealt with: they are still already."""
        with self._lock:
            for path in paths:
                self._paths.setdefault(path, _Seen(float("-inf")))

    def take(self) -> list[str]:
        """Return paths that are still, and forget them; none while it pays to wait for more."""
        now = self._clock()
        with self._lock:
            paths = list(self._paths.items())
        still: list[tuple[str, _Seen, float]] = []
        for path, seen in paths:
            since = seen.since
            if self._is_still(path, seen, now):
                seen.still_at = now if seen.still_at is None else seen.still_at
                still.append((path, seen, since))
            if len(still) == MOST:
                break
        if not still or (len(still) < min(MOST, len(paths)) and not self._is_late(still, now)):
            return []
        with self._lock:
            taken = [path for path, seen, since in still if seen.since == since]
            for path in taken:
                del self._paths[path]
        return taken

    def _is_late(self, still: list[tuple[str, _Seen, float]], now: float) -> bool:
        return now - min(seen.still_at or now for _, seen, _ in still) >= GATHER_S

    def _is_still(self, path: str, seen: _Seen, now: float) -> bool:
        state = _state(path)
        if state != seen.state:
            if seen.state is not None:
                seen.since, seen.still_at = now, None
            seen.state = state
        quiet = now - seen.since
        fresh = state is not None and time.time_ns() - state[1] < FRESH_S * 1e9
        return quiet >= (OPEN_S if seen.is_open and state else FRESH_S if fresh else STILL_S)


class Gone:
    """Paths that are gone, kept until no more go: a fifth of all must not look like many small shares."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._paths: dict[Path, None] = {}
        self._first = self._last = 0.0

    def add(self, paths: Iterable[Path]) -> None:
        """Keep more paths."""
        if more := dict.fromkeys(paths):
            self._last = self._clock()
            self._first = self._first if self._paths else self._last
            self._paths |= more

    def take(self) -> tuple[Path, ...]:
        """Return all once none has gone for a while, or they have waited for long, and forget them."""
        now = self._clock()
        if now - self._last < LAST_GONE_S and now - self._first < LONGEST_GONE_S:
            return ()
        taken, self._paths = tuple(self._paths), {}
        return taken


def _state(path: str) -> tuple[int, int, bool] | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, S_ISDIR(status.st_mode)
