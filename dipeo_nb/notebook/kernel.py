"""Facts about the kernel: whether this process is one, whether a user is present, and which cell it executes."""

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
    """Whether this is a kernel without a user (nbclient, papermill, nbconvert --execute)."""
    if not in_kernel():
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell.kernel, "_allow_stdin", True) is False


def displays_widgets_alone() -> bool:
    """Whether the front end loads a widget only where it is displayed (VS Code, Colab)."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return "google.colab" in sys.modules or (shell is not None and "__vsc_ipynb_file__" in shell.user_ns)


def execution() -> str | None:
    """Id of the request that is being executed, mostly of a cell; None outside a kernel."""
    if not in_kernel():
        return None
    get_parent = getattr(sys.modules["IPython"].get_ipython(), "get_parent", None)  # other kernels may have none
    return None if get_parent is None else get_parent().get("header", {}).get("msg_id")


def current_cell() -> tuple[str, str] | None:
    """Ids of the notebook cell that is being executed, and of this execution of it; None when the front end sends none."""
    if not in_kernel():
        return None
    get_parent = getattr(sys.modules["IPython"].get_ipython(), "get_parent", None)  # other kernels may have none
    if get_parent is None:
        return None
    request = get_parent()
    cell, execution = request.get("metadata", {}).get("cellId"), request.get("header", {}).get("msg_id")
    return (cell, execution) if cell and execution else None


def at_end_of_cell(work: Callable[[], None]) -> None:
    """Call *work* once, in the kernel's main thread, at the end of the cell that is being executed, or else of the next one."""
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
