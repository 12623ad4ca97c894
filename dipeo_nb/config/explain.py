"""Settings with their origins, as a table."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import NamedTuple

from dipeo_nb.config.origins import Origin
from dipeo_nb.config.suggestions import Approval


class Setting(NamedTuple):
    """One row of `Settings.explain`."""

    name: str
    value: str
    source: str
    """`environment DIPEO_X`, the user's file, `.env`, `dipeo.toml`, `given` (changed in code) or `default`."""
    variables: tuple[str, ...]
    standing: str = ""
    """Standing: `personal`, `folder`, `folder, approved 28 Nov`, `folder, waiting → dp.trust(".")`,
    `folder, declined → dp.trust(".")`, `folder, ignored (personal)`; empty for defaults."""


class SettingsTable(tuple[Setting, ...]):
    """All settings; displayed as a table."""

    def __repr__(self) -> str:
        wide = max(len(s.name) for s in self)
        return "\n".join(f"{s.name:<{wide}}  {s.value}  ({'; '.join(filter(None, (s.source, s.standing)))})" for s in self)

    def _repr_html_(self) -> str:
        titles = ("setting", "value", "from", "standing", "variables")
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in (*s[:3], s.standing, ", ".join(s.variables))) + "</tr>"
            for s in self
        )
        head = "".join(f"<th>{title}</th>" for title in titles)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def standing(origin: Origin, approval: Callable[[], Approval], *, ignored: bool) -> str:
    """Return the standing of a value, including whether a value of the folder is ignored."""
    return "; ".join(filter(None, (_worth(origin, approval), "folder, ignored (personal)" if ignored else "")))


def _worth(origin: Origin, approval: Callable[[], Approval]) -> str:
    if origin.source == "default":
        return ""
    if origin.personal:
        return "personal"
    if not origin.suggestion:
        return "folder"
    said = approval()
    if said.state == "approved":
        return f"folder, approved {_day(said.at)}".rstrip()
    return f'folder, {said.state} → dp.trust(".")'


def _day(at: str) -> str:
    """Format `2026-11-28T10:00:00Z` as `28 Nov`."""
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    found = re.match(r"\d{4}-(\d\d)-(\d\d)", at)
    return f"{int(found[2])} {months[int(found[1]) - 1]}" if found and 1 <= int(found[1]) <= 12 else ""
