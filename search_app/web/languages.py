"""The page in the visitor's language: the choice, its translations, and numbers and dates as written there.

Programs that ask the API are answered in English. The page's own scripts, which show what they get, are not.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from babel.core import Locale, UnknownLocaleError
from babel.dates import get_datetime_format
from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import NullTranslations, Translations
from flask import Blueprint, Flask, has_request_context, redirect, request
from flask_babel import (
    Babel,
    Domain,
    format_date,
    format_decimal,
    format_time,
    get_locale,
    gettext,
    lazy_gettext,
    ngettext,
)
from markupsafe import Markup
from werkzeug.wrappers import Response

from search_app.core.films import clock

LANGUAGES = {"en": "English", "de": "Deutsch", "fr": "Français", "es": "Español"}
"""what the page speaks, each by its own name; English is what the code has"""
CATALOGUES = Path(__file__).parents[1] / "translations"
COOKIE = "language"
ERROR = "error"
"""the context of an error's sentence in a catalogue; {0}, {1}, … stand for the values in it"""
COOKIE_DAYS = 365
LONGEST_PATH = 8_000
RUNS = {
    "Ingesting": lazy_gettext("Taking in pictures"),
    "Captioning": lazy_gettext("Writing captions"),
    "Reading text": lazy_gettext("Reading the text in pictures"),
    "Learning which hits are good ones": lazy_gettext("Learning which hits are good ones"),
    "Reindexing": lazy_gettext("Making a new index"),
    "Importing": lazy_gettext("Importing"),
    "Exporting": lazy_gettext("Exporting"),
    "Getting ready": lazy_gettext("Getting ready"),
    "Downloading the models:": lazy_gettext("Downloading the models"),
}
"""the work of a run in plain words, by the name that it gives itself"""
COUNTED = {"files": lazy_gettext("files"), "pictures": lazy_gettext("pictures"), "MB": lazy_gettext("MB")}
"""what a run counts"""
PROGRESS = re.compile(r"(?P<doing>\D+?)(?: (?P<done>[\d,]+)(?: of (?P<total>[\d,]+))? (?P<noun>\w+))?")
"""a run's progress, as `RunState` writes it"""
PLACE = re.compile(r"\{(\d+)\}")
"""a value in the sentence of an error"""


def catalogue_path(language: str) -> Path:
    """Return the file with a language's translations."""
    return CATALOGUES / language / "LC_MESSAGES" / "messages.po"


@cache
def read_catalogue(language: str) -> Catalog:
    """Return a language's translations. They are read as they are written: nothing has to be compiled."""
    path = catalogue_path(language)
    if not path.exists():
        return Catalog(locale=language)
    with path.open("rb") as file:
        return read_po(file, locale=language)


@cache
def translations_of(language: str) -> NullTranslations:
    """Return the object that Flask-Babel asks for the translations of a language."""
    compiled = io.BytesIO()
    write_mo(compiled, read_catalogue(language))
    compiled.seek(0)
    return Translations(compiled)


class Catalogues(Domain):
    """Flask-Babel's source of translations: a language's, whichever its region."""

    def get_translations(self) -> NullTranslations:
        """Return those of the language of this request."""
        locale = get_locale()
        return translations_of(locale.language if locale else "en")


class Languages(Babel):
    """Flask-Babel with the catalogues as they lie in the repository."""

    domain_instance = Catalogues()


def add_languages(app: Flask, *, machine_paths: tuple[str, ...]) -> None:
    """Let the page speak the language of who asks, and offer the choice of another.

    `machine_paths` begin what programs ask.
    """
    Languages(app, locale_selector=lambda: choose_locale(machine_paths))
    app.register_blueprint(_language_blueprint())
    app.jinja_env.filters.update(
        moment=moment, day=day, filesize=filesize, film_time=clock, translated=translated
    )

    @app.context_processor
    def speaking() -> dict[str, Any]:
        language = language_of_page()
        return {
            "language": language,
            "languages": LANGUAGES,
            "pictures": pictures,
            "script_strings": Markup(script_strings(language)),
            "this_page": request.full_path.rstrip("?") if request.method == "GET" else "/",
        }


def language_of_page() -> str:
    """Return the language of this request, one of `LANGUAGES`."""
    locale = get_locale()
    return locale.language if locale else "en"


def choose_locale(machine_paths: tuple[str, ...]) -> str:
    """Return the locale of this request: the chosen one, else the browser's, with its region."""
    if request.path.startswith(machine_paths) and not _is_asked_by_page():
        return "en"
    accepted = [tag for tag, _quality in request.accept_languages]
    language = request.cookies.get(COOKIE, "")
    if language not in LANGUAGES:
        spoken = (tag.split("-")[0].lower() for tag in accepted)
        language = next((each for each in spoken if each in LANGUAGES), "en")
    return next((known for tag in accepted if (known := _with_region(tag, language))), language)


def _is_asked_by_page() -> bool:
    """Say whether a page of this server asks: a browser sends the page's address, programs send none."""
    try:
        return bool(request.referrer) and urlsplit(request.referrer or "").netloc == request.host
    except ValueError:  # such as `http://[`
        return False


