"""`dipeo-nb codegen`: parse TypeScript, build intermediate representations, render templates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from dipeo_nb import codegen as generation
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.group import COMMANDS
from dipeo_nb.cli.options import AsJson
from dipeo_nb.codegen.ir.model import template_names
from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.text import visible_json
from dipeo_nb.common.values import json_text
from dipeo_nb.diagram.yaml_reader import yaml_value
from dipeo_nb.errors import ValidationError
from dipeo_nb.terminal import new_console, new_table, safe, say

app: typer.Typer = typer.Typer()
codegen: typer.Typer = typer.Typer(help=COMMANDS["codegen"].help, no_args_is_help=True)
app.add_typer(codegen, name="codegen")
Sources = Annotated[str, typer.Argument(metavar="PATH", help="A file, or a folder with all below it (.ts, .tsx).")]
Patterns = Annotated[
    list[str] | None,
    typer.Option(
        "--pattern", "-p", metavar="KIND", help="interface, type, enum, class, function, const or export. Default: all."
    ),
]
Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of to stdout.", show_default=False)
]


@codegen.command("parse")
def parse(
    path: Sources,
    pattern: Patterns = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 when something was not understood.")] = False,
    output: Output = None,
    as_json: AsJson = False,
) -> int:
    """Parse TypeScript: a table of what is in each source, and what was not understood; with --json all of it."""
    found = generation.parse(path, pattern or generation.ALL_PATTERNS)
    errors = [
        f"{name}:{d['line']}:{d['column']}: {d['message']}"
        for name, result in found.items()
        for d in result["metadata"]["diagnostics"]
        if d["severity"] == "error"
    ]
    if as_json or output:
        _put(json_text(dict(found)), output)
    else:
        rows = found.rows()
        kinds = [key for key in rows[0] if key == "source" or any(row[key] for row in rows)]
        table = new_table(*kinds)
        for row in rows:
            table.add_row(*(safe(str(row[key] or ""), 200) for key in kinds))
        new_console(stderr=False).print(table)
    for line in errors[:50]:
        say(safe(line, 300))
    return (
        ExitCode.FAILED if (errors and strict) or not any(r["metadata"]["success"] for r in found.values()) else ExitCode.DONE
    )


@codegen.command("ir")
def ir(
    path: Sources,
    builder: Annotated[
        str, typer.Option("--builder", "-b", metavar="NAME", help="backend, frontend, strawberry, or a custom one.")
    ] = "backend",
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE", help="Options of the builder, in YAML or JSON.", show_default=False),
    ] = None,
    output: Output = None,
) -> int:
    """Build an intermediate representation of TypeScript, as JSON; the same sources give the same bytes."""
    made = generation.parse(path).build(builder, config=_mapping(config))
    _put(made.to_bytes().decode(), output)
    return ExitCode.DONE


@codegen.command("render")
def render(
    template: Annotated[
        str, typer.Argument(metavar="TEMPLATE", help="A file with a Jinja2 template; it can include others of its folder.")
    ],
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="TypeScript: a file or a folder; or an IR, or names for the template, in YAML or JSON."
        ),
    ],
    builder: Annotated[
        str,
        typer.Option("--builder", "-b", metavar="NAME", help="Of TypeScript: backend, frontend, strawberry, or a custom one."),
    ] = "backend",
    output: Output = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 when the file would change.")] = False,
) -> int:
    """Render a template with what is in TypeScript; stderr says how many words of the file change."""
    source = Path(template)
    if not source.is_file():
        raise ValidationError(f"There is no template {template}.", hint="Name a file.")
    place = Path(output) if output else source.with_suffix(".out")
    names = _names(path) if path.endswith((".json", ".yaml", ".yml")) else generation.parse(path).build(builder)
    made = generation.render({place.name: f"@{source.name}"}, names, out=place.parent, directories=[source.parent])
    file = made[place.name]
    if output is None:
        print(file.text, end="" if file.text.endswith("\n") else "\n")
        return ExitCode.DONE
    say(safe(repr(file), 300))
    if check:
        return ExitCode.DONE if file.state == "unchanged" else ExitCode.FAILED
    made.write()
    return ExitCode.DONE


def _names(path: str) -> Mapping[str, Any]:
    """Names for a template; those of an IR are what they are where it is built."""
    found = _mapping(path)
    return template_names(found) if found.keys() == {"data", "metadata"} else found


def _mapping(path: str | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValidationError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.", hint="Name a file in YAML or JSON."
        ) from error
    value, _ = yaml_value(text, path)
    if not isinstance(value, Mapping):
        raise ValidationError(f"{path} does not hold a mapping.", hint="Write for example `model_files: [core.ts]`.")
    return cast(Mapping[str, Any], value)


def _put(text: str, output: str | None) -> None:
    if output is None:
        print(visible_json(text))
        return
    write_atomic(Path(output), f"{text}\n".encode())
    say(safe(f"{output} written", 300))
