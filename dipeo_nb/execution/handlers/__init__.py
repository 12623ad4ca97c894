"""What nodes do: one module for each node type, named by the `type:` of the diagram, and those that are registered.

A module has `execute(context)`, which returns an `Output` at once (it must not block then) or a coroutine that does (an
`async def` is one). It may have, each as the field of `NodeHandler`: `TIMEOUT`, `OWN_TIMEOUT`, `PORT`, `PURE`, `missing`, `ready` and
`resume`. A node type without a module here, and not registered, cannot run in this version.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.enums import Severity
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import Services
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.evaluation import SlowEvaluationError
from dipeo_nb.execution.inputs import Output

Handler = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class NodeHandler:
    """The work of one node type."""

    execute: Handler
    """Takes the `NodeContext`; gives an `Output`, or a coroutine that does."""
    timeout: float | str | None = "default"
    """The type's own time limit in seconds; None: none; "default": that of the settings."""
    own_timeout: bool = False
    """Whether the field `timeout` of a node is for the handler, and not a limit of its work."""
    port: str | None = None
    """Name of the service without which it cannot run."""
    pure: bool = False
    """Whether what it does at once has no effect outside the run, so that its start may be stored together with its end."""
    missing: Callable[[PlanNode, Services], tuple[str, str] | None] | None = None
    """(why a node of the type cannot run here, what to do about it), found before anything runs; None: it can."""
    ready: Callable[[PlanNode, Services], Coroutine[Any, Any, None]] | None = None
    """Raises what a node would fail with because something of the user's is missing, such as a key; asked when a run begins."""
    resume: Callable[[NodeContext], Coroutine[Any, Any, None] | None] | None = None
    """The work that a finished run of a node had left in the background when the run was cut off; None: there is none."""

    @classmethod
    def of(cls, module: ModuleType) -> NodeHandler:
        """What a module says."""
        return cls(
            module.execute,
            timeout=getattr(module, "TIMEOUT", "default"),
            own_timeout=getattr(module, "OWN_TIMEOUT", False),
            port=getattr(module, "PORT", None),
            pure=getattr(module, "PURE", False),
            missing=getattr(module, "missing", None),
            ready=getattr(module, "ready", None),
            resume=getattr(module, "resume", None),
        )


_registered: dict[str, NodeHandler] = {}


def register(node_type: str, handler: Handler | NodeHandler, *, timeout: float | str | None = "default") -> None:
    """Give a registered node type its work.

    Args:
        handler: all that is to be said of it, or the function that does it.
        timeout: of a function: seconds, None for no limit, or "default".
    """
    _registered[node_type] = handler if isinstance(handler, NodeHandler) else NodeHandler(handler, timeout=timeout)
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
    if not runnable(node.type):
        what = f"Nodes of type '{node.type}' load and draw in this version, but do not run yet."
        return what, "Remove the node, or use another type."
    handler = _lookup(node.type)
    if handler.port is not None and getattr(services, handler.port) is None:
        what = f"Nodes of type '{node.type}' need the service '{handler.port}', of which this version ships no adapter."
        return what, f"Give one: dp.Session({handler.port}=…), or remove the node."
    return None if handler.missing is None else handler.missing(node, services)


def is_pure(node_type: str) -> bool:
    """See `NodeHandler.pure`."""
    return _lookup(node_type).pure


def needs_of_user(node_type: str) -> bool:
    """Whether `ready` has anything to check of nodes of a type."""
    return _lookup(node_type).ready is not None


async def ready(node: PlanNode, services: Services) -> None:
    """See `NodeHandler.ready`."""
    if (check := _lookup(node.type).ready) is not None:
        await check(node, services)


@cache
def _lookup(node_type: str) -> NodeHandler:
    """What there is for a node type.

    Raises:
        ModuleNotFoundError: nothing; the compiler refuses such diagrams before.
    """
    return _registered.get(node_type) or NodeHandler.of(importlib.import_module(f"{__name__}.{node_type}"))


def get(node_type: str) -> Handler:
    """The function that does the work of a node type."""
    return _lookup(node_type).execute


def handler_of(context: NodeContext) -> Handler:
    """The function that does the work of a node in its run."""
    instead = context.execution.options.instead
    return (instead(context.node.type) if instead is not None else None) or get(context.node.type)


def begin(context: NodeContext, execute: Handler) -> Output | Coroutine[Any, Any, Output]:
    """Begin the node's work: its output at once, or a coroutine for `complete`.

    Args:
        execute: what `handler_of` gives.
    """
    try:
        return execute(context)
    except SlowEvaluationError as slow:
        return go_on(context, slow)


async def complete(context: NodeContext, work: Awaitable[Output]) -> Output:
    """The output of a node's work; begun again when it needed a text that took long to make."""
    try:
        return await work
    except SlowEvaluationError as slow:
        return await go_on(context, slow)


async def go_on(context: NodeContext, slow: SlowEvaluationError) -> Output:
    """The output of a node's work, begun again with the text that it needs."""
    while True:
        await context.finish(slow.request)
        try:
            result = handler_of(context)(context)
            return result if isinstance(result, Output) else await result
        except SlowEvaluationError as another:
            slow = another


def resumed(context: NodeContext) -> Coroutine[Any, Any, None] | None:
    """See `NodeHandler.resume`."""
    resume = _lookup(context.node.type).resume
    return None if resume is None else resume(context)


def time_limit(node: PlanNode, default: float) -> float | None:
    """Seconds a run of the node may take; None for no limit."""
    handler = _lookup(node.type)
    if node.spec.timeout is not None and not handler.own_timeout:
        return node.spec.timeout
    return default if isinstance(handler.timeout, str) else handler.timeout
