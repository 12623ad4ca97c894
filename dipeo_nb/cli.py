"""The command `dipeo-nb`: the same house as the notebook, through another door.

Promises of every command: results go to stdout, progress and messages to stderr; an error is one message and the next
action, never a traceback (`dipeo-nb --debug …` shows it); exit codes are

    0  done      1  the run, or something outside, failed      2  you made a mistake: nothing was run      130  interrupted

`run --json` prints exactly one JSON object, also when the run failed or was refused (status `refused`, no run_id).
Everything heavy is imported inside the commands, so that `--help` and a first run start fast.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from dipeo_nb.common.disk_errors import CAUSES
from dipeo_nb.common.values import json_text
from dipeo_nb.common.visible import visible, visible_json
from dipeo_nb.dipeo_words import advice, translated
from dipeo_nb.errors import (
    ConfigurationError,
    DipeoError,
    SettingNotApprovedError,
    TrustError,
    UserError,
    ValidationError,
)
from dipeo_nb.terminal import (
    Asked,
    Lines,
    Live,
    TerminalAnswers,
    View,
    new_console,
    new_table,
    put,
    safe,
    say,
)

if TYPE_CHECKING:
    from datetime import date

    from dipeo_nb.config import Settings
    from dipeo_nb.container import Prepared, Recovery, Runtime
    from dipeo_nb.diagram.document import Diagram
    from dipeo_nb.domain.diagnostics import Diagnostic
    from dipeo_nb.domain.events import Event, RunSummary
    from dipeo_nb.domain.plan import Plan
    from dipeo_nb.domain.ports import InteractionPort
    from dipeo_nb.execution.engine import Execution
    from dipeo_nb.execution.fold import RunState
    from dipeo_nb.execution.replay import Replay
    from dipeo_nb.llm.service import LLMService
    from dipeo_nb.security.keys import APIKeyChain, APIKeyService

    Feed = queue.SimpleQueue[Event | Asked | None]
    """What a run says, on its way to the thread that shows it; None at its end."""

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130

app = typer.Typer(
    name="dipeo-nb",
    help="Diagrams of LLM agents: check, draw, convert and run them.",
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models = typer.Typer(
    help="Services of language models: what is ready, keys, defaults; `list` and `pull`: the embedded models.",
    no_args_is_help=False,
)
app.add_typer(models, name="models")
keys = typer.Typer(
    help="API keys: which are there and where from, masked; store, delete and test them.", no_args_is_help=True
)
app.add_typer(keys, name="keys")
runs = typer.Typer(help="The recorded runs: list them, newest first; `delete` and `prune` some.", no_args_is_help=False)
app.add_typer(runs, name="runs")


@dataclass
class Global:
    """What stands before the command: `dipeo-nb --debug run …`."""

    debug: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. The console script and `python -m dipeo_nb` call this."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A label in any script must not break output in a narrow locale.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    given = Global()
    try:
        with _terminated_like_ctrl_c():
            code = app(args=translated(sys.argv[1:] if arguments is None else arguments), prog_name="dipeo-nb", standalone_mode=False, obj=given)
            sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except BrokenPipeError:
        # The reader of our output has gone (`… | head`); Python's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except typer.TyperException as error:
        message = error.format_message()
        say(f"error: {message}", f"hint: {advice(message) or 'dipeo-nb --help, or dipeo-nb COMMAND --help'}")
        return MISTAKE
    except DipeoError as error:
        if isinstance(error, SettingNotApprovedError) and _approved(error):
            return main(arguments)
        if given.debug:
            raise
        _complain(error)
        return MISTAKE if isinstance(error, UserError) else FAILED
    except OSError as error:
        if given.debug:
            raise
        known = CAUSES.get(error.errno or 0)
        lines = [f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"]
        say(*lines, *([] if known is None else [f"hint: {known[2]}"]))
        return FAILED
    except Exception as error:
        if given.debug:
            raise
        say(
            f"error: {type(error).__name__}: {error}",
            "hint: This is a defect of dipeo-nb. Run `dipeo-nb --debug …` for the details and report them.",
        )
        return FAILED


@app.callback(invoke_without_command=True)
def _global(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks instead of one-line errors.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> int | None:
    context.obj.debug = debug
    if version:
        from importlib.metadata import version as installed

        print(f"dipeo-nb {installed('dipeo-nb')}")
        raise typer.Exit(DONE)
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(MISTAKE)
    return None


# Options that several commands share.

File = Annotated[str, typer.Argument(metavar="FILE", help="A diagram file, or its name; - reads it from stdin.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", show_default=False,
        help="Of FILE: light, native, readable or executable (or --light …). Default: by its name, else by its content.",
    ),
]  # fmt: skip
NoQuestions = Annotated[bool, typer.Option("--no-interactive", help="Ask nothing, also in a terminal.")]
BaseDir = Annotated[
    str | None,
    typer.Option(
        "--base-dir", metavar="DIR", help="Root of the diagram's relative names. Default: here.", show_default=False
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="NAME=VALUE", help="A variable of the run; JSON if it parses, else text."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", help="Move all persons: local, echo, openai:NAME …"),
]
Trusting = Annotated[bool, typer.Option("--trust", help="Say yes to all that a diagram from elsewhere wants; remembered for exactly that.")]
Pin = Annotated[str | None, typer.Option("--pin", metavar="CODE", help="Say yes to exactly what has this code (see inspect); not remembered.")]
Allowing = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="KIND=WHAT", help="Allow a diagram from elsewhere just this: read=data/*.csv, write=out/, net=api.x.org, code …"),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command()
def run(
    file: File,
    input_: Inputs = None,
    inputs: Annotated[
        str | None,
        typer.Option("--inputs", "--input-data", metavar="JSON", help="Variables of the run: a JSON object, or a file that holds one."),
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option("--answer", metavar="NODE=TEXT", help="Answer of a user_response node, also of a sub-diagram (SUB/NODE=TEXT where names repeat); again for further rounds."),
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
) -> int:
    """Run a diagram; its outputs go to stdout, progress to stderr."""
    try:
        if model is not None and not model.strip():
            raise ValidationError("--model is empty.", hint="Say --model local, --model echo or --model openai:NAME.")
        if timeout is not None and not timeout > 0:
            raise ValidationError(
                f"--timeout {timeout:g} is not a time.", hint="Give seconds above 0, e.g. --timeout 60."
            )
        variables = {**_inputs_file(inputs), **_inputs(input_ or ())}
        order = _Order(
            file, _settings(base_dir), variables, answer or (), model, timeout, pin or (trust or None), _allowed(allow), quiet, format_, not no_interactive
        )
        state = _carry_out(order)
    except (Exception, KeyboardInterrupt) as error:
        if as_json:
            print(visible_json(json_text(_refusal(file, error))))
        raise
    return _reported(state, as_json)


@app.command()
def validate(file: File, as_json: AsJson = False, base_dir: BaseDir = None, format_: Format = None) -> int:
    """Check a diagram and say what is wrong, where, and what to do. Nothing is run.

    The exit code is 2 when `run` would refuse it.
    """
    from dipeo_nb.domain.diagnostics import has_errors
    from dipeo_nb.errors import DiagramError

    settings = _settings(base_dir)
    document: Diagram | None = None
    try:
        document = _loaded(file, format_, settings)
        found = list(document.check(base_dir=settings.base_dir))
        if not has_errors(found):
            found = _found_here(settings, document)
    except DiagramError as error:
        found = list(error.diagnostics) or [_as_diagnostic(error, file)]
    valid = not has_errors(found)
    if as_json:
        print(visible_json(json_text(_verdict(file, document, valid, found))))
    else:
        _show_diagnostics(found)
        size = f": {_count(len(document.nodes), 'node')}, {_count(len(document.arrows), 'arrow')}" if document else ""
        errors = sum(d.severity == "error" for d in found)
        name = "<stdin>" if file == STDIN else safe(file)
        print(f"{name} is valid{size}" if valid else f"{name} has {_count(errors, 'error')}")
    return DONE if valid else MISTAKE


@app.command()
def inspect(file: File, as_json: AsJson = False, base_dir: BaseDir = None, format_: Format = None) -> int:
    """List all that a run of a diagram may do, with its sub-diagrams and files, and the code that pins it. Nothing is run."""
    settings = _settings(base_dir)
    found = _loaded(file, format_, settings).capabilities(base_dir=settings.base_dir)
    if as_json:
        files = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(found.files.items())}
        print(json_text({"name": found.name, "pin": found.code, "digest": found.digest, "uses": found.uses.report(), "files": files}))
        return DONE
    print(f"{safe(found.name)} may:" if found.uses else f"{safe(found.name)} does nothing but compute.")
    for line in found.uses.listing():
        print(line)
    print(f"Yes to exactly this: --pin {found.code}")
    return DONE


@app.command()
def trust(
    path: Annotated[str | None, typer.Argument(metavar="PATH", help="A folder, or a diagram as it is now.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="What is trusted; with PATH, the settings that the folder suggests.")] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Trust it no more.")] = False,
    base_dir: BaseDir = None,
) -> int:
    """Trust a folder with all below it, now and later, or exactly one diagram as it is now."""
    from dipeo_nb.security.folder_settings import pending_settings, settings_listing
    from dipeo_nb.security.trust import Trust

    settings = _settings(base_dir)
    record = Trust(settings)
    if list_ or path is None:
        lines = record.lines() if path is None else settings_listing(path, settings=settings)
        for line in lines:
            print(safe(line))
        return DONE
    if forget:
        gone = record.forget(path)
        print(f"Forgotten: {gone}" if gone else f"{safe(path)} was not trusted.")
        return DONE
    if Path(path).expanduser().is_dir():
        shown = pending_settings(path, settings=settings)
        folder = record.trust_folder(Path(path), shown=shown)
        print(f"Trusted from now on: {safe(str(folder))} with all below it")
        for setting in shown:
            print(f"  and its setting {safe(str(setting))}")
        return DONE
    found = _loaded(path, None, settings).capabilities(base_dir=settings.base_dir)
    for line in found.uses.listing():
        print(line)
    record.remember(found, by="dipeo-nb trust")
    print(f"Trusted as it is now: {safe(found.name)} in {safe(str(settings.base_dir))}")
    return DONE


@app.command()
def convert(
    file: File,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="light, native, readable or executable. Default: by the name of OUT.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="OUT", help="File to write. Default: stdout.")] = None,
    format_: Format = None,
) -> int:
    """Write a diagram in another format; a file appears whole or not at all."""
    target = _format(to, output)
    document = _loaded(file, format_, _settings(None))
    text = document.to_text(target)
    for diagnostic in document.diagnostics:
        say(str(diagnostic))
    if output is None:
        whole = text if text.endswith("\n") else text + "\n"
        sys.stdout.write(visible(whole) if sys.stdout.isatty() else whole)
    else:
        document.save(output, target)
        say(f"Written: {output} ({target})")
    return DONE


@app.command()
def render(
    file: File,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="File to write: .svg, .png, .html or .mmd.")
    ],
    theme: Annotated[
        str, typer.Option("--theme", help="light, dark, or auto (follows the reader's; not for png).")
    ] = "auto",
    width: Annotated[int | None, typer.Option("--width", help="Pixels of a png.")] = None,
    format_: Format = None,
) -> int:
    """Draw a diagram."""
    from dipeo_nb.common.atomic import write_atomic

    kind = Path(output).suffix.lower()
    if kind not in (".svg", ".png", ".html", ".mmd"):
        raise ValidationError(f"'{output}' ends in none of .svg, .png, .html, .mmd.", hint="Say e.g. -o diagram.svg.")
    if theme not in ("auto", "light", "dark"):
        raise ValidationError(f"There is no theme '{theme}'.", hint="Say --theme light, dark or auto.")
    if width is not None and not 16 <= width <= 20_000:
        raise ValidationError(f"--width {width} is not between 16 and 20000 pixels.", hint="Leave it out for the natural size.")
    document = _loaded(file, format_, _settings(None))
    match kind:
        case ".svg":
            data = document.svg(theme=theme).encode()
        case ".png":
            data = document.png(theme="light" if theme == "auto" else theme, width=width)
        case ".html":
            data = document.html(theme=theme).encode()
        case _:
            data = document.mermaid().encode()
    write_atomic(Path(output), data)
    say(f"Written: {output}")
    return DONE


@runs.callback(invoke_without_command=True)
def _runs(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Newest runs shown.")] = 20,
    status: Annotated[
        str | None, typer.Option("--status", help="Only these: completed, failed, aborted, interrupted …")
    ] = None,
    diagram: Annotated[str | None, typer.Option("--diagram", help="Only runs of this diagram, by name.")] = None,
    parent: Annotated[
        str | None, typer.Option("--parent", metavar="RUN", help="Only runs of sub-diagrams that this run began.")
    ] = None,
    nested: Annotated[bool, typer.Option("--nested", help="Also runs of sub-diagrams.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Whole ids and times.")] = False,
    as_json: AsJson = False,
    base_dir: BaseDir = None,
) -> int:
    """List the recorded runs, newest first; `delete` and `prune` some."""
    if context.invoked_subcommand is not None:
        return DONE
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.config import without_password
    from dipeo_nb.container import run_named, run_store
    from dipeo_nb.domain.enums import Status
    from dipeo_nb.execution.run_list import recorded_states

    if status is not None and status not in set(Status):
        raise ValidationError(f"There is no status '{status}'.", hint=f"There are: {', '.join(Status)}.")
    settings = _settings(base_dir)
    place = settings.run_store
    rows: list[Any] = []
    states: list[Any] = []
    if isinstance(place, str) or (place is not None and place.exists()):

        async def read() -> tuple[list[Any], list[Any]]:
            store = run_store(settings)
            await store.initialize()
            try:
                whole = None if parent is None else (await run_named(store, parent)).run_id
                found = await store.runs(limit=limit, status=status, diagram=diagram, parent=whole, nested=nested)
                return list(found), [] if as_json else await recorded_states(store, found)
            finally:
                await store.cleanup()

        rows, states = run_sync(read())
    if as_json:
        print(visible_json(json_text({"runs": [row._asdict() for row in rows]})))
    elif rows:
        _show_runs(rows, states, full=full)
    else:
        print(
            f"No runs in {without_password(str(place))}."
            if place is not None
            else "Runs are kept in memory only (STATE_STORE_PATH is :memory:)."
        )
    return DONE


RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run, or its beginning; see `dipeo-nb runs`.")]


@runs.command("delete")
def runs_delete(
    run_ids: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids of runs, or their beginnings.")],
    as_json: AsJson = False,
    base_dir: BaseDir = None,
) -> int:
    """Forget runs, and those of their sub-diagrams. Refused, all of it, while one of them goes on."""
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.container import Runtime

    async def delete(runtime: Runtime) -> list[str]:
        return await runtime.delete_runs([(await runtime.summary(given)).run_id for given in run_ids])

    with Runtime(_settings(base_dir)) as runtime:
        deleted = run_sync(delete(runtime))
    return _tell_deleted(deleted, as_json)


@runs.command("prune")
def runs_prune(
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Runs that ended longer ago: 30d, 12h, 90m, 45s.")
    ] = None,
    keep: Annotated[int | None, typer.Option("--keep", min=0, metavar="N", help="Leave the N newest runs, whatever else.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only these: completed, failed, aborted, interrupted …")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    as_json: AsJson = False,
    base_dir: BaseDir = None,
) -> int:
    """Forget old runs with those of their sub-diagrams; those that go on are left alone. Conditions must hold together."""
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.container import Runtime
    from dipeo_nb.domain.enums import Status

    if status is not None and status not in set(Status):
        raise ValidationError(f"There is no status '{status}'.", hint=f"There are: {', '.join(Status)}.")
    with Runtime(_settings(base_dir)) as runtime:
        found = run_sync(runtime.prune(older_than=_seconds(older_than), keep=keep, status=status, dry_run=dry_run))
    if dry_run and not as_json:
        for run_id in found:
            print(run_id)
        say(f"{_count(len(found), 'run')} would be deleted")
        return DONE
    return _tell_deleted(found, as_json)


def _tell_deleted(run_ids: Sequence[str], as_json: bool) -> int:
    if as_json:
        print(json_text({"deleted": run_ids}))
    else:
        print(f"Deleted: {_count(len(run_ids), 'run')}")
    return DONE


def _seconds(given: str | None) -> float | None:
    """A time such as `30d`."""
    if given is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    number, unit = given.strip()[:-1], given.strip()[-1:].lower()
    if unit not in units or not number.replace(".", "", 1).isascii() or not number.replace(".", "", 1).isdecimal():
        raise ValidationError(f"--older-than '{given}' is no time.", hint="Say a number and a unit: 30d, 12h, 90m, 45s.")
    return float(number) * units[unit]


@app.command()
def resume(
    run_id: RunId,
    input_: Inputs = None,
    answer: Annotated[
        list[str] | None, typer.Option("--answer", metavar="NODE=TEXT", help="Answer of a user_response node, also of a sub-diagram.")
    ] = None,
    as_json: AsJson = False,
    timeout: Annotated[float | None, typer.Option("--timeout", metavar="S", help="Seconds for what is left.")] = None,
    base_dir: BaseDir = None,
    trust: Trusting = False,
    pin: Pin = None,
    allow: Allowing = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    diagram: Annotated[
        str | None, typer.Option("--diagram", metavar="FILE", help="What ran, when it held a credential and has moved since.")
    ] = None,
) -> int:
    """Go on with a run that was cut off, failed or was stopped; what had finished is not done again.

    --input is for inputs that held secrets, which are not recorded.
    """
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.container import Runtime
    from dipeo_nb.execution.interaction import GivenAnswers

    with Runtime(_settings(base_dir)) as runtime:
        feed: Feed = queue.SimpleQueue()
        found = run_sync(runtime.summary(run_id)).run_id
        document = None if diagram is None else _loaded(diagram, None, runtime.settings)

        def recover(said: bool | str | None, by: str = "") -> Recovery:
            return run_sync(runtime.recover(found, diagram=document, variables=_inputs(input_ or ()), trust=said, allow=_allowed(allow), by=by))

        recovery = _decided(runtime, recover, pin or (trust or None), ask=True)
        execution = runtime.execution(
            recovery.prepared,
            model=recovery.model,
            own_models=recovery.own_models,
            timeout=timeout,
            max_iterations=recovery.max_iterations,
            interaction=GivenAnswers(_answers(answer or (), recovery.prepared.plan, runtime.settings.base_dir), _keyboard(feed)),
            source=recovery.recovered.events[0].payload["source"],
            recovered=recovery.recovered,
        )
        view = _view(quiet)
        view.catch_up(recovery.recovered.events)
        state = _followed(runtime, execution, feed, view)
    return _reported(state, as_json)


@app.command()
def answer(
    run_id: RunId,
    answer: Annotated[
        str, typer.Argument(metavar="[NODE=]TEXT", help="The answer; NODE is a label, or SUB/NODE. Without it: the only question.")
    ],
    base_dir: BaseDir = None,
) -> int:
    """Answer a question of a run that waits for one, here or in another process or machine.

    A run that was interrupted takes the answer when it is resumed.
    """
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.container import Runtime

    with Runtime(_settings(base_dir)) as runtime:
        row, node = run_sync(_answered(runtime, run_id, answer))
    print(f"Answered: {safe(node, 60)} of {row.run_id}")
    if row.status == "interrupted":
        say("The run was interrupted.", f"hint: dipeo-nb resume {row.run_id} goes on with the answer.")
    return DONE


async def _answered(runtime: Runtime, run_id: str, given: str) -> tuple[RunSummary, str]:
    """Give the answer of `NODE=TEXT`, or of a bare TEXT; the row of the run, and the node that asked."""
    from dipeo_nb.execution.nested import question_names
    from dipeo_nb.execution.questions import path_of, unanswered

    row = await runtime.summary(run_id)
    waiting = unanswered(await runtime.services.store.events(row.run_id))
    # Labels may hold `=`, so the longest name that fits wins.
    for at in (at for at in range(len(given) - 1, -1, -1) if given[at] == "="):
        name = given[:at]
        if any(name == p["node_id"] or name in question_names(path_of(p)) for p in waiting.values()):
            return await runtime.answer(row.run_id, given[at + 1 :], node=name), name
    if "=" in given:  # the name of a question that is over, or never was
        await runtime.answer(row.run_id, given, node=given.partition("=")[0])
    name = "/".join(path_of(next(iter(waiting.values())))) if waiting else ""
    return await runtime.answer(row.run_id, given), name


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
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.container import Runtime

    with Runtime(_settings(base_dir)) as runtime:
        apart, replaying = run_sync(runtime.replay(run_id, speed=speed, max_pause=max_pause))
        state = _followed(apart, replaying, queue.SimpleQueue(), _view(quiet=False))
    return _reported(state, as_json)


@app.command()
def diff(before: RunId, after: RunId, base_dir: BaseDir = None) -> int:
    """Say what is different between two runs: model, inputs, the diagram, what every node did. Exit code 1: something is."""
    from dipeo_nb.execution.compare import compare

    states = _recorded_states(base_dir, before, after)
    found = compare(*(state for state, _ in states))
    print(_for_terminal(str(found)))
    return FAILED if found.different else DONE


@app.command()
def explain(run_id: RunId, base_dir: BaseDir = None) -> int:
    """Say in words and a table where the time and the money of a run went."""
    from dipeo_nb.execution.metrics import measure, told

    ((state, events),) = _recorded_states(base_dir, run_id)
    metrics = replace(measure(events), status=str(state.status))
    console = new_console(stderr=False)
    console.print(safe(" ".join(told(metrics))))
    if rows := metrics.rows:
        table = new_table(*rows[0])
        for row in rows:
            table.add_row(*(safe("" if value is None else value, 60) for value in row.values()))
        console.print(table)
    return DONE


@app.command()
def export(
    run_id: RunId,
    out: Annotated[
        str,
        typer.Option("--out", "-o", metavar="FILE", help="FILE.jsonl: its events, a line each; FILE.json: its report."),
    ],
    base_dir: BaseDir = None,
) -> int:
    """Write a recorded run to a file of its own."""
    from dipeo_nb.common.atomic import write_atomic
    from dipeo_nb.execution.state.blobs import lines

    ((state, events),) = _recorded_states(base_dir, run_id)
    match Path(out).suffix.lower():
        case ".jsonl":
            text = "".join(f"{line}\n" for line in lines(events))
        case ".json":
            text = json_text(state.report(), indent=2) + "\n"
        case other:
            raise ValidationError(f"A run is not written as '{other}'.", hint="Say -o FILE.jsonl or FILE.json.")
    write_atomic(Path(out), text.encode())
    return DONE


def _recorded_states(base_dir: str | None, *run_ids: str) -> list[tuple[RunState, list[Event]]]:
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.container import Runtime
    from dipeo_nb.execution.fold import RunState

    async def read(runtime: Runtime, run_id: str) -> tuple[RunState, list[Event]]:
        row = await runtime.summary(run_id)
        events = await runtime.services.store.events(row.run_id)
        return RunState.fold(events), events

    with Runtime(_settings(base_dir)) as runtime:
        return [run_sync(read(runtime, run_id)) for run_id in run_ids]


@app.command()
def serve(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Default: DIPEO_PORT, else 8000; 0: a free one.")
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen at. Default: this machine only.")
    ] = None,
    base_dir: BaseDir = None,
) -> int:
    """Run diagrams over HTTP, and follow their events (server-sent). Everything needs the token that is printed, or that of
    DIPEO_SERVE_TOKEN.

    POST /runs {"diagram": NAME, "inputs": {…}} starts a run; GET /runs/ID/events follows it from any event on; GET /runs and
    /runs/ID look; POST /runs/ID/stop and /answer.
    """
    from dipeo_nb.container import Runtime
    from dipeo_nb.server import RunServer
    from dipeo_nb.server import serve as listen

    settings = _settings(base_dir)

    def ready(server: RunServer, listening: int) -> None:
        name = "127.0.0.1" if settings.host in ("localhost", "::1") else host or settings.host
        say(f"Listening at http://{name}:{listening}", "Ctrl-C ends it." if token is None else "Its token is that of DIPEO_SERVE_TOKEN.")
        if token is None:  # what somebody has set, they know
            print(server.token, flush=True)

    token = settings.serve_token.get_secret_value() if settings.serve_token else None
    listen(
        Runtime(settings),
        host=host or settings.host,
        port=settings.port if port is None else port,
        token=token,
        ready=ready,
    )
    return DONE


@app.command()
def schema() -> int:
    """Print the JSON Schema of the light format, for editors."""
    from dipeo_nb.diagram.schema import light_schema

    print(visible_json(json_text(light_schema(), indent=2)))
    return DONE


@app.command()
def demo(
    topic: Annotated[str, typer.Option("--topic", help="What the debate is about.")] = "a cat as the new boss",
    model: Annotated[str, typer.Option("--model", "-m", metavar="MODEL", help="local, echo, openai:NAME …")] = "local",
    as_json: AsJson = False,
) -> int:
    """Run the packaged debate of three persons, on a small model in this machine by default."""
    settings = _settings(None)
    if model == "local":
        _pull(settings, settings.local_model)
    state = _carry_out(_Order(str(demo_diagram()), settings, {"topic": topic}, model=model))
    return _reported(state, as_json)


def demo_diagram() -> Path:
    """The packaged debate."""
    return Path(__file__).parent / "demo" / "debate.light.yaml"


@models.callback(invoke_without_command=True)
def _models(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is not None:
        return
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.llm import catalogue
    from dipeo_nb.security.keys import APIKeyChain

    settings = _settings(None)
    rows = run_sync(catalogue.services(settings, APIKeyChain.of(settings)))
    if as_json:
        print(visible_json(json_text({"services": [row._asdict() for row in rows]})))
        return
    table = new_table("service", "ready", "key", "default model", "can")
    for row in rows:
        ready = "yes" if row.ready else f"no: {row.why_not}"
        table.add_row(row.service, ready, row.key, row.model, ", ".join(row.abilities))
    new_console(stderr=False).print(table)
    for row in rows:
        if row.ends:
            print(safe(f"{row.service}: {row.ends}.", 300))


@models.command("list")
def models_list(as_json: AsJson = False) -> int:
    """List the embedded models and which of them are here."""
    from dipeo_nb.llm import model_store

    rows = model_store.list_models(_settings(None))
    if as_json:
        print(visible_json(json_text({"models": [row._asdict() for row in rows]})))
        return DONE
    table = new_table("model", "size", "here", "about")
    for row in rows:
        table.add_row(row.name, _megabytes(row.size), "yes" if row.path else "no", row.summary)
    new_console(stderr=False).print(table)
    return DONE


@models.command("check")
def models_check(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE]...", help="Diagrams, notebooks, Python files, other texts, folders. Default: this folder."),
    ] = None,
    within: Annotated[int, typer.Option("--within", metavar="DAYS", help="List what ends within so many days.")] = 90,
    fix: Annotated[bool, typer.Option("--fix", help="Write the recommended replacements into the files.")] = False,
    on: Annotated[str | None, typer.Option("--on", metavar="DATE", help="As of that day (2027-01-31); default: today.")] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Ask the providers whose keys are here for dates, too; that costs nothing.")] = False,
    as_json: AsJson = False,
    base_dir: BaseDir = None,
) -> int:
    """List the models named in files and settings that their providers shut down soon, with what replaces them.

    The exit code is 1 when there is one (with --fix: one that is left). Models on servers other than the provider's own are not
    judged.
    """
    from datetime import date

    from dipeo_nb.common import clock
    from dipeo_nb.domain import lifecycle
    from dipeo_nb.llm import model_check

    settings = _settings(base_dir)
    days = model_check.checked_within(within)
    try:
        day = clock.today() if on is None else date.fromisoformat(on)
    except ValueError:
        raise ValidationError(f"--on '{on}' is no date.", hint="Say e.g. --on 2027-01-31.") from None
    with clock.on(day), lifecycle.announced(_announced_ends(settings) if ask else {}):
        found = model_check.check(files or [str(settings.base_dir)], settings, within=days)
        left = model_check.fix(found, settings) if fix else found
    if as_json:
        rows = [{**mention.report(), "fixed": mention not in left} for mention in found]
        print(visible_json(json_text({"on": str(day), "within": days, "models": rows})))
        return FAILED if left else DONE
    for mention in found:
        print(safe(f"{mention}{'' if mention in left else ' (replaced)'}", 500))
    if not found:
        print(f"No model that is named ends within {days} days.")
    elif fix and left:
        say(f"{_count(len(left), 'place')} left: change them by hand.")
    elif not fix:
        say(f"{_count(len(found), 'place')}. hint: --fix writes the replacements into the files")
    return FAILED if left else DONE


def _announced_ends(settings: Settings) -> dict[str, dict[str, date]]:
    """What the providers say that can be asked; why one could not be is said on stderr."""
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.errors import APIKeyNotFoundError
    from dipeo_nb.llm.service import LLMService
    from dipeo_nb.security.keys import APIKeyChain

    async def asked() -> dict[str, dict[str, date]]:
        llm = LLMService(settings, APIKeyChain.of(settings))
        found: dict[str, dict[str, date]] = {}
        try:
            for service in ("openai", "anthropic"):
                try:
                    found[service] = await llm.announced_ends(service)
                except APIKeyNotFoundError:
                    continue
                except DipeoError as error:
                    say(f"{service}: not asked. {safe(str(error), 300)}")
        finally:
            await llm.cleanup()
        return found

    return run_sync(asked())


@models.command("pull")
def models_pull(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Default: the model of --model local.")] = None,
) -> int:
    """Fetch an embedded model, with its checksum checked."""
    settings = _settings(None)
    print(_pull(settings, name or settings.local_model))
    return DONE


KeyName = Annotated[
    str, typer.Argument(metavar="NAME", help="A service (openai, github …) or the id of a key (APIKEY_…).")
]


@keys.command("list")
def keys_list(as_json: AsJson = False) -> int:
    """List the keys, masked: of each service, the first is used."""
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.security.keys import APIKeyChain, overview

    rows = run_sync(overview(APIKeyChain.of(_settings(None))))
    if as_json:
        print(visible_json(json_text({"keys": rows})))
        return DONE
    table = new_table(*rows[0])
    for row in rows:
        table.add_row(*(safe(cell, 40) for cell in row.values()))
    new_console(stderr=False).print(table)
    return DONE


@keys.command("set")
def keys_set(
    name: KeyName,
    extra: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    service: Annotated[str | None, typer.Option("--service", help="Of a key that is named by its id.")] = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt the file of keys; asks for a new passphrase.")
    ] = False,
) -> int:
    """Store a key. It is asked for, or read from stdin: `dipeo-nb keys set openai < FILE`."""
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.security.keys import APIKeyService, EnvironmentAPIKeyService, checked_name

    if extra:
        raise ValidationError(
            "A key is not given on the command line, where the history and other users see it.",
            hint="Remove it from the history of your shell; then run `dipeo-nb keys set SERVICE` and paste it when asked.",
        )
    settings, name = _settings(None), checked_name(name)
    stored = APIKeyService(settings=settings)
    _unlock(stored)
    if encrypt:
        run_sync(stored.protect(_new_passphrase()))
    key = _hidden(f"Key of {name}: ") if _interactive() else sys.stdin.read()
    run_sync(stored.set_api_key(name, key, service=service))
    row = next(r for r in run_sync(stored.list_api_keys()) if name in (r["id"], r["service"]))
    print(f"Stored in the {row['source']}: {row['id']} {row['service']} {row['key']}")
    for other in run_sync(EnvironmentAPIKeyService(settings).list_api_keys()):
        if other["service"] == name:
            say(f"{other['label']} is set, too, and goes first.")
    return DONE


@keys.command("delete")
def keys_delete(name: KeyName) -> int:
    """Forget a stored key."""
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.security.keys import APIKeyChain

    chain = APIKeyChain.of(_settings(None))
    _unlock(chain)
    run_sync(chain.delete_api_key(name))
    print(f"Deleted: {safe(name)}")
    return DONE


@keys.command("test")
def keys_test(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Services or ids of keys. Default: all that can be tested."),
    ] = None,
) -> int:
    """Ask the providers whether they take the keys; that costs nothing. The exit code is 1 when one does not."""
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.llm.service import LLMService
    from dipeo_nb.security.keys import APIKeyChain, checked_name

    asked = [checked_name(name) for name in names or ()]
    settings = _settings(None)
    chain = APIKeyChain.of(settings)
    _unlock(chain)
    rows = run_sync(chain.list_api_keys())

    async def ask() -> list[bool]:
        llm = LLMService(settings, chain)
        try:
            return [await _takes(llm, name, rows) for name in asked or _testable(rows)]
        finally:
            await llm.cleanup()

    good = run_sync(ask())
    if not good:
        say("There is no key to test.", "hint: dipeo-nb keys set SERVICE stores one.")
    return DONE if good and all(good) else FAILED


async def _takes(llm: LLMService, name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the provider takes a key; said on stdout, and why it could not be asked."""
    row = next((r for r in rows if r["id"] == name), None)
    try:
        if row is None:
            fine = await llm.validate_api_key(name)
        else:
            fine = await llm.validate_api_key(row["service"], api_key_id=row["id"])
    except DipeoError as error:
        print(f"{safe(name)}: not tested. {safe(str(error))}")
        return False
    print(f"{safe(name)}: {'accepted' if fine else 'refused by the provider'}")
    return fine


