"""The command `dipeo-nb`: runs diagrams in a terminal as the notebook does in a cell.

Promises of every command: results go to stdout, progress and messages to stderr; an error is one message and the next
action, never a traceback (`dipeo-nb --debug …` shows it); exit codes are those of `ExitCode`.

`run --json` prints exactly one JSON object, also when the run failed or was refused (status `refused`, no run_id).
A command's module is imported when the command runs, so that `--help` and a first run start fast.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.group import CommandGroup
from dipeo_nb.cli.signals import terminated_like_ctrl_c
from dipeo_nb.common.disk_errors import CAUSES
from dipeo_nb.dipeo_words import advice, translated
from dipeo_nb.errors import DipeoError, SettingNotApprovedError, TrustError, UserError
from dipeo_nb.terminal import say

app: typer.Typer = typer.Typer(
    name="dipeo-nb",
    help="Diagrams of LLM agents: check, draw, convert and run them.",
    cls=CommandGroup,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class Global:
    """The options before the command: `dipeo-nb --debug run …`."""

    debug: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. The console script and `python -m dipeo_nb` call this."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A label in any script must not break output in a narrow locale.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    if arguments is None:  # this process is ours
        # importing makes many objects that stay: looking through them is a tenth of a short command
        gc.set_threshold(20_000, 20, 20)
    given = Global()
    try:
        with terminated_like_ctrl_c():
            code = app(
                args=translated(sys.argv[1:] if arguments is None else arguments),
                prog_name="dipeo-nb",
                standalone_mode=False,
                obj=given,
            )
            sys.stdout.flush()
        return code if isinstance(code, int) else ExitCode.DONE
    except BrokenPipeError:
        # The reader of our output has gone (`… | head`); Python's own flush at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except typer.TyperException as error:
        if message := error.format_message():  # none when a group showed its help, as no command was given
            say(f"error: {message}", f"hint: {advice(message) or 'dipeo-nb --help, or dipeo-nb COMMAND --help'}")
        return ExitCode.MISTAKE
    except DipeoError as error:
        if isinstance(error, SettingNotApprovedError) and _approved(error):
            return main(arguments)
        if given.debug:
            raise
        _print_error(error)
        return ExitCode.MISTAKE if isinstance(error, UserError) else ExitCode.FAILED
    except OSError as error:
        if given.debug:
            raise
        known = CAUSES.get(error.errno or 0)
        lines = [f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}"]
        say(*lines, *([] if known is None else [f"hint: {known[2]}"]))
        return ExitCode.FAILED
    except Exception as error:
        if given.debug:
            raise
        say(
            f"error: {type(error).__name__}: {error}",
            "hint: This is a defect of dipeo-nb. Run `dipeo-nb --debug …` for the details and report them.",
        )
        return ExitCode.FAILED


@app.callback(invoke_without_command=True)
def _global(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks instead of one-line errors.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> int | None:
    context.obj.debug = debug
    if version:
        from importlib.metadata import version as installed

        print(f"dipeo-nb {installed('dipeo-nb')}")
        raise typer.Exit(ExitCode.DONE)
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(ExitCode.MISTAKE)
    return None


def _approved(error: SettingNotApprovedError) -> bool:
    from dipeo_nb.cli.consent import settings_approved  # needs all of the settings, which `--help` does not

    return settings_approved(error)


def _print_error(error: DipeoError) -> None:
    """Print one message, the findings behind it, and the next action."""
    say(f"error: {error.message}")
    for diagnostic in getattr(error, "diagnostics", ()):
        if str(diagnostic) not in error.message:  # the compiler's message lists the first ten itself
            say(f"  {diagnostic}")
    if isinstance(error, TrustError) and (lines := error.listing()):
        say("It would run with your rights:", *lines)
    if error.hint:
        say(f"hint: {error.hint}")
