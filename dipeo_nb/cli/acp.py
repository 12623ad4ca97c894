"""`dipeo-nb acp`: a diagram as an agent of editors."""

from __future__ import annotations

import importlib.metadata

import typer

from dipeo_nb.cli.arguments import parse_permissions, settings_for
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.options import Allowing, BaseDir, File, Model
from dipeo_nb.runtime import Runtime
from dipeo_nb.server.acp import DiagramAgent, serve
from dipeo_nb.server.diagram_tools import DiagramTools

app: typer.Typer = typer.Typer()


@app.command()
def acp(file: File, model: Model = None, allow: Allowing = None, base_dir: BaseDir = None) -> int:
    """Be an agent of an editor (Agent Client Protocol: Zed, JetBrains, jupyter-ai): a prompt runs the diagram. Its nodes are the plan,
    their runs tool calls, its questions requests for permission; stopping in the editor stops the run.
    """
    tools = DiagramTools(Runtime(settings_for(base_dir)), [file], allow=parse_permissions(allow), model=model)
    tools.tools()  # a diagram that cannot run is refused now
    serve(DiagramAgent(tools, importlib.metadata.version("dipeo-nb")))
    return ExitCode.DONE
