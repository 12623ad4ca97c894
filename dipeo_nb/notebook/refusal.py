"""A diagram that was refused because it is not trusted, in a notebook: what it would do, and the lines to copy that approve it.

A panel asks nothing: with "Run all", papermill and nbconvert there is no user to answer. Nothing in it is live, whatever the diagram says.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from html import escape
from typing import Any, ParamSpec, TypeVar

from dipeo_nb.common import lazy
from dipeo_nb.common.text import printable
from dipeo_nb.diagram.labels import clean
from dipeo_nb.errors import TrustError
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.run import Run, RunResult
from dipeo_nb.notebook.static_view import _RAW

_facade: Any = lazy.module("dipeo_nb.notebook.facade")  # it makes sessions, whose methods are named here
P = ParamSpec("P")
T = TypeVar("T")

MOST_LINES = 400
"""Lines of the list that a panel shows; `dipeo-nb inspect` has all of them."""
LONGEST_LINE = 2_000
"""Characters of one line."""
_BOX = (
    "border:1px solid var(--jp-border-color1,#bdbdbd);border-left:4px solid var(--jp-warn-color1,#f57c00);border-radius:3px;"
    "padding:0.6em 1em;margin:0.3em 0;max-width:60em;overflow-wrap:anywhere;color:var(--jp-ui-font-color1,inherit);background:var(--jp-layout-color1,transparent)"
)
_CODE = (
    "margin:0.2em 0 0.6em;padding:0.5em 0.7em;white-space:pre-wrap;overflow-wrap:anywhere;text-align:left;"
    "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px);line-height:1.4;"
    "color:var(--jp-content-font-color1,inherit);background:var(--jp-layout-color2,rgba(127,127,127,0.12))"
)
_LIST = f"{_CODE};max-height:24em;overflow:auto"


def html(error: TrustError) -> str:
    """The panel: one sentence, the list, and the lines that approve the diagram. Everything is escaped."""
    parts = [f"<p style='margin:0.2em 0'><strong>Not run:</strong> {escape(_line(error.message))}</p>"]
    lines = error.listing()
    if lines:
        shown = [_line(line) for line in lines[:MOST_LINES]]
        if len(lines) > MOST_LINES:
            shown.append(f"… and {len(lines) - MOST_LINES} more lines: dipeo-nb inspect FILE")
        parts.append(f"<pre style='{_LIST}' tabindex='0' aria-label='What it would do'>{escape(chr(10).join(shown))}</pre>")
    if any(line.strip().startswith(("runs code", "runs programs")) for line in lines):
        parts.append("<p style='margin:0.2em 0'>Code can do everything that you can do.</p>")
    ways = error.ways()
    for number, (meaning, line) in enumerate(ways):
        head = "To say yes, copy a line. " if not number else ""
        parts.append(
            f"<p style='margin:0.2em 0'>{head}{escape(_line(meaning))}:</p><pre style='{_CODE}'>{escape(_line(line))}</pre>"
        )
    if settings := error.settings_lines():
        held = "".join(f"<li>{escape(_line(setting))}</li>" for setting in settings[:MOST_LINES])
        parts.append(f"<p style='margin:0.2em 0'>With the folder, these of its settings take effect, too:</p><ul>{held}</ul>")
    if not ways and error.hint:
        parts.append(f"<p style='margin:0.2em 0'>{escape(_line(error.hint))}</p>")
    return f"<section {_RAW} style='{_BOX}' role='alert'>{''.join(parts)}</section>"


def bundle(error: TrustError) -> dict[str, str]:
    """The panel for front ends of every kind."""
    return {"text/html": html(error), "text/plain": error.text()}


def show(error: TrustError) -> bool:
    """Show the panel in the running cell of a kernel, and return whether a user sees it there.

    A notebook that a program executes keeps the panel among its outputs, but the program reports the text of the error, which
    therefore stays complete.
    """
    if not kernel.in_kernel():
        return False
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    cell = getattr(shell, "execution_count", 0)
    if error.__dict__.get("_shown_in") != cell:  # kernels ask for the lines of one error more than once
        error.__dict__["_shown_in"] = cell
        display(bundle(error), raw=True)
    return not kernel.unattended()


def _line(text: str) -> str:
    """A text of unknown origin on one line, without characters that would change how the page reads."""
    shown = clean(text, LONGEST_LINE) if len(text) > LONGEST_LINE else text
    return printable(shown)


def naming_the_call(method: Callable[P, T]) -> Callable[P, T]:
    """Wrap a method of a session, so that the lines of its TrustError call the same method."""

    def named(error: TrustError, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        own, *rest = args
        subject = rest[0] if rest else next(iter(given.values()), None)
        prefix = "dp" if own is _facade._default else "session"
        wait = "await " if inspect.iscoroutinefunction(method) else ""
        error.facts["call"] = (f"{wait}{prefix}.{method.__name__}", _name_of(subject, error))

    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def awaited(*args: Any, **given: Any) -> Any:
            try:
                return await method(*args, **given)
            except TrustError as error:
                named(error, args, given)
                raise

        return awaited  # pyright: ignore[reportReturnType]

    @functools.wraps(method)
    def call(*args: P.args, **given: P.kwargs) -> T:
        try:
            return method(*args, **given)
        except TrustError as error:
            named(error, args, dict(given))
            raise

    return call


def _name_of(subject: Any, error: TrustError) -> str | None:
    """The first argument of a call as it can be written again; None for a text, a mapping or an object without a file."""
    if isinstance(subject, (Run, RunResult)):
        return subject.id
    if isinstance(subject, os.PathLike):
        subject = os.fspath(subject)
    if isinstance(subject, str) and "\n" not in subject and len(subject) <= LONGEST_LINE:
        return subject
    if (run_id := getattr(subject, "run_id", None)) is not None:
        return str(run_id)
    return error.facts.get("path")


TrustError.shown = staticmethod(show)
TrustError.bundle = staticmethod(bundle)
