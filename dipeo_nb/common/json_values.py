"""Payloads of events as text, for every place where they are kept or sent: strict JSON, from which the same values come back.

JSON has no NaN and no infinities. Where one stands, the text has `null`, and the payload an entry `$floats`: a list of
[path, name]. So every reader of JSON can read it, and `decode` gives back the floats that were there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from json import encoder
from typing import Any

from pydantic_core import from_json

from dipeo_nb.common.values import EVENT_DEPTH, UnsupportedValueError, plain_value
from dipeo_nb.errors import StorageError

FLOATS = "$floats"
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=plain_value, allow_nan=False)
_make = getattr(encoder, "c_make_encoder", None)
_pieces: Callable[[Any, int], Iterable[str]] = (
    (lambda payload, _: _ENCODER.iterencode(payload))
    if _make is None
    else _make(None, plain_value, encoder.encode_basestring, None, ":", ",", False, False, False)
)
"""The text of a payload, as `_ENCODER` writes it, in pieces; `JSONEncoder.encode` would make a new function for each payload."""
_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(payload: Mapping[str, Any]) -> str:
    """A payload as strict JSON that UTF-8 can hold. Values that are not plain take the forms that `plain_value` gives them.

    Raises:
        StorageError: a value has no form.
    """
    try:
        text = "".join(_pieces(payload, 0))
        if not text.isascii():
            text.encode()
    except Exception:  # noqa: BLE001 - NaN, surrogates, keys that are not text, what has no form, or its own code raised
        return _encode_anything(payload)
    return text


def decode(text: str | bytes, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
    """The payload that `encode` wrote; also those of older versions.

    Args:
        object_hook: as for `json.loads`; what it returns may be shared and is not changed.
    """
    payload: dict[str, Any] = _loaded(text) if object_hook is None else json.loads(text, object_hook=object_hook)
    if FLOATS not in payload:
        return payload
    floats = payload.pop(FLOATS)
    own: dict[int, Any] = {id(payload): payload}
    """The containers on the way to floats that are this payload's alone, by identity."""
    for path, name in floats:
        inside: Any = payload
        for step in path[:-1]:
            item = inside[step]
            if id(item) not in own:
                copy = item.copy()
                own[id(copy)] = inside[step] = copy
                item = copy
            inside = item
        inside[path[-1]] = _NAMES[name]
    return payload


def _loaded(text: str | bytes) -> dict[str, Any]:
    try:
        return from_json(text)  # in less than half of the time of `json.loads`
    except ValueError:  # half a pair of surrogates, as older versions wrote it; very deep
        return json.loads(text)


def _encode_anything(payload: Mapping[str, Any]) -> str:
    try:
        value = plain_value(payload, "event", levels=EVENT_DEPTH)
        if found := _take_floats(value):
            value[FLOATS] = found
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except UnsupportedValueError as error:
        raise StorageError(
            f"An event holds a value that cannot be stored: {error.message}", hint=error.hint, operation="append"
        ) from error
    except (ValueError, RecursionError) as error:  # the digits that Python writes were limited to fewer, the stack is full
        raise StorageError(
            f"An event holds a value that cannot be stored: {error}", hint="Use a simpler value.", operation="append"
        ) from error


def _take_floats(value: Any) -> list[tuple[list[Any], str]]:
    """Put None where NaN and infinities stand; [path, name] of each."""
    found: list[tuple[list[Any], str]] = []

    def walk(inside: Any, path: list[Any]) -> None:
        for step, item in inside.items() if isinstance(inside, dict) else enumerate(inside):
            if isinstance(item, (dict, list)):
                walk(item, [*path, step])
            elif isinstance(item, float) and not math.isfinite(item):
                name = "NaN" if math.isnan(item) else "Infinity" if item > 0 else "-Infinity"
                inside[step] = None
                found.append(([*path, step], name))

    walk(value, [])
    return found
