"""Diagrams of LLM agents in notebooks: load, look, run live, change a prompt, run again, compare.

    import dipeo_nb as dp

    d = dp.load("debate.light.yaml")
    run = dp.start(d, model="local", topic="tabs or spaces")
    run                      # the live view
    result = await run       # or run.result() outside a notebook

    dp.chat("Tabs or spaces?", model="local")      # one call, streamed into the cell

Everything is loaded on first use: importing this package loads no SDK, no widget and no event loop.
"""

import dipeo_nb.common as _common  # noqa: F401 - first: from here on, imports of this package do not look into the current directory

import importlib  # isort: skip
import logging
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.moved import MovedModules

if TYPE_CHECKING:
    from dipeo_nb import codegen, testing
    from dipeo_nb.config import Settings, get_settings, override_settings
    from dipeo_nb.diagram.document import Diagram
    from dipeo_nb.domain.budget import Budget
    from dipeo_nb.errors import DiagramError, DipeoError, RunAbortedError, RunError, ServiceError, TrustError, UserError
    from dipeo_nb.execution.function_nodes import node
    from dipeo_nb.llm.recording import Recordings, recording
    from dipeo_nb.notebook.answer import Answer
    from dipeo_nb.notebook.chat import LLM, tool
    from dipeo_nb.notebook.facade import (
        achat,
        arun,
        call,
        chat,
        diff,
        dry_run,
        fork,
        llm,
        models,
        nest,
        note,
        open_run,
        provider,
        providers,
        replay,
        rerun_node,
        resume,
        run,
        runs,
        start,
        trust,
    )
    from dipeo_nb.notebook.loading import load
    from dipeo_nb.notebook.run import Run, RunResult
    from dipeo_nb.notebook.session import Session
    from dipeo_nb.notebook.stretch import Stretch

__version__ = "0.1.0"

# Modules that have another name since 0.1.0; for one release they lead on.
MovedModules(
    __name__,
    {
        "codegen.word_diff": "dipeo_nb.common.word_diff",
        "execution.fold": "dipeo_nb.execution.run_state",
        "execution.run_log": "dipeo_nb.execution.log_capture",
        "execution.memory": "dipeo_nb.execution.conversation",
        "execution.compare": "dipeo_nb.execution.run_diff",
        "execution.failures": "dipeo_nb.execution.run_errors",
        "execution.signals": "dipeo_nb.execution.external_events",
        "execution.commands": "dipeo_nb.execution.child_process",
        "execution.functions": "dipeo_nb.execution.function_nodes",
        "llm.pool": "dipeo_nb.llm.client_pool",
        "llm.stream": "dipeo_nb.llm.streaming",
        "llm.recorded": "dipeo_nb.llm.cassette",
        "common.scrub": "dipeo_nb.common.redaction",
        "common.operations": "dipeo_nb.common.operation_log",
        "events.memory": "dipeo_nb.events.in_memory",
        "execution.state.memory": "dipeo_nb.execution.state.in_memory",
        "security.memory": "dipeo_nb.security.in_memory",
        "storage.memory": "dipeo_nb.storage.in_memory",
        "diagram.given_names": "dipeo_nb.diagram.name_analysis",
    },
).install()

# A library says nothing until the application sets logging up; errors are raised as well.
logging.getLogger("dipeo_nb").addHandler(logging.NullHandler())

