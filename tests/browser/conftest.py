from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Browser, Page

from tests.browser.lab import Lab, browser, chromium

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
    errors: list[str] = []
    strangers: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on(
        "request", lambda r: None if r.url.startswith(("http://127.0.0.1", "data:", "blob:", "ws://127.0.0.1")) else strangers.append(r.url)
    )
    yield opened
    context.close()
    assert errors == []
    assert strangers == []


@pytest.fixture(scope="session")
def shots() -> Path:
    SHOTS.mkdir(parents=True, exist_ok=True)
    return SHOTS


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A JupyterLab on a folder of its own; parametrize indirectly with a theme."""
    started = Lab(tmp_path, {"DIPEO_BASE_DIR": str(tmp_path)}, getattr(request, "param", "JupyterLab Light"))
    yield started
    started.close()
