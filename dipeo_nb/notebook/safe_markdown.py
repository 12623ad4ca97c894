"""Markdown of a model, made harmless to show.

Jupyter renders the Markdown of a cell that you ran as trusted: a `<script>` or an `<img onerror=…>` in an answer would run in
your notebook, which can run code, and an image would be fetched from any address that the answer names. A model repeats what it
read on the web, so its Markdown is shown without HTML, without `javascript:` links and with images as links.

Safety does not depend on finding code exactly as a renderer would: no opening of a tag is left anywhere. Where code is recognised,
it only looks better, as characters instead of entities.
"""

from __future__ import annotations

import re

from dipeo_nb.common.text import inert

_DOLLAR = "<span>&#36;</span>"
"""A dollar sign that is not mathematics: alone in an element, no renderer takes it for a delimiter."""
_CODE = str.maketrans({c: f"&#{ord(c)};" for c in "&<>$[]*_\\`|~!#\"'\n"})
_FENCE = re.compile(r"(?P<place>(?:[ \t]*(?:>|[-*+][ \t]|\d{1,9}[.)][ \t]))*[ \t]*)(?P<mark>`{3,}|~{3,})(?P<info>[^`]*)")
_INLINE = re.compile(r"(?<!`)(`+)(?!`)([^\n]+?)(?<!`)\1(?!`)")
_TAG = re.compile(r"\\?<(?=[A-Za-z/!?])(?!https?://[^\s<>\"'`]+>)")
_ENTITY = re.compile(r"&(?=#|colon|tab|newline)", re.IGNORECASE)
_POINTED = re.compile(r"(\](?:\(|:)\s*)<(?!https?://[^\s<>\"'`]+>)")
_SCRIPT = re.compile(r"(javascript)(?=\\?:\S)", re.IGNORECASE)
_SCHEME = re.compile(r"(\](?:\(|:)\s{0,20}(?:<|&lt;)?)(?!(?:https?|mailto)\\?:)([a-z][a-z0-9+.-]{0,30})(?=\\?:)", re.IGNORECASE)
"""The target of a link with another scheme than those of web pages and mail: `data:`, `vbscript:`, `file:` …"""
_IMAGE = re.compile(r"!(?=\[)")
_MATH = re.compile(
    r"(?P<escaped>\\\$)"
    r"|(?<!\\)\\\[(?P<bracket>(?:(?!\n[ \t]*\n|\\\[).){1,2000}?)(?<!\\)\\\]"
    r"|(?<!\\)\\\((?P<parenthesis>[^\n]{1,500}?)(?<!\\)\\\)"
    r"|(?<!\$)\$\$(?!\$)(?P<display>(?:(?!\n[ \t]*\n|\$).){1,2000}?)\$\$(?!\$)"
    r"|(?<![\w$\\])\$(?P<inline>(?![\s$])(?:[^$\n\\]|\\[^\n]){1,500}?(?<!\s))\$(?![\w$])"
    r"|(?P<dollar>\$)",
    re.DOTALL,
)
"""Mathematics as models write it, `$x$`, `$$x$$`, `\\(x\\)`, `\\[x\\]`, and every other dollar."""
_COMMAND = re.compile(r"\\(?:text|mathrm|mathbf|operatorname|mbox|textbf|textit)\*?\{[^{}]*\}|\\[A-Za-z]+")
_INNER_DOLLAR = re.compile(r"(?<!\\)\$")
_PROSE = re.compile(r"(?<![A-Za-z])[A-Za-z]{2,}+[,;:]?\s++[A-Za-z]{2}")
"""Two words in a row: the dollars around them are prices, or names of variables of a shell."""
_RISKY = re.compile(r"<[A-Za-z/!?]|javascript\\?:\S|&(?:#|colon|tab|newline)", re.IGNORECASE)


def safe(markdown: str) -> str:
    """*markdown* with HTML as text, links that run code broken, and images as links. It may end anywhere, as a stream does.

    Mathematics, also that in `\\(x\\)` and `\\[x\\]`, stands between dollars; every other dollar is one.
    """
    out: list[str] = []
    prose: list[str] = []
    lines = iter(inert(markdown).split("\n"))
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
    return inert(text).translate(_CODE).replace("&#36;", _DOLLAR)


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
    text = "\n".join((opening["info"], *inner))
    if not _RISKY.search(text) and not ("![" in text and ("](" in text or "][" in text)):
        return "\n".join([line, *inner, *([] if closing is None else [closing])])
    depth = re.sub(r"[^>\s]", " ", place)
    code = "\n".join(_without(row, depth) for row in inner)
    return f"{place}<pre><code>{code.translate(_CODE)}</code></pre>"


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
        parts.append(f"<code>{code[2].strip().translate(_CODE)}</code>" if risky else code[0])
        end = code.end()
    parts.append(_inert(text[end:]))
    return ["".join(parts)]


def _inert(text: str) -> str:
    """Text outside code, with its mathematics and its dollars."""
    if "$" not in text and "\\" not in text:
        return _harmless(text)
    parts: list[str] = []
    end = 0
    for found in _MATH.finditer(text):
        parts.append(_harmless(text[end : found.start()]))
        end = found.end()
        if found["escaped"] or found["dollar"]:
            parts.append(_DOLLAR)
            continue
        content = found[str(found.lastgroup)]
        marks = "$$" if found.lastgroup in ("bracket", "display") else "$"
        if _PROSE.search(_COMMAND.sub(" ", content)) or not content.strip():
            parts.append(_harmless(found[0]).replace("$", _DOLLAR))
        else:
            parts.append(f"{marks}{_tidied(content.strip())}{marks}")
    parts.append(_harmless(text[end:]))
    return "".join(parts)


def _tidied(formula: str) -> str:
    """A formula that is harmless also for who takes it for Markdown: comparisons by name, and no dollar inside."""
    formula = _INNER_DOLLAR.sub("", formula.replace("<", r"\lt ").replace(">", r"\gt "))
    return _ENTITY.sub("& ", _SCRIPT.sub("\\1\u2060", _IMAGE.sub("!{}", formula)))


def _harmless(text: str) -> str:
    text = _ENTITY.sub("&amp;", text)
    text = _POINTED.sub(r"\1&lt;", text)
    text = _TAG.sub("&lt;", text)
    text = _SCHEME.sub("\\1\\2\u2060", text)
    text = _SCRIPT.sub("\\1\u2060", text)
    return _IMAGE.sub("🖼 ", text)
