"""Sessions: the names a person types. The functions of `dipeo_nb` use a default session."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings, get_settings
from dipeo_nb.container import Runtime
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.document import load as load_diagram
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import RunSummary
from dipeo_nb.errors import ConfigurationError, DipeoError, UserError
from dipeo_nb.execution.fold import RunState, interrupted
from dipeo_nb.execution.interaction import GivenAnswers
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.run import Answers, Run, RunResult, in_kernel

Source = Diagram | str | os.PathLike[str] | Mapping[str, Any]
"""A diagram, a path or name, the text of a diagram, or a mapping."""


class Session:
    """Loads and runs diagrams with one set of settings and services.

    Args:
        base_dir: root of relative names in diagrams; default: DIPEO_BASE_DIR, else the current directory.
        settings: replaces the settings altogether.
        services: replaces single services by name: `llm=`, `store=`, `files=` …
    """

    def __init__(
        self, base_dir: str | os.PathLike[str] | None = None, *, settings: Settings | None = None, **services: Any
    ) -> None:
        settings = settings or get_settings()
        if base_dir is not None:
            folder = Path(base_dir).resolve()
            if not folder.is_dir():
                raise ConfigurationError(f"There is no folder {folder}.", hint="Make it, or give another base_dir.")
            settings = settings.model_copy(update={"base_dir": folder})
        self.settings = settings
        self.runtime = Runtime(settings, **services)

    def load(self, source: Source, *, format: str | None = None) -> Diagram:
        """Read a diagram from a path, a name, a text or a mapping.

        Raises:
            DiagramNotFoundError, DiagramFormatError: it cannot be read.
        """
        return (
            source
            if isinstance(source, Diagram)
            else load_diagram(source, format=format, base_dir=self.settings.base_dir)
        )

    def start(
        self,
        diagram: Source,
        *,
        model: str | None = None,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        max_iterations: int | None = None,
        trust: bool = False,
        **variables: Any,
    ) -> Run:
        """Start a run and return at once; `run` as the last line of a cell shows it live.

        Args:
            model: moves every person: `local`, `echo`, `openai:NAME`; default: as the diagram says.
            answers: node label → answer (or list of answers) for user_response nodes.
            inputs: variables of the run, for names that are taken here; the others as keywords.
            timeout: seconds for the run; default: DIPEO_EXECUTION_TIMEOUT.
            max_iterations: visits of one node before its loop counts as endless.
            trust: allow the code of a diagram file outside the base directory.

        Raises:
            UserError: nothing was started: the diagram cannot be read or run, or its code is not trusted.
        """
        return self._start(
            diagram, model, answers, {**variables, **(inputs or {})}, timeout, max_iterations, trust, False
        )

    def run(self, diagram: Source, **options: Any) -> RunResult:
        """Run to the end in this cell, with the live view in a notebook; options as of `start`.

        Raises:
            RunError: the run failed or was aborted. UserError: nothing was run.
        """
        run = self._started(diagram, options, console=True)
        if in_kernel():
            run.show()
        return run.result()

    async def arun(self, diagram: Source, **options: Any) -> RunResult:
        """As `run`, awaited; without a view."""
        return await self._started(diagram, options, console=False)

    def runs(self, limit: int = 50, *, status: str | None = None, diagram: str | None = None) -> Runs:
        """The run history, newest first; runs whose process is gone are `interrupted`."""

        async def read() -> list[RunSummary]:
            await self.runtime.initialize()
            return await self.runtime.services.store.runs(limit=limit, status=status, diagram=diagram)

        return Runs(run_sync(read()))

    def open_run(self, run_id: str) -> Run:
        """A recorded run, by its id or an unmistakable beginning of it.

        Raises:
            UserError: no run, or several, of that id.
        """

        async def read() -> tuple[RunState, str]:
            await self.runtime.initialize()
            store = self.runtime.services.store
            summary = await store.run(run_id)
            if summary is None:
                found = [
                    r
                    for r in await store.runs(limit=10_000)
                    if r.run_id.startswith(run_id) or r.run_id.startswith(f"exec_{run_id}")
                ]
                if len(found) != 1:
                    many = f"{len(found)} runs begin with '{run_id}'" if found else f"There is no run '{run_id}'"
                    raise UserError(f"{many}.", hint="See dp.runs() (dipeo-nb runs).")
                summary = found[0]
            return RunState.fold(await store.events(summary.run_id)), summary.status

        state, status = run_sync(read())
        if status == Status.INTERRUPTED:
            interrupted(state)
        return Run(self.runtime, state, diagram=static_view.diagram_of(state))

    def close(self) -> None:
        """Close the session's services. A closed session opens them again when it is used."""
        run_sync(self.runtime.cleanup())

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _started(self, diagram: Source, options: dict[str, Any], *, console: bool) -> Run:
        known = ("model", "answers", "inputs", "timeout", "max_iterations", "trust")
        given = {k: options.pop(k, None) for k in known}
        variables = {**options, **(given["inputs"] or {})}
        return self._start(
            diagram,
            given["model"],
            given["answers"],
            variables,
            given["timeout"],
            given["max_iterations"],
            bool(given["trust"]),
            console,
        )

    def _start(
        self,
        diagram: Source,
        model: str | None,
        answers: Mapping[str, str | Sequence[str]] | None,
        variables: Mapping[str, Any],
        timeout: float | None,
        max_iterations: int | None,
        trust: bool,
        console: bool,
    ) -> Run:
        document = self.load(diagram)
        plan = self.runtime.prepare(document, trust=trust)
        labels = {n.label for n in plan.nodes} | {n.id for n in plan.nodes}
        if strange := set(answers or ()) - labels:
            raise UserError(
                f"answers= names {', '.join(map(repr, sorted(strange)))}, which is no node.",
                hint=f"Nodes that ask: {', '.join(n.label for n in plan.nodes if n.type == 'user_response') or 'none'}.",
            )
        waiting = Answers(console=console)
        execution = self.runtime.execution(
            plan,
            variables=variables,
            model=model,
            timeout=timeout,
            max_iterations=max_iterations,
            interaction=GivenAnswers(answers, waiting),
            source=json.loads(document.to_text("native")),
        )
        return Run(self.runtime, execution.state, execution=execution, answers=waiting, diagram=document.model)


