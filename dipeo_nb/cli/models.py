"""`dipeo-nb models`: services, embedded models, and models that end."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from dipeo_nb.cli.arguments import settings_for
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.group import COMMANDS
from dipeo_nb.cli.options import AsJson, BaseDir
from dipeo_nb.cli.output import count
from dipeo_nb.common import clock
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.text import visible_json
from dipeo_nb.common.values import json_text
from dipeo_nb.config import Settings
from dipeo_nb.domain import lifecycle
from dipeo_nb.errors import APIKeyNotFoundError, DipeoError, ValidationError
from dipeo_nb.llm import catalogue, model_check, model_store, providers
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.keys import APIKeyChain
from dipeo_nb.terminal import new_console, new_table, safe, say

app: typer.Typer = typer.Typer()
models: typer.Typer = typer.Typer(help=COMMANDS["models"].help, no_args_is_help=False)
app.add_typer(models, name="models")


@models.callback(invoke_without_command=True)
def _models(context: typer.Context, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is not None:
        return
    settings = settings_for(None)
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
    """List the embedded models, and which of them are installed."""
    rows = model_store.list_models(settings_for(None))
    if as_json:
        print(visible_json(json_text({"models": [row._asdict() for row in rows]})))
        return ExitCode.DONE
    table = new_table("model", "size", "here", "about")
    for row in rows:
        table.add_row(row.name, _megabytes(row.size), "yes" if row.path else "no", row.summary)
    new_console(stderr=False).print(table)
    return ExitCode.DONE


@models.command("check")
def models_check(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]...", help="Diagrams, notebooks, Python files, other texts, folders. Default: this folder."
        ),
    ] = None,
    within: Annotated[int, typer.Option("--within", metavar="DAYS", help="List what ends within so many days.")] = 90,
    fix: Annotated[bool, typer.Option("--fix", help="Write the recommended replacements into the files.")] = False,
    on: Annotated[str | None, typer.Option("--on", metavar="DATE", help="As of that day (2027-01-31); default: today.")] = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask the providers whose keys are here for dates, too; that costs nothing.")
    ] = False,
    as_json: AsJson = False,
    base_dir: BaseDir = None,
) -> int:
    """List the models in files and settings that their providers will shut down soon, with their replacements.

    The exit code is 1 when there is one (with --fix: one that is left). Models on servers other than the provider's own are not
    considered.
    """
    settings = settings_for(base_dir)
    days = model_check.checked_within(within)
    try:
        day = clock.today() if on is None else date.fromisoformat(on)
    except ValueError:
        raise ValidationError(f"--on '{on}' is not a date.", hint="Use for example --on 2027-01-31.") from None
    with clock.on(day), lifecycle.announced(_announced_ends(settings) if ask else {}):
        found = model_check.check(files or [str(settings.base_dir)], settings, within=days)
        left = model_check.fix(found, settings) if fix else found
    if as_json:
        rows = [{**mention.report(), "fixed": mention not in left} for mention in found]
        print(visible_json(json_text({"on": str(day), "within": days, "models": rows})))
        return ExitCode.FAILED if left else ExitCode.DONE
    for mention in found:
        print(safe(f"{mention}{'' if mention in left else ' (replaced)'}", 500))
    if not found:
        print(f"No model that is named ends within {days} days.")
    elif fix and left:
        say(f"{count(len(left), 'place')} left: change them by hand.")
    elif not fix:
        say(f"{count(len(found), 'place')}. hint: --fix writes the replacements into the files")
    return ExitCode.FAILED if left else ExitCode.DONE


def _announced_ends(settings: Settings) -> dict[str, dict[str, date]]:
    """The models that providers announce to shut down; stderr shows which provider could not be asked, and why."""

    async def asked() -> dict[str, dict[str, date]]:
        llm = LLMService(settings, APIKeyChain.of(settings))
        found: dict[str, dict[str, date]] = {}
        try:
            for service in providers.announcing():
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
    """Download an embedded model and verify its checksum."""
    settings = settings_for(None)
    print(pull(settings, name or settings.local_model))
    return ExitCode.DONE


def pull(settings: Settings, name: str) -> Path:
    """Download a model unless it is installed, with a progress bar on a terminal."""
    console = new_console()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"Model {name}", total=None)

        def show(text: str, done: int | None = None, total: int | None = None) -> None:
            bar.update(task, description=text, completed=done or 0, total=total)

        return run_sync(model_store.ensure(settings, name, on_progress=show))


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:.0f} MB"
