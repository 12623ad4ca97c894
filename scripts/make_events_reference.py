#!/usr/bin/env python3
"""Write docs/events.md, the reference of events, from dipeo_nb/domain/payloads.py, node_meta.py and transitions.py.

Usage: scripts/make_events_reference.py [--check]      (--check: write nothing; exit status 1 when the file is out of date)
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from dipeo_nb.domain.transitions import NODE_TRANSITIONS

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (ROOT / "dipeo_nb/domain/node_meta.py", ROOT / "dipeo_nb/domain/payloads.py")
TARGET = ROOT / "docs/events.md"
HEADER = """\
<!-- Written by scripts/make_events_reference.py from dipeo_nb/domain/payloads.py. Do not edit. -->

# Events

The log of a run is the record of it; everything that is shown of a run is computed from its log. An event has

- `seq`: its number within the run, from 1 and without gaps,
- `type`: one of those below,
- `run_id`,
- `occurred_at`: seconds since the epoch (UTC),
- `node_id`: of the node that it is about, or null,
- `payload`: a JSON mapping, whose fields depend on the type.

On the wire (`Event.to_wire`) they are called `metadata.seq`, `type`, `execution_id`, `timestamp` (ISO 8601), `node_id` and `data`.
An event is stored before it is shown, and the result of a node together with the start of its successors. The last event of a run is
`execution_completed` or `execution_error`; a run that is resumed goes on behind it with another `execution_started`.

Fields marked with ? may be absent. Later versions may add fields and kinds; those that are here keep their meaning.
"""


class Field(NamedTuple):
    name: str
    type: str
    optional: bool
    text: str


class Shape(NamedTuple):
    name: str
    text: str
    fields: list[Field]


def main(arguments: list[str]) -> int:
    text = reference("\n".join(source.read_text(encoding="utf-8") for source in SOURCES))
    if "--check" in arguments:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            print("docs/events.md is out of date. Run: scripts/make_events_reference.py", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text, encoding="utf-8")
    print("docs/events.md written")
    return 0


def reference(source: str) -> str:
    """The page. A section for each event type, in the order of the table `PAYLOADS`, then the types that they are made of."""
    tree = ast.parse(source)
    shapes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    table = next(node.value for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "PAYLOADS")
    assert isinstance(table, ast.Dict)
    sections, used = [HEADER], set[str]()
    for key, value in zip(table.keys, table.values, strict=True):
        assert isinstance(key, ast.Attribute)
        assert isinstance(value, ast.Tuple)
        sections.append(f"## {key.attr.lower()}\n")
        for name in (ast.unparse(item) for item in value.elts):
            shape = _shape(name, shapes)
            used.add(name)
            if len(value.elts) > 1:
                kind = next(field.type for field in shape.fields if field.name == "kind")
                sections.append(f"### kind {kind}\n")
            sections.append(_section(shape))
    sections.append(_transitions())
    sections.append("## Parts of payloads\n")
    rest = [name for name in shapes if name not in used | {"Signed"}]
    sections += (f"### {name}\n\n{_section(_shape(name, shapes))}" for name in rest)
    return "\n".join(sections)


def _transitions() -> str:
    lines = [
        "## Status of nodes\n",
        "A node is `pending` when the run begins. All else:\n",
        "| from | event | to | when |",
        "|---|---|---|---|",
    ]
    lines += (f"| {t.before} | {t.event} | {t.after} | {t.when} |" for t in NODE_TRANSITIONS)
    return "\n".join(lines) + "\n"


def _shape(name: str, shapes: Mapping[str, ast.ClassDef]) -> Shape:
    fields, text = list(_fields(shapes[name])), ast.get_docstring(shapes[name]) or ""
    bases = [base for base in map(ast.unparse, shapes[name].bases) if base in shapes]
    if "Signed" in bases:
        fields += _fields(shapes["Signed"])
    elif bases:
        text += f" The fields of {', '.join(f'[{base}](#{base.lower()})' for base in bases)}."
    return Shape(name, text, fields)


def _fields(node: ast.ClassDef) -> Iterator[Field]:
    partial = any(word.arg == "total" for word in node.keywords)
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            kind = statement.annotation
            optional = isinstance(kind, ast.Subscript) and ast.unparse(kind.value) == "NotRequired"
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
            inner = kind.slice if optional and isinstance(kind, ast.Subscript) else kind
            yield Field(ast.unparse(statement.target), _type(inner), optional or partial, str(text))


def _type(node: ast.expr) -> str:
    """A type as readers of JSON name it."""
    match node:
        case ast.Name("str" | "int" | "float" | "bool" | "Any" as name):
            return {"str": "text", "int": "integer", "float": "number", "bool": "boolean", "Any": "any value"}[name]
        case ast.Name(name):
            return f"[{name}](#{name.lower()})"
        case ast.Constant(None):
            return "null"
        case ast.BinOp(left, ast.BitOr(), right):
            return f"{_type(left)} or {_type(right)}"
        case ast.Subscript(ast.Name("Literal"), words):
            return ", ".join(
                f"`{ast.literal_eval(word)}`" for word in (words.elts if isinstance(words, ast.Tuple) else [words])
            )
        case ast.Subscript(ast.Name("Sequence"), item):
            return f"list of {_type(item)}"
        case ast.Subscript(ast.Name("tuple"), ast.Tuple(items)):
            return f"[{', '.join(map(_type, items))}]"
        case ast.Subscript(ast.Name("Mapping"), ast.Tuple([_, value])):
            return "mapping" if ast.unparse(value) == "Any" else f"mapping of {_type(value)}"
        case _:
            raise ValueError(f"no words for the type {ast.unparse(node)}")


def _section(shape: Shape) -> str:
    lines = [shape.text]
    if shape.fields:
        lines += ["", "| field | type | |", "|---|---|---|"]
    lines += (f"| `{f.name}`{'?' if f.optional else ''} | {f.type} | {f.text} |" for f in shape.fields)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
