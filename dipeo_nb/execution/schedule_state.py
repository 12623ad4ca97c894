"""The state of a scheduler as JSON values: from them, one that continues with the same commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dipeo_nb.execution.schedule import RunNode, Scheduler, Token


def state_of(scheduler: Scheduler) -> dict[str, Any]:
    """The state between two steps."""
    return {
        "active": hex(scheduler._active),  # a number of any length
        "busy": scheduler._busy,
        "arrivals": scheduler._arrivals,
        "nodes": [
            [
                node.runs,
                node.visits,
                node.entry,
                node.busy,
                node.have,
                node.queued,
                node.watched,
                node.low,
                [w.plan.index for w in node.watchers],
            ]
            for node in scheduler._nodes
        ],
        "edges": [
            [last, [list(token) for token in tokens]] for last, tokens in zip(scheduler._last, scheduler._tokens, strict=True)
        ],
    }


def restore(scheduler: Scheduler, state: Mapping[str, Any]) -> None:
    """Bring a new scheduler of the same plan to a state.

    Raises:
        ValueError, TypeError, KeyError, IndexError: it is the state of no such scheduler.
    """
    nodes = scheduler._nodes
    scheduler._active, scheduler._busy, scheduler._arrivals = int(state["active"], 16), state["busy"], state["arrivals"]
    for node, found in zip(nodes, state["nodes"], strict=True):
        node.runs, node.visits, entry, busy, node.have, node.queued, node.watched, low, watchers = found
        node.entry, node.busy, node.low = tuple(entry), _stamp(busy), _stamp(low)
        node.watchers = {nodes[index]: None for index in watchers}
    for e, (_, (last, tokens)) in enumerate(zip(scheduler._edges, state["edges"], strict=True)):
        scheduler._last[e] = last
        scheduler._tokens[e] = [Token(tuple(stamp), run, passes, order) for stamp, run, passes, order in tokens]


def command_state(command: RunNode) -> list[Any]:
    """A command as JSON values."""
    return [command.node, command.run, command.stamp, [list(one) for one in command.inputs]]


def command_of(found: Sequence[Any]) -> RunNode:
    """The inverse of `command_state`."""
    node, run, stamp, inputs = found
    return RunNode(node, run, tuple(stamp), tuple((edge, source, fresh) for edge, source, fresh in inputs))


def _stamp(found: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if found is None else tuple(found)
