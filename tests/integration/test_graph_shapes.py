"""The shapes of `tests.support.graph_shapes`: what every run of every node is given."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import graph_dsl as shapes
from tests.support.graph_shapes import SHAPES, Shape


def told(inputs: dict[str, Any]) -> str:
    """Inputs of one run as the table writes them."""
    return " ".join(shown(v) if k == "default" else f"{k}={shown(v)}" for k, v in inputs.items()) or "-"


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}={shown(v)}" for k, v in value.items()) + "}"
    return str(value)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_shape(shape: Shape):
    """Each node runs as often as it should, each time with the inputs that belong together; the rest is skipped."""
    decisions = dict(word.split("=") for word in shape.decisions.split())
    given, error, statuses = shapes.run(shape.arrows, decisions)
    seen = {node: " | ".join(map(told, runs)) for node, runs in given.items() if node not in ("s", "t")}
    expected = dict(part.split(": ", 1) for part in shape.given.split("; ")) if shape.given else {}
    assert seen == expected
    assert statuses == dict(word.split("=") for word in shape.statuses.split())
    assert (error.message if error else "") == shape.error
