"""One module per node type, named by the `type:` of the diagram.

A module has `run(context)`, which returns an `Output` at once (it must not block then) or a coroutine that does (an
`async def` is one), and may have `TIMEOUT`: the node type's own time limit in seconds (`None`: none). A node type without a module here cannot run in this version.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.errors import NodeExecutionError

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


def get(node_type: str) -> Handler:
    """The handler of a node type.

    Raises:
        ModuleNotFoundError: none; the compiler refuses such diagrams before.
    """
    return _lookup(node_type)[0]


def time_limit(node: PlanNode, default: float) -> float | None:
    """Seconds a run of the node may take; None for no limit."""
    if node.spec.timeout is not None and node.type != "user_response":
        return node.spec.timeout
    own = _lookup(node.type)[1]
    return default if isinstance(own, str) else own


def batch_items(context: Any, name: str) -> list[Any]:
    """The items of a batch: the input of that name, else `default`; JSON text is read, a single value is one item.

    Raises:
        NodeExecutionError: there are none.
    """
    items = context.names.get(name)
    if items is None:
        items = context.inputs.values.get("default", [])
    items = getattr(items, "__dipeo_value__", items)
    if isinstance(items, str):
        try:
            items = json.loads(items)
        except ValueError:
            items = [items]
    if not isinstance(items, list):
        items = [items]
    if not items:
        raise NodeExecutionError(
            f"The batch of '{context.node.label}' is empty: '{name}' names no items.",
            hint="Label an incoming arrow with that name, or set batch_input_key.",
        )
    return items


@cache
def _lookup(node_type: str) -> tuple[Handler, float | str | None]:
    if node_type in _registered:
        return _registered[node_type]
    module = importlib.import_module(f"{__name__}.{node_type}")
    return module.run, getattr(module, "TIMEOUT", "default")