def _testable(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose services can say whether they take them: by service where that names the key, else by id."""
    from dipeo_nb.llm import providers

    names: list[str] = []
    for row in rows:
        service = str(row["service"])
        if service in providers.services() and hasattr(providers.client_class(service), "check_key"):
            names.append(str(row["id"]) if service in names else service)
    return names


# A run, from the order to the exit code.


@dataclass(frozen=True)
class _Order:
    """What the user wants run, and how."""

    file: str
    settings: Settings
    variables: Mapping[str, Any]
    answers: Sequence[str] = ()
    model: str | None = None
    timeout: float | None = None
    trust: bool | str | None = None
    allow: tuple[str, ...] | None = None
    quiet: bool = False
    format: str | None = None
    questions: bool = True
    """Whether somebody may be asked."""


STDIN = "-"
"""The name of a diagram that comes through a pipe."""


def _loaded(file: str, format: str | None, settings: Settings) -> Diagram:
    """The diagram of a file, of a name, or of stdin."""
    from dipeo_nb.diagram.document import load, load_text

    if file != STDIN:
        return load(file, format=format, base_dir=settings.base_dir)
    if sys.stdin is None or sys.stdin.isatty():
        raise ValidationError("Nothing comes through a pipe.", hint="Say e.g. `cat diagram.yaml | dipeo-nb validate -`.")
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValidationError(f"What comes through the pipe is not UTF-8: {error.reason}.", hint="Convert it first.") from error
    return load_text(text, format=format, base_dir=settings.base_dir)


def _carry_out(order: _Order) -> RunState:
    """Load, check, run and watch; the state at the end. Raises UserError when nothing was run."""
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.container import Runtime
    from dipeo_nb.execution.interaction import GivenAnswers, NoAnswers

    runtime = Runtime(order.settings)
    document = _loaded(order.file, order.format, order.settings)
    prepared = _prepare(runtime, document, order)
    plan = prepared.plan
    run_sync(runtime.check_settings(plan, model=order.model))
    if not order.quiet:
        moved = "model-ends" if order.model is not None else ""  # nobody asks the models of the diagram
        shown = [d for d in plan.diagnostics if d.severity != "info" and d.code != moved]
        _show_diagnostics([d for d in shown if not _settled(d, order.variables)])
        _warn_of_unused(order.variables, plan, order.settings.base_dir)
    feed: Feed = queue.SimpleQueue()
    otherwise = _keyboard(feed) if order.questions else NoAnswers()
    answers = GivenAnswers(_answers(order.answers, plan, order.settings.base_dir), otherwise)
    with runtime:
        execution = runtime.execution(
            prepared,
            variables=order.variables,
            model=order.model,
            timeout=order.timeout,
            interaction=answers,
            source=json.loads(document.to_text("native")),
        )
        return _followed(runtime, execution, feed, _view(order.quiet))


def _followed(runtime: Runtime, execution: Execution | Replay, feed: Feed, view: View) -> RunState:
    """Run to the end and watch."""
    from dipeo_nb.common.loop import submit
    from dipeo_nb.errors import StorageError

    bus = runtime.services.bus

    async def work() -> RunState:
        await runtime.initialize()
        subscription = bus.subscribe(feed.put, run_id=execution.run_id)
        try:
            try:
                await execution.run()
            except StorageError:  # the end is not recorded, but the state tells it
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
    from dipeo_nb.execution.interaction import ConsoleAnswers

    return TerminalAnswers(feed) if _interactive() else ConsoleAnswers()


def _prepare(runtime: Runtime, document: Diagram, order: _Order) -> Prepared:
    """The plan and what it may do; asks where somebody is there to be asked."""
    from dipeo_nb.common.loop import run_sync

    def prepared(trust: bool | str | None, by: str = "") -> Prepared:
        return runtime.prepare(
            document, trust=trust, allow=order.allow, foreign=order.file == STDIN, model=order.model, by=by
        )

    def needed() -> SettingNotApprovedError | None:
        try:
            run_sync(runtime.check_settings(runtime.compile(document), model=order.model))
        except SettingNotApprovedError as error:
            return error
        return None

    return _decided(runtime, prepared, order.trust, ask=order.questions, needed=needed)


def _decided(
    runtime: Runtime,
    prepare: Callable[..., Answered],
    trust: bool | str | None,
    *,
    ask: bool,
    needed: Callable[[], SettingNotApprovedError | None] = lambda: None,
) -> Answered:
    """What *prepare* gives; asks once, where somebody is there to be asked, when it is refused for want of trust.

    Args:
        prepare: called with `trust`, and `by` for the record.
        needed: the error of a setting that the run needs and that waits for a yes, too, so that one answer does for both.
    """
    from dipeo_nb.security import folder_settings

    try:
        return prepare(trust)
    except TrustError as error:
        if not (ask and _interactive()) or "pin" not in error.facts or error.facts["declined"]:
            raise
        say(error.message, *error.listing())
        folder = error.facts["folder"]
        of_folder = error.facts["settings"]
        waits = needed()
        place = waits.facts["folder"] if waits is not None else None
        declined = place is not None and folder_settings.declined_settings(place, settings=runtime.settings)
        wanted = folder_settings.pending_settings(place, settings=runtime.settings) if place and not declined else ()
        if wanted:
            say(f"It needs these settings of {place}, which say where your words, keys and records go:", *(f"  {setting}" for setting in wanted))
        if of_folder and (more := [setting for setting in of_folder if setting not in wanted]):
            say(f"With [f], these settings of {folder} have effect, too:", *(f"  {setting}" for setting in more))
        choices = "[y] this, as it is now" + (f"   [f] everything in {folder}" if folder else "") + "   [N]"
        sys.stderr.write(f"\nCode can do everything that you can. Run it?  {safe(choices)} > ")
        sys.stderr.flush()
        answer = sys.stdin.readline().strip().lower()
        chosen = folder if answer == "f" else None
        if answer not in ("y", "yes") and chosen is None:
            runtime.trust.decline(error.facts["digest"])
            raise TrustError(error.message, hint=error.hint) from None  # the list has been shown
        if wanted and place is not None and place != chosen:
            folder_settings.approve_settings(place, settings=runtime.settings, shown=wanted)
        if chosen is not None:
            runtime.trust.trust_folder(Path(chosen), shown=of_folder)
            return prepare(trust)
        return prepare(error.facts["pin"], by="prompt")  # exactly what was shown


def _approved(error: SettingNotApprovedError) -> bool:
    """Ask, where somebody can be asked and has not said no before, whether the folder's settings shall have effect."""
    from dipeo_nb.config import reset_settings
    from dipeo_nb.security import folder_settings

    folder = error.facts["folder"]
    settings = _settings(None)
    if not _interactive() or folder_settings.declined_settings(folder, settings=settings):
        return False
    say(f"{folder} brings settings that say where your words, keys and records go:")
    shown = folder_settings.pending_settings(folder, settings=settings)
    say(*(f"  {setting}" for setting in shown))
    sys.stderr.write("Use them, as they are now? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        folder_settings.decline_settings(folder, settings=settings)
        return False
    folder_settings.approve_settings(folder, settings=settings, shown=shown)
    reset_settings()
    return True


def _allowed(given: Sequence[str] | None) -> tuple[str, ...] | None:
    """`--allow read=a,write=b/,code` as single permissions; a value that lists several paths repeats the kind."""
    if not given:
        return None
    parts: list[str] = []
    for text in given:
        for part in text.split(","):
            kind = parts[-1].partition("=")[0] if parts and "=" not in part and part.strip() not in ALLOWED_KINDS else ""
            parts.append(f"{kind}={part.strip()}" if kind else part.strip())
    return tuple(parts)


Answered = TypeVar("Answered")
ALLOWED_KINDS = ("read", "write", "net", "code", "process", "service", "function", "diagram", "model", "event")


def _settled(diagnostic: Diagnostic, variables: Mapping[str, Any]) -> bool:
    """Whether it warns of a name that no arrow brings, and the run was given that name."""
    return diagnostic.code == "unknown-name" and any(f"'{name}'" in diagnostic.message for name in variables)


def _warn_of_unused(variables: Mapping[str, Any], plan: Plan, base_dir: Path) -> None:
    """Inputs that nothing in the diagram names are probably misspelt."""
    if not variables:
        return
    from dipeo_nb.diagram.fields import nearest
    from dipeo_nb.execution.used_names import UsedNames

    used = UsedNames(plan, base_dir)
    for name in used.unknown(variables):
        near = nearest(name, sorted(used.names))
        say(f"warning: nothing in the diagram names the input '{safe(name, 80)}'." + (f" Did you mean '{safe(near)}'?" if near else ""))


def _watch(execution: Execution | Replay, feed: Feed, view: View) -> None:
    """Show what happens until the run has ended. Ctrl-C stops the run in order; a second one leaves at once."""

    def stop(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        view.note("Stopping … (Ctrl-C again to leave at once)")
        execution.stop(f"interrupted by {signal.Signals(signum).name}")

    with _handling(stop, signal.SIGINT, signal.SIGTERM, *_hangup()), view:
        while True:
            try:
                item = feed.get(timeout=view.interval)
            except queue.Empty:
                view.tick()
                continue
            if item is None:
                return
            if isinstance(item, Asked):
                with view.paused():
                    put(item, execution)
            else:
                view.show(item)
                view.tick()


def _reported(state: RunState, as_json: bool) -> int:
    """Outputs on stdout, the last words on stderr; the exit code."""
    if as_json:
        print(visible_json(json_text(state.report())))
    else:
        _show_outputs(state)
    return _conclude(state)


def _conclude(state: RunState) -> int:
    """The last words on stderr, and the exit code."""
    if state.status == "completed":
        return DONE
    error = state.error or {}
    where = f" (node '{error['node']}')" if error.get("node") else ""
    say(f"error: {error.get('message') or state.status}{where}")
    _show_traceback(error.get("traceback"))
    if error.get("hint"):
        say(f"hint: {error['hint']}")
    return INTERRUPTED if state.status == "aborted" else FAILED


def _show_traceback(text: Any) -> None:
    """The last lines of the traceback of a diagram's code."""
    lines = str(text or "").rstrip().splitlines()
    if len(lines) > TRACEBACK_LINES:
        lines = ["…", *lines[-TRACEBACK_LINES:]]
    for line in lines:
        say(f"  {line}")


TRACEBACK_LINES = 12


def _refusal(file: str, error: BaseException) -> dict[str, Any]:
    """The same shape for a run that never began, or whose end could not be recorded."""
    status = (
        "refused" if isinstance(error, UserError) else "aborted" if isinstance(error, KeyboardInterrupt) else "failed"
    )
    facts = {
        "type": type(error).__name__,
        "message": getattr(error, "message", None) or str(error) or "interrupted",
        "node": getattr(error, "node", None),
        "hint": getattr(error, "hint", None),
    }
    return {
        "run_id": getattr(error, "run_id", None), "status": status, "diagram": file, "outputs": {}, "node_runs": {},
        "node_status": {}, "usage": {}, "cost_usd": None, "duration_s": 0.0, "events": 0, "error": facts,
    }  # fmt: skip


def _view(quiet: bool) -> View:
    if quiet:
        return View()
    return Live() if sys.stderr.isatty() and not new_console().is_dumb_terminal else Lines()


# Input.


def _settings(base_dir: str | None) -> Settings:
    """The settings, with another base directory if one is given."""
    from dipeo_nb.config import get_settings

    settings = get_settings()
    _log_from(settings.log_level)
    name, path = ("DIPEO_BASE_DIR", settings.base_dir) if base_dir is None else ("--base-dir", Path(base_dir))
    if not path.is_dir():
        raise ConfigurationError(f"{name} {path} is not a folder.", hint="Name a folder that exists.")
    return settings.model_copy(update={"base_dir": path.resolve()})


def _log_from(level: str) -> None:
    """What the package logs goes to stderr, from this level on."""
    logger = logging.getLogger("dipeo_nb")
    logger.setLevel(level)
    if not any(type(handler) is logging.StreamHandler for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)


def _inputs(given: Sequence[str]) -> dict[str, Any]:
    """`k=v` pairs; a value is JSON if it parses, else text."""
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ValidationError(
                f"--input '{text}' is not NAME=VALUE.", hint="Say e.g. --input topic='tabs or spaces'."
            )
        try:
            values[name.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            values[name.strip()] = value
    return values


def _inputs_file(given: str | None) -> dict[str, Any]:
    """The JSON object that *given* is, or that the file of that name holds."""
    if given is None:
        return {}
    hint = 'It must be one JSON object, e.g. {"topic": "tabs or spaces"}, or a file that holds one.'
    here = given.lstrip().startswith(("{", "[", '"'))
    name = "--inputs" if here else f"--inputs {given}"
    try:
        data = json.loads(given if here else Path(given).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValidationError(f"{name} cannot be read: {error.strerror or error}.", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"{name} is not JSON: {error}.", hint=hint) from error
    if not isinstance(data, dict):
        raise ValidationError(f"{name} holds {_json_kind(data)}, not an object.", hint=hint)
    return data


def _json_kind(value: object) -> str:
    kinds = {list: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)


def _answers(given: Sequence[str], plan: Plan, base_dir: Path) -> dict[str, list[str]]:
    """`NODE=TEXT` pairs by node, also of sub-diagrams; labels may hold `=`, so the longest name that fits wins."""
    from dipeo_nb.execution.nested import askers

    answers: dict[str, list[str]] = {}
    if not given:
        return answers
    asking = askers(plan, base_dir)
    for text in given:
        ends = (at for at in range(len(text) - 1, -1, -1) if text[at] == "=")
        at = next((at for at in ends if asking.known(text[:at])), -1)
        if at < 0 and asking.open:
            at = text.find("=")
        if at < 0:
            hint = "Leave --answer out."
            if asking.names:
                names = ", ".join(f"'{safe(name, 60)}'" for name in asking.names)
                close = safe(asking.suggestion(text.partition("=")[0]))
                hint = f"{close}It has: {names}. Say e.g. --answer '{safe(asking.names[0], 60)}=yes'."
            raise ValidationError(f"--answer '{text}' names no user_response node of this diagram in the form NODE=TEXT.", hint=hint)
        answers.setdefault(text[:at], []).append(text[at + 1 :])
    return answers


def _format(to: str | None, output: str | None) -> str:
    from dipeo_nb.diagram.detect import check_format, format_of_name

    hint = "Say --to light, --to native, --to readable or --to executable."
    found = check_format(to) if to is not None else format_of_name(output or "")
    if found is None:
        raise ValidationError("Which format?" if to is None else f"'{to}' may be light or readable.", hint=hint)
    return found


def _unlock(stored: APIKeyService | APIKeyChain) -> None:
    """Ask for the passphrase of encrypted keys when somebody is there to be asked; else DIPEO_KEYS_PASSPHRASE is missed."""
    if stored.locked and _interactive():
        stored.unlock(_hidden("Passphrase of the stored keys: "))


def _new_passphrase() -> str:
    if not _interactive():
        raise ValidationError(
            "Nobody can be asked for a passphrase here.", hint="Set DIPEO_KEYS_PASSPHRASE instead of --encrypt."
        )
    passphrase = _hidden("New passphrase of the stored keys: ")
    if _hidden("Again: ") != passphrase:
        raise ValidationError("The two passphrases differ.", hint="Try again; nothing was stored.")
    return passphrase


def _hidden(question: str) -> str:
    """An answer that the terminal does not show."""
    from getpass import getpass

    return getpass(safe(question, 200), stream=sys.stderr)


def _interactive() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


# Output.


def _complain(error: DipeoError) -> None:
    """One message, the findings it rests on, and the next action."""
    say(f"error: {error.message}")
    for diagnostic in getattr(error, "diagnostics", ()):
        if str(diagnostic) not in error.message:  # the compiler's message lists the first ten itself
            say(f"  {diagnostic}")
    if isinstance(error, TrustError) and (lines := error.listing()):
        say("It would run with your rights:", *lines)
    if error.hint:
        say(f"hint: {error.hint}")


def _show_diagnostics(found: Sequence[Diagnostic]) -> None:
    """Findings on stderr, the errors in red when a terminal shows them."""
    from rich.text import Text

    console = new_console()
    styles = {"error": "red", "warning": "yellow", "info": "dim"}
    for diagnostic in found:
        console.print(Text(safe(str(diagnostic)), style=styles.get(str(diagnostic.severity), "")), soft_wrap=True)


def _show_outputs(state: RunState) -> None:
    """One output bare, several under their labels; text as it is, everything else as JSON."""
    for label, value in state.outputs.items():
        if len(state.outputs) > 1:
            print(f"{_for_terminal(label)}:")
        if value is not None:
            print(_for_terminal(value if isinstance(value, str) else json_text(value, indent=2)))


def _show_runs(rows: Sequence[RunSummary], states: Sequence[RunState | None], *, full: bool) -> None:
    import time

    from dipeo_nb.execution.run_list import listed

    console = new_console(stderr=False)
    columns = ["run", "diagram", "status", "started"]
    if full or console.width >= 80:
        columns += ["took", "tokens", "cost"]
    if full or console.width >= 110:
        columns += ["model", "events"]
    table = new_table(*columns)
    for row, texts in zip(rows, listed(rows, states, time.time()), strict=True):
        shown = texts._replace(run=row.run_id, started=texts.at) if full else texts
        table.add_row(*(safe(getattr(shown, name), 60) for name in columns))
    console.print(table)


def _as_diagnostic(error: DipeoError, file: str) -> Diagnostic:
    from dipeo_nb.domain.diagnostics import Diagnostic
    from dipeo_nb.domain.enums import Severity

    facts = error.facts
    place = ":".join(str(facts[k]) for k in ("file", "line", "column") if facts.get(k) is not None)
    return Diagnostic(
        Severity.ERROR,
        error.code.replace("_", "-"),
        error.message.removeprefix(f"{place}: ") if place else error.message,
        hint=error.hint,
        file=facts.get("file") or file,
        line=facts.get("line"),
        column=facts.get("column"),
    )


def _found_here(settings: Settings, document: Diagram) -> list[Diagnostic]:
    """The findings about a valid diagram, with what of it cannot run here."""
    from dipeo_nb.container import Runtime
    from dipeo_nb.errors import InvalidDiagramError

    try:
        return list(Runtime(settings).compile(document).diagnostics)
    except InvalidDiagramError as error:
        return list(error.diagnostics)


def _verdict(file: str, document: Diagram | None, valid: bool, found: Sequence[Diagnostic]) -> dict[str, Any]:
    """What `validate --json` prints."""
    from dataclasses import asdict

    return {
        "file": file,
        "valid": valid,
        "diagram": document.name if document else None,
        "format": document.format if document else None,
        "nodes": len(document.nodes) if document else 0,
        "diagnostics": [asdict(d) for d in found],
    }


def _pull(settings: Settings, name: str) -> Path:
    """Fetch a model unless it is here, with a progress bar on a terminal."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.llm import model_store

    console = new_console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"Model {name}", total=None)

        def show(text: str, done: int | None = None, total: int | None = None) -> None:
            bar.update(task, description=text, completed=done or 0, total=total)

        return run_sync(model_store.ensure(settings, name, on_progress=show))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f} MB"


def _for_terminal(text: str) -> str:
    """Results go out as they are, except to a terminal."""
    return safe(text) if sys.stdout.isatty() else text


# Signals.


@contextlib.contextmanager
def _handling(handler: Callable[[int, Any], None], *signals: int) -> Iterator[None]:
    """Give *signals* another handler for a while; in other threads than the main one nothing happens."""
    try:
        before = {number: signal.signal(number, handler) for number in signals}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _hangup() -> list[int]:
    """SIGHUP, where there is one and `nohup` does not want it ignored."""
    number = getattr(signal, "SIGHUP", None)
    return [number] if number is not None and signal.getsignal(number) is not signal.SIG_IGN else []


def _terminated_like_ctrl_c() -> contextlib.AbstractContextManager[None]:
    """SIGTERM ends a command as Ctrl-C does: in order, with exit code 130."""

    def leave(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    return _handling(leave, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
