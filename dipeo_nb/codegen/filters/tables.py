"""The names of a family of models that filters need: data, of which DiPeO's own is one example."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from typing import Any, cast

from dipeo_nb.errors import ValidationError


@dataclass(frozen=True, slots=True)
class Tables:
    """Names of entities; see `dipeo.toml` beside this module for what each means."""

    integer_fields: frozenset[str] = frozenset()
    branded_types: frozenset[str] = frozenset()
    json_fields: frozenset[str] = frozenset()
    nullable_operations: frozenset[str] = frozenset()
    handler_imports: tuple[str, ...] = ()
    type_names: Mapping[str, str] = field(default_factory=dict[str, str])
    field_types: Mapping[str, str] = field(default_factory=dict[str, str])
    typescript_field_types: Mapping[str, str] = field(default_factory=dict[str, str])
    node_field_types: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    query_types: Mapping[str, str] = field(default_factory=dict[str, str])
    operation_types: Mapping[str, str] = field(default_factory=dict[str, str])
    result_types: Mapping[str, str] = field(default_factory=dict[str, str])
    needed_fields: Mapping[str, list[str]] = field(default_factory=dict[str, list[str]])
    execution_logic: Mapping[str, list[str]] = field(default_factory=dict[str, list[str]])

    @classmethod
    def of(cls, given: Tables | Mapping[str, Any] | None) -> Tables:
        """Tables of a mapping, as a template or a file has them; None: those of DiPeO.

        Raises:
            ValidationError: there is no table of a name.
        """
        if given is None:
            return dipeo()
        if isinstance(given, Tables):
            return given
        known = {each.name: each for each in fields(cls)}
        if unknown := sorted(given.keys() - known.keys()):
            raise ValidationError(f"There is no table '{unknown[0]}'.", hint=f"Tables: {', '.join(known)}.")
        made = dict(given)
        for name in ("integer_fields", "branded_types", "json_fields", "nullable_operations"):
            if name in made:
                made[name] = frozenset(cast(list[str], made[name]))
        if "handler_imports" in made:
            made["handler_imports"] = tuple(cast(list[str], made["handler_imports"]))
        return cls(**made)


@cache
def dipeo() -> Tables:
    """The names of DiPeO's models."""
    text = resources.files("dipeo_nb.codegen.filters").joinpath("dipeo.toml").read_text(encoding="utf-8")
    return Tables.of(tomllib.loads(text))
