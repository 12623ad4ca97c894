"""The commands of `dipeo-nb`, whose modules are imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand

from dipeo_nb.cli.parameters import Command, Group


class Entry(NamedTuple):
    module: str
    """The module of this package that has the command."""
    help: str
    """The first paragraph of its help, shown by `dipeo-nb --help`."""


COMMANDS = {
    "init": Entry(
        "folder",
        "Create a commented diagram to start from, a notebook that runs it, and a settings file. Existing files are kept.",
    ),
    "list": Entry(
        "folder",
        "List the diagrams in a folder: name, format, nodes, persons, and what needs your approval before it runs. Nothing is run.",
    ),
    "run": Entry("run", "Run a diagram; its outputs go to stdout, progress to stderr."),
    "validate": Entry("diagrams", "Check a diagram and report what is wrong, where, and how to fix it. Nothing is run."),
    "inspect": Entry(
        "diagrams",
        "List everything that a run of a diagram may do, with its sub-diagrams and files, and the code that pins it. Nothing is run.",
    ),
    "trust": Entry("diagrams", "Trust a folder and everything below it, now and later, or one diagram exactly as it is now."),
    "convert": Entry("diagrams", "Write a diagram in another format; a file is written completely or not at all."),
    "render": Entry("diagrams", "Draw a diagram."),
    "resume": Entry("run", "Resume a run that was interrupted, failed or was stopped; finished nodes do not run again."),
    "answer": Entry(
        "history", "Answer a question of a run, whether it waits in this process, in another one or on another machine."
    ),
    "replay": Entry("run", "Show a recorded run again as it happened; nothing is called and nothing is recorded."),
    "diff": Entry("history", "Compare two runs: model, inputs, the diagram, what every node did. Exit code 1: they differ."),
    "explain": Entry("history", "Show in words and a table where the time and the money of a run went."),
    "export": Entry("history", "Write a recorded run to a file, or its report to stdout."),
    "serve": Entry(
        "serve",
        "Run diagrams over HTTP, with their events as server-sent events. Each request needs the token that is printed, or that of DIPEO_SERVE_TOKEN.",
    ),
    "mcp": Entry(
        "mcp",
        "Offer diagrams as tools over the Model Context Protocol (Claude, ChatGPT, VS Code …): nodes are progress, questions are asked there, and an answer that is given later resumes a run whose server has ended.",
    ),
    "acp": Entry(
        "acp",
        "Be an agent of an editor (Agent Client Protocol: Zed, JetBrains, jupyter-ai): a prompt runs the diagram. Its nodes are the plan, their runs tool calls, its questions requests for permission; stopping in the editor stops the run.",
    ),
    "doctor": Entry(
        "doctor",
        "Check the installation: Python, extras, key names, models, Jupyter, stores, disk, proxy. Exit code 1: there is a problem.",
    ),
    "nodes": Entry("nodes", "Describe the node types: what each does; with TYPE, its fields and an example."),
    "codegen": Entry("codegen", "Generate code from TypeScript: `parse` it, build an `ir`, `render` templates."),
    "schema": Entry("diagrams", "Print the JSON Schema of the light format, for editors."),
    "demo": Entry("demo", "Run the packaged debate of three persons, by default with a small model on this machine."),
    "models": Entry(
        "models", "LLM services: which are ready, their keys and default models; `list` and `pull`: the embedded models."
    ),
    "keys": Entry("keys", "API keys, masked, and where they come from; store, delete and test them."),
    "providers": Entry(
        "providers", "Providers of web services (Slack, Notion, GitHub …): what is ready; show and call their operations."
    ),
    "runs": Entry("history", "The recorded runs: list them, newest first; `delete`, `prune` and `condense` some."),
}


class CommandGroup(Group):
    """Lists the commands from the table; imports the module of the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands.update({name: TyperCommand(name, help=entry.help) for name, entry in COMMANDS.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and loaded(command.name or ""), rest


def loaded(name: str) -> Any:
    """The command (a group for `codegen`, `models`, `keys` and `runs`), imported; the others of its module are not made."""
    app: typer.Typer = importlib.import_module(f"dipeo_nb.cli.{COMMANDS[name].module}").app
    alone = typer.Typer()
    alone.registered_commands = [entry for entry in app.registered_commands if _name_of(entry) == name]
    alone.registered_groups = [entry for entry in app.registered_groups if entry.name == name]
    commands = [*alone.registered_commands]
    for group in alone.registered_groups:
        group.cls = Group
        commands += group.typer_instance.registered_commands if group.typer_instance else ()
    for command in commands:
        command.cls = Command
    return typer.main.get_group(alone).commands[name]


def _name_of(entry: Any) -> str:
    return entry.name or typer.main.get_command_name(entry.callback.__name__)
