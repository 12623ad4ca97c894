"""The live display of a run, in the cell that shows it."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from dipeo_nb.common import lazy
from dipeo_nb.common.loop import submit
from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.snapshots import read_run
from dipeo_nb.notebook.prompter import NotebookPrompter
from dipeo_nb.runtime import Runtime

if TYPE_CHECKING:
    from dipeo_nb.notebook import view
else:
    view = lazy.module("dipeo_nb.notebook.view")  # the live view brings ipywidgets along

_LOG = logger(__name__)


def show_live(
    runtime: Runtime,
    state: RunState,
    diagram: DomainDiagram,
    answers: NotebookPrompter | None,
    *,
    stop: Callable[[], None],
    answer: Callable[[str, str], None],
    finished: Callable[[], bool],
) -> concurrent.futures.Future[None]:
    """Display a run that is executing, and keep the display up to date.

    Args:
        answers: prompts the user in a waiting cell, unless the form of the display works.
        stop: called when the user presses Stop.
        answer: called with the id of a question and the user's answer to it.
        finished: whether the run has ended.

    Returns:
        Done when the display shows the end of the run.
    """

    def reached() -> None:
        if answers is not None:
            answers.form_got_through()

    if answers is not None:
        answers.view_since = time.monotonic()

    live = view.LiveDisplay(
        state,
        diagram,
        stop=stop,
        answer=answer,
        elsewhere=lambda: answers is not None and answers.waiting_cells > 0 and not answers.form_works,
        reached=reached,
    )
    live.show()
    following = submit(_follow(runtime, state.run_id, live, finished))
    following.add_done_callback(_report)
    return following


async def _follow(runtime: Runtime, run_id: str, live: view.LiveDisplay, finished: Callable[[], bool]) -> None:
    services = runtime.services
    await runtime.initialize()
    # Subscribed first: an event that is stored meanwhile comes twice rather than never, and the view takes each number once.
    subscription = services.bus.subscribe(live.see, run_id=run_id)
    try:
        await read_run(services.store, run_id, live.see)
        await live.follow(finished)
    finally:
        services.bus.unsubscribe(subscription)


def _report(following: concurrent.futures.Future[None]) -> None:
    """Log the failure of a display; it must not break the run that it shows."""
    if not following.cancelled() and (error := following.exception()) is not None:
        _LOG.error("The live view of a run ended early: %s", error, exc_info=error)
