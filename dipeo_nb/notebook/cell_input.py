"""input() that ends with the question it asks.

A cell that sits in input() would wait for an answer that nobody needs any more: the run was stopped, its time is over, or somebody
else has answered. Whoever waits in the main thread is then called back by a signal, which works in kernels and terminals alike.
"""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any


class QuestionOverError(Exception):
    """The question was over before it was answered here."""


class CellInput:
    """Reads one line at a time, in the main thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading: str | None = None
        self._over = False

    def read(self, prompt: str, key: str, waits: Callable[[], bool]) -> str:
        """A line from the user.

        Args:
            key: names the question for `release`.
            waits: whether the question is open still.

        Raises:
            QuestionOverError: `release` was called.
            EOFError, NotImplementedError: nobody can be asked here.
            KeyboardInterrupt: the user interrupted.
        """
        if threading.current_thread() is not threading.main_thread():
            return input(prompt)
        with self._lock:
            self._reading, self._over = key, False
        before: Any = signal.getsignal(signal.SIGINT)

        def interrupted(number: int, frame: FrameType | None) -> None:
            if self._over or not callable(before):
                raise KeyboardInterrupt
            before(number, frame)

        try:
            signal.signal(signal.SIGINT, interrupted)
            try:
                if not waits():
                    raise QuestionOverError
                text = input(prompt)
            finally:
                self._reading = None  # from here on nobody signals
                with self._lock:
                    pass
                if self._over:
                    time.sleep(0)  # the signal is there, and is taken here
        except KeyboardInterrupt:
            if self._over:
                raise QuestionOverError from None
            raise
        finally:
            signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)
        if self._over:
            raise QuestionOverError
        return text

    def release(self, key: str) -> None:
        """End the reading of an answer to that question, if it is being read. Any thread."""
        with self._lock:
            if self._reading != key or self._over:
                return
            self._over = True
            main = threading.main_thread().ident
            if hasattr(signal, "pthread_kill") and main is not None:
                signal.pthread_kill(main, signal.SIGINT)
            else:
                _thread.interrupt_main()
