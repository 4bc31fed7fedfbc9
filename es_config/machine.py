"""Look at this machine: the folder of Glimpse, the notes in it, and room for the store."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path

from es_config.errors import EngineError

LOW_ROOM = 2**30
"""bytes"""
NOTES = "ingested.sqlite"


def look_at_home(home: Path) -> str:
    """Say whether files can be written in GLIMPSE_HOME. Raises EngineError if not."""
    if not home.exists():
        return f"{home} is not there yet"
    try:
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"Glimpse")
            file.flush()
    except OSError as error:
        raise EngineError(
            f"{home} cannot be written ({error.strerror}): free space, mend its rights, or set"
            " GLIMPSE_HOME to another folder."
        ) from error
    return str(home)


def look_at_notes(home: Path) -> str:
    """Say whether the notes of ingested files can be read. Raises EngineError if not."""
    path = home / NOTES
    if not path.exists():
        return "none yet"
    try:
        base = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            ((found,),) = base.execute("PRAGMA quick_check(1)").fetchall()
            ((files,),) = base.execute("SELECT count(*) FROM files").fetchall()
        finally:
            base.close()
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise EngineError(
            f"{path} is damaged or cannot be read ({found}): mend its rights, or delete it, and the next"
            " `glimpse ingest` reads every file once more."
        )
    return f"files noted: {files}"


def look_at_store(environ: Mapping[str, str], home: Path) -> str:
    """Say how much room there is for thumbnails and originals. Raises EngineError if there is little."""
    named = environ.get("GLIMPSE_STORE") or f"file:{home / 'store'}"
    if named.startswith("s3:"):
        return "in a bucket, not looked at"
    folder = Path(named.removeprefix("file:")).expanduser().absolute()
    there = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise EngineError(
            f"The store {folder} cannot be looked at ({error.strerror}): mend its rights, or name another"
            " with GLIMPSE_STORE."
        ) from error
    if free < LOW_ROOM:
        raise EngineError(
            f"Only {free / 2**30:.1f} GB are free for the store at {folder}: free space there, or name"
            " another with GLIMPSE_STORE."
        )
    return f"{free / 2**30:.0f} GB free for it"
