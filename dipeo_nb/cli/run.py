"""`dipeo-nb run`, `resume` and `replay`: a run, from the request to the exit code."""

from __future__ import annotations

import importlib
import queue
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from dipeo_nb.cli import completion
from dipeo_nb.cli.arguments import (
    STDIN,
    load_diagram,
    parse_answers,
    parse_inputs,
    parse_inputs_file,
    parse_permissions,
    set_providers,
    settings_for,
)
from dipeo_nb.cli.consent import with_consent
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.options import (
    Allowing,
    AsJson,
    BaseDir,
    File,
    Format,
    Inputs,
    Model,
    NoQuestions,
    Pin,
    Providers,
    RunId,
    Trusting,
)
from dipeo_nb.cli.output import print_diagnostics, print_outputs, print_traceback
from dipeo_nb.cli.prompts import interactive
from dipeo_nb.cli.signals import handling, hangup
from dipeo_nb.common.loop import run_sync, submit
from dipeo_nb.common.text import nearest, visible_json
from dipeo_nb.common.values import json_text
from dipeo_nb.config import Settings
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.diagnostics import Diagnostic
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan
from dipeo_nb.domain.ports import InteractionPort
from dipeo_nb.errors import SettingNotApprovedError, StorageError, UserError, ValidationError
from dipeo_nb.execution.engine import Execution
from dipeo_nb.execution.interaction import ConsolePrompter, NoAnswers, ScriptedPrompter
from dipeo_nb.execution.replay import Replay
from dipeo_nb.execution.run_options import RunLimits
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.used_names import UsedNames
from dipeo_nb.runtime import Prepared, Recovery, Runtime
from dipeo_nb.terminal import Lines, Live, PendingQuestion, TerminalPrompter, View, new_console, prompt_user, safe, say

app: typer.Typer = typer.Typer()

Feed = queue.SimpleQueue[Event | PendingQuestion | None]
"""Events and questions of a run, for the thread that shows them; None at the end."""


@app.command()
def run(
    file: File,
    input_: Inputs = None,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs", "--input-data", metavar="JSON", help="Variables of the run: a JSON object, or a file that holds one."
        ),
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option(
            "--answer",
            metavar="NODE=TEXT",
            autocompletion=completion.answers,
            help="Answer of a user_response node, also of a sub-diagram (SUB/NODE=TEXT where names repeat); again for further rounds.",
        ),
    ] = None,
    model: Model = None,
    as_json: AsJson = False,
    timeout: Annotated[float | None, typer.Option("--timeout", metavar="S", help="Seconds for the whole run.")] = None,
    base_dir: BaseDir = None,
    trust: Trusting = False,
    pin: Pin = None,
    allow: Allowing = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    format_: Format = None,
    no_interactive: NoQuestions = False,
    providers: Providers = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Show every effect that a run would have, and the keys it lacks; nothing is done.")
    ] = False,
) -> int:
    """Run a diagram; its outputs go to stdout, progress to stderr."""
    try:
        if model is not None and not model.strip():
            raise ValidationError("--model is empty.", hint="Use --model local, --model echo or --model openai:NAME.")
        if timeout is not None and not timeout > 0:
            raise ValidationError(f"--timeout {timeout:g} is not a time.", hint="Give seconds above 0, e.g. --timeout 60.")
        variables = {**parse_inputs_file(inputs), **parse_inputs(input_ or ())}
        order = RunRequest(
            file,
            settings_for(base_dir),
            variables,
            answer or (),
            model,
            {"timeout": timeout},
            pin or (trust or None),
            parse_permissions(allow),
            quiet,
            format_,
            not no_interactive,
            providers or (),
        )
        if dry:
            return show_dry_run(order, as_json)
        state = run_request(order)
    except (Exception, KeyboardInterrupt) as error:
        if as_json:
            print(visible_json(json_text(_refusal(file, error))))
        raise
    return report(state, as_json)


@app.command()
def resume(
    run_id: RunId,
    input_: Inputs = None,
    answer: Annotated[
        list[str] | None,
        typer.Option("--answer", metavar="NODE=TEXT", help="Answer of a user_response node, also of a sub-diagram."),
    ] = None,
    as_json: AsJson = False,
    timeout: Annotated[float | None, typer.Option("--timeout", metavar="S", help="Seconds for what is left.")] = None,
    base_dir: BaseDir = None,
    trust: Trusting = False,
    pin: Pin = None,
    allow: Allowing = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    providers: Providers = None,
    diagram: Annotated[
        str | None,
        typer.Option("--diagram", metavar="FILE", help="The diagram that ran, when it held a credential and has moved since."),
    ] = None,
) -> int:
    """Resume a run that was interrupted, failed or was stopped; finished nodes do not run again.

    --input is for inputs that held secrets, which are not recorded.
    """
    with Runtime(settings_for(base_dir)) as runtime:
        set_providers(runtime.services.integrations, providers or ())
        feed: Feed = queue.SimpleQueue()
        found = run_sync(runtime.find_run(run_id)).run_id
        document = None if diagram is None else load_diagram(diagram, None, runtime.settings)

        def recover(said: bool | str | None, by: str = "") -> Recovery:
            return run_sync(
                runtime.recover(
                    found,
                    diagram=document,
                    variables=parse_inputs(input_ or ()),
                    trust=said,
                    allow=parse_permissions(allow),
                    by=by,
                )
            )

        recovery = with_consent(runtime, recover, pin or (trust or None), ask=True)
        answers = parse_answers(answer or (), recovery.prepared.plan, runtime.settings.base_dir)
        execution = runtime.resumption(recovery, interaction=ScriptedPrompter(answers, _keyboard(feed)), timeout=timeout)
        view = _view(quiet)
        view.catch_up(recovery.recovered.state)
        state = follow(runtime, execution, feed, view)
    return report(state, as_json)


