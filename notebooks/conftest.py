"""How `pytest --nbmake notebooks` runs the notebooks: on their recordings, and with nobody's keys, so that nothing is paid for."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
KEPT = "DIPEO_CACHE_DIR"
"""Where the embedded model is."""
THEIRS = re.compile(r"DIPEO_\w+|\w+_API_KEY|\w+_BASE_URL|OLLAMA_HOST")
"""Variables of the developer's, which say which model is asked, where, and at whose cost."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A notebook `x.ipynb` with recordings in `recordings/x` is strictly replayed; the others run as they are."""
    if item.path.parent != FOLDER:
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if THEIRS.fullmatch(name) and name != KEPT]:
            patch.delenv(name)
        if (FOLDER / "recordings" / item.path.stem).is_dir():
            patch.setenv("DIPEO_LLM_MODE", "replay")
        return (yield)
