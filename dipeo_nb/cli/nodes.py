"""`dipeo-nb nodes`: the reference of node types."""

from __future__ import annotations

from typing import Annotated

import typer

from dipeo_nb.cli import completion
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.options import AsJson
from dipeo_nb.common.text import visible_json
from dipeo_nb.common.values import json_text
from dipeo_nb.diagram.reference import FieldReference, common_fields, node_reference
from dipeo_nb.domain.nodes import NODE_SPECS
from dipeo_nb.terminal import new_console, new_table, safe

app: typer.Typer = typer.Typer()


@app.command()
def nodes(
    type_: Annotated[
        str | None,
        typer.Argument(
            metavar="TYPE", autocompletion=completion.node_types, help="One of them, with its fields and an example."
        ),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Describe the node types: what each does; with TYPE, its fields and an example."""
    if type_ is None:
        references = [node_reference(name) for name in NODE_SPECS]
        if as_json:
            print(visible_json(json_text({"nodes": [reference._asdict() for reference in references]})))
            return ExitCode.DONE
        table = new_table("type", "about")
        for reference in references:
            table.add_row(reference.type, reference.summary)
        new_console(stderr=False).print(table)
        print("dipeo-nb nodes TYPE shows the fields of one and an example.")
        return ExitCode.DONE
    reference = node_reference(type_)
    if as_json:
        shown = reference._asdict() | {"fields": [field._asdict() for field in (*reference.fields, *common_fields())]}
        print(visible_json(json_text(shown)))
        return ExitCode.DONE
    print(f"{reference.type}: {reference.summary}.")
    print(f"inputs: {', '.join(reference.inputs) or 'none'}; outputs: {', '.join(reference.outputs) or 'none'}")
    _print_fields(reference.fields)
    print("Of every type:")
    _print_fields(common_fields())
    if reference.example:
        print(f"An example:\n\n{reference.example}")
    return ExitCode.DONE


def _print_fields(rows: tuple[FieldReference, ...]) -> None:
    table = new_table("field", "values", "default", "about")
    for row in rows:
        also = f" Also: {', '.join(row.spellings)}." if row.spellings else ""
        table.add_row(row.name, row.type, row.default, safe(f"{row.doc}.{also}"))
    new_console(stderr=False).print(table)
