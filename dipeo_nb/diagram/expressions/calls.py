"""Calls of the functions and methods that expressions have."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from dipeo_nb.diagram.expressions.builder import Closure
from dipeo_nb.diagram.expressions.comprehensions import Comprehensions
from dipeo_nb.diagram.expressions.errors import FAILURES, suggestion
from dipeo_nb.diagram.expressions.scope import Scope
from dipeo_nb.diagram.expressions.values import FUNCTIONS, LAZY, METHODS, TYPES, bound_method, method_argument, text_of
from dipeo_nb.diagram.values import checked_method, plain


class Calls(Comprehensions):
    """Compiles calls."""

    def build_Call(self, node: ast.Call) -> Closure:
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                self.refuse(argument, "Arguments cannot be unpacked with * in an expression.")
        for keyword in node.keywords:
            if keyword.arg is None:
                self.refuse(keyword.value, "Arguments cannot be unpacked with ** in an expression.")
        if isinstance(node.func, ast.Name):
            return self._function(node, node.func.id)
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func)
        return self.refuse(node, "Only functions and methods can be called by their name.")

    def _function(self, node: ast.Call, name: str) -> Closure:
        function = FUNCTIONS.get(name)
        if function is None:
            self.refuse(
                node.func,
                f"There is no function '{name}'{suggestion(name, list(FUNCTIONS))}",
                f"Functions: {', '.join(FUNCTIONS)}.",
            )
        if name == "isinstance" and len(node.args) == 2:
            arguments: list[Closure] = [self.build(node.args[0]), self._type(node.args[1])]
        else:
            arguments = [
                self._lazy(a) if name in LAZY and isinstance(a, ast.GeneratorExp) else self.build(a) for a in node.args
            ]
        keywords = [(str(k.arg), self._key(k.value) if k.arg == "key" else self.build(k.value)) for k in node.keywords]
        as_text = name in ("str", "float", "int")
        factor = 4 if name in ("sorted", "str", "set", "dict") else 1

        def run(scope: Scope) -> Any:
            values = [a(scope) for a in arguments]
            named = {k: plain(v(scope)) for k, v in keywords}
            # str(), float() and int() read the text of a view; all else works on what it was made from.
            given = [text_of(v) if as_text else plain(v) for v in values]
            try:
                scope.used(*given, factor=factor)
                made = function(*given, **named)
                if isinstance(made, (enumerate, zip)):
                    made = list(made)
                return scope.grown(made)
            except FAILURES as error:
                raise self.source.failed(scope, node, error, *zip(node.args, values, strict=False)) from None

        return run

    def _type(self, node: ast.expr) -> Closure:
        nodes = node.elts if isinstance(node, ast.Tuple) else [node]
        types: list[type] = []
        for item in nodes:
            if not isinstance(item, ast.Name) or item.id not in TYPES:
                self.refuse(item, "isinstance needs a type.", f"Types: {', '.join(TYPES)}.")
            types.append(Mapping if item.id == "dict" else TYPES[item.id])
        found = tuple(types)
        return lambda scope: found

    def _key(self, node: ast.expr) -> Closure:
        """The value of `key=`: a function's name, or a lambda with one argument."""
        if isinstance(node, ast.Name) and node.id in FUNCTIONS:
            function = FUNCTIONS[node.id]
            return lambda scope: lambda value: function(plain(value))
        if not isinstance(node, ast.Lambda):
            self.refuse(node, "`key` needs a function, such as `len` or `lambda item: item.score`.")
        spec = node.args
        if len(spec.args) != 1 or spec.defaults or spec.vararg or spec.kwarg or spec.kwonlyargs or spec.posonlyargs:
            self.refuse(node, "A lambda needs exactly one argument here.")
        name = spec.args[0].arg
        self.bound.append({name})
        body = self.build(node.body)
        self.bound.pop()

        def run(scope: Scope) -> Any:
            inner = scope.inner()

            def call(value: Any) -> Any:
                scope.step()
                inner.locals[name] = value
                return plain(body(inner))

            return call

        return run

    def _method(self, node: ast.Call, target: ast.Attribute) -> Closure:
        owner = self.build(target.value)
        name = target.attr
        if not any(name in names for _, names in METHODS):
            every = sorted({n for _, names in METHODS for n in names})
            self.refuse(
                target,
                f"There is no method '{name}' for expressions{suggestion(name, every)}",
                "Methods that change a value are not available; compute it in a code_job."
                if name in ("append", "pop", "update", "sort", "extend", "insert", "remove", "clear", "add", "setdefault")
                else f"Methods: {', '.join(every)}.",
            )
        arguments = [self.build(a) for a in node.args]
        keywords = [(str(k.arg), self.build(k.value)) for k in node.keywords]

        def run(scope: Scope) -> Any:
            of = owner(scope)
            given = [method_argument(a(scope)) for a in arguments]
            named = {k: plain(v(scope)) for k, v in keywords}
            try:
                method = bound_method(of, name, self.source.segment(target.value))
                checked_method(method.__self__, name, given)
                scope.used(method.__self__, *given)
                made = method(*given, **named)
                if isinstance(method.__self__, Mapping) and name in ("items", "keys", "values"):
                    made = list(made)
                return scope.grown(made)
            except FAILURES as error:
                raise self.source.failed(scope, node, error, (target.value, of), *zip(node.args, given, strict=False)) from None

        return run
