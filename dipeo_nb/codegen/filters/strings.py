"""Filters for words and for texts of source code."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import inflection

from dipeo_nb.codegen.filters.case import humanize

LONGEST_WORD = 200
"""Characters of a word; the rules of inflection look at no more."""
_ESCAPES = {
    "\\": "\\\\",
    "'": "\\'",
    '"': '\\"',
    "`": "\\`",
    "\n": "\\n",
    "\r": "\\r",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
    "</": "<\\/",
}


def pluralize(text: Any) -> str:
    """The last word in the plural.

    >>> pluralize("category"), pluralize("api key"), pluralize(None)
    ('categories', 'api keys', '')
    """
    return _last_word(text, inflection.pluralize)


def singularize(text: Any) -> str:
    """The last word in the singular.

    >>> singularize("boxes"), singularize("status")
    ('box', 'status')
    """
    return _last_word(text, inflection.singularize)


def escape_js(text: Any) -> str:
    """A text for between quotes of JavaScript, of any kind, also within a script element. Corrected: it meant two things, by the
    order in which filters were registered; the quotes are the template's.

    >>> print(escape_js("it's \\"x\\" </script>"))
    it\\'s \\"x\\" <\\/script>
    """
    return re.sub(r"""[\\'"`\n\r\u2028\u2029]|</""", lambda found: _ESCAPES[found[0]], "" if text is None else str(text))


def strip_inline_comments(text: Any) -> str:
    """Without `/* … */`, and without what follows `//` or `#` after a blank, line by line. Corrected: addresses stay whole.

    >>> strip_inline_comments("string /* a */ // b"), strip_inline_comments("x = 'http://y'  # z")
    ('string', "x = 'http://y'")
    """
    whole = _without_blocks(str(text))
    return "\n".join(re.sub(r"(?<!\s)\s++(?://|#\s).*", "", re.sub(r"^//.*", "", line)).rstrip() for line in whole.split("\n"))


def _without_blocks(text: str) -> str:
    """Without `/* … */`; one that does not end stays. In one pass over the text."""
    pieces: list[str] = []
    at = 0
    while (start := text.find("/*", at)) >= 0 and (end := text.find("*/", start + 2)) >= 0:
        pieces.append(text[at:start])
        at = end + 2
    return "".join(pieces) + text[at:]


def _last_word(text: Any, change: Callable[[str], str]) -> str:
    words = "" if text is None else str(text)
    at = max(len(words) - LONGEST_WORD, 0)
    return words[:at] + change(words[at:]) if words else ""


__all__ = ["escape_js", "humanize", "pluralize", "singularize", "strip_inline_comments"]
