"""Choosing what to remember by a criterion in words (diagram-spec §6.4): candidates, question, answer.

Pure; who asks the model is somebody else: a person_job, or `llm.adapters.MemorySelectionAdapter`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dipeo_nb.domain.chat import Message

SYSTEM = "system"
CANDIDATES = 150
"""Messages offered to a selecting model at most."""


def ranked(messages: Sequence[Message], now: float) -> list[Message]:
    """Candidates without near-duplicates, best first: 0.7 × recency + 0.3 × frequency, 150 at most."""
    groups: list[tuple[Message, set[str], int]] = []
    for m in messages:
        words = set(re.findall(r"\w+", m.content[:400].lower()))
        for i, (first, seen, count) in enumerate(groups):
            smaller = min(len(words), len(seen))
            if smaller and len(words & seen) / smaller >= 0.9:
                groups[i] = (first, seen, count + 1)
                break
        else:
            groups.append((m, words, 1))

    def score(group: tuple[Message, set[str], int]) -> float:
        message, _, count = group
        recency = 100 * math.exp(-max(0.0, now - message.timestamp) / 3600)
        frequency = min(100, 30 + 20 * (count - 1) + (30 if message.from_person_id == SYSTEM else 0))
        return 0.7 * recency + 0.3 * frequency

    order = {m.id: i for i, m in enumerate(messages)}
    best = sorted(groups, key=lambda g: (-score(g), -order[g[0].id]))
    return [g[0] for g in best[:CANDIDATES]]


def selection_prompt(
    candidates: Sequence[Message], *, criterion: str, task: str, at_most: int | None, names: Mapping[str, str]
) -> str:
    """What the selecting model is asked."""
    listing = "\n".join(
        f"- {m.id} ({names.get(m.from_person_id, m.from_person_id)}): {' '.join(m.content.split())[:250]}"
        for m in candidates
    )
    limit = f"\nSelect at most {at_most}." if at_most else ""
    return (
        "Select the messages to remember for the task.\n\n"
        f"Messages:\n{listing}\n\nTask:\n{task[:1200]}\n\nCriterion: {criterion}{limit}\n\n"
        'Answer with JSON: {"message_ids": ["…"]}'
    )


SELECTION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"message_ids": {"type": "array", "items": {"type": "string"}}},
    "required": ["message_ids"],
    "additionalProperties": False,
}


def chosen_ids(answer: Any, text: str, candidates: Sequence[Message]) -> list[str]:
    """Ids named by a selecting model, from its structured answer or, failing that, from its text; each once, known ones only."""
    known = {m.id for m in candidates}
    named: Any = cast(Mapping[str, Any], answer).get("message_ids") if isinstance(answer, Mapping) else answer
    words = cast(list[Any], named) if isinstance(named, list) else re.findall(r"[\w.:-]*\w", text)
    return list(dict.fromkeys(i for i in map(str, words) if i in known))
