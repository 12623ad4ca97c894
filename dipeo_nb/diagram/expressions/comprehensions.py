"""Comprehensions: their loops, variables and tests."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dipeo_nb.diagram.expressions.builder import Builder, Closure
from dipeo_nb.diagram.expressions.errors import FAILURES
from dipeo_nb.diagram.expressions.scope import Scope
from dipeo_nb.diagram.expressions.values import kind
from dipeo_nb.diagram.values import plain


class Comprehensions(Builder):
    """Compiles comprehensions."""

    def build_ListComp(self, node: ast.ListComp) -> Closure:
        return self._comprehension(node, node.elt, node.generators, list)

    def build_GeneratorExp(self, node: ast.GeneratorExp) -> Closure:
        return self._comprehension(node, node.elt, node.generators, list)

    def build_SetComp(self, node: ast.SetComp) -> Closure:
        return self._comprehension(node, node.elt, node.generators, set)

    def build_DictComp(self, node: ast.DictComp) -> Closure:
        pair = ast.Tuple([node.key, node.value], ast.Load())
        return self._comprehension(node, ast.copy_location(pair, node.key), node.generators, dict)

    def _comprehension(
        self, node: ast.expr, element: ast.expr, generators: list[ast.comprehension], make: Callable[[Any], Any]
    ) -> Closure:
        each = self._loops(node, element, generators)

        def run(scope: Scope) -> Any:
            try:
                return scope.grown(make(each(scope.inner())))
            except FAILURES as error:
                raise self.source.failed(scope, node, error) from None

        return run

    def _lazy(self, node: ast.GeneratorExp) -> Closure:
        each = self._loops(node, node.elt, node.generators)
        return lambda scope: each(scope.inner())

    def _loops(
        self, node: ast.expr, element: ast.expr, generators: list[ast.comprehension]
    ) -> Callable[[Scope], Iterator[Any]]:
        """A function that yields the elements; the scope given to it is its own."""
        levels: list[tuple[ast.expr, Closure, ast.expr, list[Closure]]] = []
        for generator in generators:
            if generator.is_async:
                self.refuse(node, "`async for` cannot be used in an expression.")
            source = self.build(generator.iter)
            self.bound.append({n.id for n in ast.walk(generator.target) if isinstance(n, ast.Name)})
            self._target(generator.target)
            levels.append((generator.iter, source, generator.target, [self.build(test) for test in generator.ifs]))
        body = self.build(element)
        del self.bound[len(self.bound) - len(generators) :]

        def level(scope: Scope, at: int) -> Iterator[Any]:
            if at == len(levels):
                yield plain(body(scope))
                return
            source_node, source, target, tests = levels[at]
            items = source(scope)
            value = plain(items)
            if not isinstance(value, (list, tuple, set, frozenset, range, str, Mapping)):
                raise self.source.failed(
                    scope, source_node, TypeError(f"{kind(value)} cannot be iterated over"), (source_node, items)
                )
            for item in value:
                scope.step()
                try:
                    _assign(scope.locals, target, item)
                except FAILURES as error:
                    raise self.source.failed(scope, target, error, (target, item)) from None
                if all(plain(test(scope)) for test in tests):
                    yield from level(scope, at + 1)

        return lambda scope: level(scope, 0)

    def _target(self, node: ast.expr) -> None:
        if isinstance(node, (ast.Tuple, ast.List)):
            for item in node.elts:
                self._target(item)
        elif not isinstance(node, ast.Name) or node.id.startswith("__"):
            self.refuse(node, "Only plain names can be loop variables.")


def _assign(variables: dict[str, Any], target: ast.expr, value: Any) -> None:
    if isinstance(target, ast.Name):
        variables[target.id] = value
        return
    assert isinstance(target, (ast.Tuple, ast.List))  # the compiler refused everything else
    values = list(plain(value))
    if len(values) != len(target.elts):
        raise ValueError(f"{len(values)} values for {len(target.elts)} variables")
    for item, part in zip(target.elts, values, strict=True):
        _assign(variables, item, part)
