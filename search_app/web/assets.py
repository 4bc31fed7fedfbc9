"""Style sheets and scripts: bundled, named by their content, and kept by browsers for a year."""

from __future__ import annotations

import gzip
import hashlib
import json
import mimetypes
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from flask import Flask, Response, abort, request, url_for

from search_app.web.http import YEAR
from search_app.web.shapes import shape, shape_styles

FOLDER = Path(__file__).parent.parent / "static"
FIRST_STYLE = "base"
"""the style sheet that the others build on"""
IMPORT = re.compile(r'^import (\{[^}]+\}) from "\./([\w-]+)\.js";$', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?function|class|const|let) (\w+)", re.MULTILINE)
NEEDS = re.compile(r"^// Needs: (.+)$", re.MULTILINE)
"""the selector of an element without which a script has nothing to do"""
PARTS = """\
const parts = {};
function part(name, needs, make) {
  if (needs && !document.querySelector(needs)) return;
  try { parts[name] = make(); } catch (error) { parts[name] = {}; reportError(error); }
}
"""
"""the head of the bundle of scripts: one that fails does not keep the others from running"""
TEXTS = ("text/css", "text/javascript", "image/svg+xml", "application/manifest+json")
"""media types that are worth compressing"""


@dataclass(frozen=True)
class Asset:
    """A static file, as it is sent."""

    data: bytes
    media_type: str

    @cached_property
    def digest(self) -> str:
        """The first characters of the content's SHA-256, which its address holds."""
        return hashlib.sha256(self.data).hexdigest()[:16]

    @cached_property
    def packed(self) -> bytes | None:
        """The content as gzip, None where that is not worth it."""
        return gzip.compress(self.data, mtime=0) if self.media_type in TEXTS else None


class Assets:
    """The static files of the page.

    All of `styles/` is one style sheet, `page.css`, and all of `scripts/` one script, `page.js`, however many
    files they are written in. Others are sent as they are.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder

    @cached_property
    def files(self) -> Mapping[str, Asset]:
        """Every file by its name."""
        single = {
            path.name: Asset(path.read_bytes(), _media_type(path.name))
            for path in sorted(self._folder.iterdir())
            if path.is_file()
        }
        styles = bundled_styles(_texts(self._folder / "styles", ".css"))
        scripts = bundled_scripts(_texts(self._folder / "scripts", ".js"))
        return {
            **single,
            "page.css": Asset((styles + shape_styles()).encode(), "text/css"),
            "page.js": Asset(scripts.encode(), "text/javascript"),
        }

    def name(self, plain: str) -> str:
        """Return the name of a file with its digest, such as `page.0123456789abcdef.css`."""
        stem, _, suffix = plain.rpartition(".")
        return f"{stem}.{self.files[plain].digest}.{suffix}"

    @cached_property
    def named(self) -> Mapping[str, Asset]:
        """Every file by its name with its digest."""
        return {self.name(plain): asset for plain, asset in self.files.items()}


def add_assets(app: Flask, assets: Assets) -> None:
    """Serve the static files of an application.

    Its templates get `asset(name)`, the address of a file, and `shape(width, height)`, a class of the styles.
    """

    @app.get("/static/<path:filename>", endpoint="static")
    def static(filename: str) -> Response:
        """Send a static file: for a year by its name with a digest, else only as long as it is the same."""
        found = assets.named.get(filename) or assets.files.get(filename)
        if found is None:
            abort(404)
        return _sent(found, is_kept=filename in assets.named)

    @app.context_processor
    def addresses() -> dict[str, object]:
        return {"asset": lambda name: url_for("static", filename=assets.name(name)), "shape": shape}


def _sent(asset: Asset, *, is_kept: bool) -> Response:
    is_packed = asset.packed is not None and request.accept_encodings["gzip"] > 0
    response = Response(asset.packed if is_packed else asset.data, mimetype=asset.media_type)
    if asset.packed is not None:
        response.vary.add("Accept-Encoding")
    if is_packed:
        response.content_encoding = "gzip"
    response.set_etag(f"{asset.digest}{'-gzip' * is_packed}")
    if is_kept:
        response.cache_control.public = True
        response.cache_control.max_age = YEAR
        response.cache_control.immutable = True
    else:
        response.cache_control.no_cache = True
    response.make_conditional(request)
    return response


def _media_type(name: str) -> str:
    if name.endswith(".webmanifest"):
        return "application/manifest+json"
    if name.endswith(".js"):  # some systems call it application/javascript
        return "text/javascript"
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _texts(folder: Path, suffix: str) -> dict[str, str]:
    return {path.stem: path.read_text("utf-8") for path in sorted(folder.glob(f"*{suffix}"))}


def bundled_styles(texts: Mapping[str, str]) -> str:
    """Return style sheets as one: `base` first, the others in the order of their names."""
    names = sorted(texts, key=lambda name: (name != FIRST_STYLE, name))
    return "".join(texts[name] for name in names)


def bundled_scripts(texts: Mapping[str, str]) -> str:
    """Return modules as one: each in a function of its own, after those that it imports.

    At the beginning of a line, a module may write `import { A, B } from "./name.js";`, `export` before a
    declaration, and `// Needs: .box` if it is only for pages that have such an element. Raises `ValueError`
    for modules that import each other or one that is not there.
    """
    ordered: list[str] = []
    for name in sorted(texts):
        _append_after_imports(name, texts, ordered, importing=())
    return PARTS + "".join(_part(name, texts[name]) for name in ordered)


def _append_after_imports(
    name: str, texts: Mapping[str, str], ordered: list[str], *, importing: Iterable[str]
) -> None:
    if name in ordered:
        return
    if name not in texts or name in importing:
        raise ValueError(f"The script '{name}' is imported and is missing, or imports itself by a detour.")
    for match in IMPORT.finditer(texts[name]):
        _append_after_imports(match[2], texts, ordered, importing=(*importing, name))
    ordered.append(name)


def _part(name: str, text: str) -> str:
    exports = ", ".join(match[2] for match in EXPORT.finditer(text))
    needs = NEEDS.search(text)
    body = EXPORT.sub(r"\1 \2", IMPORT.sub(r'const \1 = parts["\2"];', text))
    head = f'part("{name}", {json.dumps(needs[1] if needs else "")}, () => {{'
    return f"{head}\n{body}\nreturn {{ {exports} }};\n}});\n"
