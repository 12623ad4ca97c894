"""From a node's properties to its typed spec: the annotations of `domain.nodes` are the rules.

Each spec class is looked at once and turned into one converter per field, so that a node costs a few microseconds.
Spellings people use are accepted where the meaning is plain: numbers and truth values as text, enum values in any
case, one item where a list is meant.
"""

from __future__ import annotations

import datetime
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from functools import cache
from typing import Any, NamedTuple, Union, get_args, get_origin

from dipeo_nb.common.text import nearest, shorten
from dipeo_nb.diagram.vocabulary import MEMORY_PROFILES
from dipeo_nb.domain.diagram import DomainNode
from dipeo_nb.domain.enums import Severity
from dipeo_nb.domain.nodes import NODE_SPECS, NodeSpec


class Problem(NamedTuple):
    """A finding about one node, not yet placed in a file."""

    severity: Severity
    code: str
    message: str
    hint: str | None = None
    field: str | None = None


class _WrongError(Exception):
    """A value does not fit; args: what was expected, and a hint or None."""


Converter = Callable[[Any], Any]


class Shape(NamedTuple):
    """Facts about a spec class."""

    converters: Mapping[str, Converter | None]
    """By field; None: takes anything."""
    aliases: Mapping[str, str]
    dropped: frozenset[str]
    required: tuple[str, ...]
    templates: tuple[str, ...]
    expressions: tuple[str, ...]
    prompt_files: tuple[str, ...]
    lenient: frozenset[str]
    """Fields of which a wrong value is ignored with a warning."""


def build_spec(node: DomainNode) -> tuple[NodeSpec | None, list[Problem]]:
    """The typed form of *node*.

    Returns:
        The spec, or None when the type is unknown or a value does not fit, and the findings about it (an error among
        them, such as a missing field, forbids running even when there is a spec).
    """
    cls = NODE_SPECS.get(node.type)
    if cls is None:
        return None, [_unknown_type(node.type)]
    known = shape(cls)
    converters = known.converters
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    failed = False
    for key, value in node.data.items():
        name = key
        if key not in converters:
            name = known.aliases.get(key)
            if name is None or node.data.get(name) is not None:
                if name is None and key not in known.dropped and not key.startswith("__"):
                    problems.append(_unknown_property(node.type, key, known))
                continue
            if key == "memory_profile" and isinstance(value, str):
                value = MEMORY_PROFILES.get(value.strip().upper(), value)
        if value is None:
            continue
        convert = converters[name]
        if convert is None:
            values[name] = value
            continue
        try:
            values[name] = convert(value)
        except _WrongError as wrong:
            expected, hint = wrong.args
            if name in known.lenient:
                problems.append(
                    Problem(
                        Severity.WARNING,
                        "ignored-value",
                        f"'{key}' is {expected}, not {_shown(value)}; it is ignored.",
                        hint or f"Write {expected}, or leave it out.",
                        key,
                    )
                )
                continue
            failed = True
            problems.append(
                Problem(
                    Severity.ERROR,
                    "wrong-value",
                    f"'{key}' is {expected}, not {_shown(value)}.",
                    hint or f"Write {expected}, or leave it out.",
                    key,
                )
            )
    problems.extend(_missing(node.type, name, name in node.data) for name in known.required if not _given(values.get(name)))
    return (None if failed else cls(**values)), problems


@cache
def shape(cls: type[NodeSpec]) -> Shape:
    """The converters of a spec class, made once from its annotations and field metadata."""
    hints = typing.get_type_hints(cls)
    converters: dict[str, Converter | None] = {}
    aliases = dict(cls.META.aliases)
    for field in fields(cls):
        meta = field.metadata
        value_aliases = meta.get("aliases", {})
        if isinstance(value_aliases, tuple):
            aliases.update(dict.fromkeys(value_aliases, field.name))
            value_aliases = {}
        convert = _converter(hints[field.name], value_aliases)
        if choices := meta.get("choices"):
            convert = _choice({str(c): str(c) for c in choices}, value_aliases)
        elif field.name == "on_error":
            convert = _choice({"fail": "fail", "continue": "continue"}, {})
        if "minimum" in meta or "maximum" in meta:
            convert = _bounded(convert, meta.get("minimum"), meta.get("maximum"))
        elif field.name in ("timeout", "retries", "retry_delay"):
            convert = _bounded(convert, 0, None)
        if not _is_text_only(hints[field.name]) and convert is not None:
            default = field.default if field.default_factory is MISSING else field.default_factory()
            convert = _or_default(convert, default)
        converters[field.name] = convert
    return Shape(
        converters,
        aliases,
        frozenset(cls.META.dropped),
        tuple(f.name for f in fields(cls) if f.metadata.get("required")),
        tuple(f.name for f in fields(cls) if f.metadata.get("template")),
        tuple(f.name for f in fields(cls) if f.metadata.get("expression")),
        tuple(f.name for f in fields(cls) if f.metadata.get("prompt_file")),
        frozenset(("flipped", "metadata", *(f.name for f in fields(cls) if f.metadata.get("lenient")))),
    )


# --- converters --------------------------------------------------------------------------------------------------


