"""Node types that tests register, and that are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dipeo_nb.domain.nodes import NODE_SPECS, NodeSpec, register_node_spec
from dipeo_nb.execution import handlers


@contextmanager
def restored() -> Iterator[None]:
    """Node types are afterwards those that there were, whatever was registered in between."""
    specs, entries = dict(NODE_SPECS), dict(handlers._registered)
    try:
        yield
    finally:
        if specs != NODE_SPECS or entries != handlers._registered:
            NODE_SPECS.clear()
            NODE_SPECS.update(specs)
            handlers._registered.clear()
            handlers._registered.update(entries)
            handlers._lookup.cache_clear()


@contextmanager
def registered(*types: tuple[type[NodeSpec], Any]) -> Iterator[None]:
    """Node types with their handlers, for a while."""
    with restored():
        for spec, handler in types:
            register_node_spec(spec)
            handlers.register(spec.META.type, handler)
        yield
