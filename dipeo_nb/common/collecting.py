"""Pausing the collector of cycles while a large value is made.

A full collection walks every container of the process and holds the interpreter meanwhile, the event loop's thread too: about 0.1 s
for a million of them. A value of many containers sets off several while it is made, for nothing, as all of it is in use.

What is left is bounded by the size of the values that are alive: CPython frees a value in one step (about 0.1 s for a list of 400,000
mappings, in whichever thread lets go of it), and a full collection that ordinary work sets off later walks it once."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

OWN_FROZEN = 5_000 if sys.version_info[:2] == (3, 12) else 0
"""Objects that count as frozen without anybody's doing, at most: the collector of Python 3.12 puts the interpreter's immortal ones there
(some 400). An application that freezes has many times as many."""

_lock = threading.RLock()  # an iterator that the collector closes may leave its block in the middle of this
_paused = 0
_was_enabled = False
_others_freeze = False
"""Whether the application has frozen objects. Asked until it has: counting them walks all of them."""


@contextmanager
def paused() -> Iterator[None]:
    """No collection begins in this process before the end of the block; of several blocks at a time, before that of the last.

    What is there by then counts as old, as if it had outlived two collections, so none of the next ones walks it but a full one.
    A collector that the application has turned off, or that keeps frozen objects of its own (`gc.freeze`), is left as it is.
    """
    global _paused, _was_enabled, _others_freeze
    with _lock:
        if _paused == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _paused += 1
    try:
        yield
    finally:
        with _lock:
            _paused = max(0, _paused - 1)  # 0 already in a forked child
            if _paused == 0 and _was_enabled:
                if not _others_freeze and gc.get_freeze_count() <= OWN_FROZEN:
                    # Both only relink the lists of the collector: no object is visited.
                    gc.freeze()
                    gc.unfreeze()
                else:
                    _others_freeze = True
                gc.enable()


def _reset() -> None:
    """In a forked child, where the threads that were in blocks are no more."""
    global _lock, _paused
    _lock = threading.RLock()
    if _paused and _was_enabled:
        gc.enable()
    _paused = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
