"""Filters for the case of names.

{{ 'author_name' | pascal_case }}   AuthorName
"""

from __future__ import annotations

import re
from typing import Any

import inflection

_ACRONYM = re.compile(r"[A-Z]+(?=[A-Z][a-z]|$)")


def snake_case(text: Any) -> str:
    """Words in small letters, joined by `_`; None is an empty text.

    >>> snake_case("MyHTTPThing v2"), snake_case("maxIteration"), snake_case("api-key"), snake_case("größteZahl"), snake_case(None)
    ('my_http_thing_v2', 'max_iteration', 'api_key', 'größte_zahl', '')
    """
    words = "_".join(words_of(text))
    return re.sub(r"(?<=[A-Z])(?=[A-Z][a-z])|(?<=[a-z\d])(?=[A-Z])", "_", words).lower()


def pascal_case(text: Any) -> str:
    """Words with large first letters, joined. Corrected: a hyphen separates words, and acronyms stay.

    >>> pascal_case("my-name"), pascal_case("author_name"), pascal_case("NodeID"), pascal_case("API_JOB"), pascal_case("")
    ('MyName', 'AuthorName', 'NodeID', 'ApiJob', '')
    """
    parts = words_of(text)
    shout = len(parts) > 1
    return "".join(part.capitalize() if shout and part.isupper() else part[0].upper() + part[1:] for part in parts)


def camel_case(text: Any) -> str:
    """As `pascal_case`, with a small first letter. Corrected: an acronym at the front is one word.

    >>> camel_case("My thing"), camel_case("author_name"), camel_case("HTTPServer"), camel_case("ID")
    ('myThing', 'authorName', 'httpServer', 'id')
    """
    made = pascal_case(text)
    if found := _ACRONYM.match(made):
        return found[0].lower() + made[found.end() :]
    return made[:1].lower() + made[1:]


def kebab_case(text: Any) -> str:
    """As `snake_case`, joined by `-`.

    >>> kebab_case("MyThing"), kebab_case("my_thing"), kebab_case(None)
    ('my-thing', 'my-thing', '')
    """
    return snake_case(text).replace("_", "-")


def humanize(text: Any) -> str:
    """A name as words of a sentence.

    >>> humanize("author_name"), humanize("maxIteration")
    ('Author name', 'Max iteration')
    """
    return inflection.humanize(snake_case(text))


def words_of(text: Any) -> list[str]:
    """What separators leave of a name: everything separates that cannot be in an identifier, and `_`.

    >>> words_of("price-tag x²"), words_of("_naïve"), words_of(None)
    (['price', 'tag', 'x'], ['naïve'], [])
    """
    return "".join(c if c != "_" and f"_{c}".isidentifier() else " " for c in _text(text)).split()


def _text(value: Any) -> str:
    return "" if value is None else str(value)
