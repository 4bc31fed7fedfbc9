"""The log of queries: what is kept, who may read it, and that it never stands in the way."""

import json
import stat

import pytest
from click.testing import CliRunner

from glimpse import main
from search_app.app import create_app
from search_app.query import Query
from search_app.query_log import (
    LoggedSearcher,
    QueryLog,
    clear_log,
    log_path,
    older,
    read_entries,
    read_query_log,
)
from search_app.settings import AppSettings


@pytest.fixture
def logged(gallery, tmp_path):
    """The gallery's searcher with a log in a fresh folder."""
    return LoggedSearcher(gallery.searcher, QueryLog(tmp_path / "home" / "queries.jsonl"))


def test_queries_in_words_are_kept_and_nothing_else(logged, gallery, tmp_path):
    logged.search(Query(text="ein rotes Boot", k=3, mode="hybrid"))
    logged.search(Query(like=gallery.ids["boat"], k=3))
    (kept,) = (tmp_path / "home" / "queries.jsonl").read_text().splitlines()
    row = json.loads(kept)
    assert sorted(row) == ["hits", "k", "mode", "text", "time", "took_ms"]
    assert (row["text"], row["mode"], row["k"], row["hits"]) == ("ein rotes Boot", "hybrid", 3, 3)
    assert logged.profile is gallery.searcher.profile


def test_only_the_owner_can_read_the_log(logged, tmp_path):
    logged.search(Query(text="a boat"))
    assert stat.S_IMODE((tmp_path / "home" / "queries.jsonl").stat().st_mode) == 0o600


def test_a_log_that_cannot_be_written_stops_no_search(gallery, tmp_path):
    (tmp_path / "home").write_text("a file where a folder should be")
    said = []
    logged = LoggedSearcher(gallery.searcher, QueryLog(tmp_path / "home" / "queries.jsonl", warn=said.append))
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
    assert clear_log(path) == 2
    assert list(read_entries(path)) == []


def test_the_page_says_that_queries_are_kept_only_when_they_are(gallery):
    for kept in (True, False):
        app = create_app(
            searcher=gallery.searcher, storage=gallery.storage, settings=AppSettings(query_log=kept)
        )
        page = app.test_client().get("/?q=a+boat").text
        assert ("is kept on the machine that runs this page" in page) is kept


def test_the_log_is_shown_labelled_and_deleted(logged, tmp_path, monkeypatch):
    monkeypatch.setenv("GLIMPSE_HOME", str(tmp_path / "home"))
    for text in ("a cat", "a boat", "a boat"):
        logged.search(Query(text=text, k=1))
    assert log_path(tmp_path / "home").exists()
    shown = CliRunner().invoke(main, ["log", "show"]).stdout.splitlines()
    assert [row.split("\t")[-1] for row in shown] == ["a cat", "a boat", "a boat"]
    labels = CliRunner().invoke(main, ["log", "labels"]).stdout.splitlines()
    assert [json.loads(row) for row in labels] == [
        {"query": "a boat", "relevant": []},
        {"query": "a cat", "relevant": []},
    ]
    assert CliRunner().invoke(main, ["log", "clear"], input="n\n").exit_code == 1
    assert CliRunner().invoke(main, ["log", "clear", "--yes"]).stdout == "3 queries deleted.\n"
    empty = CliRunner().invoke(main, ["log", "show"])
    assert "No queries are kept" in empty.stderr
