"""Dotted paths into values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime
from typing import Any

from dipeo_nb.common.cancellable import check
from dipeo_nb.common.short_repr import short_repr
from dipeo_nb.errors import ValidationError

_STEP = re.compile(r"([^.\[\]]+)|\[(-?\d{1,18})\]")


def key_list(keys: Any) -> list[str]:
    """Parse keys as given by users: comma separated, or several."""
    if keys is None:
        return []
    if isinstance(keys, Mapping) or not isinstance(keys, Iterable) or isinstance(keys, (bytes, bytearray)):
        raise ValidationError(f"`keys` is {keys!r:.60}.", hint="Write dotted paths: 'user.name' or ['a', 'b[0]'].")
    parts = keys.split(",") if isinstance(keys, str) else list(keys)  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    return [str(k).strip() for k in parts if str(k).strip()]


def steps_of(key: str) -> list[str | int]:
    return [int(number) if number else name for name, number in _STEP.findall(key)]


def select_keys(body: Any, keys: list[str], path: str) -> Any:
    """One key → its value, several → mapping key → value; absent → None."""
    if not isinstance(body, (Mapping, list)):
        raise ValidationError(f"'{path}' does not hold a mapping, so `keys` cannot select.", hint="Remove `keys`.")
    values = {key: _at(body, steps_of(key)) for key in keys}
    return next(iter(values.values())) if len(values) == 1 else values


def _at(value: Any, steps: Iterable[str | int]) -> Any:
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(str(step))  # pyright: ignore[reportUnknownMemberType]
        elif isinstance(value, list):
            try:
                value = value[int(step)]
            except (ValueError, IndexError):
                return None
        else:
            return None
    return value


def put_all(body: Any, value: Any, keys: list[str], path: str) -> None:
    """Set the value of each key."""
    if not isinstance(body, (dict, list)):
        raise ValidationError(f"'{path}' does not hold a mapping, so it cannot be updated by keys.", hint="Use write.")
    for key in keys:
        check()
        put(body, key, part_of(value, key, several=len(keys) > 1))


def part_of(value: Any, key: str, *, several: bool) -> Any:
    """Return the value of one of the keys."""
    if not several:
        return value
    if not isinstance(value, Mapping):
        raise ValidationError("Several `keys` need a mapping of values.", hint="Update one key, or provide a mapping.")
    last = key.rpartition(".")[2]
    if key not in value and last not in value:
        raise ValidationError(f"The mapping has no value for '{key:.200}'.", hint=f"It has: {short_repr(list(value))}.")
    return value[key] if key in value else value[last]


def put(body: Any, key: str, value: Any) -> None:
    """Set the value at a dotted path, creating mappings as needed.

    Raises:
        ValidationError: the path points to a missing item of a list, or leads through a scalar.
    """
    *path, last = steps_of(key) or [key]
    for step, following in zip(path, [*path, last][1:], strict=True):
        if isinstance(body, list):
            body = body[_index(body, step, key)]
        else:
            name = _named(body, step)
            inner = body.get(name)
            if inner is None:
                inner = body[name] = {}
            body = inner
        if not isinstance(body, (dict, list)):
            raise ValidationError(
                f"'{key:.200}' leads through {short_repr(body)} at '{following!s:.60}'.",
                hint="Correct the path, or write the whole file.",
            )
    if isinstance(body, list):
        body[_index(body, last, key)] = value
    else:
        body[_named(body, last)] = value


def _named(body: Mapping[Any, Any], step: str | int) -> Any:
    """Return the key in a mapping that a step refers to; keys in YAML need not be texts."""
    text = str(step)
    if text in body or not any(name in body for name in _meant(text)):
        return text
    check()  # each key of the mapping is compared
    return next((name for name in body if str(name) == text), text)


def _meant(text: str) -> Iterator[Any]:
    """Yield the keys of other types that are written like this text."""
    yield from {"None": [None], "True": [True], "False": [False]}.get(text, [])
    for kind in (int, float, date.fromisoformat, datetime.fromisoformat):
        with suppress(ValueError):
            yield kind(text)


def _index(items: list[Any], step: str | int, key: str) -> int:
    try:
        index = int(step)
    except ValueError:
        index = len(items)
    if not -len(items) <= index < len(items):
        raise ValidationError(f"'{key:.200}' does not name an item of the list at '{step!s:.60}'.", hint="Correct the path.")
    return index
