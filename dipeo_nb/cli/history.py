"""`dipeo-nb runs`, `answer`, `diff`, `explain` and `export`: work on recorded runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipeo_nb.cli import completion
from dipeo_nb.cli.arguments import settings_for
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.group import COMMANDS
from dipeo_nb.cli.options import AsJson, BaseDir, RunId
from dipeo_nb.cli.output import count, for_terminal
from dipeo_nb.common import lazy
from dipeo_nb.common.atomic import replacing, write_atomic
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.text import did_you_mean, visible_json
from dipeo_nb.common.values import json_text
from dipeo_nb.config import without_password
from dipeo_nb.container import run_store
from dipeo_nb.domain.enums import Status
from dipeo_nb.domain.events import Event, RunSummary
from dipeo_nb.errors import ValidationError
from dipeo_nb.execution.run_list import listed, recorded_states
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.execution.snapshots import read_run, recorded_state
from dipeo_nb.terminal import new_console, new_table, safe, say

if TYPE_CHECKING:
    from dipeo_nb import runtime as runtimes
    from dipeo_nb.execution import asked as questions
    from dipeo_nb.execution import metrics as measuring
    from dipeo_nb.execution import nested as nested_runs
    from dipeo_nb.execution import run_diff as comparing
    from dipeo_nb.execution import run_file as run_files
    from dipeo_nb.execution.state import blobs
    from dipeo_nb.runtime import Runtime, lookup
else:  # listing runs needs none
    runtimes = lazy.module("dipeo_nb.runtime")
    comparing = lazy.module("dipeo_nb.execution.run_diff")
    measuring = lazy.module("dipeo_nb.execution.metrics")
    nested_runs = lazy.module("dipeo_nb.execution.nested")
    run_files = lazy.module("dipeo_nb.execution.run_file")
    questions = lazy.module("dipeo_nb.execution.asked")
    blobs = lazy.module("dipeo_nb.execution.state.blobs")
    lookup = lazy.module("dipeo_nb.runtime.lookup")

app: typer.Typer = typer.Typer()
runs: typer.Typer = typer.Typer(help=COMMANDS["runs"].help, no_args_is_help=False)
app.add_typer(runs, name="runs")


@runs.callback(invoke_without_command=True)
def _runs(
    context: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Newest runs shown.")] = 20,
    status: Annotated[
        str | None,
        typer.Option(
            "--status", autocompletion=completion.statuses, help="Only these: completed, failed, aborted, interrupted …"
        ),
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
    """List the recorded runs, newest first; `delete`, `prune` and `condense` some."""
    if context.invoked_subcommand is not None:
        return ExitCode.DONE
    _check_status(status)
    settings = settings_for(base_dir)
    place = settings.run_store
    rows: list[Any] = []
    states: list[Any] = []
    if isinstance(place, str) or (place is not None and place.exists()):

        async def read() -> tuple[list[Any], list[Any]]:
            store = run_store(settings)
            await store.initialize()
            try:
                whole = None if parent is None else (await lookup.run_named(store, parent)).run_id
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
    return ExitCode.DONE


@runs.command("delete")
def runs_delete(
    run_ids: Annotated[
        list[str], typer.Argument(metavar="RUN...", autocompletion=completion.runs, help="Ids of runs, or their beginnings.")
    ],
    as_json: AsJson = False,
    base_dir: BaseDir = None,
) -> int:
    """Delete runs, and those of their sub-diagrams. Nothing is deleted while one of them is running."""

    async def delete(runtime: Runtime) -> list[str]:
        return await runtime.delete_runs([(await runtime.find_run(given)).run_id for given in run_ids])

    with runtimes.Runtime(settings_for(base_dir)) as runtime:
        deleted = run_sync(delete(runtime))
    return _report_deleted(deleted, as_json)


@runs.command("prune")
def runs_prune(
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Runs that ended longer ago: 30d, 12h, 90m, 45s.")
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", min=0, metavar="N", help="Leave the N newest runs, whatever else.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status", autocompletion=completion.statuses, help="Only these: completed, failed, aborted, interrupted …"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them.")] = False,
    as_json: AsJson = False,
    base_dir: BaseDir = None,
) -> int:
    """Delete old runs, and those of their sub-diagrams. Runs that are executing stay. A run must meet all conditions."""
    _check_status(status)
    with runtimes.Runtime(settings_for(base_dir)) as runtime:
        found = run_sync(runtime.prune(older_than=_seconds(older_than), keep=keep, status=status, dry_run=dry_run))
    if dry_run and not as_json:
        for run_id in found:
            print(run_id)
        say(f"{count(len(found), 'run')} would be deleted")
        return ExitCode.DONE
    return _report_deleted(found, as_json)


@runs.command("condense")
def runs_condense(
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="Only runs that ended longer ago: 30d, 12h, 90m, 45s.")
    ] = None,
    as_json: AsJson = False,
    base_dir: BaseDir = None,
) -> int:
    """Keep streamed texts of runs that have ended once, in less space: a replay shows each at once, and no more how it grew."""
    with runtimes.Runtime(settings_for(base_dir)) as runtime:
        changed = run_sync(runtime.condense(older_than=_seconds(older_than)))
    print(json_text({"condensed": changed}) if as_json else f"Condensed: {count(len(changed), 'run')}")
    return ExitCode.DONE


def _check_status(status: str | None) -> None:
    if status is not None and status not in set(Status):
        raise ValidationError(
            f"There is no status '{status:.80}'.", hint=did_you_mean(status, Status, f"There are: {', '.join(Status)}.")
        )


def _report_deleted(run_ids: Sequence[str], as_json: bool) -> int:
    if as_json:
        print(json_text({"deleted": run_ids}))
    else:
        print(f"Deleted: {count(len(run_ids), 'run')}")
    return ExitCode.DONE


def _seconds(given: str | None) -> float | None:
    """A time such as `30d`."""
    if given is None:
        return None
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    number, unit = given.strip()[:-1], given.strip()[-1:].lower()
    if unit not in units or not number.replace(".", "", 1).isascii() or not number.replace(".", "", 1).isdecimal():
        raise ValidationError(f"--older-than '{given}' is not a time.", hint="Use a number and a unit: 30d, 12h, 90m, 45s.")
    return float(number) * units[unit]


def _show_runs(rows: Sequence[RunSummary], states: Sequence[RunState | None], *, full: bool) -> None:
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


@app.command()
def answer(
    run_id: RunId,
    answer: Annotated[
        str,
        typer.Argument(metavar="[NODE=]TEXT", help="The answer; NODE is a label, or SUB/NODE. Without it: the only question."),
    ],
    base_dir: BaseDir = None,
) -> int:
    """Answer a question of a run, whether it waits in this process, in another one or on another machine.

    An interrupted run gets the answer when it is resumed.
    """
    with runtimes.Runtime(settings_for(base_dir)) as runtime:
        row, node = run_sync(_answered(runtime, run_id, answer))
    print(f"Answered: {safe(node, 60)} of {row.run_id}")
    if row.status == "interrupted":
        say("The run was interrupted.", f"hint: dipeo-nb resume {row.run_id} continues with the answer.")
    return ExitCode.DONE


async def _answered(runtime: Runtime, run_id: str, given: str) -> tuple[RunSummary, str]:
    """Answer with `NODE=TEXT`, or a bare TEXT; return the row of the run, and the node that asked."""
    row = await runtime.find_run(run_id)
    asked = questions.OpenQuestions()
    await read_run(runtime.services.store, row.run_id, asked.take)
    waiting = asked.found
    # Labels may hold `=`, so the longest name that fits wins.
    for at in (at for at in range(len(given) - 1, -1, -1) if given[at] == "="):
        name = given[:at]
        if any(name == p["node_id"] or name in nested_runs.question_names(questions.path_of(p)) for p in waiting.values()):
            return await runtime.answer(row.run_id, given[at + 1 :], node=name), name
    if "=" in given:  # the name of a question that is over, or never was
        await runtime.answer(row.run_id, given, node=given.partition("=")[0])
    name = "/".join(questions.path_of(next(iter(waiting.values())))) if waiting else ""
    return await runtime.answer(row.run_id, given), name


@app.command()
def diff(before: RunId, after: RunId, base_dir: BaseDir = None) -> int:
    """Compare two runs: model, inputs, the diagram, what every node did. Exit code 1: they differ."""
    with runtimes.Runtime(settings_for(base_dir)) as runtime:
        found = comparing.compare(*(run_sync(_state(runtime, run_id)) for run_id in (before, after)))
    print(for_terminal(str(found)))
    return ExitCode.FAILED if found.different else ExitCode.DONE


@app.command()
def explain(run_id: RunId, base_dir: BaseDir = None) -> int:
    """Show in words and a table where the time and the money of a run went."""
    counting = measuring.Counting()
    with runtimes.Runtime(settings_for(base_dir)) as runtime:
        run_sync(_read(runtime, run_id, counting.take))
        state = run_sync(_state(runtime, run_id))  # from a snapshot, where there is one
    metrics = replace(counting.result(), status=str(state.status))
    console = new_console(stderr=False)
    console.print(safe(" ".join(measuring.summarize(metrics))))
    if rows := metrics.rows:
        table = new_table(*rows[0])
        for row in rows:
            table.add_row(*(safe("" if value is None else value, 60) for value in row.values()))
        console.print(table)
    return ExitCode.DONE


@app.command()
def export(
    run_id: RunId,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="FILE.html: a page to look at it, offline; FILE.jsonl: its events, a line each; FILE.json: its report. Default: the report on stdout.",
        ),
    ] = None,
    base_dir: BaseDir = None,
) -> int:
    """Write a recorded run to a file, or its report to stdout."""
    kind = Path(out).suffix.lower() if out is not None else ".json"
    if kind not in (".html", ".jsonl", ".json"):
        raise ValidationError(f"A run is not written as '{kind}'.", hint="Use -o FILE.html, -o FILE.jsonl or -o FILE.json.")
    with runtimes.Runtime(settings_for(base_dir)) as runtime:
        if out is not None and kind == ".jsonl":
            run_id = run_sync(runtime.find_run(run_id)).run_id
            with replacing(Path(out)) as file:
                line = blobs.LineWriter(lambda text: file.write(f"{text}\n".encode()))
                run_sync(_read(runtime, run_id, line.write))
            return ExitCode.DONE
        if out is not None and kind == ".html":
            write_atomic(Path(out), run_sync(_page(runtime, run_id)).encode())
            return ExitCode.DONE
        report = json_text(run_sync(_state(runtime, run_id)).report(), indent=2)
    if out is None:
        print(visible_json(report))
    else:
        write_atomic(Path(out), f"{report}\n".encode())
    return ExitCode.DONE


async def _state(runtime: Runtime, run_id: str) -> RunState:
    row = await runtime.find_run(run_id)
    return await recorded_state(runtime.services.store, row.run_id)


async def _page(runtime: Runtime, run_id: str) -> str:
    row = await runtime.find_run(run_id)
    return await run_files.html(await run_files.recorded(runtime.services.store, row.run_id))


async def _read(runtime: Runtime, run_id: str, take: Callable[[Event], object]) -> None:
    row = await runtime.find_run(run_id)
    await read_run(runtime.services.store, row.run_id, take)
