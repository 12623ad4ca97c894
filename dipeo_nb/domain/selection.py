"""Choosing what to remember by a criterion in words: candidates, question, answer.

Pure; the model is asked elsewhere: by a person_job or `llm.adapters.MemorySelectionAdapter`.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.decision_words import words

SYSTEM = "system"
CANDIDATES = 150
"""Messages offered to a selecting model at most."""
_ALIKE = 0.9
"""Part of the words of the shorter of two messages that the longer has, too, from which on they count as one."""
CHOSEN_BY_SCORE = 10
"""Messages remembered when the model's choice cannot be had and no limit is set: those with the best score."""


def ranked(messages: Sequence[Message], now: float) -> list[Message]:
    """Candidates without near-duplicates, best first: 0.7 × recency + 0.3 × frequency, 150 at most."""
    groups: list[tuple[Message, set[str], int]] = []
    similar = _Similar()
    for m in messages:
        said = set(re.findall(r"\w+", m.content[:400].lower()))
        if (i := similar.first(said)) is None:
            groups.append((m, said, 1))
            similar.add(said)
        else:
            first, seen, count = groups[i]
            groups[i] = (first, seen, count + 1)

    def score(group: tuple[Message, set[str], int]) -> float:
        message, _, count = group
        recency = 100 * math.exp(-max(0.0, now - message.timestamp) / 3600)
        frequency = min(100, 30 + 20 * (count - 1) + (30 if message.from_person_id == SYSTEM else 0))
        return 0.7 * recency + 0.3 * frequency

    order = {m.id: i for i, m in enumerate(messages)}
    best = sorted(groups, key=lambda g: (-score(g), -order[g[0].id]))
    return [g[0] for g in best[:CANDIDATES]]


class _Similar:
    """Sets of words, of which those are found that are nearly a part of another, or have it nearly as a part: nine in ten words of
    the smaller one. Sets are compared only when they share one of a few words that one of them would have to share."""

    def __init__(self) -> None:
        self._sets: list[set[str]] = []
        self._with: dict[str, list[int]] = {}
        """Word → the sets that have it."""
        self._needing: dict[str, list[int]] = {}
        """Word → the sets that have it among those of which a larger one like them has at least one."""

    def add(self, words: set[str]) -> None:
        place = len(self._sets)
        self._sets.append(words)
        for word in self._needed(words):
            self._needing.setdefault(word, []).append(place)
        for word in words:
            self._with.setdefault(word, []).append(place)

    def first(self, words: set[str]) -> int | None:
        """The number of the first set that is like this one."""
        near = {place for word in self._needed(words) for place in self._with.get(word, ())}
        near.update(place for word in words for place in self._needing.get(word, ()))
        for place in sorted(near):
            other = self._sets[place]
            if len(words & other) / min(len(words), len(other)) >= _ALIKE:
                return place
        return None

    def _needed(self, words: set[str]) -> list[str]:
        """One more words than a set like this one may lack when it is larger: those that the fewest sets have."""
        lacking = len(words) - math.ceil(_ALIKE * len(words) - 1e-9)
        return heapq.nsmallest(lacking + 1, words, key=lambda word: (len(self._with.get(word, ())), word))


