"""Extracts yes or no from a model's answer: the structured answer first, else its words.

A text is read in steps, each a function below:

1. what is not the answer is left out: a model's thoughts, quotes of the question, pairs such as "yes or no";
2. structured forms: JSON, and `decision: …` anywhere in the text, of which the last one counts;
3. clauses: runs of words between punctuation marks, conjunctions and reasons;
4. the answer: the strongest kind of clause wins, and of one kind the last clause:
   an announced verdict ("Verdict: no"), a plain answer ("So no."), a bare judgement ("Approved with one note."), a clause that
   judges ("It is not correct."), and last what only agrees or denies ("Of course", "Not really").

Within a clause each negation turns the judgement around: "no errors" is good, "I can't say no" is a yes. Where the *question*
asks for faults ("Does it contain errors?"), judgements answer the other way round: no errors is a no.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, cast

from dipeo_nb.domain import decision_words as vocabulary

DECISION_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"decision": {"type": "boolean"}},
    "required": ["decision"],
    "additionalProperties": False,
}
DEFAULT_DECISION = False
"""The decision for an answer that is neither yes nor no."""
_CONTENT = "--- Content to evaluate ---"
_END_OF_CONTENT = "--- End of content ---"


def decision_prompt(question: str, content: str) -> str:
    """The prompt for a deciding model."""
    return (
        f"{question}\n\n{_CONTENT}\n{content}\n{_END_OF_CONTENT}\n\n"
        'Answer with JSON: {"decision": true} or {"decision": false}'
    )


def decided(structured: Any, text: str, question: str = "") -> bool | None:
    """The decision in an answer; None when it is neither yes nor no.

    Args:
        structured: the value of a structured answer, None without one; it goes before the text.
        text: the answer in words.
        question: what was asked; determines whether "no errors" is good news or a no.
    """
    if structured is not None and (found := _of_value(structured, question)) is not None:
        return found
    text = _answering(text)
    try:
        value = json.loads(_unfenced(text))
    except (ValueError, RecursionError):
        pass
    else:
        return _of_value(value, question) if isinstance(value, (bool, Mapping)) else _in_words(value, question)
    fields = _FIELD.findall(_ALTERNATIVES.sub(" ", text))
    if fields:
        return _VALUES[fields[-1].lower()]
    return _in_words(text, question)


def asks_for_faults(question: str) -> bool:
    """Whether a yes to *question* means that something is wrong: "Does the text contain errors?".

    Only what is plain counts: every sentence that ends in a question mark names something bad and nothing good, denies
    nothing ("free of errors"), and the prompt itself does not define which answer means what.
    """
    tokens = _tokens(question)
    if "?" not in tokens or any(t in vocabulary.YES or t in vocabulary.TRUE for t in tokens):
        return False
    sentence: list[str] = []
    for token in tokens:
        if token not in _SENTENCE_ENDS:
            sentence.append(token)
            continue
        if token == "?":
            words = [word for t in sentence if (word := _judgement(t)) is not None]
            denied = any(t in vocabulary.NEGATION or t in vocabulary.NO for t in sentence)
            if denied or not words or any(word.good for word in words):
                return False
        sentence = []
    return True


# Structured forms.

_VALUES = dict.fromkeys((*vocabulary.YES, *vocabulary.TRUE, "1"), True) | dict.fromkeys(
    (*vocabulary.NO, *vocabulary.FALSE, "0"), False
)
_KEYS = ("decision", "answer", "verdict", "result")
_FIELD = re.compile(
    rf"\bdecision[\"'*_`]*\s*[:=][\s\"'*_`]*({'|'.join(sorted(map(re.escape, _VALUES), key=len, reverse=True))})"
    r"[\"'*_`]*\s*(?=[,.;!}\])\n]|\Z)",
    re.IGNORECASE,
)
"""A field `decision` with a plain value, in JSON or in words."""
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_ALTERNATIVES = re.compile(r"\{[^{}]*\}\s*(?:or|oder|ou|o|/)\s*\{[^{}]*\}")
"""The instruction, repeated: {"decision": true} or {"decision": false}."""


def _of_value(value: Any, question: str) -> bool | None:
    """The decision in a JSON value: a boolean, a word for one, or a mapping that has one under a usual name, or one boolean."""
    if isinstance(value, Mapping):
        given = cast(Mapping[Any, Any], value)
        fields = {str(k).lower(): v for k, v in given.items()}
        key = next((k for k in _KEYS if k in fields), None)
        if key is None:
            return _of_flag(given, question)
        value = fields[key]
        if isinstance(value, (int, float)) and value in (0, 1):
            return bool(value)
    if isinstance(value, bool):
        return value
    return _in_words(value, "")


def _of_flag(fields: Mapping[Any, Any], question: str) -> bool | None:
    """The only boolean of a mapping; its name may judge: `{"approved": true}`, `{"hasErrors": false}`."""
    flags = [(str(name), value) for name, value in fields.items() if isinstance(value, bool)]
    if len(flags) != 1:
        return None
    name, value = flags[0]
    words = _tokens(_CAMEL.sub(" ", name).replace("_", " "))
    judged = [found for word in words if (found := _judgement(word)) is not None]
    if not judged:
        return value
    good = judged[-1].good is not any(word in vocabulary.NEGATION for word in words)
    return (value is good) is not (asks_for_faults(question) and not judged[-1].truth)


# What is not the answer.

_QUOTED = re.compile(r'"([^"\n]*)"|“([^“”\n]*)”|„([^„“”\n]*)[“”]|«([^«»\n]*)»')
_FENCE = re.compile(r"```\w*\n?")


def _answering(text: str) -> str:
    """The text without a model's thoughts, the repeated prompt, and lines that quote."""
    for opening, closing in (("<think>", "</think>"), ("<thinking>", "</thinking>"), (_CONTENT, _END_OF_CONTENT)):
        text = text.rpartition(closing)[2].partition(opening)[0]
    lines = text.split("\n")
    own = [line for line in lines if not line.lstrip().startswith(">")]
    return "\n".join(own) if any(line.strip() for line in own) else text


