"""The conversation of a run: what persons said, and what each of them saw before it spoke."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex, overload

from dipeo_nb.common.text import displayed
from dipeo_nb.diagram.labels import clean
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.tables import Row, dataframe

SHOWN = 40
"""Messages or turns in the text form."""
LINE = 200
"""Characters of one message in the text form."""


class Transcript(list[Mapping[str, Any]]):
    """Messages in order: id, from_person_id, to_person_id, content, message_type, timestamp, node_id.

    `turns` has what each person saw before it spoke.
    """

    def __init__(
        self,
        messages: Iterable[Mapping[str, Any]] = (),
        turns: Iterable[Mapping[str, Any]] = (),
        labels: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(map(Row, messages))
        self._turns, self._labels = list(turns), labels or {}

    @overload
    def __getitem__(self, index: SupportsIndex) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Transcript: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Transcript(found, self._turns, self._labels) if isinstance(index, slice) else found

    @property
    def turns(self) -> Turns:
        """One row per turn: node, run, person, memory (the view or criterion that selected messages), saw (the messages that the
        person's model received before the prompt), prompt, answer."""
        known = {m["id"]: m for m in self}
        rows: list[Mapping[str, Any]] = []
        for turn in self._turns:
            facts = turn["memory"]
            seen = [known[i] for i in (*facts.get("ids", ()), *facts.get("brought", ())) if i in known]
            said = [m for m in turn.get("messages", ()) if m["from_person_id"] == turn["person_id"]]
            rows.append(
                {
                    "node": self._labels.get(turn["node_id"], turn["node_id"]),
                    "run": turn["run"],
                    "person": turn["person_id"],
                    "memory": facts.get("view") or facts.get("criterion"),
                    "saw": seen,
                    "prompt": turn.get("prompt"),
                    "answer": said[-1]["content"] if said else turn.get("answer"),
                }
            )
        return Turns(rows)

    def to_dataframe(self) -> Any:
        """One row per message as a pandas DataFrame.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        names = ("id", "from_person_id", "to_person_id", "content", "message_type", "node_id")
        return dataframe(self, {"timestamp": float, **dict.fromkeys(names, str)})

    @displayed
    def _repr_html_(self) -> str:
        return static_view.conversation_table(self) + self.turns._repr_html_() if self else static_view.note("no messages")

    @displayed
    def __repr__(self) -> str:
        said = [
            f"{line(m.get('from_person_id'), 40)} → {line(m.get('to_person_id'), 40)}: {line(m.get('content'))}"
            for m in self[:SHOWN]
        ]
        return "\n".join([*said, *_more(len(self), "messages")]) or "no messages"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # IPython would write a list


class Turns(list[Mapping[str, Any]]):
    """What each person saw before it spoke; see `Transcript.turns`."""

    def __init__(self, turns: Iterable[Mapping[str, Any]] = ()) -> None:
        super().__init__(map(Row, turns))

    @overload
    def __getitem__(self, index: SupportsIndex) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Turns: ...
    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return Turns(found) if isinstance(index, slice) else found

    def to_dataframe(self) -> Any:
        """One row per turn as a pandas DataFrame; `saw` counts the messages.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        rows = [{**turn, "saw": len(turn["saw"])} for turn in self]
        kinds = {"node": str, "run": int, "person": str, "memory": str, "saw": int, "prompt": str, "answer": str}
        return dataframe(
            [{k: None if v is None else v if kinds[k] is int else str(v) for k, v in r.items()} for r in rows], kinds
        )

    @displayed
    def _repr_html_(self) -> str:
        return static_view.turns_html(self)

    @displayed
    def __repr__(self) -> str:
        said = [
            f"{line(t['node'], 40)}#{t['run']}: {line(t['person'], 40)} saw {len(t['saw'])} messages ({line(t['memory'], 60)}), "
            f"was asked {line(t['prompt'])!r} and said {line(t['answer'])!r}"
            for t in self[:SHOWN]
        ]
        return "\n".join([*said, *_more(len(self), "turns")]) or "no turns"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


def line(value: Any, limit: int = LINE) -> str:
    """A value on one line of a terminal."""
    return "" if value is None else clean(static_view.shown(value, 4 * limit), limit)


def _more(count: int, what: str) -> list[str]:
    return [f"… and {count - SHOWN} more {what}"] if count > SHOWN else []
