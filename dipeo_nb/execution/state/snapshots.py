"""Snapshots of runs as databases store them; like events, with each big value once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from dipeo_nb.common.redaction import logger
from dipeo_nb.domain.ports import Snapshot
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.state.blobs import Resolver, encoded

_LOG = logger(__name__)


class SnapshotRow(NamedTuple):
    """A snapshot, and the big values that it refers to."""

    row: tuple[str, str, int, int, str, str]
    """run_id, kind, version, seq, content (JSON), hashes of its blobs (JSON)."""
    blobs: Mapping[str, str]
    """Hash → JSON of the value."""


def row_of(snapshot: Snapshot) -> SnapshotRow:
    """A snapshot as it is stored.

    Raises:
        StorageError: a value has no encoding.
    """
    text, blobs, _ = encoded(snapshot.content)
    hashes = json.dumps(list(blobs))
    return SnapshotRow((snapshot.run_id, snapshot.kind, snapshot.version, snapshot.seq, text, hashes), blobs)


class Attached:
    """Snapshots that go with the next append to their runs."""

    def __init__(self) -> None:
        self._by_run: dict[str, dict[str, Snapshot]] = {}

    def add(self, snapshot: Snapshot) -> None:
        self._by_run.setdefault(snapshot.run_id, {})[snapshot.kind] = snapshot

    def take(self, run_id: str) -> list[Snapshot]:
        """Those of a run, which are not attached any more."""
        return list(self._by_run.pop(run_id, {}).values()) if self._by_run else []


def rows_of(snapshots: Iterable[Snapshot], last: int) -> list[SnapshotRow]:
    """What is stored of snapshots along with events up to number *last*: events are worth more than their snapshots, so one that
    cannot be stored is left out."""
    found: list[SnapshotRow] = []
    for snapshot in snapshots:
        try:
            if snapshot.seq <= last:
                found.append(row_of(snapshot))
        except StorageError as error:
            _LOG.warning("Run %s: its snapshot is not stored: %s", snapshot.run_id, error)
    return found


def snapshot_of(run_id: str, kind: str, row: Sequence[object], blobs: Mapping[str, str]) -> Snapshot | None:
    """A row of version, seq, content (JSON) as a snapshot; None when it is damaged: its events tell the same.

    Args:
        blobs: hash → JSON of every blob that it refers to.
    """
    version, seq, content = row
    try:
        found = Resolver(blobs).payload(str(content))
        if not isinstance(found, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError("it is not a mapping")
        return Snapshot(run_id, kind, int(str(version)), int(str(seq)), found)
    except (ValueError, TypeError, LookupError, RecursionError, StorageError) as error:
        _LOG.warning("Run %s: its snapshot is damaged and not used: %s", run_id, error)
        return None


def hashes_of(text: object) -> list[str]:
    """The hashes of a row; none when they are damaged."""
    try:
        found = json.loads(str(text))
    except ValueError:
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []
