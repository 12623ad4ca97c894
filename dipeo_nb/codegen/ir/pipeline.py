"""Builds an IR in steps, each a pure function of what it names, so that only what depends on a change is built again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from dipeo_nb.codegen.ir.cache import IRCache
from dipeo_nb.codegen.ir.model import VERSION, plain
from dipeo_nb.common import cancellable, steps
from dipeo_nb.errors import ConfigurationError, DipeoError, ValidationError

Sources = Mapping[str, Mapping[str, Any]]
"""Name of a source → its collections (`interfaces`, `types`, …), as the parser gives them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Args:
        kind: extract, transform, assemble or validate; steps of a kind run before those of the next.
        run: of an extraction: (name of a source, its collections, options) → items of that source, a list; the step's result has
            those of all sources, in the order of their names. Of the others: (results of `needs`, options) → its result.
        needs: the steps whose results it takes.
        version: changes when it makes something else of the same.
        required: False: when it fails, its result is None, and the build has a note of it.
        options: names of the options that it reads.
    """

    name: str
    kind: str
    run: Callable[..., Any]
    needs: tuple[str, ...] = ()
    version: int = 1
    required: bool = True
    options: tuple[str, ...] = ()


KINDS = ("extract", "transform", "assemble", "validate")


@dataclass(slots=True)
class Build:
    """What a pipeline has done."""

    results: dict[str, Any] = field(default_factory=dict[str, Any])
    built: list[str] = field(default_factory=list[str])
    """What was not in the cache: steps, and `step:source` of extractions."""
    reused: int = 0
    notes: list[str] = field(default_factory=list[str])
    """Steps that are not required and have failed, with the reason."""


class Pipeline:
    """Steps in the order of what they need.

    Raises:
        ConfigurationError: two steps have one name, a step needs one that is not there, or steps need each other in a circle.
    """

    def __init__(self, given: Sequence[Step]) -> None:
        self.steps = {step.name: step for step in given}
        if len(self.steps) != len(given):
            raise ConfigurationError("Two steps of a pipeline have one name.", hint="Name each step differently.")
        for step in given:
            if step.kind not in KINDS:
                raise ConfigurationError(
                    f"The step '{step.name}' has the kind '{step.kind}'.", hint=f"Kinds: {', '.join(KINDS)}."
                )
            if missing := [name for name in step.needs if name not in self.steps]:
                raise ConfigurationError(
                    f"The step '{step.name}' needs '{missing[0]}', which is not there.", hint="Add that step."
                )
        graph = TopologicalSorter({step.name: step.needs for step in given})
        try:
            order = list(graph.static_order())
        except CycleError as error:
            raise ConfigurationError(
                f"Steps need each other: {' → '.join(error.args[1])}.", hint="Take one need away."
            ) from error
        self.order = sorted(order, key=lambda name: KINDS.index(self.steps[name].kind))

    def build(
        self,
        sources: Sources,
        options: Mapping[str, Any],
        cache: IRCache | None = None,
    ) -> Build:
        """Run all steps. Its progress: `common.steps`.

        Args:
            cache: what steps have built before; None: everything is built.

        Raises:
            DipeoError: as a required step raises it.
        """
        done = Build()
        names = sorted(sources)
        digests = {name: _digest(name, sources[name]) for name in names}
        made_of: dict[str, str] = {}
        """Step → digest of its result, once something needs it."""
        for number, name in enumerate(self.order, 1):
            cancellable.check()
            steps.begun(name, number, len(self.order))
            step = self.steps[name]
            given = {each: options[each] for each in step.options if each in options}
            head = (
                f"{VERSION}:{name}:{step.version}:{getattr(step.run, '__module__', '')}.{getattr(step.run, '__qualname__', '')}"
            )
            try:
                if step.kind == "extract":
                    done.results[name] = []
                    for source in names:
                        cancellable.check()
                        key = _digest(head, digests[source], given)
                        done.results[name] += self._one(
                            done, cache, key, f"{name}:{source}", (step.run, source, sources[source], given)
                        )
                else:
                    for each in step.needs:
                        if each not in made_of:
                            made_of[each] = _digest(plain(done.results[each]))
                    key = _digest(head, [made_of[each] for each in step.needs], given)
                    needed = {each: done.results[each] for each in step.needs}
                    done.results[name] = self._one(done, cache, key, name, (step.run, needed, given))
            except DipeoError as error:
                if step.required:
                    raise
                done.notes.append(f"{name}: {error.message}")
                done.results[name] = None
        return done

    @staticmethod
    def _one(done: Build, cache: IRCache | None, key: str, name: str, call: tuple[Any, ...]) -> Any:
        if cache is not None and (known := cache.get(key)) is not None:
            done.reused += 1
            return known[0]
        try:
            made = call[0](*call[1:])
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise ValidationError(
                f"The step '{name}' cannot use its input: {type(error).__name__}: {error}.",
                hint="Give it what the parser of TypeScript gives: name → {interfaces, types, enums, constants …}.",
            ) from error
        done.built.append(name)
        if cache is not None:
            cache.set(key, (made,))
        return made


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str).encode()).hexdigest()


def digest(sources: Sources, options: Mapping[str, Any], builder: str) -> str:
    """The key of a build: sources, version and options."""
    return _digest(VERSION, builder, {name: sources[name] for name in sorted(sources)}, dict(options))
