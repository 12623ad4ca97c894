"""Macros that templates of files have: `{% from 'macros' import ts_property %}`, or `{{ macros.ts_property('a', 'string') }}`."""

from __future__ import annotations

from collections.abc import Mapping

LIBRARY: Mapping[str, str] = {
    "python_type_hint": (
        "{% macro python_type_hint(type_name, is_optional=false) -%}\n"
        "{{ type_name }}{% if is_optional %} | None{% endif %}\n"
        "{%- endmacro %}"
    ),
    "ts_property": (
        "{% macro ts_property(name, type_name, is_optional=false, readonly=false) -%}\n"
        "{% if readonly %}readonly {% endif %}{{ name }}{% if is_optional %}?{% endif %}: {{ type_name }};\n"
        "{%- endmacro %}"
    ),
    "graphql_field": (
        "{% macro graphql_field(name, type_name, is_required=false) -%}\n"
        "{{ name }}: {{ {'type': type_name, 'required': is_required} | graphql_field_type }}\n"
        "{%- endmacro %}"
    ),
    "doc_comment": (
        "{% macro doc_comment(text, style='python') -%}\n"
        '{% if style == \'python\' %}"""{{ text | replace(\'\\\\\', \'\\\\\\\\\') | replace(\'"""\', \'\\\\"\\\\"\\\\"\') }}"""\n'
        '{%- elif style == \'graphql\' %}"""{{ text | replace(\'"""\', \'\\\\"""\') }}"""\n'
        "{%- else %}/** {{ text | replace('*/', '*\\\\/') }} */{% endif %}\n"
        "{%- endmacro %}"
    ),
    "python_class": (
        "{% macro python_class(name, bases=[], docstring='') -%}\n"
        "class {{ name }}{% if bases %}({{ bases | join(', ') }}){% endif %}:\n"
        "{%- if docstring %}\n    {{ doc_comment(docstring) }}{% endif %}\n"
        "{%- if caller is defined %}\n{{ caller() }}{% elif not docstring %}\n    pass{% endif %}\n"
        "{%- endmacro %}"
    ),
    "ts_interface": (
        "{% macro ts_interface(name, properties=[], extends=[]) -%}\n"
        "export interface {{ name }}{% if extends %} extends {{ extends | join(', ') }}{% endif %} {\n"
        "{% for property in properties %}  {{ ts_property(property.name, property.type, property.optional | default(false), "
        "property.readonly | default(false)) }}\n{% endfor %}}\n"
        "{%- endmacro %}"
    ),
    "import_statement": (
        "{% macro import_statement(module, names=[], style='python') -%}\n"
        "{% if style == 'python' %}{% if names %}from {{ module }} import {{ names | join(', ') }}{% else %}import {{ module }}{% endif %}\n"
        "{%- else %}import { {{- ' ' }}{{ names | join(', ') }} } from '{{ module | escape_js }}';{% endif %}\n"
        "{%- endmacro %}"
    ),
}
"""Name → source. A macro may call those before it."""


def library(more: Mapping[str, str] | None = None) -> str:
    """The source of the template: the macros of this module and *more*."""
    return "\n".join({**LIBRARY, **(more or {})}.values())
