"""Differences between an approved diagram and its present version, in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from dipeo_nb.diagram.closure import Closure
from dipeo_nb.domain.capabilities import Capabilities
from dipeo_nb.domain.plan import Plan

MOST_PARTS = 2_000
"""Maximum parts of a diagram that are recorded one by one; for a larger one only its permissions are."""
MOST_NAMED = 4
"""Differences that are listed; further ones are counted."""
_DIGITS = 12
"""Hexadecimal digits of a part's digest, which describes changes and decides nothing."""
_LOOKS = frozenset({"flipped", "metadata"})


def parts_of(found: Closure) -> tuple[tuple[str, str], ...]:
    """Return (name, digest) of everything in a closure that can change separately, by name; empty for a very large one."""
    (_, root), *nested = found.plans.items()
    digests: dict[str, list[str]] = {}
    for name, value in _parts(root):
        digests.setdefault(name, []).append(_digest(value))
    for digest, plan in nested:
        digests.setdefault(f"sub-diagram '{plan.name}'", []).append(digest)
    for name, data in found.files.items():
        digests.setdefault(f"file '{name}'", []).append(hashlib.sha256(data).hexdigest())
    if len(digests) > MOST_PARTS:
        return ()
    return tuple(
        sorted((name, hashlib.sha256("".join(sorted(all_)).encode()).hexdigest()[:_DIGITS]) for name, all_ in digests.items())
    )


def powers_of(uses: Capabilities) -> tuple[str, ...]:
    """Return what a diagram may do, without details: `code`, `write report/*.md`. Models count with their service."""
    return tuple(
        sorted(
            {use.kind if use.kind in ("code", "process") else f"{use.kind} {use.what}" for use in uses if use.kind != "brings"}
        )
    )


def difference(parts: Sequence[tuple[str, str]], powers: Sequence[str], found: Closure) -> str:
    """Describe the differences: `code of 'Clean'; the same powers`.

    Args:
        parts, powers: of the approved closure (`parts_of`, `powers_of`).
    """
    before, after = dict(parts), dict(parts_of(found))
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    # New and removed nodes are reported once, not by each of their fields.
    named = list(dict.fromkeys(_said(name, before, after) for name in changed))
    if any(name.endswith(("(new)", "(gone)")) for name in named):
        named = [name for name in named if name != "arrows"]  # they change with their nodes
    if not before or not after:
        named = ["its contents"]
    elif len(named) > MOST_NAMED:
        named = [*named[:MOST_NAMED], f"{len(named) - MOST_NAMED} more"]
    elif not named:
        named = ["the order of its parts"]
    more = sorted(set(powers_of(found.uses)) - set(powers))
    fewer = set(powers) - set(powers_of(found.uses))
    if more:
        shown = ", ".join(more[:MOST_NAMED]) + (f" and {len(more) - MOST_NAMED} more" if len(more) > MOST_NAMED else "")
        said = f"new powers: {shown}"
    else:
        said = "fewer powers" if fewer else "the same powers"
    return f"{', '.join(named)}; {said}"


def _said(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> str:
    _, found, owner = name.partition(" of '")
    if found:
        there = {f"type of '{owner}" in one for one in (before, after)}
        if there == {True, False}:
            return f"'{owner} (new)" if f"type of '{owner}" in after else f"'{owner} (gone)"
    elif name.startswith(("file ", "sub-diagram ")) and (name in before) != (name in after):
        return f"{name} (new)" if name in after else f"{name} (gone)"
    return name


def _parts(plan: Plan) -> Iterator[tuple[str, Any]]:
    people = {person.id: person.label for person in plan.persons.values()}
    for node in plan.nodes:
        yield f"type of '{node.label}'", node.type
        for f in fields(node.spec):
            value = getattr(node.spec, f.name)
            if f.name not in _LOOKS and value not in (None, "", [], {}):
                yield f"{f.name.replace('_', ' ')} of '{node.label}'", people.get(value, value) if f.name == "person" else value
    for person in plan.persons.values():
        yield f"type of '{person.label}'", "person"
        for name in ("service", "model", "base_url", "api_key_id", "system_prompt", "temperature", "max_tokens"):
            if (value := getattr(person.llm, name)) is not None:
                yield f"{name.replace('_', ' ')} of '{person.label}'", value
    labels = [node.label for node in plan.nodes]
    yield "arrows", sorted(
        [labels[e.source], labels[e.target], e.source_handle, e.target_handle, e.label or "", e.content_type or "", e.priority]
        for e in plan.edges
    )  # fmt: skip


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode("utf-8", "surrogatepass")).hexdigest()
