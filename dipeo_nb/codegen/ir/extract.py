"""Extractions: what one source says. Each is a pure function of the source's collections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from dipeo_nb.codegen.filters.case import pascal_case
from dipeo_nb.codegen.filters.graphql import get_operation_return_type
from dipeo_nb.codegen.filters.python import pythonize_name
from dipeo_nb.codegen.filters.types import graphql_to_python, is_optional_type
from dipeo_nb.codegen.ir.model import Alias, EnumDef, EnumValue, Field, Model, NewType, NodeSpecIR, Operation, Variable
from dipeo_nb.codegen.type_text import Type, read_type, to_python

Ast = Mapping[str, Any]
Options = Mapping[str, Any]


def in_files(source: str, options: Options, name: str) -> bool:
    """Whether a source is one of the files that an option lists by the ends of their names; without the option, all are."""
    ends = cast(list[str], options.get(name) or [])
    return not ends or any(source == end or source.endswith(f"/{end}") for end in ends)


def _items(ast: Ast, key: str) -> list[Mapping[str, Any]]:
    return list(cast(Iterable[Mapping[str, Any]], ast.get(key) or ()))


def enums(source: str, ast: Ast, _: Options) -> list[EnumDef]:
    """All enums, those of one name as one; those in braces with a name of their own (`as const`) are constants, not enums."""
    found: dict[str, EnumDef] = {}
    for each in _items(ast, "enums"):
        values = tuple(EnumValue(str(member["name"]), member.get("value")) for member in _items(each, "members"))
        made = EnumDef(str(each["name"]), values, str(each.get("jsDoc") or ""), source)
        known = found.get(made.name)
        found[made.name] = made if known is None else replace(known, values=known.values + values)
    return list(found.values())


def models(source: str, ast: Ast, options: Options) -> list[Model]:
    """Interfaces with their own properties, those of one name as one, as TypeScript merges them; bases by name."""
    skipped = set(cast(list[str], options.get("skipped_models") or []))
    if not in_files(source, options, "model_files"):
        return []
    found: dict[str, list[Model]] = {}
    for each in _items(ast, "interfaces"):
        if each["name"] not in skipped and "namespace" not in each:
            found.setdefault(str(each["name"]), []).append(model(source, each))
    return [merged(declared) for declared in found.values()]


def merged(declared: Sequence[Model]) -> Model:
    """The declarations of one interface as one."""
    first, *others = declared
    return first if not others else replace(
        first, fields=distinct({field.name: field for each in declared for field in each.fields}.values()),
        extends=tuple(dict.fromkeys(base for each in declared for base in each.extends)),
        description=next((each.description for each in declared if each.description), ""), open=any(each.open for each in declared),
    )  # fmt: skip


def distinct(fields: Iterable[Field]) -> tuple[Field, ...]:
    """Fields with names of their own in Python: of `userId` and `user_id`, the second one is `user_id_2`."""
    found: dict[str, Field] = {}
    last: dict[str, int] = {}
    for field in fields:
        name = python = pythonize_name(field.name) or "_"
        while python in found:
            last[name] = last.get(name, 1) + 1
            python = f"{name}_{last[name]}"
        found[python] = field if python == field.python_name else replace(field, python_name=python)
    return tuple(found.values())


def inputs(source: str, ast: Ast, options: Options) -> list[Model]:
    """Inputs of GraphQL: interfaces, and aliases of objects, whose names end with `Input`."""
    if not in_files(source, options, "input_files"):
        return []
    found = [model(source, each) for each in _items(ast, "interfaces") if str(each["name"]).endswith("Input")]
    found += [
        model(source, {**each, "properties": object_properties(str(each["type"])), "extends": []})
        for each in _items(ast, "types")
        if str(each["name"]).endswith("Input") and read_type(str(each["type"])).kind == "object"
    ]
    return found


def model(source: str, interface: Mapping[str, Any]) -> Model:
    generic = [str(each["name"]) for each in _items(interface, "typeParameters")]
    return Model(
        name=str(interface["name"]),
        fields=distinct(_field(each, generic) for each in _items(interface, "properties")),
        extends=tuple(
            re.sub(r"<.*", "", str(base), flags=re.DOTALL) for base in cast(list[Any], interface.get("extends") or [])
        ),
        description=str(interface.get("jsDoc") or ""),
        source=source,
        open=bool(interface.get("indexSignatures")),
    )


def _field(each: Mapping[str, Any], generic: list[str]) -> Field:
    text = str(each.get("type") or "any")
    made = read_type(text)
    literal = made.kind == "literal" or (made.kind == "name" and made.text in ("true", "false"))
    python = to_python(made, unknown=generic)
    optional = bool(each.get("optional"))
    return Field(
        name=str(each["name"]),
        type=text,
        python_name=pythonize_name(each["name"]),
        python_type=python[len("Optional[") : -1] if optional and python.startswith("Optional[") else python,
        graphql_type=graphql_type(made),
        optional=optional,
        readonly=bool(each.get("readonly")),
        literal=literal,
        literal_value=python[len("Literal[") : -1] if literal and python.startswith("Literal[") else None,
        description=str(each.get("jsDoc") or ""),
    )


def graphql_type(made: Type) -> str:
    """The type of GraphQL, without `!`; JSON for what has none."""
    simple = {
        "string": "String",
        "number": "Float",
        "boolean": "Boolean",
        "Date": "DateTime",
        "true": "Boolean",
        "false": "Boolean",
    }
    match made.kind:
        case "name" if made.text in ("Array", "ReadonlyArray", "Set") and made.parts:
            return f"[{graphql_type(made.parts[0])}!]"
        case "name" if made.text in ("InputMaybe", "Maybe", "Readonly", "Promise") and made.parts:
            return graphql_type(made.parts[0])
        case "name" if not made.parts:
            return simple.get(made.text, made.text if made.text[:1].isupper() and "." not in made.text else "JSON")
        case "array":
            return f"[{graphql_type(made.parts[0])}!]"
        case "literal":
            return "String" if made.text[:1] in "\"'`" else "Float"
        case "union":
            kinds = {
                graphql_type(part) for part in made.parts if not (part.kind == "name" and part.text in ("null", "undefined"))
            }
            return kinds.pop() if len(kinds) == 1 else "JSON"
        case "intersection":
            kinds = {graphql_type(part) for part in made.parts if part.kind != "object"}
            return kinds.pop() if len(kinds) == 1 else "JSON"
        case "indexed" if made.parts[0].kind == "indexed" and made.parts[0].parts[0].text == "Scalars":
            return made.parts[0].parts[1].text[1:-1]
        case _:
            return "JSON"


def newtypes(source: str, ast: Ast, _: Options) -> list[NewType]:
    """Branded primitives."""
    return [
        NewType(str(each["name"]), to_python(read_type(str(each["type"]))), source)
        for each in _items(ast, "types")
        if _is_branded(str(each["type"]))
    ]


def _is_branded(text: str) -> bool:
    return "__brand" in text and read_type(text).kind == "intersection"


def aliases(source: str, ast: Ast, options: Options) -> list[Alias]:
    """The other aliases of types, of the files that have the models."""
    found: list[Alias] = []
    if not in_files(source, options, "model_files"):
        return found
    for each in _items(ast, "types"):
        text = str(each["type"])
        if _is_branded(text):
            continue
        made = read_type(text)
        members = made.parts if made.kind == "union" else (made,)
        literals = tuple(_literal(part.text) for part in members) if all(part.kind == "literal" for part in members) else ()
        generic = [str(parameter["name"]) for parameter in _items(each, "typeParameters")]
        found.append(Alias(str(each["name"]), to_python(made, unknown=generic), text, source, literals))
    return found


def _literal(text: str) -> Any:
    if text[:1] in "\"'`":
        return text[1:-1]
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def node_specs(source: str, ast: Ast, _: Options) -> list[NodeSpecIR]:
    """Constants that specify node types: those with `nodeType` and `fields`."""
    found: list[NodeSpecIR] = []
    for each in _items(ast, "constants"):
        value = each.get("value")
        if (
            not isinstance(value, Mapping)
            or not isinstance(value.get("nodeType"), str)
            or not isinstance(value.get("fields"), list)
        ):  # pyright: ignore[reportUnknownMemberType]
            continue
        raw = cast(Mapping[str, Any], value)
        node_type = str(raw["nodeType"])
        found.append(
            NodeSpecIR(
                node_type=node_type,
                node_name=pascal_case(node_type),
                spec_name=str(each["name"]),
                display_name=str(raw.get("displayName") or node_type),
                category=str(raw.get("category") or ""),
                icon=str(raw.get("icon") or ""),
                color=str(raw.get("color") or ""),
                description=str(raw.get("description") or ""),
                fields=tuple(
                    _spec_field(one) for one in cast(list[Any], raw["fields"]) if isinstance(one, Mapping) and "name" in one
                ),
                source=source,
                raw_data=raw,
            )
        )
    return found


def _spec_field(field: Any) -> Mapping[str, Any]:
    """A field with its default, which is None if it has none: one that is required must not get an empty text instead."""
    given = dict(cast(Mapping[str, Any], field))
    return {**given, "default": given.get("default", given.get("defaultValue"))}


def operations(source: str, ast: Ast, _: Options) -> list[Operation]:
    """Operations of GraphQL: of constants with `queries`, a list of {name, type, variables, fields}."""
    found: list[Operation] = []
    for each in _items(ast, "constants"):
        value = each.get("value")
        if not isinstance(value, Mapping) or not isinstance(value.get("queries"), list):  # pyright: ignore[reportUnknownMemberType]
            continue
        group = cast(Mapping[str, Any], value)
        found += [
            _operation(source, str(group.get("entity") or ""), cast(Mapping[str, Any], one))
            for one in cast(list[Any], group["queries"])
            if isinstance(one, Mapping) and "name" in one and "type" in one
        ]
    return found


def _operation(source: str, entity: str, given: Mapping[str, Any]) -> Operation:
    name, kind = str(given["name"]), str(given["type"]).lower()
    variables = tuple(
        Variable(
            name=str(each["name"]),
            graphql_type=str(each["type"]).removesuffix("!"),
            python_type=graphql_to_python(str(each["type"]).removesuffix("!")),
            required=bool(each.get("required")) or str(each["type"]).endswith("!"),
            type=str(each["type"]),
        )
        for each in _items(given, "variables")
    )
    fields = tuple(_items(given, "fields"))
    return Operation(
        name, kind, entity, variables, fields, query_string(name, kind, variables, fields), get_operation_return_type(name, kind), source,
        str(given.get("description") or ""),
    )  # fmt: skip


def query_string(name: str, kind: str, variables: Iterable[Variable], fields: Iterable[Mapping[str, Any]]) -> str:
    """The text of an operation."""
    given = ", ".join(f"${each.name}: {each.graphql_type}{'!' if each.required else ''}" for each in variables)
    lines = [f"{kind} {name}{f'({given})' if given else ''} {{"]
    for each in fields:
        _field_lines(each, 1, lines)
    return "\n".join([*lines, "}"])


def _field_lines(field: Mapping[str, Any], depth: int, lines: list[str]) -> None:
    args = ", ".join(f"{arg['name']}: {'$' if arg.get('isVariable') else ''}{arg['value']}" for arg in _items(field, "args"))
    inner = _items(field, "fields")
    lines.append(f"{'  ' * depth}{field['name']}{f'({args})' if args else ''}{' {' if inner else ''}")
    for each in inner:
        _field_lines(each, depth + 1, lines)
    if inner:
        lines.append(f"{'  ' * depth}}}")


def tables(source: str, ast: Ast, options: Options) -> list[dict[str, Any]]:
    """The constants that hold conversions, by what they are for."""
    return [
        {"purpose": purpose, "value": each["value"]}
        for each in _items(ast, "constants")
        for purpose, option in (("type_mappings", "type_conversions"), ("field_mappings", "field_mappings"))
        if each["name"] == options.get(option) and isinstance(each.get("value"), Mapping)
    ]


def integrations(source: str, ast: Ast, _: Options) -> list[dict[str, Any]]:
    """Constants whose declared type is an integration."""
    return [
        {"name": pascal_case(str(each["name"])), "definition": each.get("value"), "source": source}
        for each in _items(ast, "constants")
        if re.fullmatch(r"\w*Integration(?:Config|Definition)?", str(each.get("type") or ""))
    ]


def indexes(source: str, ast: Ast, _: Options) -> list[dict[str, Any]]:
    """What a source exports."""
    names = [
        str(each["name"])
        for key in ("interfaces", "types", "enums", "classes", "functions", "constants")
        for each in _items(ast, key)
        if each.get("isExported") and "namespace" not in each
    ]
    return [{"source": source, "names": names}] if names else []


_MEMBER = re.compile(
    r"\s*+(?:(?://[^\n]*+|/\*(?:(?!\*/).)*+\*/)\s*+)*+(readonly\s++)?(?:'([^']*+)'|\"([^\"]*+)\"|([A-Za-z_$][\w$]*+))\s*+(\?)?\s*+:",
    re.DOTALL,
)


def object_properties(text: str) -> list[dict[str, Any]]:
    """The properties of a type in braces: {name, type, optional, readonly}."""
    inner = text.strip()[1:-1]
    found: list[dict[str, Any]] = []
    for part in _members(inner):
        match = _MEMBER.match(part)
        if match:
            kind = part[match.end() :].strip()
            name = match[2] or match[3] or match[4]
            found.append({"name": name, "type": kind, "optional": bool(match[5]) or is_maybe(kind), "readonly": bool(match[1])})
    return found


def is_maybe(text: str) -> bool:
    """Whether a type may be left out: `InputMaybe<T>`, or a union with null or undefined."""
    return text.startswith(("InputMaybe<", "Maybe<")) or is_optional_type(text)


def _members(text: str) -> list[str]:
    """The members of a type in braces, which `;`, `,` or the end of a line separates."""
    parts: list[str] = []
    depth, start, quote = 0, 0, ""
    for at, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"`":
            quote = c
        elif c in "{[(<":
            depth += 1
        elif c in "}])" or (c == ">" and text[at - 1 : at] != "="):
            depth -= 1
        elif depth == 0 and c in ";,\n":
            parts.append(text[start:at])
            start = at + 1
    return [part for part in [*parts, text[start:]] if part.strip()]
