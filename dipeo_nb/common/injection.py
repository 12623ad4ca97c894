"""Named points of the code at which tests can act, for example end the process. Without a hook, as in production, they do nothing.

injection.reach("run.stored")    # in the code, between two steps
injection.hook = at_point        # in a test: called with the name of each point that is reached
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

POINTS: Final[Mapping[str, str]] = {
    "run.commit": "events of a run have their numbers, and nothing of them is stored",
    "store.append": "the run store has written events within a transaction that is not committed",
    "run.stored": "events are stored, and nothing shows them yet",
    "run.published": "events are stored and shown",
    "run.claim": "a process is about to claim a run, to resume it",
    "run.claimed": "a process has claimed a run, and does not execute it yet",
    "answer.stored": "an answer is in the run store, and no run has it yet",
    "store.condense": "the run store has put streamed texts together within a transaction that is not committed",
    "store.delete": "the run store has deleted runs within a transaction that is not committed",
}
"""Name → the state in which the process is there."""

hook: Callable[[str], None] | None = None
"""Called with the name of each point that is reached, in the thread that reaches it; what it raises is raised there."""


def reach(point: str) -> None:
    """Mark a point; *point* is a key of `POINTS`."""
    if hook is not None:
        hook(point)
