"""Imports `jsonschema` without the grammar of international URLs.

Where `rfc3987_syntax` is installed (JupyterLab brings it), `jsonschema` imports it at once: it builds a grammar for a second, for
the formats `iri` and `iri-reference` alone. `load` leaves that to the first value of such a format.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

GRAMMAR = "rfc3987_syntax"
_lock = threading.RLock()


def load() -> None:
    """Import `jsonschema`; call it before each import of a name of it."""
    if "jsonschema" in sys.modules:
        return
    with _lock:
        if GRAMMAR in sys.modules or importlib.util.find_spec(GRAMMAR) is None:
            importlib.import_module("jsonschema")
            return
        sys.modules[GRAMMAR] = later = _Later(GRAMMAR)
        try:
            importlib.import_module("jsonschema")
        finally:
            later.leave()


class _Later(ModuleType):
    """Stands for the grammar: what is looked up in it is a function that imports it when it is called."""

    def leave(self) -> None:
        if sys.modules.get(GRAMMAR) is self:
            del sys.modules[GRAMMAR]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any) -> Any:
            with _lock:
                self.leave()
                return getattr(importlib.import_module(GRAMMAR), name)(*args)

        return call
