"""Sessions: the names a person types. The functions of `dipeo_nb` use a default session."""

from __future__ import annotations

import inspect
import json
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dipeo_nb.common.calls import checked_call, did_you_mean_option, nearest_option
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.moved import moved_names
from dipeo_nb.common.paths import from_home
from dipeo_nb.common.scrub import HIDDEN
from dipeo_nb.config import Settings, get_settings
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.document import load as load_diagram
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.events import RunSummary
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import ConfigurationError, ValidationError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.fold import RunState
from dipeo_nb.execution.interaction import ScriptedPrompter
from dipeo_nb.execution.nested import check_answers
from dipeo_nb.execution.options import (
    checked_budget,
    checked_count,
    checked_flag,
    checked_mapping,
    checked_timeout,
    checked_trust,
)
from dipeo_nb.notebook import begun_runs, kernel
from dipeo_nb.notebook.awaited_run import STOP_GRACE_S
from dipeo_nb.notebook.calls import check_variables
from dipeo_nb.notebook.forking import plan_fork
from dipeo_nb.notebook.model_calls import ModelCalls
from dipeo_nb.notebook.prompter import NotebookPrompter
from dipeo_nb.notebook.recorded_runs import RecordedRuns
from dipeo_nb.notebook.refusal import naming_the_call
from dipeo_nb.notebook.run import Run, RunResult
from dipeo_nb.runtime import Runtime

P = ParamSpec("P")
T = TypeVar("T")


_SERVICES = tuple(Services.__dataclass_fields__)
_SESSION_OPTIONS = ("base_dir", "settings", "services", "trust_base")


