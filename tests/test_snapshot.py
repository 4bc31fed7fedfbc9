"""The commands with which docs/production.md saves and restores an index and its store."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from picture_files import save_picture
from waiting import PATIENCE_S

from es_config.client import EngineSettings, connect
from es_config.index import ImageIndex
from glimpse import main

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "production.md").read_text()
SAVE, RESTORE = re.findall(r"```bash\n(.*?)```", PAGE.partition("## Save and restore")[2], re.DOTALL)


@pytest.fixture
def environ(node, node_home, tmp_path, tiny_pair, index_name) -> dict[str, str]:
    home = tmp_path / "home"
    (home / "node").mkdir(parents=True)
    (node_home / "node" / "snapshots").mkdir(exist_ok=True)
    (home / "node" / "snapshots").symlink_to(node_home / "node" / "snapshots")
    program = tmp_path / "bin" / "glimpse"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m glimpse "$@"\n')
    program.chmod(0o755)
    return {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "ELASTICSEARCH_URL": node.url,
        "GLIMPSE_HOME": str(home),
        "GLIMPSE_MODEL_DIR": str(tiny_pair),
        "GLIMPSE_INDEX": index_name,
        "GLIMPSE_INGEST_CAPTIONS": "off",
        "GLIMPSE_PRECISION": "fp32",
        "GLIMPSE_TEXT_LANE": "local",
    }


def test_an_index_is_saved_and_restored_with_its_store(environ, node, client, index_name, tmp_path):
    def glimpse(*arguments: object) -> str:
        done = CliRunner().invoke(main, [*map(str, arguments)], env=os.environ | environ)
        assert done.exit_code == 0, done.output
        return done.stdout

    def typed(block: str) -> None:
        """Run a block of the page, with this test's names in the place of the page's."""
        names = {
            "http://127.0.0.1:9200": node.url,
            "/mnt/backup/glimpse": str(tmp_path / "saved"),
            "images-*": f"{index_name}-*",
            "_snapshot/backup": f"_snapshot/{index_name}",
            '"location": "backup"': f'"location": "{index_name}"',
        }
        for name, mine in names.items():
            assert name in block or name == "images-*", name
            block = block.replace(name, mine)
        command = ["/bin/bash", "-euo", "pipefail", "-c", block]
        done = subprocess.run(
            command, env=os.environ | environ, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        assert '"failed":0' in done.stdout

    pictures = tmp_path / "pictures"
    for number in range(6):
        save_picture(pictures / f"{number}.png", number, size=(60, 40))
    glimpse("ingest", pictures)
    found = glimpse("search", "a picture", "--k", "6", "--json")
    meta = ImageIndex(client, alias=index_name).meta()
    try:
        typed(SAVE)
        thumbnails = sorted(path.name for path in (tmp_path / "home" / "store").rglob("*.*"))
        assert thumbnails
        shutil.rmtree(tmp_path / "home" / "store")
        shutil.rmtree(node_snapshots(environ) / index_name)
        save_picture(pictures / "later.png", 99, size=(60, 40))
        glimpse("ingest", pictures)
        typed(RESTORE)
    finally:
        with connect(EngineSettings(node.url)) as administrator:
            administrator.options(ignore_status=404).snapshot.delete_repository(name=index_name)
        shutil.rmtree(node_snapshots(environ) / index_name, ignore_errors=True)
    index = ImageIndex(client, alias=index_name)
    assert index.count() == 6
    assert index.meta() == meta
    # Where files lie is noted for the index that was; the next ingest notes it for the restored one.
    took = re.compile(
        r'"(?:(?:took|seconds|[a-z_]*_ms)": [\d.]+|(?:root|absolute_path|file)": (?:null|"[^"]*"))'
    )
    assert took.sub("", glimpse("search", "a picture", "--k", "6", "--json")) == took.sub("", found)
    assert set(thumbnails) <= {path.name for path in (tmp_path / "home" / "store").rglob("*.*")}
    assert "7 files: 1 indexed, 6 known already" in glimpse("ingest", pictures)


def node_snapshots(environ: dict[str, str]) -> Path:
    return Path(environ["GLIMPSE_HOME"]) / "node" / "snapshots"
