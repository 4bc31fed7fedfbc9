"""Style sheets and scripts are bundled, compressed, and kept by browsers until they change."""

from __future__ import annotations

import gzip
import re

import pytest
from flask import Flask

from search_app.web.assets import Assets, add_assets, bundled_scripts, bundled_styles


@pytest.fixture
def web():
    app = Flask("assets", static_folder=None)
    add_assets(app, Assets())
    return app.test_client()


def test_a_style_sheet_is_kept_for_a_year_under_the_name_of_its_content(web):
    name = Assets().name("page.css")
    assert re.fullmatch(r"page\.[0-9a-f]{16}\.css", name)
    kept, plain = web.get(f"/static/{name}"), web.get("/static/page.css")
    assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert plain.headers["Cache-Control"] == "no-cache"
    assert kept.data == plain.data
    assert web.get("/static/page.0123456789abcdef.css").status_code == 404
    assert web.get("/static/../assets.py").status_code == 404


def test_a_browser_that_takes_gzip_gets_it_under_an_etag_of_its_own(web):
    address = f"/static/{Assets().name('page.js')}"
    plain = web.get(address, headers={"Accept-Encoding": "identity"})
    packed = web.get(address, headers={"Accept-Encoding": "br;q=1, gzip"})
    refusing = web.get(address, headers={"Accept-Encoding": "gzip;q=0"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data == refusing.data
    assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
    assert plain.headers["ETag"] != packed.headers["ETag"]
    again = web.get(address, headers={"Accept-Encoding": "gzip", "If-None-Match": packed.headers["ETag"]})
    assert again.status_code == 304


def test_style_sheets_are_bundled_with_the_base_first():
    assert bundled_styles({"answer": "b {}\n", "base": "a {}\n", "cards": "c {}\n"}) == "a {}\nb {}\nc {}\n"


def test_scripts_are_bundled_after_those_that_they_import():
    bundle = bundled_scripts(
        {
            "ask": '// Needs: .box\nimport { Meter, read } from "./meter.js";\nread(new Meter());\n',
            "meter": "export class Meter {}\nexport async function read() {}\n",
        }
    )
    assert bundle.index('part("meter", "", ') < bundle.index('part("ask", ".box", ')
    assert 'const { Meter, read } = parts["meter"];' in bundle
    assert "return { Meter, read };" in bundle
    assert not re.search(r"^(import|export)\b", bundle, re.MULTILINE)


def test_nothing_in_the_bundle_of_scripts_is_left_to_import():
    script = Assets().files["page.js"].data.decode()
    assert not re.search(r"^\s*(import|export)\b|\bimport\(", script, re.MULTILINE)


@pytest.mark.parametrize(
    "texts",
    [
        {"a": 'import { B } from "./b.js";\n'},
        {"a": 'import { B } from "./b.js";\n', "b": 'import { A } from "./a.js";\n'},
    ],
)
def test_scripts_that_import_each_other_or_nothing_are_refused(texts):
    with pytest.raises(ValueError, match="imports itself by a detour"):
        bundled_scripts(texts)
