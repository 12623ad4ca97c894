"""One module per node type, named by the `type:` of the diagram.

A module has `run(context)`, which returns an `Output` at once (it must not block then) or a coroutine that does (an
`async def` is one). It may have `TIMEOUT`: the node type's own time limit in seconds (`None`: none); `PORT`: the service without
which it cannot run; and `missing(node, services)`: why a node of it cannot run here, found before anything runs (None: it can);
and `resume(context)`: the work that a finished run of a node had left in the background when the run was cut off. A node type without a module here cannot run in this version.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from typing import Any

from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.enums import Severity
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import Services
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.evaluation import SlowEvaluationError
from dipeo_nb.execution.inputs import Output

Handler = Callable[[Any], Any]

_registered: dict[str, tuple[Handler, float | str | None]] = {}


def register(node_type: str, handler: Handler, *, timeout: float | str | None = "default") -> None:
    """Give a registered node type its work. `timeout`: seconds, None for no limit, or "default"."""
    _registered[node_type] = (handler, timeout)
    _lookup.cache_clear()


def runnable(node_type: str) -> bool:
    """Whether nodes of that type can run."""
    return node_type in _registered or (
        node_type.isidentifier() and importlib.util.find_spec(f"{__name__}.{node_type}") is not None
    )


def not_runnable(plan: Plan, services: Services) -> list[Diagnostic]:
    """What of a plan cannot run here: an error for each such node."""
    found: list[Diagnostic] = []
    for node in plan.nodes:
        if (why := _missing(node, services)) is not None:
            what, hint = why
            place = plan.source_path
            found.append(Diagnostic(Severity.ERROR, "not-runnable", what, hint=hint, file=place, node=node.label))
    return found


def _missing(node: PlanNode, services: Services) -> tuple[str, str] | None:
    """(why a node cannot run, what to do); None when it can."""
    if node.type in _registered:
        return None
    if not runnable(node.type):
        what = f"Nodes of type '{node.type}' load and draw in this version, but do not run yet."
        return what, "Remove the node, or use another type."
    module = importlib.import_module(f"{__name__}.{node.type}")
    port = getattr(module, "PORT", None)
    if port is not None and getattr(services, port) is None:
        what = f"Nodes of type '{node.type}' need the service '{port}', of which this version ships no adapter."
        return what, f"Give one: dp.Session({port}=…), or remove the node."
    check = getattr(module, "missing", None)
    return check(node, services) if check is not None else None


def get(node_type: str) -> Handler:
    """The handler of a node type.

    Raises:
        ModuleNotFoundError: none; the compiler refuses such diagrams before.
    """
    return _lookup(node_type)[0]


def begin(context: NodeContext) -> Output | Coroutine[Any, Any, Output]:
    """Begin the node's work: its output at once, or a coroutine for `complete`."""
    try:
        return get(context.node.type)(context)
    except SlowEvaluationError as slow:
        return _resumed(context, slow)


async def complete(context: NodeContext, work: Awaitable[Output]) -> Output:
    """The output of a node's work; begun again when it needed a text that took long to make."""
    try:
        return await work
    except SlowEvaluationError as slow:
        return await _resumed(context, slow)


async def _resumed(context: NodeContext, slow: SlowEvaluationError) -> Output:
    while True:
        await context.finish(slow.request)
        try:
            result = get(context.node.type)(context)
            return result if isinstance(result, Output) else await result
        except SlowEvaluationError as another:
            slow = another


def resumed(context: NodeContext) -> Coroutine[Any, Any, None] | None:
    """After the run was cut off: the work that a finished run of a node had left behind, to be seen to its end; None without any."""
    if context.node.type in _registered:
        return None
    resume = getattr(importlib.import_module(f"{__name__}.{context.node.type}"), "resume", None)
    return None if resume is None else resume(context)


def time_limit(node: PlanNode, default: float) -> float | None:
    """Seconds a run of the node may take; None for no limit."""
    if node.spec.timeout is not None and node.type != "user_response":
        return node.spec.timeout
    own = _lookup(node.type)[1]
    return default if isinstance(own, str) else own


@cache
def _lookup(node_type: str) -> tuple[Handler, float | str | None]:
    if node_type in _registered:
        return _registered[node_type]
    module = importlib.import_module(f"{__name__}.{node_type}")
    return module.run, getattr(module, "TIMEOUT", "default")
