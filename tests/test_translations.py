"""The page speaks the visitor's language, and programs are answered in English."""

import io
import json
import re
from html import unescape

import pytest
from gallery import jpeg
from test_page import UNSEEN, application

from scripts.translations import sentences
from search_app.web.languages import (
    LANGUAGES,
    day,
    filesize,
    moment,
    pictures,
    progress_line,
    read_catalogue,
    script_strings,
    translated,
)

SEARCH = {"en": "Search", "de": "Suchen", "fr": "Rechercher", "es": "Buscar"}
GERMAN = {"Accept-Language": "de,en;q=0.5"}
HERE = {"Referer": "http://localhost/?q=boat"}


@pytest.fixture
def web(gallery):
    """A client without cookies."""
    return application(gallery.searcher, gallery.storage)


def spoken(response) -> str:
    """Return the language that a page says it is in, and that its search button shows."""
    (language,) = re.findall(r'<html lang="(\w+)">', response.text)
    assert f'<button class="go" type="submit"><span>{SEARCH[language]}<' in response.text
    return language


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("fr-CA,fr;q=0.8,en;q=0.5", "fr"),
        ("it,es-MX;q=0.8,en;q=0.5", "es"),
        ("en-GB,de;q=0.9", "en"),
        ("de;q=0.3,fr;q=0.9", "fr"),
        ("nl,*;q=0.1", "en"),
        ("x-klingon, ,;;;", "en"),
    ],
)
def test_the_page_speaks_the_first_of_the_browsers_languages_that_it_knows(web, accepted, language):
    assert spoken(web.get("/", headers={"Accept-Language": accepted})) == language


def test_a_language_that_was_chosen_is_remembered_and_wins(web):
    there = "/?q=a+red+boat&path=named/"
    chosen = web.post("/language", data={"language": "fr", "page": there})
    assert (chosen.status_code, chosen.headers["Location"]) == (303, there)
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(chosen.headers["Set-Cookie"].split("; "))
    shown = web.get(there, headers=GERMAN)
    assert spoken(shown) == "fr"
    assert f'name="page" value="{there}"' in unescape(shown.text)
    (current,) = re.findall(r'value="(\w+)" lang="\w+" aria-current="true"', shown.text)
    assert current == "fr"
    web.post("/language", data={"language": "tlh", "page": "/"})
    assert spoken(web.get("/")) == "fr"


@pytest.mark.parametrize("page", ["//evil.example/", "https://evil.example/", "/\\evil.example", "", "/\n"])
def test_a_choice_leads_to_no_other_site(web, page):
    assert web.post("/language", data={"language": "de", "page": page}).headers["Location"] == "/"


def test_every_page_is_translated(web, gallery):
    boat = gallery.ids["boat"]
    for address, sentence in {
        "/": "Finden Sie das Bild, das Sie im Kopf haben",
        "/?q=a+red+boat": "ähnlichsten Bilder",
        "/?path=named/&sort=oldest": "älteste zuerst",
        f"/images/{boat}": "Ihm am ähnlichsten",
        "/tuning": "Noch wurde nichts gemessen",
        "/add": "auf diesem Server können keine Bilder hinzugefügt werden",
        "/images/nothing": "Der Index enthält kein Bild mit der ID „nothing“.",
        "/nowhere": "Unter „/nowhere“ ist nichts",
    }.items():
        page = unescape(web.get(address, headers=GERMAN).text)
        assert spoken_language(page) == "de"
        assert sentence.lower() in page.lower(), address


def spoken_language(page: str) -> str:
    (language,) = re.findall(r'<html lang="(\w+)">', page)
    return language


def test_programs_are_answered_in_english_and_the_pages_own_scripts_are_not(web):
    address = "/api/v1/search?k=0&q=boat"
    assert web.get(address, headers=GERMAN).json["detail"].startswith("k must be between")
    assert web.get(address, headers={**GERMAN, **HERE}).json["detail"].startswith("k muss zwischen")
    foreign = {**GERMAN, "Referer": "http://elsewhere.example/"}
    assert web.get(address, headers=foreign).json["detail"].startswith("k must be between")
    damaged = {**GERMAN, "Referer": "http://[", "Sec-Fetch-Site": "same-origin"}
    assert web.get(address, headers=damaged).json["detail"].startswith("k must be between")


