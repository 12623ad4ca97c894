"""Signals while a command is at work."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def handling(handler: Callable[[int, Any], None], *signals: int) -> Iterator[None]:
    """Give *signals* another handler for a while; in other threads than the main one nothing happens."""
    try:
        before = {number: signal.signal(number, handler) for number in signals}
    except ValueError:
        before = {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def hangup() -> list[int]:
    """SIGHUP, where there is one and `nohup` does not want it ignored."""
    number = getattr(signal, "SIGHUP", None)
    return [number] if number is not None and signal.getsignal(number) is not signal.SIG_IGN else []


def terminated_like_ctrl_c() -> contextlib.AbstractContextManager[None]:
    """SIGTERM ends a command as Ctrl-C does: in order, with exit code 130."""

    def leave(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    return handling(leave, signal.SIGTERM)
