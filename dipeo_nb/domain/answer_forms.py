"""What an answer to a question is: text, one of some choices, or the approval of a call. Pure; answers are texts everywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Kind = Literal["text", "multiline", "choice", "approval"]
APPROVING = frozenset({"approve", "approved", "yes", "y", "ok", "allow", "true", "1"})
REJECTING = frozenset({"reject", "rejected", "no", "n", "deny", "false", "0"})


class AnswerForm(NamedTuple):
    """The kind of answer that a question takes."""

    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    arguments: Mapping[str, Any] | None = None
    """approval: of the call that waits; they may be changed."""
    tool: str | None = None
    """approval: what would be called."""

    @property
    def hint(self) -> str:
        """How to answer, for those who type; begins on a line of its own, and is empty for text."""
        match self.kind:
            case "choice":
                return "".join(f"\n  {number}. {choice}" for number, choice in enumerate(self.choices, 1))
            case "approval" if self.arguments is not None:
                return "\n  approve, reject, reject: REASON, or other arguments as a JSON object"
            case "approval":
                return "\n  approve, reject, or reject: REASON"
            case _:
                return ""

    def problem(self, answer: str) -> str | None:
        """Why *answer* is none of this kind; None when it is one."""
        if self.kind == "choice" and self.choice(answer) is None:
            return f"please answer with one of: {', '.join(self.choices)}"
        if self.kind == "approval" and self.approval(answer) is None:
            changed = "" if self.arguments is None else ", or with other arguments as a JSON object"
            return f"please answer with approve or reject{changed}"
        return None

    def choice(self, answer: str) -> str | None:
        """The choice that is meant, by its text in any case, or by its number from 1; None: none."""
        text = answer.strip()
        if text in self.choices:
            return text
        if found := [one for one in self.choices if one.strip().casefold() == text.casefold()]:
            return found[0]
        number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
        return self.choices[number - 1] if 0 < number <= len(self.choices) else None

    def approval(self, answer: str) -> Approval | None:
        """What was decided; None: neither approval nor rejection."""
        text = answer.strip()
        word, _, reason = text.partition(":")
        if text.casefold() in APPROVING:
            return Approval(True)
        if word.strip().casefold() in REJECTING:
            return Approval(False, reason.strip())
        if self.arguments is not None and text.startswith("{"):
            try:
                changed: Any = json.loads(text)
            except (ValueError, RecursionError):
                return None
            return Approval(True, arguments=changed)
        return None


TEXT = AnswerForm()


class Approval(NamedTuple):
    """A call is approved or rejected."""

    approved: bool
    reason: str = ""
    """Why it was rejected."""
    arguments: Mapping[str, Any] | None = None
    """Those that were given instead; None: as they were."""
