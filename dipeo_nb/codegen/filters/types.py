"""Filters that turn types of TypeScript and GraphQL into annotations of Python.

A result is always a valid annotation, spelled with the names of `typing`. Entities are named by `tables` (see `filters.tables`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from dipeo_nb.codegen.filters.tables import Tables
from dipeo_nb.codegen.type_text import python_text, read_type, to_python

_TYPING = ("Any", "Callable", "Dict", "List", "Literal", "Never", "Optional", "Set", "Tuple", "Union")
GRAPHQL = {
    "ID": "str", "String": "str", "Int": "int", "Float": "float", "Boolean": "bool", "DateTime": "datetime", "Date": "datetime", "Time": "str",
    "JSON": "JSON", "JSONScalar": "JSON", "BigInt": "int", "Upload": "Upload",
}  # fmt: skip
"""GraphQL's scalars, and those that Strawberry adds, in Python."""


def ts_to_python(ts_type: Any, field_name: str = "", tables: Any = None) -> str:
    """The annotation for a type of TypeScript. Corrected: function types, `Partial<T>`, `readonly T[]` and whatever else Python has
    no word for become annotations, too.

    >>> ts_to_python("string[]"), ts_to_python("'a' | 'b' | undefined"), ts_to_python("number", "timeout")
    ('List[str]', 'Optional[Literal["a", "b"]]', 'int')
    >>> ts_to_python("Partial<Foo>"), ts_to_python("(a: string) => void"), ts_to_python("readonly Foo[]")
    ('Dict[str, Any]', 'Callable[[str], None]', 'List[Foo]')
    """
    if not ts_type:
        return "Any"
    known = Tables.of(tables)
    number = "int" if field_name in known.integer_fields else "float"
    return to_python(read_type(str(ts_type)), known.type_names, number)


def graphql_to_python(graphql_type: Any, required: bool = True) -> str:
    """The annotation for a type of GraphQL; without `!` and not required, it is optional.

    >>> graphql_to_python("[String!]!"), graphql_to_python("Int", False), graphql_to_python("Int!", False), graphql_to_python("User")
    ('list[str]', 'Optional[int]', 'int', 'User')
    """
    text = str(graphql_type or "").strip()
    certain = text.endswith("!")
    made = _graphql(text)
    return made if required or certain or made.startswith("Optional[") else f"Optional[{made}]"


def _graphql(text: str) -> str:
    inner = text.removesuffix("!").strip()
    depth = 0
    while inner.startswith("[") and inner.endswith("]") and depth < 20:
        inner = inner[1:-1].strip().removesuffix("!").strip()
        depth += 1
    made = GRAPHQL.get(inner, inner) if re.fullmatch(r"\w+", inner) else "Any"
    return "list[" * depth + made + "]" * depth


def ts_graphql_input_to_python(ts_type: Any, field_name: str = "", tables: Any = None) -> str:
    """The annotation for an input type that GraphQL's code generator wrote in TypeScript. `ID` stays, as a `str` would be a String.

    >>> ts_graphql_input_to_python("InputMaybe<Array<Scalars['ID']['input']>>"), ts_graphql_input_to_python("any", "data")
    ('Optional[List[ID]]', 'JSON')
    >>> ts_graphql_input_to_python("Vec2Input"), ts_graphql_input_to_python("NodeID"), ts_graphql_input_to_python("Record<string, any>")
    ('Vec2Input', 'str', 'JSON')
    """
    known = Tables.of(tables)
    text = re.sub(r"Scalars\['(\w+)'\]\['(?:input|output)'\]", lambda found: f"GraphQL__{found[1]}", str(ts_type or ""))
    names = {f"GraphQL__{name}": python for name, python in GRAPHQL.items()} | {"GraphQL__ID": "ID"}
    names |= dict.fromkeys(known.branded_types, "str") | dict.fromkeys(("any", "unknown", "object", "Record", "Dict"), "JSON")
    made = to_python(read_type(text), names, "int" if field_name in known.integer_fields else "float")
    made = re.sub(r"Dict\[[^\[\]]*\]|\bAny\b", "JSON", made)
    return re.sub(r"\bGraphQL__(\w+)", r"\1", made)


def python_type_with_context(field: Mapping[str, Any], node_type: str = "", mappings: Any = None, tables: Any = None) -> str:
    """The annotation for a field of a node: by its name, by *mappings*' table `ts_to_py_type`, else by its type.

    >>> python_type_with_context({"name": "url", "type": "string", "required": True}, "api_job")
    'str'
    >>> python_type_with_context({"name": "method", "type": "enum"}), python_type_with_context({"name": "x1", "type": "number", "default": 1})
    ('Optional[HttpMethod]', 'float')
    >>> python_type_with_context({"name": "mode", "type": "enum", "validation": {"allowedValues": ["a", 'b"']}, "required": True})
    'Literal["a", "b\\\\""]'
    """
    known = Tables.of(tables)
    base = _base(field, node_type, mappings, known)
    if field.get("required"):
        return base
    default = field.get("default", field.get("defaultValue"))
    container = field.get("type") in ("object", "dict", "array", "list")
    return (
        base
        if (default is not None and not container) or base.startswith("Optional[") or base == "Any"
        else f"Optional[{base}]"
    )


