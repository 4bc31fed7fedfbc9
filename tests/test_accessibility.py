"""No page is against WCAG 2.2, A and AA, as axe-core checks it, and browsers offer to install the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import PATIENCE_MS, launched
from http_fronts import serving
from playwright.sync_api import Browser, Page, sync_playwright
from test_hiding import library
from test_login import PASSWORD, users

from search_app.core.logs import AuditLog, audit_path
from search_app.core.users import secret_key
from search_app.web.login import Login

__all__ = ["library", "users"]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
UNFOLD = "() => document.querySelectorAll('details').forEach((each) => { each.open = true; })"
LOOKS = [
    pytest.param({"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}, id="wide-light"),
    pytest.param({"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}, id="phone-dark"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = launched(playwright)
        yield started
        started.close()


def unfold(page: Page) -> None:
    """Open every fold, and wait for counts that come when they are opened."""
    page.evaluate(UNFOLD)
    page.wait_for_load_state("networkidle")


def choose_two(page: Page) -> None:
    for place in (0, 1):
        page.locator("input[form=chosen]").nth(place).check()


def states(ids: list[str]) -> Iterator[tuple[str, Callable[[Page], object] | None]]:
    """Yield the address of each page, and a function that does something there."""
    yield "/", None
    yield "/", lambda page: page.keyboard.press("?")
    yield "/", lambda page: page.locator(".add-open").click()
    yield "/?q=a+drawn+boat", unfold
    yield "/?q=a+drawn+boat", choose_two
    yield f"/?q=boats&minus=red+boats&like={ids[0]}&unlike={ids[1]}^0.5&date_from=1990-01-01", unfold
    yield "/?q=boats&camera=none", None
    yield "/?q=boats&date_from=soon", None
    yield "/nowhere", None
    yield "/?sort=name", unfold
    yield "/?sort=name", lambda page: page.locator("#q").press_sequentially("tri")
    yield f"/images/{ids[0]}?q=boats", unfold
    yield f"/images/{ids[0]}?q=boats", lambda page: page.keyboard.press("f")
    for path in ("/hidden", "/duplicates", "/docs", "/tuning", "/add"):
        yield path, unfold


def faults(page: Page) -> list[str]:
    """Return the faults that axe-core finds on a page."""
    found = Axe().run(page, options=RULES).response["violations"]
    return [f"{page.url} {each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]


@pytest.mark.parametrize("look", LOOKS)
def test_no_page_is_against_a_rule_of_accessibility(browser, library, users, tmp_path, look):
    *ids, away = library.ids().values()
    app = library.app()
    app.test_client().delete(f"/api/v1/images/{away}")
    audit = AuditLog(audit_path(tmp_path), warn=pytest.fail)
    closed = library.app(login=Login(users, audit, secret_key(tmp_path)))
    found = []
    with serving(app) as url, serving(closed) as closed_url:
        # The policy of the page would not let the test's own script in.
        context = browser.new_context(base_url=url, bypass_csp=True, reduced_motion="reduce", **look)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        for path, act in states(ids):
            page.goto(path)
            if act:
                act(page)
            found += faults(page)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page.url
        page.goto(f"{closed_url}/")
        assert page.get_by_label("Password").is_visible()
        found += faults(page)
        page.get_by_label("Name").fill("vera")
        page.get_by_label("Password").fill(f"not {PASSWORD}")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("alert").wait_for()
        found += faults(page)
        context.close()
    audit.close()
    assert found == []


def test_chromium_would_install_the_page_and_share_pictures_with_it(browser, library):
    with serving(library.app()) as url:
        context = browser.new_context(base_url=url)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto("/?q=boats")
        devtools = context.new_cdp_session(page)
        errors = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
        # A window of a test is like a private one, in which nothing can be installed.
        assert [each["errorId"] for each in errors if each["errorId"] != "in-incognito"] == []
        found = devtools.send("Page.getAppManifest")
        assert found["errors"] == []
        manifest = page.evaluate("address => fetch(address).then((answer) => answer.json())", found["url"])
        assert manifest["display"] == "standalone"
        icons = manifest["icons"]
        assert {each["sizes"] for each in icons} >= {"192x192", "512x512"}
        for each in icons:
            loaded = page.evaluate(
                "address => { const image = new Image(); image.src = address;"
                " return image.decode().then(() => [image.naturalWidth, image.naturalHeight]); }",
                page.evaluate("([path, base]) => new URL(path, base).href", [each["src"], found["url"]]),
            )
            assert each["sizes"] in ("any", "x".join(map(str, loaded)))
        share = manifest["share_target"]
        assert (share["method"], share["enctype"]) == ("POST", "multipart/form-data")
        action = page.evaluate("([path, base]) => new URL(path, base).href", [share["action"], found["url"]])
        (field,) = share["params"]["files"]
        one = library.folder / "a.jpg"
        sent = context.request.post(
            action,
            multipart={
                field["name"]: {"name": one.name, "mimeType": "image/jpeg", "buffer": one.read_bytes()}
            },
        )
        assert (sent.status, "like=" in sent.url) == (200, True)
        context.close()
