"""Sessions: what users call. The functions of `dipeo_nb` use a default session."""

from __future__ import annotations

import inspect
import json
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dipeo_nb.common.calls import checked_call, did_you_mean_option, nearest_option, options_of
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.moved import moved_names
from dipeo_nb.common.paths import from_home
from dipeo_nb.common.redaction import HIDDEN
from dipeo_nb.config import Settings, get_settings
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.document import load as load_diagram
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.events import RunSummary
from dipeo_nb.domain.ports import Services
from dipeo_nb.errors import ConfigurationError, ValidationError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.interaction import ScriptedPrompter
from dipeo_nb.execution.nested import check_answers
from dipeo_nb.execution.options import (
    checked_count,
    checked_flag,
    checked_limits,
    checked_mapping,
    checked_trust,
)
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook import begun_runs
from dipeo_nb.notebook.awaited_run import STOP_GRACE_S
from dipeo_nb.notebook.calls import check_variables
from dipeo_nb.notebook.dry_run_method import DryRunMethod
from dipeo_nb.notebook.model_calls import ModelCalls
from dipeo_nb.notebook.prompter import NotebookPrompter
from dipeo_nb.notebook.provider_methods import ProviderMethods
from dipeo_nb.notebook.recorded_runs import RecordedRuns
from dipeo_nb.notebook.refusal import naming_the_call
from dipeo_nb.notebook.run import Run, RunResult
from dipeo_nb.runtime import Runtime
from dipeo_nb.runtime.forking import plan_fork

P = ParamSpec("P")
T = TypeVar("T")


_SERVICES = tuple(Services.__dataclass_fields__)
_SESSION_OPTIONS = ("base_dir", "settings", "services", "trust_base")


