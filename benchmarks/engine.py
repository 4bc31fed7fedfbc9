"""A node of its own for measurements: a temporary home, gone afterwards."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from es_config.client import connect, engine_settings
from es_config.index import ImageIndex
from es_config.local_node.node import LocalNode


@contextmanager
def node(kept: Path | None = None) -> Iterator[tuple[object, str]]:
    """Start a local node in the home `kept`, or in a temporary one, and give its client and its URL."""
    with nullcontext(kept) if kept else tempfile.TemporaryDirectory(prefix="glimpse-bench-") as home:
        local = LocalNode(Path(home), environ=os.environ)
        url = local.up(heap_mb=1024).node.url
        try:
            yield connect(engine_settings({}, Path(home))), url
        finally:
            local.down()


@contextmanager
def fresh_index(client: object) -> Iterator[ImageIndex]:
    """Give an index object with an alias of its own, and delete its indices afterwards."""
    index = ImageIndex(client, alias=f"bench-{uuid.uuid4().hex[:12]}")
    try:
        yield index
    finally:
        if index.exists():
            index.delete()
