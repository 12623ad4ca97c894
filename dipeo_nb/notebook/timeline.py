"""When the nodes of a run worked and waited, from its events, and a picture of it that needs no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dipeo_nb.diagram.drawing_style import FONT
from dipeo_nb.diagram.labels import clean, escape, fit
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution.live_clock import LiveClock

Kind = Literal["place", "thinking", "work", "person", "retry", "failed"]
"""Waits for a place; at work before the first word; at work; waits for a person; waits to try again; the moment of a failure."""
WORDS: Mapping[Kind, str] = {
    "place": "waiting for a place", "thinking": "before the first word", "work": "working", "person": "waiting for a person",
    "retry": "trying again", "failed": "failed",
}  # fmt: skip
SHORTEST_S = 0.02
"""Seconds of work from which on a node has a lane."""
LANES = 24
"""Lanes shown."""
_ROW, _LEFT, _WIDE, _TOP = 18, 132, 760, 6


@dataclass(slots=True)
class Lane:
    """One node: what it did from when to when, in seconds of live time since the run began."""

    node_id: str
    label: str
    parts: list[tuple[Kind, float, float]] = field(default_factory=list[tuple[Kind, float, float]])

    @property
    def seconds(self) -> float:
        return sum(end - start for _, start, end in self.parts)


@dataclass(slots=True)
class Timeline:
    """The lanes of a run, in the order in which its nodes first did something, and how long it took."""

    lanes: list[Lane] = field(default_factory=list[Lane])
    seconds: float = 0.0


def timeline(events: Iterable[Event]) -> Timeline:
    """The timeline of a run. The time in which it lay cut off is left out."""
    reader = TimelineReader()
    reader.take_all(events)
    return reader.result()


class TimelineReader:
    """Takes the events of one run, in order, from the first on."""

    def __init__(self) -> None:
        self.lanes: dict[str, Lane] = {}
        self.labels: Mapping[str, str] = {}
        self.open: dict[str, tuple[Kind, float]] = {}
        """What a node is doing, and since when."""
        self.clock = LiveClock()

    def take_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        if event.type is EventType.RUN_NOTE:
            return
        node, p = event.node_id, event.payload
        if event.type is EventType.EXECUTION_STARTED:
            if "resumed" in p:
                self._close_all()
            else:
                self.labels = p.get("labels", {})
        self.clock.take(event)
        if node is None:
            return
        match event.type:
            case EventType.NODE_WAITING:
                self._turn(node, "place")
            case EventType.NODE_STARTED:
                self._turn(node, "work")
            case EventType.NODE_OUTPUT if p.get("kind") == "prompt":
                self._turn(node, "thinking")
            case EventType.NODE_OUTPUT if p.get("kind") in ("text", "reasoning", "tool") and self._is(
                node, "thinking", "retry"
            ):
                self._turn(node, "work")
            case EventType.INTERACTIVE_PROMPT:
                self._turn(node, "person")
            case EventType.INTERACTIVE_RESPONSE:
                self._turn(node, "work")
            case EventType.EXECUTION_LOG if self._is(node, "work", "thinking") and _repeats(p):
                self._turn(node, "retry")
            case EventType.NODE_COMPLETED | EventType.NODE_ERROR:
                self._turn(node, None)
                if event.type is EventType.NODE_ERROR and node in self.lanes:
                    self.lanes[node].parts.append(("failed", self._now, self._now))
            case _:
                pass

    def result(self) -> Timeline:
        self._close_all()
        lanes = [
            lane for lane in self.lanes.values() if lane.seconds >= SHORTEST_S or any(k == "failed" for k, _, _ in lane.parts)
        ]
        return Timeline(lanes, self.clock.seconds)

    @property
    def _now(self) -> float:
        return self.clock.seconds

    def _is(self, node: str, *kinds: Kind) -> bool:
        return node in self.open and self.open[node][0] in kinds

    def _turn(self, node: str, kind: Kind | None) -> None:
        """The node does something else from now on; None: nothing."""
        before = self.open.pop(node, None)
        lane = self.lanes.get(node)
        if lane is None:
            if kind is None:
                return
            lane = self.lanes[node] = Lane(node, self.labels.get(node, node))
        if before is not None and self._now > before[1]:
            lane.parts.append((before[0], before[1], self._now))
        if kind is not None:
            self.open[node] = kind, self._now

    def _close_all(self) -> None:
        for node in list(self.open):
            self._turn(node, None)


def _repeats(line: Mapping[str, Any]) -> bool:
    """Whether a line of the log says that something is tried again after a while."""
    extra = line.get("extra_fields", {})
    return "retry" in extra or "retry_in_s" in extra


def timeline_svg(found: Timeline, name: str) -> str:
    """The timeline as a picture, on a ground of its own; empty without lanes. Each kind has a pattern, and is named in tooltips."""
    if not found.lanes or found.seconds <= 0:
        return ""
    shown = found.lanes[:LANES]
    more = len(found.lanes) - len(shown)
    step, ticks = _ticks(found.seconds)
    high = _TOP + _ROW * (len(shown) + (1 if more else 0)) + 40
    scale = (_WIDE - _LEFT - 14) / max(found.seconds, step)
    kinds: list[Kind] = [kind for kind in WORDS if any(part[0] == kind for lane in shown for part in lane.parts)]
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDE} {high}" width="{_WIDE}" height="{high}" role="img" '
            f'aria-label="{escape(_spoken(found, name))}" style="max-width:100%;height:auto"><title>{escape(_spoken(found, name))}</title>'
            f"<style>{_STYLE}</style>{_PATTERNS}"
            f'<rect class="g" x=".5" y=".5" width="{_WIDE - 1}" height="{high - 1}" rx="8"/>'
        )
    ]
    bottom = _TOP + _ROW * len(shown)
    for at in ticks:
        x = _LEFT + at * scale
        parts.append(
            f'<path class="t" d="M{x:.1f} {_TOP}V{bottom}"/><text class="s" x="{x:.1f}" y="{bottom + 13}">{at:g} s</text>'
        )
    for row, lane in enumerate(shown):
        y = _TOP + row * _ROW
        label = escape(fit(clean(lane.label, 80), _LEFT - 18, 11))
        parts.append(f'<text class="n" x="10" y="{y + 13}">{label}</text>')
        for kind, start, end in lane.parts:
            x, width = _LEFT + start * scale, max((end - start) * scale, 1.5 if kind != "failed" else 2.5)
            words = f"{clean(lane.label, 80)}: {WORDS[kind]}, {start:.1f} to {end:.1f} s"
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="12" rx="2"><title>{escape(words)}</title></rect>'
            )
    if more:
        parts.append(f'<text class="n" x="10" y="{bottom + 13}">… {more} more</text>')
    x = 10.0
    for kind in kinds:
        parts.append(f'<rect class="{kind}" x="{x:.0f}" y="{high - 16}" width="14" height="9" rx="2"/>')
        parts.append(f'<text class="n s2" x="{x + 19:.0f}" y="{high - 8}">{WORDS[kind]}</text>')
        x += 34 + 5.6 * len(WORDS[kind])
    return "".join((*parts, "</svg>"))


def _spoken(found: Timeline, name: str) -> str:
    lanes = (f"{clean(lane.label, 40)} {lane.seconds:.1f} s" for lane in found.lanes[:LANES])
    return f"Timeline of {clean(name, 80)}, {found.seconds:.1f} s: {', '.join(lanes)}"


def _ticks(seconds: float) -> tuple[float, Sequence[float]]:
    """A step of 1, 2 or 5 times a power of ten, and at most nine moments."""
    step = next(s * 10.0**e for e in range(-3, 9) for s in (1, 2, 5) if seconds / (s * 10.0**e) <= 8)
    return step, [n * step for n in range(int(seconds / step + 1e-9) + 1)]


_STYLE = (
    f"text{{font-family:{FONT};font-size:11px}}"
    ".g{fill:#fafbfc;stroke:#dfe4ea}.n{fill:#1c2330}.s,.s2{fill:#566274;font-size:10px}.s{text-anchor:middle}"
    ".t{stroke:#dfe4ea}.work{fill:#74818f}.thinking{fill:#c3cbd4}.place{fill:none;stroke:#74818f;stroke-dasharray:3 2}"
    ".person{fill:#e8a317}.retry{fill:url(#h);stroke:#8a5200}.failed{fill:#c0261b}.l{stroke:#8a5200}"
    "@media (prefers-color-scheme:dark){.g{fill:#15181d;stroke:#2b313a}.n{fill:#eef1f5}.s,.s2{fill:#a9b4c2}.t{stroke:#2b313a}"
    ".work{fill:#8693a3}.thinking{fill:#4b5665}.place{stroke:#8693a3}.person{fill:#d99a1c}.retry{stroke:#f3bd52}.failed{fill:#ff8a7f}"
    ".l{stroke:#f3bd52}}"
)
_PATTERNS = (
    '<defs><pattern id="h" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<path class="l" d="M0 0V5" stroke-width="3"/></pattern></defs>'
)
