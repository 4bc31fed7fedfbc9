"""Three ways to work ahead without losing the order or the bounds."""

from __future__ import annotations

import queue
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Executor

In = TypeVar("In")
Out = TypeVar("Out")
STOP_CHECK_S = 0.1


def ordered_map(
    pool: Executor,
    function: Callable[[In], Out],
    items: Iterable[In],
    *,
    window: int,
    needed: Callable[[In], bool] = lambda _: True,
) -> Generator[Out]:
    """Yield `function(item)` in the order of `items`, with at most `window` calls under way or waiting.

    An item for which it is not `needed` is passed on as it is.
    """
    waiting = deque()
    try:
        for item in items:
            if not (waiting or needed(item)):
                yield item
                continue
            waiting.append(pool.submit(function, item) if needed(item) else _done(item))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _done(item: object) -> Future:
    """Return a future of something that is there."""
    future: Future = Future()
    future.set_result(item)
    return future


def write_behind(made: Iterable[Out], write: Callable[[Out], None], *, name: str) -> None:
    """Call `write` for each thing in a thread of its own, while the next one is made.

    What was made is written even when making the next one fails. An exception of either is raised here.
    """
    writing: Future | None = None
    with ThreadPoolExecutor(1, thread_name_prefix=name) as writer:
        try:
            for each in made:
                if writing:
                    writing.result()
                writing = writer.submit(write, each)
        finally:
            if writing:
                writing.result()


def ahead(items: Generator[Out], *, size: int) -> Generator[Out]:
    """Yield `items`, which are made in a thread of their own, at most `size` before they are wanted.

    An exception of `items` is raised here. Closing this generator stops the thread and closes `items` there.
    """
    line: queue.Queue = queue.Queue(maxsize=size)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(line, items, stop), name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, last, error = line.get()
            if error is not None:
                raise error
            if last:
                return
            yield item
    finally:
        stop.set()
        thread.join()


def _fill(line: queue.Queue, items: Generator, stop: threading.Event) -> None:
    try:
        for item in items:
            if not _put(line, (item, False, None), stop):
                return
        _put(line, (None, True, None), stop)
    except BaseException as error:  # handed to the thread that reads the line
        _put(line, (None, True, error), stop)
    finally:
        items.close()


def _put(line: queue.Queue, entry: tuple, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            line.put(entry, timeout=STOP_CHECK_S)
            return True
        except queue.Full:
            continue
    return False
