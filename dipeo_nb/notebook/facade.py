"""The functions of `dipeo_nb`: methods of a default session, which is created again when the settings have changed."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from dipeo_nb.common.calls import check_call
from dipeo_nb.config import get_settings
from dipeo_nb.errors import MissingDependencyError
from dipeo_nb.notebook.interrupts import short
from dipeo_nb.notebook.loading import load as load  # the same under this name
from dipeo_nb.notebook.session import Session

P = ParamSpec("P")
T = TypeVar("T")

_default: Session | None = None


def default_session() -> Session:
    """The session of the functions of `dipeo_nb`; a new one when the settings have changed."""
    global _default
    settings = get_settings()
    if _default is None or _default.settings != settings:
        _default = Session(settings=settings)
    return _default


def _of_default(method: Callable[Concatenate[Session, P], T]) -> Callable[P, T]:
    """A method of the default session as a function, with the same signature and documentation."""

    full = inspect.signature(method)
    signature = full.replace(parameters=[p for name, p in full.parameters.items() if name != "self"])

    @functools.wraps(method)
    def called(*args: P.args, **options: P.kwargs) -> T:
        check_call(method.__name__, signature, args, options)
        try:
            return method(default_session(), *args, **options)
        except KeyboardInterrupt as interrupt:
            if not hasattr(interrupt, "_render_traceback_"):
                short(interrupt, f"dp.{method.__name__}() was interrupted.")
            raise

    called.__signature__ = signature  # type: ignore[attr-defined]
    called.__qualname__, called.__module__ = method.__name__, __name__
    return called


start = _of_default(Session.start)
run = _of_default(Session.run)
trust = _of_default(Session.trust)
arun = _of_default(Session.arun)
dry_run = _of_default(Session.dry_run)
runs = _of_default(Session.runs)
models = _of_default(Session.models)
providers = _of_default(Session.providers)
provider = _of_default(Session.provider)
call = _of_default(Session.call)
open_run = _of_default(Session.open_run)
resume = _of_default(Session.resume)
fork = _of_default(Session.fork)
replay = _of_default(Session.replay)
diff = _of_default(Session.diff)
note = _of_default(Session.note)
rerun_node = _of_default(Session.rerun_node)
llm = _of_default(Session.llm)
chat = _of_default(Session.chat)
achat = _of_default(Session.achat)


def nest() -> str:
    """Let nested event loops work in this kernel, for your own objects that are bound to the notebook's loop.

    dipeo_nb itself never needs it. It patches asyncio for the whole process, so the choice is yours. nest-asyncio2 is used when it
    is installed (ipykernel ≥ 7.3 brings it): nest-asyncio 1.6 loses queued cells and clicks under ipykernel 7.

    Returns:
        What was patched.

    Raises:
        MissingDependencyError: neither is installed.
    """
    for name in ("nest_asyncio2", "nest_asyncio"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        module.apply()
        loss = (
            " Under ipykernel 7 it can lose queued cells; pip install nest-asyncio2 fixes that."
            if name == "nest_asyncio"
            else ""
        )
        return f"{name} has patched asyncio (run, run_until_complete, Task, Future) for this whole process.{loss}"
    raise MissingDependencyError(
        "Neither nest-asyncio2 nor nest-asyncio is installed.",
        hint="Run: pip install nest-asyncio2",
        package="nest-asyncio2",
    )
