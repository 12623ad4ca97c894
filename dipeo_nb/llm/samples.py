"""Values that fit a JSON schema, made without a model: the smallest one, or a random one that a seed repeats.

Draft 2020-12 as models are given it: references, unions, conditions, patterns, bounds, formats, pydantic's own schemas. What
keywords ask together is tried out: candidates are made, checked by the caller, and made anew, up to `ATTEMPTS` times.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from re import _parser  # type: ignore[attr-defined]  # pyright: ignore - the parser of patterns has no public name
from typing import Any, cast

ATTEMPTS = 60
"""Candidates that are tried for one value."""
MOST = 100_000
"""Characters and values of one candidate, and steps of its making, at most."""
_DEEPEST = 24
"""Levels of nesting; recursion that does not end before is no candidate."""


class ImpossibleError(ValueError):
    """No value was found that fits."""


class TooLargeError(ImpossibleError):
    """What would fit has more than `MOST` characters or parts."""


class _Room:
    """What one candidate may still take."""

    def __init__(self) -> None:
        self.left = MOST

    def take(self, amount: int) -> None:
        """Raises TooLargeError when so much is not left."""
        self.left -= max(amount, 1)
        if self.left < 0:
            raise TooLargeError(f"the value would have more than {MOST:,} characters or parts")


def candidates(schema: Mapping[str, Any] | bool, seed: str | None = None) -> Iterator[Any]:
    """Values that should fit a schema, the best guess first; some may not, as keywords can contradict each other.

    Args:
        seed: None: the smallest value (true, the number nearest to 0, the first choice, no optional fields) comes first. With
            a seed choices, numbers, lengths and optional fields are random; the same seed gives the same values.
    """
    for attempt in range(ATTEMPTS):
        rng = None if seed is None and attempt == 0 else random.Random(f"{seed}/{attempt}")
        try:
            yield _Maker(schema, rng).make(schema)
        except TooLargeError:
            return  # the others would be, too
        except ImpossibleError:
            continue


def sample(schema: Mapping[str, Any] | bool, seed: str | None = None) -> Any:
    """The first of the `candidates` that fits.

    Raises:
        ImpossibleError: none does.
    """
    from jsonschema import Draft202012Validator  # its import takes most of a second

    validator = Draft202012Validator(schema)
    for value in candidates(schema, seed):
        if validator.is_valid(value):
            return value
    raise ImpossibleError("no value that fits was found")


RISKY = frozenset({"pattern", "patternProperties", "propertyNames", "allOf", "oneOf", "not", "if"})
"""Keywords that can make a short schema take long: expressions that try everything, choices that multiply."""
_SIZES = ("minItems", "minLength", "minProperties")
_QUICK_SIZE = 1_000
"""Parts of a value that is made at once."""


def is_risky(schema: Any) -> bool:
    """Whether a schema, or one within it, has a keyword that can take long."""
    waiting: list[Any] = [schema]
    sizes = 1
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            node = cast(_Node, part)
            for name in _SIZES:
                size = node.get(name)
                sizes *= max(size, 1) if isinstance(size, int) else 1
            if sizes > _QUICK_SIZE or not RISKY.isdisjoint(node):
                return True
            waiting += node.values()
        elif isinstance(part, list):
            waiting += cast(list[Any], part)
    return False


def found(schema: _Node, seed: str | None = None) -> list[Any]:
    """The first of the `candidates` that fits, alone in a list; an empty list when none does. For a worker process."""
    try:
        return [sample(schema, seed)]
    except ImpossibleError:
        return []


FORMATS: Mapping[str, str] = {
    "date": "2025-01-01", "time": "00:00:00Z", "date-time": "2025-01-01T00:00:00Z", "duration": "PT1S", "email": "echo@example.com",
    "idn-email": "echo@example.com", "hostname": "example.com", "idn-hostname": "example.com", "ipv4": "192.0.2.1", "ipv6": "2001:db8::1",
    "ipvanyaddress": "192.0.2.1", "ipvanynetwork": "192.0.2.0/24", "ipv4network": "192.0.2.0/24", "ipv6network": "2001:db8::/32",
    "uri": "https://example.com/", "url": "https://example.com/", "iri": "https://example.com/", "uri-reference": "/echo",
    "iri-reference": "/echo", "uri-template": "/{echo}", "multi-host-uri": "https://example.com/", "json-pointer": "/echo",
    "relative-json-pointer": "0", "regex": "echo", "uuid": "00000000-0000-4000-8000-000000000000", "binary": "echo", "byte": "ZWNobw==",
    "base64": "ZWNobw==", "base64url": "ZWNobw==", "path": "echo", "file-path": "echo", "directory-path": ".", "password": "echo",
    "json-string": "null", "decimal": "0", "color": "#000000",
}  # fmt: skip
"""A text of each format."""

_ANYTHING: Sequence[Any] = ("echo", 1, True, None, [], {})
"""Where a schema asks nothing."""
_Node = Mapping[str, Any]
_KINDS: Sequence[tuple[str, frozenset[str]]] = (
    (
        "object",
        frozenset(
            ["properties", "required", "minProperties", "propertyNames", "patternProperties", "additionalProperties"]
        ),
    ),
    ("array", frozenset(["items", "prefixItems", "minItems", "contains", "uniqueItems"])),
    ("string", frozenset(["pattern", "minLength", "maxLength", "format"])),
    ("number", frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])),
)
"""Type → keywords that suggest it where none is named."""


class _Maker:
    """Makes one candidate; without a random generator the smallest one."""

    def __init__(self, root: _Node | bool, rng: random.Random | None) -> None:
        self.root = root
        self.rng = rng
        self.room = _Room()

    def make(self, node: Any, depth: int = 0) -> Any:
        self.room.take(1)
        if node is True or node == {}:
            return self.choice(_ANYTHING)
        if not isinstance(node, Mapping) or depth > _DEEPEST:
            raise ImpossibleError("nothing fits")
        node = self.merged(cast(_Node, node), depth)
        if "const" in node:
            return node["const"]
        if "enum" in node:
            return self.choice([v for v in node["enum"] if _is_of(v, node.get("type"))] or node["enum"])
        for key in ("anyOf", "oneOf"):
            if options := node.get(key):
                rest = {k: v for k, v in node.items() if k != key}
                if self.rng is None and depth > _DEEPEST // 6:
                    options = sorted(options, key=_refers)  # what may lead on and on comes last
                return self.first_that_works([partial(self.joint, rest, option, depth) for option in options])
        if "default" in node and self.rng is None:
            return node["default"]
        kind = node.get("type") or next((name for name, keys in _KINDS if not keys.isdisjoint(node)), None)
        if isinstance(kind, (list, tuple)):
            kinds = cast(list[str], kind)
            return self.first_that_works([partial(self.typed, k, node, depth) for k in kinds])
        return self.typed(cast("str | None", kind), node, depth)

    def joint(self, node: _Node, option: Any, depth: int) -> Any:
        return self.make(_joined(node, option), depth + 1)

    def merged(self, node: _Node, depth: int) -> _Node:
        """A node with what its references and `allOf` ask, and one side of its condition."""
        for _ in range(_DEEPEST):
            if "$ref" in node or "$dynamicRef" in node:
                reference = str(node.get("$ref", node.get("$dynamicRef")))
                target = self.resolved(reference)
                node = _joined({k: v for k, v in node.items() if k not in ("$ref", "$dynamicRef")}, target)
            elif "allOf" in node:
                parts = node["allOf"]
                node = {k: v for k, v in node.items() if k != "allOf"}
                for part in parts:
                    self.room.take(len(node))
                    node = _joined(node, part)
            elif "if" in node:
                holds = self.rng is None or self.rng.random() < 0.5
                chosen = _joined(node["if"], node.get("then", True)) if holds else node.get("else", True)
                node = _joined({k: v for k, v in node.items() if k not in ("if", "then", "else")}, chosen)
            else:
                return node
        raise ImpossibleError("the references go round in a circle")

    def resolved(self, reference: str) -> Any:
        found = resolved(reference, self.root)
        if found is None:
            raise ImpossibleError(f"'{reference}' refers to nothing")
        return found

    def choice(self, options: Sequence[Any]) -> Any:
        return options[0] if self.rng is None else self.rng.choice(options)

    def first_that_works(self, ways: list[Callable[[], Any]]) -> Any:
        """What the first of the ways gives that gives something; their order is random where there is a seed."""
        if self.rng is not None:
            self.rng.shuffle(ways)
        for way in ways:
            try:
                return way()
            except TooLargeError:
                raise
            except ImpossibleError:
                continue
        raise ImpossibleError("none of the choices fits")

    def typed(self, kind: str | None, node: _Node, depth: int) -> Any:
        match kind:
            case "object":
                return self.mapping(node, depth)
            case "array":
                return self.list_of(node, depth)
            case "boolean":
                return self.choice([True, False])
            case "integer":
                return int(self.number(node, whole=True))
            case "number":
                value = self.number(node, whole=False)
                return int(value) if isinstance(node.get("multipleOf"), int) and value == int(value) else float(value)
            case "string":
                return self.text(node)
            case "null":
                return None
            case _:
                return self.choice(_ANYTHING)

    # Objects and arrays.

    def mapping(self, node: _Node, depth: int) -> dict[str, Any]:
        properties: _Node = node.get("properties", {})
        names = list(dict.fromkeys(node.get("required", ())))
        if self.rng is not None and depth < _DEEPEST // 4:
            names += [n for n in properties if n not in names and self.rng.random() < 0.5]
        for name in list(names):
            names += [n for n in node.get("dependentRequired", {}).get(name, ()) if n not in names]
            dependent = node.get("dependentSchemas", {}).get(name)
            if isinstance(dependent, Mapping):
                node = _joined(node, dependent)
                names += [n for n in node.get("required", ()) if n not in names]
        names += [n for n in properties if n not in names][: max(0, node.get("minProperties", 0) - len(names))]
        for number in range(1, node.get("minProperties", 0) - len(names) + 1):
            names.append(self.name(node, number))
        made: dict[str, Any] = {}
        for name in names:
            made[name] = self.make(self.property(node, name), depth + 1)
        return made

    def name(self, node: _Node, number: int) -> str:
        """A further name, as the schema allows them."""
        self.room.take(1)
        for pattern in node.get("patternProperties", {}):
            return matching(pattern, self.rng, number, room=self.room)
        rule = node.get("propertyNames")
        if isinstance(rule, Mapping) and "pattern" in rule:
            return matching(str(cast(_Node, rule)["pattern"]), self.rng, number, room=self.room)
        return f"echo{number}"

    @staticmethod
    def property(node: _Node, name: str) -> Any:
        rules: list[Any] = [node["properties"][name]] if name in node.get("properties", {}) else []
        rules += [rule for pattern, rule in node.get("patternProperties", {}).items() if re.search(pattern, name)]
        if not rules:
            rules = [node.get("additionalProperties", True)]
        found = rules[0]
        for rule in rules[1:]:
            found = _joined(found, rule)
        return found

    def list_of(self, node: _Node, depth: int) -> list[Any]:
        first: list[Any] = list(node.get("prefixItems", ()))
        low, high = node.get("minItems", 0), node.get("maxItems", math.inf)
        wanted = node.get("minContains", 1) if "contains" in node else 0
        size = max(low, min(len(first), high), min(wanted, high))
        if self.rng is not None and depth < _DEEPEST // 4:
            size = min(high, size + self.rng.randrange(3))
        rest = node.get("items", True)
        if rest is False:
            size = min(size, len(first))
        made: list[Any] = []
        for index in range(int(size)):
            rule = first[index] if index < len(first) else rest
            if len(first) <= index < len(first) + wanted or (not first and index < wanted):
                rule = _joined(rule, node["contains"])
            made.append(self.item(rule, depth + 1, made if node.get("uniqueItems") else None))
        return made

    def item(self, rule: Any, depth: int, others: list[Any] | None) -> Any:
        """An item of a list, unlike the others where they must differ."""
        value = self.make(rule, depth)
        own = self.rng
        for variant in range(ATTEMPTS):
            self.room.take(len(others or ()))
            if others is None or not any(_same(value, other) for other in others):
                break
            self.rng = random.Random(f"{variant}/{len(others)}")
            value = self.make(rule, depth)
        self.rng = own
        return value

    # Numbers and texts.

    def number(self, node: _Node, *, whole: bool) -> float:
        low = _bound(node, "minimum", "exclusiveMinimum", max)
        high = _bound(node, "maximum", "exclusiveMaximum", min)
        every = node.get("multipleOf") or (1 if whole else None)
        if every is not None and whole and not float(every).is_integer():
            every = next((every * n for n in range(1, 1000) if float(every * n).is_integer()), 1)

        def fits(value: float) -> bool:
            return (
                (low is None or value > low[0] or (value == low[0] and not low[1]))
                and (high is None or value < high[0] or (value == high[0] and not high[1]))
                and (not whole or float(value).is_integer())
                and (every is None or (value / every == int(value / every)))
            )

        step = every if every is not None else 0.5
        starts: list[float] = [0] if self.rng is None else [self.rng.randrange(-9, 100) * (1 if whole else 0.5)]
        if low is not None and high is not None:
            starts.append(low[0] + (high[0] - low[0]) * (0.5 if self.rng is None else self.rng.random()))
        starts += [bound[0] for bound in (low, high) if bound is not None]
        tried = [0.0] if self.rng is None else []
        for start in starts:
            base = round(start / step) * step if every is not None else start
            tried += [start, base, *(base + n * step for n in (1, -1, 2, -2, 3, -3))]
        found = next((value for value in tried if fits(value)), None)
        if found is None:
            raise ImpossibleError("no number fits")
        return int(found) if whole else found

    def text(self, node: _Node) -> str:
        low, high = node.get("minLength", 0), node.get("maxLength")
        if "pattern" in node:
            for extra in (0, *(2**n for n in range(12))):
                made = matching(str(node["pattern"]), self.rng, extra, low, room=self.room)
                if len(made) >= low and (high is None or len(made) <= high):
                    return made
            raise ImpossibleError("no text fits the pattern and the lengths")
        self.room.take(low)
        form = FORMATS.get(str(node.get("format")))
        if form is not None and len(form) >= low and (high is None or len(form) <= high):
            return form
        word = "echo" if self.rng is None else self.rng.choice(["echo", "alpha", "bravo", "delta", "golf", "tango"])
        if self.rng is not None:
            word += str(self.rng.randrange(1000))
        return word.ljust(low, "o")[:high]


def resolved(reference: str, schema: Any) -> Any:
    """What a reference within a schema points at (`#/…`, `#`, `#anchor`); None when it points nowhere."""
    part = reference.partition("#")[2]
    if reference and not reference.startswith("#"):
        return None
    if part and not part.startswith("/"):
        return next((n for n in _nodes(schema) if part in (n.get("$anchor"), n.get("$dynamicAnchor"))), None)
    node: Any = schema
    for step in part.strip("/").split("/") if part else ():
        key = step.replace("~1", "/").replace("~0", "~").replace("%25", "%")
        if isinstance(node, Mapping):
            node = cast(_Node, node).get(key)
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(cast(list[Any], node)):
            node = cast(list[Any], node)[int(key)]
        else:
            return None
    return node


def _nodes(node: Any) -> Iterator[_Node]:
    if isinstance(node, Mapping):
        yield cast(_Node, node)
        for value in cast(_Node, node).values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in cast(list[Any], node):
            yield from _nodes(value)


def _refers(option: Any) -> bool:
    return any("$ref" in node for node in _nodes(option))


def _same(a: Any, b: Any) -> bool:
    """Equality of JSON, where true is not 1."""
    return a == b and isinstance(a, bool) is isinstance(b, bool)


def _is_of(value: Any, kind: Any) -> bool:
    kinds = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
        "array": list,
        "object": dict,
    }
    wanted = kind if isinstance(kind, list) else [kind]
    return kind is None or any(isinstance(value, kinds.get(str(k), object)) for k in cast(list[Any], wanted))


def _bound(node: _Node, closed: str, opened: str, stricter: Callable[..., Any]) -> tuple[float, bool] | None:
    """(value, whether the value itself is excluded) of a lower or upper bound; None without one."""
    found = [(node[key], key == opened) for key in (closed, opened) if isinstance(node.get(key), (int, float))]
    if not found:
        return None
    value = stricter(bound for bound, _ in found)
    return value, any(excluded for bound, excluded in found if bound == value)


def _joined(a: Any, b: Any) -> Any:
    """A schema that asks what both ask, as far as one can be written without `allOf`.

    Raises:
        ImpossibleError: nothing fits both.
    """
    if a is True or b is True:
        return b if a is True else a
    if not isinstance(a, Mapping) or not isinstance(b, Mapping):
        raise ImpossibleError("nothing fits")
    a, b = cast(_Node, a), cast(_Node, b)
    made: dict[str, Any] = {**a, **b}
    for key in a.keys() & b.keys():
        x, y = a[key], b[key]
        if x == y:
            continue
        match key:
            case "properties" | "patternProperties":
                made[key] = {**x, **y, **{n: _joined(x[n], y[n]) for n in x.keys() & y.keys()}}
            case "required":
                made[key] = list(dict.fromkeys([*x, *y]))
            case "enum":
                made[key] = [v for v in x if any(_same(v, w) for w in y)]
                if not made[key]:
                    raise ImpossibleError("no choice is left")
            case "type":
                kinds = [k for k in _list(x) if k in _list(y) or (k == "integer" and "number" in _list(y))]
                kinds += [k for k in _list(y) if k == "integer" and "number" in _list(x) and k not in kinds]
                if not kinds:
                    raise ImpossibleError("no type is left")
                made[key] = kinds if len(kinds) > 1 else kinds[0]
            case "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties":
                made[key] = max(x, y)
            case "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties":
                made[key] = min(x, y)
            case "items" | "additionalProperties" | "contains":
                made[key] = _joined(x, y)
            case "multipleOf" if isinstance(x, int) and isinstance(y, int):
                made[key] = math.lcm(x, y)
            case "anyOf" | "oneOf" | "allOf" | "if" | "$ref":
                made[key] = x
                rest = {key: y} if key != "if" else {k: b[k] for k in ("if", "then", "else") if k in b}
                made["allOf"] = [*made.get("allOf", ()), rest]
            case _:
                pass  # descriptions, and what the check of the candidate decides
    return made


def _list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else [value]


# Patterns.


def matching(pattern: str, rng: random.Random | None, extra: int = 0, least: int = 0, *, room: _Room | None = None) -> str:
    """A text in which the pattern is found.

    Args:
        extra: how often more than needed repeats are repeated.
        least: characters at least, where the pattern leaves room beside what it matches.

    Raises:
        ImpossibleError: the pattern is none, or asks what is not followed (look-around is checked later).
    """
    try:
        parsed = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ImpossibleError(f"'{pattern}' is no pattern: {error}") from None
    groups: dict[int, str] = {}
    room = room or _Room()
    made = _written(parsed, rng, extra, groups, room)
    if len(made) < least and not pattern.endswith("$"):
        room.take(least)
        made = made.ljust(least, "o")
    return made


_CATEGORIES = {
    "CATEGORY_DIGIT": "0123456789", "CATEGORY_WORD": "abcdefghijklmnopqrstuvwxyz0123456789_", "CATEGORY_SPACE": " ",
    "CATEGORY_NOT_DIGIT": "abcdefgh", "CATEGORY_NOT_WORD": " -", "CATEGORY_NOT_SPACE": "abcdefgh0123456789",
}  # fmt: skip
_USUAL = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ _-.,;:!?/+*#@%&()[]{}<>|\\^$'\"~`=\t\n"


def _written(parts: Any, rng: random.Random | None, extra: int, groups: dict[int, str], room: _Room) -> str:
    made: list[str] = []
    for operation, value in parts:
        room.take(1)
        name = str(operation)
        match name:
            case "LITERAL":
                made.append(chr(value))
            case "NOT_LITERAL":
                made.append(next(c for c in _USUAL if c != chr(value)))
            case "ANY":
                made.append(rng.choice(_USUAL[:36]) if rng else "o")
            case "IN":
                made.append(_one_of(value, rng))
            case "BRANCH":
                branches = value[1]
                made.append(_written(rng.choice(branches) if rng else branches[0], rng, extra, groups, room))
            case "SUBPATTERN":
                text = _written(value[-1], rng, extra, groups, room)
                groups[value[0]] = text
                made.append(text)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                low, high, inner = value
                times = min(int(low) + extra + (rng.randrange(3) if rng else 0), int(high))
                room.take(times)
                made += [_written(inner, rng, extra, groups, room) for _ in range(times)]
            case "ATOMIC_GROUP":
                made.append(_written(value, rng, extra, groups, room))
            case "GROUPREF":
                room.take(len(groups.get(value, "")))
                made.append(groups.get(value, ""))
            case "AT" | "ASSERT_NOT":
                pass
            case "ASSERT":
                if value[0] > 0:
                    made.append("")  # what follows has to do what it asks; the check decides
            case _:
                raise ImpossibleError(f"patterns with {name} cannot be followed")
    return "".join(made)


def _one_of(members: Any, rng: random.Random | None) -> str:
    """A character of a class such as `[a-z_]`."""
    allowed: list[str] = []
    negated = False
    for operation, value in members:
        match str(operation):
            case "NEGATE":
                negated = True
            case "LITERAL":
                allowed.append(chr(value))
            case "RANGE":
                allowed += [chr(c) for c in range(value[0], min(value[1], value[0] + 200) + 1)]
            case "CATEGORY":
                allowed += _CATEGORIES.get(str(value), "")
            case _:
                pass
    if negated:
        allowed = [c for c in _USUAL if c not in allowed]
    if not allowed:
        raise ImpossibleError("no character fits")
    return rng.choice(allowed) if rng else allowed[0]
