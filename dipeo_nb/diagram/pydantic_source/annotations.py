"""Types in pydantic source."""

from __future__ import annotations

import ast
import re
import typing
from collections.abc import Sequence
from typing import Any, ForwardRef, Literal

from pydantic import Field

from dipeo_nb.common.text import nearest
from dipeo_nb.diagram.pydantic_source.syntax import first_name, moved_to, short, source_of, substituted
from dipeo_nb.diagram.pydantic_source.values import ValueReader
from dipeo_nb.diagram.pydantic_source.words import (
    CONSTRAINED_TYPES,
    GENERIC_TYPES,
    LIMITS,
    SIMPLE_TYPES,
    SPECIAL_TYPES,
    VALIDATORS,
    TypeNames,
)


class AnnotationReader(ValueReader):
    """Reads annotations as types; classes of the source by reference, to be made later."""

    def annotation(self, node: ast.expr, names: TypeNames, depth: int = 0) -> Any:
        """The type of an annotation; *names* has the type variables."""
        self.spend(node, depth)
        match node:
            case ast.Constant(value=None):
                return None
            case ast.Constant(value=str() as text):
                try:
                    inner = ast.parse(text.strip(), mode="eval").body
                except (SyntaxError, ValueError, RecursionError, MemoryError):
                    self.refuse(node, f"the type '{short(text)}'")
                return self.annotation(moved_to(inner, node), names, depth + 1)
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return typing.Union[self.annotation(left, names, depth + 1), self.annotation(right, names, depth + 1)]  # noqa: UP007
            case ast.Subscript(value=value, slice=index):
                return self.subscript(node, self.name(value), index, names, depth)
            case ast.Call(func=func) if (word := self.name(func)) in CONSTRAINED_TYPES:
                return self.constrained(node, word, names, depth)
            case ast.Name(id=name) if name in names:
                return self.annotation(moved_to(names[name], node), {}, depth + 1)
            case ast.Name() | ast.Attribute():
                return self.named(node, self.name(node), names, depth)
            case _:
                return self.refuse(node, f"the type `{source_of(node)}`")

    def named(self, node: ast.expr, name: str, names: TypeNames, depth: int) -> Any:
        """The type of a name."""
        if name in self.classes:
            return self.need(name)
        if name in self.aliases:
            value = self.aliases[name]
            if isinstance(value, ast.Call) and self.name(value.func) in ("TypeVar", "NewType"):
                # NewType("UserId", int) is its type; a free type variable is anything.
                return (
                    self.annotation(value.args[1], names, depth + 1)
                    if self.name(value.func) == "NewType" and value.args[1:]
                    else Any
                )
            return self.annotation(value, names, depth + 1)
        if name in self.foreign:
            self.foreign_name(node, name)
        if isinstance(node, ast.Attribute) and (root := first_name(node)) in self.foreign:
            self.foreign_name(node, root)
        if name in SIMPLE_TYPES:
            return SIMPLE_TYPES[name]
        known = [*self.classes, *self.aliases, *SIMPLE_TYPES, *SPECIAL_TYPES]
        close = nearest(name, known)
        return self.refuse(
            node,
            f"the type '{name}'",
            hint=f"Did you mean '{close}'?"
            if close
            else "Use str, int, float, bool, list[…], dict[…], Literal[…] or a class of this text.",
        )

    def subscript(self, node: ast.expr, name: str, index: ast.expr, names: TypeNames, depth: int) -> Any:
        """The type of a subscript, such as `list[str]`."""
        items: Sequence[ast.expr] = index.elts if isinstance(index, ast.Tuple) else [index]
        if not items:
            self.refuse(node, f"the type `{source_of(node)}`")

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
            case _ if name in GENERIC_TYPES:
                if name in ("tuple", "Tuple") and isinstance(items[-1], ast.Constant) and items[-1].value is ...:
                    each = inner(items[0])
                    return tuple[each, ...]
                wanted = 2 if GENERIC_TYPES[name] is dict else None if GENERIC_TYPES[name] is tuple else 1
                if wanted and len(items) != wanted:
                    self.refuse(
                        node,
                        f"the type `{source_of(node)}`",
                        hint=f"{name} takes {wanted} type{'s' if wanted > 1 else ''}.",
                    )
                kinds = tuple(map(inner, items))
                return GENERIC_TYPES[name][kinds[0] if wanted == 1 else kinds]
            case _ if name in self.foreign:
                return self.foreign_name(node, name)
            case _:
                return self.refuse(node, f"the type `{source_of(node)}`")

    def specialised(self, node: ast.ClassDef, given: ast.expr, names: TypeNames) -> tuple[str, TypeNames]:
        """The name of a generic class for some types, and what its type variables stand for."""
        variables = self.type_variables(node)
        types = [substituted(t, names) for t in (given.elts if isinstance(given, ast.Tuple) else [given])]
        if len(types) != len(variables):
            count = f"{len(variables)} type{'' if len(variables) == 1 else 's'}" if variables else "no types"
            self.refuse(given, f"'{node.name}[{source_of(given)}]'", hint=f"{node.name} takes {count}.")
        name = f"{node.name}[{', '.join(map(ast.unparse, types))}]"
        return re.sub(r"\W+", "_", name).strip("_"), dict(zip(variables, types, strict=True))

    def constrained(self, node: ast.Call, word: str, names: TypeNames, depth: int) -> Any:
        """`constr(max_length=5)` and its like."""
        kind: Any = CONSTRAINED_TYPES[word]
        given = [(k.arg or "", k.value) for k in node.keywords]
        if word in ("conlist", "conset"):
            item = node.args[0] if node.args else next((v for k, v in given if k == "item_type"), ast.Name("Any"))
            kind = kind[self.annotation(item, names, depth + 1)]
            given = [(k, v) for k, v in given if k != "item_type"]
        return typing.Annotated[kind, self.options(given)]

    def annotated(self, items: Sequence[ast.expr], names: TypeNames, depth: int) -> Any:
        """The type of `Annotated[…]`."""
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
                case ast.Call(args=[value]) if word in LIMITS:
                    extras.append(self.options([(LIMITS[word], value)]))
                case ast.Call(args=[ast.Constant(value=str() as text)]) if word == "Doc":
                    extras.append(Field(description=text))
                case _ if word in VALIDATORS:
                    self.skip(item, f"`{source_of(item)}`")
                case _:
                    self.refuse(item, f"`{source_of(item)}` in Annotated", hint="Use Field(…).")
        return typing.Annotated[(kind, *extras)] if extras else kind
