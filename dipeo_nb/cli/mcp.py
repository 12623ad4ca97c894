"""`dipeo-nb mcp`: diagrams as tools of assistants and editors."""

from __future__ import annotations

import importlib.metadata
from typing import Annotated

import typer

from dipeo_nb.cli import completion
from dipeo_nb.cli.arguments import parse_permissions, settings_for
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.options import Allowing, BaseDir, Model
from dipeo_nb.runtime import Runtime
from dipeo_nb.server.diagram_tools import DiagramTools
from dipeo_nb.server.mcp import DiagramServer, serve_http, serve_stdio
from dipeo_nb.terminal import say

app: typer.Typer = typer.Typer()


@app.command()
def mcp(
    diagrams: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DIAGRAM",
            autocompletion=completion.diagrams,
            help="Diagrams to offer. Default: those below the base directory.",
        ),
    ] = None,
    http: Annotated[bool, typer.Option("--http", help="Listen at an address; default: stdin and stdout.")] = False,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="With --http. Default: DIPEO_PORT, else 8000; 0: a free one.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="With --http. Default: this machine only.")] = None,
    model: Model = None,
    allow: Allowing = None,
    base_dir: BaseDir = None,
) -> int:
    """Offer diagrams as tools over the Model Context Protocol (Claude, ChatGPT, VS Code …): nodes are progress, questions are asked
    there, and an answer that is given later resumes a run whose server has ended.

    With --http, each request needs the token that is printed, or that of DIPEO_SERVE_TOKEN.
    """
    settings = settings_for(base_dir)
    tools = DiagramTools(Runtime(settings), diagrams or (), allow=parse_permissions(allow), model=model)
    server = DiagramServer(tools, importlib.metadata.version("dipeo-nb"))
    if not http:
        serve_stdio(server)
        return ExitCode.DONE
    token = settings.serve_token.get_secret_value() if settings.serve_token else None
    name = host or settings.host

    def ready(known: str, listening: int) -> None:
        say(f"Listening at http://{'127.0.0.1' if name in ('localhost', '::1') else name}:{listening}/mcp")
        if token is None:  # who has set one knows it
            print(known, flush=True)

    serve_http(server, host=name, port=settings.port if port is None else port, token=token, ready=ready)
    return ExitCode.DONE
