"""Pydantic source as a model class, read and never executed.

The syntax tree is walked from the chosen class on: the classes it needs, their annotations, constants and `Field(…)`.
Everything else is skipped, and what was skipped is said. The classes are made by pydantic's `create_model` and `enum`'s
functional form.
"""

from __future__ import annotations

import ast
import copy
import datetime
import decimal
import enum
import re
import typing
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ForwardRef, Literal, NoReturn, cast

from pydantic import BaseModel, ConfigDict, Field, RootModel, create_model

from dipeo_nb.common.text import nearest
from dipeo_nb.errors import ValidationError

MAX_DEPTH = 50
"""Levels of nesting of an annotation."""
MAX_TYPES = 20_000
"""Parts of annotations and values, with those that names stand for."""

_ENUMS: dict[str, type[enum.Enum]] = {"Enum": enum.Enum, "IntEnum": enum.IntEnum, "StrEnum": enum.StrEnum}


def _text_of(form: str) -> Any:
    return typing.Annotated[str, Field(json_schema_extra={"format": form})]


_SIMPLE: dict[str, Any] = {
    "Any": Any, "AnyStr": str, "None": None, "bool": bool, "bytes": bytes, "date": datetime.date,
    "datetime": datetime.datetime, "Decimal": decimal.Decimal, "dict": dict, "Dict": dict, "float": float,
    "frozenset": frozenset, "FrozenSet": frozenset, "int": int, "list": list, "List": list, "object": Any, "set": set,
    "Set": set, "str": str, "time": datetime.time, "timedelta": datetime.timedelta, "tuple": tuple, "Tuple": tuple,
    "UUID": uuid.UUID, "UUID4": uuid.UUID, "Mapping": dict, "Sequence": list, "Iterable": list,
    "Text": str, "LiteralString": str, "Path": str, "FilePath": str, "DirectoryPath": str, "SecretStr": str,
    "StrictStr": str, "StrictInt": int, "StrictFloat": float, "StrictBool": bool, "AwareDatetime": datetime.datetime,
    "NaiveDatetime": datetime.datetime, "PastDate": datetime.date, "FutureDate": datetime.date,
    "PastDatetime": datetime.datetime, "FutureDatetime": datetime.datetime,
    "EmailStr": _text_of("email"), "HttpUrl": _text_of("uri"), "AnyUrl": _text_of("uri"), "AnyHttpUrl": _text_of("uri"),
    "PositiveInt": typing.Annotated[int, Field(gt=0)], "NegativeInt": typing.Annotated[int, Field(lt=0)],
    "NonNegativeInt": typing.Annotated[int, Field(ge=0)], "NonPositiveInt": typing.Annotated[int, Field(le=0)],
    "PositiveFloat": typing.Annotated[float, Field(gt=0)], "NegativeFloat": typing.Annotated[float, Field(lt=0)],
    "NonNegativeFloat": typing.Annotated[float, Field(ge=0)], "NonPositiveFloat": typing.Annotated[float, Field(le=0)],
    "FiniteFloat": typing.Annotated[float, Field(allow_inf_nan=False)],
}  # fmt: skip
_GENERIC = {
    "list": list, "List": list, "Sequence": list, "Iterable": list, "Collection": list, "set": set, "Set": set,
    "frozenset": frozenset, "FrozenSet": frozenset, "AbstractSet": set, "dict": dict, "Dict": dict, "Mapping": dict,
    "MutableMapping": dict, "tuple": tuple, "Tuple": tuple,
}  # fmt: skip
_SPECIAL = ("Annotated", "Literal", "Optional", "Union")
_CONSTRAINED = {
    "constr": str, "conint": int, "confloat": float, "condecimal": decimal.Decimal, "conlist": list, "conset": set,
    "conbytes": bytes,
}  # fmt: skip
_FIELD_OPTIONS = frozenset(
    [
        "default", "default_factory", "alias", "title", "description", "examples", "ge", "gt", "le", "lt",
        "multiple_of", "min_length", "max_length", "pattern", "json_schema_extra", "allow_inf_nan", "max_digits",
        "decimal_places", "discriminator",
    ]
)  # fmt: skip
_DOCUMENTING = frozenset(["title", "description", "examples", "json_schema_extra"])
"""Options that describe a field; a value that is no constant is skipped."""
_OTHER_OPTIONS = frozenset(
    [
        "alias_priority", "coerce_numbers_to_str", "deprecated", "example", "exclude", "exclude_if", "fail_fast",
        "field_title_generator", "frozen", "include", "init", "init_var", "kw_only", "repr", "serialization_alias",
        "strict", "strip_whitespace", "to_lower", "to_upper", "union_mode", "validate_default", "validation_alias",
    ]
)  # fmt: skip
"""Options that say nothing about what is asked for."""
_OLD_OPTIONS = {"regex": "pattern", "min_items": "min_length", "max_items": "max_length"}
_LIMITS = {
    "Ge": "ge", "Gt": "gt", "Le": "le", "Lt": "lt", "MultipleOf": "multiple_of", "MinLen": "min_length",
    "MaxLen": "max_length",
}  # fmt: skip
"""Constraints of `annotated_types` with one value."""
_VALIDATORS = frozenset(
    ["AfterValidator", "BeforeValidator", "PlainValidator", "WrapValidator", "PlainSerializer", "WrapSerializer", "Strict"]
)
_FACTORIES: dict[str, Callable[[], Any]] = {
    "dict": dict, "list": list, "set": set, "tuple": tuple, "str": str, "int": int, "float": float, "bool": bool,
    "frozenset": frozenset, "uuid4": uuid.uuid4, "today": datetime.date.today,
    "now": lambda: datetime.datetime.now(datetime.UTC), "utcnow": lambda: datetime.datetime.now(datetime.UTC),
}  # fmt: skip
_CONFIG = frozenset(
    ["extra", "title", "frozen", "str_strip_whitespace", "use_enum_values", "populate_by_name", "json_schema_extra"]
)
_PLAIN_BASES = frozenset(["ABC", "object", "Generic", "Protocol"])
_NAMES: Mapping[type, str] = {
    ast.AsyncFunctionDef: "a function", ast.Assign: "an assignment", ast.Call: "a call", ast.Delete: "del",
    ast.Expr: "an expression", ast.For: "a loop", ast.FunctionDef: "a function", ast.If: "if",
    ast.Import: "an import", ast.ImportFrom: "an import", ast.Lambda: "a lambda", ast.Try: "try",
    ast.While: "a loop", ast.With: "with", ast.Attribute: "an attribute", ast.Subscript: "a subscript",
}  # fmt: skip
_OURS = frozenset(
    [
        "__future__", "abc", "annotated_types", "collections", "dataclasses", "datetime", "decimal", "enum", "pathlib", "pydantic",
        "typing", "typing_extensions", "uuid",
    ]
)  # fmt: skip
"""Packages whose names are known here; names from any other are refused where they are needed."""

