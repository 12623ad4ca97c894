"""Filters that write Python: names, defaults, Pydantic fields, enums, handlers.

A field is a mapping: name, type, required, default (or defaultValue), description, validation, enum.
"""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping
from typing import Any, cast

from dipeo_nb.codegen.filters.case import pascal_case, snake_case, words_of
from dipeo_nb.codegen.filters.tables import Tables
from dipeo_nb.codegen.filters.types import get_python_imports, python_literal, python_type_with_context

Field = Mapping[str, Any]
Spec = Mapping[str, Any]
"""With `fields` and `nodeType`."""
_EMPTY = {
    "object": "field(default_factory=dict)", "dict": "field(default_factory=dict)", "array": "field(default_factory=list)",
    "list": "field(default_factory=list)", "string": '""', "number": "0", "boolean": "False",
}  # fmt: skip


def python_default(field: Field) -> str:
    """The source of a field's default. Corrected: texts are escaped, also within containers.

    >>> print(python_default({"type": "string", "default": 'a "b"'}), python_default({"default": True}), python_default({"type": "number"}))
    "a \\"b\\"" True None
    >>> python_default({"type": "array", "required": True}), python_default({"default": ["a"]})
    ('field(default_factory=list)', '["a"]')
    """
    has, default = _default(field)
    if has:
        return python_literal(default)
    return _EMPTY.get(str(field.get("type", "string")), "None") if field.get("required") else "None"


def _default(field: Field) -> tuple[bool, Any]:
    for key in ("default", "defaultValue"):
        if key in field:
            return True, field[key]
    return False, None


def pythonize_name(name: Any) -> str:
    """A name as Python writes it. Corrected: acronyms and separators; words of the language get an underscore.

    >>> pythonize_name("maxIteration"), pythonize_name("price-tag"), pythonize_name("class"), pythonize_name("2nd"), pythonize_name("")
    ('max_iteration', 'price_tag', 'class_', '_2nd', '')
    >>> pythonize_name("_private"), pythonize_name("größteZahl"), pythonize_name("²")
    ('_private', 'größte_zahl', '_')
    """
    text = str(name or "")
    if not text:
        return ""
    made = "_" * (len(text) - len(text.lstrip("_"))) + snake_case(text)
    if made[:1].isdigit() or not made.strip("_"):
        made = f"_{made}"
    return f"{made}_" if keyword.iskeyword(made) else made


def python_class_name(node_type: Any) -> str:
    """The class of a node type.

    >>> python_class_name("api_job"), python_class_name("json-schema_validator"), python_class_name("")
    ('ApiJobNode', 'JsonSchemaValidatorNode', 'UnknownNode')
    """
    return f"{pascal_case(snake_case(node_type)) or 'Unknown'}Node"


def handler_class_name(node_type: Any) -> str:
    """The class of a node type's handler.

    >>> handler_class_name("api_job"), handler_class_name(None)
    ('ApiJobNodeHandler', 'UnknownNodeHandler')
    """
    return f"{python_class_name(node_type)}Handler"


def get_pydantic_field(field: Field) -> str:
    """The `Field(…)` of Pydantic 2. Corrected: `pattern=`, which was `regex=` in version 1, and escaped texts.

    >>> get_pydantic_field({"name": "maxTokens", "default": 5, "validation": {"min": 1}})
    'Field(default=5, alias="maxTokens", ge=1)'
    >>> print(get_pydantic_field({"name": "a", "required": True, "description": 'The "a"', "validation": {"pattern": "^a+$"}}))
    Field(description="The \\"a\\"", pattern="^a+$")
    >>> get_pydantic_field({"name": "a", "required": True}), get_pydantic_field({"name": "a"}), get_pydantic_field({"name": "a", "default": []})
    ('...', 'Field(default=None)', 'Field(default_factory=lambda: [])')
    """
    parts: list[str] = []
    if not field.get("required"):
        _, default = _default(field)
        factory = isinstance(default, (list, dict))
        parts.append(f"{'default_factory=lambda: ' if factory else 'default='}{python_literal(default)}")
    if description := field.get("description"):
        parts.append(f"description={python_literal(str(description))}")
    if needs_field_alias(field):
        parts.append(f"alias={python_literal(str(field.get('name')))}")
    rules = _validation(field)
    names = {"minLength": "min_length", "maxLength": "max_length", "pattern": "pattern", "min": "ge", "max": "le"}
    parts += [f"{made}={python_literal(rules[name])}" for name, made in names.items() if name in rules]
    return f"Field({', '.join(parts)})" if parts else "..."


def _validation(field: Field) -> Mapping[str, Any]:
    given = field.get("validation")
    return cast(Mapping[str, Any], given) if isinstance(given, Mapping) else {}


def needs_field_alias(field: Field) -> bool:
    """Whether the name in Python is another one.

    >>> needs_field_alias({"name": "maxTokens"}), needs_field_alias({"name": "url"})
    (True, False)
    """
    name = str(field.get("name", ""))
    return pythonize_name(name) != name


def _fields(spec: Spec) -> list[Field]:
    return list(cast(Iterable[Field], spec.get("fields") or ()))


def calculate_python_imports(spec: Spec, tables: Any = None) -> list[str]:
    """The imports of a model: only what it uses. Corrected: nothing of Pydantic 1, and no module of DiPeO's.

    >>> calculate_python_imports({"fields": [{"name": "a", "type": "string"}, {"name": "b", "enum": ["x"], "type": "enum"}]})
    ['from enum import Enum', 'from pydantic import BaseModel, Field', 'from typing import Literal, Optional']
    """
    fields = _fields(spec)
    node_type = str(spec.get("nodeType", ""))
    types = [python_type_with_context(field, node_type, None, tables) for field in fields]
    made = set(get_python_imports(types)) | {"from pydantic import BaseModel, Field"}
    if generate_enum_classes(spec):
        made.add("from enum import Enum")
    return sorted(made)