_HOMES = {
    "Answer": "dipeo_nb.notebook.answer",
    "Budget": "dipeo_nb.domain.budget",
    "Diagram": "dipeo_nb.diagram.document",
    "DiagramError": "dipeo_nb.errors",
    "DipeoError": "dipeo_nb.errors",
    "Recordings": "dipeo_nb.llm.recording",
    "Run": "dipeo_nb.notebook.run",
    "RunAbortedError": "dipeo_nb.errors",
    "RunError": "dipeo_nb.errors",
    "RunResult": "dipeo_nb.notebook.run",
    "ServiceError": "dipeo_nb.errors",
    "Session": "dipeo_nb.notebook.session",
    "Settings": "dipeo_nb.config",
    "Stretch": "dipeo_nb.notebook.stretch",
    "TrustError": "dipeo_nb.errors",
    "UserError": "dipeo_nb.errors",
    "achat": "dipeo_nb.notebook.facade",
    "arun": "dipeo_nb.notebook.facade",
    "call": "dipeo_nb.notebook.facade",
    "chat": "dipeo_nb.notebook.facade",
    "diff": "dipeo_nb.notebook.facade",
    "dry_run": "dipeo_nb.notebook.facade",
    "note": "dipeo_nb.notebook.facade",
    "rerun_node": "dipeo_nb.notebook.facade",
    "fork": "dipeo_nb.notebook.facade",
    "get_settings": "dipeo_nb.config",
    "load": "dipeo_nb.notebook.loading",
    "models": "dipeo_nb.notebook.facade",
    "nest": "dipeo_nb.notebook.facade",
    "node": "dipeo_nb.execution.function_nodes",
    "open_run": "dipeo_nb.notebook.facade",
    "override_settings": "dipeo_nb.config",
    "provider": "dipeo_nb.notebook.facade",
    "providers": "dipeo_nb.notebook.facade",
    "recording": "dipeo_nb.llm.recording",
    "replay": "dipeo_nb.notebook.facade",
    "resume": "dipeo_nb.notebook.facade",
    "run": "dipeo_nb.notebook.facade",
    "runs": "dipeo_nb.notebook.facade",
    "start": "dipeo_nb.notebook.facade",
    "tool": "dipeo_nb.notebook.chat",
    "trust": "dipeo_nb.notebook.facade",
}
"""Public name → the module that has it."""

__all__ = [
    "Answer",
    "Budget",
    "Diagram",
    "DiagramError",
    "DipeoError",
    "Recordings",
    "Run",
    "RunAbortedError",
    "RunError",
    "RunResult",
    "ServiceError",
    "Session",
    "Settings",
    "Stretch",
    "TrustError",
    "UserError",
    "__version__",
    "achat",
    "arun",
    "call",
    "chat",
    "codegen",
    "diff",
    "dry_run",
    "fork",
    "get_settings",
    "llm",
    "load",
    "models",
    "nest",
    "node",
    "note",
    "open_run",
    "override_settings",
    "provider",
    "providers",
    "recording",
    "replay",
    "rerun_node",
    "resume",
    "run",
    "runs",
    "start",
    "testing",
    "tool",
    "trust",
]


class _Module(ModuleType):
    def __reduce__(self) -> tuple[Any, ...]:
        # As the very module: what a notebook's function names goes to other processes by import (joblib, Dask, Ray, Spark).
        return importlib.import_module, (self.__name__,)


class _CallableModule(_Module):
    """`dipeo_nb.llm` is the package of the providers and, as `dp.llm("openai:gpt-6-luna")`, what makes a model ready."""

    def __call__(self, model: str | None = None, **defaults: Any) -> "LLM":
        """A model, ready to be asked: `.chat()`, `.achat()`, `.stream()`, `.batch()`, `.conversation()`.

        Args:
            model: `openai:gpt-6-luna`, `anthropic`, `local` …; None: the settings' default (DIPEO_DEFAULT_LLM_MODEL).
            defaults: options of its calls: system, tools, response_format, budget, fallbacks, temperature, max_tokens …

        Raises:
            UnsupportedError: there is no such service; the message lists the choices.
        """
        from dipeo_nb.notebook.facade import llm as ready

        return ready(model, **defaults)


class _Package(_Module):
    def __setattr__(self, name: str, value: Any) -> None:
        if name == "llm" and type(value) is ModuleType:  # Python has just imported the package of that name
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in ("codegen", "llm", "testing"):
        return importlib.import_module(f"dipeo_nb.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'dipeo_nb' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext dipeo_nb`: the magics `%%prompt` and `%dipeo`."""
    from dipeo_nb.notebook import magics

    magics.load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext dipeo_nb`."""
    from dipeo_nb.notebook import magics

    magics.unload(shell)


def __dir__() -> list[str]:
    return [*__all__]


if "IPython" in sys.modules:
    from dipeo_nb.notebook.tab import register_here

    register_here()
