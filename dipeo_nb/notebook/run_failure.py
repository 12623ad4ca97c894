"""The error of a failed run, as the exception that waiting for it raises."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import Any

from dipeo_nb import errors
from dipeo_nb.domain.enums import Status
from dipeo_nb.errors import DipeoError, RunAbortedError, RunError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.replay import Replay
from dipeo_nb.execution.run_state import RunState


def failure(
    state: RunState, execution: Execution | Replay | None, future: concurrent.futures.Future[None] | None
) -> BaseException | None:
    """The error of a run that is over, or that is not executing here; None when it succeeded.

    Args:
        execution: what executed it in this process, and *future*, its end.
    """
    resume = f"Resume it: dp.resume('{state.run_id}')."
    error: BaseException | None = None
    if future is not None and future.cancelled():  # the library's loop was closed under it
        error = RunAbortedError("The run was interrupted.", hint=resume)
    elif future is not None:
        error = future.exception()
    if error is None and execution is not None:
        error = execution.error
    if error is None and state.error is not None:
        error = _rebuilt(state.error)
    if error is None and state.status == Status.INTERRUPTED:
        error = RunError("The process of this run ended before the run did.", hint=resume)
    if error is None and not state.finished:
        error = RunError(
            "This run is still running in another process.", hint=f"Open it again later: dp.open_run('{state.run_id}')."
        )
    return error


def _rebuilt(described: Mapping[str, Any]) -> DipeoError:
    """A recorded error as it was raised; one of a class that this version does not have is a RunError."""
    kind = getattr(errors, str(described.get("type")), None)
    if not (isinstance(kind, type) and issubclass(kind, DipeoError)):
        kind = RunError
    return kind(str(described.get("message")), hint=described.get("hint"), node=described.get("node"))
