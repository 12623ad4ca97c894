"""Markdown of a model, made harmless to show.

Jupyter renders the Markdown of a cell that you ran as trusted: a `<script>` or an `<img onerror=…>` in an answer would run in
your notebook, which can run code, and an image would be fetched from wherever the answer says. A model repeats what it read
on the web, so its Markdown is shown without HTML, without `javascript:` links and with images as links.

Nothing here rests on finding code exactly as a renderer would: no opening of a tag is left anywhere. Where code is
recognised it only looks better, as characters instead of entities.
"""

from __future__ import annotations

import re

_CODE = str.maketrans({c: f"&#{ord(c)};" for c in "&<>$[]*_\\`|~!#\"'\n"})
_FENCE = re.compile(
    r"(?P<place>(?:[ \t]*(?:>|[-*+][ \t]|\d{1,9}[.)][ \t]))*[ \t]*)(?P<mark>`{3,}|~{3,})(?P<info>[^`]*)"
)
_INLINE = re.compile(r"(?<!`)(`+)(?!`)([^\n]+?)(?<!`)\1(?!`)")
_TAG = re.compile(r"\\?<(?=[A-Za-z/!?])(?!https?://[^\s<>\"'`]+>)")
_ENTITY = re.compile(r"&(?=#|colon|tab|newline)", re.IGNORECASE)
_POINTED = re.compile(r"(\](?:\(|:)\s*)<(?!https?://[^\s<>\"'`]+>)")
_SCRIPT = re.compile(r"(javascript)(?=\\?:\S)", re.IGNORECASE)
_IMAGE = re.compile(r"!(?=\[)")
_RISKY = re.compile(r"<[A-Za-z/!?]|javascript\\?:\S|!\[[^\]]*\][(\[]|&(?:#|colon|tab|newline)", re.IGNORECASE)


def safe(markdown: str) -> str:
    """*markdown* with HTML as text, links that run code broken, and images as links. It may end anywhere, as a stream does."""
    out: list[str] = []
    prose: list[str] = []
    lines = iter(markdown.split("\n"))
    for line in lines:
        opening = _FENCE.fullmatch(line)
        if opening is None:
            prose.append(line)
            continue
        out += _prose(prose)
        prose.clear()
        out.append(_fenced(line, opening, lines))
    out += _prose(prose)
    return "\n".join(out)


def literal(text: str) -> str:
    """*text* for a place in Markdown where every character stands for itself; line breaks are kept in `<pre>` only."""
    return text.translate(_CODE)


def _fenced(line: str, opening: re.Match[str], lines: object) -> str:
    """A block of code from its opening line on: as it is, or as `<pre>` on one line when it could be read as something else."""
    mark, place = opening["mark"], opening["place"]
    inner: list[str] = []
    closing = None
    for following in lines:  # type: ignore[attr-defined]
        bare = following.strip(" \t>")
        if len(bare) >= len(mark) and set(bare) == {mark[0]}:
            closing = following
            break
        inner.append(following)
    if not _RISKY.search("\n".join((opening["info"], *inner))):
        return "\n".join([line, *inner, *([] if closing is None else [closing])])
    depth = re.sub(r"[^>\s]", " ", place)
    code = "\n".join(_without(row, depth) for row in inner)
    return f"{place}<pre><code>{literal(code)}</code></pre>"


def _without(row: str, place: str) -> str:
    """A row of code without what its container puts before it."""
    at = 0
    for expected in place:
        if at < len(row) and (row[at] == expected or (expected.isspace() and row[at].isspace())):
            at += 1
    return row[at:]


def _prose(lines: list[str]) -> list[str]:
    if not lines:
        return []
    text = "\n".join(lines)
    parts: list[str] = []
    end = 0
    for code in _INLINE.finditer(text):
        parts.append(_inert(text[end : code.start()]))
        risky = _RISKY.search(code[2])
        parts.append(f"<code>{literal(code[2].strip())}</code>" if risky else code[0])
        end = code.end()
    parts.append(_inert(text[end:]))
    return ["".join(parts)]


def _inert(text: str) -> str:
    text = _ENTITY.sub("&amp;", text)
    text = _POINTED.sub(r"\1&lt;", text)
    text = _TAG.sub("&lt;", text)
    text = _SCRIPT.sub("\\1\u2060", text)
    return _IMAGE.sub("🖼 ", text)
