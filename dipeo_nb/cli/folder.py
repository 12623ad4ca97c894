"""`dipeo-nb init` and `list`: start a folder of diagrams, and see what is in one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dipeo_nb.cli.arguments import settings_for
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.options import AsJson
from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.text import visible_json
from dipeo_nb.common.values import json_text
from dipeo_nb.config import Settings
from dipeo_nb.diagram import detect
from dipeo_nb.diagram.document import load
from dipeo_nb.errors import DiagramError, TrustError, ValidationError
from dipeo_nb.runtime import Runtime
from dipeo_nb.security.gate import beyond_guest
from dipeo_nb.terminal import new_console, new_table, safe, say

app: typer.Typer = typer.Typer()

STARTER = ("slogan.light.yaml", "slogan.ipynb", "dipeo.toml")
"""Files that `init` copies from the package."""
IGNORED = "# Records of runs, and keys.\n.dipeo/\n.env\n"
"""Its `.gitignore`."""


@app.command()
def init(
    folder: Annotated[
        str,
        typer.Argument(metavar="FOLDER", show_default=False, help="Created if it does not exist. Default: the current folder."),
    ] = ".",
) -> int:
    """Create a commented diagram to start from, a notebook that runs it, and a settings file. Existing files are kept."""
    place = Path(folder).expanduser()
    contents = {name: (detect.DEMOS / name).read_bytes() for name in STARTER} | {".gitignore": IGNORED.encode()}
    try:
        place.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ValidationError(f"'{folder}' is a file.", hint="Name a folder; it is created if it does not exist.") from None
    own = not any(place.iterdir())  # do not advise to trust files that were there before
    for name, content in contents.items():
        try:
            write_atomic(place / name, content, create_only=True)
        except FileExistsError:
            say(f"Kept: {place / name}")
        else:
            print(f"Written: {safe(str(place / name))}")
    enter = "" if place.resolve() == Path.cwd() else f"  cd {safe(folder)}\n"
    trusting = (
        "  dipeo-nb trust .             the diagrams in this folder are yours: they run code and write files without asking\n"
        if own
        else ""
    )
    say(
        "Next:",
        *f"{enter}{trusting}"
        "  dipeo-nb run slogan          asks you to approve a slogan (the default model, echo, only repeats prompts)\n"
        "  jupyter lab slogan.ipynb     the same diagram in a notebook".splitlines(),
    )
    return ExitCode.DONE


@app.command("list")
def list_(
    folder: Annotated[str | None, typer.Argument(metavar="FOLDER", help="Default: the base directory.")] = None,
    as_json: AsJson = False,
) -> int:
    """List the diagrams in a folder: name, format, nodes, persons, and what needs your approval before it runs. Nothing is run.

    It searches the folder, three levels below it, and the folders in which `run` looks names up. Exit code 1: a diagram cannot run.
    """
    settings = settings_for(folder)
    found = [row for name in detect.names(settings.base_dir) if (row := _row(settings, name)) is not None]
    broken = any(row["error"] for row in found)
    if as_json:
        print(visible_json(json_text({"folder": str(settings.base_dir), "diagrams": found})))
    elif not found:
        print(f"No diagrams in {safe(str(settings.base_dir))}.")
        say("hint: dipeo-nb init writes one to begin with; dipeo-nb run demo:debate runs one of the package")
    else:
        table = new_table("diagram", "format", "nodes", "persons", "needs approval for")
        for row in found:
            needs = f"not runnable: {row['error']}" if row["error"] else ", ".join(row["needs"])
            persons = ", ".join(row["persons"])
            table.add_row(*(safe(text, 100) for text in (row["diagram"], row["format"], str(row["nodes"]), persons, needs)))
        new_console(stderr=False).print(table)
    return ExitCode.FAILED if broken else ExitCode.DONE


def _row(settings: Settings, name: str) -> dict[str, Any] | None:
    """The row of a diagram; None if the file is not a diagram."""
    row: dict[str, Any] = {"diagram": name, "format": "", "nodes": 0, "persons": [], "needs": [], "error": None}
    by_name = name.lower().endswith(tuple(detect.SUFFIXES))
    try:
        document = load(name, base_dir=settings.base_dir)
    except DiagramError as error:
        return row | {"error": error.message} if by_name else None
    if not by_name and not document.nodes:  # a YAML or JSON file of something else
        return None
    row |= {"format": document.format, "nodes": len(document.nodes), "persons": [person.label for person in document.persons]}
    runtime = Runtime(settings)
    try:
        plan = runtime.compile(document)
        runtime.trust.decide(document, plan)
    except TrustError:
        uses = document.capabilities(base_dir=settings.base_dir).uses
        return row | {"needs": list(dict.fromkeys(use.kind for use in beyond_guest(uses, paid=settings.guest_budget > 0)))}
    except DiagramError as error:  # read, but it would not run
        return row | {"error": error.message.splitlines()[0]}
    return row
