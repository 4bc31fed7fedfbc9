"""Hearing from the system that files were written, moved or deleted."""

from __future__ import annotations

import logging
import os
import sys
from collections import deque
from typing import TYPE_CHECKING

from watchdog import events
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from watchdog.observers.api import BaseObserver

    from ingest.pending import Pending

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
        from ingest.inotify import InotifyObserver

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
