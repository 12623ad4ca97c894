"""Parameters of commands that are taken as they are given: typer lets pydantic make each value, also of texts and of defaults, and importing it
takes longer than a short command."""

from __future__ import annotations

from typing import Any, get_args

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

_TYPES = (str, int, float)


class _AsGiven:
    """What makes the value of a parameter: nothing, where it has its type; else what typer has for it."""

    def __init__(self, otherwise: Any) -> None:
        self._otherwise = otherwise

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        descriptor = param.type_descriptor
        kind = next(iter(get_args(descriptor.annotation)), None) if several else descriptor.annotation
        values = value if several and isinstance(value, (list, tuple)) else (value,)
        if kind not in _TYPES or descriptor.parameter_info.parser is not None or any(type(each) is not kind for each in values):
            return self._otherwise().coerce(value, param, ctx)
        return list(values) if several else value


class Option(TyperOption):
    """An option that is taken as it is given."""

    def get_runtime_param(self) -> Any:
        return _AsGiven(super().get_runtime_param)


class Argument(TyperArgument):
    """An argument that is taken as it is given."""

    def get_runtime_param(self) -> Any:
        return _AsGiven(super().get_runtime_param)


class Command(TyperCommand):
    """A command whose parameters are taken as they are given."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_as_given(parameter) for parameter in super().get_params(ctx)]


class Group(TyperGroup):
    """A group of commands whose parameters are taken as they are given."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_as_given(parameter) for parameter in super().get_params(ctx)]


def _as_given(parameter: Any) -> Any:
    kind = {TyperOption: Option, TyperArgument: Argument}.get(type(parameter))
    if kind is not None:
        parameter.__class__ = kind
    return parameter