class Session(RecordedRuns, ModelCalls):
    """Loads and runs diagrams with one set of settings and services.

    Args:
        base_dir: root of relative names in diagrams; default: DIPEO_BASE_DIR, else the current directory.
        settings: replaces the settings altogether.
        services: replaces all services; default: what the settings say.
        trust_base: the diagrams below the base directory are the user's own, as after `dp.trust(base_dir)`, for this session.
        replaced: replaces single services by name: `llm=`, `store=`, `files=` …

    Raises:
        ConfigurationError: there is no such folder, or no such option or service.
    """

    def __init__(
        self,
        base_dir: str | os.PathLike[str] | None = None,
        *,
        settings: Settings | None = None,
        services: Services | None = None,
        trust_base: bool = False,
        **replaced: Any,
    ) -> None:
        if unknown := [name for name in replaced if name not in _SERVICES]:
            known = f"It takes {', '.join(_SESSION_OPTIONS)}, and services by name: {', '.join(_SERVICES)}."
            raise ConfigurationError(
                f"Session() has no option '{unknown[0]:.80}'.", hint=did_you_mean_option(unknown[0], (*_SESSION_OPTIONS, *_SERVICES), known)
            )
        if settings is not None and not isinstance(settings, Settings):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"settings= takes Settings, not {type(settings).__name__}.", hint="Say e.g. dp.Settings(base_dir='…').")
        settings = settings or get_settings()
        if base_dir is not None:
            if not isinstance(base_dir, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"base_dir={base_dir!r:.80} is no folder.", hint="Give its path.")
            folder = from_home(base_dir).resolve()
            if not folder.is_dir():
                raise ConfigurationError(f"There is no folder {folder}.", hint="Make it, or give another base_dir.")
            settings = settings.model_copy(update={"base_dir": folder})
        if trust_base:
            settings = settings.model_copy(update={"trusted_folders": (*settings.trusted_folders, settings.base_dir)})
        self.settings = settings
        self.runtime = (
            Runtime(settings, **replaced)
            if services is None
            else Runtime(settings, services=replace(services, **replaced))
        )
        self._going: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()

    @checked_call
    def load(self, source: Diagram | str | os.PathLike[str] | Mapping[str, Any], *, format: str | None = None) -> Diagram:
        """Read a diagram from a path, a name, a text or a mapping.

            d = dp.load("debate.light.yaml")        # a file, or the name of one: dp.load("debate")
            d = dp.load("demo:debate")              # one that comes with the package
            d = dp.load({"version": "light", "nodes": [...], "connections": [...]})

        Args:
            source: a path, also relative to the base directory; a name, which is looked up there and in `examples/`,
                `projects/` and `files/`; `demo:NAME`; text of several lines; or a mapping.
            format: `light`, `native`, `readable` or `executable`; default: by file name, else by content.

        Raises: DiagramNotFoundError, DiagramFormatError when it cannot be read; ValidationError when it is none of these.

        `%dipeo nodes` and `dipeo-nb nodes` describe the node types, `dipeo-nb nodes TYPE` the fields of one; docs/nodes.md has all.
        """
        if isinstance(source, Diagram):
            return source
        return load_diagram(source, format=format, base_dir=self.settings.base_dir)

    @naming_the_call
    def start(
        self,
        diagram: Diagram | str | os.PathLike[str] | Mapping[str, Any],
        *,
        model: str | None = None,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        max_iterations: int | None = None,
        budget: Budget | None = None,
        trust: bool | str | None = None,
        allow: Mapping[str, Any] | None = None,
        view: bool = True,
        **variables: Any,
    ) -> Run:
        """Start a run and return at once; `run` as the last line of a cell shows it live.

        Args:
            model: moves every person: `local`, `echo`, `openai:NAME`; default: as the diagram says.
            answers: node label → answer (or list of answers) for user_response nodes, also of sub-diagrams; `Sub/Question`
                means the one in that sub-diagram, `Sub[2]/Question` that of one item of a batch.
            inputs: variables of the run, of any name; those whose names are no options also as keywords (`topic="…"`). A keyword
                that nothing in the diagram names is warned about, and refused when it is nearly the name of an option.
            timeout: seconds for the run; default: DIPEO_EXECUTION_TIMEOUT.
            max_iterations: visits of one node before its loop counts as endless.
            budget: what models may cost: `dp.Budget(usd=0.1)`, tokens, calls or seconds; the run fails before the call that
                would go beyond it.
            trust: True says yes to whatever a diagram from elsewhere wants, and is remembered; a text says yes to what has that
                code, as the error shows it; False gives any diagram no more than models and a folder of its own.
            allow: what it may do besides talking to models: `{"read": "data/*.csv", "net": "api.x.org", "code": True}`.
            view: False shows the run as a picture only, never live.

        Raises:
            UserError: nothing was started: the diagram cannot be read or run, it wants what nobody has said yes to, there is no
                such model, or an option cannot be meant.
        """
        checked_flag(view, "view")
        checked_trust(trust, allow)
        inputs = checked_mapping(inputs, "inputs", "{'topic': '…'}")
        document = self.load(diagram)
        prepared = self.runtime.prepare(document, trust=trust, allow=allow, model=model)
        check_answers(answers, prepared.plan, self.settings.base_dir)
        check_variables(variables, prepared.plan, self.settings.base_dir, _START_OPTIONS)
        begun_runs.check_cell()
        waiting = NotebookPrompter()
        execution = self.runtime.execution(
            prepared,
            variables={**variables, **inputs},
            model=model,
            timeout=timeout,
            max_iterations=max_iterations,
            budget=budget,
            interaction=ScriptedPrompter(answers, waiting),
            source=json.loads(document.to_text("native")),
        )
        return self._begun(execution, waiting, document, view)

    def _begun(self, execution: Execution, waiting: NotebookPrompter, document: Diagram, view: bool) -> Run:
        run = self._run(self.runtime, execution.state, execution=execution, answers=waiting, diagram=document.model, view=view)
        self._going[run.id] = run
        return run

    def _run(self, runtime: Runtime, state: RunState, **options: Any) -> Run:
        return Run(runtime, state, session=self, **options)

    @naming_the_call
    def resume(
        self,
        run_id: Run | RunResult | RunSummary | str,
        *,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        budget: Budget | None = None,
        trust: bool | str | None = None,
        allow: Mapping[str, Any] | None = None,
        diagram: Diagram | str | os.PathLike[str] | Mapping[str, Any] | None = None,
        view: bool = True,
        **variables: Any,
    ) -> Run:
        """Go on with a run that was cut off (its process is gone), failed or was stopped; returns at once, as `start`.

        What is recorded as finished never runs again. What was at work runs anew: it may do for the second time what it had
        done in part, so nodes give services an idempotency key. What such nodes had paid for stays spent.

        Args:
            run_id: an id, an unmistakable beginning of it, or a run of this session.
            answers: as of `start`.
            inputs: with the keywords: inputs of the run that held secrets, which are not recorded; nothing else can be given.
            timeout: seconds for what is left.
            budget, view: as of `start`.
            trust, allow: as of `start`, for a run that was recorded elsewhere.
            diagram: what ran, when it held a credential, which is not recorded, and is not in its file any more.

        Raises:
            UserError: no such run, it is complete (see `fork`), it needs what is not recorded, or answers name no node that asks.
            StorageError: it still goes on, here or in another process.
        """
        checked_flag(view, "view")
        checked_trust(trust, allow)
        checked_timeout(timeout)  # before the run is taken over
        checked_budget(budget)
        given = {**variables, **checked_mapping(inputs, "inputs", "{'token': '…'}")}
        found = self._id(run_id)
        document = None if diagram is None else self.load(diagram)
        if given:
            _check_missing(given, run_sync(self.runtime.recorded(found, document))[1].payload.get("variables", {}))
        recovery = run_sync(self.runtime.recover(found, diagram=document, variables=given, answers=answers, trust=trust, allow=allow))
        waiting = NotebookPrompter()
        execution = self.runtime.execution(
            recovery.prepared,
            model=recovery.model,
            own_models=recovery.own_models,
            timeout=timeout,
            max_iterations=recovery.max_iterations,
            budget=budget,
            interaction=ScriptedPrompter(answers, waiting),
            source=recovery.recovered.first.payload["source"],
            recovered=recovery.recovered,
        )
        return self._begun(execution, waiting, recovery.document, view)

    @naming_the_call
    @checked_call
    def fork(
        self,
        run: Run | RunResult | RunSummary | str,
        *,
        at: str | None = None,
        of: int = 1,
        set: Mapping[str, Any] | None = None,
        model: str | None = None,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        max_iterations: int | None = None,
        budget: Budget | None = None,
        trust: bool | str | None = None,
        allow: Mapping[str, Any] | None = None,
        diagram: Diagram | str | os.PathLike[str] | Mapping[str, Any] | None = None,
        view: bool = True,
    ) -> Run:
        """Edit in the past: a new run that takes over what the old one had done and does only the rest again.

        Args:
            run: a run, or its id.
            at: label or id of a node: it, and all that depends on it, runs again. Default: the nodes that `set`, `model` and
                `inputs` change.
            of: which run of the node in a loop (1-based). What had finished before that run is taken over, also of nodes of the
                loop that `set` changes: they are others from there on.
            set: changes of the diagram, as of `Diagram.set`: `{"nodes.Judge.default_prompt": "…"}`. A person whose service or
                model it names has that one, also when the run moves all others.
            model: moves every other person, as of `start`; default: as the old run.
            inputs: variables of the run to change; the others stay.
            answers, timeout, max_iterations, budget, trust, allow, view: as of `start`.
            diagram: what ran, as of `resume`.

        Raises:
            UserError: no such run or node, nothing to do differently, or a change before `at` on which its run `of` depends.
        """
        checked_flag(view, "view")
        checked_trust(trust, allow)
        checked_count(of, "of")
        changes = checked_mapping(set, "set", "{'nodes.Judge.default_prompt': '…'}")
        inputs = checked_mapping(inputs, "inputs", "{'topic': '…'}")
        fork = plan_fork(
            self.runtime, self._id(run), at=at, of=of, changes=changes, model=model, inputs=inputs, answers=answers, trust=trust, allow=allow,
            diagram=None if diagram is None else self.load(diagram),
        )  # fmt: skip
        waiting = NotebookPrompter()
        execution = self.runtime.execution(
            fork.prepared,
            variables=fork.variables,
            model=fork.model,
            own_models=fork.own_models,
            timeout=timeout,
            max_iterations=max_iterations,
            budget=budget,
            interaction=ScriptedPrompter(answers, waiting),
            source=json.loads(fork.document.to_text("native")),
            reuse=fork.reuse,
            forked_from=fork.forked_from,
        )
        return self._begun(execution, waiting, fork.document, view)

    @naming_the_call
    def run(
        self,
        diagram: Diagram | str | os.PathLike[str] | Mapping[str, Any],
        *,
        model: str | None = None,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        max_iterations: int | None = None,
        budget: Budget | None = None,
        trust: bool | str | None = None,
        allow: Mapping[str, Any] | None = None,
        view: bool = True,
        **variables: Any,
    ) -> RunResult:
        """Run to the end and return the result; in a notebook the live view shows meanwhile. Stop or Ctrl-C aborts it.

            result = dp.run("demo:debate", model="local", topic="tabs or spaces")
            result.outputs, result.cost, result.nodes

        Args:
            diagram: a `Diagram`, the path, name or text of one, or a mapping.
            model: moves every person: `local`, `echo`, `openai:NAME`; default: as the diagram says.
            answers: node label → answer (or list of answers) for user_response nodes; others are asked with input().
            inputs: variables of the run, of any name; those whose names are no options also as keywords (`topic="…"`).
            timeout: seconds for the run; default: DIPEO_EXECUTION_TIMEOUT.
            max_iterations: visits of one node before its loop counts as endless.
            budget: what models may cost: `dp.Budget(usd=0.1)`, tokens, calls or seconds.
            trust, allow: what a diagram from elsewhere may do; as of `start`.
            view: False shows nothing meanwhile.

        Raises:
            UserError: nothing was run.
            RunError, ServiceError: the run failed or was aborted; `error.run` is the run.
        """
        run = self.start(
            diagram,
            model=model,
            answers=answers,
            inputs=inputs,
            timeout=timeout,
            max_iterations=max_iterations,
            budget=budget,
            trust=trust,
            allow=allow,
            view=view,
            **variables,
        )
        try:
            if view and kernel.in_kernel():
                run.show()
            return run.result()
        except KeyboardInterrupt as interrupt:
            run._interrupted(interrupt)  # also while the view was made, which takes a second for the first one
            raise

    @naming_the_call
    async def arun(
        self,
        diagram: Diagram | str | os.PathLike[str] | Mapping[str, Any],
        *,
        model: str | None = None,
        answers: Mapping[str, str | Sequence[str]] | None = None,
        inputs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        max_iterations: int | None = None,
        budget: Budget | None = None,
        trust: bool | str | None = None,
        allow: Mapping[str, Any] | None = None,
        view: bool = True,
        **variables: Any,
    ) -> RunResult:
        """As `run`, with the same options, awaited: `await dp.arun(…)`, or several at once with `asyncio.gather`."""
        run = self.start(
            diagram,
            model=model,
            answers=answers,
            inputs=inputs,
            timeout=timeout,
            max_iterations=max_iterations,
            budget=budget,
            trust=trust,
            allow=allow,
            view=view,
            **variables,
        )
        try:
            if view and kernel.in_kernel():
                run.show()
        except KeyboardInterrupt as interrupt:
            run._interrupted(interrupt)
            raise
        return await run

    @checked_call
    def trust(self, path: str | os.PathLike[str], *, forget: bool = False) -> None:
        """Trust a folder with all below it, now and later, or exactly one diagram as it is now, in this base directory.

        Args:
            forget: trust it no more.

        Raises:
            UserError: there is no such folder or diagram.
        """
        checked_flag(forget, "forget")
        if not isinstance(path, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValidationError(f"{path!r:.80} is no folder or diagram.", hint="Give its path.")
        trust = self.runtime.trust
        if forget:
            trust.forget(os.fspath(path))
        else:
            trust.trust(Path(path))

    def close(self) -> None:
        """Stop the runs that still go on and close the session's services. A closed session opens again when it is used."""
        going = [run for run in list(self._going.values()) if not run.finished]
        for run in going:
            run.stop("the session was closed")
        for run in going:
            run.wait(STOP_GRACE_S)
        run_sync(self.runtime.cleanup())

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("A session does not leave its process: it has keys and open files. Make one there: dp.Session(base_dir).")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _check_missing(given: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    """Refuse inputs that a run has already, or never had: to go on, it takes only those that are not in its record."""
    known = [name for name in recorded if HIDDEN in json.dumps(recorded[name], default=str)]
    for name in given:
        if name not in known:
            near = nearest_option(name, _RESUME_OPTIONS)
            raise ValidationError(
                f"A run goes on with the inputs that it had; '{name:.80}' cannot be given to it.",
                hint=f"Did you mean {near}=?" if near else "Change inputs in a fork: dp.fork(run, inputs={…}).",
            )


_START_OPTIONS = tuple(name for name in inspect.signature(Session.start).parameters if name not in ("self", "diagram", "variables"))
_RESUME_OPTIONS = tuple(name for name in inspect.signature(Session.resume).parameters if name not in ("self", "run_id", "variables"))


# Where these were before, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "achat": "dipeo_nb.notebook.facade",
            "arun": "dipeo_nb.notebook.facade",
            "chat": "dipeo_nb.notebook.facade",
            "default_session": "dipeo_nb.notebook.facade",
            "diff": "dipeo_nb.notebook.facade",
            "fork": "dipeo_nb.notebook.facade",
            "llm": "dipeo_nb.notebook.facade",
            "load": "dipeo_nb.notebook.facade",
            "models": "dipeo_nb.notebook.facade",
            "nest": "dipeo_nb.notebook.facade",
            "open_run": "dipeo_nb.notebook.facade",
            "replay": "dipeo_nb.notebook.facade",
            "resume": "dipeo_nb.notebook.facade",
            "run": "dipeo_nb.notebook.facade",
            "runs": "dipeo_nb.notebook.facade",
            "start": "dipeo_nb.notebook.facade",
            "trust": "dipeo_nb.notebook.facade",
        },
    )
