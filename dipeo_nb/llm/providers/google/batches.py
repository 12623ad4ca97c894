"""Batches as the Gemini API says them: one JSON with all of its answers, of which each is read for itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from dipeo_nb.llm.core.types import BatchState, BatchStatus

_BATCH_STATES: Mapping[str, BatchState] = {
    "QUEUED": "submitted",
    "PENDING": "submitted",
    "RUNNING": "running",
    "UPDATING": "running",
    "CANCELLING": "running",
    "PAUSED": "running",
    "SUCCEEDED": "completed",
    "PARTIALLY_SUCCEEDED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
}
RPC_STATUS = {3: 400, 5: 404, 7: 403, 8: 429, 13: 500, 14: 503, 16: 401}
"""Codes of google.rpc → HTTP statuses."""


def created(job: Any) -> BatchStatus:
    """How far a batch is, as the SDK reads it."""
    word = str(getattr(job.state, "value", job.state)).removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_")
    stats = job.completion_stats
    counts = (stats.successful_count or 0, stats.failed_count or 0) if stats is not None else (0, 0)
    return BatchStatus(job.name, _BATCH_STATES.get(word, "running"), *counts)


def status_of(job: Any, batch_id: str) -> BatchStatus:
    """As `created`, of a batch as it came."""
    word = str(within(job, "metadata", "state") or "").removeprefix("JOB_STATE_").removeprefix("BATCH_STATE_")
    counts = (within(job, "metadata", "batchStats", f"{kind}RequestCount") for kind in ("successful", "failed"))
    done = [int(n) if isinstance(n, (int, str)) and str(n).isdecimal() else 0 for n in counts]  # JSON writes 64 bits as text
    return BatchStatus(batch_id, _BATCH_STATES.get(word, "running"), *done)


def readable(text: str) -> Any:
    """The JSON of a batch. When it cannot be read as a whole: its state, and those of its answers that can be read alone; of the others
    which request they are of, where that is known.

    Raises:
        ValueError, RecursionError: its state cannot be read either.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        listed = _LISTED.search(text)
        answers, end = _entries(text, listed.end()) if listed else ([], 0)
        beside = text[: listed.start()] + text[end:] if listed else text
        state, stats = _STATE.search(beside), _STATS.search(beside)
        if state is None:
            raise
        output = {"inlinedResponses": {"inlinedResponses": [entry for entry in answers if within(entry, "metadata", "key")]}}
        return {"metadata": {"state": state[1], "batchStats": json.loads(stats[1]) if stats else None, "output": output}}


def _entries(text: str, at: int) -> tuple[list[Any], int]:
    """The objects of a JSON array whose content begins at *at*, and where the array ends; of one that cannot be read its `metadata`,
    if that can be."""
    found: list[Any] = []
    while (begins := _NEXT.match(text, at)) is not None:
        at = begins.end()
        try:
            entry, end = _DECODER.raw_decode(text, at)
        except RecursionError:
            entry, end = None, _end_of(text, at)
        except ValueError:  # where it ends is not known: the next one may begin within it
            following = _ENTRY.search(text, at)
            entry, end = None, following.start() if following else len(text)
        if entry is None:
            key = _KEY_FIRST.match(text, at, end) or _KEY_LAST.search(text, at, end)
            entry = {"metadata": {"key": key[1]}} if key else {}
        found.append(entry)
        at = end
    return found, at


def _end_of(text: str, at: int) -> int:
    """Where the JSON object or array ends that begins at *at*."""
    depth = 0
    for token in _TOKENS.finditer(text, at):
        depth += (token[0] in "[{") - (token[0] in "]}")
        if depth == 0:
            return token.end()
    return len(text)


_DECODER = json.JSONDecoder()
_LISTED = re.compile(r'"inlinedResponses"\s*:\s*\[')
_STATE = re.compile(r'"state"\s*:\s*"(\w+)"')
_STATS = re.compile(r'"batchStats"\s*:\s*(\{(?:\s*+"\w++"\s*+:\s*+"?\d++"?\s*+,?)*+\s*+\})')
_NEXT = re.compile(r"\s*+,?\s*+(?=\{)")
_ENTRY = re.compile(r',\s*\{\s*"(?:metadata|response|error)"\s*:')
_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
"""What the structure of a JSON is seen by; texts, so that nothing in them is taken for it."""
_KEY = r'"metadata"\s*:\s*\{\s*"key"\s*:\s*"([^"\\]*)"\s*\}'
_KEY_FIRST, _KEY_LAST = re.compile(rf"\{{\s*{_KEY}"), re.compile(rf"{_KEY}\s*\}}\Z")


def within(value: Any, *path: str) -> Any:
    """What stands at a place within objects; None where it does not."""
    for name in path:
        value = cast("Mapping[str, Any]", value).get(name) if isinstance(value, Mapping) else None
    return value
