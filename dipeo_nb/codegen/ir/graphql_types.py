"""Models and node specifications as GraphQL (Strawberry) has them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from dipeo_nb.codegen.filters.types import python_type_with_context
from dipeo_nb.codegen.ir.model import Field, Model, NodeSpecIR, plain
from dipeo_nb.codegen.type_text import Type, read_type

_SCALARS = {
    "String": "str",
    "Float": "float",
    "Boolean": "bool",
    "DateTime": "datetime",
    "JSON": "JSONScalar",
    "ID": "str",
    "Int": "int",
}


def model_type(model: Model, models: Collection[str], scalars: Collection[str], enums: Collection[str]) -> dict[str, Any]:
    """A model with `resolved_fields`: {name, strawberry_type, default, conversion_expr}.

    Args:
        models: names of the types that become `…Type`.
        scalars: names of branded types, which become `…Scalar`.
        enums: names that stay.
    """
    resolved = [_resolved(field, models, scalars, enums) for field in model.fields]
    ordered = [one for one in resolved if not one["default"]] + [one for one in resolved if one["default"]]
    return {**plain(model), "resolved_fields": ordered, "needs_manual_conversion": True, "can_use_pydantic_decorator": False}


def _resolved(field: Field, models: Collection[str], scalars: Collection[str], enums: Collection[str]) -> dict[str, Any]:
    made = read_type(field.type)
    optional = field.optional or field.python_type.startswith("Optional[")
    name = "str" if _is_text(made, scalars) else _named(field.graphql_type, models, scalars, enums)
    expression = ""
    if made.kind == "name" and made.text in models:
        expression = f"{made.text}Type.from_pydantic(obj.{field.name})"
        expression += f" if obj.{field.name} is not None else None" if optional else ""
    elif made.kind == "array" and made.parts[0].text in models:
        expression = f"[{made.parts[0].text}Type.from_pydantic(each) for each in obj.{field.name} or []]"
    return {
        "name": field.name, "strawberry_type": f"Optional[{name}]" if optional else name, "default": " = None" if optional else "",
        "conversion_expr": expression,
    }  # fmt: skip


def _is_text(made: Type, scalars: Collection[str]) -> bool:
    """Whether a union has only texts: `PersonID | 'system'`."""
    if made.kind != "union":
        return False
    parts = [part for part in made.parts if part.text not in ("null", "undefined")]
    texts = [
        part.text == "string" or part.text[:1] in ("'", '"') or (part.kind == "name" and part.text in scalars) for part in parts
    ]
    return len(parts) > 1 and all(texts)


def _named(text: str, models: Collection[str], scalars: Collection[str], enums: Collection[str]) -> str:
    inner = text.strip("[]!")
    depth = text.count("[")
    if inner in models:
        made = f"{inner}Type"
    elif inner in scalars:
        made = f"{inner}Scalar"
    else:
        made = inner if inner in enums else _SCALARS.get(inner, "JSONScalar")
    return "List[" * depth + made + "]" * depth


def node_type(spec: NodeSpecIR) -> dict[str, Any]:
    """A node specification; in `spec`, all of its constant, and of its fields what they are in GraphQL and Python."""
    fields = [_spec_field(field, spec.node_type) for field in spec.fields]
    return {**plain(spec), "name": spec.node_type, "spec": {**plain(spec.raw_data), "fields": fields}}


def _is_whole(field: Mapping[str, Any], validation: Mapping[str, Any]) -> bool:
    """Whether neither default nor limits of a number say that it may be a fraction: counts and seconds are the rule."""
    given = [value for value in (field.get("default"), validation.get("min"), validation.get("max")) if value is not None]
    return all(isinstance(value, int) for value in given)


def _spec_field(field: Mapping[str, Any], node: str) -> dict[str, Any]:
    kind = str(field.get("type") or "any")
    python = re.sub(r"^Optional\[(.*)\]$", r"\1", python_type_with_context(field, node))
    validation: Mapping[str, Any] = field.get("validation") or {}
    values = list(validation.get("allowedValues") or field.get("enum") or ())
    if python == "float" and _is_whole(field, validation):
        python = "int"
    simple = {"int": "Int", "float": "Float", "bool": "Boolean", "str": "String"}
    return {
        **field, "python_type": python, "is_object_type": kind in ("object", "dict", "json"), "is_dict_type": python.startswith("Dict["),
        "graphql_type": "[JSON]" if python.startswith("List[") else simple.get(python, "String" if kind == "enum" else "JSON"),
        "is_enum": kind == "enum", "enum_values": values,
    }  # fmt: skip