class Session(RecordedRuns, DryRunMethod, ModelCalls, ProviderMethods):
    """Loads and runs diagrams with one set of settings and services.

    Args:
        base_dir: root of relative paths in diagrams; default: DIPEO_BASE_DIR, else the current directory.
        settings: replaces all settings.
        services: replaces all services; default: those that the settings name.
        trust_base: treat the diagrams below the base directory as the user's own in this session, as after `dp.trust(base_dir)`.
        replaced: replaces single services by name: `llm=`, `store=`, `files=` …

    Raises:
        ConfigurationError: there is no such folder, option or service.
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
                f"Session() has no option '{unknown[0]:.80}'.",
                hint=did_you_mean_option(unknown[0], (*_SESSION_OPTIONS, *_SERVICES), known),
            )
        if settings is not None and not isinstance(settings, Settings):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"settings= takes Settings, not {type(settings).__name__}.", hint="Use e.g. dp.Settings(base_dir='…')."
            )
        settings = settings or get_settings()
        if base_dir is not None:
            if not isinstance(base_dir, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"base_dir={base_dir!r:.80} is not a path.", hint="Pass the path of a folder.")
            folder = from_home(base_dir).resolve()
            if not folder.is_dir():
                raise ConfigurationError(f"There is no folder {folder}.", hint="Create it, or pass another base_dir.")
            settings = settings.model_copy(update={"base_dir": folder})
        if trust_base:
            settings = settings.model_copy(update={"trusted_folders": (*settings.trusted_folders, settings.base_dir)})
        self.settings = settings
        self.runtime = (
            Runtime(settings, **replaced) if services is None else Runtime(settings, services=replace(services, **replaced))
        )
        self._going: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()

    @checked_call
    def load(self, source: Diagram | str | os.PathLike[str] | Mapping[str, Any], *, format: str | None = None) -> Diagram:
        """Load a diagram from a path, a name, a text or a mapping.

            d = dp.load("debate.light.yaml")        # a file, or the name of one: dp.load("debate")
            d = dp.load("demo:debate")              # an example of the package
            d = dp.load({"version": "light", "nodes": [...], "connections": [...]})

        Args:
            source: a path, absolute or relative to the base directory; a name, which is looked up there and in `examples/`,
                `projects/` and `files/`; `demo:NAME`; text of several lines; or a mapping.
            format: `light`, `native`, `readable` or `executable`; default: by file name, else by content.

        Raises: DiagramNotFoundError, DiagramFormatError when it cannot be read; ValidationError for other kinds of values.

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
        """Start a run and return at once; as the last line of a cell, the run is shown live.

        Args:
            model: use this model for every person: `local`, `echo`, `openai:NAME`; default: the models of the diagram.
            answers: node label → answer (or list of answers) for user_response nodes, also of sub-diagrams; `Sub/Question`
                is the one in that sub-diagram, `Sub[2]/Question` the one of a batch item.
            inputs: variables of the run, with any name; names that are not options also work as keywords (`topic="…"`). A keyword
                that the diagram does not use causes a warning, or an error when it is nearly the name of an option.
            timeout: seconds for the run; default: DIPEO_EXECUTION_TIMEOUT.
            max_iterations: visits of one node after which its loop counts as endless.
            budget: limit for model calls: `dp.Budget(usd=0.1)`, tokens, calls or seconds; the run fails before the call that
                would exceed it.
            trust: True approves everything that a diagram from elsewhere wants, and is remembered; a text approves the diagram
                with that code, which the error shows; False limits any diagram to models and a folder of its own.
            allow: what the diagram may do in addition to calling models: `{"read": "data/*.csv", "net": "api.x.org", "code": True}`.
            view: False shows the run as a static picture, never live.

        Raises:
            UserError: nothing was started: the diagram cannot be read or run, it wants what has not been approved, there is no
                such model, or an option has an impossible value.
        """
        checked_flag(view, "view")
        checked_trust(trust, allow)
        limits = checked_limits({"timeout": timeout, "max_iterations": max_iterations, "budget": budget})
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
            **limits,
            interaction=ScriptedPrompter(answers, waiting),
            source=document.to_data(),
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
        """Resume a run that was interrupted (its process ended), failed or was stopped; returns at once, like `start`.

        Nodes that are recorded as finished never run again. Nodes that were running start over: they may repeat what they had
        done in part, so they pass services an idempotency key. What they had spent stays spent.

        Args:
            run_id: an id, an unambiguous prefix of it, or a run of this session.
            answers: see `start`.
            inputs: inputs of the run that held secrets, which are not recorded, also as keywords; no others are accepted.
            timeout: seconds for the rest of the run.
            budget, view: see `start`.
            trust, allow: see `start`; for a run that was recorded elsewhere.
            diagram: the diagram that ran, when it held a credential, which is not recorded, and its file has changed.

        Raises:
            UserError: no such run, it is complete (see `fork`), it needs what is not recorded, or an answer matches no question.
            StorageError: it is still running, here or in another process.
        """
        checked_flag(view, "view")
        checked_trust(trust, allow)
        limits = checked_limits({"timeout": timeout, "budget": budget})  # before the run is claimed
        given = {**variables, **checked_mapping(inputs, "inputs", "{'token': '…'}")}
        found = self._id(run_id)
        document = None if diagram is None else self.load(diagram)
        if given:
            _check_missing(given, run_sync(self.runtime.recorded(found, document))[1].started.get("variables", {}))
        recovery = run_sync(
            self.runtime.recover(found, diagram=document, variables=given, answers=answers, trust=trust, allow=allow)
        )
        waiting = NotebookPrompter()
        execution = self.runtime.resumption(recovery, interaction=ScriptedPrompter(answers, waiting), **limits)
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
        """Change a past run: start a new one that reuses what the old one had finished and runs only the rest again.

        Args:
            run: a run, or its id.
            at: label or id of a node: it, and everything that depends on it, runs again. Default: the nodes that `set`, `model`
                and `inputs` change.
            of: which iteration of the node in a loop (1-based). What had finished before it is reused, also for nodes of the
                loop that `set` changes: the changes apply from there on.
            set: changes to the diagram, see `Diagram.set`: `{"nodes.Judge.default_prompt": "…"}`. A person whose service or
                model is set keeps it, also when `model` is given.
            model: use this model for every other person, see `start`; default: as in the old run.
            inputs: variables of the run to change; the others stay.
            answers, timeout, max_iterations, budget, trust, allow, view: see `start`.
            diagram: the diagram that ran, see `resume`.

        Raises:
            UserError: no such run or node, no difference from the old run, or a change before `at` that iteration `of` depends on.
        """
        checked_flag(view, "view")
        checked_trust(trust, allow)
        checked_count(of, "of")
        limits = checked_limits({"timeout": timeout, "max_iterations": max_iterations, "budget": budget})
        changes = checked_mapping(set, "set", "{'nodes.Judge.default_prompt': '…'}")
        inputs = checked_mapping(inputs, "inputs", "{'topic': '…'}")
        fork = run_sync(
            plan_fork(
                self.runtime, self._id(run), at=at, of=of, changes=changes, model=model, inputs=inputs, answers=answers, trust=trust,
                allow=allow, diagram=None if diagram is None else self.load(diagram),
            )
        )  # fmt: skip
        waiting = NotebookPrompter()
        execution = fork.execution(self.runtime, interaction=ScriptedPrompter(answers, waiting), **limits)
        return self._begun(execution, waiting, fork.document, view)

    @naming_the_call
    @options_of(start)
    def run(self, diagram: Any, *, view: bool = True, **options: Any) -> RunResult:
        """Run to the end and return the result; a notebook shows the live view meanwhile. Stop or Ctrl-C aborts the run.

            result = dp.run("demo:debate", model="local", topic="tabs or spaces")
            result.outputs, result.cost, result.nodes

        Args:
            diagram: a `Diagram`, the path, name or text of one, or a mapping.
            model: use this model for every person: `local`, `echo`, `openai:NAME`; default: the models of the diagram.
            answers: node label → answer (or list of answers) for user_response nodes; other questions are asked with input().
            inputs: variables of the run, with any name; names that are not options also work as keywords (`topic="…"`).
            timeout: seconds for the run; default: DIPEO_EXECUTION_TIMEOUT.
            max_iterations: visits of one node after which its loop counts as endless.
            budget: limit for model calls: `dp.Budget(usd=0.1)`, tokens, calls or seconds.
            trust, allow: what a diagram from elsewhere may do; see `start`.
            view: False shows nothing meanwhile.

        Raises:
            UserError: nothing was run.
            RunError, ServiceError: the run failed or was aborted; `error.run` is the run.
        """
        run = self.start(diagram, view=view, **options)
        with run.shown_meanwhile():
            return run.result()

    @naming_the_call
    @options_of(start)
    async def arun(self, diagram: Any, *, view: bool = True, **options: Any) -> RunResult:
        """Like `run`, with the same options, but awaited: `await dp.arun(…)`, or several at once with `asyncio.gather`."""
        run = self.start(diagram, view=view, **options)
        with run.shown_meanwhile():
            return await run

    @checked_call
    def trust(self, path: str | os.PathLike[str], *, forget: bool = False) -> None:
        """Trust a folder and everything below it, now and later, or one diagram exactly as it is now, in this base directory.

        Args:
            forget: no longer trust it.

        Raises:
            UserError: there is no such folder or diagram.
        """
        checked_flag(forget, "forget")
        if not isinstance(path, (str, os.PathLike)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValidationError(f"{path!r:.80} is not a path.", hint="Pass the path of a folder or diagram.")
        trust = self.runtime.trust
        if forget:
            trust.forget(os.fspath(path))
        else:
            trust.trust(Path(path))

    def close(self) -> None:
        """Stop the runs that are still running and close the session's services. A closed session opens again when it is used."""
        going = [run for run in list(self._going.values()) if not run.finished]
        for run in going:
            run.stop("the session was closed")
        for run in going:
            run.wait(STOP_GRACE_S)
        run_sync(self.runtime.cleanup())

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "A session cannot be pickled: it has keys and open files. Create one in the other process: dp.Session(base_dir)."
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _check_missing(given: Mapping[str, Any], recorded: Mapping[str, Any]) -> None:
    """Refuse inputs that a run has already, or never had: resuming accepts only those that are not in its record."""
    known = [name for name in recorded if HIDDEN in json.dumps(recorded[name], default=str)]
    for name in given:
        if name not in known:
            near = nearest_option(name, _RESUME_OPTIONS)
            raise ValidationError(
                f"A run is resumed with the inputs that it had; '{name:.80}' cannot be passed.",
                hint=f"Did you mean {near}=?" if near else "Change inputs in a fork: dp.fork(run, inputs={…}).",
            )


_START_OPTIONS = tuple(
    name for name in inspect.signature(Session.start).parameters if name not in ("self", "diagram", "variables")
)
_RESUME_OPTIONS = tuple(
    name for name in inspect.signature(Session.resume).parameters if name not in ("self", "run_id", "variables")
)


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
