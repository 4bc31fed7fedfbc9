"""The settings of searching and serving."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from search_app.errors import QueryError
from storage.store import default_store

UNITS = {"": 1, "B": 1, "K": 1000, "KB": 1000, "M": 1000**2, "MB": 1000**2, "KIB": 1024, "MIB": 1024**2}
DEFAULT_MAX_UPLOAD = "50MB"


@dataclass(frozen=True)
class AppSettings:
    """How the page and the REST API behave."""

    max_upload: int = 50_000_000
    """bytes of one picture"""
    page_size: int = 24
    """hits on a page when the address does not say `k`"""
    trusted_hosts: tuple[str, ...] = ()
    """names that a request may call this server by; empty: any"""
    rate_limits: bool = False
    """whether one person, or one address, may ask only so often for what costs most"""
    max_added: int | None = None
    """pictures that may be added in all"""
    read_only: bool = False
    """whether only searches are answered: nothing is added or corrected"""
    query_log: bool = False
    """whether the queries in words are kept on this machine, which the page then says"""


@dataclass(frozen=True)
class SearchSettings:
    """Which index is searched and with which models."""

    profile: str | None = None
    """that of the index by default, or that of the environment without one"""
    model_dir: Path | None = None
    alias: str = "images"
    text_lane: str = "auto"
    """`infer`: texts are embedded in Elasticsearch; `local`: in this process; `auto`: whichever works"""
    voice_model: str | None = None
    """the model that transcribes: a size or a folder, `off` for none, None for the profile's own"""


def parse_size(text: str) -> int:
    """Return bytes for `5MB`, `512KiB` or a bare number of bytes. Raises `QueryError`."""
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", text.strip())
    unit = UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None or int(match[1]) == 0:
        raise QueryError(f"'{text}' is not a size: write a number of bytes, or a number with KB or MB.")
    return int(match[1]) * unit


def store_uri(environ: Mapping[str, str], home: Path, alias: str) -> str:
    """Return the address of an index's store: `GLIMPSE_STORE`, else a folder of `home`."""
    return environ.get("GLIMPSE_STORE") or default_store(home, alias)
