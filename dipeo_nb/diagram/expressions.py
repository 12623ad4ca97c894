"""Expressions of conditions: Python's own, evaluated safely (diagram-spec §3.4 "custom", §9 N9).

An expression is parsed by `ast` and turned into closures; it is never given to `eval`. It can read values and compute
with them, and nothing else: no imports, no names with underscores, no attributes but keys of mappings, fields of
records and the methods listed here, no changes to the values, and limits on length, depth, steps and size.

An unknown name is None, so `missing is None` holds; when the evaluation then fails, the error says that the name is
unknown and which names there are. JavaScript's `true`, `false` and `null` are understood when nothing has that name.
Handlebars braces around names are ignored: `{{score}} > 10` is `score > 10`.
"""

from __future__ import annotations

import ast
import datetime
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from dipeo_nb.common.text import known_names, nearest
from dipeo_nb.diagram.expression_values import (
    BINARY,
    DATE_FIELDS,
    FUNCTIONS,
    LAZY,
    MAX_STEPS,
    METHODS,
    TYPES,
    UNARY,
    bound_method,
    comparison,
    kind,
    method_argument,
    record_fields,
    text_of,
)
from dipeo_nb.diagram.metering import ATOMS, new_meter
from dipeo_nb.diagram.values import MAX_SIZE, TooLargeError, checked_binary, checked_method, plain
from dipeo_nb.errors import ExpressionError

MAX_LENGTH = 4_000
"""Characters of an expression."""
MAX_DEPTH = 60
"""Levels of nesting."""
Closure = Callable[["_Scope"], Any]


class Expression:
    """A parsed expression, ready to be evaluated many times, from any thread."""

    __slots__ = ("_run", "names", "source", "text")

    def __init__(self, text: str, source: str, names: frozenset[str], run: Closure) -> None:
        self.text = text
        """As written."""
        self.source = source
        """As parsed: braces removed; columns count in here, as in `text`."""
        self.names = names
        """Free names."""
        self._run = run

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        """The value of the expression.

        Raises:
            ExpressionError: it cannot be evaluated; the message shows where and with which values.
        """
        return plain(self._run(_Scope(self, names)))

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def evaluate(expression: str, names: Mapping[str, Any]) -> Any:
    """The value of *expression*, with *names* as its variables.

    Raises:
        ExpressionError: it does not parse, or cannot be evaluated; facts: expression, column (1-based).
    """
    return parse(expression).evaluate(names)


@lru_cache(maxsize=1024)
def parse(expression: str) -> Expression:
    """Parse *expression*.

    Raises:
        ExpressionError: not an expression, or one that uses what is not allowed; facts: expression, line and column
            (1-based).
    """
    text = expression.strip()
    if not text:
        raise ExpressionError(
            "The expression is empty.", hint="Write one, such as `score > 10`.", expression=expression
        )
    if len(text) > MAX_LENGTH:
        raise ExpressionError(
            f"The expression has {len(text):,} characters; {MAX_LENGTH:,} are allowed.",
            hint="Compute the value in a code_job and test that.",
            expression=expression,
        )
    source = _BRACES.sub(lambda m: m[0] if m[1] is None else f"( {m[1]} )", text)
    # In parentheses an expression may span lines. They count as one column of the first line.
    wrapped = f"({source}\n)" if "\n" in source else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(wrapped, mode="eval")
    except SyntaxError as error:
        column = max((error.offset or 1) - (wrapped is not source and error.lineno == 1), 1)
        raise _syntax_error(text, source, error.msg, error.lineno or 1, column) from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise _syntax_error(text, source, str(error) or "too deeply nested", 1, 1) from None
    compiler = _Compiler(text, source, wrapped)
    run = compiler.build(tree.body)
    return Expression(text, source, frozenset(compiler.names), run)


_CONSTANTS = {"true": True, "false": False, "null": None, "none": None, "undefined": None}

