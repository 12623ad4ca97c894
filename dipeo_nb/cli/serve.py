"""`dipeo-nb serve`: diagrams over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from dipeo_nb.cli.arguments import settings_for
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.options import BaseDir
from dipeo_nb.runtime import Runtime
from dipeo_nb.server import RunServer
from dipeo_nb.server import serve as listen
from dipeo_nb.terminal import say

app: typer.Typer = typer.Typer()


@app.command()
def serve(
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Default: DIPEO_PORT, else 8000; 0: a free one.")
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen at. Default: this machine only.")] = None,
    base_dir: BaseDir = None,
) -> int:
    """Run diagrams over HTTP, with their events as server-sent events. Each request needs the token that is printed, or that of
    DIPEO_SERVE_TOKEN.

    POST /runs {"diagram": NAME, "inputs": {…}} starts a run; GET /runs/ID/events streams its events, from any one on; GET /runs and
    /runs/ID show runs; POST /runs/ID/stop and /answer control them.
    """
    settings = settings_for(base_dir)

    def ready(server: RunServer, listening: int) -> None:
        name = "127.0.0.1" if settings.host in ("localhost", "::1") else host or settings.host
        say(
            f"Listening at http://{name}:{listening}",
            "Ctrl-C ends it." if token is None else "Its token is that of DIPEO_SERVE_TOKEN.",
        )
        if token is None:  # who has set one knows it
            print(server.token, flush=True)

    token = settings.serve_token.get_secret_value() if settings.serve_token else None
    listen(
        Runtime(settings),
        host=host or settings.host,
        port=settings.port if port is None else port,
        token=token,
        ready=ready,
    )
    return ExitCode.DONE