class Runs(list[RunSummary]):
    """Rows of the run history; shown as a table."""

    def _repr_html_(self) -> str:
        return static_view.table(("run", "diagram", "status", "started", "seconds", "events"), map(_row, self))

    def __repr__(self) -> str:
        if not self:
            return "no runs"
        return "\n".join(f"{row[0]}  {row[2]:<12} {row[3]}  {row[1]}" for row in map(_row, self))


def _row(summary: RunSummary) -> Iterable[Any]:
    from datetime import datetime

    started = datetime.fromtimestamp(summary.started_at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    seconds = "" if summary.ended_at is None else f"{summary.ended_at - summary.started_at:.1f}"
    return summary.run_id, summary.diagram, summary.status, started, seconds, summary.events


_default: Session | None = None


def default_session() -> Session:
    """The session behind the functions of `dipeo_nb`; a new one when the settings have changed."""
    global _default
    settings = get_settings()
    if _default is None or _default.settings != settings:
        _default = Session(settings=settings)
    return _default


def load(source: Source, *, format: str | None = None) -> Diagram:
    """See `Session.load`."""
    return default_session().load(source, format=format)


def start(diagram: Source, **options: Any) -> Run:
    """See `Session.start`."""
    return default_session().start(diagram, **options)


def run(diagram: Source, **options: Any) -> RunResult:
    """See `Session.run`."""
    return default_session().run(diagram, **options)


async def arun(diagram: Source, **options: Any) -> RunResult:
    """See `Session.arun`."""
    return await default_session().arun(diagram, **options)


def runs(limit: int = 50, *, status: str | None = None, diagram: str | None = None) -> Runs:
    """See `Session.runs`."""
    return default_session().runs(limit, status=status, diagram=diagram)


def open_run(run_id: str) -> Run:
    """See `Session.open_run`."""
    return default_session().open_run(run_id)


def nest() -> str:
    """Let nested event loops work in this kernel, for objects of your own that are bound to the notebook's loop.

    dipeo_nb itself never needs it. It patches asyncio for the whole process, so it is yours to choose. nest-asyncio2 is used
    when it is installed (ipykernel ≥ 7.3 brings it): nest-asyncio 1.6 loses queued cells and clicks under ipykernel 7.

    Returns:
        What was patched.
    """
    for name in ("nest_asyncio2", "nest_asyncio"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        module.apply()
        loss = (
            " Under ipykernel 7 it can lose queued cells; pip install nest-asyncio2 mends that."
            if name == "nest_asyncio"
            else ""
        )
        return f"{name} has patched asyncio (run, run_until_complete, Task, Future) for this whole process.{loss}"
    raise DipeoError("Neither nest-asyncio2 nor nest-asyncio is installed.", hint="Run: pip install nest-asyncio2")