def _base(field: Mapping[str, Any], node_type: str, mappings: Any, known: Tables) -> str:
    name, kind = str(field.get("name", "")), str(field.get("type", "string"))
    given: Mapping[str, Any] = (
        cast(Mapping[str, Any], mappings).get("ts_to_py_type") or {} if isinstance(mappings, Mapping) else {}
    )
    if name in known.field_types:
        return known.field_types[name]
    if kind in given:
        return str(given[kind])
    if name in known.node_field_types.get(node_type, {}):
        return known.node_field_types[node_type][name]
    match kind:
        case "object" | "dict" | "json":
            return "Dict[str, Any]"
        case "array" | "list":
            return "List[Any]"
        case "number" if name in ("max_iteration", "maxIteration"):
            return "int"
        case "enum":
            validation = field.get("validation")
            allowed = cast(Mapping[str, Any], validation).get("allowedValues") if isinstance(validation, Mapping) else None
            values: list[Any] = list(field.get("values") or field.get("enum") or allowed or [])
            return f"Literal[{', '.join(python_literal(value) for value in values)}]" if values else "str"
        case _:
            return ts_to_python(kind, name, known)


def python_literal(value: Any) -> str:
    """A value as Python source: texts in double quotes, escaped.

    >>> print(python_literal('a "b"\\n'), python_literal(True), python_literal({"a": [None, 1.5]}))
    "a \\"b\\"\\n" True {"a": [None, 1.5]}
    """
    if isinstance(value, str):
        return python_text(value)
    if isinstance(value, Mapping):
        named = cast(Mapping[Any, Any], value)
        return "{" + ", ".join(f"{python_literal(k)}: {python_literal(v)}" for k, v in named.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(python_literal(item) for item in cast(Iterable[Any], value)) + "]"
    return repr(value)


def ensure_optional(type_text: Any) -> str:
    """The annotation, optional if it is not yet. Corrected: what ends with `| None`, and Any, are.

    >>> ensure_optional("int"), ensure_optional("Optional[int]"), ensure_optional("int | None"), ensure_optional("")
    ('Optional[int]', 'Optional[int]', 'int | None', '')
    """
    text = str(type_text or "")
    done = not text or text in ("Any", "None") or text.startswith("Optional[") or re.search(r"\|\s*None$", text)
    return text if done else f"Optional[{text}]"


def infer_empty_object_type(field_name: Any, context: Any = None) -> str:
    """The annotation for a field that is `{}` in its source, guessed from its name.

    >>> infer_empty_object_type("node_indices"), infer_empty_object_type("tags"), infer_empty_object_type("messages")
    ('List[int]', 'List[str]', 'List[Any]')
    >>> infer_empty_object_type("config")
    'Dict[str, Any]'
    """
    name = str(field_name).lower()
    if "indices" in name:
        return "List[int]"
    if any(word in name for word in ("tools", "tags", "args", "env", "params", "headers")):
        return "List[str]"
    lists = (
        "messages",
        "nodes",
        "handles",
        "arrows",
        "persons",
        "fields",
        "inputs",
        "outputs",
        "examples",
        "items",
        "elements",
    )
    return "List[Any]" if name in lists else "Dict[str, Any]"


def get_python_imports(types_used: Iterable[Any]) -> list[str]:
    """The import from `typing` that annotations need. Corrected: whole words count, and one line has all of them.

    >>> get_python_imports(["List[str]", "Optional[Any]", "ManyThings"])
    ['from typing import Any, List, Optional']
    >>> get_python_imports(["datetime"]), get_python_imports([])
    (['from datetime import datetime'], [])
    """
    words = {word for text in types_used for word in re.findall(r"[A-Za-z_]\w*", re.sub(r'"(?:[^"\\]|\\.)*"', "", str(text)))}
    found = sorted(words & set(_TYPING))
    made = ["from datetime import datetime"] if "datetime" in words else []
    return made + ([f"from typing import {', '.join(found)}"] if found else [])


def is_optional_type(ts_type: Any) -> bool:
    """Whether a type of TypeScript is null or undefined, or has one of them among its members. Corrected: anywhere in it.

    >>> is_optional_type("null | string"), is_optional_type("undefined"), is_optional_type("Array<string | null>")
    (True, True, False)
    """
    made = read_type(str(ts_type or ""))
    members = made.parts if made.kind == "union" else (made,)
    return any(part.kind == "name" and part.text in ("null", "undefined") for part in members)


def is_branded_type(type_name: Any, tables: Any = None) -> bool:
    """Whether it is a text with a name of its own.

    >>> is_branded_type("PersonID"), is_branded_type("string"), is_branded_type("OrderID", {"branded_types": ["OrderID"]})
    (True, False, True)
    """
    return str(type_name) in Tables.of(tables).branded_types


def get_default_value(py_type: Any, is_optional: bool = False) -> str:
    """The source of an empty value for an annotation.

    >>> get_default_value("str"), get_default_value("List[int]"), get_default_value("Optional[int]"), get_default_value("int", True)
    ('""', '[]', 'None', 'None')
    >>> get_default_value("list[int]"), get_default_value("Foo | None"), get_default_value("Foo")
    ('[]', 'None', 'None')
    """
    text = str(py_type or "")
    if is_optional or text.startswith("Optional[") or re.search(r"\|\s*None$", text):
        return "None"
    simple = {"str": '""', "int": "0", "float": "0.0", "bool": "False"}
    made = {"list": "[]", "dict": "{}", "set": "set()", "tuple": "()"}
    return simple.get(text) or made.get(text.partition("[")[0].lower(), "None")


def clear_cache(value: Any = None) -> str:
    """Forget the types that were read; gives no text. There is nothing to clear between renderings: results depend on arguments only.

    >>> clear_cache()
    ''
    """
    read_type.cache_clear()
    return ""
