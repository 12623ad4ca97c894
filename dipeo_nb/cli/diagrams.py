"""`dipeo-nb validate`, `inspect`, `trust`, `convert`, `render` and `schema`: work on diagrams without running them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipeo_nb.cli import completion
from dipeo_nb.cli.arguments import STDIN, load_diagram, settings_for
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.options import AsJson, BaseDir, File, Format
from dipeo_nb.cli.output import count, print_diagnostics
from dipeo_nb.common import lazy
from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.paths import from_home
from dipeo_nb.common.text import visible, visible_json
from dipeo_nb.common.values import json_text
from dipeo_nb.config import Settings
from dipeo_nb.diagram.detect import check_format, format_of_name
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.diagnostics import Diagnostic, has_errors
from dipeo_nb.domain.enums import Severity
from dipeo_nb.errors import DiagramError, DipeoError, InvalidDiagramError, ValidationError
from dipeo_nb.terminal import safe, say

if TYPE_CHECKING:
    from dipeo_nb import container
    from dipeo_nb.diagram import schema as schemas
    from dipeo_nb.runtime import compiling
    from dipeo_nb.security import folder_settings
    from dipeo_nb.security import trust as trusted
else:
    container = lazy.module("dipeo_nb.container")
    schemas = lazy.module("dipeo_nb.diagram.schema")
    compiling = lazy.module("dipeo_nb.runtime.compiling")
    folder_settings = lazy.module("dipeo_nb.security.folder_settings")
    trusted = lazy.module("dipeo_nb.security.trust")

app: typer.Typer = typer.Typer()


@app.command()
def validate(file: File, as_json: AsJson = False, base_dir: BaseDir = None, format_: Format = None) -> int:
    """Check a diagram and report what is wrong, where, and how to fix it. Nothing is run.

    The exit code is 2 when `run` would refuse it.
    """
    settings = settings_for(base_dir)
    document: Diagram | None = None
    try:
        document = load_diagram(file, format_, settings)
        found = list(document.check(base_dir=settings.base_dir))
        if not has_errors(found):
            found = _found_here(settings, document)
    except DiagramError as error:
        found = list(error.diagnostics) or [_as_diagnostic(error, file)]
    valid = not has_errors(found)
    if as_json:
        print(visible_json(json_text(_verdict(file, document, valid, found))))
    else:
        print_diagnostics(found)
        size = f": {count(len(document.nodes), 'node')}, {count(len(document.arrows), 'arrow')}" if document else ""
        errors = sum(d.severity == "error" for d in found)
        name = "<stdin>" if file == STDIN else safe(file)
        print(f"{name} is valid{size}" if valid else f"{name} has {count(errors, 'error')}")
    return ExitCode.DONE if valid else ExitCode.MISTAKE


@app.command()
def inspect(file: File, as_json: AsJson = False, base_dir: BaseDir = None, format_: Format = None) -> int:
    """List everything that a run of a diagram may do, with its sub-diagrams and files, and the code that pins it. Nothing is run."""
    settings = settings_for(base_dir)
    found = load_diagram(file, format_, settings).capabilities(base_dir=settings.base_dir)
    if as_json:
        files = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(found.files.items())}
        print(
            json_text(
                {"name": found.name, "pin": found.code, "digest": found.digest, "uses": found.uses.report(), "files": files}
            )
        )
        return ExitCode.DONE
    print(f"{safe(found.name)} may:" if found.uses else f"{safe(found.name)} does nothing but compute.")
    for line in found.uses.listing():
        print(line)
    print(f"Yes to exactly this: --pin {found.code}")
    return ExitCode.DONE


@app.command()
def trust(
    path: Annotated[str | None, typer.Argument(metavar="PATH", help="A folder, or a diagram as it is now.")] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="What is trusted; with PATH, the settings that the folder suggests.")
    ] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Trust it no more.")] = False,
    base_dir: BaseDir = None,
) -> int:
    """Trust a folder and everything below it, now and later, or one diagram exactly as it is now."""
    settings = settings_for(base_dir)
    record = trusted.Trust(settings)
    if list_ or path is None:
        lines = record.lines() if path is None else folder_settings.settings_listing(path, settings=settings)
        for line in lines:
            print(safe(line))
        return ExitCode.DONE
    if forget:
        gone = record.forget(path)
        print(f"Forgotten: {gone}" if gone else f"{safe(path)} was not trusted.")
        return ExitCode.DONE
    if from_home(path).is_dir():
        shown = folder_settings.pending_settings(path, settings=settings)
        folder = record.trust_folder(Path(path), shown=shown)
        print(f"Trusted from now on: {safe(str(folder))} with all below it")
        for setting in shown:
            print(f"  and its setting {safe(str(setting))}")
        return ExitCode.DONE
    found = load_diagram(path, None, settings).capabilities(base_dir=settings.base_dir)
    for line in found.uses.listing():
        print(line)
    record.remember(found, by="dipeo-nb trust")
    print(f"Trusted as it is now: {safe(found.name)} in {safe(str(settings.base_dir))}")
    return ExitCode.DONE


@app.command()
def convert(
    file: File,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="FORMAT",
            autocompletion=completion.formats,
            help="light, native, readable or executable. Default: by the name of OUT.",
        ),
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="OUT", help="File to write. Default: stdout.")] = None,
    format_: Format = None,
) -> int:
    """Write a diagram in another format; a file is written completely or not at all."""
    target = target_format(to, output)
    document = load_diagram(file, format_, settings_for(None))
    text = document.to_text(target)
    for diagnostic in document.diagnostics:
        say(str(diagnostic))
    if output is None:
        whole = text if text.endswith("\n") else text + "\n"
        sys.stdout.write(visible(whole) if sys.stdout.isatty() else whole)
    else:
        document.save(output, target)
        say(f"Written: {output} ({target})")
    return ExitCode.DONE


@app.command()
def render(
    file: File,
    output: Annotated[str, typer.Option("--output", "-o", metavar="OUT", help="File to write: .svg, .png, .html or .mmd.")],
    theme: Annotated[str, typer.Option("--theme", help="light, dark, or auto (follows the reader's; not for png).")] = "auto",
    width: Annotated[int | None, typer.Option("--width", help="Pixels of a png.")] = None,
    format_: Format = None,
) -> int:
    """Draw a diagram."""
    kind = Path(output).suffix.lower()
    if kind not in (".svg", ".png", ".html", ".mmd"):
        raise ValidationError(f"'{output}' ends in none of .svg, .png, .html, .mmd.", hint="Use for example -o diagram.svg.")
    if theme not in ("auto", "light", "dark"):
        raise ValidationError(f"There is no theme '{theme}'.", hint="Use --theme light, dark or auto.")
    if width is not None and not 16 <= width <= 20_000:
        raise ValidationError(f"--width {width} is not between 16 and 20000 pixels.", hint="Leave it out for the natural size.")
    document = load_diagram(file, format_, settings_for(None))
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
    return ExitCode.DONE


@app.command()
def schema() -> int:
    """Print the JSON Schema of the light format, for editors."""
    print(visible_json(json_text(schemas.light_schema(), indent=2)))
    return ExitCode.DONE


def target_format(to: str | None, output: str | None) -> str:
    hint = "Use --to light, --to native, --to readable or --to executable."
    found = check_format(to) if to is not None else format_of_name(output or "")
    if found is None:
        raise ValidationError("Which format?" if to is None else f"'{to}' may be light or readable.", hint=hint)
    return found


def _as_diagnostic(error: DipeoError, file: str) -> Diagnostic:
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
    """The findings about a valid diagram, including nodes that cannot run here."""
    try:
        return list(compiling.runnable_plan(document, settings.base_dir, container.on_use(settings)).diagnostics)
    except InvalidDiagramError as error:
        return list(error.diagnostics)


def _verdict(file: str, document: Diagram | None, valid: bool, found: Sequence[Diagnostic]) -> dict[str, Any]:
    """The object that `validate --json` prints."""
    return {
        "file": file,
        "valid": valid,
        "diagram": document.name if document else None,
        "format": document.format if document else None,
        "nodes": len(document.nodes) if document else 0,
        "diagnostics": [asdict(d) for d in found],
    }