@app.command()
def replay(
    run_id: RunId,
    speed: Annotated[float, typer.Option("--speed", metavar="X", help="1: as long as it took; 10: ten times as fast.")] = 1.0,
    max_pause: Annotated[
        float, typer.Option("--max-pause", metavar="S", help="Seconds between two events at most, whatever the speed.")
    ] = 10.0,
    as_json: AsJson = False,
    base_dir: BaseDir = None,
) -> int:
    """Show a recorded run again as it happened; nothing is called and nothing is recorded."""
    with Runtime(settings_for(base_dir)) as runtime:
        apart, replaying = run_sync(runtime.replay(run_id, speed=speed, max_pause=max_pause))
        state = follow(apart, replaying, queue.SimpleQueue(), _view(quiet=False))
    return report(state, as_json)


@dataclass(frozen=True)
class RunRequest:
    """A diagram to run, with the options."""

    file: str
    settings: Settings
    variables: Mapping[str, Any]
    answers: Sequence[str] = ()
    model: str | None = None
    limits: RunLimits = field(default_factory=RunLimits)
    trust: bool | str | None = None
    allow: tuple[str, ...] | None = None
    quiet: bool = False
    format: str | None = None
    questions: bool = True
    """Whether the user may be asked."""
    providers: Sequence[str] = ()
    """Variables of providers: `PROVIDER.NAME=VALUE`."""

    def runtime(self) -> Runtime:
        """A runtime with these settings. Raises as `set_providers`."""
        runtime = Runtime(self.settings)
        set_providers(runtime.services.integrations, self.providers)
        return runtime


def run_request(order: RunRequest) -> RunState:
    """Load, check and run a diagram, show progress, and return the final state. Raises UserError when nothing was run."""
    runtime = order.runtime()
    document = load_diagram(order.file, order.format, order.settings)
    prepared = _prepare(runtime, document, order)
    plan = prepared.plan
    run_sync(runtime.check_settings(plan, model=order.model))
    if not order.quiet:
        moved = "model-ends" if order.model is not None else ""  # the models of the diagram are not used
        shown = [d for d in plan.diagnostics if d.severity != "info" and d.code != moved]
        print_diagnostics([d for d in shown if not _settled(d, order.variables)])
        _warn_of_unused(order.variables, plan, order.settings.base_dir)
    feed: Feed = queue.SimpleQueue()
    otherwise = _keyboard(feed) if order.questions else NoAnswers()
    answers = ScriptedPrompter(parse_answers(order.answers, plan, order.settings.base_dir), otherwise)
    with runtime:
        execution = runtime.execution(
            prepared,
            variables=order.variables,
            model=order.model,
            **order.limits,
            interaction=answers,
            source=document.to_data(),
        )
        return follow(runtime, execution, feed, _view(order.quiet))


def show_dry_run(order: RunRequest, as_json: bool) -> int:
    """Print what a run would do; exit code 1 when it lacks a key. Raises UserError when the diagram cannot run."""
    dry_runs: Any = importlib.import_module("dipeo_nb.runtime.dry_run")
    runtime = order.runtime()
    plan = runtime.compile(load_diagram(order.file, order.format, order.settings))
    answers = parse_answers(order.answers, plan, order.settings.base_dir)
    found = run_sync(dry_runs.dry_run(runtime, plan, variables=order.variables, model=order.model, answers=answers))
    if as_json:
        print(visible_json(json_text(found.report())))
        return ExitCode.FAILED if found.missing else ExitCode.DONE
    for effect in found.effects:
        count = found.times.get(effect, 1)
        often = f"   ({count} times)" if count > 1 else "" if effect.reached else "   (not reached in the dry run)"
        print(safe(f"'{effect.node}'   {effect.kind}: {effect.what}{often}", 400))
        for line in effect.detail.splitlines():
            print(safe(f"    {line}", 2000))
    if not found.effects:
        print("It has no effects.")
    say(*([f"It ended early. {found.error}"] if found.error else []))
    for missing in found.missing:
        say(f"missing: {missing.service}, for {', '.join(missing.nodes)}", f"hint: {missing.hint}")
    return ExitCode.FAILED if found.missing else ExitCode.DONE


