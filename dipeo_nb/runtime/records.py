"""Reads a run back from the run store: its events, and the diagram as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from dipeo_nb.common.redaction import HIDDEN
from dipeo_nb.diagram.document import Diagram, load, load_text
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import ExecutionStarted
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import DiagramError, StorageError, UserError
from dipeo_nb.security.signatures import Signatures, named_objects, objects_of
from dipeo_nb.security.trust import Trust


async def diagram_and_start(
    store: RunStore, run_id: str, *, base_dir: Path, trust: Trust, diagram: Diagram | None = None
) -> tuple[Diagram, Event]:
    """The diagram of a recorded run, as it was, and the first event; see `Runtime.recorded`."""
    events = await store.events(run_id, limit=1)
    if not events:
        raise UserError(f"There is no run '{run_id}'.", hint="See dp.runs(), or `dipeo-nb runs`.")
    first = cast(ExecutionStarted, events[0].payload)
    if not isinstance(source := first.get("source"), Mapping):
        raise UserError(f"Run {run_id} was recorded without its diagram.", hint="Run the diagram again.")
    text = json.dumps(source, ensure_ascii=False)
    if HIDDEN in text:
        return await asyncio.to_thread(_read_again, events[0], diagram, base_dir, trust), events[0]
    return load_text(text, format="native", path=first.get("diagram_id"), base_dir=base_dir), events[0]


class RecordCheck:
    """Whose record it is that a run continues from: takes its events in order."""

    def __init__(self, signatures: Signatures) -> None:
        self.first: Event | None = None
        self.holds: bool = True
        """Whether all events that data is read from are signed by this user, and unchanged."""
        self.signatures = signatures
        self._objects: set[str] = set()

    @classmethod
    def of(cls, signatures: Signatures, events: Iterable[Event]) -> RecordCheck:
        check = cls(signatures)
        for event in events:
            check.take(event)
        return check

    def take(self, event: Event) -> None:
        self.first = self.first or event
        self.holds = self.holds and self.signatures.holds(event)
        self._objects |= objects_of(event)

    @property
    def objects(self) -> str:
        """Names of variables that were set to objects; see `security.signatures.holds_objects`."""
        return named_objects(self._objects)


def _read_again(first: Event, given: Diagram | None, base_dir: Path, trust: Trust) -> Diagram:
    """The diagram of a run that held a credential: as it is given, or from its file, when that is exactly what ran."""
    path = cast(ExecutionStarted, first.payload).get("diagram_id")
    found, why = given, "and it came from no file"
    if found is None and path:
        try:
            found = load(path, base_dir=base_dir)
        except (DiagramError, UserError, StorageError) as error:
            why = f"and its file cannot be read: {error.message}"
    if found is not None:
        if _is_what_ran(first, found, trust):
            return found
        why = "and what was given is not what ran" if given is not None else f"and {path} is not what ran any more"
    raise UserError(
        f"The diagram of run {first.run_id} held a credential, which is not recorded, {why}.",
        hint="Give it as it was: diagram= (--diagram FILE). Or take the key out of it (name it by `api_key_id` or a variable), "
        "and begin a new run.",
    )


def _is_what_ran(first: Event, document: Diagram, trust: Trust) -> bool:
    """Whether the record that begins with this event is of a run of this user, and of exactly this diagram."""
    mark = trust.signatures.mark(document.to_data())
    stamp = first.started.get("trust") or {}
    return trust.verified(first) is not None and mark is not None and mark == stamp.get("whole")
