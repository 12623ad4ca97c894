"""Filters for GraphQL: types of fields, names, and what operations return."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dipeo_nb.codegen.filters.strings import singularize
from dipeo_nb.codegen.filters.tables import Tables
from dipeo_nb.codegen.type_text import MAX_DEPTH


def graphql_field_type(field: Mapping[str, Any]) -> str:
    """The type of a field; `!` when it is required.

    >>> graphql_field_type({"type": "String", "required": True}), graphql_field_type({"type": "Int!", "required": True})
    ('String!', 'Int!')
    >>> graphql_field_type({"type": "Int"}), graphql_field_type({})
    ('Int', 'JSON')
    """
    text = str(field.get("type") or "JSON")
    return f"{text}!" if field.get("required") and not text.endswith("!") else text


def graphql_input_type_name(type_name: Any) -> str:
    """The name of the input for a type. Corrected: only the end changes.

    >>> graphql_input_type_name("ExecutionType"), graphql_input_type_name("TypeMapType"), graphql_input_type_name("Node")
    ('ExecutionInput', 'TypeMapInput', 'NodeInput')
    """
    return f"{str(type_name).removesuffix('Type')}Input"


def graphql_enum_value(value: Any) -> str:
    """A value as a name of GraphQL. Corrected: it does not begin with a digit, and is not one of the words that are none.

    >>> graphql_enum_value("very-small mini"), graphql_enum_value("4o"), graphql_enum_value("null")
    ('VERY_SMALL_MINI', '_4O', 'NULL')
    """
    made = re.sub(r"[^A-Z0-9_]", "_", str(value).upper())
    return f"_{made}" if made[:1].isdigit() or not made else made


def get_operation_return_type(operation_name: Any, operation_type: Any, tables: Any = None) -> str:
    """What an operation returns in Python, by the tables, and by its name: GetX, ListXs, CreateX …

    >>> get_operation_return_type("GetDiagram", "query"), get_operation_return_type("ListPersons", "query")
    ('DomainDiagramType', 'list[DomainPersonType]')
    >>> get_operation_return_type("CreateNode", "mutation"), get_operation_return_type("DeleteNode", "mutation")
    ('NodeResult', 'DeleteResult')
    >>> get_operation_return_type("GetExecution", "query"), get_operation_return_type("Whatever", "query")
    ('Optional[ExecutionStateType]', 'JSON')
    """
    known, name, kind = Tables.of(tables), str(operation_name), str(operation_type)
    if name in known.operation_types:
        return known.operation_types[name]
    if kind == "query":
        if name.startswith("List"):
            return f"list[{known.query_types.get(singularize(name[4:]), 'JSON')}]"
        made = known.query_types.get(name.removeprefix("Get"), "JSON") if name.startswith("Get") else "JSON"
        return f"Optional[{made}]" if name in known.nullable_operations else made
    found = re.fullmatch(r"(Create|Update|Load|Save|Test|Delete)(\w+)", name)
    if kind != "mutation" or found is None or found[2] not in known.result_types:
        return "JSON"
    return "DeleteResult" if found[1] == "Delete" else known.result_types[found[2]]


def to_strawberry_type(py_type: Any) -> str:
    """An annotation as Strawberry has it: mappings and Any are JSON. Corrected: also within others.

    >>> to_strawberry_type("Optional[List[Dict[str, Any]]]"), to_strawberry_type("list[str]"), to_strawberry_type("datetime")
    ('Optional[List[JSON]]', 'List[str]', 'DateTime')
    """
    text = str(py_type)
    for _ in range(MAX_DEPTH):  # from the inside
        text = re.sub(r"\b[Dd]ict(?:\[[^\[\]]*\])?(?!\[)", "JSON", text)
    made = {"Any": "JSON", "datetime": "DateTime", "list": "List", "set": "List", "Set": "List"}
    return re.sub(r"\b(?:Any|datetime|list|set|Set)\b", lambda found: made[found[0]], text)
