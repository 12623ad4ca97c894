"""The run history as a live table in a notebook: the page asks for a page of rows, and the store has the list.

What stands in the notebook is a table of the newest runs, over which the script of the widget puts the live one: so it is there without a
kernel, too."""

from __future__ import annotations

import concurrent.futures
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anywidget
import traitlets

from dipeo_nb.errors import DipeoError
from dipeo_nb.execution import run_page
from dipeo_nb.execution.run_pages import RunQuery
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.history import Runs


class HistoryTable(anywidget.AnyWidget):
    """The widget.

    Args:
        query: returns the rows of a page, and how many runs match.
        html: returns what shows a run.
        compare: returns the facts of a comparison of two runs.
        delete: deletes runs by their ids.
        newest: returns the rows that a notebook keeps.
    """

    _esm = run_page.script("history_widget.js")
    _css = run_page.styles()
    token = traitlets.Unicode("").tag(sync=True)

    def __init__(
        self,
        query: Callable[[RunQuery], Mapping[str, Any]],
        html: Callable[[str], str],
        compare: Callable[[str, str], Mapping[str, Any]],
        delete: Callable[[Sequence[str]], Any],
        newest: Callable[[], Runs],
    ) -> None:
        super().__init__(token=secrets.token_hex(6))
        comm = getattr(self, "comm", None)
        if hasattr(comm, "_reply_subshell_for"):  # see `LiveView`
            comm._reply_subshell_for = None  # pyright: ignore[reportOptionalMemberAccess,reportAttributeAccessIssue]
        self._query, self._html, self._facts, self._delete, self._newest = query, html, compare, delete, newest
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "dipeo-runs")
        self.on_msg(lambda _, content, buffers: self._worker.submit(self.command, content))

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        rows = self._newest()
        html = f'<div class="dipeo-runs-of-{self.token}">{rows._repr_html_()}</div>'
        face = {"text/html": html, "text/plain": repr(rows)}
        if not kernel.displays_widgets_alone():
            return face
        shown = super()._repr_mimebundle_(**kwargs)
        data, metadata = shown if isinstance(shown, tuple) else (shown or {}, {})
        return {**data, **face}, metadata

    def command(self, message: Mapping[str, Any]) -> None:
        """Carry out a message of the page and answer it."""
        number = message.get("id")
        try:
            self.send({"id": number, **self._answer(message)})
        except DipeoError as error:
            self.send({"id": number, "error": f"{error.message} {error.hint or ''}".rstrip()})

    def _answer(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        match message:
            case {"type": "query", "query": dict(given)}:
                return self._query(RunQuery.of(given))
            case {"type": "open", "runs": [str(run)]}:
                return {"html": self._html(run)}
            case {"type": "compare", "runs": [str(before), str(after)]}:
                return {"facts": self._facts(before, after)}
            case {"type": "delete", "runs": list(runs)}:
                self._delete([str(run) for run in runs])
                return {}
            case _:
                return {}  # a page of another version
