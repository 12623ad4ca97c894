"""Values in pydantic source: constants, members of enumerations, defaults and options of fields."""

from __future__ import annotations

import ast
import copy
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ForwardRef

from pydantic import Field

from dipeo_nb.common.text import nearest
from dipeo_nb.diagram.pydantic_source.index import SourceIndex
from dipeo_nb.diagram.pydantic_source.syntax import construct, last_name, source_of
from dipeo_nb.diagram.pydantic_source.words import (
    DOCUMENTING_OPTIONS,
    ENUMS,
    FACTORIES,
    FIELD_OPTIONS,
    MODEL_SETTINGS,
    OLD_OPTIONS,
    OTHER_OPTIONS,
)
from dipeo_nb.errors import ValidationError


class ValueReader(SourceIndex):
    """Reads values. Enumerations are made here, since their members are values."""

    def need(self, name: str) -> Any:
        """A class of this text, made sooner or later: resolved by name when all are there."""
        node = self.classes[name]
        if self.is_enum(node):
            return self.enumeration(name)
        if name not in self.models:
            self.waiting[name] = (node, {})
        return ForwardRef(name)

    def enumeration(self, name: str) -> type[enum.Enum]:
        """The enumeration of that name, made once."""
        if name in self.enums:
            return self.enums[name]
        node = self.classes[name]
        bases = [self.name(base) for base in node.bases]
        mixed = [b for b in bases if b in ("str", "int")]
        kind = next((b for b in bases if b in ENUMS), None)
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
                    self.skip(statement, f"{construct(statement)} of {node.name}")
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
        """The value of `auto()` for a member."""
        return name.lower() if kind == "StrEnum" or "str" in mixed else len(members) + 1

    def config(self, node: ast.expr) -> dict[str, Any]:
        """The settings that matter to a shape."""
        pairs: list[tuple[str | None, ast.expr]] = []
        if isinstance(node, ast.Call) and self.name(node.func) in ("ConfigDict", "dict") and not node.args:
            pairs = [(k.arg, k.value) for k in node.keywords]
        elif isinstance(node, ast.Dict):
            pairs = [(str(k.value), v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant)]
        else:
            self.skip(node, f"model_config `{source_of(node)}`")
        found: dict[str, Any] = {}
        for key, value in pairs:
            found |= self.setting(str(key), value)
        return found

    def setting(self, key: str, value: ast.expr) -> dict[str, Any]:
        """One setting of `model_config`, if it matters to the shape."""
        if key in MODEL_SETTINGS:
            return {key: self.literal(value)}
        self.skip(value, f"the setting '{key}' of model_config")
        return {}

    def default(self, node: ast.expr) -> Any:
        """The default of a field."""
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
        """A factory of copies of a constant."""
        value = self.literal(node)
        return lambda: copy.deepcopy(value)

    def factory(self, node: ast.expr) -> Callable[[], Any]:
        """The value of `default_factory`."""
        if isinstance(node, ast.Lambda) and not node.args.args:
            return self.instance(node.body) or self.constant(node.body)
        name = self.name(node)
        if name in self.classes and not self.is_enum(self.classes[name]):
            self.need(name)
            return lambda: self.models[name]()
        if name not in FACTORIES:
            self.refuse(node, "this default_factory", hint=f"Use one of: {', '.join(FACTORIES)}; or a constant.")
        return FACTORIES[name]

    def field(self, node: ast.Call) -> Any:
        """A call of `Field(…)`."""
        if len(node.args) > 1:
            self.refuse(node, "Field with several positional arguments")
        made = [("default", node.args[0])] if node.args else []
        return self.options([*made, *((k.arg or "", k.value) for k in node.keywords)])

    def options(self, given: Sequence[tuple[str, ast.expr]]) -> Any:
        """The options of a `Field`."""
        options: dict[str, Any] = {}
        for name, value in given:
            name = OLD_OPTIONS.get(name, name)
            if name in OTHER_OPTIONS:
                continue
            if name not in FIELD_OPTIONS:
                close = nearest(name, sorted(FIELD_OPTIONS))
                self.refuse(value, f"the argument '{name}' of Field", hint=f"Did you mean '{close}'?" if close else None)
            if name == "default_factory":
                options[name] = self.factory(value)
            elif name == "default" and (made := self.instance(value)) is not None:
                options["default_factory"] = made
            elif name in DOCUMENTING_OPTIONS:
                try:
                    options[name] = self.literal(value)
                except ValidationError:
                    self.skip(value, f"the {name} `{source_of(value)}`")
            elif name == "discriminator" and not isinstance(value, ast.Constant):
                self.skip(value, "the discriminator")
            else:
                options[name] = self.literal(value)
        return Field(**options)

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
                return FACTORIES[name]()
            case _:
                pass
        return self.refuse(node, f"the value `{source_of(node)}`", hint="Defaults are constants.")

    def sum(self, node: ast.expr, left: Any, op: ast.operator, right: Any) -> Any:
        """`60 * 60`, `"a" + "b"`; nothing that grows."""
        match left, op, right:
            case str(), ast.Add(), str():
                return left + right
            case int() | float(), _, int() | float() if max(abs(left), abs(right)) < 1e12:
                return left + right if isinstance(op, ast.Add) else left - right if isinstance(op, ast.Sub) else left * right
            case _:
                pass
        return self.refuse(node, f"the value `{source_of(node)}`", hint="Defaults are constants.")

    def member_of(self, node: ast.expr) -> str | None:
        """The enumeration of `Mood.HAPPY` and `Outer.Mood.HAPPY`."""
        if not isinstance(node, ast.Attribute):
            return None
        name = last_name(node.value)
        return name if name in self.classes and self.is_enum(self.classes[name]) else None
