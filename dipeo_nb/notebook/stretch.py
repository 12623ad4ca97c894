"""A stretch of a run: the events between two of them, and what happened in these."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from html import escape
from typing import Any, Protocol, TypeGuard

from dipeo_nb.common.text import displayed, money
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.chat import TokenUsage
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.spending import Spending
from dipeo_nb.errors import ValidationError
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.markdown_html import lines
from dipeo_nb.notebook.tables import Events, Table, text_table


class NotableRun(Protocol):
    """A run that has stretches."""

    @property
    def id(self) -> str: ...
    def note(self, where: Any, text: str) -> None: ...


def bounds(where: Any) -> tuple[int, int | None]:
    """Numbers of the first event of a range and of the last one, which is None for an open end. A range counts as Python does: from
    the first number up to, and without, the second. It is a slice, a range, a pair, a text like "120:340", or a stretch.

    Raises:
        ValidationError: it is not a range.
    """
    match where:
        case Stretch():
            return where.first, where.last
        case slice() | range():
            first, end, step = where.start, where.stop, where.step
        case str() if ":" in where:
            first, end, step = *map(_number, where.split(":", 1)), None
        case (first, end):
            step = None
        case _:
            first, end, step = None, 0, None
    first, last = (1 if first is None else first), (sys.maxsize if end is None else end)
    if not (_is_number(first) and _is_number(last)) or step not in (None, 1) or first < 0 or last <= first:
        raise ValidationError(
            f"{where!r:.80} is not a range of events.", hint="Use the numbers of two events: run[120:340], or (120, 340)."
        )
    return max(first, 1), None if end is None else last - 1


def _number(text: str) -> int | str | None:
    """An end of a range as it is written: "120", or nothing for an open one."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else text or None


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


Read = Callable[[Callable[[Iterable[Event]], object]], None]
"""Gives all events of a run to a function, some at a time."""


class _Parts:
    """What a stretch needs of the events of its run."""

    def __init__(self, first: int, last: int | None) -> None:
        self._first, self._last = first, sys.maxsize if last is None else last
        self.before = RunState()
        self.within: list[Event] = []
        self.notes: list[Event] = []
        """Those on the run that were written after the stretch."""
        self.count = 0

    def take_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self.count += 1
            if self.count < self._first:
                self.before.apply(event)
            elif self.count <= self._last:
                self.within.append(event)
            elif event.type is EventType.RUN_NOTE:
                self.notes.append(event)


class Stretch:
    """Some events of a run, from `first` to `last`: `run[120:340]`. Shown as what happened in them; `note` writes on it."""

    def __init__(self, run: NotableRun, read: Read, first: int, last: int | None) -> None:
        self._run = run
        parts = _Parts(first, last)
        read(parts.take_all)
        self.first = first
        self.last: int = parts.count if last is None else min(last, parts.count)
        if first > self.last:
            raise ValidationError(
                f"Run {run.id} has no events {first} to {self.last if last is None else last}.",
                hint=f"It has the events 1 to {parts.count}.",
            )
        self._before = parts.before
        self.state: RunState = copy.deepcopy(self._before)
        """The run at the end of the stretch."""
        self.events: Events = Events(parts.within)
        self.state.apply_all(self.events)
        self._later = parts.notes

    @property
    def run_id(self) -> str:
        return self._run.id

    @property
    def seconds(self) -> float:
        """From its first event to its last."""
        return max(0.0, self.events[-1].occurred_at - self.events[0].occurred_at)

    @property
    def usage(self) -> TokenUsage:
        """Tokens that were accounted for in it."""
        return self.spent.usage

    @property
    def cost(self) -> float | None:
        """US dollars; None when nothing was spent in it, or a price is unknown."""
        return self.spent.cost_usd if self.spent.calls else None

    @cached_property
    def spent(self) -> Spending:
        """Usage, cost and calls of it."""
        return self.state.spent.since(self._before.spent)

    @property
    def nodes(self) -> Table:
        """One row per node that did something in it: node, status at the end, runs, seconds, tokens, cost_usd, output."""
        rows: list[Mapping[str, Any]] = []
        for node_id in dict.fromkeys(event.node_id for event in self.events if event.node_id):
            if (now := self.state.nodes.get(node_id)) is None:
                continue
            before = self._before.nodes.get(node_id)
            spent = now.spent if before is None else now.spent.since(before.spent)
            rows.append(
                {
                    "node": self.state.label(node_id),
                    "status": str(now.status),
                    "runs": now.runs - (0 if before is None else before.runs),
                    "seconds": round(now.duration_s - (0.0 if before is None else before.duration_s), 3),
                    "tokens": spent.usage.total if spent.calls else None,
                    "cost_usd": spent.cost_usd if spent.calls else None,
                    "output": now.output if now.text == "" or now.output is not None else now.text,
                }
            )
        return Table(rows)

    @property
    def notes(self) -> Notes:
        """Remarks on it, or on a part of it, whenever they were written."""
        notes = [*self.state.notes, *RunState.fold(self._later).notes]
        return Notes(note for note in notes if note["first"] <= self.last and note["last"] >= self.first)

    def note(self, text: str) -> None:
        """Write a remark on it; see `dp.note`."""
        self._run.note((self.first, self.last + 1), text)

    def to_dict(self) -> dict[str, Any]:
        """run_id, first, last, seconds, usage, cost_usd, nodes, notes, and the events on the wire."""
        return {
            "run_id": self.run_id,
            "first": self.first,
            "last": self.last,
            "seconds": round(self.seconds, 3),
            "usage": self.usage.to_dict(),
            "cost_usd": self.cost,
            "nodes": [dict(row) for row in self.nodes],
            "notes": [dict(note) for note in self.notes],
            "events": [event.to_wire() for event in self.events],
        }

    @property
    def _headline(self) -> str:
        total = self.usage.total
        spent = f", {total:,} tokens, {money(self.cost)}" if total else ""
        name = clean(self.state.diagram, 120)
        return f"{name}, events {self.first} to {self.last}: {self.seconds:.1f} s{spent}"

    @displayed
    def __repr__(self) -> str:
        said = [f"“{clean(note['text'], 200)}”" for note in self.notes]
        rows = [tuple(row.values()) for row in self.nodes]
        return "\n".join([self._headline, *said, *([text_table(tuple(self.nodes[0]), rows)] if rows else [])])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))

    @displayed
    def _repr_html_(self) -> str:
        said = "".join(f"<blockquote>{lines(clean(note['text'], 2000))}</blockquote>" for note in self.notes)
        parts = [said, self.nodes._repr_html_() if self.nodes else "", f"<p><small>run {escape(self.run_id)}</small></p>"]
        return static_view.titled(f"<strong>{escape(self._headline)}</strong>", *parts)


class Notes(Table):
    """Remarks on a run, in the order in which they were written: first, last (numbers of events), text, at (UTC)."""

    def __init__(self, notes: Any = ()) -> None:
        super().__init__(
            {
                "first": note["first"],
                "last": note["last"],
                "text": note["text"],
                "at": note["at"]
                if isinstance(note["at"], str)
                else datetime.fromtimestamp(note["at"], UTC).isoformat(" ", "seconds"),
            }
            for note in notes
        )
