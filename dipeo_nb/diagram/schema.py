"""JSON Schema (draft 2020-12) of the light format, generated from the node specs. For editors; loading does not need it.

It is stricter than the reader: an unknown property is an error here and a warning there.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from dipeo_nb.diagram.connections import CONTENT_TYPE_ALIASES
from dipeo_nb.diagram.person_fields import PERSON_NUMBERS, PERSON_TEXTS
from dipeo_nb.diagram.vocabulary import MEMORY_PROFILES, vocabulary
from dipeo_nb.domain.enums import SERVICE_ALIASES, ContentType, HandleLabel, LLMService
from dipeo_nb.domain.nodes import NODE_SPECS, NodeSpec
from dipeo_nb.domain.request_options import EFFORTS

SCHEMA_ID = "https://dipeo-nb.invalid/light.schema.json"
"""Only a name: nothing is fetched from it."""

_NUMBER = {"type": "number"}
_TEXT_OR_SCALAR = {"type": ["string", "number", "boolean"]}
_TEXT = {"type": "string"}


def light_schema() -> dict[str, Any]:
    """The schema of a light document, registered node types included."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "DiPeO light diagram",
        "type": "object",
        "required": ["nodes"],
        "properties": {
            "version": {"enum": ["light"], "description": "The format."},
            "format": {"enum": ["light"]},
            "$schema": _TEXT,
            "name": _TEXT,
            "description": _TEXT,
            "nodes": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            "connections": {
                "type": ["array", "null"],
                "items": {"$ref": "#/$defs/connection"},
            },
            "persons": _persons(),
            "handles": {"type": ["array", "object"], "description": "Handles besides those of the node types."},
            "metadata": _metadata(),
            "api_keys": {"deprecated": True, "description": "Ignored: keys do not belong in a diagram."},
        },
        "additionalProperties": False,
        "$defs": {"node": _node(), "connection": _connection(), "person": _person()}
        | {f"{name}_properties": _properties(cls) for name, cls in NODE_SPECS.items()},
    }


def _node() -> dict[str, Any]:
    return {
        "type": ["object", "null"],  # a stray '-' is ignored with a warning
        "properties": {
            "label": {**_TEXT_OR_SCALAR, "description": "Shown on the node; connections use it."},
            "type": {
                "description": "The kind of node; any letter case.",
                "enum": [*NODE_SPECS, *(name.upper() for name in NODE_SPECS)],
            },
            "id": {**_TEXT_OR_SCALAR, "description": "Default: node_<number in the file>, from 0."},
            "position": {
                "description": "In pixels; y grows downwards. Default: placed automatically.",
                "anyOf": [
                    {
                        "type": "object",
                        "properties": {"x": _NUMBER, "y": _NUMBER},
                        "required": ["x", "y"],
                        "additionalProperties": False,
                    },
                    {"type": "array", "items": _NUMBER, "minItems": 2, "maxItems": 2},
                ],
            },
            "props": {"type": ["object", "null"], "description": "Long form of the properties."},
        },
        "required": ["type"],
        "allOf": [
            {
                "if": {"properties": {"type": {"enum": [name, name.upper()]}}, "required": ["type"]},
                "then": {
                    "$ref": f"#/$defs/{name}_properties",
                    "properties": {
                        "props": {"$ref": f"#/$defs/{name}_properties", "unevaluatedProperties": False},
                    },
                },
            }
            for name in NODE_SPECS
        ],
        "unevaluatedProperties": False,
    }


def _properties(cls: type[NodeSpec]) -> dict[str, Any]:
    """The properties of one node type, under every accepted spelling."""
    hints = get_type_hints(cls)
    properties = {field.name: _field(field, hints[field.name]) for field in fields(cls)}
    words = vocabulary(cls)
    for alias, name in words.aliases.items():
        spelled = {**properties[name], "description": f"Other spelling of '{name}'."}
        if alias == "memory_profile":
            spelled["anyOf"] = [{"enum": [*MEMORY_PROFILES]}, {"type": ["string", "null"]}]
            spelled.pop("type", None)
        properties.setdefault(alias, spelled)
    for name in words.dropped:
        properties[name] = {"deprecated": True, "description": "Accepted and ignored."}
    return {
        "description": cls.META.summary,
        "properties": properties,
        "patternProperties": {r"^[^.]+(\.[^.]+)+$": {"description": "Dotted key: sets a value inside a mapping."}},
    }


def _field(field: Field[Any], hint: Any) -> dict[str, Any]:
    meta: Mapping[str, Any] = field.metadata
    made: dict[str, Any] = _type(hint)
    aliases = meta.get("aliases")
    if isinstance(aliases, Mapping):
        made = _with_values(made, [str(alias) for alias in aliases])
    if choices := meta.get("choices"):
        optional = "null" in made.get("type", ())
        made = dict[str, Any](enum=[*choices, *([None] if optional else [])])
    for key in ("minimum", "maximum"):
        if key in meta:
            made[key] = meta[key]
    default = field.default if field.default_factory is MISSING else field.default_factory()
    if default is not MISSING and default is not None:
        made["default"] = default.value if isinstance(default, StrEnum) else default
    if doc := meta.get("doc"):
        made["description"] = doc
    return made


