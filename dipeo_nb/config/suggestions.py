"""Suggestions in a folder's files, and the user's decision about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from dipeo_nb.config.origins import Origin
from dipeo_nb.config.redaction import shown


class Suggestion(NamedTuple):
    """A value that a folder suggests."""

    name: str
    value: Any
    origin: Origin

    @property
    def shown(self) -> str:
        """The value for display, on one line."""
        return shown(self.value)


class Suggestions(NamedTuple):
    """Values that a folder's files suggest, including those that a setting of the user's own overrides."""

    folder: Path
    entries: tuple[Suggestion, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the folder and the sorted names and values, which an approval is bound to."""
        values = sorted((entry.name, json.dumps(entry.value, default=str)) for entry in self.entries)
        return hashlib.sha256(json.dumps([str(self.folder), values]).encode("utf-8", "surrogatepass")).hexdigest()


class Approval(NamedTuple):
    """The user's decision about the suggestions of a folder."""

    state: Literal["waiting", "approved", "declined"]
    at: str = ""
    """Time of the decision, such as `2026-11-28T10:00:00Z`."""


Approvals = Callable[[Path, Suggestions], Approval]
"""Looks up a decision, given the user's data folder and the suggestions."""
_approvals: Approvals | None = None


def use_approvals(approvals: Approvals) -> None:
    """Set the lookup of approvals; until then, all suggestions wait."""
    global _approvals
    _approvals = approvals


def approval_of(data_dir: Path, suggestions: Suggestions) -> Approval:
    return Approval("waiting") if _approvals is None else _approvals(data_dir, suggestions)
