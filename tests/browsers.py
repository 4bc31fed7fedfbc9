"""A real Chromium, and a real Firefox, for the tests of the page."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, expect

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
)
PATIENCE_MS = 120_000
"""how long a page may take to show what a test expects; only a test that fails waits so long"""


def launched(playwright: Playwright, *flags: str) -> Browser:
    """Start CHROMIUM, a Chromium on the PATH, or Playwright's own, and be patient with its pages."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next((path for name in names if (path := shutil.which(name))), None)
    path = found or playwright.chromium.executable_path
    if not Path(path).exists():
        pytest.fail(
            "No Chromium was found: install it with `apt install chromium` or"
            " `playwright install chromium`, or name one in CHROMIUM."
        )
    expect.set_options(timeout=PATIENCE_MS)
    return playwright.chromium.launch(
        executable_path=path, args=[*FLAGS.split(), *flags], timeout=PATIENCE_MS
    )


def launched_firefox(playwright: Playwright) -> Browser:
    """Start FIREFOX, a Firefox on the PATH, or Playwright's own, and be patient with its pages."""
    expect.set_options(timeout=PATIENCE_MS)
    found = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
    if not found:
        if not Path(playwright.firefox.executable_path).exists():
            pytest.fail(
                "No Firefox was found: install it with `apt install firefox-esr` or"
                " `playwright install firefox`, or name one in FIREFOX."
            )
        return playwright.firefox.launch(timeout=PATIENCE_MS)
    with tempfile.TemporaryDirectory() as folder:
        between = Path(folder, "firefox")  # see there why Playwright does not start it itself
        command = shlex.join([sys.executable, str(Path(__file__).with_name("firefox_esr.py")), found])
        between.write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
        between.chmod(0o755)
        return playwright.firefox.launch(
            channel="moz-firefox",
            executable_path=between,
            timeout=PATIENCE_MS,
            firefox_user_prefs={"browser.download.alwaysOpenPanel": False},  # it would take the focus
        )


BROWSERS = {"chromium": launched, "firefox": launched_firefox}
