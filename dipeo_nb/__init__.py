"""Diagrams of LLM agents in notebooks: load, look, run live, change a prompt, run again, compare.

    import dipeo_nb as dp

    d = dp.load("debate.light.yaml")
    run = dp.start(d, model="local", topic="tabs or spaces")
    run                      # the live view
    result = await run       # or run.result() outside a notebook

Everything is loaded on first use: importing this package loads no SDK, no widget and no event loop.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dipeo_nb.config import Settings, get_settings, override_settings
    from dipeo_nb.diagram.document import Diagram
    from dipeo_nb.errors import DiagramError, DipeoError, RunAbortedError, RunError, ServiceError, UserError
    from dipeo_nb.notebook.run import Run, RunResult
    from dipeo_nb.notebook.session import Session, arun, load, nest, open_run, run, runs, start

__version__ = "0.1.0"

_HOMES = {
    "Diagram": "dipeo_nb.diagram.document",
    "DiagramError": "dipeo_nb.errors",
    "DipeoError": "dipeo_nb.errors",
    "Run": "dipeo_nb.notebook.run",
    "RunAbortedError": "dipeo_nb.errors",
    "RunError": "dipeo_nb.errors",
    "RunResult": "dipeo_nb.notebook.run",
    "ServiceError": "dipeo_nb.errors",
    "Session": "dipeo_nb.notebook.session",
    "Settings": "dipeo_nb.config",
    "UserError": "dipeo_nb.errors",
    "arun": "dipeo_nb.notebook.session",
    "get_settings": "dipeo_nb.config",
    "load": "dipeo_nb.notebook.session",
    "nest": "dipeo_nb.notebook.session",
    "open_run": "dipeo_nb.notebook.session",
    "override_settings": "dipeo_nb.config",
    "run": "dipeo_nb.notebook.session",
    "runs": "dipeo_nb.notebook.session",
    "start": "dipeo_nb.notebook.session",
}
"""Public name → the module that has it."""

__all__ = [
    "Diagram",
    "DiagramError",
    "DipeoError",
    "Run",
    "RunAbortedError",
    "RunError",
    "RunResult",
    "ServiceError",
    "Session",
    "Settings",
    "UserError",
    "__version__",
    "arun",
    "get_settings",
    "load",
    "nest",
    "open_run",
    "override_settings",
    "run",
    "runs",
    "start",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dipeo_nb' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
