"""Write one archive with everything that a machine without a network needs to run Glimpse."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from es_config.errors import EngineError
from es_config.local_node.install import JARS, fetch_jars

FOLDER = "glimpse-bundle"
"""the folder that the archive unpacks to"""
INSTALL = """#!/bin/sh
# Install Glimpse from this folder, without a network: sh install.sh [FOLDER]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
there=${1:-$HOME/glimpse}
jars=${HOME}/.m2/repository

[ -x "$there/bin/python" ] || ${PYTHON:-python3} -m venv "$there"
pip() { "$there/bin/python" -m pip --disable-pip-version-check install --quiet --no-index "$@"; }
if [ -f "$here/requirements.txt" ]; then
    pip --find-links "$here/wheels" --require-hashes -r "$here/requirements.txt"
fi
pip --no-deps "$here"/wheels/glimpse_search-*.whl
mkdir -p "$jars"
cp -R "$here/maven/." "$jars/"

cat <<END
Glimpse is in $there. Type, or add to your shell's start-up file:

  export PATH="$there/bin:\\$PATH" HF_HUB_OFFLINE=1
  export GLIMPSE_PROFILE=PROFILE GLIMPSE_MODEL_DIR="$here/models"

Then: glimpse up; glimpse ingest ~/Pictures; glimpse serve
END
"""


def bundle_files(wheels: Iterable[Path], *, say: Callable[[str], None]) -> dict[str, Path]:
    """Return wheels and Elasticsearch's jars by their names in the archive, downloading missing jars.

    Raises EngineError.
    """
    coordinates = [each.split(":") for each in json.loads(JARS.read_text(encoding="utf-8"))]
    jars = {
        f"maven/{group.replace('.', '/')}/{name}/{version}/{path.name}": path
        for (group, name, version), path in zip(coordinates, fetch_jars(say=say), strict=True)
    }
    return {f"wheels/{path.name}": path for path in wheels} | jars


def download_wheels(requirements: Path, folder: Path) -> list[Path]:
    """Download the wheels that a lock file names, for this system and Python, and return them.

    Raises EngineError when pip is not here or cannot get one.
    """
    if importlib.util.find_spec("pip") is None:
        raise EngineError("pip is not in this environment: `python -m ensurepip` brings it.")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--only-binary", ":all:", "--require-hashes", "-r", str(requirements), "--dest", str(folder)]
    if subprocess.run(command, check=False).returncode:
        raise EngineError("pip cannot get all wheels, see above: run the same command again.")
    return sorted(folder.glob("*.whl"))


def write_bundle(
    target: Path,
    files: Mapping[str, Path],
    *,
    profile: str,
    requirements: Path | None,
    report: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write the archive and return its bytes. `files` are by their names in it.

    `report` receives the bytes that are in it and all bytes. Raises EngineError when it cannot be written.
    """
    texts = {"install.sh": INSTALL.replace("PROFILE=PROFILE", f"PROFILE={profile}")}
    if requirements is not None:
        texts["requirements.txt"] = requirements.read_text(encoding="utf-8")
    total = sum(path.stat().st_size for path in files.values())
    part = target.with_name(f"{target.name}.incomplete")
    try:
        with tarfile.open(part, "w", dereference=True) as archive:
            for name, text in texts.items():
                entry = tarfile.TarInfo(f"{FOLDER}/{name}")
                data = text.encode()
                entry.size, entry.mode = len(data), 0o755 if name.endswith(".sh") else 0o644
                archive.addfile(entry, io.BytesIO(data))
            for name, done in _sizes(files):
                archive.add(files[name], f"{FOLDER}/{name}", recursive=False)
                report(done, total)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise EngineError(
            f"{target} cannot be written ({error.strerror}): it needs {total / 1e9:.1f} GB of disk."
        ) from error
    return target.stat().st_size


def _sizes(files: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    done = 0
    for name, path in files.items():
        done += path.stat().st_size
        yield name, done
