"""The kernel that this process may be: whether it is one, whether somebody sits in front of it, and the cell that it executes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def in_kernel() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def unattended() -> bool:
    """Whether this is a kernel without anybody in front of it (nbclient, papermill, nbconvert --execute)."""
    if not in_kernel():
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell.kernel, "_allow_stdin", True) is False


def current_cell() -> tuple[str, str] | None:
    """The notebook cell that is being executed, and this execution of it; None where the front end names no cell."""
    if not in_kernel():
        return None
    get_parent = getattr(sys.modules["IPython"].get_ipython(), "get_parent", None)  # other kernels may have none
    if get_parent is None:
        return None
    request = get_parent()
    cell, execution = request.get("metadata", {}).get("cellId"), request.get("header", {}).get("msg_id")
    return (cell, execution) if cell and execution else None


def at_end_of_cell(work: Callable[[], None]) -> None:
    """Do something once, in the kernel's main thread, at the end of the cell that is being executed, or else of the next one."""
    events = sys.modules["IPython"].get_ipython().events

    def once(*_: Any) -> None:
        events.unregister("post_run_cell", once)
        work()

    events.register("post_run_cell", once)


def cell_number() -> int | None:
    """The number of the running cell; None outside IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return None if shell is None else int(shell.execution_count)
