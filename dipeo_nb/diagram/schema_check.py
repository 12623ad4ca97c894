"""Checks of JSON schemas whose cost is counted: patterns in linear time, and every keyword a round (see `diagram.metering`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, cast

from pydantic_core import SchemaError as RustError
from pydantic_core import SchemaValidator, core_schema

from dipeo_nb.common import json_schema
from dipeo_nb.diagram.metering import NotQuickError, is_quick, meter

SHORT = 12
"""Characters of a text for which no pattern takes long."""
LONGEST_FORMAT = 2_000
"""Characters of a text whose `format` is quick to check."""
_SCHEMA_FACTOR = 20
"""Factor by which the check of a schema costs more than that of one value."""
_OTHERWISE = re.compile(r"\[\[|&&|--|~~|\{,|\\[<>]|\\b\{")
"""Syntax that means something else in Rust than in Python."""


def validator(schema: Any, *, checked: bool = False, **options: Any) -> Any:
    """A validator of `jsonschema` for a schema, of the dialect that it names (else 2020-12), after a check of the schema itself.

    Args:
        checked: the schema is known to be right.
        options: as of the validators of `jsonschema`: registry, format_checker; True for the dialect's own one.

    Raises:
        jsonschema.SchemaError: the schema is wrong.
        NotQuickError: that takes too long to find out where it is to be quick.
    """
    json_schema.load()
    from jsonschema import Draft202012Validator  # only now: its import takes a tenth of a second
    from jsonschema.validators import validator_for

    kind: Any = validator_for(schema, default=Draft202012Validator)
    if not checked:
        meter().weigh(schema, factor=_SCHEMA_FACTOR)
        kind.check_schema(schema)
    if options.get("format_checker") is True:
        options["format_checker"] = kind.FORMAT_CHECKER
    return _counting(kind)(schema, **options)


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern is found in a text, in time that grows with its length.

    Raises:
        NotQuickError: it looks around or back, for which there is no linear time, and this is to be quick.
        re.error: it is not a pattern.
    """
    linear = _linear(pattern)
    if linear is not None:
        return linear.isinstance_python(text)
    if is_quick() and len(text) > SHORT:
        raise NotQuickError
    return re.search(pattern, text) is not None


@lru_cache(maxsize=500)
def _linear(pattern: str) -> SchemaValidator | None:
    """The pattern as Rust has it; None: it has not."""
    if _OTHERWISE.search(pattern):
        return None
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, strict=True, regex_engine="rust-regex"))
    except RustError:
        return None


@lru_cache(maxsize=16)
def _counting(kind: Any) -> Any:
    json_schema.load()
    from jsonschema.validators import extend

    own: dict[str, Any] = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional(kind.VALIDATORS.get("additionalProperties")),
    }
    every = {**kind.VALIDATORS, **{name: own[name] for name in own if name in kind.VALIDATORS}}
    return extend(kind, {name: _counted(name, check) for name, check in every.items()})


def _counted(name: str, check: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    def keyword(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        account = meter()
        account.turn()
        if name == "uniqueItems" and isinstance(instance, list):
            items = len(cast("list[Any]", instance))
            account.turn(items * items // 500)
        elif name in ("enum", "const"):
            account.weigh(value)
            account.weigh(instance)
        elif name == "format" and isinstance(instance, str) and len(instance) > LONGEST_FORMAT and is_quick():
            raise NotQuickError
        elif name.startswith("unevaluated"):
            account.weigh(schema, factor=_SCHEMA_FACTOR)
            account.weigh(instance)
            if is_quick():
                raise NotQuickError  # it looks for names with patterns of its own
        for error in check(validator, value, instance, schema) or ():
            account.weigh(error.instance)  # its message shows it
            yield error

    return keyword


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    json_schema.load()
    from jsonschema import ValidationError

    if not validator.is_type(instance, "string"):
        return
    meter().spend(len(instance))
    if not matches(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    for pattern, below in patterns.items():
        for name, value in instance.items():
            meter().turn()
            if matches(pattern, name):
                yield from validator.descend(value, below, path=name, schema_path=pattern)


def _additional(original: Any) -> Callable[..., Iterator[Any]]:
    def additional(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[Any]:
        patterns = schema.get("patternProperties", {})
        if not patterns or not validator.is_type(instance, "object"):
            yield from original(validator, rule, instance, schema) or ()
            return
        # Without what the patterns cover; their own check is elsewhere.
        meter().turn(len(instance) * len(patterns))
        rest = {name: value for name, value in instance.items() if not any(matches(p, name) for p in patterns)}
        without = {name: value for name, value in schema.items() if name != "patternProperties"}
        yield from original(validator, rule, rest, without) or ()

    return additional
