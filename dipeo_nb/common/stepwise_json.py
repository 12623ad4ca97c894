"""Large JSON in steps: C code holds the interpreter for as long as it works, so a thread that parses or writes much at once stops
all others, the event loop's, too. Here it writes a bounded part at a time, and calls back for each part that it parses. Between two
parts it can be cancelled (`common.cancellable`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import to_json

from dipeo_nb.common import collecting
from dipeo_nb.common.cancellable import check

LARGE = 500_000
"""Characters of a text from which it is parsed in steps."""
VALUES = 20_000
"""Values that are written by one call of the writer."""
WINDOW = 400_000
"""Characters of a text that are."""


def loads(text: str) -> Any:
    """The value of a JSON text, as `json.loads`; other threads have their turns at each object of it, or at each number."""
    with collecting.paused():
        if text.count("{") > len(text) // 10_000:
            return json.loads(text, object_hook=_same)
        return json.loads(text, object_hook=_same, parse_int=_integer, parse_float=_float)


# Functions of Python: the interpreter lets others have their turns when it begins one.


def _same(value: dict[str, Any]) -> dict[str, Any]:
    check()
    return value


def _integer(text: str) -> int:
    check()
    return int(text)


def _float(text: str) -> float:
    check()
    return float(text)


def dumps(value: Any) -> str:
    """A value of plain JSON as text, two blanks for each level."""
    return "".join(_parts(value, "\n"))


def is_large(value: Any) -> bool:
    """Whether one call of the writer would take long."""
    return _count(value, VALUES) > VALUES


def _count(value: Any, limit: int) -> int:
    """The values in it, long texts counted by their length; more than *limit* are not counted to the end."""
    count, todo = 0, [value]
    while todo and count <= limit:
        item = todo.pop()
        if isinstance(item, str):
            count += 1 + len(item) // 50
        elif isinstance(item, Mapping):
            count += 1 + len(item)  # pyright: ignore[reportUnknownArgumentType]
            if count <= limit:
                todo += item.values()
        elif isinstance(item, (list, tuple)):
            count += 1 + len(item)  # pyright: ignore[reportUnknownArgumentType]
            if count <= limit:
                todo += item
        else:
            count += 1
    return count


def _parts(value: Any, newline: str) -> Iterator[str]:
    """The pieces of a text; *newline* has the indentation of the value."""
    check()
    if not is_large(value):
        yield _written(value, newline)
    elif isinstance(value, str):
        yield '"'
        for start in range(0, len(value), WINDOW):
            yield to_json(value[start : start + WINDOW]).decode()[1:-1]
        yield '"'
    else:
        inner = f"{newline}  "
        is_mapping = isinstance(value, Mapping)
        yield "{" if is_mapping else "["
        for n, part in enumerate(_groups(value)):
            check()
            if n:
                yield ","
            yield inner
            if len(part) > 1 or not is_large(part):
                yield _written(part, newline)[1:-1].strip("\n ")
            elif is_mapping:
                ((name, item),) = part.items()
                yield f"{to_json(name).decode()}: "
                yield from _parts(item, inner)
            else:
                yield from _parts(part[0], inner)
        yield f"{newline}}}" if is_mapping else f"{newline}]"


def _written(value: Any, newline: str) -> str:
    text = to_json(value, indent=2).decode()
    return text if newline == "\n" else text.replace("\n", newline)  # in strings they are escaped


def _groups(value: Any) -> Iterator[Any]:
    """The items of a list or mapping, in lists or mappings of which each is small, or has a single item."""
    is_mapping = isinstance(value, Mapping)
    group: list[Any] = []
    count = 0

    def given() -> Any:
        return dict(group) if is_mapping else list(group)

    for item in value.items() if is_mapping else value:  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
        size = _count(item[1] if is_mapping else item, VALUES)
        if group and count + size > VALUES:
            yield given()
            group, count = [], 0
        group.append(item)
        count += size
    if group:
        yield given()
