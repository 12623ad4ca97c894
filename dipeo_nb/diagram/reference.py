"""The reference of node types: every field with its spellings, type, default and meaning, from the specs of `domain.nodes`.

`dipeo-nb nodes`, `%dipeo nodes` and docs/nodes.md show it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram.schema import light_schema
from dipeo_nb.diagram.vocabulary import vocabulary
from dipeo_nb.domain.nodes import NODE_SPECS, NodeSpec
from dipeo_nb.errors import ValidationError

EXAMPLES = Path(__file__).parent / "examples"
"""One light diagram per built-in type, `TYPE.light.yaml`."""
COMMON = tuple(field.name for field in fields(NodeSpec))
"""Fields of every type."""


class FieldReference(NamedTuple):
    """A field of a node type."""

    name: str
    spellings: tuple[str, ...]
    """Other names that are read, too."""
    type: str
    """`text`, `number`, `true | false`, or the values that it takes."""
    default: str
    """As it is written in a diagram; empty when there is none."""
    doc: str


class NodeReference(NamedTuple):
    """A node type."""

    type: str
    summary: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fields: tuple[FieldReference, ...]
    """Its own; those of every type are `common_fields()`."""
    example: str
    """A diagram that uses it; empty for types that are not built in."""


def node_reference(type: str) -> NodeReference:
    """The reference of a node type, also of one that was registered.

    Raises:
        ValidationError: there is no such type.
    """
    name = type.strip().lower()
    if name not in NODE_SPECS:
        raise ValidationError(
            f"'{shorten(type)}' is not a node type.",
            hint=did_you_mean(name, NODE_SPECS, f"There are: {', '.join(NODE_SPECS)}."),
        )
    cls = NODE_SPECS[name]
    meta, path = cls.META, EXAMPLES / f"{name}.light.yaml"
    outputs = (*meta.outputs, *(["error"] if meta.has_output("error") and "error" not in meta.outputs else []))
    example = path.read_text(encoding="utf-8") if path.is_file() else ""
    return NodeReference(name, meta.summary, meta.inputs, outputs, _fields(cls, name, common=False), example)


def common_fields() -> tuple[FieldReference, ...]:
    """The fields that every type has."""
    name, cls = next(iter(NODE_SPECS.items()))
    return _fields(cls, name, common=True)


def _fields(cls: type[NodeSpec], name: str, *, common: bool) -> tuple[FieldReference, ...]:
    schema = light_schema()["$defs"][f"{name}_properties"]["properties"]
    spellings: dict[str, list[str]] = {}
    for alias, canonical in vocabulary(cls).aliases.items():
        spellings.setdefault(canonical, []).append(alias)
    return tuple(
        FieldReference(
            field.name,
            tuple(sorted(spellings.get(field.name, ()))),
            _type(schema[field.name]),
            _default(field),
            str(field.metadata.get("doc", "")) + (" (a template)" if field.metadata.get("template") else ""),
        )
        for field in fields(cls)
        if (field.name in COMMON) is common
    )


_WORDS = {
    "string": "text", "integer": "integer", "number": "number", "boolean": "true | false", "object": "mapping", "array": "list", "null": "",
}  # fmt: skip


def _type(schema: Mapping[str, Any]) -> str:
    """A schema in words."""
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"] if value is not None)
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(_type(part) for part in schema["anyOf"] if part != {"type": "null"}))
    types = schema.get("type", ())
    words = [_WORDS[kind] for kind in ([types] if isinstance(types, str) else types)]
    if schema.get("items") and words == ["list"]:
        words = [f"list of {_type(schema['items'])}"]
    limits = [f"{sign} {schema[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if key in schema]
    return " | ".join(filter(None, words)) + (f", {', '.join(limits)}" if limits else "") or "any value"


def _default(field: Field[Any]) -> str:
    value = field.default if field.default_factory is MISSING else field.default_factory()
    if value is None or value is MISSING or value == "":
        return "required" if field.metadata.get("required") else ""
    return str(value.value) if isinstance(value, StrEnum) else value if isinstance(value, str) else json.dumps(value)


# As Markdown.


def markdown() -> str:
    """docs/nodes.md: every built-in type."""
    types = [node_reference(name) for name, cls in NODE_SPECS.items() if (EXAMPLES / f"{name}.light.yaml").is_file()]
    index = "\n".join(f"| [{t.type}](#{t.type}) | {t.summary} | {_handles(t.inputs)} | {_handles(t.outputs)} |" for t in types)
    sections = "\n\n".join(_section(reference) for reference in types)
    return f"{HEAD}\n| type | what it does | inputs | outputs |\n|---|---|---|---|\n{index}\n\n## Fields of every type\n\n{_table(common_fields())}\n\n{sections}\n"


HEAD = """\
# Node types and their fields

Generated from `dipeo_nb/domain/nodes.py`: after a change of it, `make docs`. `dipeo-nb nodes TYPE` shows a section in a terminal and
`%dipeo nodes TYPE` in a notebook. [The light format](light-format.md) explains how nodes work together.

*Other spellings* are read and mean the same. A default that is empty means "not set". Fields marked *(a template)* may hold
`{{ name }}`. An arrow leaves the output `default` unless it names another one: `from: "Check[success]"`.
"""


def page(type: str) -> str:
    """One node type as Markdown, with the fields of every type.

    Raises:
        ValidationError: there is no such type.
    """
    return f"{_section(node_reference(type))}\n\nFields of every type:\n\n{_table(common_fields())}\n"


def _section(reference: NodeReference) -> str:
    example = f"\n\n```yaml\n{reference.example.rstrip()}\n```" if reference.example else ""
    return f"## {reference.type}\n\n{reference.summary}.\n\n{_table(reference.fields)}{example}"


def _table(rows: tuple[FieldReference, ...]) -> str:
    lines = ["| field | other spellings | type | default | meaning |", "|---|---|---|---|---|"]
    for row in rows:
        spellings = ", ".join(f"`{name}`" for name in row.spellings)
        default = f"`{row.default}`" if row.default and row.default != "required" else row.default
        lines.append(f"| `{row.name}` | {spellings} | {_cell(row.type)} | {_cell(default)} | {_cell(row.doc)} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _handles(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
