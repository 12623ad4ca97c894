"""`dipeo-nb demo`: the packaged debate."""

from __future__ import annotations

from typing import Annotated

import typer

from dipeo_nb.cli import completion
from dipeo_nb.cli.arguments import settings_for
from dipeo_nb.cli.models import pull
from dipeo_nb.cli.options import AsJson
from dipeo_nb.cli.run import RunRequest, report, run_request

app: typer.Typer = typer.Typer()


@app.command()
def demo(
    topic: Annotated[str, typer.Option("--topic", help="What the debate is about.")] = "a cat as the new boss",
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", autocompletion=completion.models, help="local, echo, openai:NAME …")
    ] = "local",
    as_json: AsJson = False,
) -> int:
    """Run the packaged debate of three persons, by default with a small model on this machine."""
    settings = settings_for(None)
    if model == "local":
        pull(settings, settings.local_model)
    state = run_request(RunRequest("demo:debate", settings, {"topic": topic}, model=model))
    return report(state, as_json)
