"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from dipeo_nb.cli import completion

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE", autocompletion=completion.diagrams, help="A diagram file, or its name; - reads it from stdin."
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", autocompletion=completion.formats, show_default=False,
        help="Of FILE: light, native, readable or executable (or --light …). Default: by its name, else by its content.",
    ),
]  # fmt: skip
NoQuestions = Annotated[bool, typer.Option("--no-interactive", help="Ask nothing, also in a terminal.")]
BaseDir = Annotated[
    str | None,
    typer.Option("--base-dir", metavar="DIR", help="Root of the diagram's relative names. Default: here.", show_default=False),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="NAME=VALUE", help="A variable of the run; JSON if it parses, else text."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", autocompletion=completion.models, help="Move all persons: local, echo, openai:NAME …"
    ),
]
Trusting = Annotated[
    bool, typer.Option("--trust", help="Say yes to all that a diagram from elsewhere wants; remembered for exactly that.")
]
Pin = Annotated[
    str | None,
    typer.Option("--pin", metavar="CODE", help="Say yes to exactly what has this code (see inspect); not remembered."),
]
Allowing = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="KIND=WHAT",
        help="Allow a diagram from elsewhere just this: read=data/*.csv, write=out/, net=api.x.org, code …",
    ),
]
Providers = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PROVIDER.NAME=VALUE", help="A variable of a provider of web services, such as site or base_url."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN", autocompletion=completion.runs, help="The id of a run, or its beginning; see `dipeo-nb runs`."
    ),
]
