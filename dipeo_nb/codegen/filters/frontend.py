"""Filters that write TypeScript for user interfaces: types, form controls, Zod schemas, imports.

A field is a mapping: name, type, required, isArray, enum, description, uiType, validation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from dipeo_nb.codegen.filters.case import snake_case
from dipeo_nb.codegen.filters.tables import Tables
from dipeo_nb.codegen.type_text import Type, read_type

Field = Mapping[str, Any]
_TYPES = {
    "string": "string", "number": "number", "integer": "number", "boolean": "boolean", "object": "Record<string, any>",
    "dict": "Record<string, any>", "list": "any[]", "array": "any[]",
}  # fmt: skip
_CONTROLS = (
    (("password", "secret", "token", "key"), "password"),
    (("url", "link", "href"), "url"),
    (("description", "content", "body", "message", "notes"), "textarea"),
)
"""Words of a name → control."""
_BY_TYPE = {
    "boolean": "checkbox", "number": "number", "integer": "number", "array": "textarea", "list": "textarea", "object": "textarea",
    "dict": "textarea", "enum": "select",
}  # fmt: skip
_ZOD = {
    "string": "z.string()", "number": "z.number()", "integer": "z.number().int()", "boolean": "z.boolean()", "date": "z.date()",
    "object": "z.record(z.any())", "dict": "z.record(z.any())", "null": "z.null()", "undefined": "z.undefined()", "array": "z.array(z.any())",
    "list": "z.array(z.any())",
}  # fmt: skip
_LINE_ENDS = str.maketrans({"\n": "\\n", "\r": "\\r", "\u2028": "\\u2028", "\u2029": "\\u2029"})
"""What ends a literal of JavaScript."""


def typescript_type(field: Field, tables: Any = None) -> str:
    """The type of a field. Corrected: members of an array of a union stand in parentheses, and are not optional themselves.

    >>> typescript_type({"name": "a", "type": "string"}), typescript_type({"name": "a", "type": "dict", "required": True})
    ('string | undefined', 'Record<string, any>')
    >>> typescript_type({"name": "a", "type": "enum", "enum": ["x", 1], "isArray": True, "required": True})
    '("x" | 1)[]'
    >>> typescript_type({"name": "method", "type": "enum", "required": True})
    'HttpMethod'
    """
    kind = str(field.get("type") or "any")
    made = _enum(field, Tables.of(tables)) if kind == "enum" else _TYPES.get(kind, kind)
    if field.get("isArray"):
        made = f"({made})[]" if "|" in made or "=>" in made else f"{made}[]"
    if field.get("required") or _has_undefined(read_type(made)):
        return made
    return f"({made}) | undefined" if "=>" in made else f"{made} | undefined"


def _enum(field: Field, known: Tables) -> str:
    name = str(field.get("name", ""))
    if named := known.field_types.get(name) or known.typescript_field_types.get(name):
        return named
    values = field.get("enum")
    return (
        " | ".join(_js(value) for value in cast(Iterable[Any], values))
        if isinstance(values, (list, tuple)) and values
        else "string"
    )


def _has_undefined(made: Type) -> bool:
    parts = made.parts if made.kind == "union" else (made,)
    return any(part.kind == "name" and part.text in ("undefined", "any", "unknown") and not part.parts for part in parts)


def ui_field_type(field: Field) -> str:
    """The control of a form: `uiType`, else by the words of the name, else by the type. Corrected: whole words count, so that
    `monkey` is text.

    >>> ui_field_type({"name": "apiKey"}), ui_field_type({"name": "monkey"}), ui_field_type({"name": "message_body"})
    ('password', 'text', 'textarea')
    >>> ui_field_type({"name": "a", "type": "boolean"}), ui_field_type({"name": "a", "enum": ["x"]}), ui_field_type({"uiType": "code"})
    ('checkbox', 'select', 'code')
    """
    if given := field.get("uiType"):
        return str(given)
    words = snake_case(field.get("name")).split("_")
    kind = str(field.get("type", "text"))
    if kind not in ("boolean", "number", "integer"):
        for names, control in _CONTROLS:
            if any(word in names for word in words):
                return control
    return "select" if field.get("enum") else _BY_TYPE.get(kind, "text")


def zod_schema(field: Any) -> str:
    """The Zod schema of a field. Corrected: texts are escaped; values of an enum other than texts are literals.

    >>> zod_schema({"type": "string", "required": True, "validation": {"minLength": 1, "pattern": "^a/b$"}})
    'z.string().min(1).regex(/^a\\\\/b$/)'
    >>> zod_schema({"type": "enum", "enum": ["a", "b"], "isArray": True, "description": 'The "a"'})
    'z.array(z.enum(["a", "b"])).optional().describe("The \\\\"a\\\\"")'
    >>> zod_schema({"enum": [1, 2], "required": True}), zod_schema({"type": "Foo", "required": True}), zod_schema(None)
    ('z.union([z.literal(1), z.literal(2)])', 'z.any()', 'z.any()')
    >>> print(zod_schema({"required": True, "validation": {"pattern": "a\\r\\u2028"}}))
    z.string().regex(/a\\r\\u2028/)
    """
    if not isinstance(field, Mapping):
        return "z.any()"
    given = cast(Field, field)
    made = _ZOD.get(str(given.get("type", "string")), "z.any()")
    values = given.get("enum")
    if isinstance(values, (list, tuple)) and values:
        made = _zod_enum(list(cast(Iterable[Any], values)))
    else:
        made += _zod_rules(given)
    if given.get("isArray"):
        made = f"z.array({made})"
    if not given.get("required"):
        made += ".optional()"
    if description := given.get("description"):
        made += f".describe({_js(str(description))})"
    return made


def _zod_enum(values: list[Any]) -> str:
    if all(isinstance(value, str) for value in values):
        return f"z.enum([{', '.join(map(_js, values))}])"
    literals = [f"z.literal({_js(value)})" for value in values]
    return literals[0] if len(literals) == 1 else f"z.union([{', '.join(literals)}])"


def _zod_rules(field: Field) -> str:
    given = field.get("validation")
    rules: Mapping[str, Any] = cast(Mapping[str, Any], given) if isinstance(given, Mapping) else {}
    made = ""
    if field.get("type", "string") == "string":
        made += "".join(
            f".{name}({_js(rules[key])})" for key, name in (("minLength", "min"), ("maxLength", "max")) if key in rules
        )
        if "pattern" in rules:
            pattern = re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\/", str(rules["pattern"])).translate(_LINE_ENDS)
            made += f".regex(/{pattern or '(?:)'}/)"
        made += "".join(f".{name}()" for name in ("email", "url") if rules.get(name))
    elif field.get("type") in ("number", "integer"):
        made += "".join(f".{name}({_js(rules[name])})" for name in ("min", "max") if name in rules)
        made += ".int()" if (rules.get("int") or rules.get("integer")) and field.get("type") == "number" else ""
        made += "".join(f".{name}()" for name in ("positive", "negative") if rules.get(name))
    return made


def _js(value: Any) -> str:
    """A value as a literal of JavaScript."""
    return json.dumps(value, ensure_ascii=False).translate(_LINE_ENDS)


def get_enum_imports(fields: Iterable[Field], tables: Any = None) -> list[str]:
    """The enums that fields are typed with, sorted.

    >>> get_enum_imports([{"name": "method", "type": "enum"}, {"name": "b", "type": "enum"}, {"name": "method", "type": "string"}])
    ['HttpMethod']
    """
    known = Tables.of(tables)
    names = {**known.typescript_field_types, **known.field_types}
    return sorted({names[str(f.get("name"))] for f in fields if f.get("type") == "enum" and f.get("name") in names})


def get_branded_type_imports(fields: Iterable[Field], tables: Any = None) -> list[str]:
    """The branded types of fields, sorted. Corrected: also in arrays.

    >>> get_branded_type_imports([{"type": "PersonID"}, {"type": "NodeID[]"}, {"type": "string"}])
    ['NodeID', 'PersonID']
    """
    known = Tables.of(tables).branded_types
    return sorted({word for field in fields for word in re.findall(r"\w+", str(field.get("type", ""))) if word in known})
