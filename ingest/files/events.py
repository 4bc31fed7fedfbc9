"""Observe folders, and hold each path back until nothing more happens to it."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice, takewhile
from pathlib import Path

from watchdog import events
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

from ingest.files.walk import SETTLED_NS

POLL_S = 2.0
HEARD: list[type[FileSystemEvent]] = [
    events.DirDeletedEvent,
    events.DirMovedEvent,
    events.FileAttribEvent,
    events.FileCreatedEvent,
    events.FileDeletedEvent,
    events.FileModifiedEvent,
    events.FileMovedEvent,
]
"""Ingest itself opens and reads files, so that is left out. Files in new folders have events of their own."""
LIMITS = {errno.ENOSPC, errno.EMFILE}
POLLING = (
    "The system cannot watch so many folders: they are looked through every few seconds instead, which costs"
    " time. Raise fs.inotify.max_user_watches, and perhaps max_user_instances, with sysctl and start again."
)


class FolderEvents(FileSystemEventHandler):
    """Observes folders, and keeps in `pending` the paths to which something happened."""

    def __init__(self, *, say: Callable[[str], None]) -> None:
        """`say` receives a warning if folders must be polled."""
        self.pending = PendingPaths()
        self.is_lost = False
        """events were dropped: only a walk finds out what happened"""
        self.is_limited = False
        """the kernel watches no more folders"""
        self.is_polling = False
        self.observer: BaseObserver | None = None
        self._say = say
        logging.getLogger("watchdog").addHandler(logging.NullHandler())  # its warnings are handled here

    def observe(self, folders: Sequence[tuple[str, bool]]) -> None:
        """Observe these folders, each with or without those below it, instead of the former ones.

        They are polled where the system cannot watch so many. Raises `OSError` when a folder is not there.
        """
        self.close()
        if not self.is_polling:
            try:
                self._start(InotifyObserver(self) if sys.platform == "linux" else Observer(), folders)
            except (FileNotFoundError, NotADirectoryError):
                raise
            except OSError:
                self.is_limited = True
            if not self.is_limited:
                return
            self.close()
            self.is_polling = True
            self._say(POLLING)
        self._start(PollingObserver(timeout=POLL_S), folders)

    def close(self) -> None:
        """Stop observing."""
        if self.observer:
            self.observer.stop()
            self.observer.join()
        self.observer, self.is_lost, self.is_limited = None, False, False

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Keep the paths of an event, with a slash at the end of one that was a folder."""
        path = os.fsdecode(event.src_path)
        self.pending.touch(f"{path}/" if event.is_directory else path)
        if event.dest_path and not event.is_directory:
            self.pending.touch(os.fsdecode(event.dest_path))

    def _start(self, observer: BaseObserver, folders: Sequence[tuple[str, bool]]) -> None:
        for folder, recursive in folders:
            observer.schedule(self, folder, recursive=recursive, event_filter=HEARD)
        try:
            observer.start()
        except OSError:
            observer.stop()
            raise
        self.observer = observer


if sys.platform == "linux":
    from watchdog.observers.inotify import InotifyEmitter
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchCallback,
        WatchDescriptor,
    )

    class _Inotify(InotifyFD):
        """Reports dropped events, which watchdog only logs, and folders below that it cannot watch."""

        def __init__(self, handler: FolderEvents) -> None:
            super().__init__()
            self._handler = handler

        def add_callback(
            self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId
        ) -> WatchDescriptor:
            try:
                return super().add_callback(path, mask, callback, id_)
            except OSError as error:
                self._handler.is_limited |= error.errno in LIMITS
                raise

        def handle_event(self, event: InotifyEvent) -> None:
            super().handle_event(event)
            self._handler.is_lost |= event.is_queue_overflow

    class InotifyObserver(BaseObserver):
        """Raises `OSError` on construction or start if inotify cannot be had."""

        def __init__(self, handler: FolderEvents) -> None:
            self.inotify = _Inotify(handler)
            self.inotify.start()
            super().__init__(InotifyEmitter, inotify_fd=self.inotify)

        def on_thread_stop(self) -> None:
            """Stop the reader after its emitters."""
            super().on_thread_stop()
            self.inotify.stop()
            self.inotify.join()


QUIET_S = SETTLED_NS / 1e9 + 0.1
"""A path is taken when nothing has happened to it for so long: its time of change is then settled."""
LONGEST_GONE_S = 60.0
"""Deleted paths wait no longer than this for others."""
MOST = 500
"""files of one round, so that the first of many are found before the last are read"""


class PendingPaths:
    """Real paths to which something happened, in the order of the last event. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of paths."""
        return len(self._since)

    def touch(self, path: str) -> None:
        """Keep a path to which something has just happened."""
        with self._lock:
            self._since.pop(path, None)
            self._since[path] = self._clock()

    def put_back(self, paths: Iterable[str]) -> None:
        """Keep paths that were taken and could not be indexed, for the next `take`."""
        with self._lock:
            back = {path: float("-inf") for path in paths if path not in self._since}
            self._since = back | self._since

    def take(self) -> list[str]:
        """Remove and return up to `MOST` paths to which nothing has happened for `QUIET_S`.

        A file that was changed more lately stays: something writes it without events.
        """
        with self._lock:
            latest = self._clock() - QUIET_S
            quiet = islice(takewhile(lambda path: self._since[path] <= latest, self._since), MOST)
            taken = list(quiet)
            for path in taken:
                del self._since[path]
        growing = [path for path in taken if _has_just_changed(path)]
        for path in growing:
            self.touch(path)
        return [path for path in taken if path not in growing]


def _has_just_changed(path: str) -> bool:
    try:
        age_ns = time.time_ns() - os.stat(path).st_mtime_ns  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return 0 <= age_ns < QUIET_S * 1e9


class GonePaths:
    """Deleted paths, kept until no more are deleted, so that a mass deletion is pruned in one round."""

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
        """Remove and return all paths, once none was added for `QUIET_S` or the first has waited long."""
        now = self._clock()
        if now - self._last < QUIET_S and now - self._first < LONGEST_GONE_S:
            return ()
        taken, self._paths = tuple(self._paths), {}
        return taken