def test_an_error_within_an_error_is_translated_too(web):
    app = web.application
    with app.test_request_context("/", headers=GERMAN):
        assert translated("'a: b.jpg' was not added: too many pixels.") == (
            "„a: b.jpg“ wurde nicht hinzugefügt: zu viele Pixel."
        )
        assert translated("None of 2 files: 'a' was not added: the file is empty.") == (
            "Keine von 2 Dateien: „a“ wurde nicht hinzugefügt: Die Datei ist leer."
        )
        assert translated("Nobody wrote this one.") == "Nobody wrote this one."
    assert translated("too many pixels") == "too many pixels"


def test_numbers_plurals_and_dates_are_those_of_the_language_and_its_region(web):
    expected = {
        "en": ("1 picture", "12,000 pictures", "Aug 3, 2024", "1.5"),
        "en-GB": ("1 picture", "12,000 pictures", "3 Aug 2024", "1.5"),
        "de": ("1 Bild", "12.000 Bilder", "03.08.2024", "1,5"),
        "fr": ("1 image", "12\u202f000 images", "3 août 2024", "1,5"),
        "es": ("1 imagen", "12.000 imágenes", "3 ago 2024", "1,5"),
    }
    for tag, (one, many, date, number) in expected.items():
        with web.application.test_request_context("/", headers={"Accept-Language": tag}):
            assert (pictures(1), pictures(12_000), day("2024-08-03T17:20:00")) == (one, many, date), tag
            assert date in moment("2024-08-03T17:20")
            assert moment("2024-08-03T17:20").replace("\u202f", " ").endswith(("17:20", "5:20 PM"))
            assert filesize(1_500_000) == f"{number}\u00a0MB"
    with web.application.test_request_context("/", headers={"Accept-Language": "fr"}):
        assert pictures(0) == "0 image"
        assert (day("yesterday"), moment("yesterday")) == ("yesterday", "yesterday")


def test_the_progress_of_runs_is_told_in_the_language_of_the_page(web):
    line = "Ingesting 1,204 of 4,000 files, Captioning 3 pictures, Getting ready, Polishing 3 stones …"
    with web.application.test_request_context("/", headers=GERMAN):
        assert progress_line(line) == (
            "Bilder einlesen: 1.204 von 4.000 Dateien, Beschreibungen schreiben: 3 Bilder, Wird vorbereitet,"
            " Polishing 3 stones …"
        )
        assert progress_line("") == ""
    with web.application.test_request_context("/"):
        assert progress_line(line) == (
            "Taking in pictures: 1,204 of 4,000 files, Writing captions: 3 pictures, Getting ready,"
            " Polishing 3 stones …"
        )


def test_scripts_get_their_translations_as_data(web):
    page = web.get("/", headers=GERMAN).text
    (block,) = re.findall(r'<script id="strings" type="application/json">(.*?)</script>', page)
    data = json.loads(block)
    assert data["language"] == "de"
    assert data["strings"]["Saving…"].startswith("Wird gespeichert")
    assert data["strings"]["{n} picture added."] == ["{n} Bild hinzugefügt.", "{n} Bilder hinzugefügt."]
    assert "Find the picture you have in mind" not in data["strings"]
    assert 'id="strings"' not in web.get("/").text
    for language in LANGUAGES:
        assert "<" not in script_strings(language)


def test_upload_refusals_are_translated_for_the_page(web):
    sent = {"image": (io.BytesIO(jpeg(UNSEEN)), "boat.jpg")}
    answer = web.post("/picture", data=sent, headers=GERMAN)
    assert answer.status_code == 303
    empty = {"image": (io.BytesIO(b""), "boat.jpg")}
    page = web.post("/picture", data=empty, headers=GERMAN)
    assert "Es ist kein Bild angekommen" in unescape(page.text)


def test_sentences_of_errors_are_found_in_code():
    code = """
BUSY = Queue(busy="Too many wait.")
FOR_VISITORS = {404: "There is nothing yet."}
def check(name, most):
    if not name:
        raise QueryError(f"'{name}' is over {most:g} MB"
                         "; use less.")
    raise ServeError("For the operator alone.")
def _mistakes(self):
    yield "k is too small."
    yield f"{self.a}: {self.b}"
"""
    assert sorted(sentences(code)) == [
        "'{0}' is over {1} MB; use less.",
        "There is nothing yet.",
        "Too many wait.",
        "k is too small.",
    ]


def test_every_other_language_has_a_catalogue_of_two_forms():
    for language in set(LANGUAGES) - {"en"}:
        catalogue = read_catalogue(language)
        assert (catalogue.locale_identifier, catalogue.num_plurals) == (language, 2)
        assert len(catalogue) > 200
