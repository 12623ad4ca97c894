"""What goes wrong in a run, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dipeo_nb.common.text import nearest
from dipeo_nb.common.user_code import failure_text
from dipeo_nb.common.values import UnsupportedValueError
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.payloads import ErrorInfo
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.errors import DeadlockError, DipeoError, MaxIterationsError, NodeExecutionError, RunError, UnknownNodeError
from dipeo_nb.execution.schedule import Finish

DETAILS = ("violations", "status")
"""Facts of an error that a diagram may want to work with; they are in the error output beside the message."""


def as_run_error(error: BaseException, node: PlanNode | None) -> DipeoError:
    """Any exception of a node as one of ours, with the node's name; ours keep their class."""
    if isinstance(error, UnsupportedValueError):
        ours: DipeoError = NodeExecutionError(f"The {error.message}", hint=error.hint, place=error.place)
        ours.__cause__ = error
    elif not isinstance(error, DipeoError):
        ours = NodeExecutionError(failure_text(error))
        ours.__cause__ = error
    else:
        ours = error
    if node is not None and not getattr(ours, "node", None):
        ours.node = node.label  # type: ignore[attr-defined]
    return ours


def describe(error: DipeoError, label: str | None) -> dict[str, Any]:
    """An error as events and `run --json` show it."""
    described: dict[str, Any] = {
        "type": type(error).__name__, "message": error.message, "node": label, "hint": error.hint,
    }  # fmt: skip
    if details := {name: error.facts[name] for name in DETAILS if name in error.facts}:
        described["details"] = details
    traceback = getattr(error, "traceback", None)
    return {**described, "traceback": traceback} if isinstance(traceback, str) and traceback else described


def error_value(described: ErrorInfo) -> dict[str, Any]:
    """An error, as an event describes it, as a value that nodes work with."""
    return {"error": described["message"], "type": described["type"], **described.get("details", {})}


def endless(plan: Plan, node: PlanNode, visits: int, run_id: str) -> RunError:
    """A loop that does not end."""
    inside = [n for n in plan.nodes if node.loops[-1] in n.loops]
    conditions = [n for n in inside if n.type == "condition"]
    unlimited = [n.label for n in inside if n.type == "person_job" and n.written_limit is None]
    cause = f" The loop's condition {_names([n.label for n in conditions])} never ended it." if conditions else ""
    limit = f"a max_iteration to {_names(unlimited)}" if unlimited else "a person_job of the loop a smaller max_iteration"
    remedy = f"Correct the condition, give {limit}" if conditions else f"Add a condition that leaves the loop, give {limit}"
    return MaxIterationsError(
        f"'{node.label}' ran {visits} times and its loop did not end.{cause}",
        hint=f"{remedy}, or raise max_iterations= (DIPEO_MAX_ITERATIONS).",
        node=node.label,
        run_id=run_id,
    )


def deadlock(plan: Plan, finish: Finish, run_id: str) -> RunError:
    """Nodes that wait for what cannot come."""
    waits: list[str] = []
    for index, edges in finish.blocked:
        missing = [plan.nodes[plan.edges[e].source].label for e in edges]
        waits.append(f"'{plan.nodes[index].label}' waits for {_names(missing)}")
    return DeadlockError(
        f"Deadlock: {'; '.join(waits)}, to which no start leads.",
        hint="Draw an arrow from a start node to them, or remove the arrow that waits.",
        node=plan.nodes[finish.blocked[0][0]].label,
        run_id=run_id,
    )


def _names(labels: Sequence[str]) -> str:
    return ", ".join(f"'{label}'" for label in labels)


def no_node(reference: Any, labels: Iterable[str]) -> UnknownNodeError:
    """The error for a node that does not exist, with the nearest label."""
    known = [clean(label, 60) for label in labels]
    near = nearest(reference, known)
    shown = ", ".join(f"'{label}'" for label in known[:20]) + (" …" if len(known) > 20 else "")
    return UnknownNodeError(
        f"There is no node {str(reference)[:80]!r}.", hint=f"Did you mean '{near}'?" if near else f"Nodes: {shown or 'none'}."
    )
