"""Builders by name: ours, those of installed packages (entry points `dipeo_nb.ir_builders`), and those of this process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from dipeo_nb.codegen.ir import builders
from dipeo_nb.codegen.ir.pipeline import Pipeline
from dipeo_nb.common.text import nearest
from dipeo_nb.errors import ConfigurationError, ValidationError

GROUP = "dipeo_nb.ir_builders"
BUILT_IN: Mapping[str, Pipeline] = {
    "backend": builders.BACKEND,
    "frontend": builders.FRONTEND,
    "strawberry": builders.STRAWBERRY,
}


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


class IRBuilderRegistry:
    """Builders by name.

    A custom builder is a `Pipeline` whose last assembling step gives the IR, or a function that returns one. It comes from an
    installed package (its entry point names it) or from code of the user's own (`register_builder`), never from a folder.
    """

    def __init__(self) -> None:
        self._own: dict[str, Pipeline] = {}

    def register_builder(self, name: str, builder: Pipeline | Callable[[], Pipeline]) -> None:
        """Add a builder, or replace one that was added.

        Raises:
            ConfigurationError: the name is one of ours, or it is not a builder.
        """
        if name in BUILT_IN or name == "custom" or not name:
            raise ConfigurationError(f"The builder '{name}' is built in.", hint="Give yours a name of its own.")
        self._own[name] = _checked(name, builder)

    def get_builder(self, name: str) -> Pipeline:
        """The builder of that name; `custom`: the one custom builder that there is.

        Raises:
            ValidationError: there is none; the hint lists the names.
            ConfigurationError: a package's builder cannot be loaded, or is not one.
        """
        if name == "custom":
            others = [each for each in self.list_builders() if each not in BUILT_IN]
            if len(others) != 1:
                raise ValidationError(
                    f"There are {len(others)} custom builders{': ' + ', '.join(others) if others else ''}.",
                    hint="Name one in `builder_name`." if others else f"Install a package with an entry point in {GROUP}.",
                )
            name = others[0]
        if name in self._own:
            return self._own[name]
        if name in BUILT_IN:
            return BUILT_IN[name]
        point = _installed().get(name)
        if point is None:
            names = self.list_builders()
            close = nearest(name, names)
            raise ValidationError(
                f"There is no builder '{name}'.",
                hint=f"{f'Did you mean {close!r}? ' if close else ''}Builders: {', '.join(names)}.",
            )
        try:
            found: Any = point.load()
        except Exception as error:  # whatever the package's module raises
            raise ConfigurationError(
                f"The builder '{name}' of the package {point.dist.name if point.dist else point.value} cannot be loaded: {error}.",
                hint="Reinstall or remove that package.",
            ) from error
        return _checked(name, found)

    def list_builders(self) -> list[str]:
        """All names, sorted."""
        return sorted({*BUILT_IN, *_installed(), *self._own})


def _checked(name: str, builder: Any) -> Pipeline:
    made = builder if isinstance(builder, Pipeline) else cast(Callable[[], Any], builder)() if callable(builder) else None
    if not isinstance(made, Pipeline) or not any(step.kind == "assemble" for step in made.steps.values()):
        raise ConfigurationError(
            f"'{name}' is not a builder.",
            hint="It must be a dipeo_nb.codegen.ir.Pipeline with an assembling step, or return one.",
        )
    return made
