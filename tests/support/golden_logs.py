"""The event logs of the golden runs, read from their files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event

FOLDER = Path(__file__).parents[1] / "golden"
BEGIN = 1_780_315_200.0
LINE = re.compile(r"[* ](?P<first>\d+)(?:-(?P<last>\d+))? (?P<at>[\d.e-]+) (?P<type>[a-z_]+) (?P<node>\S+) (?P<payload>\{.*\})")


def logs() -> Iterator[tuple[str, list[Event]]]:
    """Name and events of each run, and of each that was resumed."""
    for file in ("runs", "shapes"):
        name, first, events, source = "", list[Event](), list[Event](), None
        for line in (FOLDER / f"{file}.txt").read_text(encoding="utf-8").splitlines():
            if line.startswith("== "):
                name, first, events, source = line.removeprefix("== "), [], [], None
            elif line.startswith("-- resumed after event "):
                events = first[: int(line.rpartition(" ")[2])]
            elif line.startswith("= "):
                yield name, events
                first, events = first or events, []
            elif found := LINE.fullmatch(line):
                payload = json.loads(found["payload"])
                if payload.get("source") == "as above":
                    payload["source"] = source
                source = source or payload.get("source")
                texts = payload["text"] if isinstance(payload.get("text"), list) else None
                node = None if found["node"] == "-" else found["node"]
                for i, seq in enumerate(range(int(found["first"]), int(found["last"] or found["first"]) + 1)):
                    piece = payload if texts is None else payload | {"text": texts[i]}
                    events.append(Event(seq, EventType(found["type"]), "run", BEGIN + float(found["at"]), node, piece))
