"""Evaluates expressions of the syntax tree. Pure: there are no effects to have, and steps, nesting and sizes are bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from dipeo_nb.codegen.typescript import builtins, operators
from dipeo_nb.codegen.typescript.values import (
    MAX_ITEMS,
    MAX_TEXT,
    UNDEFINED,
    Closure,
    NotEvaluatedError,
    Scope,
    key_text,
    keys,
    kind_of,
    parsed_number,
    to_text,
    truthy,
    unescaped,
)
from dipeo_nb.common import cancellable

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_STEPS = 200_000
"""Expressions that one constant may take."""
MAX_TOTAL_STEPS = 500_000
"""Of all constants of a batch together."""
MAX_DEPTH = 80
"""Expressions within each other, calls included."""


class Expressions:
    """Evaluates expressions.

    Args:
        lookup: the value of a name of a module; raises KeyError.
    """

    def __init__(self, lookup: Callable[[Scope, str], Any]) -> None:
        self._lookup = lookup
        self._steps = 0
        self._total = 0
        """Steps of constants that are done."""
        self._depth = 0
        self._calls = 0
        self._fresh: dict[int, Any] = {}
        """Arrays and objects that the constant at work has made itself: only these may change. Kept, so that their ids stay theirs."""

    @contextmanager
    def constant(self) -> Iterator[None]:
        """The evaluation of one constant, perhaps in the middle of that of another one."""
        steps, depth, calls, fresh = self._steps, self._depth, self._calls, self._fresh
        self._steps, self._calls, self._fresh = 0, 0, {}
        try:
            yield
        finally:
            self._total += self._steps
            self._steps, self._depth, self._calls, self._fresh = steps, depth, calls, fresh

    def value(self, node: Node, scope: Scope) -> Any:
        """What an expression is. Raises NotEvaluatedError."""
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise NotEvaluatedError(node, f"it takes more than {MAX_STEPS:,} steps")
        if self._total + self._steps > MAX_TOTAL_STEPS:
            raise NotEvaluatedError(node, f"the constants together take more than {MAX_TOTAL_STEPS:,} steps")
        if not self._steps & 1023:
            cancellable.check()
        evaluate = self._KINDS.get(node.type)
        if evaluate is None:
            raise NotEvaluatedError(node, f"a {node.type.replace('_', ' ')} is not evaluated")
        if self._depth >= MAX_DEPTH:
            raise NotEvaluatedError(node, f"it is nested deeper than {MAX_DEPTH} levels")
        self._depth += 1
        try:
            return evaluate(self, node, scope)
        except (ValueError, TypeError, OverflowError, AttributeError, IndexError, builtins.NoSuchMethodError) as error:
            # Of operators and built-in functions, for values that they do not take.
            raise NotEvaluatedError(node, str(error) or type(error).__name__) from error
        except RecursionError as error:
            raise NotEvaluatedError(node, "it is nested too deeply") from error
        finally:
            self._depth -= 1

    def _part(self, node: Node, scope: Scope) -> Any:
        """The value of an element of a literal. Outside calls, what is not evaluated stands for itself."""
        if self._calls:
            return self.value(node, scope)
        try:
            return self.value(node, scope)
        except NotEvaluatedError as error:
            return self.unevaluated(error, node, scope)

    def unevaluated(self, error: NotEvaluatedError, node: Node, scope: Scope) -> dict[str, str]:
        """`{"$expr": text}`, with a diagnostic."""
        source = scope.outline.source
        source.diagnose(node, f"This is not evaluated: {error.reason}.", "warning")
        return {"$expr": source.text(node)}

    def made(self, value: Any) -> Any:
        self._fresh[id(value)] = value
        return value

    def changeable(self, value: Any, node: Node) -> None:
        if id(value) not in self._fresh:
            raise NotEvaluatedError(node, "it changes a value of the module")

    # Literals.

    def _text(self, node: Node, scope: Scope) -> str:
        return unescaped(scope.outline.source.text(node)[1:-1])

    def _number(self, node: Node, scope: Scope) -> int | float:
        return parsed_number(scope.outline.source.text(node))

    def _template(self, node: Node, scope: Scope) -> str:
        source, pieces, at = scope.outline.source, list[str](), node.start_byte + 1
        for part in node.named_children:
            if part.type == "template_substitution":
                pieces.append(unescaped(source.data[at : part.start_byte].decode()))
                pieces.append(to_text(self._data(self.value(part.named_children[0], scope), part)))
                at = part.end_byte
        pieces.append(unescaped(source.data[at : node.end_byte - 1].decode()))
        if sum(map(len, pieces)) > MAX_TEXT:
            raise ValueError(f"the text would have more than {MAX_TEXT:,} characters")
        return "".join(pieces)

    def _data(self, value: Any, node: Node) -> Any:
        if isinstance(value, Closure):
            raise NotEvaluatedError(node, "it is a function")
        return value

    def _array(self, node: Node, scope: Scope) -> list[Any]:
        items: list[Any] = []
        for part in node.named_children:
            if part.type == "comment":
                continue
            if part.type != "spread_element":
                items.append(self._part(part, scope))
                continue
            try:
                spread = self.value(part.named_children[0], scope)
                if isinstance(spread, str):
                    spread = list(spread)
                if not isinstance(spread, list):
                    raise NotEvaluatedError(part, f"{kind_of(spread)} cannot be spread in an array")
                items.extend(spread)  # pyright: ignore[reportUnknownArgumentType]
            except NotEvaluatedError as error:
                if self._calls:
                    raise
                items.append(self.unevaluated(error, part, scope))
            if len(items) > MAX_ITEMS:
                raise ValueError(f"the array would have more than {MAX_ITEMS:,} elements")
        return self.made(items)

    def _object(self, node: Node, scope: Scope) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for part in node.named_children:
            match part.type:
                case "pair":
                    made[self._key(part, "key", scope)] = self._part(part.child_by_field_name("value") or part, scope)
                case "shorthand_property_identifier":
                    made[scope.outline.source.text(part)] = self._part(part, scope)
                case "spread_element":
                    spread = self.value(part.named_children[0], scope)
                    if isinstance(spread, dict):
                        made.update(spread)  # pyright: ignore[reportUnknownArgumentType]
                    elif isinstance(spread, (list, str)):
                        made.update({str(at): item for at, item in enumerate(spread)})  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
                case "method_definition":
                    accessor = any(child.type in ("get", "set") for child in part.children)
                    error = NotEvaluatedError(part, "an accessor is not evaluated")
                    if accessor and self._calls:
                        raise error
                    name = self._key(part, "name", scope)
                    made[name] = self.unevaluated(error, part, scope) if accessor else Closure(part, scope)
                case "comment":
                    pass
                case _:
                    raise NotEvaluatedError(part, f"a {part.type.replace('_', ' ')} is not evaluated")
        return self.made(made)

    def _key(self, node: Node, field_name: str, scope: Scope) -> str:
        key = node.child_by_field_name(field_name)
        assert key is not None
        if key.type == "computed_property_name":
            return key_text(self.value(key.named_children[0], scope))
        if key.type == "number":
            return to_text(self._number(key, scope))
        return self._text(key, scope) if key.type == "string" else scope.outline.source.text(key)

    # Names and members.

    def _name(self, node: Node, scope: Scope) -> Any:
        name = scope.outline.source.text(node)
        at: Scope | None = scope
        while at is not None:
            if name in at.names:
                return at.names[name]
            at = at.around
        try:
            return self._lookup(scope, name)
        except KeyError:
            if name in ("NaN", "Infinity"):
                return float(name.lower().replace("infinity", "inf"))
            raise NotEvaluatedError(node, f"'{name}' is not known here") from None

    def _member(self, node: Node, scope: Scope) -> Any:
        return self._chain(node, scope)[0]

    def _chain(self, node: Node, scope: Scope) -> tuple[Any, bool]:
        """(value, whether `?.` has ended the chain)."""
        node = _bare(node)
        if node.type == "call_expression":
            return self._call(node, scope)
        if node.type not in ("member_expression", "subscript_expression"):
            return self.value(node, scope), False
        inner = node.child_by_field_name("object")
        assert inner is not None
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise NotEvaluatedError(node, f"it is nested deeper than {MAX_DEPTH} levels")
            owner, ended = self._chain(inner, scope)
        finally:
            self._depth -= 1
        if ended:
            return UNDEFINED, True
        if owner is None or owner is UNDEFINED:
            if any(child.type == "optional_chain" for child in node.children):
                return UNDEFINED, True
            raise NotEvaluatedError(node, f"'{scope.outline.source.text(inner)}' is {to_text(owner)}")
        return self._member_of(owner, self._member_name(node, scope), node), False

    def _member_name(self, node: Node, scope: Scope) -> str:
        if node.type == "member_expression":
            named = node.child_by_field_name("property")
            return "" if named is None else scope.outline.source.text(named)
        index = node.child_by_field_name("index")
        assert index is not None
        return key_text(self.value(index, scope))

    def _member_of(self, owner: Any, name: str, node: Node) -> Any:
        if isinstance(owner, dict):
            named: dict[str, Any] = owner
            if name not in named and "$expr" in named:
                raise NotEvaluatedError(node, "it is a member of what is not evaluated")
            return named.get(name, UNDEFINED)
        if isinstance(owner, (list, str)):
            if name in ("length", "size"):
                return len(owner)  # pyright: ignore[reportUnknownArgumentType]
            if name.isdecimal():
                return owner[int(name)] if int(name) < len(owner) else UNDEFINED  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        raise NotEvaluatedError(node, f"'{name}' of {kind_of(owner)}")

    # Calls.

    def _called(self, node: Node, scope: Scope) -> Any:
        return self._call(node, scope)[0]

    def _call(self, node: Node, scope: Scope) -> tuple[Any, bool]:
        function, given = node.child_by_field_name("function"), node.child_by_field_name("arguments")
        if function is None or given is None or given.type != "arguments":
            raise NotEvaluatedError(node, "such a call is not evaluated")
        function = _bare(function)
        name = scope.outline.source.text(function) if function.end_byte - function.start_byte < 40 else ""
        if builtins.is_global(name) and not self._is_own(name.partition(".")[0], scope):
            return self.made(builtins.global_function(name, self._arguments(given, scope))), False
        if function.type != "member_expression":
            callee, ended = self._chain(function, scope)
            if ended or (callee is UNDEFINED and any(child.type == "optional_chain" for child in node.children)):
                return UNDEFINED, True
            return self.call(node, callee, self._arguments(given, scope)), False
        inner = function.child_by_field_name("object")
        assert inner is not None
        owner, ended = self._chain(inner, scope)
        nothing = owner is None or owner is UNDEFINED
        if ended or (nothing and any(child.type == "optional_chain" for child in function.children)):
            return UNDEFINED, True
        return self._method(node, owner, self._member_name(function, scope), self._arguments(given, scope)), False

    def _new(self, node: Node, scope: Scope) -> Any:
        """`new Set([…])`: a list of its elements, each once. Other objects have no value in JSON."""
        maker, given = node.child_by_field_name("constructor"), node.child_by_field_name("arguments")
        if maker is None or scope.outline.source.text(maker) != "Set":
            raise NotEvaluatedError(node, "only sets are constructed")
        args = [] if given is None else self._arguments(given, scope)
        return self.made(builtins.unique(entries(args[0]) if args else []))

    def _is_own(self, name: str, scope: Scope) -> bool:
        return name in scope.outline.names or name in scope.outline.imports

    def _method(self, node: Node, owner: Any, name: str, args: list[Any]) -> Any:
        if isinstance(owner, dict):
            member = self._member_of(owner, name, node)
            if member is UNDEFINED and name == "hasOwnProperty":
                return key_text(args[0]) in owner
            return self.call(node, member, args)
        try:
            if isinstance(owner, str):
                return self.made(builtins.text_method(owner, name, args))
            if isinstance(owner, list):
                items: list[Any] = owner
                if name in builtins.MUTATING:
                    self.changeable(items, node)
                    if name == "sort" and args:
                        builtins.sorted_by(items, lambda a, b: self.call(node, args[0], [a, b]))
                        return items
                    return builtins.MUTATING[name](items, *args)
                return self.made(builtins.array_method(items, name, args, lambda f, *rest: self.call(node, f, list(rest))))
            if name == "toString" and kind_of(owner) in ("number", "boolean"):
                return to_text(owner)
        except builtins.NoSuchMethodError:
            pass
        raise NotEvaluatedError(node, f".{name}() of {kind_of(owner)} is not evaluated")

    def _arguments(self, node: Node, scope: Scope) -> list[Any]:
        args: list[Any] = []
        self._calls += 1
        try:
            for part in node.named_children:
                if part.type == "spread_element":
                    spread = self.value(part.named_children[0], scope)
                    if not isinstance(spread, list):
                        raise NotEvaluatedError(part, f"{kind_of(spread)} cannot be spread")
                    args.extend(spread)  # pyright: ignore[reportUnknownArgumentType]
                elif part.type != "comment":
                    args.append(self.value(part, scope))
        finally:
            self._calls -= 1
        return args

    def call(self, node: Node, callee: Any, args: list[Any]) -> Any:
        """What a function of the source returns."""
        if not isinstance(callee, Closure):
            raise NotEvaluatedError(node, f"{kind_of(callee)} is called")
        self._calls += 1
        try:
            return self.run(callee, args)
        finally:
            self._calls -= 1

    def run(self, callee: Closure, args: list[Any]) -> Any:
        """Run the body of a function (`Statements`)."""
        raise NotImplementedError

    def _function(self, node: Node, scope: Scope) -> Closure:
        return Closure(node, scope)

    # Operators.

    def _binary(self, node: Node, scope: Scope) -> Any:
        """Chains of operators are nested at their left: without recursion."""
        rest: list[Node] = []
        while node.type == "binary_expression":
            rest.append(node)
            left = node.child_by_field_name("left")
            assert left is not None
            node = left
        made = self.value(node, scope)
        for each in reversed(rest):
            self._steps += 1
            sign, right = each.child_by_field_name("operator"), each.child_by_field_name("right")
            assert sign is not None
            assert right is not None
            match sign.type:
                case "&&":
                    made = self.value(right, scope) if truthy(made) else made
                case "||":
                    made = made if truthy(made) else self.value(right, scope)
                case "??":
                    made = self.value(right, scope) if made is None or made is UNDEFINED else made
                case _:
                    made = operators.binary(sign.type, made, self.value(right, scope))
        return made

    def _unary(self, node: Node, scope: Scope) -> Any:
        sign, argument = node.child_by_field_name("operator"), node.child_by_field_name("argument")
        assert sign is not None
        assert argument is not None
        return operators.unary(sign.type, self.value(argument, scope))

    def _ternary(self, node: Node, scope: Scope) -> Any:
        condition = node.child_by_field_name("condition")
        assert condition is not None
        chosen = node.child_by_field_name("consequence" if truthy(self.value(condition, scope)) else "alternative")
        assert chosen is not None
        return self.value(chosen, scope)

    def _inner(self, node: Node, scope: Scope) -> Any:
        return self.value(_bare(node), scope)

    _KINDS: ClassVar[Mapping[str, Callable[..., Any]]] = {
        "string": _text, "number": _number, "template_string": _template, "array": _array, "object": _object,
        "true": lambda *_: True, "false": lambda *_: False, "null": lambda *_: None, "undefined": lambda *_: UNDEFINED,
        "identifier": _name, "shorthand_property_identifier": _name,
        "member_expression": _member, "subscript_expression": _member, "call_expression": _called, "new_expression": _new,
        "binary_expression": _binary, "unary_expression": _unary, "ternary_expression": _ternary,
        "arrow_function": _function, "function_expression": _function,
        "parenthesized_expression": _inner, "as_expression": _inner, "satisfies_expression": _inner,
        "non_null_expression": _inner, "type_assertion": _inner, "instantiation_expression": _inner,
    }  # fmt: skip


_TRANSPARENT = {
    "parenthesized_expression", "as_expression", "satisfies_expression", "non_null_expression", "type_assertion", "instantiation_expression",
}  # fmt: skip


def _bare(node: Node) -> Node:
    """An expression without parentheses and assertions of types."""
    while node.type in _TRANSPARENT:
        inside = [child for child in node.named_children if child.type not in ("comment", "type_arguments")]
        if not inside:
            raise NotEvaluatedError(node, "it is empty")
        node = inside[0]
    return node


def entries(value: Any) -> list[Any]:
    """What a loop `for (… of value)` goes through. Raises ValueError."""
    if isinstance(value, list):
        return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(value, str):
        return list(value)
    raise ValueError(f"{kind_of(value)} cannot be gone through")


def names_of(value: Any) -> list[Any]:
    """What a loop `for (… in value)` goes through. Raises ValueError."""
    if isinstance(value, dict):
        return list(keys(value))  # pyright: ignore[reportUnknownArgumentType]
    return [str(at) for at in range(len(entries(value)))]
