"""The README's tour is typed as it stands, on the demo's pictures."""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from click.testing import CliRunner
from waiting import PATIENCE_S

from glimpse import main

ROOT = Path(__file__).parent.parent
TOUR = re.search(r"<!-- tour.*?-->\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
LINES = TOUR.strip().splitlines()


@pytest.fixture(scope="module")
def environ(node, tmp_path_factory) -> dict[str, str]:
    """A person's environment, with a home and an index of its own."""
    home, name = tmp_path_factory.mktemp("readme"), f"test-{uuid.uuid4()}"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("GLIMPSE")},
        "GLIMPSE_CACHE": os.environ["GLIMPSE_CACHE"],
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ELASTICSEARCH_URL": node.url,
        "ELASTICSEARCH_API_KEY": node.key,
        "GLIMPSE_HOME": str(home),
        "GLIMPSE_INDEX": name,
        "GLIMPSE_DEMO_INDEX": name,
        "COLUMNS": "120",
    }


@pytest.fixture(scope="module")
def shell(environ):
    """Run lines of shell as a person would, on the demo's pictures."""

    def run(line: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-c", line],
            env=environ,
            cwd=environ["GLIMPSE_HOME"],
            capture_output=True,
            text=True,
            check=False,
            timeout=4 * PATIENCE_S,
        )

    made = run("glimpse demo --no-serve")
    assert made.returncode == 0, made.stderr
    yield run
    run("glimpse index delete --yes")
    run("glimpse model delete --force")


def test_every_line_of_the_tour_works_and_answers(shell):
    assert len(LINES) >= 8
    for line in LINES:
        done = shell(line)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        assert done.stdout.strip(), line


@pytest.mark.parametrize(
    ("query", "caption"),
    [
        ("red boats at night", "three red boats"),
        ("a white cat in the rain", "white cat"),
        ("trois papillons verts la nuit", "three green butterflies"),
        ("zwei gelbe Vögel im Wald", "two yellow birds"),
        ("un caballo rojo en la ciudad", "red horse"),
        ("orange cats to the left of white trees", "orange cats"),
        ("ein gelber Ballon im Regen", "yellow balloon"),
    ],
)
@pytest.mark.usefixtures("shell")
def test_the_examples_of_the_readme_and_the_start_page_find_what_they_say(environ, query, caption):
    command = ["search", query, "--json", "--k", "1"]
    done = CliRunner().invoke(main, command, env=environ | {"GLIMPSE_PROFILE": None})
    assert caption in json.loads(done.stdout)["hits"][0]["caption"]
