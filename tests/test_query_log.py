"""The log of queries: its lines, its permissions, and searches that go on when it cannot be written."""

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
from waiting import PATIENCE_S

from search_app.core.logs import (
    QueryLog,
    log_path,
    older,
    read_entries,
    read_query_log,
)
from search_app.core.query import Query
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app


@pytest.fixture
def logged(gallery, tmp_path):
    """The gallery's searcher with a log in a fresh folder."""
    return SearchService(gallery.searcher, log=QueryLog(tmp_path / "home" / "queries.jsonl"))


def test_queries_in_words_are_kept_and_nothing_else(logged, gallery, tmp_path):
    logged.search(Query(text="ein rotes Boot", k=3, mode="hybrid"))
    logged.search(Query(like=gallery.ids["boat"], k=3))
    (kept,) = (tmp_path / "home" / "queries.jsonl").read_text().splitlines()
    row = json.loads(kept)
    assert sorted(row) == ["hits", "k", "mode", "text", "time", "took_ms"]
    assert (row["text"], row["mode"], row["k"], row["hits"]) == ("ein rotes Boot", "hybrid", 3, 3)
    assert logged.searcher is gallery.searcher


def test_only_the_owner_can_read_the_log(logged, tmp_path):
    logged.search(Query(text="a boat"))
    assert stat.S_IMODE((tmp_path / "home" / "queries.jsonl").stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_stops_no_search(gallery, tmp_path):
    (tmp_path / "home").write_text("a file where a folder should be")
    said = []
    logged = SearchService(
        gallery.searcher, log=QueryLog(tmp_path / "home" / "queries.jsonl", warn=said.append)
    )
    assert logged.search(Query(text="a boat")).hits
    assert logged.search(Query(text="a cat")).hits
    assert len(said) == 1
    assert "searching goes on" in said[0]


def test_the_log_is_bounded_and_keeps_the_newest(gallery, tmp_path):
    log = QueryLog(tmp_path / "queries.jsonl", max_bytes=1000)
    response = gallery.searcher.search(Query(text="a boat", k=1))
    for number in range(40):
        log.write(Query(text=f"query {number}"), response)
    assert log.path.stat().st_size <= 1000
    assert older(log.path).stat().st_size <= 1000
    texts = list(read_query_log(log.path))
    assert texts[-1] == "query 39"
    assert texts == sorted(texts, key=lambda text: int(text.split()[1]))


def test_a_torn_last_line_harms_neither_reading_nor_writing(logged, tmp_path):
    path = tmp_path / "home" / "queries.jsonl"
    logged.search(Query(text="before"))
    with path.open("ab") as file:
        file.write(b'{"time": "2026-01-01", "text": "to\xc3')
    assert list(read_query_log(path)) == ["before"]
    logged.search(Query(text="after"))
    assert list(read_query_log(path)) == ["before", "after"]


def test_the_page_says_that_queries_are_kept_only_when_they_are(gallery):
    for kept in (True, False):
        app = create_app(
            service=SearchService(gallery.searcher),
            storage=gallery.storage,
            settings=AppSettings(query_log=kept),
        )
        page = app.test_client().get("/?q=a+boat").text
        assert ("is kept on the machine that runs this page" in page) is kept


def test_the_manual_shows_labels_and_deletes_the_log(logged, tmp_path):
    home = tmp_path / "home"
    show, label, delete = documented()
    for text in ("a cat", "a boat", "a boat", "\x1b[2J"):
        logged.search(Query(text=text, k=1))
    log_path(home).rename(older(log_path(home)))
    logged.search(Query(text="a boat", k=1))
    with log_path(home).open("ab") as file:
        file.write(b'{"time": "2026-01-01", "text": "to\xc3')
    shown = shell(show, home)
    assert "\x1b" not in shown
    kept = [json.loads(row) for row in shown.splitlines()]
    assert [row["text"] for row in kept] == ["a cat", "a boat", "a boat", "\x1b[2J", "a boat"]
    assert kept == [vars(entry) for entry in read_entries(log_path(home))]
    labels = [json.loads(row) for row in shell(label, home).splitlines()]
    assert labels[0] == {"query": "a boat", "relevant": []}
    assert sorted(row["query"] for row in labels[1:]) == ["\x1b[2J", "a cat"]
    shell(delete, home)
    assert list(home.iterdir()) == []
    logged.search(Query(text="a dog"))
    assert list(read_query_log(log_path(home))) == ["a dog"]


def documented() -> list[str]:
    """Return the commands in the manual's section about the log."""
    page = (Path(__file__).parent.parent / "docs" / "security.md").read_text(encoding="utf-8")
    section = page.split("## The log of queries")[1].split("\n## ")[0]
    return re.findall(r"```bash\n(.+?)```", section, re.DOTALL)


def shell(command: str, home: Path) -> str:
    """Run a command of the manual and return its output."""
    environment = os.environ | {"GLIMPSE_HOME": str(home)}
    done = subprocess.run(
        ["bash", "-euc", command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), "scripts/test-requirements installs jq"
    return done.stdout
