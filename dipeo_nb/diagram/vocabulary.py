"""Property names of node types: what each type takes, other spellings, and names that a reader keeps or drops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from typing import Any

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram.reading import ReadContext
from dipeo_nb.diagram.spans import DocumentPath
from dipeo_nb.domain.diagram import DomainNode
from dipeo_nb.domain.nodes import NODE_SPECS, NodeSpec

MEMORY_PROFILES = {
    "FULL": "ALL_MESSAGES",
    "FOCUSED": "CONVERSATION_PAIRS",
    "MINIMAL": "SYSTEM_AND_ME",
    "GOLDFISH": "GOLDFISH",
    "ONLY_ME": "SENT_TO_ME",
    "ONLY_I_SENT": "SENT_BY_ME",
}
"""Legacy `memory_profile` → `memorize_to`."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Property names of one node type."""

    known: frozenset[str]
    aliases: Mapping[str, str]
    """Other spelling → canonical."""
    dropped: frozenset[str]
    empty: frozenset[str]
    """Properties that mean nothing when empty: their default is empty too. Writers leave them out then."""

    @property
    def words(self) -> tuple[str, ...]:
        """Every accepted spelling."""
        return (*self.known, *self.aliases)


def field_names(cls: type[NodeSpec]) -> tuple[str, ...]:
    """The canonical property names of a node type."""
    return tuple(field.name for field in fields(cls))


@cache
def vocabulary(cls: type[NodeSpec]) -> Vocabulary:
    """The property names of a node type, from its spec."""
    aliases = dict(cls.META.aliases)
    for field in fields(cls):
        spellings = field.metadata.get("aliases", ())
        if isinstance(spellings, tuple):  # a mapping holds aliases of values instead
            aliases |= dict.fromkeys(spellings, field.name)
    empty = {
        field.name
        for field in fields(cls)
        # `default` is a value that is used as it is, so an empty one has a meaning.
        if field.name != "default" and _default(field) in (None, "", {}, [])
    }
    return Vocabulary(frozenset(field_names(cls)), aliases, frozenset(cls.META.dropped), frozenset(empty))


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def spellings() -> dict[str, tuple[str, ...]]:
    """Canonical property → its other spellings, over all node types (for finding places)."""
    found: dict[str, tuple[str, ...]] = {}
    for cls in NODE_SPECS.values():
        for alias, name in vocabulary(cls).aliases.items():
            if alias not in found.get(name, ()):
                found[name] = (*found.get(name, ()), alias)
    return found


def properties(raw: Mapping[str, Any], node_type: str, reading: ReadContext, at: DocumentPath, label: str) -> dict[str, Any]:
    """A node's properties under canonical names: dotted keys expanded, aliases applied, legacy ones dropped.

    An alias counts only when the canonical name is absent. Unknown names are kept and reported.
    """
    cls = NODE_SPECS.get(node_type)
    words = vocabulary(cls) if cls else None
    if words and raw.keys() <= words.known:
        return dict(raw)
    result = {key: value for key, value in raw.items() if "." not in key}
    if len(result) < len(raw):
        for key, value in raw.items():
            if "." in key:
                _expand(result, key, value, reading, at, label)
    if not words:
        return result
    for alias, name in words.aliases.items():
        if alias in result:
            value = result.pop(alias)
            if name not in result:
                if alias == "memory_profile" and isinstance(value, str):
                    value = MEMORY_PROFILES.get(value.strip().upper(), value)
                result[name] = value
    for name in words.dropped:
        if result.pop(name, None) and name.startswith("memory_"):
            reading.warn(
                "ignored-value",
                f"'{name}' has no effect.",
                *at,
                *_key_path(reading, at, name),
                hint="Set what the person remembers with memorize_to and at_most.",
                node=shorten(label),
                field=name,
            )
    for name in result:
        if name not in words.known:
            reading.warn(
                "unknown-property",
                f"'{shorten(name)}' is not a property of {node_type}; it is kept and has no effect.",
                *at,
                *_key_path(reading, at, name),
                hint=did_you_mean(name, words.words, f"A {node_type} takes {', '.join(sorted(words.known))}."),
                node=shorten(label),
                field=name,
            )
    return result


def _key_path(reading: ReadContext, at: DocumentPath, name: str) -> DocumentPath:
    path = reading.source.field_path(at, name)
    return path[len(at) :] if path else ()


def _expand(result: dict[str, Any], key: str, value: Any, reading: ReadContext, at: DocumentPath, label: str) -> None:
    """`custom_data.a.b: 1` ⇒ `custom_data: {a: {b: 1}}`, merged into what is there."""
    *outer, last = key.split(".")
    here = result
    for part in outer:
        inner = here.get(part)
        if inner is None:
            inner = here[part] = {}
        elif not isinstance(inner, dict):
            reading.warn(
                "dotted-key",
                f"'{shorten(key)}' cannot be set inside '{shorten(part)}', which is not a mapping; it is ignored.",
                *at,
                key,
                hint=f"Write '{shorten(part)}' as a mapping.",
                node=shorten(label),
                field=key,
            )
            return
        here = inner
    here[last] = value


def written_properties(node: DomainNode, *, aliases: bool) -> dict[str, Any]:
    """A node's properties for the light (*aliases* reversed) and readable writers.

    `false` and `0` are kept. Null, empty text, empty mappings and empty lists are left out where they mean nothing.
    """
    cls = NODE_SPECS.get(node.type)
    names = cls.META.write_aliases if cls and aliases else {}
    empty = vocabulary(cls).empty if cls else frozenset[str]()
    return {
        names.get(key, key): value
        for key, value in node.data.items()
        if key not in empty or not (value is None or (isinstance(value, (str, dict, list, tuple)) and not value))
    }
