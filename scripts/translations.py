"""Write the strings that are marked for translation into the catalogues. `make translations` runs it."""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from search_app.web.languages import ERROR, LANGUAGES, PLACE, catalogue_path, read_catalogue  # noqa: E402

HEADER = """\
# The page in {name}. `make translations` adds strings, people translate them.
msgid ""
msgstr ""
"Language: {language}\\n"
"Plural-Forms: nplurals=2; plural={plural};\\n"
"Content-Type: text/plain; charset=utf-8\\n"

"""
PLURALS = {"de": "(n != 1)", "fr": "(n > 1)", "es": "(n != 1)"}
LEAST_LETTERS = 8
"""of a sentence without its values: with fewer, it could be taken for another"""
KEYWORDS = {"_": None, "gettext": None, "lazy_gettext": None, "ngettext": (1, 2), "lazy_ngettext": (1, 2)}
JINJA = {"extensions": "jinja2.ext.i18n", "newstyle_gettext": "true", "silent": "false"}
MARKED = {
    "templates/**/*.html": ("jinja2.ext:babel_extract", JINJA),
    "**/*.py": ("python", {}),
    "static/**/*.js": ("javascript", {"parse_template_string": "true"}),
}
"""files of `search_app`, and how Babel finds their strings"""
WITH_ERRORS = (
    "search_app/core/pictures.py",
    "search_app/core/query.py",
    "search_app/core/searcher.py",
    "search_app/web",
    "es_config",
    "models/errors.py",
    "models/pixels.py",
    "models/voice.py",
    "storage/errors.py",
)
"""files and folders with errors whose sentences the page shows"""
VISITORS_ERRORS = frozenset(
    {
        "QueryError",
        "NotFoundError",
        "TooLargeError",
        "BusyError",
        "WrongTypeError",
        "ForbiddenError",
        "RefusedQueryError",
        "RecordingError",
        "PictureError",
        "TooSlowError",
        "_refused",
        "translated",
        "abort",
    }
)
"""what is called with a sentence for visitors"""
NAMES = frozenset({"for_visitors", "FOR_VISITORS", "busy", "error_message", "TOO_OFTEN"})
"""keyword arguments and constants that hold such sentences"""
FUNCTIONS = ("mistakes", "sentence", "sentence_of", "too_large", "look_at_home", "look_at_store")
"""ends of the names of functions that yield, return or raise them"""


def marked() -> Catalog:
    """Return every string of the page, with the files where it stands."""
    catalog = Catalog()
    app = ROOT / "search_app"
    for pattern, (method, options) in MARKED.items():
        for path in sorted(app.glob(pattern)):
            with path.open("rb") as file:
                for _line, text, _comments, _context in extract(method, file, KEYWORDS, options=options):
                    catalog.add(text, locations=[(str(path.relative_to(ROOT)), 1)])
    for path in _files_with_errors():
        for sentence in sentences(path.read_text("utf-8")):
            catalog.add(sentence, locations=[(str(path.relative_to(ROOT)), 1)], context=ERROR)
    return catalog


def updated(language: str) -> Catalog:
    """Return a language's catalogue with the strings that are marked now, and its translations of them."""
    known = read_catalogue(language)
    catalog = read_po(io.BytesIO(header(language)), locale=language)
    for message in marked():
        if message.id:
            before = known.get(message.id, message.context)
            string = before.string if before else None
            catalog.add(message.id, string, locations=message.locations, context=message.context)
    return catalog


def header(language: str) -> bytes:
    """Return the beginning of a language's catalogue."""
    return HEADER.format(name=LANGUAGES[language], language=language, plural=PLURALS[language]).encode()


def write(language: str) -> int:
    """Write a language's catalogue and return how many of its strings are not translated."""
    catalog, path = updated(language), catalogue_path(language)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header(language))
        write_po(file, catalog, width=120, omit_header=True, include_lineno=False)
    return sum(not all(forms_of(message)) for message in catalog if message.id)


def forms_of(message: Message) -> tuple[str, ...]:
    """Return a message's translation, one for each form of a plural."""
    return (message.string or "",) if isinstance(message.string, str | None) else tuple(message.string)


def _files_with_errors() -> list[Path]:
    named = [ROOT / each for each in WITH_ERRORS]
    return sorted(chain.from_iterable(path.rglob("*.py") if path.is_dir() else [path] for path in named))


def sentences(code: str) -> Iterator[str]:
    """Give the sentences of errors in a module, with {0}, {1}, … for the values that are put in."""
    for node in ast.walk(ast.parse(code)):
        for each in _shown(node):
            sentence = _template(each)
            if sentence and sum(map(str.isalpha, PLACE.sub("", sentence))) >= LEAST_LETTERS:
                yield sentence


def _shown(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Call(func=ast.Name(id=name)):
            if name in VISITORS_ERRORS:
                yield from node.args
            yield from (each.value for each in node.keywords if each.arg in NAMES)
        case ast.Call():
            yield from (each.value for each in node.keywords if each.arg in NAMES)
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in NAMES:
            yield from value.values if isinstance(value, ast.Dict) else [value]
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.AST() as value) if name in NAMES:
            yield from value.values if isinstance(value, ast.Dict) else [value]
        case ast.FunctionDef(name=name) if name.endswith(FUNCTIONS):
            for each in ast.walk(node):
                match each:
                    case ast.Yield(value=ast.AST() as said) | ast.Return(value=ast.AST() as said):
                        yield said
                    case ast.Raise(exc=ast.Call(args=[said, *_])):
                        yield said


def _template(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            numbers = iter(range(len(texts)))
            return "".join(str(text) if text is not None else f"{{{next(numbers)}}}" for text in texts)
    return None


if __name__ == "__main__":
    for each in LANGUAGES:
        if each != "en":
            print(f"{catalogue_path(each).relative_to(ROOT)}: {write(each)} strings are not translated")
