"""A real Chromium for the tests of the page."""

from __future__ import annotations

import os
import shutil
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