_BRACES = re.compile(r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\{\{([^{}]*)\}\}""", re.DOTALL)
_FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MemoryError, RecursionError)


class _Scope:
    """What one evaluation knows: the names, the variables of comprehensions, and what it has spent."""

    __slots__ = ("account", "expression", "locals", "names", "root", "size", "steps", "unknown")

    def __init__(self, expression: Expression, names: Mapping[str, Any]) -> None:
        self.expression = expression
        self.names = names
        self.locals: dict[str, Any] = {}
        self.root = self
        self.account = new_meter()
        self.steps = 0
        self.size = 0
        self.unknown: dict[str, str] = {}
        """Names and paths that were met and do not exist → what to say about them."""

    def inner(self) -> _Scope:
        """A scope for a comprehension or lambda: own variables, common account."""
        scope = object.__new__(_Scope)
        scope.expression = self.expression
        scope.names = self.names
        scope.locals = dict(self.locals)
        scope.root = self.root
        scope.account = self.account
        scope.steps = scope.size = 0
        scope.unknown = self.unknown
        return scope

    def step(self) -> None:
        root = self.root
        root.steps += 1
        self.account.rounds -= 1
        if self.account.rounds < 0:
            self.account.turn(0)
        if root.steps > MAX_STEPS:
            raise TooLargeError(f"it takes more than {MAX_STEPS:,} steps")

    def grown(self, value: Any) -> Any:
        """Charge the size of a value just made to the account; the value itself."""
        if isinstance(value, (str, list, tuple, dict, set, frozenset)):
            self.account.weigh(value)
            root = self.root
            root.size += len(value)
            if root.size > MAX_SIZE:
                raise TooLargeError(f"it makes more than {MAX_SIZE:,} characters and elements")
        return value

    def used(self, *values: Any, factor: int = 1) -> None:
        """Charge the work of going through values."""
        account = self.account
        for value in values:
            if type(value) is str:
                account.size -= len(value) * factor
            elif type(value) not in ATOMS:
                account.weigh(plain(value), factor)
        if account.size < 0:
            account.spend(0)


class _Compiler:
    """Turns a syntax tree into closures, refusing what is not allowed."""

    def __init__(self, text: str, source: str, wrapped: str) -> None:
        self.text = text
        self.source = source
        self.wrapped = wrapped
        self.names: set[str] = set()
        self.bound: list[set[str]] = []
        self.depth = 0

    def build(self, node: ast.expr) -> Closure:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.refuse(node, f"The expression is nested more than {MAX_DEPTH} levels deep.")
        method = getattr(self, f"build_{type(node).__name__}", None)
        if method is None:
            kind = _CONSTRUCTS.get(type(node).__name__, type(node).__name__)
            self.refuse(node, f"{kind} cannot be used in an expression.")
        closure = method(node)
        self.depth -= 1
        return closure

    def refuse(self, node: ast.AST, message: str, hint: str | None = None) -> NoReturn:
        raise _located(
            self,
            node,
            message,
            hint or "Use names, comparisons, arithmetic and the methods of text, lists and mappings; or a code_job.",
        )

    # literals

    def build_Constant(self, node: ast.Constant) -> Closure:
        value = node.value
        if not isinstance(value, (str, int, float, type(None))):
            self.refuse(node, f"A constant of type {type(value).__name__} cannot be used in an expression.")
        if isinstance(value, str) and (braces := re.fullmatch(r"\{\{([^{}]+)\}\}", value.strip())):
            name = braces[1].strip()
            self.refuse(
                node, f"This compares with the text {value!r} itself.", f"Write {name} without quotes and braces."
            )
        return lambda scope: value

    def build_JoinedStr(self, node: ast.JoinedStr) -> Closure:
        parts = [self.build(value) for value in node.values]

        def run(scope: _Scope) -> Any:
            return scope.grown("".join([part(scope) for part in parts]))

        return run

    def build_FormattedValue(self, node: ast.FormattedValue) -> Closure:
        value = self.build(node.value)
        form = self.build(node.format_spec) if node.format_spec else None
        convert = {-1: None, 115: str, 114: repr, 97: ascii}[node.conversion]

        def run(scope: _Scope) -> Any:
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
            except _FAILURES as error:
                raise self.failed(scope, node, error, (node.value, it)) from None

        return run

    def _items(self, nodes: Sequence[ast.expr]) -> Callable[[_Scope], list[Any]]:
        parts = [(self.build(n.value), n) if isinstance(n, ast.Starred) else (self.build(n), None) for n in nodes]

        def run(scope: _Scope) -> list[Any]:
            made: list[Any] = []
            for part, starred in parts:
                if starred is None:
                    made.append(part(scope))
                    continue
                value = plain(part(scope))
                try:
                    made.extend(scope.grown(list(value)))
                except _FAILURES as error:
                    raise self.failed(scope, starred, error, (starred.value, value)) from None
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

        def make(scope: _Scope) -> dict[Any, Any]:
            made: dict[Any, Any] = {}
            for key, value in pairs:
                if key is None:
                    made.update(plain(value(scope)))
                else:
                    made[key(scope)] = value(scope)
            return made

        return lambda scope: self._hashed(scope, node, lambda: scope.grown(make(scope)))

    def _hashed(self, scope: _Scope, node: ast.AST, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except _FAILURES as error:
            raise self.failed(scope, node, error) from None

    # names, keys, items

    def build_Name(self, node: ast.Name) -> Closure:
        name = node.id
        if any(name in bound for bound in self.bound):
            return lambda scope: scope.locals[name]
        if name.startswith("__"):
            self.refuse(node, f"Names that begin with two underscores, such as '{name}', cannot be used.")
        constant = name in _CONSTANTS
        if not constant:
            self.names.add(name)

        def run(scope: _Scope) -> Any:
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
            self.refuse(
                node, f"'{name}' cannot be read: names that begin with two underscores are not for expressions."
            )

        def run(scope: _Scope) -> Any:
            of = owner(scope)
            value = plain(of)
            if isinstance(value, Mapping):
                if name in value:
                    return value[name]
                if value:
                    path = self.segment(node.value)
                    scope.unknown.setdefault(
                        f"{path}.{name}", f"'{path}' has no '{name}'{_suggest(name, [str(k) for k in value])}"
                    )
                return None
            if isinstance(value, (datetime.date, datetime.time)) and name in DATE_FIELDS and hasattr(value, name):
                return getattr(value, name)
            if name in record_fields(value):
                return getattr(value, name)
            raise self.failed(
                scope, node, AttributeError(_no_attribute(self.segment(node.value), name, value)), (node.value, of)
            )

        return run

    def build_Subscript(self, node: ast.Subscript) -> Closure:
        owner = self.build(node.value)
        index = self.build(node.slice)

        def run(scope: _Scope) -> Any:
            of = owner(scope)
            value = plain(of)
            at = plain(index(scope))
            try:
                if isinstance(value, Mapping) and at not in value:
                    raise LookupError(f"there is no key {at!r}{_suggest(str(at), [str(k) for k in value])}")
                if not isinstance(value, (Mapping, str, list, tuple, range)):
                    raise TypeError(f"{kind(value)} has no items")
                found = value[at]
                return scope.grown(found) if isinstance(at, slice) else found
            except _FAILURES as error:
                raise self.failed(scope, node, error, (node.value, of), (node.slice, at)) from None

        return run

    def build_Slice(self, node: ast.Slice) -> Closure:
        parts = [self.build(p) if p else None for p in (node.lower, node.upper, node.step)]
        return lambda scope: slice(*[plain(p(scope)) if p else None for p in parts])

    # operators

    def build_BinOp(self, node: ast.BinOp) -> Closure:
        if type(node.op) not in BINARY:
            self.refuse(node, "The operator @ cannot be used in an expression.")
        symbol, apply = BINARY[type(node.op)]
        left, right = self.build(node.left), self.build(node.right)

        def run(scope: _Scope) -> Any:
            a, b = left(scope), right(scope)
            try:
                # Text views take part as text beside text, else as the value they were made from.
                x, y = (str(a), str(b)) if isinstance(a, str) and isinstance(b, str) else (plain(a), plain(b))
                checked_binary(symbol, x, y)
                if symbol == "%" and isinstance(x, str):
                    scope.used(y, factor=max(x.count("%"), 1))
                elif symbol in "+-&|^":
                    scope.used(x, y)
                return scope.grown(apply(x, y))
            except _FAILURES as error:
                raise self.failed(scope, node, error, (node.left, a), (node.right, b)) from None

        return run

    def build_UnaryOp(self, node: ast.UnaryOp) -> Closure:
        operand = self.build(node.operand)
        if isinstance(node.op, ast.Not):
            return lambda scope: not plain(operand(scope))
        apply = UNARY[type(node.op)]

        def run(scope: _Scope) -> Any:
            value = operand(scope)
            try:
                return apply(plain(value))
            except _FAILURES as error:
                raise self.failed(scope, node, error, (node.operand, value)) from None

        return run

    def build_BoolOp(self, node: ast.BoolOp) -> Closure:
        parts = [self.build(value) for value in node.values]
        stop = isinstance(node.op, ast.Or)

        def run(scope: _Scope) -> Any:
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

            def run_one(scope: _Scope) -> Any:
                a, b = first(scope), second(scope)
                try:
                    if type(b) not in ATOMS and (inside or type(a) not in ATOMS):
                        scope.used(a, b)
                    return test(a, b)
                except _FAILURES as error:
                    raise self.failed(scope, node, error, (nodes[0], a), (nodes[1], b)) from None

            return run_one

        def run(scope: _Scope) -> Any:
            a = operands[0](scope)
            for i, compare in enumerate(tests):
                b = operands[i + 1](scope)
                try:
                    scope.used(a, b)
                    holds = compare(a, b)
                except _FAILURES as error:
                    raise self.failed(scope, node, error, (nodes[i], a), (nodes[i + 1], b)) from None
                if not holds:
                    return False
                a = b
            return True

        return run

    def build_IfExp(self, node: ast.IfExp) -> Closure:
        test, then, other = self.build(node.test), self.build(node.body), self.build(node.orelse)
        return lambda scope: then(scope) if plain(test(scope)) else other(scope)

    # calls

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
                f"There is no function '{name}'{_suggest(name, list(FUNCTIONS))}",
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

        def run(scope: _Scope) -> Any:
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
            except _FAILURES as error:
                raise self.failed(scope, node, error, *zip(node.args, values, strict=False)) from None

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

        def run(scope: _Scope) -> Any:
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
                f"There is no method '{name}' for expressions{_suggest(name, every)}",
                "Methods that change a value are not available; compute it in a code_job."
                if name
                in ("append", "pop", "update", "sort", "extend", "insert", "remove", "clear", "add", "setdefault")
                else f"Methods: {', '.join(every)}.",
            )
        arguments = [self.build(a) for a in node.args]
        keywords = [(str(k.arg), self.build(k.value)) for k in node.keywords]

        def run(scope: _Scope) -> Any:
            of = owner(scope)
            given = [method_argument(a(scope)) for a in arguments]
            named = {k: plain(v(scope)) for k, v in keywords}
            try:
                method = bound_method(of, name, self.segment(target.value))
                checked_method(method.__self__, name, given)
                scope.used(method.__self__, *given)
                made = method(*given, **named)
                if isinstance(method.__self__, Mapping) and name in ("items", "keys", "values"):
                    made = list(made)
                return scope.grown(made)
            except _FAILURES as error:
                raise self.failed(
                    scope, node, error, (target.value, of), *zip(node.args, given, strict=False)
                ) from None

        return run

    # comprehensions

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

        def run(scope: _Scope) -> Any:
            try:
                return scope.grown(make(each(scope.inner())))
            except _FAILURES as error:
                raise self.failed(scope, node, error) from None

        return run

    def _lazy(self, node: ast.GeneratorExp) -> Closure:
        each = self._loops(node, node.elt, node.generators)
        return lambda scope: each(scope.inner())

    def _loops(
        self, node: ast.expr, element: ast.expr, generators: list[ast.comprehension]
    ) -> Callable[[_Scope], Iterator[Any]]:
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

        def level(scope: _Scope, at: int) -> Iterator[Any]:
            if at == len(levels):
                yield plain(body(scope))
                return
            source_node, source, target, tests = levels[at]
            items = source(scope)
            value = plain(items)
            if not isinstance(value, (list, tuple, set, frozenset, range, str, Mapping)):
                raise self.failed(
                    scope, source_node, TypeError(f"{kind(value)} is nothing to go through"), (source_node, items)
                )
            for item in value:
                scope.step()
                try:
                    _assign(scope.locals, target, item)
                except _FAILURES as error:
                    raise self.failed(scope, target, error, (target, item)) from None
                if all(plain(test(scope)) for test in tests):
                    yield from level(scope, at + 1)

        return lambda scope: level(scope, 0)

    def _target(self, node: ast.expr) -> None:
        if isinstance(node, (ast.Tuple, ast.List)):
            for item in node.elts:
                self._target(item)
        elif not isinstance(node, ast.Name) or node.id.startswith("__"):
            self.refuse(node, "Only plain names can be loop variables.")

    # errors

    def segment(self, node: ast.AST) -> str:
        return ast.get_source_segment(self.wrapped, node) or "…"

    def failed(
        self, scope: _Scope, node: ast.AST, error: BaseException, *operands: tuple[ast.AST, Any]
    ) -> ExpressionError:
        """The error for a sub-expression that raised, with the values that took part."""
        if isinstance(error, ExpressionError):
            return error
        values = ", ".join(
            f"{self.segment(n)} is {_shown(value)}" for n, value in operands if not isinstance(n, ast.Constant)
        )
        cause = str(error.args[0] if isinstance(error, LookupError) and error.args else error) or type(error).__name__
        unknown = "; ".join(scope.unknown.values())
        names = [str(n) for n in scope.names]
        unknown_names = [n for n in scope.unknown if n in scope.expression.names]
        if unknown_names:
            close = next((c for n in unknown_names if (c := nearest(n, names))), None)
            hint = f"{unknown}{f'; did you mean {close!r}?' if close else ''}. Known names: {known_names(names)}."
        elif unknown:
            hint = f"{unknown}."
        else:
            hint = _advice(operands, error)
        return _located(
            self,
            node,
            f"The expression cannot be evaluated: {cause}{f' ({values})' if values else ''}.",
            hint,
        )


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


_CONSTRUCTS = {
    "Await": "`await`",
    "Lambda": "A lambda (except as `key=` of sorted, min and max)",
    "NamedExpr": "An assignment with :=",
    "Starred": "*",
    "TemplateStr": "A t-string",
    "Yield": "`yield`",
    "YieldFrom": "`yield from`",
}


def _located(compiler: _Compiler, node: ast.AST, message: str, hint: str) -> ExpressionError:
    line = getattr(node, "lineno", 1)
    start = getattr(node, "col_offset", 0)
    end = getattr(node, "end_col_offset", start + 1) if getattr(node, "end_lineno", line) == line else None
    row = compiler.wrapped.split("\n")[line - 1]
    raw = row.encode()
    # ast counts bytes of UTF-8; people count characters.
    column = len(raw[:start].decode(errors="replace"))
    width = len(raw[start:end].decode(errors="replace"))
    if compiler.wrapped is not compiler.source and line == 1:
        row, column = row[1:], max(column - 1, 0)
    return _error(compiler.text, row, message, line, column + 1, max(width, 1), hint)


def _syntax_error(text: str, source: str, cause: str, line: int, column: int) -> ExpressionError:
    rows = source.split("\n")
    line = min(line, len(rows))
    hint = next(
        (advice for sign, advice in _SYNTAX_ADVICE if re.search(sign, source)),
        "Conditions are Python expressions, such as `score > 10 and name != ''`.",
    )
    return _error(
        text,
        rows[line - 1],
        f"The expression does not parse: {cause}.",
        line,
        min(column, len(rows[line - 1]) + 1),
        1,
        hint,
    )


_SYNTAX_ADVICE = (
    (r"&&", "Write `and` instead of &&."),
    (r"\|\|", "Write `or` instead of ||."),
    (r"===|!==", "Write == and != instead of === and !==."),
    (r"(?<![=!<>:])=(?!=)", "Write == to compare."),
    (r"!(?!=)", "Write `not` instead of !."),
    (r"\?", "Write `a if test else b` instead of `test ? a : b`."),
)


def _error(text: str, row: str, message: str, line: int, column: int, width: int, hint: str) -> ExpressionError:
    start = max(0, column - 60)
    shown = row[start : start + 110]
    caret = " " * (column - 1 - start) + "^" * max(1, min(width, len(shown) - (column - 1 - start)))
    return ExpressionError(
        f"{message}\n    {shown}\n    {caret}\n", hint=hint, expression=text, line=line, column=column
    )


def _suggest(word: str, words: Sequence[str]) -> str:
    if close := nearest(word, words):
        return f"; did you mean '{close}'?"
    return f"; there are: {', '.join(list(words)[:20])}" if words else ""


def _advice(operands: Sequence[tuple[ast.AST, Any]], error: BaseException) -> str:
    if isinstance(error, TooLargeError):
        return "Compute it in a code_job."
    values = [plain(value) for _, value in operands]
    if any(isinstance(v, str) for v in values) and any(isinstance(v, (int, float)) for v in values):
        return "One side is text: write float(name) to compare it as a number."
    if any(isinstance(v, Mapping) for v in values):
        return "One value is a mapping: name the key, as in `result.score`."
    if isinstance(error, ZeroDivisionError):
        return "Test the divisor first: `n and total / n > 1`."
    return "Correct the expression, or what the arrows bring."


def _no_attribute(path: str, name: str, value: Any) -> str:
    if isinstance(value, str):
        return f"'{path}' is text and has no field '{name}'; let its arrow have content_type object"
    if name == "length" and isinstance(value, (list, tuple)):
        return f"a list has no '{name}'; write len({path})"
    return f"{kind(value)} has no '{name}'"


def _shown(value: Any) -> str:
    if value is None:
        return "None"
    seen = plain(value)
    name = type(seen).__name__
    text = (
        repr(str(seen) if isinstance(seen, str) else seen)
        if not isinstance(seen, (Mapping, list, tuple, set)) or len(seen) <= 20
        else f"of {len(seen)} items"
    )
    return f"{name} {text if len(text) <= 60 else text[:57] + '…'}"
