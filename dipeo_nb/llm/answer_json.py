"""JSON within the text of an answer: between words, in a code fence, or not complete yet."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import from_json


def partial(text: str) -> Any:
    """The value in JSON that is not complete yet; None while there is nothing to see."""
    start = min((i for i in (text.find("{"), text.find("[")) if i >= 0), default=-1)
    if start < 0:
        return None
    try:
        return from_json(text[start:], allow_partial="trailing-strings")
    except ValueError:
        return None


_THOUGHTS = re.compile(r"</(?:think|thinking|thought|reasoning)>")
_THINKING = re.compile(r"\s*+<(?:think|thinking|thought|reasoning)>")
_COMMAS = re.compile(r'("(?:[^"\\]|\\.)*+")|,(?=\s*+[}\]])', re.DOTALL)
_LANGUAGE = re.compile(r"\A(?:json|JSON)?[ \t\r]*+\n")
_OPENING = re.compile(r"[{\[]")
_JSON_LIKE = re.compile(r'\{\s*+"|\[\s*+[{"\[]')
_PLACES = 200
"""Places of a text where JSON is looked for, at most."""


def values_in(text: str) -> tuple[list[Any], str]:
    """(JSON values in an answer that may be what was asked for, the likeliest first; why there are none).

    When all of it is JSON, or the last code fence is, only that counts: a part of it is not the answer, and thoughts are none.
    """
    end = max((match.end() for match in _THOUGHTS.finditer(text)), default=0)
    text = text[end:].strip().lstrip("\ufeff")
    if not end and _THINKING.match(text):
        return [], "it holds only thoughts"
    problem = ""
    for whole in (text, *reversed(text.split("```")[1::2])):
        try:
            return [_loaded(_LANGUAGE.sub("", whole))], ""
        except (ValueError, RecursionError) as error:
            problem = problem or _broken(error)
    values, broken = _values_within(text)
    if not values and not broken and any(sign in text for sign in "{["):
        broken = problem
    return ([], broken) if broken else (values, "" if values else "it holds no JSON")


def _broken(error: ValueError | RecursionError) -> str:
    return "it is nested too deep" if isinstance(error, RecursionError) else f"it is not JSON ({error})"


def _loaded(text: str) -> Any:
    """A JSON value; commas at the end of lists and objects, and line breaks in texts, are forgiven."""
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return json.loads(_COMMAS.sub(lambda match: match[1] or "", text), strict=False)


def _values_within(text: str) -> tuple[list[Any], str]:
    """(the objects and lists between words, none inside another, the longest first; what is wrong with one that is none).

    What stands inside a broken object or list is not the answer.
    """
    decoder = json.JSONDecoder(strict=False)
    text = _COMMAS.sub(lambda match: match[1] or "", text)
    found: list[tuple[int, Any]] = []
    at = 0
    for _ in range(_PLACES):
        place = _OPENING.search(text, at)
        if place is None:
            break
        try:
            value, at = decoder.raw_decode(text, place.start())
        except (ValueError, RecursionError) as error:
            if _JSON_LIKE.match(text, place.start()):
                return [], _broken(error)
            at = place.end()
        else:
            found.append((at - place.start(), value))
    return [value for _, value in sorted(found, key=lambda item: -item[0])], ""
