"""The measure of the loop's steps, which a whole run of the tests can be made with."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

from dipeo_nb.common.loop import LoopThread, run_sync
from tests.support import loop_steps


async def busy(seconds: float) -> None:
    """Holds the loop."""
    await asyncio.sleep(0)
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    await asyncio.sleep(0)


def test_a_step_that_holds_the_loop_is_found_with_its_place() -> None:
    with loop_steps.recorded(limit=0.04) as found:
        run_sync(busy(0.05))
        run_sync(asyncio.sleep(0))
    (step,) = [one for one in found if "busy" in one.what]
    assert step.seconds > 0.04
    assert "busy:" in step.what
    assert "test_loop_steps" in step.test


def test_steps_of_other_loops_do_not_count() -> None:
    LoopThread.get()
    with loop_steps.recorded(limit=0.0) as found:
        asyncio.run(busy(0.01))
    assert not [one for one in found if "busy" in one.what]


def test_a_run_of_tests_reports_to_a_file(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.environ['LOOP_STEPS'] = sys.argv[1]\n"
        "from tests.support import loop_steps\n"
        "from tests.unit.common.test_loop_steps import busy\n"
        "from dipeo_nb.common.loop import run_sync\n"
        "with loop_steps.reported():\n    run_sync(busy(0.05))\n"
    )
    path = tmp_path / "steps.txt"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=Path(__file__).parents[3], timeout=60)
    (line,) = [line for line in path.read_text().splitlines() if "busy" in line]
    assert " ms  " in line
