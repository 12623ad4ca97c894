"""JSON and YAML text: parsing and serialization, within limits and without silently changing values."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import yaml
from pydantic_core import PydanticSerializationError, from_json, to_json
from yaml.composer import Composer

from dipeo_nb.common import stepwise_json, stepwise_yaml
from dipeo_nb.common.cancellable import check
from dipeo_nb.errors import StorageError, ValidationError

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml: slower, the same values
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]


class _StepwiseLoader(Composer, _Loader):  # pyright: ignore[reportGeneralTypeIssues]
    """Makes the nodes of a text one by one in Python, from the events of libyaml, whose own composer holds the interpreter (and
    with it the event loop) for the whole text."""

    def __init__(self, text: str) -> None:
        _Loader.__init__(self, text)
        Composer.__init__(self)

    def compose_node(self, parent: Any, index: Any) -> Any:
        check()
        return super().compose_node(parent, index)


QUICK = 10_000
"""Characters of a YAML text that the composer of libyaml works on at once."""
MAX_DEPTH = 200
"""Maximum nesting of lists and mappings; other JSON parsers have similar limits."""
MAX_VALUES = 10_000_000
"""Maximum values in one text, counting each use of a YAML alias."""
MAX_EXPANDED = 50 * 1024 * 1024
"""Maximum characters of all scalars of a YAML text, counting each use of an alias."""
SHORT_MEANS = 1_000_000
"""Values, or characters, that also a short YAML text may stand for."""
MAX_RATIO = 10
"""Values, or characters, that a longer one may stand for, for each of its own characters."""


# Reading.


def json_value(text: str, path: str) -> Any:
    """Parse a JSON text.

    Raises:
        ValidationError: the text is invalid; the message has the position.
    """
    try:
        return stepwise_json.loads(text) if len(text) > stepwise_json.LARGE else from_json(text, cache_strings="keys")
    except (ValueError, RecursionError):
        pass  # the standard library reports the position, and accepts a little more
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValidationError(f"'{path}' is not JSON: {error}.", hint="Correct the file, or set format: text.") from None
    except RecursionError:
        raise _too_deep(path) from None


def yaml_value(text: str, path: str) -> Any:
    """Parse a YAML text into JSON values: dates and keys of mappings become text.

    Raises:
        ValidationError: the text is invalid, contains itself, or has keys that are lists or mappings.
        StorageError: `too_large`: expanding its aliases would exceed the size limit of files.
    """
    value = yaml_native(text, path)
    try:
        plain = (
            json.dumps(value, default=str) if len(text) <= QUICK else "".join(json.JSONEncoder(default=str).iterencode(value))
        )
        return json.loads(plain) if len(plain) <= QUICK else stepwise_json.loads(plain)
    except (TypeError, ValueError) as error:
        raise ValidationError(f"'{path}' is YAML that JSON cannot represent: {error}.", hint="Correct the file.") from None
    except RecursionError:
        raise _too_deep(path) from None


def yaml_native(text: str, path: str) -> Any:
    """Parse a YAML text with YAML's own types; same errors as `yaml_value`."""
    try:
        _refuse_depth(text, path)
        loader: Any = (_Loader if len(text) <= QUICK else _StepwiseLoader)(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _refuse_bombs(node, path, max(SHORT_MEANS, len(text) * MAX_RATIO))
            return loader.construct_document(node)  # pyright: ignore[reportUnknownMemberType]
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ValidationError(f"'{path}' is not YAML: {error}.", hint="Correct the file, or set format: text.") from None
    except (ValueError, TypeError) as error:  # a date such as 2026-99-99, or a structure as a key
        raise ValidationError(f"'{path}' is not YAML: {error}.", hint="Correct the file, or set format: text.") from None
    except RecursionError:
        raise _too_deep(path) from None


def _refuse_depth(text: str, path: str) -> None:
    """The composer of libyaml recurses without a limit; the events before it do not."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        check()
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _too_deep(path)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refuse_bombs(node: yaml.Node, path: str, limit: int) -> None:
    """Compute the size of a text with all aliases expanded; each node is visited once."""
    most_values, most_characters = min(MAX_VALUES, limit), min(MAX_EXPANDED, limit)
    sizes: dict[int, tuple[int, int] | None] = {}

    def size(node: Any) -> tuple[int, int]:
        key = id(node)
        if key in sizes:
            known = sizes[key]
            if known is None:
                raise ValidationError(f"'{path}' contains itself, by an alias.", hint="Remove the alias.")
            return known
        sizes[key] = None
        values, characters = 1, len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if not isinstance(node, yaml.ScalarNode):
            for item in node.value:
                for part in item if isinstance(item, tuple) else (item,):  # pyright: ignore[reportUnknownVariableType]
                    more = size(part)
                    values, characters = values + more[0], characters + more[1]
        if values > most_values or characters > most_characters:
            raise StorageError(
                f"Cannot read '{path}': its aliases stand for more than {most_values:,} values or {most_characters:,} characters.",
                hint="Use fewer aliases.", operation="read", path=path, cause="too_large",
            )  # fmt: skip
        sizes[key] = values, characters
        return values, characters

    size(node)


def _too_deep(path: str) -> ValidationError:
    return ValidationError(f"'{path}' is nested too deeply.", hint=f"Keep it within {MAX_DEPTH} levels.")


# Writing.


def json_text(value: Any, path: str) -> str:
    """Serialize a value as JSON, indented by two blanks. Dates, paths, UUIDs, decimals, enumerations, dataclasses and pydantic models
    have their usual forms.

    Raises:
        StorageError: `not_json`, with the position in the value: NaN and infinities, bytes, sets, objects, keys that are not
            text, lone surrogates, values that contain themselves or are nested deeper than `MAX_DEPTH`.
    """
    try:
        if _is_plain(value, path):
            return _written(value)
    except PydanticSerializationError:
        pass  # a lone surrogate; the code below finds it
    return _written(_held(value, path, "JSON"))


def json_line(value: Any, path: str) -> str:
    """Serialize a value as JSON in one line. Same errors as `json_text`."""
    text = json_text(value, path)
    return (
        text if "\n" not in text else _compact(text) if len(text) > stepwise_json.LARGE else to_json(from_json(text)).decode()
    )


def _written(value: Any) -> str:
    return stepwise_json.dumps(value) if stepwise_json.is_large(value) else to_json(value, indent=2).decode()


def yaml_text(value: Any, path: str) -> str:
    """Serialize a value as YAML, including dates, bytes, infinities and keys of any scalar type. Same errors as `json_text`."""
    _is_plain(value, path)  # refuses what is too large
    try:
        return stepwise_yaml.dumps(_held(value, path, "YAML"))
    except yaml.YAMLError as error:
        raise _not_held(path, "$", f"an invalid YAML value ({error})", "YAML") from error


def _is_plain(value: Any, path: str) -> bool:
    """Whether a value is JSON all through. Level by level; a part that stands in several places is looked at once for each level
    and counted each time.

    Raises:
        StorageError: its text would be too large.
    """
    level: dict[int, tuple[Any, int]] = {0: ([value], 1)}
    plain, count = True, 0
    for _ in range(MAX_DEPTH + 1):
        below: dict[int, tuple[Any, int]] = {}
        for holder, times in level.values():
            check()
            for item in holder.values() if isinstance(holder, Mapping) else holder:  # pyright: ignore[reportUnknownVariableType,reportUnknownMemberType]
                count += times
                kind = type(item)
                if kind is str or kind is int or kind is bool or item is None:
                    continue
                if kind is float:
                    plain = plain and math.isfinite(item)
                elif kind is dict or kind is list or kind is tuple or isinstance(item, (Mapping, list, tuple)):
                    if kind is dict:
                        for name in item:
                            plain = plain and type(name) is str
                    elif kind is not list and kind is not tuple:
                        plain = False
                    known = below.get(id(item))  # pyright: ignore[reportUnknownArgumentType]
                    below[id(item)] = (item, times + (known[1] if known else 0))  # pyright: ignore[reportUnknownArgumentType]
                else:
                    plain = False
        if count > MAX_VALUES:
            raise _not_held(path, "$", f"more than {MAX_VALUES:,} values", "JSON")
        if not below:
            return plain
        level = below
    return False


def _held(value: Any, path: str, form: str) -> Any:
    """Return a plain copy of a value; raise StorageError for the first part that *form* cannot represent."""
    around: set[int] = set()

    def copied(value: Any, place: str) -> Any:
        check()
        if isinstance(value, Enum):
            value = value.value
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return _text(str.__str__(value), path, place, form)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value) and form == "JSON":
                raise _not_held(path, place, repr(float(value)), form)
            return float(value)
        if isinstance(value, (date, time)):
            return value if form == "YAML" and type(value) in (date, datetime) else value.isoformat()
        if isinstance(value, (Decimal, UUID, PurePath)):
            return str(value)
        if isinstance(value, bytes) and form == "YAML":
            return bytes(value)
        dump = getattr(value, "model_dump", None)
        if callable(dump) and not isinstance(value, type):
            value = dump(mode="json")
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if not isinstance(value, (Mapping, list, tuple)):
            raise _not_held(path, place, type(value).__name__, form)
        if id(value) in around:  # pyright: ignore[reportUnknownArgumentType]
            raise _not_held(path, place, "a value that contains itself", form)
        if len(around) >= MAX_DEPTH:
            raise _not_held(path, place, f"more than {MAX_DEPTH} levels", form)
        around.add(id(value))  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(value, Mapping):
            result: Any = {_name(k, path, place, form): copied(v, f"{place}.{k}") for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
        else:
            result = [copied(item, f"{place}[{n}]") for n, item in enumerate(value)]  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        around.discard(id(value))  # pyright: ignore[reportUnknownArgumentType]
        return result

    return copied(value, "$")


def _name(name: Any, path: str, place: str, form: str) -> Any:
    """Return the key of a mapping."""
    if isinstance(name, Enum):
        name = name.value
    if isinstance(name, str):
        return _text(str.__str__(name), path, place, form)
    if form == "YAML" and (name is None or isinstance(name, (bool, int, float, date))):
        return name
    raise _not_held(path, place, f"the name {name!r:.60}, which is not text", form)


def _text(text: str, path: str, place: str, form: str) -> str:
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise _not_held(path, place, "a text with half a character (a lone surrogate)", form)
    return text


def _not_held(path: str, place: str, what: str, form: str) -> StorageError:
    shown = place if len(place) < 120 else f"{place[:60]}…{place[-40:]}"
    return StorageError(
        f"Cannot write '{path}': the value has {what} at {shown}, which {form} cannot hold.".encode(errors="replace").decode(),
        hint="Use text, numbers, lists and mappings.", operation="write", path=path, cause="not_json",
    )  # fmt: skip


# Appending.


def with_item(text: str, item: str, count: int) -> str:
    """Append an item to the text of a JSON list, leaving the rest untouched and matching its style.

    Args:
        item: JSON, as `json_text` writes it.
        count: present number of items.
    """
    inner, end = text[: text.rindex("]")], text[text.rindex("]") :]
    before = inner.rstrip()
    gap = inner[len(before) :]
    newline = "\r\n" if "\r\n" in text else "\n"
    if not count:
        return f"{before}{newline}  {item.replace(chr(10), newline + '  ')}{newline}{end}"
    if "\n" not in gap:
        return f"{before}, {_compact(item)}{gap}{end}"
    last = before[before.rfind("\n") + 1 :]
    indent = last[: len(last) - len(last.lstrip())]
    return f"{before},{newline}{indent}{item.replace(chr(10), newline + indent)}{gap}{end}"


def _compact(item: str) -> str:
    return re.sub(r"\n\s*", " ", item) if "\n" in item else item


def with_yaml_item(text: str, value: Any, path: str) -> str | None:
    """Append an item to the text of a YAML list with one item per line; None when the text does not have that form."""
    node = yaml.compose(text, Loader=_Loader)
    if not isinstance(node, yaml.SequenceNode) or node.flow_style or not node.value:
        return None
    newline = "\r\n" if "\r\n" in text else "\n"
    indent = " " * node.start_mark.column
    item = yaml_text([value], path).replace("\n", f"{newline}{indent}").rstrip(" ")
    before = text if text.endswith("\n") else f"{text}{newline}"
    after = f"{before}{indent}{item}"
    try:
        fits = yaml_value(after, path) == [*yaml_value(text, path), yaml_value(item, path)[0]]
    except (ValidationError, StorageError):
        return None
    return after if fits else None


def has_comments(text: str) -> bool:
    """Whether a YAML text has comments, which rewriting it would lose."""
    if "#" not in text:
        return False
    end = 0
    for token in yaml.scan(text, Loader=_Loader):
        if "#" in text[end : token.start_mark.index]:
            return True
        end = token.end_mark.index
        if isinstance(token, yaml.ScalarToken) and token.style in ("|", ">"):
            head = text[token.start_mark.index : end].partition("\n")[0]
            if "#" in head:
                return True
    return "#" in text[end:]


def with_yaml_scalar(text: str, steps: list[str | int], value: Any, path: str) -> str | None:
    """Replace one scalar in a YAML text and nothing else; None when there is no such scalar."""
    node: Any = yaml.compose(text, Loader=_Loader)
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            node = next((v for k, v in node.value if k.value == str(step)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and -len(node.value) <= step < len(node.value):
            node = node.value[step]
        else:
            return None
    if not isinstance(node, yaml.ScalarNode) or node.style in ("|", ">") or isinstance(value, (Mapping, list, tuple)):
        return None
    shown = yaml_text([value], path).removeprefix("- ").removesuffix("\n")
    if "\n" in shown:
        return None
    return f"{text[: node.start_mark.index]}{shown}{text[node.end_mark.index :]}"
