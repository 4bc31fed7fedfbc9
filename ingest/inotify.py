"""Watchdog's observer of Linux, which here also tells when the kernel refused a watch or lost events."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import InotifyFD

if TYPE_CHECKING:
    from ingest.watch.events import Listener

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
