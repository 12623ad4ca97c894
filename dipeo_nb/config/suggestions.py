"""What the files of a folder suggest, and what the user has said to it."""

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
        """The value as it may be shown, on one line."""
        return shown(self.value)


class Suggestions(NamedTuple):
    """The values that the files of a folder suggest, also those that something of the user's goes before."""

    folder: Path
    entries: tuple[Suggestion, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the folder and the sorted names and values: what a yes holds for."""
        values = sorted((entry.name, json.dumps(entry.value, default=str)) for entry in self.entries)
        return hashlib.sha256(json.dumps([str(self.folder), values]).encode("utf-8", "surrogatepass")).hexdigest()


class Approval(NamedTuple):
    """What the user has said to the suggestions of a folder."""

    state: Literal["waiting", "approved", "declined"]
    at: str = ""
    """When, as `2026-11-28T10:00:00Z`."""


Approvals = Callable[[Path, Suggestions], Approval]
"""Looks up what was said: the user's data folder, the suggestions."""
_approvals: Approvals | None = None


def use_approvals(approvals: Approvals) -> None:
    """Say where approvals are looked up; without, everything that a folder suggests waits."""
    global _approvals
    _approvals = approvals


def approval_of(data_dir: Path, suggestions: Suggestions) -> Approval:
    return Approval("waiting") if _approvals is None else _approvals(data_dir, suggestions)
