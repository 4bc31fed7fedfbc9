"""The one error that `es_config` raises on purpose, and clean-ups that hide no error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class EngineError(Exception):
    """Elasticsearch, the node or the index refuses a task. The message has the reason and the way out."""


@contextmanager
def afterwards(clean_up: Callable[[], object]) -> Iterator[None]:
    """Call `clean_up` at the end of a `with` statement, also after an error in its body.

    When both fail, the body's error is raised, with the message of the clean-up as a note. An interruption is
    raised only after a clean-up that succeeds.
    """
    try:
        yield
    except Exception as error:
        try:
            clean_up()
        except Exception as failed:
            if failed is not error:
                error.add_note(str(failed))
        raise
    except BaseException:
        clean_up()
        raise
    clean_up()
