"""Compiles the syntax tree of an expression to closures: literals, names, operators, comparisons."""

from __future__ import annotations

import ast
import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dipeo_nb.diagram.expressions.builder import Closure
from dipeo_nb.diagram.expressions.calls import Calls
from dipeo_nb.diagram.expressions.errors import FAILURES, no_attribute, suggestion
from dipeo_nb.diagram.expressions.scope import Scope
from dipeo_nb.diagram.expressions.values import BINARY, DATE_FIELDS, UNARY, comparison, kind, record_fields
from dipeo_nb.diagram.metering import ATOMS
from dipeo_nb.diagram.values import TooLargeError, checked_binary, plain

_CONSTANTS = {"true": True, "false": False, "null": None, "none": None, "undefined": None}


class Compiler(Calls):
    """Turns a syntax tree into closures, refusing what is not allowed."""

    def build_Constant(self, node: ast.Constant) -> Closure:
        value = node.value
        if not isinstance(value, (str, int, float, type(None))):
            self.refuse(node, f"A constant of type {type(value).__name__} cannot be used in an expression.")
        if isinstance(value, str) and (braces := re.fullmatch(r"\{\{([^{}]+)\}\}", value.strip())):
            name = braces[1].strip()
            self.refuse(node, f"This compares with the text {value!r} itself.", f"Write {name} without quotes and braces.")
        return lambda scope: value

    def build_JoinedStr(self, node: ast.JoinedStr) -> Closure:
        parts = [self.build(value) for value in node.values]

        def run(scope: Scope) -> Any:
            return scope.grown("".join([part(scope) for part in parts]))

        return run

    def build_FormattedValue(self, node: ast.FormattedValue) -> Closure:
        value = self.build(node.value)
        form = self.build(node.format_spec) if node.format_spec else None
        convert = {-1: None, 115: str, 114: repr, 97: ascii}[node.conversion]

        def run(scope: Scope) -> Any:
            it = value(scope)
            spec = form(scope) if form else ""
            try:
                if re.search(r"\d{4,}", spec):
                    raise TooLargeError("the width in the format is too large")
                scope.used(it, factor=4)
                if spec and not convert:
                    it = plain(it)
                    if not isinstance(it, (str, int, float, type(None), datetime.date, datetime.time)):
                        it = str(it)
                return format(convert(it) if convert else it, spec) if spec or convert else str(it)
            except FAILURES as error:
                raise self.source.failed(scope, node, error, (node.value, it)) from None

        return run

    def _items(self, nodes: Sequence[ast.expr]) -> Callable[[Scope], list[Any]]:
        parts = [(self.build(n.value), n) if isinstance(n, ast.Starred) else (self.build(n), None) for n in nodes]

        def run(scope: Scope) -> list[Any]:
            made: list[Any] = []
            for part, starred in parts:
                if starred is None:
                    made.append(part(scope))
                    continue
                value = plain(part(scope))
                try:
                    made.extend(scope.grown(list(value)))
                except FAILURES as error:
                    raise self.source.failed(scope, starred, error, (starred.value, value)) from None
            return made

        return run

    def build_List(self, node: ast.List) -> Closure:
        items = self._items(node.elts)
        return lambda scope: scope.grown(items(scope))

    def build_Tuple(self, node: ast.Tuple) -> Closure:
        items = self._items(node.elts)
        return lambda scope: scope.grown(tuple(items(scope)))

    def build_Set(self, node: ast.Set) -> Closure:
        items = self._items(node.elts)
        return lambda scope: self._hashed(scope, node, lambda: set(scope.grown(items(scope))))

    def build_Dict(self, node: ast.Dict) -> Closure:
        pairs = [
            (None if key is None else self.build(key), self.build(value))
            for key, value in zip(node.keys, node.values, strict=True)
        ]

        def make(scope: Scope) -> dict[Any, Any]:
            made: dict[Any, Any] = {}
            for key, value in pairs:
                if key is None:
                    made.update(plain(value(scope)))
                else:
                    made[key(scope)] = value(scope)
            return made

        return lambda scope: self._hashed(scope, node, lambda: scope.grown(make(scope)))

    def _hashed(self, scope: Scope, node: ast.AST, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except FAILURES as error:
            raise self.source.failed(scope, node, error) from None

    def build_Name(self, node: ast.Name) -> Closure:
        name = node.id
        if any(name in bound for bound in self.bound):
            return lambda scope: scope.locals[name]
        if name.startswith("__"):
            self.refuse(node, f"Names that begin with two underscores, such as '{name}', cannot be used.")
        constant = name in _CONSTANTS
        if not constant:
            self.names.add(name)

        def run(scope: Scope) -> Any:
            try:
                return scope.names[name]
            except KeyError:
                if constant:
                    return _CONSTANTS[name]
                scope.unknown.setdefault(name, f"'{name}' is not a known name")
                return None

        return run

    def build_Attribute(self, node: ast.Attribute) -> Closure:
        owner = self.build(node.value)
        name = node.attr
        if name.startswith("__"):
            self.refuse(node, f"'{name}' cannot be read: names that begin with two underscores are not for expressions.")

        def run(scope: Scope) -> Any:
            of = owner(scope)
            value = plain(of)
            if isinstance(value, Mapping):
                if name in value:
                    return value[name]
                if value:
                    path = self.source.segment(node.value)
                    scope.unknown.setdefault(
                        f"{path}.{name}", f"'{path}' has no '{name}'{suggestion(name, [str(k) for k in value])}"
                    )
                return None
            if isinstance(value, (datetime.date, datetime.time)) and name in DATE_FIELDS and hasattr(value, name):
                return getattr(value, name)
            if name in record_fields(value):
                return getattr(value, name)
            raise self.source.failed(
                scope, node, AttributeError(no_attribute(self.source.segment(node.value), name, value)), (node.value, of)
            )

        return run

    def build_Subscript(self, node: ast.Subscript) -> Closure:
        owner = self.build(node.value)
        index = self.build(node.slice)

        def run(scope: Scope) -> Any:
            of = owner(scope)
            value = plain(of)
            at = plain(index(scope))
            try:
                if isinstance(value, Mapping) and at not in value:
                    raise LookupError(f"there is no key {at!r}{suggestion(str(at), [str(k) for k in value])}")
                if not isinstance(value, (Mapping, str, list, tuple, range)):
                    raise TypeError(f"{kind(value)} has no items")
                found = value[at]
                return scope.grown(found) if isinstance(at, slice) else found
            except FAILURES as error:
                raise self.source.failed(scope, node, error, (node.value, of), (node.slice, at)) from None

        return run

    def build_Slice(self, node: ast.Slice) -> Closure:
        parts = [self.build(p) if p else None for p in (node.lower, node.upper, node.step)]
        return lambda scope: slice(*[plain(p(scope)) if p else None for p in parts])

    def build_BinOp(self, node: ast.BinOp) -> Closure:
        if type(node.op) not in BINARY:
            self.refuse(node, "The operator @ cannot be used in an expression.")
        symbol, apply = BINARY[type(node.op)]
        left, right = self.build(node.left), self.build(node.right)

        def run(scope: Scope) -> Any:
            a, b = left(scope), right(scope)
            try:
                # Text views take part as text next to text, else as the value they were made from.
                x, y = (str(a), str(b)) if isinstance(a, str) and isinstance(b, str) else (plain(a), plain(b))
                checked_binary(symbol, x, y)
                if symbol == "%" and isinstance(x, str):
                    scope.used(y, factor=max(x.count("%"), 1))
                elif symbol in "+-&|^":
                    scope.used(x, y)
                return scope.grown(apply(x, y))
            except FAILURES as error:
                raise self.source.failed(scope, node, error, (node.left, a), (node.right, b)) from None

        return run

    def build_UnaryOp(self, node: ast.UnaryOp) -> Closure:
        operand = self.build(node.operand)
        if isinstance(node.op, ast.Not):
            return lambda scope: not plain(operand(scope))
        apply = UNARY[type(node.op)]

        def run(scope: Scope) -> Any:
            value = operand(scope)
            try:
                return apply(plain(value))
            except FAILURES as error:
                raise self.source.failed(scope, node, error, (node.operand, value)) from None

        return run

    def build_BoolOp(self, node: ast.BoolOp) -> Closure:
        parts = [self.build(value) for value in node.values]
        stop = isinstance(node.op, ast.Or)

        def run(scope: Scope) -> Any:
            value: Any = None
            for part in parts:
                value = part(scope)
                if bool(plain(value)) is stop:
                    break
            return value

        return run

    def build_Compare(self, node: ast.Compare) -> Closure:
        operands = [self.build(value) for value in (node.left, *node.comparators)]
        nodes = (node.left, *node.comparators)
        tests = [comparison(type(op)) for op in node.ops]
        if len(tests) == 1:
            # By far the most frequent form.
            first, second, test = operands[0], operands[1], tests[0]
            inside = isinstance(node.ops[0], (ast.In, ast.NotIn))

            def run_one(scope: Scope) -> Any:
                a, b = first(scope), second(scope)
                try:
                    if type(b) not in ATOMS and (inside or type(a) not in ATOMS):
                        scope.used(a, b)
                    return test(a, b)
                except FAILURES as error:
                    raise self.source.failed(scope, node, error, (nodes[0], a), (nodes[1], b)) from None

            return run_one

        def run(scope: Scope) -> Any:
            a = operands[0](scope)
            for i, compare in enumerate(tests):
                b = operands[i + 1](scope)
                try:
                    scope.used(a, b)
                    holds = compare(a, b)
                except FAILURES as error:
                    raise self.source.failed(scope, node, error, (nodes[i], a), (nodes[i + 1], b)) from None
                if not holds:
                    return False
                a = b
            return True

        return run

    def build_IfExp(self, node: ast.IfExp) -> Closure:
        test, then, other = self.build(node.test), self.build(node.body), self.build(node.orelse)
        return lambda scope: then(scope) if plain(test(scope)) else other(scope)
