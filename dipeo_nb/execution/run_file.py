"""A run as one HTML file: the run view with its timeline, offline, without anything to install or to load.

The file holds the log, compressed, and the script of the view. Its policy lets nothing else run and loads nothing. Without scripts, and on
paper, it shows the run as lines of text.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, cast

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import inert
from dipeo_nb.common.values import json_text, plain_value
from dipeo_nb.diagram.document import load
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.execution import run_page
from dipeo_nb.execution.run_state import RunState, interrupted
from dipeo_nb.execution.snapshots import read_run

SIZE = 1_400_000
"""Characters of the data of a file at most, where it can be kept: longer texts are cut to their beginning until it fits."""
LIMITS = (1_000_000, 100_000, 20_000, 4_000, 500)
"""Characters of one text, the first of these with which a file is not larger than `SIZE`."""
CHILDREN = 200
"""Runs of sub-diagrams that a file holds at most."""

Log = tuple[RunState, Sequence[Event]]


async def recorded(store: RunStore, run_id: str) -> list[Log]:
    """A recorded run, and behind it those of its sub-diagrams."""
    found = await _log(store, run_id)
    return [found, *await sub_runs(store, found[0])]


async def sub_runs(store: RunStore, state: RunState) -> list[Log]:
    """The runs of sub-diagrams that a run began, and those that they began, as far as they are recorded."""
    waiting, found = list(_begun(state)), list[Log]()
    while waiting and len(found) < CHILDREN:
        one = await _log(store, waiting.pop(0))
        if one[1]:
            found.append(one)
            waiting += _begun(one[0])
    return found


def _begun(state: RunState) -> list[str]:
    return [child for node in state.nodes.values() for child in node.children]


async def _log(store: RunStore, run_id: str) -> Log:
    events: list[Event] = []
    await read_run(store, run_id, events.append)
    return RunState.fold(events), events


def diagram_of(state: RunState) -> DomainDiagram | None:
    """The diagram in a run's record; None when it has none."""
    return load(dict(state.source), format="native").model if state.source else None


def html(logs: Sequence[Log]) -> str:
    """The page of the first run of *logs*, in which those of sub-diagrams open in place."""
    state = logs[0][0]
    inside = (
        f'<pre class="dp-text-only">{escape(_text(state))}</pre>\n'
        f'<script type="application/octet-stream" id="data">{packed(logs)}</script>'
    )
    return run_page.document("page.js", title=state.diagram, inside=inside)


def packed(logs: Sequence[Log], size: int = SIZE) -> str:
    """The runs as pages take them: JSON, compressed, in letters that HTML leaves alone; of *size* characters where texts can be cut."""
    data = ""
    longest = LIMITS[0] + 1
    for limit in LIMITS:
        if limit < longest:
            data, longest = _packed(logs, limit)
            if len(data) <= size:
                break
    return data


def _packed(logs: Sequence[Log], limit: int) -> tuple[str, int]:
    """The runs with texts of so many characters at most, and how many the longest text has in full: shorter limits cut nothing more."""
    packer = zlib.compressobj(9)
    parts: list[bytes] = []
    longest = 0

    def write(text: str) -> None:
        parts.append(packer.compress(text.encode("utf-8", "surrogatepass")))

    for number, (state, events) in enumerate(logs):
        write(f'{"," if number else "["}{{"head":{_json(_head(state))},"events":[')
        before = ""
        for row in run_page.rows(events, limit):
            write(before + _json(row))
            longest = max(longest, _longest(row[4]))
            before = ","
        write("]}")
    write("]" if logs else "[]")
    parts.append(packer.flush())
    return base64.b64encode(b"".join(parts)).decode(), longest


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=plain_value)


def _longest(value: Any) -> int:
    """Characters of the longest text within what `run_page.cut` has left."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return max(
            cast("int", value.get("$cut", 0)) if value.keys() == {"$cut", "text"} else 0, *map(_longest, value.values()), 0
        )
    return max(map(_longest, value), default=0) if isinstance(value, list) else 0


def _head(state: RunState) -> dict[str, Any]:
    return run_page.head_of(state.run_id, diagram_of(state), name=state.diagram, model=state.model)


def _text(state: RunState) -> str:
    """The run for those whose browser runs no scripts, and for paper."""
    state = interrupted(state)
    lines = [f"{state.diagram}: {state.status}", f"run {state.run_id}"]
    if state.error is not None:
        lines.append(f"{state.error.get('type')}: {state.error.get('message')}")
    for node_id in state.order:
        node = state.nodes[node_id]
        said = node.text or (node.output if isinstance(node.output, str) else json_text(node.output))
        lines.append(f"\n{state.label(node_id)}: {node.status}\n{said[:20_000]}")
    return inert(redactor("\n".join(lines)))
