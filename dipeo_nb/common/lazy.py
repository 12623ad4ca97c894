"""Modules that are imported when they are first used, so that importing those that name them brings nothing along."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562).

    Args:
        package: its full name.
        homes: public name → module below the package that has it.
    """

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    return attribute


class _Module:
    """Stands for a module until something is looked up in it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)

    def __repr__(self) -> str:
        return f"<lazy module {self._name}>"


def module(name: str) -> Any:
    """The module of that full name, imported when an attribute of it is first read.

    Use it together with an import for type checkers:

        if TYPE_CHECKING:
            from dipeo_nb.diagram import drawing
        else:
            drawing = lazy.module("dipeo_nb.diagram.drawing")
    """
    return _Module(name)