def build_validators(spec: Spec) -> list[dict[str, Any]]:
    """Methods that check fields beyond what `Field(…)` can: those with `validation.custom`, as `{field, name, code}`. Corrected: a
    pattern is checked by `Field(pattern=…)`.

    >>> build_validators({"fields": [{"name": "maxTokens", "validation": {"custom": "return v"}}, {"name": "b", "validation": {"pattern": "x"}}]})
    [{'field': 'max_tokens', 'name': 'validate_max_tokens', 'code': 'return v'}]
    """
    made: list[dict[str, Any]] = []
    for field in _fields(spec):
        rules = _validation(field)
        if "custom" in rules:
            name = pythonize_name(field.get("name"))
            made.append({"field": name, "name": f"validate_{name}", "code": rules["custom"]})
    return made


def build_model_config(spec: Spec) -> dict[str, Any]:
    """Values for `ConfigDict(…)`. Corrected: `populate_by_name`, which had another name in version 1.

    >>> build_model_config({"fields": [{"name": "maxTokens"}], "modelConfig": {"extra": "ignore"}})
    {'use_enum_values': True, 'validate_assignment': True, 'extra': 'ignore', 'populate_by_name': True}
    """
    made: dict[str, Any] = {"use_enum_values": True, "validate_assignment": True, "extra": "forbid"}
    if any(needs_field_alias(field) for field in _fields(spec)):
        made["populate_by_name"] = True
    given = spec.get("modelConfig")
    return made | dict(cast(Mapping[str, Any], given)) if isinstance(given, Mapping) else made


def generate_enum_classes(spec: Spec) -> list[dict[str, Any]]:
    """Enums for fields that list their values: `{name, values, field_name}`.

    >>> generate_enum_classes({"fields": [{"name": "auth_type", "enum": ["none", "basic"]}, {"name": "b"}]})
    [{'name': 'AuthTypeEnum', 'values': ['none', 'basic'], 'field_name': 'auth_type'}]
    """
    return [
        {"name": f"{pascal_case(snake_case(field['name']))}Enum", "values": list(field["enum"]), "field_name": field["name"]}
        for field in _fields(spec)
        if isinstance(field.get("enum"), (list, tuple)) and field["enum"]
    ]


def spec_to_camel_name(node_type: Any) -> str:
    """The constant that holds a node type's specification.

    >>> spec_to_camel_name("api_job"), spec_to_camel_name("db"), spec_to_camel_name("")
    ('apiJobSpec', 'dbSpec', 'unknownSpec')
    """
    first, *rest = words_of(node_type) or ["unknown"]
    return f"{first.lower()}{''.join(part.capitalize() for part in rest)}Spec"


def get_field_python_type(field: Field, context: Spec, tables: Any = None) -> str:
    """`python_type_with_context` with node type and mappings of a context.

    >>> get_field_python_type({"name": "tools", "type": "string"}, {"nodeType": "person_job"})
    'Optional[List[ToolConfig]]'
    """
    return python_type_with_context(field, str(context.get("nodeType", "")), context.get("mappings"), tables)


def get_static_node_imports(spec: Spec, tables: Any = None) -> list[str]:
    """The imports of a handler: those of the tables, and what the annotations of its fields need.

    >>> get_static_node_imports({"fields": [{"name": "a", "type": "object"}]}, {"handler_imports": ["import handlers"]})
    ['from typing import Any, Dict, Optional', 'import handlers']
    """
    types = [get_field_python_type(field, spec, tables) for field in _fields(spec)]
    return sorted({*Tables.of(tables).handler_imports, *get_python_imports(types)})


def get_execution_logic(node_type: Any, tables: Any = None) -> list[str]:
    """The lines of a handler, from the tables. Corrected: one that nobody has written raises instead of reporting success.

    >>> get_execution_logic("a", {"execution_logic": {"a": ["return 1"]}}), get_execution_logic("b", {})
    (['return 1'], ['raise NotImplementedError("b")'])
    """
    lines = Tables.of(tables).execution_logic.get(str(node_type))
    return list(lines) if lines else [f"raise NotImplementedError({python_literal(str(node_type))})"]


def get_validation_checks(spec: Spec, tables: Any = None) -> list[str]:
    """Statements that check the required fields of a node, and that one of the tables' `needed_fields` has a value.

    >>> print(get_validation_checks({"nodeType": "x", "fields": [{"name": "url", "required": True}, {"name": "b"}]})[0])
    if 'url' not in node.props:
        raise ValidationError('Missing required field: url')
    >>> get_validation_checks({"nodeType": "code_job"})
    ["if not any(node.props.get(name) for name in ['code']):\\n    raise ValidationError('code_job needs code')"]
    """
    made = [
        f"if {str(field['name'])!r} not in node.props:\n    raise ValidationError({'Missing required field: ' + str(field['name'])!r})"
        for field in _fields(spec)
        if field.get("required")
    ]
    node_type = str(spec.get("nodeType", ""))
    if needed := Tables.of(tables).needed_fields.get(node_type):
        message = f"{node_type} needs {' or '.join(needed)}"
        made.append(f"if not any(node.props.get(name) for name in {list(needed)!r}):\n    raise ValidationError({message!r})")
    return made
