"""Work of a run that no node waits for, but the end of the run does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """The tasks of one run.

    Args:
        on_end: called when one has ended, with the exception that it ended with; None when there was none.
    """

    def __init__(self, on_end: Callable[[BaseException | None], None]) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._on_end = on_end

    def add(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._on_end(None if task.cancelled() else task.exception())
