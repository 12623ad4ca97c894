"""Values that fit a JSON schema, made without a model: the smallest one, or a random one that a seed repeats.

Draft 2020-12 as models are given it: references, unions, conditions, patterns, bounds, formats, pydantic's own schemas. What
keywords ask together is tried out: candidates are made, checked by the caller, and made again, up to `ATTEMPTS` times.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from dipeo_nb.common import json_schema
from dipeo_nb.llm.samples.limits import ImpossibleError, Room, TooLargeError
from dipeo_nb.llm.samples.patterns import matching
from dipeo_nb.llm.samples.schemas import Node, bound, is_of, joined, refers, resolved, same

ATTEMPTS = 60
"""Candidates that are tried for one value."""
_DEEPEST = 24
"""Levels of nesting; recursion that does not end before is not a candidate."""


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
    json_schema.load()
    from jsonschema import Draft202012Validator  # its import takes a tenth of a second

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
            node = cast(Node, part)
            for name in _SIZES:
                size = node.get(name)
                sizes *= max(size, 1) if isinstance(size, int) else 1
            if sizes > _QUICK_SIZE or not RISKY.isdisjoint(node):
                return True
            waiting += node.values()
        elif isinstance(part, list):
            waiting += cast(list[Any], part)
    return False


def found(schema: Node, seed: str | None = None) -> list[Any]:
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
_KINDS: Sequence[tuple[str, frozenset[str]]] = (
    (
        "object",
        frozenset(["properties", "required", "minProperties", "propertyNames", "patternProperties", "additionalProperties"]),
    ),
    ("array", frozenset(["items", "prefixItems", "minItems", "contains", "uniqueItems"])),
    ("string", frozenset(["pattern", "minLength", "maxLength", "format"])),
    ("number", frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])),
)
"""Type → keywords that suggest it where none is named."""


class _Maker:
    """Makes one candidate; without a random generator the smallest one."""

    def __init__(self, root: Node | bool, rng: random.Random | None) -> None:
        self.root = root
        self.rng = rng
        self.room = Room()

    def make(self, node: Any, depth: int = 0) -> Any:
        self.room.take(1)
        if node is True or node == {}:
            return self.choice(_ANYTHING)
        if not isinstance(node, Mapping) or depth > _DEEPEST:
            raise ImpossibleError("nothing fits")
        node = self.merged(cast(Node, node), depth)
        if "const" in node:
            return node["const"]
        if "enum" in node:
            return self.choice([v for v in node["enum"] if is_of(v, node.get("type"))] or node["enum"])
        for key in ("anyOf", "oneOf"):
            if options := node.get(key):
                rest = {k: v for k, v in node.items() if k != key}
                if self.rng is None and depth > _DEEPEST // 6:
                    options = sorted(options, key=refers)  # what may lead on and on comes last
                return self.first_that_works([partial(self.joint, rest, option, depth) for option in options])
        if "default" in node and self.rng is None:
            return node["default"]
        kind = node.get("type") or next((name for name, keys in _KINDS if not keys.isdisjoint(node)), None)
        if isinstance(kind, (list, tuple)):
            kinds = cast(list[str], kind)
            return self.first_that_works([partial(self.typed, k, node, depth) for k in kinds])
        return self.typed(cast("str | None", kind), node, depth)

    def joint(self, node: Node, option: Any, depth: int) -> Any:
        return self.make(joined(node, option), depth + 1)

    def merged(self, node: Node, depth: int) -> Node:
        """A node with what its references and `allOf` ask, and one side of its condition."""
        for _ in range(_DEEPEST):
            if "$ref" in node or "$dynamicRef" in node:
                reference = str(node.get("$ref", node.get("$dynamicRef")))
                target = self.resolved(reference)
                node = joined({k: v for k, v in node.items() if k not in ("$ref", "$dynamicRef")}, target)
            elif "allOf" in node:
                parts = node["allOf"]
                node = {k: v for k, v in node.items() if k != "allOf"}
                for part in parts:
                    self.room.take(len(node))
                    node = joined(node, part)
            elif "if" in node:
                holds = self.rng is None or self.rng.random() < 0.5
                chosen = joined(node["if"], node.get("then", True)) if holds else node.get("else", True)
                node = joined({k: v for k, v in node.items() if k not in ("if", "then", "else")}, chosen)
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

    def typed(self, kind: str | None, node: Node, depth: int) -> Any:
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

    def mapping(self, node: Node, depth: int) -> dict[str, Any]:
        properties: Node = node.get("properties", {})
        names = list(dict.fromkeys(node.get("required", ())))
        if self.rng is not None and depth < _DEEPEST // 4:
            names += [n for n in properties if n not in names and self.rng.random() < 0.5]
        for name in list(names):
            names += [n for n in node.get("dependentRequired", {}).get(name, ()) if n not in names]
            dependent = node.get("dependentSchemas", {}).get(name)
            if isinstance(dependent, Mapping):
                node = joined(node, dependent)
                names += [n for n in node.get("required", ()) if n not in names]
        names += [n for n in properties if n not in names][: max(0, node.get("minProperties", 0) - len(names))]
        for number in range(1, node.get("minProperties", 0) - len(names) + 1):
            names.append(self.name(node, number))
        made: dict[str, Any] = {}
        for name in names:
            made[name] = self.make(self.property(node, name), depth + 1)
        return made

    def name(self, node: Node, number: int) -> str:
        """A further name, as the schema allows them."""
        self.room.take(1)
        for pattern in node.get("patternProperties", {}):
            return matching(pattern, self.rng, number, room=self.room)
        rule = node.get("propertyNames")
        if isinstance(rule, Mapping) and "pattern" in rule:
            return matching(str(cast(Node, rule)["pattern"]), self.rng, number, room=self.room)
        return f"echo{number}"

    @staticmethod
    def property(node: Node, name: str) -> Any:
        rules: list[Any] = [node["properties"][name]] if name in node.get("properties", {}) else []
        rules += [rule for pattern, rule in node.get("patternProperties", {}).items() if re.search(pattern, name)]
        if not rules:
            rules = [node.get("additionalProperties", True)]
        found = rules[0]
        for rule in rules[1:]:
            found = joined(found, rule)
        return found

    def list_of(self, node: Node, depth: int) -> list[Any]:
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
                rule = joined(rule, node["contains"])
            made.append(self.item(rule, depth + 1, made if node.get("uniqueItems") else None))
        return made

    def item(self, rule: Any, depth: int, others: list[Any] | None) -> Any:
        """An item of a list, unlike the others where they must differ."""
        value = self.make(rule, depth)
        own = self.rng
        for variant in range(ATTEMPTS):
            self.room.take(len(others or ()))
            if others is None or not any(same(value, other) for other in others):
                break
            self.rng = random.Random(f"{variant}/{len(others)}")
            value = self.make(rule, depth)
        self.rng = own
        return value

    # Numbers and texts.

    def number(self, node: Node, *, whole: bool) -> float:
        low = bound(node, "minimum", "exclusiveMinimum", max)
        high = bound(node, "maximum", "exclusiveMaximum", min)
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

    def text(self, node: Node) -> str:
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