def _prepare(runtime: Runtime, document: Diagram, order: RunRequest) -> Prepared:
    """The plan and what it may do; asks the user when one is present."""

    def prepared(trust: bool | str | None, by: str = "") -> Prepared:
        return runtime.prepare(document, trust=trust, allow=order.allow, foreign=order.file == STDIN, model=order.model, by=by)

    def needed() -> SettingNotApprovedError | None:
        try:
            run_sync(runtime.check_settings(runtime.compile(document), model=order.model))
        except SettingNotApprovedError as error:
            return error
        return None

    return with_consent(runtime, prepared, order.trust, ask=order.questions, needed=needed)


def _settled(diagnostic: Diagnostic, variables: Mapping[str, Any]) -> bool:
    """Whether it warns about a name that no arrow brings, and the run has an input of that name."""
    return diagnostic.code == "unknown-name" and any(f"'{name}'" in diagnostic.message for name in variables)


def _warn_of_unused(variables: Mapping[str, Any], plan: Plan, base_dir: Path) -> None:
    """Warn about inputs that the diagram does not use: they are probably misspelt."""
    if not variables:
        return
    used = UsedNames(plan, base_dir)
    for name in used.unknown(variables):
        near = nearest(name, sorted(used.names))
        say(
            f"warning: the diagram does not use the input '{safe(name, 80)}'."
            + (f" Did you mean '{safe(near)}'?" if near else "")
        )


def follow(runtime: Runtime, execution: Execution | Replay, feed: Feed, view: View) -> RunState:
    """Run to the end and show progress."""
    bus = runtime.services.bus

    async def work() -> RunState:
        await runtime.initialize()
        subscription = bus.subscribe(feed.put, run_id=execution.run_id)
        try:
            try:
                await runtime.run(execution)
            except StorageError:  # the end is not recorded, but the state has it
                if not execution.state.finished:
                    raise
            await bus.drain()
            return execution.state
        finally:
            bus.unsubscribe(subscription)

    future = submit(work())
    future.add_done_callback(lambda _: feed.put(None))
    _watch(execution, feed, view)
    return future.result()


def _keyboard(feed: Feed) -> InteractionPort:
    return TerminalPrompter(feed) if interactive() else ConsolePrompter()


def _view(quiet: bool) -> View:
    if quiet:
        return View()
    return Live() if sys.stderr.isatty() and not new_console().is_dumb_terminal else Lines()


def _watch(execution: Execution | Replay, feed: Feed, view: View) -> None:
    """Show progress until the run has ended. Ctrl-C stops the run in an orderly way; a second one exits at once."""

    def stop(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        view.note("Stopping … (Ctrl-C again to leave at once)")
        execution.stop(f"interrupted by {signal.Signals(signum).name}")

    with handling(stop, signal.SIGINT, signal.SIGTERM, *hangup()), view:
        while True:
            try:
                item = feed.get(timeout=view.interval)
            except queue.Empty:
                view.tick()
                continue
            if item is None:
                return
            if isinstance(item, PendingQuestion):
                with view.paused():
                    prompt_user(item, execution)
            else:
                view.show(item)
                view.tick()


def report(state: RunState, as_json: bool) -> int:
    """Write outputs to stdout and the summary to stderr; return the exit code."""
    if as_json:
        print(visible_json(json_text(state.report())))
    else:
        print_outputs(state)
    return _exit_code(state)


def _exit_code(state: RunState) -> int:
    """Write the summary to stderr, and return the exit code."""
    if state.status == "completed":
        return ExitCode.DONE
    error = state.error or {}
    where = f" (node '{error['node']}')" if error.get("node") else ""
    say(f"error: {error.get('message') or state.status}{where}")
    print_traceback(error.get("traceback"))
    if error.get("hint"):
        say(f"hint: {error['hint']}")
    return ExitCode.INTERRUPTED if state.status == "aborted" else ExitCode.FAILED


def _refusal(file: str, error: BaseException) -> dict[str, Any]:
    """The same object for a run that never started, or whose end could not be recorded."""
    status = "refused" if isinstance(error, UserError) else "aborted" if isinstance(error, KeyboardInterrupt) else "failed"
    facts = {
        "type": type(error).__name__,
        "message": getattr(error, "message", None) or str(error) or "interrupted",
        "node": getattr(error, "node", None),
        "hint": getattr(error, "hint", None),
    }
    return {
        "run_id": getattr(error, "run_id", None), "status": status, "diagram": file, "outputs": {}, "node_runs": {},
        "node_status": {}, "usage": {}, "cost_usd": None, "duration_s": 0.0, "events": 0, "notes": [], "error": facts,
    }  # fmt: skip