def selection_prompt(
    candidates: Sequence[Message], *, criterion: str, task: str, at_most: int | None, names: Mapping[str, str]
) -> str:
    """The prompt for the selecting model."""
    listing = "\n".join(
        f"- {m.id} ({names.get(m.from_person_id, m.from_person_id)}): {' '.join(m.content.split())[:250]}" for m in candidates
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


def chosen_ids(answer: Any, text: str, candidates: Sequence[Message]) -> list[str] | None:
    """Ids named by a selecting model, each once, known ones only; None when the answer cannot be read.

    The structured answer goes before the text. In words: ids in a sentence, "all", "none", "m2 to m5"; what a clause leaves out
    ("not m3", "all except m4") is not chosen.
    """
    known = {m.id.lower(): m.id for m in candidates}
    named: Any = answer
    if isinstance(answer, Mapping):
        fields = cast(Mapping[str, Any], answer)
        named = next((fields[name] for name in _FIELDS if name in fields), None)
    if isinstance(named, list):
        items = cast(list[Any], named)
        ids = list(dict.fromkeys(i for item in items if (i := _known(str(item), known)) is not None))
        return ids if ids or not items else None
    if isinstance(named, str):
        text = named
    for closing in ("</think>", "</thinking>"):
        text = text.rpartition(closing)[2]
    return _named(text, known)


_FIELDS = ("message_ids", "ids", "messages", "selected")
_WORD = re.compile(r"[^\W_][\w:-]*|[.,;\n]")
_OUT = words(
    "not except excluding exclude without drop skip omit ignore discard irrelevant unnecessary but leave nicht außer ohne "
    "weglassen irrelevant sauf sans pas ignorer excepto sin omitir ignorar salvo menos"
)
"""A clause with one of these excludes the ids that follow it, or that it applies to."""
_ALL = words("all every everything both alle alles toutes tous tout todos todas todo")
_NONE = words("none nothing no keine nichts aucun aucune rien ninguno ninguna nada")
_TO = words("to through until bis à hasta a")


def _named(text: str, known: Mapping[str, str]) -> list[str] | None:
    """The ids that a text chooses; None when it names none and does not state that it chooses none."""
    order = list(known.values())
    chosen: dict[str, None] = {}
    left_out: set[str] = set()
    everything = nothing = False
    for clause in _split(text):
        ids = [(at, found) for at in range(len(clause)) for found in _span(clause, at, known)]
        out = next((at for at, word in enumerate(clause) if word in _OUT), None)
        everything = everything or any(word in _ALL for word in clause)
        nothing = nothing or any(word in _NONE for word in clause)
        for at, found in ids:
            # "all except m4" keeps what precedes it; "m2 is not needed" keeps nothing of the clause.
            if out is not None and (at > out or not any(word in _ALL for word in clause)):
                left_out.add(found)
            else:
                chosen[found] = None
    if not chosen and (left_out or everything) and (everything or not nothing):
        chosen = dict.fromkeys(order)
    kept = [found for found in chosen if found not in left_out]
    return kept if chosen or left_out or nothing or everything else None


def _split(text: str) -> list[list[str]]:
    """The words of a text by clause; commas end one only before a word that leaves out."""
    clauses: list[list[str]] = [[]]
    tokens = _WORD.findall(text.lower())
    for at, word in enumerate(tokens):
        if word in ".;\n" or (word == "," and at + 1 < len(tokens) and tokens[at + 1] in _OUT):
            clauses.append([])
        elif word == "but" and at + 1 < len(tokens) and tokens[at + 1] not in _OUT:
            clauses.append([])  # "not m2 but m3"
        elif word != ",":
            clauses[-1].append(word.strip("_:-"))
    return [clause for clause in clauses if clause]


def _span(clause: Sequence[str], at: int, known: Mapping[str, str]) -> list[str]:
    """The ids that a word refers to: one, or all of "m2-m5" and "m2 to m5"."""
    word = clause[at]
    if word in known:
        ends = (word, clause[at + 2]) if at + 2 < len(clause) and clause[at + 1] in _TO else None
    else:
        first, _, last = word.partition("-")
        ends = (first, last) if first in known and last in known else None
    if ends is not None and ends[1] in known:
        first, last = (_number(end) for end in ends)
        if first is not None and last is not None:
            return [i for low, i in known.items() if (n := _number(low)) is not None and first <= n <= last]
    return [known[word]] if word in known else []


def _number(message_id: str) -> int | None:
    digits = message_id.lstrip("m")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else None


def _known(word: str, known: Mapping[str, str]) -> str | None:
    """An id as it is written in the list; a number alone may refer to it."""
    word = word.strip().lower()
    return known.get(word) or known.get(f"m{word}")