_Names = Mapping[str, ast.expr]
"""Type variables of a generic class → what they stand for."""


class ModelBuilder:
    """Makes the classes of one source that the chosen one needs."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.classes: dict[str, ast.ClassDef] = {}
        self.aliases: dict[str, ast.expr] = {}
        self.renamed: dict[str, str] = {}
        """Name that an import gives to a known thing → its name."""
        self.foreign: dict[str, str] = {}
        """Name → the module it is imported from, none of those that are known."""
        self.enums: dict[str, type[enum.Enum]] = {}
        self.models: dict[str, type[BaseModel]] = {}
        self.places: dict[str, ast.ClassDef] = {}
        """Class of each model, specialised generic ones included."""
        self.waiting: dict[str, tuple[ast.ClassDef, _Names]] = {}
        """Models that are named and not made yet."""
        self.budget = MAX_TYPES
        self.skipped: list[tuple[int, str]] = []

    def build_chosen(self) -> tuple[type[BaseModel], tuple[str, ...]]:
        """The chosen model, and what was skipped.

        Raises:
            ValidationError: there is none, or it needs what is no shape.
        """
        for statement in self.tree.body:
            self.top(statement)
        chosen = self.chosen()
        self.build(chosen, ())
        while self.waiting:
            name, (node, names) = self.waiting.popitem()
            if name not in self.models:
                self.build(node, (), name, names)
        self.finish()
        parts = dict.fromkeys(text for _, text in sorted(self.skipped, key=lambda pair: pair[0]))
        return self.models[chosen.name], tuple(parts)

    def chosen(self) -> ast.ClassDef:
        """`Response`, else the last whose name ends so, else the last model."""
        names = [n for n, node in self.classes.items() if self.is_model(node)]
        if not names:
            others = [node for node in self.classes.values() if not self.is_enum(node)]
            if others:
                self.build(others[-1], ())  # says what is wrong with it
            raise ValidationError(
                "The text_format defines no pydantic class.",
                hint="Write, for example, `class Response(BaseModel):` with fields under it.",
                line=None,
            )
        name = next((n for n in names if n == "Response"), None)
        return self.classes[name or next((n for n in reversed(names) if n.endswith("Response")), names[-1])]

    def top(self, node: ast.stmt) -> None:
        match node:
            case ast.ClassDef():
                self.classes.pop(node.name, None)  # the later one counts, and its place
                self.classes[node.name] = node
                for inner in ast.iter_child_nodes(node):
                    if isinstance(inner, ast.ClassDef) and inner.name != "Config":
                        self.classes.setdefault(inner.name, inner)
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.partition(".")[0] not in _OURS:
                        self.foreign[alias.asname or alias.name.partition(".")[0]] = alias.name
            case ast.ImportFrom(module=module, names=names, level=level):
                for alias in names:
                    if level or (module or "").partition(".")[0] not in _OURS:
                        self.foreign[alias.asname or alias.name] = "." * level + (module or "")
                    elif alias.asname:
                        self.renamed[alias.asname] = alias.name
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                pass
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.aliases[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self.aliases[name] = value
            case _ if type(node).__name__ == "TypeAlias":  # Python 3.12: type X = …
                self.aliases[cast(Any, node).name.id] = cast(Any, node).value
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.skip(node, f"the function '{node.name}'")
            case ast.If(test=test):
                self.skip(node, f"`if {_shown(test)}:`")
            case ast.Try():
                for inner in node.body:  # such as an import with an older way below
                    self.top(inner)
            case _:
                self.skip(node, _construct(node))

    def skip(self, node: ast.AST, what: str) -> None:
        line = getattr(node, "lineno", 0)
        self.skipped.append((line, f"{what} (line {line})"))

    # classes

    def name(self, node: ast.expr) -> str:
        """The last word of a dotted name, as its module calls it; empty for everything else."""
        name = _last_name(node) or ""
        return self.renamed.get(name, name)

    def base_name(self, node: ast.expr) -> str:
        return self.name(node.value if isinstance(node, ast.Subscript) else node)

    def is_enum(self, node: ast.ClassDef, seen: tuple[str, ...] = ()) -> bool:
        for base in node.bases:
            name = self.base_name(base)
            if name in self.classes and name not in (*seen, node.name):
                if self.is_enum(self.classes[name], (*seen, node.name)):
                    return True
            elif name in _ENUMS:
                return True
        return False

    def is_model(self, node: ast.ClassDef, seen: tuple[str, ...] = ()) -> bool:
        """Whether a class is a model, or derives from what may be one."""
        if self.is_enum(node):
            return False
        for base in node.bases:
            name = self.base_name(base)
            if name in self.classes and name != node.name:
                if name not in seen and self.is_model(self.classes[name], (*seen, node.name)):
                    return True
            elif name not in _PLAIN_BASES:
                return True
        return self.is_dataclass(node)

    def is_dataclass(self, node: ast.ClassDef) -> bool:
        return any(self.name(d.func if isinstance(d, ast.Call) else d) == "dataclass" for d in node.decorator_list)

    def enumeration(self, name: str) -> type[enum.Enum]:
        if name in self.enums:
            return self.enums[name]
        node = self.classes[name]
        bases = [self.name(base) for base in node.bases]
        mixed = [b for b in bases if b in ("str", "int")]
        kind = next((b for b in bases if b in _ENUMS), None)
        if kind is None or len(mixed) + 1 != len(bases) or node.keywords:
            self.refuse(node, f"the base of enumeration '{node.name}'")
        members: dict[str, Any] = {}
        for statement in node.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=member)], value=value) if not member.startswith("_"):
                    auto = isinstance(value, ast.Call) and self.name(value.func) == "auto" and not value.args
                    members[member] = self.auto(kind, mixed, member, members) if auto else self.literal(value)
                case ast.Expr(value=ast.Constant()) | ast.Pass():
                    pass
                case _:
                    self.skip(statement, f"{_construct(statement)} of {node.name}")
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
        made.__doc__ = ast.get_docstring(node)
        self.enums[name] = made
        return made

    def auto(self, kind: str, mixed: list[str], name: str, members: Mapping[str, Any]) -> Any:
        return name.lower() if kind == "StrEnum" or "str" in mixed else len(members) + 1

    def build(
        self, node: ast.ClassDef, path: tuple[str, ...], name: str | None = None, names: _Names | None = None
    ) -> type[BaseModel]:
        """The model of a class; *name* and *names* of a generic class for one set of types."""
        name = name or node.name
        if name in self.models:
            return self.models[name]
        if node.name in path:
            self.refuse(node, f"class '{node.name}', which derives from itself,")
        bases: list[Any] = []
        root: ast.expr | None = None
        plain = not self.is_dataclass(node)
        for base in node.bases:
            word = self.base_name(base)
            if word in self.classes:
                of = self.classes[word]
                if self.is_enum(of):
                    self.refuse(base, f"the base '{word}' of class '{node.name}'", hint="Derive from BaseModel.")
                if not self.is_model(of):
                    self.skip(base, f"the base '{word}' of {node.name}")
                    continue
                plain = False
                if isinstance(base, ast.Subscript):
                    inner, given = self.specialised(of, base.slice, names or {})
                    bases.append(self.build(of, (*path, node.name), inner, given))
                else:
                    bases.append(self.build(of, (*path, node.name)))
            elif word == "BaseModel":
                plain = False
            elif word == "RootModel":
                plain, bases = False, [*bases, RootModel]
                root = base.slice if isinstance(base, ast.Subscript) else None
            elif word in self.foreign:
                self.foreign_name(base, word, f"the base of class '{node.name}'")
            elif word not in _PLAIN_BASES:
                self.refuse(
                    base,
                    f"the base '{ast.unparse(base)}' of class '{node.name}'",
                    hint="Derive from BaseModel, Enum or a class of this text.",
                )
        if plain:
            self.refuse(
                node, f"class '{node.name}', which derives from nothing,", hint="Write `(BaseModel)` after its name."
            )
        for decorator in node.decorator_list:
            if not self.is_dataclass(node):
                self.skip(decorator, f"the decorator `{_shown(decorator)}` of {node.name}")
        names = names or dict.fromkeys(self.type_variables(node), ast.Name("Any"))
        fields, config = self.fields(node, names)
        if root is not None and "root" not in fields:
            fields["root"] = (self.annotation(root, names), ...)
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg == "metaclass":
                self.refuse(node, f"the class arguments of '{node.name}'")
            config |= self.setting(keyword.arg, keyword.value)
        # Names such as `model_name` and `copy` are good fields of an answer.
        config = ConfigDict(protected_namespaces=(), **config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                made = create_model(
                    name,
                    __base__=tuple(bases) or BaseModel,
                    __doc__=ast.get_docstring(node),
                    __module__=__name__,
                    **fields,
                )
            except Exception as error:
                # pydantic and pydantic-core refuse patterns, limits and names with errors of many classes.
                raise self.error(node, f"class '{node.name}' ({_reason(error)})") from error
        made.model_config = cast(ConfigDict, {**made.model_config, **config})  # takes effect in `finish`
        self.models[name] = made
        self.places[name] = node
        return made

    def type_variables(self, node: ast.ClassDef) -> list[str]:
        """The type variables of a generic class, in order."""
        found = [p.name for p in getattr(node, "type_params", ())]
        for base in node.bases:
            if isinstance(base, ast.Subscript) and self.name(base.value) in ("Generic", "Protocol"):
                found += [n.id for n in ast.walk(base.slice) if isinstance(n, ast.Name)]
        return found

    def specialised(self, node: ast.ClassDef, given: ast.expr, names: _Names) -> tuple[str, _Names]:
        """The name of a generic class for some types, and what its type variables stand for."""
        variables = self.type_variables(node)
        types = [_substituted(t, names) for t in (given.elts if isinstance(given, ast.Tuple) else [given])]
        if len(types) != len(variables):
            count = f"{len(variables)} type{'' if len(variables) == 1 else 's'}" if variables else "no types"
            self.refuse(given, f"'{node.name}[{_shown(given)}]'", hint=f"{node.name} takes {count}.")
        name = f"{node.name}[{', '.join(map(ast.unparse, types))}]"
        return re.sub(r"\W+", "_", name).strip("_"), dict(zip(variables, types, strict=True))

    def finish(self) -> None:
        """Resolve references between the classes."""
        names: dict[str, Any] = {**self.models, **self.enums}
        for name, made in self.models.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made.model_rebuild(force=True, _types_namespace=names)
            except Exception as error:
                raise self.error(self.places[name], f"class '{self.places[name].name}' ({_reason(error)})") from error

    def fields(self, node: ast.ClassDef, names: _Names) -> tuple[dict[str, Any], dict[str, Any]]:
        found: dict[str, Any] = {}
        config: dict[str, Any] = {}
        where = f"class {node.name}"
        for statement in node.body:
            match statement:
                case ast.AnnAssign(annotation=annotation) if self.base_name(annotation) in ("ClassVar", "InitVar"):
                    pass
                case ast.AnnAssign(target=ast.Name(id="model_config"), value=ast.expr() as value):
                    config = self.config(value)
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                    if name.startswith("_"):
                        self.skip(statement, f"the private field '{name}' of {node.name}")
                        continue
                    kind = self.annotation(annotation, {**names, "Self": ast.Name(node.name)})
                    found[name] = (kind, ... if value is None else self.default(value))
                case ast.Assign(targets=[ast.Name(id="model_config")], value=value):
                    config = self.config(value)
                case ast.Expr(value=ast.Constant()) | ast.Pass():
                    pass
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    kinds = {self.name(d.func if isinstance(d, ast.Call) else d) for d in statement.decorator_list}
                    kind = "the validator" if any("valid" in k for k in kinds) else "the method"
                    self.skip(statement, f"{kind} '{statement.name}' of {node.name}")
                case ast.ClassDef():
                    if statement.name == "Config":
                        self.skip(statement, f"Config of {node.name}")
                case ast.Assign(targets=[ast.Name(id=name)]) if name.startswith("_"):
                    self.skip(statement, f"'{name}' of {node.name}")
                case ast.Assign(targets=[ast.Name(id=name)]):
                    self.refuse(statement, f"'{name}' without a type", where, hint=f"Write `{name}: str = …`.")
                case _:
                    self.skip(statement, f"{_construct(statement)} in class {node.name}")
        return found, config

    def config(self, node: ast.expr) -> dict[str, Any]:
        """The settings that matter to a shape."""
        pairs: list[tuple[str | None, ast.expr]] = []
        if isinstance(node, ast.Call) and self.name(node.func) in ("ConfigDict", "dict") and not node.args:
            pairs = [(k.arg, k.value) for k in node.keywords]
        elif isinstance(node, ast.Dict):
            pairs = [(str(k.value), v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)]
        else:
            self.skip(node, f"model_config `{_shown(node)}`")
        found: dict[str, Any] = {}
        for key, value in pairs:
            found |= self.setting(str(key), value)
        return found

    def setting(self, key: str, value: ast.expr) -> dict[str, Any]:
        if key in _CONFIG:
            return {key: self.literal(value)}
        self.skip(value, f"the setting '{key}' of model_config")
        return {}

    def default(self, node: ast.expr) -> Any:
        match node:
            case ast.Call(func=func) if self.name(func) in ("Field", "field"):
                return self.field(node)
            case ast.Call(func=func) if (made := self.instance(node)) is not None:
                return Field(default_factory=made)
            case _:
                return self.literal(node)

    def instance(self, node: ast.expr) -> Callable[[], Any] | None:
        """A maker of `Model(a=1)`, an object of a class of this text; None for anything else."""
        if not isinstance(node, ast.Call) or self.name(node.func) not in self.classes or node.args:
            return None
        name = self.name(node.func)
        if self.is_enum(self.classes[name]) or any(k.arg is None for k in node.keywords):
            return None
        values = {str(k.arg): self.instance(k.value) or self.constant(k.value) for k in node.keywords}
        self.need(name)
        return lambda: self.models[name](**{key: make() for key, make in values.items()})

    def constant(self, node: ast.expr) -> Callable[[], Any]:
        value = self.literal(node)
        return lambda: copy.deepcopy(value)

    def factory(self, node: ast.expr) -> Callable[[], Any]:
        if isinstance(node, ast.Lambda) and not node.args.args:
            return self.instance(node.body) or self.constant(node.body)
        name = self.name(node)
        if name in self.classes and not self.is_enum(self.classes[name]):
            self.need(name)
            return lambda: self.models[name]()
        if name not in _FACTORIES:
            self.refuse(node, "this default_factory", hint=f"Use one of: {', '.join(_FACTORIES)}; or a constant.")
        return _FACTORIES[name]

    def field(self, node: ast.Call) -> Any:
        if len(node.args) > 1:
            self.refuse(node, "Field with several positional arguments")
        made = [("default", node.args[0])] if node.args else []
        return self.options([*made, *((k.arg or "", k.value) for k in node.keywords)])

    def options(self, given: Sequence[tuple[str, ast.expr]]) -> Any:
        options: dict[str, Any] = {}
        for name, value in given:
            name = _OLD_OPTIONS.get(name, name)
            if name in _OTHER_OPTIONS:
                continue
            if name not in _FIELD_OPTIONS:
                close = nearest(name, sorted(_FIELD_OPTIONS))
                self.refuse(value, f"the argument '{name}' of Field", hint=f"Did you mean '{close}'?" if close else None)
            if name == "default_factory":
                options[name] = self.factory(value)
            elif name == "default" and (made := self.instance(value)) is not None:
                options["default_factory"] = made
            elif name in _DOCUMENTING:
                try:
                    options[name] = self.literal(value)
                except ValidationError:
                    self.skip(value, f"the {name} `{_shown(value)}`")
            elif name == "discriminator" and not isinstance(value, ast.Constant):
                self.skip(value, "the discriminator")
            else:
                options[name] = self.literal(value)
        return Field(**options)

    # values and types

    def literal(self, node: ast.expr, depth: int = 0) -> Any:
        """A constant, a container of constants, or a member of an enumeration."""
        self.spend(node, depth)

        def inner(item: ast.expr) -> Any:
            return self.literal(item, depth + 1)

        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand) if isinstance(number := inner(operand), (int, float)):
                return -number
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as op, right=right):
                return self.sum(node, inner(left), op, inner(right))
            case ast.List(elts=items):
                return [inner(i) for i in items]
            case ast.Tuple(elts=items):
                return tuple(inner(i) for i in items)
            case ast.Set(elts=items):
                return {inner(i) for i in items}
            case ast.Dict(keys=keys, values=values):
                return {inner(k): inner(v) for k, v in zip(keys, values, strict=True) if k is not None}
            case ast.Attribute(value=ast.Attribute() as member, attr="value" | "name" as part) if self.member_of(member):
                return getattr(inner(member), part)
            case ast.Attribute(attr=member) if (name := self.member_of(node)) is not None:
                members = self.enumeration(name).__members__
                if member not in members:
                    hint = f"Members: {', '.join(members)}."
                    self.refuse(node, f"'{name}.{member}', which does not exist,", hint=hint)
                return members[member]
            case ast.Name(id=name) if name in self.aliases:
                return inner(self.aliases[name])
            case ast.Name(id=name) if name in self.foreign:
                self.foreign_name(node, name)
            case ast.Call(func=ast.Name(id="list" | "dict" | "set" | "tuple" as name), args=[], keywords=[]):
                return _FACTORIES[name]()
            case _:
                pass
        return self.refuse(node, f"the value `{_shown(node)}`", hint="Defaults are constants.")

    def sum(self, node: ast.expr, left: Any, op: ast.operator, right: Any) -> Any:
        """`60 * 60`, `"a" + "b"`; nothing that grows."""
        match left, op, right:
            case str(), ast.Add(), str():
                return left + right
            case int() | float(), _, int() | float() if max(abs(left), abs(right)) < 1e12:
                return left + right if isinstance(op, ast.Add) else left - right if isinstance(op, ast.Sub) else left * right
            case _:
                pass
        return self.refuse(node, f"the value `{_shown(node)}`", hint="Defaults are constants.")

    def member_of(self, node: ast.expr) -> str | None:
        """The enumeration of `Mood.HAPPY` and `Outer.Mood.HAPPY`."""
        if not isinstance(node, ast.Attribute):
            return None
        name = _last_name(node.value)
        return name if name in self.classes and self.is_enum(self.classes[name]) else None

    def spend(self, node: ast.AST, depth: int) -> None:
        self.budget -= 1
        if depth > MAX_DEPTH:
            self.refuse(node, "so deeply nested a type or value")
        if self.budget < 0:
            self.refuse(node, "so large a type or value")

    def annotation(self, node: ast.expr, names: _Names, depth: int = 0) -> Any:
        self.spend(node, depth)
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str() as text):
                try:
                    inner = ast.parse(text.strip(), mode="eval").body
                except (SyntaxError, ValueError, RecursionError, MemoryError):
                    self.refuse(node, f"the type '{_short(text)}'")
                return self.annotation(_at(inner, node), names, depth + 1)
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return typing.Union[self.annotation(left, names, depth + 1), self.annotation(right, names, depth + 1)]  # noqa: UP007
            case ast.Subscript(value=value, slice=index):
                return self.subscript(node, self.name(value), index, names, depth)
            case ast.Call(func=func) if (word := self.name(func)) in _CONSTRAINED:
                return self.constrained(node, word, names, depth)
            case ast.Name(id=name) if name in names:
                return self.annotation(_at(names[name], node), {}, depth + 1)
            case ast.Name() | ast.Attribute():
                return self.named(node, self.name(node), names, depth)
            case _:
                return self.refuse(node, f"the type `{_shown(node)}`")

    def need(self, name: str) -> Any:
        """A class of this text, made sooner or later: resolved by name when all are there."""
        node = self.classes[name]
        if self.is_enum(node):
            return self.enumeration(name)
        if name not in self.models:
            self.waiting[name] = (node, {})
        return ForwardRef(name)

    def named(self, node: ast.expr, name: str, names: _Names, depth: int) -> Any:
        if name in self.classes:
            return self.need(name)
        if name in self.aliases:
            value = self.aliases[name]
            if isinstance(value, ast.Call) and self.name(value.func) in ("TypeVar", "NewType"):
                # NewType("UserId", int) is its type; a free type variable is anything.
                return self.annotation(value.args[1], names, depth + 1) if self.name(value.func) == "NewType" and value.args[1:] else Any
            return self.annotation(value, names, depth + 1)
        if name in self.foreign:
            self.foreign_name(node, name)
        if isinstance(node, ast.Attribute) and (root := _first_name(node)) in self.foreign:
            self.foreign_name(node, root)
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

    def foreign_name(self, node: ast.AST, name: str, what: str | None = None) -> NoReturn:
        """Refuse a name of another module."""
        module = self.foreign[name]
        dipeo = module.partition(".")[0] == "dipeo"
        owner = "one of DiPeO's own classes, which are not part of dipeo_nb" if dipeo else "which is not read"
        self.refuse(
            node,
            f"{what or 'the name'} '{name}', imported from '{module}', {owner},",
            hint="Write the classes that are needed into this text, or give a JSON schema.",
        )

    def subscript(self, node: ast.expr, name: str, index: ast.expr, names: _Names, depth: int) -> Any:
        items: Sequence[ast.expr] = index.elts if isinstance(index, ast.Tuple) else [index]
        if not items:
            self.refuse(node, f"the type `{_shown(node)}`")

        def inner(item: ast.expr) -> Any:
            return self.annotation(item, names, depth + 1)

        match name:
            case _ if name in self.classes and self.is_model(self.classes[name]):
                key, given = self.specialised(self.classes[name], index, names)
                if key not in self.models:
                    self.waiting[key] = (self.classes[name], given)
                return ForwardRef(key)
            case "Literal":
                return Literal[tuple(self.literal(i) for i in items)]  # type: ignore[valid-type] — made from the text's constants
            case "Optional" if len(items) == 1:
                return typing.Optional[inner(items[0])]  # noqa: UP045
            case "Union":
                return typing.Union[tuple(map(inner, items))]  # noqa: UP007
            case "Annotated":
                return self.annotated(items, names, depth)
            case "Final" | "Required" | "NotRequired" | "ReadOnly" | "SkipValidation" if len(items) == 1:
                return inner(items[0])
            case _ if name in _GENERIC:
                if name in ("tuple", "Tuple") and isinstance(items[-1], ast.Constant) and items[-1].value is ...:
                    each = inner(items[0])
                    return tuple[each, ...]
                wanted = 2 if _GENERIC[name] is dict else None if _GENERIC[name] is tuple else 1
                if wanted and len(items) != wanted:
                    self.refuse(
                        node,
                        f"the type `{_shown(node)}`",
                        hint=f"{name} takes {wanted} type{'s' if wanted > 1 else ''}.",
                    )
                kinds = tuple(map(inner, items))
                return _GENERIC[name][kinds[0] if wanted == 1 else kinds]
            case _ if name in self.foreign:
                return self.foreign_name(node, name)
            case _:
                return self.refuse(node, f"the type `{_shown(node)}`")

    def constrained(self, node: ast.Call, word: str, names: _Names, depth: int) -> Any:
        """`constr(max_length=5)` and its like."""
        kind: Any = _CONSTRAINED[word]
        given = [(k.arg or "", k.value) for k in node.keywords]
        if word in ("conlist", "conset"):
            item = node.args[0] if node.args else next((v for k, v in given if k == "item_type"), ast.Name("Any"))
            kind = kind[self.annotation(item, names, depth + 1)]
            given = [(k, v) for k, v in given if k != "item_type"]
        return typing.Annotated[kind, self.options(given)]

    def annotated(self, items: Sequence[ast.expr], names: _Names, depth: int) -> Any:
        kind = self.annotation(items[0], names, depth + 1)
        extras: list[Any] = []
        for item in items[1:]:
            if isinstance(item, ast.Name) and item.id in self.aliases:
                item = self.aliases[item.id]
            word = self.name(item.func) if isinstance(item, ast.Call) else self.name(item)
            match item:
                case ast.Constant(value=str() as text):
                    extras.append(Field(description=text))
                case ast.Call() if word == "Field":
                    extras.append(self.field(item))
                case ast.Call(keywords=keywords) if word in ("StringConstraints", "Interval", "Len"):
                    extras.append(self.options([(k.arg or "", k.value) for k in keywords]))
                case ast.Call(args=[value]) if word in _LIMITS:
                    extras.append(self.options([(_LIMITS[word], value)]))
                case ast.Call(args=[ast.Constant(value=str() as text)]) if word == "Doc":
                    extras.append(Field(description=text))
                case _ if word in _VALIDATORS:
                    self.skip(item, f"`{_shown(item)}`")
                case _:
                    self.refuse(item, f"`{_shown(item)}` in Annotated", hint="Use Field(…).")
        return typing.Annotated[(kind, *extras)] if extras else kind

    # errors

    def error(self, node: ast.AST, what: str, where: str = "", hint: str | None = None) -> ValidationError:
        line = getattr(node, "lineno", None)
        inside = f" in {where}" if where else ""
        at = f"Line {line} of the text_format" if line else "The text_format"
        return ValidationError(
            f"{at}: {what}{inside} cannot be used in a shape.",
            hint=hint or "A shape has classes of BaseModel or Enum with typed fields, and nothing that runs.",
            line=line,
        )

    def refuse(self, node: ast.AST, what: str, where: str = "", hint: str | None = None) -> NoReturn:
        raise self.error(node, what, where, hint)


def _last_name(node: ast.expr) -> str | None:
    """`Field` of `Field`, `pydantic.Field` and `t.Field`; None for everything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and _first_name(node):
        return node.attr
    return None


def _first_name(node: ast.expr) -> str:
    """`pydantic` of `pydantic.Field`; empty for what is no dotted name."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _at(node: ast.expr, place: ast.AST) -> ast.expr:
    """A copy of *node* that stands where *place* does."""
    moved = copy.deepcopy(node)
    for part in ast.walk(moved):
        ast.copy_location(part, place)
    return moved


def _substituted(node: ast.expr, names: _Names) -> ast.expr:
    """*node* with type variables replaced."""

    class Replace(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return names.get(node.id, node)

    return Replace().visit(copy.deepcopy(node)) if names else node


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


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).split("\n") if line.strip() and "errors.pydantic.dev" not in line]
    return _short(lines[-1] if lines else type(error).__name__, 200)
