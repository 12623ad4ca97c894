"""The filters of code generation, in the collections that DiPeO has them in.

Names that Jinja2 has itself stay Jinja2's: `upper`, `lower`, `capitalize`, `join`, `replace`, `default`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dipeo_nb.codegen.filters import case, frontend, graphql, python, strings, types

BUILT_IN = ("upper", "lower", "capitalize", "join", "replace", "default")
"""Filters that templates have from Jinja2."""


def _named(*functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    return {function.__name__: function for function in functions}


_CASE = _named(case.snake_case, case.pascal_case, case.camel_case, case.kebab_case)
_STRING = _named(strings.pluralize, strings.singularize, case.humanize, strings.escape_js, strings.strip_inline_comments)
_TYPES = _named(
    types.ts_to_python, types.graphql_to_python, types.ts_graphql_input_to_python, types.python_type_with_context, types.ensure_optional,
    strings.strip_inline_comments, types.infer_empty_object_type, types.get_python_imports, types.is_optional_type, types.is_branded_type,
    types.get_default_value, types.clear_cache,
)  # fmt: skip
_PYTHON = _named(
    python.python_default, python.pythonize_name, python.python_class_name, python.handler_class_name, python.get_pydantic_field,
    python.needs_field_alias, python.calculate_python_imports, python.build_validators, python.build_model_config,
    python.generate_enum_classes, python.spec_to_camel_name, types.python_type_with_context, python.get_field_python_type,
    python.get_static_node_imports, python.get_execution_logic, python.get_validation_checks,
)  # fmt: skip
_GRAPHQL = _named(
    graphql.graphql_field_type, graphql.graphql_input_type_name, graphql.graphql_enum_value, graphql.get_operation_return_type,
    graphql.to_strawberry_type,
)  # fmt: skip
_FRONTEND = _named(
    frontend.typescript_type, frontend.ui_field_type, frontend.zod_schema, strings.escape_js, frontend.get_enum_imports,
    frontend.get_branded_type_imports,
)  # fmt: skip
COLLECTIONS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "case": _CASE, "string": _STRING, "type_conversion": _TYPES, "python": _PYTHON, "graphql": _GRAPHQL, "frontend": _FRONTEND,
    "base": {**_CASE, **_STRING}, "backend": {**_PYTHON, **_TYPES}, "typescript": {**_TYPES, **_FRONTEND},
}  # fmt: skip
"""Name of a collection → its filters, without those of Jinja2."""
FILTERS: Mapping[str, Callable[..., Any]] = {
    name: function for collection in COLLECTIONS.values() for name, function in collection.items()
}
"""All of them."""
