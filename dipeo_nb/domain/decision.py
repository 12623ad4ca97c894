"""Yes or no out of what a model says: the structured answer first, else its words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

DECISION_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"decision": {"type": "boolean"}},
    "required": ["decision"],
    "additionalProperties": False,
}


def decision_prompt(question: str, content: str) -> str:
    """What a deciding model is asked."""
    return (
        f"{question}\n\n--- Content to evaluate ---\n{content}\n--- End of content ---\n\n"
        'Answer with JSON: {"decision": true} or {"decision": false}'
    )


def decided(structured: Any, text: str) -> bool | None:
    """The decision in an answer; None when it says neither yes nor no.

    In order: the field `decision` of the structured answer, the same in the text's JSON, a verdict that is announced
    ("Verdict: no"), the first word, and then clause by clause: the last clause that says one thing clearly wins, with negations
    understood ("No, that is not correct" is no; "I can't say no" is yes).
    """
    value = cast(Mapping[str, Any], structured).get("decision") if isinstance(structured, Mapping) else structured
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = value
    found = re.search(r'["\']?decision["\']?\s*[:=]\s*["\']?(true|false|yes|no)\b', text, re.IGNORECASE)
    if found:
        return found[1].lower() in ("true", "yes")
    plain = _NO_DENIAL.sub(" ", _plain(text)).strip()
    announced = list(_ANNOUNCED.finditer(plain))
    if announced:
        return announced[-1][1] in _YES_WORDS
    lead = _LEAD.match(plain)
    if lead and not re.match(r"\s*(?:and|or)\s+(?:yes|no|true|false)\b", plain[lead.end() :]):
        return lead[1] in _YES_WORDS
    verdicts = [v for clause in _CLAUSES.split(plain) if (v := _said(clause)) is not None]
    return verdicts[-1] if verdicts else None


_YES_WORDS = frozenset(
    {
        "yes",
        "yep",
        "yeah",
        "true",
        "correct",
        "affirmative",
        "approved",
        "accept",
        "accepted",
        "pass",
        "passed",
        "sure",
        "absolutely",
        "definitely",
        "certainly",
    }
)
_NO_WORDS = frozenset({"no", "nope", "false", "incorrect", "negative", "rejected", "reject", "fail", "failed", "wrong"})
_LEAD = re.compile(rf"({'|'.join(sorted(_YES_WORDS | _NO_WORDS))})\b")
_NO_DENIAL = re.compile(r"\bno (?:doubt|problem|question|objections?|matter|wonder|idea|clue)\b")
"""Phrases whose `no` denies nothing that was asked."""
_CLAUSES = re.compile(r"[.:;!?\n,]|\b(?:but|however|so|therefore)\b|\band (?=(?:is|are|it|was|thus)\b)")
_ANNOUNCED = re.compile(
    r"\b(?:decision|verdict|answer|conclusion|result|judg(?:e)?ment)\b(?:\s+(?:is|would be|must be))?\s*(?:[:=-]|\bis\b)?\s*(?:a\s+|an\s+)?"
    r"(?:clear\s+|definite\s+|resounding\s+)?(yes|no|true|false)\b"
)
_POSITIVE = re.compile(
    r"\b(yes|true|correct|right|pass|passes|passed|affirmative|accept|accepts|accepted|acceptable|approve|approved|good|fine|met|meets|"
    r"satisfied|satisfies|complete|valid|agree)\b"
)
_NEGATIVE = re.compile(
    r"\b(no|false|incorrect|wrong|fail|fails|failed|negative|reject|rejects|rejected|unacceptable|inaccurate|invalid|incomplete|bad|"
    r"insufficient|disagree|lacks|missing)\b"
)
_NEGATION = re.compile(r"\b(?:not|never|hardly|cannot|without|neither|nor|far from|\w+n't)\b")
_HEDGE = re.compile(r"\b(?:not sure|unsure|unclear|uncertain|maybe|perhaps|possibly|depends|whether|if|either)\b")


def _plain(text: str) -> str:
    """Lower case, without markup and typographic apostrophes."""
    text = text.replace("’", "'").lower()
    return re.sub(r"[*_`#>\"\s]+", " ", text).strip(" '")


def _said(clause: str) -> bool | None:
    """What one clause says: a positive or negative word, turned around by each negation before it."""
    if _HEDGE.search(clause):
        return None
    found = [(m.start(), True) for m in _POSITIVE.finditer(clause)] + [
        (m.start(), False) for m in _NEGATIVE.finditer(clause)
    ]
    if not found:
        return None
    at, verdict = max(found) if not re.match(r"\s*(?:yes|no)\b", clause) else min(found)
    turns = len(_NEGATION.findall(clause[:at]))
    return verdict if turns % 2 == 0 else not verdict
