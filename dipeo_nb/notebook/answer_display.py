"""Displays of an answer while it streams in: in a cell, or in a terminal."""

from __future__ import annotations

import contextvars
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from dipeo_nb.common import lazy
from dipeo_nb.common.loop import LoopThread
from dipeo_nb.common.text import inert
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.answer import Answer, line_of, summary
from dipeo_nb.notebook.saved_output import SavedOutput
from dipeo_nb.notebook.streaming_answer import StreamingAnswer

if TYPE_CHECKING:
    from dipeo_nb.notebook import chat_feed, view
else:
    view = lazy.module("dipeo_nb.notebook.view")  # the views bring ipywidgets along
    chat_feed = lazy.module("dipeo_nb.notebook.chat_feed")

FACE_S = 10.0
"""Seconds between two faces of an answer that streams in: what a notebook has that is saved meanwhile."""


class CellDisplay:
    """Shows one answer in one output of a cell. Created and shown in the cell; everything else on the loop thread.

    While the answer streams in, views of it stand over a static face; at the end the face is the complete answer, which needs no kernel.

    Args:
        waits: whether the cell waits for the answer.
    """

    def __init__(self, seen: StreamingAnswer, *, waits: bool) -> None:
        self._seen = seen
        self._waits = waits
        self._output: SavedOutput | None = None
        self._feed: chat_feed.ChatFeed | None = None
        self._next_face = 0.0
        self.cell = kernel.cell_number()

    def show(self) -> None:
        """Create the output in the running cell."""
        from IPython.core.displaypub import CapturingDisplayPublisher
        from IPython.core.getipython import get_ipython

        if isinstance(getattr(get_ipython(), "display_pub", None), CapturingDisplayPublisher):
            return  # %%capture would keep every update as an output of its own
        if not kernel.unattended():
            self._feed = chat_feed.ChatFeed(view.views().new_id(), self._seen)
            LoopThread.get().loop.call_soon_threadsafe(view.views().add, self._feed, context=contextvars.Context())
        elif self._waits:
            return  # a log of the outputs has the answer, and nothing before it
        self._output = SavedOutput(self._face())
        self._next_face = time.monotonic() + FACE_S

    def changed(self) -> None:
        """Tell the views soon."""
        if self._feed is None or self._output is None:
            return
        self._feed.changed = True
        if time.monotonic() >= self._next_face:
            self._next_face = time.monotonic() + FACE_S
            self._output.update(self._face())

    def finish(self, answer: Answer) -> None:
        """Show the complete answer."""
        if answer.cached and kernel.unattended():
            answer = replace(answer, seconds=None)  # two executions with recordings leave the same outputs
        data, metadata = answer._repr_mimebundle_()
        if self._feed is not None:
            self._feed.end(answer)
        if self._output is None:
            from IPython.display import display

            display(data, raw=True, metadata=metadata)
        else:
            self._output.update(data, metadata, final=True)

    def _face(self) -> dict[str, str]:
        data = self._seen.bundle()
        if self._feed is not None:
            data["text/html"] = view.views().mark(self._feed.id, data["text/html"], final=False)
        return data


class TextDisplay:
    """Shows one answer in a terminal: its text on stdout as it arrives, everything else on stderr."""

    cell = None

    def __init__(self, seen: StreamingAnswer) -> None:
        self._seen = seen
        self._written = 0
        self._tools: set[str] = set()
        self._line_open = False

    def show(self) -> None:
        """Do nothing yet."""

    def changed(self) -> None:
        seen = self._seen
        if self._written > len(seen.pieces):  # dropped, or a new round
            self._written = 0
            self._break()
        for call, use in seen.tools.items():
            if use.result is not None and call not in self._tools:
                self._tools.add(call)
                self._break()
                sys.stderr.write(f"{inert(line_of(use))}\n")
        if len(seen.pieces) > self._written:
            piece = "".join(seen.pieces[self._written :])
            self._written = len(seen.pieces)
            self._line_open = not piece.endswith("\n")
            sys.stdout.write(inert(piece) if sys.stdout.isatty() else piece)
            sys.stdout.flush()

    def finish(self, answer: Answer) -> None:
        self.changed()
        self._break()
        for notice in (*answer.warnings, *answer.notices):
            sys.stderr.write(f"{inert(notice)}\n")
        sys.stderr.write(f"{inert(summary(answer))}\n")

    def _break(self) -> None:
        if self._line_open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._line_open = False
