"""The shape of a structured answer: pydantic source or a JSON schema, read and never executed (diagram-spec §3.3).

The source is parsed and its syntax tree walked: class definitions of pydantic models and enumerations, annotations,
constants and `Field(…)`. Anything else (functions, calls, decorators, conditions) is refused with its line. The classes
are then made by pydantic's `create_model` and `enum`'s functional form.
"""

from __future__ import annotations

import ast
import copy
import datetime
import decimal
import enum
import json
import typing
import uuid
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ForwardRef, Literal, NoReturn, cast

from pydantic import BaseModel, ConfigDict, Field, create_model

from dipeo_nb.diagram.fields import nearest
from dipeo_nb.diagram.source import parse
from dipeo_nb.errors import DiagramFormatError, ValidationError

MAX_LENGTH = 100_000
"""Characters of a source."""
MAX_DEPTH = 50
"""Levels of nesting of an annotation."""


def response_model(source: str | Mapping[str, Any]) -> type[BaseModel] | dict[str, Any]:
    """The answer's shape from *source*.

    Args:
        source: Python source with pydantic classes; or a JSON schema, as a mapping or as JSON or YAML text (also inside
            OpenAI's `{"name": …, "schema": {…}}`).

    Returns:
        A model class (the one named `Response`, else the last whose name ends so, else the last one), or the schema as
        a new dict.

    Raises:
        ValidationError: neither, or more than a shape; the message names line and construct, fact: line (or None).
    """
    if isinstance(source, Mapping):
        return _schema(copy.deepcopy(dict(source)))
    text = source.strip("\n")
    if not text.strip():
        raise ValidationError("The text_format is empty.", hint="Give a pydantic class or a JSON schema.", line=None)
    if len(text) > MAX_LENGTH:
        raise ValidationError(
            f"The text_format has {len(text):,} characters; {MAX_LENGTH:,} are allowed.", hint="Shorten it.", line=None
        )
    if text.lstrip().startswith("{"):
        try:
            return _schema(json.loads(text))
        except (ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            raise ValidationError(
                f"The text_format begins like a JSON schema and is no JSON: {error}.",
                hint="Check quotes, commas and brackets.",
                line=line,
            ) from None
    shape = _python(source)
    return copy.deepcopy(shape) if isinstance(shape, dict) else shape


@lru_cache(maxsize=128)
def _python(source: str) -> type[BaseModel] | dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        if (data := _yaml_mapping(source)) is not None:
            return _schema(data)
        line = getattr(error, "lineno", None)
        what = getattr(error, "msg", None) or str(error) or "too deeply nested"
        at = f"Line {line} of the text_format does" if line else "The text_format does"
        raise ValidationError(
            f"{at} not parse as Python: {what}.", hint="Give pydantic classes or a JSON schema.", line=line
        ) from None
    if _is_mapping_text(tree):
        # One line of YAML, such as `type: object`, is also Python.
        return _schema(_yaml_mapping(source))
    return _Builder(tree).model()


def _yaml_mapping(text: str) -> dict[str, Any] | None:
    try:
        value = parse(text).value
    except DiagramFormatError:
        return None  # then it is judged as Python
    return value if isinstance(value, dict) else None


def _is_mapping_text(tree: ast.Module) -> bool:
    return bool(tree.body) and all(
        isinstance(s, ast.AnnAssign)
        and s.value is None
        and isinstance(s.target, ast.Name)
        and s.target.id in ("type", "anyOf", "properties")
        for s in tree.body
    )


# --- JSON schema -------------------------------------------------------------------------------------------------


def _schema(schema: Any) -> dict[str, Any]:
    # Imported here: a rare case should not slow down every start.
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    if not isinstance(schema, dict):
        raise ValidationError("A JSON schema is a mapping.", hint="Begin with `type: object`.", line=None)
    for name in ("json_schema", "schema"):
        if isinstance(schema.get(name), dict) and "properties" not in schema:
            schema = schema[name]
    known = ("type", "properties", "anyOf", "oneOf", "allOf", "$ref", "enum", "const", "items", "$defs")
    if not any(key in schema for key in known):
        raise ValidationError(
            f"This is no JSON schema: it has none of {', '.join(known[:5])}.",
            hint='Write, for example, {"type": "object", "properties": {"answer": {"type": "string"}}}.',
            line=None,
        )
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except RecursionError:
        raise ValidationError("The JSON schema is nested too deeply.", hint="Flatten it.", line=None) from None
    except SchemaError as error:
        where = ".".join(str(p) for p in error.absolute_path) or "the top"
        raise ValidationError(
            f"The JSON schema is not valid at {where}: {error.message}.", hint="Correct it there.", line=None
        ) from None
    return schema


# --- pydantic source ---------------------------------------------------------------------------------------------

_ENUMS: dict[str, type[enum.Enum]] = {"Enum": enum.Enum, "IntEnum": enum.IntEnum, "StrEnum": enum.StrEnum}
_SIMPLE: dict[str, Any] = {
    "Any": Any, "None": None, "bool": bool, "bytes": bytes, "date": datetime.date, "datetime": datetime.datetime,
    "Decimal": decimal.Decimal, "dict": dict, "Dict": dict, "float": float, "frozenset": frozenset, "int": int,
    "list": list, "List": list, "object": Any, "set": set, "Set": set, "str": str, "time": datetime.time,
    "timedelta": datetime.timedelta, "tuple": tuple, "Tuple": tuple, "UUID": uuid.UUID,
}  # fmt: skip
_GENERIC = {
    "list": list, "List": list, "Sequence": list, "Iterable": list, "set": set, "Set": set, "frozenset": frozenset,
    "FrozenSet": frozenset, "dict": dict, "Dict": dict, "Mapping": dict, "tuple": tuple, "Tuple": tuple,
}  # fmt: skip
_SPECIAL = ("Annotated", "Literal", "Optional", "Union")
_MODULES = frozenset(
    [
        "__future__",
        "collections",
        "collections.abc",
        "datetime",
        "decimal",
        "enum",
        "pydantic",
        "typing",
        "typing_extensions",
        "uuid",
    ]
)  # fmt: skip
_FIELD_OPTIONS = frozenset(
    [
        "default", "default_factory", "alias", "title", "description", "examples", "ge", "gt", "le", "lt",
        "multiple_of", "min_length", "max_length", "pattern", "json_schema_extra", "allow_inf_nan", "max_digits",
        "decimal_places",
    ]
)  # fmt: skip
_FACTORIES: dict[str, Any] = {"dict": dict, "list": list, "set": set, "tuple": tuple, "str": str}
_CONFIG = frozenset(
    ["extra", "title", "frozen", "str_strip_whitespace", "use_enum_values", "populate_by_name", "json_schema_extra"]
)
_NAMES: Mapping[type, str] = {
    ast.AsyncFunctionDef: "a function", ast.Assign: "an assignment", ast.Call: "a call", ast.Delete: "del",
    ast.Expr: "an expression", ast.For: "a loop", ast.FunctionDef: "a function", ast.If: "if",
    ast.Import: "an import", ast.ImportFrom: "an import", ast.Lambda: "a lambda", ast.Try: "try",
    ast.While: "a loop", ast.With: "with", ast.Attribute: "an attribute", ast.Subscript: "a subscript",
}  # fmt: skip


class _Builder:
    """Makes the classes of one source."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.classes = {s.name: s for s in tree.body if isinstance(s, ast.ClassDef)}
        self.aliases: dict[str, ast.expr] = {}
        self.enums: dict[str, type[enum.Enum]] = {}
        self.models: dict[str, type[BaseModel]] = {}

    def model(self) -> type[BaseModel]:
        for statement in self.tree.body:
            self.top(statement)
        for node in self.classes.values():
            if self.is_enum(node):
                self.enums[node.name] = self.enumeration(node)
        for node in self.classes.values():
            if not self.is_enum(node):
                self.build(node, ())
        if not self.models:
            raise ValidationError(
                "The text_format defines no pydantic class.",
                hint="Write, for example, `class Response(BaseModel):` with fields under it.",
                line=None,
            )
        self.finish()
        names = [n for n in self.classes if n in self.models]
        chosen = next((n for n in names if n == "Response"), None)
        chosen = chosen or next((n for n in reversed(names) if n.endswith("Response")), names[-1])
        return self.models[chosen]

    def top(self, node: ast.stmt) -> None:
        match node:
            case ast.ClassDef():
                if node.decorator_list:
                    self.refuse(node.decorator_list[0], "a decorator", f"class {node.name}")
            case ast.Import(names=names):
                for alias in names:
                    if alias.name not in _MODULES:
                        self.refuse(node, f"the import of '{alias.name}'")
            case ast.ImportFrom(module=module):
                if module not in _MODULES:
                    self.refuse(node, f"the import of '{module}'")
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                pass
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.aliases[name] = value
            case _:
                self.refuse(node, _construct(node))

    # classes

    def is_enum(self, node: ast.ClassDef) -> bool:
        return any(_last_name(base) in _ENUMS for base in node.bases)

    def enumeration(self, node: ast.ClassDef) -> type[enum.Enum]:
        bases = [_last_name(base) or "" for base in node.bases]
        mixed = [b for b in bases if b in ("str", "int")]
        kind = next(b for b in bases if b in _ENUMS)
        if len(mixed) + 1 != len(bases) or node.keywords:
            self.refuse(node, f"the base of enumeration '{node.name}'")
        members: dict[str, Any] = {}
        doc = ast.get_docstring(node)
        for statement in node.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    auto = isinstance(value, ast.Call) and _last_name(value.func) == "auto" and not value.args
                    members[name] = self.auto(kind, mixed, name, members) if auto else self.literal(value)
                case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                    pass
                case _:
                    self.refuse(statement, _construct(statement), f"enumeration {node.name}")
        if not members:
            self.refuse(node, f"the empty enumeration '{node.name}'")
        base = (
            enum.StrEnum
            if kind == "StrEnum" or "str" in mixed
            else enum.IntEnum
            if kind == "IntEnum" or "int" in mixed
            else enum.Enum
        )
        try:
            made: type[enum.Enum] = base(node.name, members)  # type: ignore[call-overload] — the functional form
        except (TypeError, ValueError) as error:
            self.refuse(node, f"enumeration '{node.name}' ({error})")
        made.__doc__ = doc
        return made

    def auto(self, kind: str, mixed: list[str], name: str, members: Mapping[str, Any]) -> Any:
        return name.lower() if kind == "StrEnum" or "str" in mixed else len(members) + 1

    def build(self, node: ast.ClassDef, path: tuple[str, ...]) -> type[BaseModel]:
        if node.name in self.models:
            return self.models[node.name]
        if node.name in path:
            self.refuse(node, f"class '{node.name}', which derives from itself,")
        if node.keywords or getattr(node, "type_params", None):
            self.refuse(node, f"the class arguments of '{node.name}'")
        bases: list[type[BaseModel]] = []
        for base in node.bases:
            name = _last_name(base)
            if name == "BaseModel":
                bases.append(BaseModel)
            elif name in self.classes and not self.is_enum(self.classes[name]):
                bases.append(self.build(self.classes[name], (*path, node.name)))
            else:
                shown = ast.unparse(base)
                self.refuse(
                    base,
                    f"the base '{shown}' of class '{node.name}'",
                    hint="Derive from BaseModel, Enum or a class of this text.",
                )
        if not bases:
            self.refuse(
                node, f"class '{node.name}', which derives from nothing,", hint="Write `(BaseModel)` after its name."
            )
        fields, config = self.fields(node)
        bases = [b for b in bases if b is not BaseModel]
        # Names such as `model_name` and `copy` are good fields of an answer.
        config = ConfigDict(protected_namespaces=(), **config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                made = create_model(
                    node.name,
                    __base__=tuple(bases) or BaseModel,
                    __doc__=ast.get_docstring(node),
                    __module__=__name__,
                    **fields,
                )
            except Exception as error:
                # pydantic and pydantic-core refuse patterns, limits and names with errors of many classes.
                raise self.error(node, f"class '{node.name}' ({_told(error)})") from error
        made.model_config = cast(ConfigDict, {**made.model_config, **config})  # takes effect in `finish`
        self.models[node.name] = made
        return made

    def finish(self) -> None:
        """Resolve references between the classes."""
        names: dict[str, Any] = {**self.models, **self.enums}
        for name, made in self.models.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made.model_rebuild(force=True, _types_namespace=names)
            except Exception as error:
                raise self.error(self.classes[name], f"class '{name}' ({_told(error)})") from error

    def fields(self, node: ast.ClassDef) -> tuple[dict[str, Any], dict[str, Any]]:
        found: dict[str, Any] = {}
        config: dict[str, Any] = {}
        where = f"class {node.name}"
        for statement in node.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                    if name.startswith("_"):
                        self.refuse(
                            statement, f"the field '{name}', as names of fields do not begin with an underscore,", where
                        )
                    kind = self.annotation(annotation)
                    default = ... if value is None else self.default(value)
                    found[name] = (kind, default)
                case ast.Assign(targets=[ast.Name(id="model_config")], value=value):
                    config = self.config(value)
                case ast.Expr(value=ast.Constant()) | ast.Pass():
                    pass
                case ast.Assign(targets=[ast.Name(id=name)]):
                    self.refuse(statement, f"'{name}' without a type", where, hint=f"Write `{name}: str = …`.")
                case _:
                    self.refuse(statement, _construct(statement), where)
        return found, config

    def config(self, node: ast.expr) -> dict[str, Any]:
        if isinstance(node, ast.Call) and _last_name(node.func) == "ConfigDict" and not node.args:
            pairs = {str(k.arg): self.literal(k.value) for k in node.keywords}
        else:
            pairs = self.literal(node)
        if not isinstance(pairs, dict):
            self.refuse(node, "this model_config")
        for key in pairs:
            if key not in _CONFIG:
                self.refuse(
                    node, f"the setting '{key}' of model_config", hint=f"Settings: {', '.join(sorted(_CONFIG))}."
                )
        return pairs

    def default(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Call) and _last_name(node.func) == "Field":
            return self.field(node)
        return self.literal(node)

    def field(self, node: ast.Call) -> Any:
        options: dict[str, Any] = {}
        if len(node.args) > 1:
            self.refuse(node, "Field with several positional arguments")
        if node.args:
            options["default"] = self.literal(node.args[0])
        for keyword in node.keywords:
            name = keyword.arg
            if name == "regex":
                name = "pattern"
            elif name in ("min_items", "max_items"):
                name = f"{name[:3]}_length"
            if name is None or name not in _FIELD_OPTIONS:
                close = nearest(name or "", sorted(_FIELD_OPTIONS))
                self.refuse(
                    keyword.value, f"the argument '{name}' of Field", hint=f"Did you mean '{close}'?" if close else None
                )
            if name == "default_factory":
                factory = _last_name(keyword.value) or ""
                if factory not in _FACTORIES:
                    self.refuse(keyword.value, "this default_factory", hint=f"Use one of: {', '.join(_FACTORIES)}.")
                options[name] = _FACTORIES[factory]
            else:
                options[name] = self.literal(keyword.value)
        return Field(**options)

    # values and types

    def literal(self, node: ast.expr) -> Any:
        """A constant, a container of constants, or a member of an enumeration."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.List(elts=items):
                return [self.literal(i) for i in items]
            case ast.Tuple(elts=items):
                return tuple(self.literal(i) for i in items)
            case ast.Set(elts=items):
                return {self.literal(i) for i in items}
            case ast.Dict(keys=keys, values=values):
                return {self.literal(k): self.literal(v) for k, v in zip(keys, values, strict=True) if k is not None}
            case ast.Attribute(value=ast.Name(id=name), attr=member) if name in self.enums:
                try:
                    return self.enums[name][member]
                except KeyError:
                    self.refuse(
                        node,
                        f"'{name}.{member}', which does not exist,",
                        hint=f"Members: {', '.join(self.enums[name].__members__)}.",
                    )
            case ast.Call(func=ast.Name(id="list" | "dict" | "set" | "tuple" as name), args=[], keywords=[]):
                return _FACTORIES[name]()
            case _:
                return self.refuse(node, f"the value `{_shown(node)}`", hint="Defaults are constants.")

    def annotation(self, node: ast.expr, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            self.refuse(node, "so deeply nested a type")
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str() as text):
                try:
                    inner = ast.parse(text.strip(), mode="eval").body
                except (SyntaxError, ValueError):
                    self.refuse(node, f"the type '{_short(text)}'")
                return self.annotation(ast.copy_location(inner, node), depth + 1)
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return typing.Union[self.annotation(left, depth + 1), self.annotation(right, depth + 1)]  # noqa: UP007
            case ast.Subscript(value=value, slice=index):
                return self.subscript(node, _last_name(value) or "", index, depth)
            case ast.Name() | ast.Attribute():
                return self.named(node, _last_name(node) or "", depth)
            case _:
                return self.refuse(node, f"the type `{_shown(node)}`")

    def named(self, node: ast.expr, name: str, depth: int) -> Any:
        if name in self.enums:
            return self.enums[name]
        if name in self.classes:
            # Built or not: resolved by name when all are there.
            return ForwardRef(name)
        if name in self.aliases:
            return self.annotation(self.aliases[name], depth + 1)
        if name in _SIMPLE:
            return _SIMPLE[name]
        known = [*self.classes, *self.aliases, *_SIMPLE, *_SPECIAL]
        close = nearest(name, known)
        return self.refuse(
            node,
            f"the type '{name}'",
            hint=f"Did you mean '{close}'?"
            if close
            else "Use str, int, float, bool, list[…], dict[…], Literal[…] or a class of this text.",
        )

    def subscript(self, node: ast.expr, name: str, index: ast.expr, depth: int) -> Any:
        items: Sequence[ast.expr] = index.elts if isinstance(index, ast.Tuple) else [index]
        if not items:
            self.refuse(node, f"the type `{_shown(node)}`")
        match name:
            case "Literal":
                return Literal[tuple(self.literal(i) for i in items)]  # type: ignore[valid-type] — made from the text's constants
            case "Optional" if len(items) == 1:
                return typing.Optional[self.annotation(items[0], depth + 1)]  # noqa: UP045
            case "Union":
                return typing.Union[tuple(self.annotation(i, depth + 1) for i in items)]  # noqa: UP007
            case "Annotated":
                return self.annotated(items, depth)
            case _ if name in _GENERIC:
                if name in ("tuple", "Tuple") and isinstance(items[-1], ast.Constant) and items[-1].value is ...:
                    each = self.annotation(items[0], depth + 1)
                    return tuple[each, ...]
                wanted = 2 if _GENERIC[name] is dict else None if _GENERIC[name] is tuple else 1
                if wanted and len(items) != wanted:
                    self.refuse(
                        node,
                        f"the type `{_shown(node)}`",
                        hint=f"{name} takes {wanted} type{'s' if wanted > 1 else ''}.",
                    )
                kinds = tuple(self.annotation(i, depth + 1) for i in items)
                return _GENERIC[name][kinds[0] if wanted == 1 else kinds]
            case _:
                return self.refuse(node, f"the type `{_shown(node)}`")

    def annotated(self, items: Sequence[ast.expr], depth: int) -> Any:
        kind = self.annotation(items[0], depth + 1)
        extras: list[Any] = []
        for item in items[1:]:
            if isinstance(item, ast.Call) and _last_name(item.func) == "Field":
                extras.append(self.field(item))
            elif isinstance(item, ast.Constant) and isinstance(item.value, str):
                extras.append(Field(description=item.value))
            else:
                self.refuse(item, f"`{_shown(item)}` in Annotated", hint="Use Field(…).")
        return typing.Annotated[(kind, *extras)] if extras else kind

    # errors

    def error(self, node: ast.AST, what: str, where: str = "", hint: str | None = None) -> ValidationError:
        line = getattr(node, "lineno", None)
        inside = f" in {where}" if where else ""
        return ValidationError(
            f"Line {line} of the text_format: {what}{inside} cannot be used in a shape.",
            hint=hint or "A shape has classes of BaseModel or Enum with typed fields, and nothing that runs.",
            line=line,
        )

    def refuse(self, node: ast.AST, what: str, where: str = "", hint: str | None = None) -> NoReturn:
        raise self.error(node, what, where, hint)


def _last_name(node: ast.expr) -> str | None:
    """`Field` of `Field`, `pydantic.Field` and `t.Field`; None for everything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr
    return None


def _construct(node: ast.AST) -> str:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return f"the function '{node.name}'"
    if isinstance(node, ast.Expr):
        return f"`{_shown(node.value)}`"
    return _NAMES.get(type(node), f"`{_shown(node)}`")


def _shown(node: ast.AST) -> str:
    return _short(ast.unparse(node))


def _short(text: str, limit: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _told(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).split("\n") if line.strip() and "errors.pydantic.dev" not in line]
    return _short(lines[-1] if lines else type(error).__name__, 200)
