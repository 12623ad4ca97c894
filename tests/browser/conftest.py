from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Browser, Page, expect

from tests.browser.lab import Lab, browser, chromium

PATIENCE_MS = 120_000
"""How long a test waits for what it expects: long enough for a machine with eight other busy processes."""
expect.set_options(timeout=PATIENCE_MS)

SHOTS = Path(__file__).parents[2] / "build" / "screenshots"
"""Where screenshots of the last run are kept for people to look at."""


@pytest.fixture(scope="session")
def chrome() -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("no Chromium: make browser (or apt-get install chromium)")
    with browser() as started:
        yield started


@pytest.fixture
def page(chrome: Browser) -> Iterator[Page]:
    """A fresh page that fails the test on errors of scripts and on requests that leave the machine."""
    context = chrome.new_context(viewport={"width": 1280, "height": 1000})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    errors: list[str] = []
    strangers: list[str] = []
    opened.on("pageerror", lambda error: errors.append(f"{error.message}\n{error.stack}"))
    opened.on(
        "request",
        lambda r: (
            None if r.url.startswith(("http://127.0.0.1", "data:", "blob:", "ws://127.0.0.1")) else strangers.append(r.url)
        ),
    )
    yield opened
    context.close()
    assert errors == []
    assert strangers == []


@pytest.fixture(scope="session")
def shots() -> Path:
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for all tests; each opens a notebook of its own with a fresh kernel."""
    root = tmp_path_factory.mktemp("lab")
    started = Lab(root, {"DIPEO_BASE_DIR": str(root)})
    yield started
    started.close()