def _with_region(tag: str, language: str) -> str | None:
    """Return the locale of a tag such as `de-AT`, if it is one of a language."""
    try:
        locale = Locale.parse(tag, sep="-")
    except (ValueError, UnknownLocaleError):
        return None
    return f"{language}_{locale.territory}" if locale.language == language and locale.territory else None


def moment(text: str) -> str:
    """Return a local time such as `2024-08-03T17:20:00`, to the minute, in the language of this request."""
    try:
        time = datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return text
    day, minute = format_date(time, rebase=False), format_time(time, "short", rebase=False)
    return str(get_datetime_format(locale=get_locale())).format(minute, day)


def day(text: str) -> str:
    """Return the day of a local time as it is written in the language of this request."""
    try:
        return str(format_date(datetime.fromisoformat(text).replace(tzinfo=None), rebase=False))
    except ValueError:
        return text


def filesize(size: int) -> str:
    """Return a number of bytes in kB or MB as it is written in the language of this request."""
    amount, unit = (size / 1_000_000, "MB") if size >= 1_000_000 else (size / 1_000, "kB")
    return f"{format_decimal(amount, '#,##0.0' if amount < 10 else '#,##0')}\N{NO-BREAK SPACE}{unit}"


def pictures(count: int) -> str:
    """Return such as `1,204 pictures`."""
    return str(ngettext("%(count)s picture", "%(count)s pictures", count, count=format_decimal(count)))


def translated(sentence: str) -> str:
    """Return the sentence of an error in the language of this request, in English if nobody translated it.

    The core raises whole English sentences, values and all. They are found again by their catalogue.
    """
    return _translated_sentence(sentence, language_of_page()) if has_request_context() else sentence


def progress_line(running: str) -> str:
    """Return the progress of runs, as `in_words` writes it, in the language of this request."""
    if not running:
        return ""
    parts = running.removesuffix(" …").split(", ")
    return ", ".join(map(_progress_part, parts)) + " …"


def _progress_part(part: str) -> str:
    match = PROGRESS.fullmatch(part)
    if match is None or match["doing"] not in RUNS or (match["noun"] or "") not in ("", *COUNTED):
        return part
    doing = str(RUNS[match["doing"]])
    if not match["done"]:
        return doing
    done, total = (
        format_decimal(int(each.replace(",", ""))) if each else None for each in match.group("done", "total")
    )
    noun = str(COUNTED[match["noun"]])
    if total is None:
        return str(gettext("%(doing)s: %(done)s %(noun)s", doing=doing, done=done, noun=noun))
    return str(
        gettext("%(doing)s: %(done)s of %(total)s %(noun)s", doing=doing, done=done, total=total, noun=noun)
    )


def _translated_sentence(sentence: str, language: str) -> str:
    found = translations_of(language).upgettext(ERROR, sentence)
    if found != sentence:
        return found
    for pattern, text in _patterns(language):
        if match := pattern.fullmatch(sentence):
            values = [_translated_sentence(value, language) for value in match.groups()]
            return PLACE.sub(lambda place: values[int(place[1])], text)  # noqa: B023 - called at once
    return sentence


@cache
def _patterns(language: str) -> list[tuple[re.Pattern[str], str]]:
    """Return the sentences that hold values, the one with the longest fixed text first."""
    found = []
    for message in read_catalogue(language):
        if message.context == ERROR and message.string and PLACE.search(str(message.id)):
            fixed = PLACE.split(str(message.id))[::2]  # the rest are the numbers
            found.append((len("".join(fixed)), "(.*?)".join(map(re.escape, fixed)), str(message.string)))
    return [(re.compile(pattern, re.DOTALL), text) for _, pattern, text in sorted(found, reverse=True)]


@cache
def script_strings(language: str) -> str:
    """Return the translations that scripts need as JSON that can stand in a page."""
    strings = {
        message.id if isinstance(message.id, str) else message.id[0]: _translated(message)
        for message in read_catalogue(language)
        if message.id and message.string and any(path.endswith(".js") for path, _ in message.locations)
    }
    written = json.dumps({"language": language, "strings": strings}, ensure_ascii=False)
    return written.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _translated(message: Message) -> str | Sequence[str]:
    """Return a translation, of plurals one for each form."""
    return message.string if isinstance(message.string, str) else list(message.string or ())


def _language_blueprint() -> Blueprint:
    page = Blueprint("languages", __name__)

    @page.post("/language")
    def choose() -> Response:
        """Remember a language in this browser and show the page again on which it was chosen."""
        response = redirect(request.script_root + _path_of_page(request.form), code=303)
        if (language := request.form.get("language", "")) in LANGUAGES:
            response.set_cookie(
                COOKIE,
                language,
                max_age=COOKIE_DAYS * 24 * 3600,
                path=request.script_root or "/",
                secure=request.is_secure,
                httponly=True,
                samesite="Lax",
            )
        return response

    return page


def _path_of_page(form: Mapping[str, str]) -> str:
    """Return the path of this server that a form names, or that of the start page."""
    path = form.get("page", "")
    is_local = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if is_local and path.isprintable() and len(path) <= LONGEST_PATH else "/"