def _with_values(schema: dict[str, Any], more: list[str]) -> dict[str, Any]:
    """The schema with further values of its enumeration, or of the enumeration of its items."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], *(v for v in more if v not in schema["enum"])]}
    if "items" in schema:
        return {**schema, "items": _with_values(schema["items"], more)}
    return schema


_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}


def _type(hint: Any) -> dict[str, Any]:
    """The schema of a type annotation of a node spec."""
    if hint is Any:
        return {}
    if hint in _SCALARS:
        return dict(_SCALARS[hint])
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [member.value for member in hint]}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union([_type(argument) for argument in arguments])
    if origin in (list, tuple):
        item = _type(arguments[0]) if arguments else {}
        return {"type": "array", "items": item} if item else {"type": "array"}
    value = _type(arguments[1]) if len(arguments) == 2 else {}
    return {"type": "object", "additionalProperties": value} if value else {"type": "object"}


def _union(parts: list[dict[str, Any]]) -> dict[str, Any]:
    if not all(parts):
        return {}
    if all(part.keys() == {"type"} for part in parts):
        return {"type": [part["type"] for part in parts]}
    if all(part.keys() == {"enum"} or part == {"type": "null"} for part in parts):
        return {"enum": [value for part in parts for value in part.get("enum", [None])]}
    return {"anyOf": parts}


def _connection() -> dict[str, Any]:
    handles = ", ".join(HandleLabel)
    content_types = [*ContentType, *CONTENT_TYPE_ALIASES, None]
    end = f"Label of a node, with a handle where it is not the default one: 'Check[condtrue]'. Handles: {handles}."
    return {
        "type": ["object", "null"],
        "properties": {
            "from": {**_TEXT_OR_SCALAR, "description": end},
            "to": {**_TEXT_OR_SCALAR, "description": end},
            "label": {"type": ["string", "number", "boolean", "null"], "description": "Variable name at the target."},
            "content_type": {
                "enum": content_types,
                "default": "raw_text",
                "description": "Content type of the value; null: what fits the source.",
            },
            "type": {"enum": content_types, "description": "Other spelling of 'content_type'."},
            "data": {"type": ["object", "null"]},
            "id": _TEXT_OR_SCALAR,
            "execution_priority": {"type": ["number", "null"], "description": "Arrows with higher numbers are followed first."},
        },
        "required": ["from", "to"],
        "additionalProperties": False,
    }


def _persons() -> dict[str, Any]:
    # Stray entries are ignored with a warning, so they do not make a document invalid.
    entry = {"anyOf": [{"$ref": "#/$defs/person"}, {**_TEXT, "deprecated": True, "description": "Ignored."}]}
    return {
        "description": "A person: a name, and the settings of its model.",
        "anyOf": [
            {"type": "object", "additionalProperties": entry},
            {"type": "array", "items": {"type": ["object", "null"]}},
            {"type": "null"},
        ],
    }


def _person() -> dict[str, Any]:
    settings: dict[str, Any] = {
        "service": {
            "anyOf": [{"enum": [*LLMService, *SERVICE_ALIASES]}, {"type": "string"}],
            "description": "Which service answers, with its default model when none is named; that of the settings' default model "
            "when nothing is named.",
        },
        **{name: {"type": ["string", "null"]} for name in PERSON_TEXTS},
        **{name: {"type": ["number", "null"]} for name in PERSON_NUMBERS},
        "top_p": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "stop": {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"type": "string"}}]},
        "seed": {"type": ["integer", "null"]},
        "reasoning": {"enum": [*EFFORTS, None], "description": "How much the model thinks before it answers."},
        "extra": {"type": ["object", "null"], "description": "Further fields of the provider's request."},
    }
    return {
        "type": ["object", "null"],
        "properties": {
            **settings,
            "id": _TEXT_OR_SCALAR,
            "label": _TEXT_OR_SCALAR,
            "name": _TEXT_OR_SCALAR,
            "type": {"const": "person"},
            "llm_config": {"type": "object", "properties": settings},
        },
        "additionalProperties": False,
    }


def _metadata() -> dict[str, Any]:
    texts = ("version", "created", "modified", "id", "name", "description", "author", "format")
    return {
        "type": "object",
        "properties": {
            **{name: {"type": ["string", "null"]} for name in texts},
            "tags": {"anyOf": [{"type": "array", "items": _TEXT}, {"type": ["string", "null"]}]},
        },
    }
