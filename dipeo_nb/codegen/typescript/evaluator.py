"""The values of constants and enums, across the modules of a batch."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dipeo_nb.codegen.typescript.outline import Item, Outline
from dipeo_nb.codegen.typescript.statements import Statements
from dipeo_nb.codegen.typescript.values import UNDEFINED, Closure, NotEvaluatedError, Scope, keys, to_text

if TYPE_CHECKING:
    from tree_sitter import Node

_SUFFIXES = ("", ".ts", ".tsx", ".d.ts", "/index.ts", "/index.tsx")
_WRITTEN = (".js", ".jsx", ".mjs", ".cjs")
"""Suffixes that an import of a TypeScript module is written with."""
MAX_HOPS = 50
"""Modules through which a name may be handed on."""
MAX_VALUES = 500_000
"""In the value of a constant, 16 characters of a text counting as one."""
MAX_TOTAL_VALUES = 1_000_000
"""In those of all constants of a batch: each is a copy."""
_BUSY = object()


class Evaluator:
    """Evaluates constants and enums.

    Args:
        outlines: of all modules that may name each other, by their names.
    """

    def __init__(self, outlines: Mapping[str, Outline]) -> None:
        self._outlines = {_plain(name): outline for name, outline in outlines.items()}
        self._names = {id(outline): name for name, outline in self._outlines.items()}
        self._run = Statements(self._lookup)
        self._values: dict[tuple[int, int], Any] = {}
        """By outline and node; `_BUSY` while it is at work, which shows circles."""
        self._left = MAX_TOTAL_VALUES
        self._anywhere: dict[str, list[tuple[Outline, str]]] | None = None

    def constant(self, outline: Outline, item: Item) -> Any:
        """The value of a constant as JSON has it; what is not evaluated is `{"$expr": text}`, with a diagnostic. None: it is declared only."""
        if item.node.child_by_field_name("value") is None:
            return None
        try:
            value = self._value(outline, item)
        except NotEvaluatedError as error:
            node = item.node.child_by_field_name("value") or item.node
            return self._run.unevaluated(error, node, Scope(outline, item.namespace))
        return self._given(item.node.child_by_field_name("value") or item.node, value, Scope(outline, item.namespace))

    def enum(self, outline: Outline, item: Item) -> list[tuple[Node, str, Any]]:
        """(node, name, value) of the members."""
        return [(node, name, value) for node, name, value in self._members(outline, item)]

    def default(self, outline: Outline) -> Any:
        """The value of `export default …`, as `constant`."""
        assert outline.default is not None
        scope = Scope(outline)
        try:
            with self._run.constant():
                value = self._run.value(outline.default, scope)
            return self._given(outline.default, value, scope)
        except NotEvaluatedError as error:
            return self._run.unevaluated(error, outline.default, scope)

    def _value(self, outline: Outline, item: Item) -> Any:
        key = (id(outline), item.node.id)
        name = item.name if item.pattern else ""
        found = self._values.get(key)
        if found is _BUSY:
            raise NotEvaluatedError(item.node, f"'{item.name}' is made of itself")
        if isinstance(found, NotEvaluatedError):
            raise NotEvaluatedError(found.node, found.reason)
        if found is not None:
            return found[name]
        self._values[key] = _BUSY
        try:
            self._values[key] = self._computed(outline, item)
        except NotEvaluatedError as error:
            self._values[key] = error
            raise
        return self._values[key][name]

    def _computed(self, outline: Outline, item: Item) -> dict[str, Any]:
        """The values that a declaration gives, by name; other than of a pattern, under the empty name."""
        scope = Scope(outline, item.namespace)
        match item.kind:
            case "function":
                return {"": Closure(item.node, scope)}
            case "enum":
                return {"": self._enum_object(outline, item)}
            case "const" | "variable":
                expression = item.node.child_by_field_name("value")
                if expression is None or item.kind == "variable":
                    raise NotEvaluatedError(item.node, f"'{item.name}' has no fixed value")
                with self._run.constant():
                    value = self._run.value(expression, scope)
                    if not item.pattern:
                        return {"": value}
                    inner, pattern = scope.within(), item.node.child_by_field_name("name")
                    assert pattern is not None
                    try:
                        self._run.bind(pattern, value, inner)
                    except ValueError as error:
                        raise NotEvaluatedError(pattern, str(error)) from error
                    return inner.names
            case _:
                raise NotEvaluatedError(item.node, f"'{item.name}' is a {item.kind}")

    def _enum_object(self, outline: Outline, item: Item) -> dict[str, Any]:
        members = {name: value for _, name, value in self._members(outline, item)}
        back = {to_text(value): name for name, value in members.items() if isinstance(value, (int, float))}
        return {**back, **members}

    def _members(self, outline: Outline, item: Item) -> list[tuple[Node, str, Any]]:
        """The members, each with the one before it in sight; one without a value is one more than the one before."""
        source, scope = outline.source, Scope(outline, item.namespace).within()
        members: list[tuple[Node, str, Any]] = []
        following: Any = 0
        body = item.node.child_by_field_name("body")
        for node in [] if body is None else body.named_children:
            if node.type == "comment":
                continue
            named, given = (
                (node.child_by_field_name("name"), node.child_by_field_name("value"))
                if node.type == "enum_assignment"
                else (node, None)
            )
            if named is None:
                continue
            name = source.text(named)[1:-1] if named.type == "string" else source.text(named)
            value = following
            if given is not None:
                try:
                    with self._run.constant():
                        value = self._run.value(given, scope)
                except NotEvaluatedError as error:
                    value = self._run.unevaluated(error, given, scope)
            elif following is None:
                source.diagnose(node, f"The member '{name}' has no value.", "warning")
                value = {"$expr": source.text(node)}
            following = value + 1 if isinstance(value, (int, float)) and not isinstance(value, bool) else None
            scope.names[name] = value
            members.append((node, name, value))
        return members

    def _given(self, node: Node, value: Any, scope: Scope) -> Any:
        """A value as it leaves the evaluator."""
        try:
            self._left -= _measure(value, {})
            if self._left < 0:
                raise ValueError(f"the constants together have more than {MAX_TOTAL_VALUES:,} values")
            return self._plain(value, scope.outline, {})
        except RecursionError:
            error = NotEvaluatedError(node, "its value is nested too deeply")
        except ValueError as reason:
            error = NotEvaluatedError(node, str(reason))
        return self._run.unevaluated(error, node, scope)

    def _plain(self, value: Any, outline: Outline, seen: dict[int, Any]) -> Any:
        """As JSON has it: without `undefined`, and with the text of functions. Shared parts stay shared."""
        if isinstance(value, (dict, list)):
            if id(value) in seen:  # pyright: ignore[reportUnknownArgumentType]
                return seen[id(value)]  # pyright: ignore[reportUnknownArgumentType]
            if isinstance(value, dict):
                named: dict[str, Any] = value
                made: Any = {k: self._plain(named[k], outline, seen) for k in keys(named) if named[k] is not UNDEFINED}
            else:
                made = [self._plain(item, outline, seen) for item in value]  # pyright: ignore[reportUnknownVariableType]
            seen[id(value)] = made  # pyright: ignore[reportUnknownArgumentType]
            return made
        if isinstance(value, Closure):
            source = value.scope.outline.source
            if source is outline.source:
                source.diagnose(value.node, "This is a function; its text stands for it.", "info")
            return {"$expr": source.text(value.node)}
        if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
            return {"$expr": to_text(value)}
        return None if value is UNDEFINED else value

    # Names.

    def _lookup(self, scope: Scope, name: str) -> Any:
        """The value of a name of a module. Raises KeyError."""
        outline, namespace = scope.outline, scope.namespace
        while True:
            item = outline.names.get(f"{namespace}.{name}" if namespace else name)
            if item is not None:
                return self._value(outline, item)
            if not namespace:
                break
            namespace = namespace.rpartition(".")[0]
        nested = self._namespace(outline, name)
        if nested:
            return nested
        given = outline.imports.get(name)
        if given is not None:
            module = self._module(outline, given["source"])
            if module is not None:
                if given["imported"] == "*":
                    return self._exports(module)
                return self._exported(module, given["imported"])
            name = given["imported"]
        found = self._everywhere().get(name, [])
        if len(found) == 1:
            return self._value(found[0][0], found[0][0].names[found[0][1]])
        raise KeyError(name)

    def _namespace(self, outline: Outline, name: str) -> dict[str, Any]:
        """What a namespace exports, as an object."""
        made: dict[str, Any] = {}
        for path, item in outline.names.items():
            if item.exported and item.namespace and (item.namespace == name or item.namespace.startswith(f"{name}.")):
                *above, last = path.removeprefix(f"{name}.").split(".")
                at = made
                for part in above:
                    at = at.setdefault(part, {})
                at[last] = self._value(outline, item)
        return made

    def _module(self, outline: Outline, specifier: str) -> Outline | None:
        """The module that an import names, when it is one of the batch."""
        if not specifier.startswith("."):
            return None
        own = self._names[id(outline)]
        path = _plain(posixpath.join(posixpath.dirname(own), specifier))
        for ending in _WRITTEN:
            path = path.removesuffix(ending)
        return next((self._outlines[path + suffix] for suffix in _SUFFIXES if path + suffix in self._outlines), None)

    def _exported(self, outline: Outline, name: str, hops: int = 0) -> Any:
        """The value that a module exports under a name. Raises KeyError."""
        if hops > MAX_HOPS:
            raise KeyError(name)
        own = outline.exported(name)
        if own is not None:
            return self._lookup(Scope(outline), own)
        if name == "default" and outline.default is not None:
            with self._run.constant():
                return self._run.value(outline.default, Scope(outline))
        for export in outline.exports:
            if export["source"] is None or export["name"] not in (name, "*"):
                continue
            module = self._module(outline, export["source"])
            if module is None:
                continue
            if export["name"] == name:
                local = export["local"] or name
                return self._exports(module) if local == "*" else self._exported(module, local, hops + 1)
            try:
                return self._exported(module, name, hops + 1)
            except KeyError:
                continue
        raise KeyError(name)

    def _exports(self, outline: Outline) -> dict[str, Any]:
        """All that a module exports, as an object: in the order of the names, as JavaScript has it."""
        made: dict[str, Any] = {}
        waiting, seen = [outline], set[int]()
        while waiting:
            at = waiting.pop()
            if id(at) in seen:
                continue
            seen.add(id(at))
            names = [item.name for item in at.names.values() if item.exported and not item.namespace and item.kind != "class"]
            for export in at.exports:
                module = None if export["source"] is None else self._module(at, export["source"])
                if export["name"] == "*":
                    waiting += [] if module is None else [module]
                elif not export["isType"] and export["name"] != "default":
                    names.append(export["name"])
            for name in names:
                if name not in made:
                    made[name] = self._exported(at, name)
        return dict(sorted(made.items()))

    def _everywhere(self) -> Mapping[str, list[tuple[Outline, str]]]:
        """What is exported anywhere, for batches whose names are not paths."""
        if self._anywhere is None:
            self._anywhere = {}
            for outline in self._outlines.values():
                for path, item in outline.names.items():
                    if item.exported and not item.namespace:
                        self._anywhere.setdefault(item.name, []).append((outline, path))
        return self._anywhere


def _measure(value: Any, seen: dict[int, int]) -> int:
    """How many values there are when each part is written out wherever it stands. Raises ValueError: too many, or a circle."""
    if not isinstance(value, (dict, list)):
        return 1 + len(value) // 16 if isinstance(value, str) else 1
    key = id(value)  # pyright: ignore[reportUnknownArgumentType]
    if key not in seen:
        seen[key] = -1
        parts: list[Any] = list(value.values()) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        seen[key] = 1 + sum(_measure(part, seen) for part in parts)
        if seen[key] > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES:,} values")
    if seen[key] < 0:
        raise ValueError("its value contains itself")
    return seen[key]


def _plain(path: str) -> str:
    return posixpath.normpath(path.replace("\\", "/"))
