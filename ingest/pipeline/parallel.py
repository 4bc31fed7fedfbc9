"""Three ways to work ahead without losing the order or the bounds."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar, cast

In = TypeVar("In")
Out = TypeVar("Out")
STOP_CHECK_S = 0.1
READ_AHEAD = 4
"""items that wait between two steps; the bounds that matter are the windows of the reader"""


def ordered_map(
    pool: Executor,
    function: Callable[[In], Out],
    items: Iterable[In | Out],
    *,
    window: int,
    kind: type[In] | None = None,
) -> Generator[Out]:
    """Yield `function(item)` in the order of `items`, with at most `window` calls in progress or waiting.

    With `kind`, items of other types are passed on as they are.
    """
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            if kind is None or isinstance(item, kind):
                waiting.append(pool.submit(function, cast("In", item)))
            elif waiting:
                ready: Future[Out] = Future()
                ready.set_result(cast("Out", item))
                waiting.append(ready)
            else:
                yield cast("Out", item)
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def write_behind(made: Iterable[Out], write: Callable[[Out], None], *, name: str) -> None:
    """Call `write` for each value in a thread of its own, while the next one is made.

    A value is written even if making the next one fails. An exception of either is raised here.
    """
    writing: Future[None] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix=name) as writer:
        try:
            for each in made:
                if writing:
                    writing.result()
                writing = writer.submit(write, each)
        finally:
            if writing:
                writing.result()


Entry = tuple[Out] | BaseException | None
"""an item, an error, or the end"""


def ahead(items: Generator[Out], *, size: int) -> Generator[Out]:
    """Yield `items`, which a thread makes in advance, at most `size` before they are wanted.

    An exception of `items` is raised here. Closing this generator stops the thread and closes `items` there.
    """
    line: queue.Queue[Entry[Out]] = queue.Queue(maxsize=size)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(line, items, stop), name="read-ahead", daemon=True)
    thread.start()
    try:
        while (entry := line.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stop.set()
        thread.join()


def _fill(line: queue.Queue[Entry[Out]], items: Generator[Out], stop: threading.Event) -> None:
    try:
        for item in items:
            if not _put(line, (item,), stop):
                return
        _put(line, None, stop)
    except BaseException as error:  # handed to the thread that reads the line
        _put(line, error, stop)
    finally:
        items.close()


def _put(line: queue.Queue[Entry[Out]], entry: Entry[Out], stop: threading.Event) -> bool:
    """Wait for room in the line. Return False if nobody wants more."""
    while not stop.is_set():
        try:
            line.put(entry, timeout=STOP_CHECK_S)
            return True
        except queue.Full:
            continue
    return False
