"""Errors of a run that is in the store."""

from __future__ import annotations

from dipeo_nb.errors.base import DipeoError


class RunError(DipeoError):
    """The run failed. `run_id` and `node` (label) are set when known."""

    code = "run_error"
    run_id: str | None = None
    node: str | None = None


class NodeExecutionError(RunError):
    """The work of a node raised."""

    code = "node_failed"


class NotGrantedError(NodeExecutionError):
    """A node needed something that its diagram is not allowed to do; `kind` and `what` name it as in `--allow`."""

    code = "not_granted"


class ExpressionError(NodeExecutionError):
    """An expression could not be parsed or evaluated."""

    code = "expression_error"


class TemplateError(NodeExecutionError):
    """A template could not be parsed or rendered."""

    code = "template_error"


class CodeError(NodeExecutionError):
    """The code of a code_job raised; `traceback` is the user's part of the traceback."""

    code = "code_error"
    traceback: str = ""


class NodeTimeoutError(RunError):
    """A node was slower than its time limit."""

    code = "node_timeout"


class RunTimeoutError(RunError):
    """The run was slower than its time limit."""

    code = "run_timeout"


class MaxIterationsError(RunError):
    """A loop did not end within its limit."""

    code = "max_iterations"


class DeadlockError(RunError):
    """Nodes wait for inputs that can never come; the message names the missing edges."""

    code = "deadlock"


class BudgetExceededError(RunError):
    """A limit of tokens, cost, calls or seconds was reached."""

    code = "budget_exceeded"


class RunAbortedError(RunError):
    """The run was stopped by the user."""

    code = "aborted"


class RunInterruptedError(RunAbortedError):
    """The run was interrupted by the orderly end of its process; it can be resumed."""

    code = "interrupted"
