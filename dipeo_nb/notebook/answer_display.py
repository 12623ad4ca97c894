"""Displays of an answer while it streams in: in a cell, or in a terminal."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time
from collections.abc import Mapping
from typing import Any

from dipeo_nb.common.text import inert
from dipeo_nb.notebook import kernel
from dipeo_nb.notebook.answer import Answer, line_of, summary
from dipeo_nb.notebook.streaming_answer import StreamingAnswer

INTERVAL_S = 0.05
"""Seconds between two updates of a cell: jupyter_server drops everything beyond 1000 messages a second."""
SHARE = 0.1
"""Largest share of the time that goes into drawing one answer."""


class CellDisplay:
    """Shows one answer in one output of a cell, under one display id. Created and shown in the cell; `changed` on the loop thread.

    Updates are few however fast the pieces arrive; the last one is the complete answer and needs no kernel.
    """

    def __init__(self, seen: StreamingAnswer) -> None:
        self._seen = seen
        self._handle: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0.0
        self.cell = kernel.cell_number()

    def show(self) -> None:
        """Create the output in the running cell."""
        from IPython.core.displaypub import CapturingDisplayPublisher
        from IPython.core.getipython import get_ipython
        from IPython.display import display

        if isinstance(getattr(get_ipython(), "display_pub", None), CapturingDisplayPublisher):
            return  # %%capture would keep every update as an output of its own
        self._handle = display(self._seen.bundle(), raw=True, display_id=True)

    def changed(self) -> None:
        """Redraw soon: at once when the interval is over, which a busy loop that delays timers does not prevent."""
        now = time.monotonic()
        if self._handle is None or (now < self._next and self._timer is not None):
            return
        if now >= self._next:
            self._paint()
        else:
            self._timer = asyncio.get_running_loop().call_later(self._next - now, self._paint)

    def finish(self, answer: Answer) -> None:
        """Draw the complete answer."""
        self._unset()
        data, metadata = answer._repr_mimebundle_()
        if self._handle is None:
            from IPython.display import display

            display(data, raw=True, metadata=metadata)
        else:
            self._update(data, metadata)

    def _paint(self) -> None:
        self._unset()
        began = time.monotonic()
        self._update(self._seen.bundle())
        now = time.monotonic()
        self._next = now + max(INTERVAL_S, (now - began) / SHARE)

    def _update(self, data: Mapping[str, str], metadata: Mapping[str, Any] | None = None) -> None:
        # An empty context: the update belongs to the display, not to the cell that happens to run now.
        contextvars.Context().run(self._handle.update, dict(data), raw=True, metadata=dict(metadata or {}))

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


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