def _unfenced(text: str) -> str:
    return _FENCE.sub("", text).strip()


def _unquoted(text: str) -> str:
    """Quotations of three words and more are not the judge's own; shorter ones may be the answer itself."""
    if text[:1] in "\"'“„«" and len(_QUOTED.findall(text)) < 2 and not _QUOTED.sub("", text).strip(" .!"):
        return text

    def inner(match: re.Match[str]) -> str:
        words = next(group for group in match.groups() if group is not None)
        return f" {words} " if len(words.split()) < 3 else " "

    return _QUOTED.sub(inner, text)


# Words and clauses.

_MARKS = "\u0300-\u036f\u064b-\u0652\u0900-\u0903\u093a-\u094f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"
"""Vowels and accents that combine with the letter before them (Arabic, Hindi, Thai)."""
_TOKEN = re.compile(rf"(?:[^\W_]|[{_MARKS}])+|[.,:;!?\n()|=✓✔✅👍✗✘❌👎]")
_SENTENCE_ENDS = frozenset(".!?;\n")
_PUNCTUATION = _SENTENCE_ENDS | frozenset(",:()|=")
_LONGEST_PHRASE = max(len(phrase.split()) for phrase in vocabulary.PHRASES)
_PHRASES = {tuple(phrase.split()): word for phrase, word in vocabulary.PHRASES.items()}


def _tokens(text: str) -> list[str]:
    """Words in lower case and punctuation marks; phrases as the one word they mean."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    text = re.sub(r"n't\b", " not", text)
    text = re.sub(r"[–—→]|(?:^|(?<=\s))-+(?=\s)", " . ", text).replace("/", " or ")
    raw = _TOKEN.findall(text)
    found: list[str] = []
    at = 0
    while at < len(raw):
        for size in range(_LONGEST_PHRASE, 1, -1):
            word = _PHRASES.get(tuple(raw[at : at + size]))
            if word is not None:
                found += [word] if word else []
                at += size
                break
        else:
            found.append(raw[at])
            at += 1
    return found


class _Judgement(NamedTuple):
    """The judgement that a word expresses."""

    good: bool
    weight: int
    """3: a judge's verdict, 2: a quality, 1: a fault that is there."""
    truth: bool = False
    """Whether it states that something is the case, rather than that it is good."""


def _judgement(word: str) -> _Judgement | None:
    for stem in (
        word,
        *(word[: -len(e)] for e in ("es", "en", "er", "em", "e", "s", "a", "as", "os") if word.endswith(e)),
    ):
        if stem in vocabulary.VERDICT_GOOD or stem in vocabulary.VERDICT_BAD:
            return _Judgement(stem in vocabulary.VERDICT_GOOD, 3)
        if stem in vocabulary.TRUE or stem in vocabulary.FALSE:
            return _Judgement(stem in vocabulary.TRUE, 2, truth=True)
        if stem in vocabulary.GOOD or stem in vocabulary.BAD:
            return _Judgement(stem in vocabulary.GOOD, 2)
        if stem in vocabulary.FAULT:
            return _Judgement(False, 1)
    return None


