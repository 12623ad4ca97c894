"""The progress of a node whose service works in steps."""

from __future__ import annotations

from contextlib import AbstractContextManager

from dipeo_nb.common import steps
from dipeo_nb.execution.context import NodeContext

MOST_SHOWN = 20
"""Steps of one run of a node that are shown; of more, every second, third …"""


def shown_steps(context: NodeContext, doing: str) -> AbstractContextManager[None]:
    """Show the steps of what is done in here.

    Args:
        doing: before the name of a step: `Parsing`.
    """

    def report(name: str, number: int, of: int) -> None:
        if number % (of // MOST_SHOWN + 1) == 0 or number == of:
            text, data = f"{doing} {name}", {"done": number, "total": of}
            context.show({"kind": "progress", "text": text, "is_partial": True, "run": context.run, "data": data})

    return steps.reported_to(report)
