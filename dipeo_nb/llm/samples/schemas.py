"""Parts of JSON schemas: what references point at, what bounds allow, what two schemas ask together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from dipeo_nb.llm.samples.limits import ImpossibleError

Node = Mapping[str, Any]


def resolved(reference: str, schema: Any) -> Any:
    """What a reference within a schema points at (`#/…`, `#`, `#anchor`); None when it points nowhere."""
    part = reference.partition("#")[2]
    if reference and not reference.startswith("#"):
        return None
    if part and not part.startswith("/"):
        return next((n for n in _nodes(schema) if part in (n.get("$anchor"), n.get("$dynamicAnchor"))), None)
    node: Any = schema
    for step in part.strip("/").split("/") if part else ():
        key = step.replace("~1", "/").replace("~0", "~").replace("%25", "%")
        if isinstance(node, Mapping):
            node = cast(Node, node).get(key)
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(cast(list[Any], node)):
            node = cast(list[Any], node)[int(key)]
        else:
            return None
    return node


def _nodes(node: Any) -> Iterator[Node]:
    if isinstance(node, Mapping):
        yield cast(Node, node)
        for value in cast(Node, node).values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in cast(list[Any], node):
            yield from _nodes(value)


def refers(option: Any) -> bool:
    return any("$ref" in node for node in _nodes(option))


def same(a: Any, b: Any) -> bool:
    """Equality of JSON, where true is not 1."""
    return a == b and isinstance(a, bool) is isinstance(b, bool)


def is_of(value: Any, kind: Any) -> bool:
    kinds = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
        "array": list,
        "object": dict,
    }
    wanted = kind if isinstance(kind, list) else [kind]
    return kind is None or any(isinstance(value, kinds.get(str(k), object)) for k in cast(list[Any], wanted))


def bound(node: Node, closed: str, opened: str, stricter: Callable[..., Any]) -> tuple[float, bool] | None:
    """(value, whether the value itself is excluded) of a lower or upper bound; None without one."""
    found = [(node[key], key == opened) for key in (closed, opened) if isinstance(node.get(key), (int, float))]
    if not found:
        return None
    value = stricter(bound for bound, _ in found)
    return value, any(excluded for bound, excluded in found if bound == value)


def joined(a: Any, b: Any) -> Any:
    """A schema that asks what both ask, as far as one can be written without `allOf`.

    Raises:
        ImpossibleError: nothing fits both.
    """
    if a is True or b is True:
        return b if a is True else a
    if not isinstance(a, Mapping) or not isinstance(b, Mapping):
        raise ImpossibleError("nothing fits")
    a, b = cast(Node, a), cast(Node, b)
    made: dict[str, Any] = {**a, **b}
    for key in a.keys() & b.keys():
        x, y = a[key], b[key]
        if x == y:
            continue
        match key:
            case "properties" | "patternProperties":
                made[key] = {**x, **y, **{n: joined(x[n], y[n]) for n in x.keys() & y.keys()}}
            case "required":
                made[key] = list(dict.fromkeys([*x, *y]))
            case "enum":
                made[key] = [v for v in x if any(same(v, w) for w in y)]
                if not made[key]:
                    raise ImpossibleError("no choice is left")
            case "type":
                kinds = [k for k in _list(x) if k in _list(y) or (k == "integer" and "number" in _list(y))]
                kinds += [k for k in _list(y) if k == "integer" and "number" in _list(x) and k not in kinds]
                if not kinds:
                    raise ImpossibleError("no type is left")
                made[key] = kinds if len(kinds) > 1 else kinds[0]
            case "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties":
                made[key] = max(x, y)
            case "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties":
                made[key] = min(x, y)
            case "items" | "additionalProperties" | "contains":
                made[key] = joined(x, y)
            case "multipleOf" if isinstance(x, int) and isinstance(y, int):
                made[key] = math.lcm(x, y)
            case "anyOf" | "oneOf" | "allOf" | "if" | "$ref":
                made[key] = x
                rest = {key: y} if key != "if" else {k: b[k] for k in ("if", "then", "else") if k in b}
                made["allOf"] = [*made.get("allOf", ()), rest]
            case _:
                pass  # descriptions, and what the check of the candidate decides
    return made


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else [value]