class _Clause(NamedTuple):
    """A run of words between breaks."""

    words: list[str]
    whole: bool
    """Whether it is a sentence by itself, or goes before a colon."""
    announced: bool
    """Whether it follows an announcement ("Verdict:")."""
    aside: bool
    """Whether it is a reason or a concession."""
    heads: bool
    """Whether a colon follows it."""


def _clauses(tokens: Sequence[str]) -> Iterator[_Clause]:
    """The clauses of a text, without its questions."""
    sentence: list[_Clause] = []
    words: list[str] = []
    aside = announced = started = False
    for at, token in enumerate([*tokens, "."]):
        following = tokens[at + 1] if at + 1 < len(tokens) else "."
        begins = token in vocabulary.CONTRAST or (token in vocabulary.AND and following in vocabulary.AFTER_AND)
        reason = token in vocabulary.REASON
        if token not in _PUNCTUATION and not begins and not reason:
            words.append(token)
            if len(words) > 1 or not _answers(token, following):
                continue
        ends = token in _SENTENCE_ENDS
        if words:
            heading = token in ":=\n" and _announces(words)
            whole = not started and (ends or token == ":")
            if not heading:
                sentence.append(_Clause(words, whole, announced, aside, token == ":"))
            announced, started, words = heading, True, []
        aside = reason
        if ends:
            if token != "?":
                yield from sentence
            sentence, started = [], False
    yield from sentence


def _answers(word: str, following: str) -> bool:
    """Whether the first word of a clause is the answer, and what follows is another clause."""
    if word in vocabulary.DENYING:
        return following in vocabulary.AFTER_NO or following in vocabulary.NO or following in vocabulary.YES
    return word in vocabulary.YES or word in vocabulary.NO


def _announces(words: Sequence[str]) -> bool:
    """Whether a clause only announces the answer: "my final answer is"."""
    return any(w in vocabulary.MARKERS for w in words) and all(
        w in vocabulary.MARKERS or w in vocabulary.FILLER or w in vocabulary.LINKING for w in words
    )


# The answer.


class _Kind(IntEnum):
    """Degree of clarity with which a clause answers."""

    WEAK = 1
    JUDGING = 2
    BARE = 3
    PLAIN = 4
    ANNOUNCED = 5


class _Said(NamedTuple):
    kind: _Kind
    value: bool


def _in_words(value: Any, question: str) -> bool | None:
    """The answer that a text gives."""
    if not isinstance(value, str):
        return None
    clauses = list(_clauses(_without_pairs(_tokens(_unquoted(value.strip())))))
    taken_back = [at for at, clause in enumerate(clauses) if clause.words[0] in vocabulary.RETRACTION]
    faults = asks_for_faults(question)
    for start in (taken_back[-1] if taken_back else 0, 0):
        for aside in (False, True):
            chosen = [clause for clause in clauses[start:] if clause.aside is aside]
            found = [said for said in _together(chosen, faults) if said is not None]
            if found:
                strongest = max(said.kind for said in found)
                return [said.value for said in found if said.kind is strongest][-1]
    return None


def _together(clauses: Sequence[_Clause], faults: bool) -> Iterator[_Said | None]:
    """The judgement of each clause; one that heads another one ("Wrong: it is fine") is not stronger than it."""
    said = [_said(clause, faults) for clause in clauses]
    for at, (clause, own) in enumerate(zip(clauses, said, strict=True)):
        following = said[at + 1] if at + 1 < len(said) else None
        final = any(found is not None and found.weight == 3 for found in map(_judgement, clause.words))
        headed = clause.heads and not final and own is not None and following is not None and following.kind is _Kind.JUDGING
        yield own._replace(kind=min(own.kind, _Kind.JUDGING)) if headed and own is not None else own


def _without_pairs(tokens: Sequence[str]) -> list[str]:
    """Without adjacent opposites: "yes or no", "pass/fail", "yes and no"."""
    kept: list[str] = []
    for token in tokens:
        kept.append(token)
        if len(kept) > 2 and (kept[-2] in vocabulary.OR or kept[-2] in vocabulary.AND):
            first, last = _side(kept[-3]), _side(kept[-1])
            if first is not None and last is not None and first is not last:
                del kept[-3:]
                if kept and kept[-1] in vocabulary.BOTH:
                    kept.pop()
    return kept


