"""The state of an index in plain words: counts, runs that go on and ended, failed files, health, by role."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import suppress
from html import unescape

import pytest

from es_config.index import ImageIndex
from es_config.overview import read_overview
from es_config.runs import RunFile, read_outcomes, read_runs
from ingest.errors import Fault
from ingest.files.walk import Candidate
from ingest.history.ingested_files import HISTORY_FILE, IngestHistory
from ingest.report import LineProgress, StatedProgress
from models.profiles import PROFILES
from search_app.core.searcher import SearchService
from search_app.settings import AppSettings
from search_app.web.app import create_app

DIMS = {profile.name: profile.dims for profile in PROFILES.values()}


@pytest.fixture
def look(gallery, node, tmp_path):
    def read(index=gallery.searcher.index):
        return read_overview(index, home=tmp_path, url=node.url, store=f"file:{tmp_path}", profile_dims=DIMS)

    return read


def failed_file(home, name: str, reason: str) -> None:
    history = IngestHistory(home / HISTORY_FILE)
    history.record_failure(Candidate(home / "photos" / name, name), Fault(reason))
    history.close()


def stopped_run(home, alias: str) -> None:
    """Leave the notes of a run that an error ended."""
    with suppress(OSError), RunFile(home, alias) as file:
        file.write("Captioning", noun="pictures", done=1, total=9, failed=1)
        raise OSError("the disk is full at /srv/secret")


def test_a_healthy_index_is_well_and_counts_what_it_holds(look):
    now = look()
    assert now.well
    assert (now.images, now.captions, now.texts, now.films) == (60, 4, 0, 0)
    assert now.profile == "pocket"
    assert {check.name for check in now.checks} == {
        "home", "store", "elasticsearch", "disk", "shards", "profile",
    }  # fmt: skip
    assert (now.running, now.ended, now.failed) == ((), (), ())


def test_a_run_is_seen_while_it_lasts_and_its_end_afterwards(look, tmp_path, gallery, capsys):
    alias = gallery.alias
    progress = StatedProgress(
        LineProgress(sys.stderr, noun="files"), RunFile(tmp_path, alias), doing="Ingesting", noun="files"
    )
    with progress:
        progress.start(3)
        progress.advance()
        (running,) = read_runs(tmp_path, alias)
        assert (running.doing, running.total) == ("Ingesting", 3)
        assert look().running[0].total == 3
        progress.advance()
        progress.advance()
    assert read_runs(tmp_path, alias) == []
    (ended,) = read_outcomes(tmp_path, alias)
    assert (ended.done, ended.total, ended.whole, ended.fault) == (3, 3, True, None)
    assert look().well
    stopped_run(tmp_path, alias)
    now = look()
    assert not now.well
    assert [(each.doing, each.whole) for each in now.ended].count(("Captioning", False)) == 1
    assert read_outcomes(tmp_path, "another") == []
    capsys.readouterr()


def test_failed_files_are_grouped_by_their_reasons(look, tmp_path):
    failed_file(tmp_path, "a.jpg", "not a picture in a known format")
    failed_file(tmp_path, "b.jpg", "not a picture in a known format")
    failed_file(tmp_path, "c.jpg", "it cannot be read (/srv/secret)")
    first, second = look().failed
    assert (first.reason, first.count) == ("not a picture in a known format", 2)
    assert str(first.example).endswith("photos/a.jpg")
    assert second.count == 1


def test_without_an_index_or_an_elasticsearch_the_state_says_so(look, client, index_name):
    from elasticsearch import Elasticsearch

    nothing = look(ImageIndex(client, alias=index_name))
    assert (nothing.answers, nothing.trouble, nothing.images) == (False, None, 0)
    with Elasticsearch("http://127.0.0.1:9", max_retries=0, request_timeout=2) as nobody:
        away = look(ImageIndex(nobody, alias=index_name))
    assert not away.well
    assert away.trouble
    assert not next(check for check in away.checks if check.name == "elasticsearch").ok


def served(gallery, overview):
    app = create_app(
        service=SearchService(gallery.searcher),
        storage=gallery.storage,
        settings=AppSettings(),
        overview=overview,
    )
    return app.test_client()


def test_the_page_and_the_api_show_it_and_visitors_see_no_path(look, tmp_path, gallery):
    failed_file(tmp_path, "a.jpg", "it cannot be read (/srv/secret)")
    stopped_run(tmp_path, gallery.alias)
    web = served(gallery, look)
    here = web.get("/api/v1/status").json
    assert here["checks"]
    assert here["failed"][0]["example"].endswith("photos/a.jpg")
    html = unescape(web.get("/status").text)
    for part in ("Something needs attention", "60 pictures", "Writing captions: 1", "photos/a.jpg"):
        assert part in html
    assert 'href="/status"' in html
    part = web.get("/status?part=1").text
    assert "<html" not in part
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    seen = web.get("/api/v1/status", environ_base=elsewhere).json
    assert seen["checks"] == []
    assert seen["failed"] == [{"reason": "it cannot be read here", "count": 1, "example": None}]
    for answer in (
        web.get("/api/v1/status", environ_base=elsewhere),
        web.get("/status", environ_base=elsewhere),
    ):
        assert "secret" not in answer.text
        assert str(tmp_path) not in answer.text
    assert (seen["images"], seen["well"]) == (60, False)


def test_what_is_well_is_said_in_three_words(look, gallery):
    assert "All is well" in served(gallery, look).get("/status").text
    empty = dataclasses.replace(look(), answers=False, images=0)
    assert "There are no pictures yet" in served(gallery, lambda: empty).get("/status").text


@pytest.mark.parametrize(
    ("language", "heading", "said"),
    [
        ("de", "Gesundheit", ("alle antworten", "Dimensionen", "GB auf der Platte frei", "GB dafür frei in")),
        ("fr", "Santé", ("toutes répondent", "dimensions", "Go libres sur le disque", "Go libres pour cela")),
        ("es", "Salud", ("todas responden", "dimensiones", "GB libres en el disco", "GB libres para ello")),
    ],
)
def test_the_sentences_of_the_page_are_in_its_language(look, gallery, language, heading, said):
    html = unescape(served(gallery, look).get("/status", headers={"Accept-Language": language}).text)
    for part in (heading, *said):
        assert part in html
    for english in ("all answer", "GB free", "disk free"):
        assert english not in html
