"""Other forms of a result, as the options of a typescript_ast node ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

_KINDS = {
    "interfaces": "interface", "types": "type", "enums": "enum", "classes": "class", "functions": "function", "constants": "const",
    "namespaces": "namespace",
}  # fmt: skip


def formed(parsed: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The result with `ast` in another form.

    Args:
        options: output_format: `for_codegen` leaves positions out, `for_analysis` adds `counts` to the metadata; transform_enums: an
            enum's `members` are an object, name → value; flatten_output: `ast` has one list, `declarations`, whose items say their `kind`.
    """
    ast: dict[str, Any] = dict(parsed["ast"])
    metadata = dict(parsed["metadata"])
    if options.get("transform_enums") and "enums" in ast:
        ast["enums"] = [{**enum, "members": {m["name"]: m["value"] for m in enum["members"]}} for enum in ast["enums"]]
    if options.get("output_format") == "for_codegen":
        ast = _without_positions(ast)
    if options.get("output_format") == "for_analysis":
        metadata["counts"] = {name: len(items) for name, items in ast.items()}
    if options.get("flatten_output"):
        listed = [{"kind": _KINDS[name], **item} for name, items in ast.items() if name in _KINDS for item in items]
        ast = {"declarations": listed, **{name: items for name, items in ast.items() if name not in _KINDS}}
    return {"ast": ast, "metadata": metadata}


def _without_positions(value: Any) -> Any:
    """Constants keep what they have under that name."""
    if isinstance(value, list):
        return [_without_positions(item) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        named = cast(dict[str, Any], value)
        return {k: v if k == "value" else _without_positions(v) for k, v in named.items() if k != "position"}
    return value
