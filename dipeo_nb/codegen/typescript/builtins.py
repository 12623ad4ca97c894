"""Methods of texts, arrays and objects, and global functions, that constants are made with. None has an effect."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from dipeo_nb.codegen.typescript.operators import to_number
from dipeo_nb.codegen.typescript.values import (
    MAX_ITEMS,
    MAX_TEXT,
    UNDEFINED,
    Closure,
    key_text,
    keys,
    number,
    same,
    to_text,
    truthy,
)

Call = Callable[..., Any]
"""Calls a function of the source: (function, arguments …)."""


class NoSuchMethodError(Exception):
    """There is no such method here."""


def text_method(text: str, name: str, args: list[Any]) -> Any:
    """Raises NoSuchMethodError."""
    if name not in _TEXT:
        raise NoSuchMethodError
    made = _TEXT[name](text, *args)
    if isinstance(made, str) and len(made) > MAX_TEXT:
        raise ValueError(f"the text would have more than {MAX_TEXT:,} characters")
    return made


def array_method(items: list[Any], name: str, args: list[Any], call: Call) -> Any:
    """Of methods that leave the array as it is. Raises NoSuchMethodError."""
    if name in _WITH_FUNCTION:
        if not args or not isinstance(args[0], Closure):
            raise ValueError(f".{name}() without a function of this source")
        return _WITH_FUNCTION[name](items, lambda item, at: call(args[0], item, at, items))
    if name == "reduce":
        return _reduce(items, args, call)
    if name not in _ARRAY:
        raise NoSuchMethodError
    return _bounded(_ARRAY[name](items, *args))


MUTATING: Mapping[str, Callable[..., Any]] = {
    "push": lambda items, *new: items.extend(new) or len(items),
    "unshift": lambda items, *new: items.__setitem__(slice(0, 0), new) or len(items),
    "pop": lambda items: items.pop() if items else UNDEFINED,
    "shift": lambda items: items.pop(0) if items else UNDEFINED,
    "reverse": lambda items: items.reverse() or items,
    "sort": lambda items: items.sort(key=to_text) or items,
}
"""Methods of arrays that change them."""


def global_function(name: str, args: list[Any]) -> Any:
    """`Object.keys(…)`, `String(…)` …. Raises NoSuchMethodError."""
    if name not in _GLOBAL:
        raise NoSuchMethodError
    return _bounded(_GLOBAL[name](*args))


def is_global(name: str) -> bool:
    return name in _GLOBAL


def unique(items: list[Any]) -> list[Any]:
    """The elements of a set, in the order in which they came first."""
    plain = [item for item in items if isinstance(item, (str, int, float)) and not isinstance(item, bool)]
    if len(plain) == len(items):
        return list(dict.fromkeys(plain))
    made: list[Any] = []
    for item in items:
        if not any(same(item, other) for other in made):
            made.append(item)
    return made


def sorted_by(items: list[Any], compare: Callable[[Any, Any], Any]) -> None:
    """`.sort(compare)`."""
    items.sort(key=functools.cmp_to_key(lambda a, b: int(math.copysign(1, v)) if (v := to_number(compare(a, b))) else 0))


def _bounded(made: Any) -> Any:
    if isinstance(made, list) and len(made) > MAX_ITEMS:  # pyright: ignore[reportUnknownArgumentType]
        raise ValueError(f"the array would have more than {MAX_ITEMS:,} elements")
    return made


def _slice(whole: Any, start: Any = UNDEFINED, end: Any = UNDEFINED) -> Any:
    first = 0 if start is UNDEFINED else int(to_number(start))
    last = len(whole) if end is UNDEFINED else int(to_number(end))
    first, last = (max(at + len(whole), 0) if at < 0 else at for at in (first, last))
    return whole[first:last] if first < last else whole[:0]


def _substring(text: str, start: Any = 0, end: Any = UNDEFINED) -> str:
    first, last = (min(max(int(to_number(len(text) if at is UNDEFINED else at)), 0), len(text)) for at in (start, end))
    return text[min(first, last) : max(first, last)]


def _split(text: str, separator: Any = UNDEFINED) -> list[str]:
    if separator is UNDEFINED:
        return [text]
    if not isinstance(separator, str):
        raise ValueError("split() by a value other than text")
    return text.split(separator) if separator else list(text)


def _replace(text: str, old: Any, new: Any, count: int = 1) -> str:
    if not isinstance(old, str) or not isinstance(new, str) or "$" in new:
        raise ValueError("replace() with anything but two texts")
    return text.replace(old, new, count)


def _pad(text: str, width: Any, fill: Any, left: bool) -> str:
    missing, fill = int(to_number(width)) - len(text), " " if fill is UNDEFINED else to_text(fill)
    if missing <= 0 or not fill:
        return text
    if missing > MAX_TEXT:
        raise ValueError("so much padding")
    extra = (fill * (missing // len(fill) + 1))[:missing]
    return extra + text if left else text + extra


def _repeat(text: str, count: Any) -> str:
    times = int(to_number(count))
    if times < 0 or times * len(text) > MAX_TEXT:
        raise ValueError(f"repeat({times})")
    return text * times


_TEXT: Mapping[str, Callable[..., Any]] = {
    "toUpperCase": lambda s: s.upper(), "toLowerCase": lambda s: s.lower(), "trim": lambda s: s.strip(),
    "trimStart": lambda s: s.lstrip(), "trimEnd": lambda s: s.rstrip(), "slice": _slice, "substring": _substring,
    "charAt": lambda s, at=0: s[int(to_number(at))] if 0 <= to_number(at) < len(s) else "",
    "at": lambda s, at: s[int(to_number(at))] if -len(s) <= to_number(at) < len(s) else UNDEFINED,
    "split": _split, "replace": _replace, "replaceAll": lambda s, old, new: _replace(s, old, new, -1),
    "concat": lambda s, *more: s + "".join(map(to_text, more)), "repeat": _repeat,
    "includes": lambda s, part: to_text(part) in s, "startsWith": lambda s, part: s.startswith(to_text(part)),
    "endsWith": lambda s, part: s.endswith(to_text(part)), "indexOf": lambda s, part: s.find(to_text(part)),
    "padStart": lambda s, width, fill=UNDEFINED: _pad(s, width, fill, True),
    "padEnd": lambda s, width, fill=UNDEFINED: _pad(s, width, fill, False), "toString": lambda s: s,
}  # fmt: skip


def _position(items: list[Any], value: Any) -> int:
    return next((at for at, item in enumerate(items) if same(item, value)), -1)


def _flat(items: list[Any], depth: Any = 1) -> list[Any]:
    made = items
    for _ in range(min(int(to_number(depth)), 20)):
        made = [part for item in made for part in (item if isinstance(item, list) else [item])]
        _bounded(made)
    return made


_ARRAY: Mapping[str, Callable[..., Any]] = {
    "join": lambda items, by=",": to_text(by).join("" if i is None or i is UNDEFINED else to_text(i) for i in items),
    "concat": lambda items, *more: [*items, *(p for m in more for p in (m if isinstance(m, list) else [m]))],
    "includes": lambda items, value: _position(items, value) >= 0, "has": lambda items, value: _position(items, value) >= 0,
    "indexOf": _position, "slice": _slice, "flat": _flat,
    "at": lambda items, at: items[int(to_number(at))] if -len(items) <= to_number(at) < len(items) else UNDEFINED,
    "keys": lambda items: list(range(len(items))), "values": lambda items: list(items),
    "entries": lambda items: [[at, item] for at, item in enumerate(items)],
    "toReversed": lambda items: items[::-1],
}  # fmt: skip


def _find(items: list[Any], test: Callable[[Any, int], Any]) -> Any:
    return next((item for at, item in enumerate(items) if truthy(test(item, at))), UNDEFINED)


def _for_each(items: list[Any], work: Callable[[Any, int], Any]) -> Any:
    for at, item in enumerate(items):
        work(item, at)
    return UNDEFINED


_WITH_FUNCTION: Mapping[str, Callable[..., Any]] = {
    "map": lambda items, f: [f(item, at) for at, item in enumerate(items)],
    "filter": lambda items, f: [item for at, item in enumerate(items) if truthy(f(item, at))],
    "flatMap": lambda items, f: _flat([f(item, at) for at, item in enumerate(items)]),
    "find": _find,
    "findIndex": lambda items, f: next((at for at, item in enumerate(items) if truthy(f(item, at))), -1),
    "some": lambda items, f: any(truthy(f(item, at)) for at, item in enumerate(items)),
    "every": lambda items, f: all(truthy(f(item, at)) for at, item in enumerate(items)),
    "forEach": _for_each,
}  # fmt: skip


def _reduce(items: list[Any], args: list[Any], call: Call) -> Any:
    if not args or not isinstance(args[0], Closure) or (len(args) == 1 and not items):
        raise ValueError(".reduce() without a function of this source, or of nothing")
    made, rest = (args[1], items) if len(args) > 1 else (items[0], items[1:])
    for at, item in enumerate(rest, len(items) - len(rest)):
        made = call(args[0], made, item, at, items)
    return made


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, list):
        return {str(at): item for at, item in enumerate(value)}  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if not isinstance(value, dict):
        raise ValueError("a value other than an object")
    return value  # pyright: ignore[reportUnknownVariableType]


def _from_entries(entries: list[Any]) -> dict[str, Any]:
    return {key_text(key): value for key, value in entries}


def _whole(value: Any, base: Any = 10) -> int | float:
    found = re.match(r"\s*[+-]?[0-9a-z]+", to_text(value).lower())
    try:
        return int(found[0], int(base)) if found else math.nan
    except ValueError:
        digits = re.match(r"\s*[+-]?\d+", to_text(value))
        return int(digits[0]) if digits and base == 10 else math.nan


def _json(value: Any) -> str:
    def plain(part: Any) -> Any:
        if isinstance(part, dict):
            named: dict[str, Any] = part
            return {k: plain(named[k]) for k in keys(named) if named[k] is not UNDEFINED and not isinstance(named[k], Closure)}
        if isinstance(part, list):
            return [None if p is UNDEFINED else plain(p) for p in part]  # pyright: ignore[reportUnknownVariableType]
        if isinstance(part, Closure):
            raise ValueError("JSON of a function")
        return part

    return json.dumps(plain(value), ensure_ascii=False, separators=(",", ":"))


_GLOBAL: Mapping[str, Callable[..., Any]] = {
    "Object.keys": lambda value: keys(_object(value)),
    "Object.values": lambda value: [_object(value)[key] for key in keys(_object(value))],
    "Object.entries": lambda value: [[key, _object(value)[key]] for key in keys(_object(value))],
    "Object.fromEntries": _from_entries,
    "Object.freeze": lambda value: value,
    "Object.assign": lambda target, *more: functools.reduce(
        lambda a, b: {**a, **(_object(b) if b else {})}, more, _object(target)
    ),
    "Array.isArray": lambda value: isinstance(value, list),
    "Array.of": lambda *items: list(items),
    "String": lambda value="": to_text(value),
    "Number": lambda value=0: number(to_number(value)),
    "Boolean": lambda value=UNDEFINED: truthy(value),
    "parseInt": _whole,
    "parseFloat": lambda value: number(to_number(value)),
    "JSON.stringify": _json,
    "Math.max": lambda *values: number(max((to_number(v) for v in values), default=-math.inf)),
    "Math.min": lambda *values: number(min((to_number(v) for v in values), default=math.inf)),
    "Math.abs": lambda value: abs(to_number(value)),
    "Math.floor": lambda value: math.floor(to_number(value)),
    "Math.ceil": lambda value: math.ceil(to_number(value)),
    "Math.round": lambda value: math.floor(to_number(value) + 0.5),
    "Math.pow": lambda one, other: number(float(to_number(one)) ** to_number(other)),
}
