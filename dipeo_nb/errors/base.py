"""The base of all errors."""

from __future__ import annotations

from typing import Any

from dipeo_nb.errors.rendering import line_of_caller, printable


class DipeoError(Exception):
    """Base of all errors of this package.

    Args:
        message: what happened, one sentence, in the user's words.
        hint: the next action (a command, a variable, a spelling); shown after the message.
        facts: typed facts, kept as attributes (`error.path`, `error.model` …).
    """

    code = "dipeo_error"
    """Stable, machine-readable name of the kind of error."""

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        self.message = message
        self.hint = hint
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)
        super().__init__(str(self))

    def __str__(self) -> str:
        # Not from the arguments: the hint may be added later, where more is known than where the error was raised.
        between = "" if self.message[-1:].isspace() else " "
        return f"{self.message}{between}{self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the line of the cell, the message and the hint, instead of our own frames."""
        lines = [f"\x1b[31m{type(self).__name__}\x1b[0m: {printable(self.message)}"]
        if place := line_of_caller(self):
            lines.insert(0, place)
        if theirs := getattr(self, "traceback", ""):
            lines.append(printable(str(theirs).rstrip()))
        if self.hint:
            lines.append(printable(self.hint))
        return lines

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are lost by the default protocol; errors must cross process boundaries.
        return _rebuild, (type(self), self.message, self.hint, self.facts)


def _rebuild(cls: type[DipeoError], message: str, hint: str | None, facts: dict[str, Any]) -> DipeoError:
    return cls(message, hint=hint, **facts)
