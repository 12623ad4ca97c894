"""Handles signals while a command runs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def handling(handler: Callable[[int, Any], None], *signals: int) -> Iterator[None]:
    """Replace the handler of *signals* for a while; does nothing in threads other than the main one."""
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
    """SIGHUP, where it exists and is not ignored because of `nohup`."""
    number = getattr(signal, "SIGHUP", None)
    return [number] if number is not None and signal.getsignal(number) is not signal.SIG_IGN else []


def terminated_like_ctrl_c() -> contextlib.AbstractContextManager[None]:
    """Let SIGTERM end a command like Ctrl-C: in an orderly way, with exit code 130."""

    def leave(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    return handling(leave, signal.SIGTERM)