def _converter(hint: Any, aliases: Mapping[str, str]) -> Converter | None:
    if hint is Any:
        return None
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Union or origin is types.UnionType:
        options = [a for a in arguments if a is not type(None)]
        if len(options) == 1:
            return _converter(options[0], aliases)
        return _either([_converter(o, aliases) for o in options])
    if origin is list or origin is tuple:
        item = _converter(arguments[0], aliases) if arguments else None
        return _many(item, tuple if origin is tuple else list)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice({str(m.value): m for m in hint}, aliases)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping
    return {str: _text, bool: _truth, int: _whole, float: _number}[hint]


def _is_text_only(hint: Any) -> bool:
    return {a for a in (get_args(hint) or (hint,)) if a is not type(None)} == {str}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    raise _WrongError("text", "Put it into quotes, or write it with `|`.")


_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if word in _WORDS:
        return _WORDS[word]
    raise _WrongError("true or false", None)


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _number(value, "a whole number")
    if not number.is_integer():
        raise _WrongError("a whole number", None)
    return int(number)


def _number(value: Any, expected: str = "a number") -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value) if abs(value) < 1e300 else math.inf
    elif isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            raise _WrongError(expected, None) from None
    else:
        raise _WrongError(expected, None)
    if not math.isfinite(number):
        raise _WrongError(expected, None)
    return number


def _mapping(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        # DiPeO's editor stores some mappings as JSON text.
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _WrongError("a mapping", f"The text is not JSON: {error}.") from None
    if isinstance(value, Mapping):
        return value
    raise _WrongError("a mapping", "Write `name: value` lines below it.")


def _many(item: Converter | None, kind: type) -> Converter:
    def convert(value: Any) -> Any:
        values = value if isinstance(value, (list, tuple)) else [value]
        return kind(v if item is None else item(v) for v in values if v is not None)

    return convert


def _either(options: list[Converter | None]) -> Converter:
    def convert(value: Any) -> Any:
        # A list is never meant as the text of it, nor a text as a list of one.
        ordered = sorted(options, key=lambda o: isinstance(value, (list, tuple)) == (o in (_text, _truth)))
        expected: list[str] = []
        for option in ordered:
            try:
                return value if option is None else option(value)
            except _WrongError as wrong:
                if wrong.args[0] not in expected:
                    expected.append(wrong.args[0])
        raise _WrongError(" or ".join(expected), None)

    return convert


def _choice(values: Mapping[str, Any], aliases: Mapping[str, str]) -> Converter:
    exact: dict[str, Any] = {**{a: values[v] for a, v in aliases.items()}, **values}
    loose = {k.lower().replace("-", "_"): v for k, v in exact.items()}

    def convert(value: Any) -> Any:
        if isinstance(value, str):
            if value in exact:
                return exact[value]
            word = value.strip().lower().replace("-", "_")
            if word in loose:
                return loose[word]
        elif isinstance(value, bool) and not value and "none" in loose:
            return loose["none"]  # YAML reads `off` and `no` as false
        close = nearest(str(value), exact)
        raise _WrongError(f"one of {', '.join(values)}", f"Did you mean '{close}'?" if close else None)

    return convert


def _bounded(convert: Converter | None, least: float | None, most: float | None) -> Converter:
    if least is None or most is None:
        span = f"at least {least}" if most is None else f"at most {most}"
    else:
        span = f"between {least} and {most}"

    def bounded(value: Any) -> Any:
        number = value if convert is None else convert(value)
        if (least is not None and number < least) or (most is not None and number > most):
            raise _WrongError(f"a number {span}", None)
        return number

    return bounded


def _or_default(convert: Converter, default: Any) -> Converter:
    """Empty text means "not set" wherever text is not what is wanted (editors store it so)."""

    def optional(value: Any) -> Any:
        return default if isinstance(value, str) and not value.strip() else convert(value)

    return optional


# --- findings ----------------------------------------------------------------------------------------------------


def _unknown_type(name: str) -> Problem:
    close = nearest(name, NODE_SPECS)
    hint = f"Did you mean '{close}'?" if close else f"Types: {', '.join(NODE_SPECS)}; `dipeo-nb nodes` describes them."
    return Problem(Severity.ERROR, "unknown-type", f"'{shorten(name)}' is not a node type.", hint, "type")


def _unknown_property(node_type: str, key: str, known: Shape) -> Problem:
    close = nearest(key, [*known.converters, *known.aliases])
    hint = (
        f"Did you mean '{close}'?"
        if close
        else f"A {node_type} takes {', '.join(sorted(known.converters))}; `dipeo-nb nodes {node_type}` describes them."
    )
    message = f"'{shorten(key)}' is not a property of {node_type}; it is kept and has no effect."
    return Problem(Severity.WARNING, "unknown-property", message, hint, key)


def _missing(node_type: str, name: str, empty: bool) -> Problem:
    hint = "Name one of the diagram's persons." if name == "person" else f"Add `{name}`."
    state = "an empty" if empty else "no"
    return Problem(Severity.ERROR, f"missing-{name.replace('_', '-')}", f"This {node_type} has {state} '{name}'.", hint, name)


def _given(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"'{shorten(value)}'"
