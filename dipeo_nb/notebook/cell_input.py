"""input() that ends with the question it asks.

A cell in input() would wait for an answer that is no longer needed: the run was stopped, its time is over, or the answer came from
elsewhere. The main thread is then interrupted by a signal, which works in kernels and in terminals.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable
from html import escape
from types import FrameType
from typing import Any

REQUEST_S = 0.3
"""Seconds for a request for a line to leave the kernel. Ended earlier, it would be unknown whether there is an input box."""


class QuestionOverError(Exception):
    """The question was over before it was answered here.

    Args:
        open_box: whether the user still sees an input box.
    """

    def __init__(self, *, open_box: bool) -> None:
        super().__init__()
        self.open_box = open_box


class CellInput:
    """Reads one line at a time, in the main thread.

    Args:
        request_s: seconds of reading before `release` ends it.
    """

    def __init__(self, request_s: float = REQUEST_S) -> None:
        self._request_s = request_s
        self._lock = threading.Lock()
        self._reading: str | None = None
        self._since = 0.0
        self._over = False

    def read(self, prompt: str, key: str, waits: Callable[[], bool]) -> str:
        """Read a line from the user.

        Args:
            key: names the question for `release`.
            waits: whether the question is still open.

        Raises:
            QuestionOverError: `release` was called.
            EOFError, NotImplementedError: there is no user to ask here.
            KeyboardInterrupt: the user interrupted.
        """
        if threading.current_thread() is not threading.main_thread():
            return input(prompt)
        with self._lock:
            self._reading, self._since, self._over = key, time.monotonic(), False
        before: Any = signal.getsignal(signal.SIGINT)

        def interrupted(number: int, frame: FrameType | None) -> None:
            if self._over or not callable(before):
                raise KeyboardInterrupt
            before(number, frame)

        box_open, text = False, ""
        try:
            signal.signal(signal.SIGINT, interrupted)
            try:
                if waits():
                    box_open = True
                    text = input(prompt)
                    box_open = False
                else:
                    self._over = True
            finally:
                self._reading = None  # no signal is sent from here on
                with self._lock:
                    pass
                if self._over:
                    time.sleep(0)  # the signal has been sent, and is handled here
        except KeyboardInterrupt:
            if self._over:
                raise QuestionOverError(open_box=box_open) from None
            raise
        finally:
            signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)
        if self._over:
            raise QuestionOverError(open_box=False)
        return text

    def release(self, key: str) -> None:
        """Stop reading the answer to that question, if it is being read. Safe from any thread."""
        with self._lock:
            if self._reading != key or self._over:
                return
            too_early = self._since + self._request_s - time.monotonic()
            if too_early > 0:
                again = threading.Timer(too_early, self.release, (key,))
                again.daemon = True
                again.start()
                return
            self._over = True
            main = threading.main_thread().ident
            if hasattr(signal, "pthread_kill") and main is not None:
                signal.pthread_kill(main, signal.SIGINT)
            else:
                _thread.interrupt_main()


_boxes: tuple[Any, int] = (None, 0)
"""A request to execute a cell, and how many input boxes of closed questions that cell has."""


def hide_box(why: str) -> None:
    """Explain in the running cell why its open input box is closed, and hide the box.

    A kernel cannot remove an input box. JupyterLab leaves it below the outputs until the cell runs again, and what is typed there
    would answer the *next* question. So the message has a style that hides the first boxes of this cell, as many as are closed: boxes
    that were answered are gone, and an open one comes after them. Other front ends show only the message.
    """
    global _boxes
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    shell: Any = get_ipython()
    cell = shell.get_parent().get("header", {}).get("msg_id")
    _boxes = (cell, _boxes[1] + 1 if _boxes[0] == cell else 1)
    mark = f"dipeo-over-{time.time_ns():x}"
    hidden = f".jp-OutputArea:has(> .jp-OutputArea-child .{mark}) > :nth-child(-n+{_boxes[1]} of .jp-OutputArea-stdin-item)"
    html = f'<div class="mathjax_ignore tex2jax_ignore {mark}">{escape(why)}<style>{hidden}{{display:none}}</style></div>'
    display({"text/html": html, "text/plain": why}, raw=True)