def _side(word: str) -> bool | None:
    if word in vocabulary.YES or word in vocabulary.NO:
        return word in vocabulary.YES
    found = _judgement(word)
    return found.good if found is not None and found.weight > 1 else None


def _said(clause: _Clause, faults: bool) -> _Said | None:
    """The judgement of a clause, if it has one."""
    found = _plain_answer(clause.words) or _judged(clause, faults) or _weak_answer(clause.words)
    if found is None:
        return None
    upgraded = clause.announced and found.kind is not _Kind.JUDGING
    return found._replace(kind=_Kind.ANNOUNCED) if upgraded else found


def _plain_answer(words: Sequence[str]) -> _Said | None:
    """A clause that is an answer or ends in one: "no", "so I say yes", "absolutely not"."""
    if len(words) == 1 and words[0] in vocabulary.ALONE:
        return _Said(_Kind.PLAIN, vocabulary.ALONE[words[0]])
    if any(w in vocabulary.HEDGE for w in words):
        return None
    end = len(words) - 1
    while end > 0 and words[end] in vocabulary.FILLER:
        end -= 1  # "I say no to this"
    if words[end] in vocabulary.YES or words[end] in vocabulary.NO:
        value, turned = words[end] in vocabulary.YES, _turned(words, end)
        marked = any(w in vocabulary.MARKERS for w in words)
        kind = _Kind.JUDGING if turned else _Kind.ANNOUNCED if marked else _Kind.PLAIN
        return _Said(kind, value is not turned)
    assents = [at for at, w in enumerate(words) if w in vocabulary.ASSENT]
    denied = [at for at in range(len(words)) if _denies(words, at)]
    others = any(w not in vocabulary.FILLER and w not in vocabulary.ASSENT and w not in vocabulary.NEGATION for w in words)
    if assents and denied and not others and denied[-1] > assents[0]:
        return _Said(_Kind.PLAIN, False)
    return None


def _judged(clause: _Clause, faults: bool) -> _Said | None:
    """A clause that judges: "it is not correct", "there are no problems with it"."""
    words = clause.words
    if any(w in vocabulary.HEDGE for w in words):
        return None
    judged = [(found.weight, at, found) for at, w in enumerate(words) if (found := _judgement(w)) is not None]
    if not judged:
        return None
    weight, at, found = max(judged)
    value = found.good is not _turned(words, at)
    before = words[:at]
    opens = all(w in vocabulary.NEGATION or w in vocabulary.ASSENT or w in vocabulary.DENYING for w in before)
    alone = all(w in vocabulary.FILLER or w in vocabulary.ASSENT or w in vocabulary.NEGATION or _judgement(w) for w in words)
    if opens and (weight == 3 or (weight == 2 and alone and clause.whole)):
        return _Said(_Kind.BARE, value)
    marked = any(w in vocabulary.MARKERS for w in before) and before[-1] in vocabulary.LINKING
    if marked and weight > 1:
        return _Said(_Kind.BARE, value)
    return _Said(_Kind.JUDGING, value is not (faults and not found.truth))


def _weak_answer(words: Sequence[str]) -> _Said | None:
    """A clause that only agrees or denies: "of course", "not really", "it is not", "No sources are given"."""
    if any(w in vocabulary.HEDGE for w in words):
        return None
    denied = any(_denies(words, at) for at in range(len(words)))
    others = any(
        w not in vocabulary.FILLER and w not in vocabulary.ASSENT and not _denies(words, at) for at, w in enumerate(words)
    )
    if words[0] in vocabulary.DENYING and others:
        return _Said(_Kind.WEAK, False)
    if others:
        return None
    if denied:
        unknowing = any(w in vocabulary.UNKNOWING for w in words)
        return None if unknowing else _Said(_Kind.WEAK, False)
    return _Said(_Kind.WEAK, True) if any(w in vocabulary.ASSENT for w in words) else None


def _denies(words: Sequence[str], at: int) -> bool:
    """Whether the word there is a negation."""
    return words[at] in vocabulary.NEGATION or words[at] in vocabulary.DENYING


def _turned(words: Sequence[str], at: int) -> bool:
    """Whether the negations of a clause invert its word there."""
    count = 0
    seen: set[str] = set()
    for place, word in enumerate(words):
        if place == at or not _denies(words, place) or (place > at and word not in vocabulary.LATE):
            continue
        joined = (word in ("nor", "ni") and ("neither" in seen or word in seen)) or (
            word in vocabulary.CONCORD and not seen.isdisjoint(vocabulary.DENYING)
        )
        count += not joined
        seen.add(word)
    return count % 2 == 1
