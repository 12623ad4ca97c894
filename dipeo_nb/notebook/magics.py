"""Magics for notebooks: `%load_ext dipeo_nb`, then `%%prompt` and `%dipeo`.

Both are plain functions that wait (IPython has no async magics): they work in loops, under `%%time` and in the terminal.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping
from getpass import getpass
from typing import Any, NoReturn

from IPython.core.error import StdinNotImplementedError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, no_var_expand

from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.text import nearest
from dipeo_nb.diagram.reference import page
from dipeo_nb.diagram.templates import SimpleTemplateProcessor
from dipeo_nb.domain.nodes import NODE_SPECS
from dipeo_nb.errors import TemplateError, ValidationError
from dipeo_nb.notebook import facade, kernel
from dipeo_nb.notebook.answer import Answer
from dipeo_nb.notebook.tables import Table
from dipeo_nb.security.keys import checked_name, overview

USAGE = "%%prompt [--model MODEL] [--system TEXT] [--temperature X] [--max-tokens N] [> VARIABLE]"


@magics_class
class DipeoMagics(Magics):
    """`%%prompt` asks a model, `%dipeo` shows models, keys, runs and node types."""

    @no_var_expand
    @cell_magic
    def prompt(self, line: str, cell: str) -> Answer | None:
        """Ask a model: the cell is the prompt, and the answer streams below it.

            %%prompt [--model MODEL] [--system TEXT] [--temperature X] [--max-tokens N] [> VARIABLE]

        `{{name}}` in the cell (and in TEXT and MODEL) is a variable of the notebook; `{{#if}}`, `{{#each}}` and the rest of
        the template language of diagrams work, too. An undefined name is an error.

            --model, -m        openai:gpt-6-luna, anthropic, local …; default: DIPEO_DEFAULT_LLM_MODEL
            --system, -s       the system prompt
            --temperature, -t  a number
            --max-tokens       limit of the answer
            > VARIABLE         variable that gets the text of the answer

        In a notebook the cell's value (`_`) is the answer with usage, cost and the rest.
        """
        options, variable = _options(line)
        names: Mapping[str, Any] = self._names()
        texts = {name: options.pop(name) for name in ("model", "system")}
        rendered = {name: None if text is None else _rendered(text, names) for name, text in texts.items()}
        asked = _rendered(cell, names)
        try:
            answer = facade.chat(asked, display=True, **rendered, **options)
        except BaseException as error:
            self._keep(variable, getattr(error, "answer", None))
            raise
        self._keep(variable, answer)
        # A terminal would write an empty Out[…] below the answer that it has shown already.
        return answer if kernel.in_kernel() else None

    @line_magic
    def dipeo(self, line: str) -> Any:
        """Show models, keys, runs and node types.

        %dipeo models      LLM services: which are ready, their keys, default models and capabilities
        %dipeo keys        API keys, masked, and where they come from
        %dipeo keys set SERVICE     store a key; it is asked for, and not shown
        %dipeo keys delete SERVICE  delete it (or the one with an id: APIKEY_…)
        %dipeo keys unlock          ask for the passphrase of encrypted keys, for this session
        %dipeo runs [N]    the N newest runs of diagrams (default 20)
        %dipeo replay RUN [SPEED]   replay a recorded run live, without any calls (1: at its own speed)
        %dipeo nodes [TYPE]   node types; with TYPE, its fields and an example
        %dipeo nest        let nested event loops work in this kernel; dipeo_nb itself does not need it
        """
        words = line.split()
        asked = words[0] if words else ""
        commands: dict[str, Callable[[list[str]], Any]] = {
            "models": _models, "keys": _keys, "runs": _runs, "replay": _replay, "nodes": _nodes, "nest": _nest,
        }  # fmt: skip
        if asked not in commands:
            what = f"There is no '%dipeo {asked}'." if asked else "%dipeo what?"
            guess = f"Did you mean '{near}'? " if (near := nearest(asked, commands)) else ""
            raise ValidationError(what, hint=f"{guess}There are: {', '.join(f'%dipeo {name}' for name in commands)}.")
        return commands[asked](words[1:])

    def _names(self) -> dict[str, Any]:
        assert self.shell is not None
        return self.shell.user_ns

    def _keep(self, variable: str | None, answer: Answer | None) -> None:
        if variable is not None and answer is not None:
            self._names()[variable] = answer.text


def load(shell: InteractiveShell) -> None:
    """Register the magics; may be called again."""
    shell.register_magics(DipeoMagics)


def unload(shell: InteractiveShell) -> None:
    """Unregister the magics."""
    for kind, name in (("cell", "prompt"), ("line", "dipeo")):
        shell.magics_manager.magics[kind].pop(name, None)


class _Parser(argparse.ArgumentParser):
    """Reports what is wrong as one of our errors."""

    def error(self, message: str) -> NoReturn:
        raise ValidationError(f"%%prompt: {message}.", hint=f"Usage: {USAGE}")


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


_number.__name__, _count.__name__ = "number", "number of tokens"
"""The names of these types in the errors of argparse."""


def _options(line: str) -> tuple[dict[str, Any], str | None]:
    """(options, name of the variable) of the line of a `%%prompt`."""
    parser = _Parser(prog="%%prompt", add_help=False, allow_abbrev=False)
    parser.add_argument("--model", "-m")
    parser.add_argument("--system", "-s")
    parser.add_argument("--temperature", "-t", type=_number)
    parser.add_argument("--max-tokens", type=_count)
    try:
        words = shlex.split(line)
    except ValueError as error:
        parser.error(f"{str(error).lower()} in '{line.strip()}'")
    variable: str | None = None
    if len(words) > 1 and words[-2] == ">":
        *words, _, variable = words
    elif words and words[-1].startswith(">"):
        variable = words.pop()[1:]
    if variable is not None and not variable.isidentifier():
        parser.error(f"'{variable}' is not a variable name" if variable else "'>' has no variable after it")
    found, strange = parser.parse_known_args(words)
    if strange:
        parser.error(f"'{strange[0]}' is not an option; quote texts with spaces")
    return vars(found), variable


def _rendered(template: str, names: Mapping[str, Any]) -> str:
    """*template* with the notebook's variables.

    Raises:
        TemplateError: bad syntax, or an undefined name.
    """
    result = SimpleTemplateProcessor().process(template, names)
    if result.missing_keys:
        missing = ", ".join(f"'{name}'" for name in result.missing_keys)
        head = result.missing_keys[0].partition(".")[0].partition("[")[0]
        known = [name for name in names if not name.startswith("_")]
        near = None if head in names else nearest(head, known)
        guess = f"Did you mean '{near}'? " if near else ""
        raise TemplateError(
            f"The prompt uses {missing}, which this notebook does not have, or which is None.",
            hint=f"{guess}Set it in a cell above; {{{{name | default('…')}}}} gives a value for a missing one.",
        )
    if result.errors:
        raise TemplateError(result.errors[0], hint="Fix the prompt.")
    return result.content


def _models(words: list[str]) -> Any:
    _nothing_more("models", words)
    return facade.default_session().models()


def _keys(words: list[str]) -> Any:
    keys = facade.default_session().runtime.services.keys
    match words:
        case []:
            return Table(run_sync(overview(keys)))
        case ["set", name]:
            name = checked_name(name)
            _unlock(keys)
            run_sync(keys.set_api_key(name, _hidden(f"Key of {name}: ")))
        case ["delete", name]:
            _unlock(keys)
            run_sync(keys.delete_api_key(name))
        case ["unlock"]:
            _unlock(keys)
        case ["set", _, *_]:
            raise ValidationError(
                "A key does not belong in a cell: it would be saved with the notebook.",
                hint="Remove it there; then run `%dipeo keys set SERVICE`, which asks for it.",
            )
        case _:
            raise ValidationError(
                "%dipeo keys does not know that.",
                hint="There are: %dipeo keys, %dipeo keys set SERVICE, %dipeo keys delete SERVICE, %dipeo keys unlock.",
            )
    return Table(run_sync(overview(keys)))


def _unlock(keys: Any) -> None:
    """Ask for the passphrase when keys are encrypted and it is missing."""
    if getattr(keys, "locked", False):
        keys.unlock(_hidden("Passphrase of the stored keys: "))


def _hidden(question: str) -> str:
    """Ask for an answer that is not shown, and not kept in the notebook."""
    try:
        return getpass(question)
    except StdinNotImplementedError:
        raise ValidationError(
            "There is no user to ask here: this notebook is executed by a program.",
            hint="Set the variable instead, or store the key with `dipeo-nb keys set SERVICE`.",
        ) from None


def _runs(words: list[str]) -> Any:
    limit, rest = (words[0], words[1:]) if words else ("20", [])
    _nothing_more("runs N", rest)
    if not limit.isdecimal() or not int(limit):
        raise ValidationError(f"'{limit}' is not a number of runs.", hint="Use e.g. %dipeo runs 5.")
    return facade.runs(int(limit))


def _replay(words: list[str]) -> Any:
    if not words:
        raise ValidationError("%dipeo replay which run?", hint="Use %dipeo replay RUN; %dipeo runs lists them.")
    speed, rest = (words[1], words[2:]) if len(words) > 1 else ("1", [])
    _nothing_more("replay RUN SPEED", rest)
    try:
        return facade.replay(words[0], speed=float(speed))
    except ValueError:
        raise ValidationError(f"'{speed}' is not a speed.", hint="Use e.g. %dipeo replay RUN 10.") from None


class _Page:
    """A page of the reference: Markdown in a notebook, the same text in a terminal."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def _repr_markdown_(self) -> str:
        return self._text


def _nodes(words: list[str]) -> Any:
    if not words:
        return Table([{"type": name, "about": spec.META.summary} for name, spec in NODE_SPECS.items()])
    _nothing_more("nodes TYPE", words[1:])
    return _Page(page(words[0]))


def _nest(words: list[str]) -> str:
    _nothing_more("nest", words)
    return facade.nest()


def _nothing_more(command: str, words: list[str]) -> None:
    if words:
        raise ValidationError(f"%dipeo {command} takes no further words, such as '{words[0]}'.", hint="Leave it out.")
