"""Reads a run back from the run store: its events, and the diagram as it was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from dipeo_nb.common.scrub import HIDDEN
from dipeo_nb.diagram.document import Diagram, load, load_text
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import ExecutionStarted
from dipeo_nb.domain.ports import RunStore
from dipeo_nb.errors import DiagramError, StorageError, UserError
from dipeo_nb.security.trust import Trust


async def diagram_and_events(
    store: RunStore, run_id: str, *, base_dir: Path, trust: Trust, diagram: Diagram | None = None
) -> tuple[Diagram, list[Event]]:
    """The diagram of a recorded run, as it was, and the events; see `Runtime.recorded`."""
    events = await store.events(run_id)
    if not events:
        raise UserError(f"There is no run '{run_id}'.", hint="See dp.runs() (dipeo-nb runs).")
    first = cast(ExecutionStarted, events[0].payload)
    if not isinstance(source := first.get("source"), Mapping):
        raise UserError(f"Run {run_id} was recorded without its diagram.", hint="Run the diagram again.")
    text = json.dumps(source, ensure_ascii=False)
    if HIDDEN in text:
        return await asyncio.to_thread(_read_again, events[0], diagram, base_dir, trust), events
    return load_text(text, format="native", path=first.get("diagram_id"), base_dir=base_dir), events


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
    mark = trust.signatures.mark(json.loads(document.to_text("native")))
    return trust.verified(first) is not None and mark is not None and mark == first.payload["trust"].get("whole")
