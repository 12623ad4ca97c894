"""How `pytest --nbmake notebooks` runs the notebooks: on their recordings, with nobody's keys, so that nothing is paid for, and
without a network: the sockets of their kernels stay on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from pathlib import Path

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.llm.model_store import ensure

FOLDER = Path(__file__).parent
KEPT = "DIPEO_CACHE_DIR"
"""Where the embedded model is."""
NO_EGRESS = FOLDER.parent / "tests" / "support" / "no_egress"
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
        if item.path.stem == "00_quickstart":
            run_sync(ensure(Settings(), "smollm2-135m"))  # what a user has after the first time
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(NO_EGRESS), os.environ.get("PYTHONPATH")))))
        return (yield)
