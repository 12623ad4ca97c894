"""The worker process: carries out one request after the other until its input ends.

A request is a function's name and its arguments, pickled by the parent; an answer is JSON, so that nothing of what the work made is
ever executed by the parent.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import signal
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from dipeo_nb.errors import DipeoError

MEMORY_LIMIT = 2 * 1024**3
"""Bytes of the address space."""
HEAD = struct.Struct(">Q")
"""The length that stands before each request and each answer."""
ORPHAN_CHECK_S = 2.0
"""Seconds between two looks whether the parent lives."""


def main(parent: int) -> None:
    """Serve the requests of the process *parent*, and end with it."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    _limit(parent)
    while (request := read(requests)) is not None:
        name, arguments = pickle.loads(request)
        answer = json.dumps(_answer(name, arguments)).encode()
        answers.write(HEAD.pack(len(answer)) + answer)
        answers.flush()


def read(stream: BinaryIO, limit: int | None = None) -> bytes | None:
    """The next request or answer; None at the end of the stream. Raises ValueError when it has more than *limit* bytes."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    size = HEAD.unpack(head)[0]
    if limit is not None and size > limit:
        raise ValueError(f"an answer of {size:,} bytes")
    data = stream.read(size)
    return data if len(data) == size else None


def _answer(name: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    try:
        module, _, function = name.partition(":")
        work: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return {"value": work(*arguments)}
    except DipeoError as error:
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint, "facts": _plain(error.facts)}
    except MemoryError:
        return {"failure": "it needs too much memory"}
    except RecursionError:
        return {"failure": "it is nested too deeply"}
    except Exception as error:  # noqa: BLE001 - the parent raises it
        return {"failure": f"{type(error).__name__}: {error}"[:500]}


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(facts, default=str))


def _limit(parent: int) -> None:
    """Limit the memory, and end with the process *parent* also while the work does not listen."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def look(*_: Any) -> None:
        if os.getppid() != parent:
            os._exit(1)

    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, ORPHAN_CHECK_S, ORPHAN_CHECK_S)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
