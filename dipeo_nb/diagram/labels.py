"""Texts of a drawing: cleaned, measured and cut text, and the words for nodes, arrows and states.

Everything a diagram's author typed passes through `clean` before it is drawn anywhere, so no drawing meets control
characters, lone surrogates, bidi overrides or ten thousand characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from dipeo_nb.common import lazy
from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.enums import NodeCategory, Status

if TYPE_CHECKING:
    from dipeo_nb.domain import nodes
    from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode
else:
    nodes = lazy.module("dipeo_nb.domain.nodes")  # lists of runs and providers have no nodes

LABEL_LIMIT = 300
"""Characters of any text that a drawing keeps, tooltips included."""


class StatusLook(NamedTuple):
    """A status without colour."""

    glyph: str
    """One character, for text and Mermaid."""
    word: str


STATUS_LOOKS: dict[str, StatusLook] = {
    Status.PENDING: StatusLook("○", "pending"),
    Status.RUNNING: StatusLook("▶", "running"),
    Status.PAUSED: StatusLook("‖", "paused"),
    Status.COMPLETED: StatusLook("✓", "completed"),
    Status.FAILED: StatusLook("✗", "failed"),
    Status.ABORTED: StatusLook("■", "stopped"),
    Status.SKIPPED: StatusLook("»", "skipped"),
    Status.MAXITER_REACHED: StatusLook("↻", "all runs used"),
    Status.INTERRUPTED: StatusLook("!", "interrupted"),
}
"""Status value → glyph and word; shown with the colour, never colour alone."""
DIFFERENCE_LOOKS: dict[str, StatusLook] = {
    "same": StatusLook("=", "same"),
    "changed": StatusLook("≠", "changed"),
    "new": StatusLook("+", "new"),
    "gone": StatusLook("−", "gone"),
}
"""What a node of one run is to that of another one."""


class NodeLook(NamedTuple):
    """Progress of a node, as a drawing shows it."""

    status: str
    """A `Status` value."""
    runs: int = 0
    """Finished runs; shown as `×3` from 1 on."""
    note: str = ""
    """Replaces the line under the label, e.g. `1.2 s · 340 tokens`."""


def status_look(status: str) -> StatusLook:
    """Glyph and word of a status; an unknown status shows its own name."""
    return STATUS_LOOKS.get(status) or DIFFERENCE_LOOKS.get(status) or StatusLook("?", clean(status, 40))


# ------------------------------------------------------------------------------------------------------- text


def clean(text: object, limit: int = LABEL_LIMIT) -> str:
    """One line of drawable text: no secrets, control characters, bidi controls or lone surrogates; cut with `…` at *limit*."""
    # Before anything is cut or broken into lines: a piece of a secret would not be found any more.
    value: str = redactor(text if isinstance(text, str) else str(text))
    if value.isascii() and value.isprintable() and len(value) <= limit and value.strip() == value:
        return value
    kept = " ".join(_UNDRAWABLE.sub(_replacement, value[: 4 * limit]).split())
    return cut_at(kept, limit) if len(kept) > limit or len(value) > 4 * limit else kept


_MISSING = "□"
"""Stands for half a character; unlike U+FFFD our font has it."""
_UNDRAWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff\ud800-\udfff"
    "\ufdd0-\ufdef\U000e0000-\U000e0fff]"
)


def _replacement(match: re.Match[str]) -> str:
    char = match[0]
    if char < "\xa0" or char in "\u2028\u2029":
        return " "
    return _MISSING if "\ud800" <= char <= "\udfff" or char == "\ufffd" else ""


def cut_at(text: str, limit: int) -> str:
    """At most *limit* characters, `…` included; never cut inside an accented letter or a joined emoji."""
    end = min(limit - 1, len(text))
    while end > 0 and end < len(text) and (_joins(text[end]) or text[end - 1] == "\u200d"):
        end -= 1
    return text[:end].rstrip() + "…"


def _joins(char: str) -> bool:
    return char == "\u200d" or "\U0001f3fb" <= char <= "\U0001f3ff" or unicodedata.category(char).startswith("M")


def escape(text: str) -> str:
    """*text* (already clean) for XML and HTML content and quoted attributes."""
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;"), ("'", "&#39;")):
        if char in text:
            text = text.replace(char, entity)
    return text


def isolate(text: str) -> str:
    """*text* for use inside a sentence: right-to-left text is wrapped so that it does not turn its neighbours round."""
    if text.isascii() or not any(unicodedata.bidirectional(c) in ("R", "AL", "AN") for c in text):
        return text
    return f"\u2068{text}\u2069"


# ---------------------------------------------------------------------------------------------------- measuring

# Widths of the printable ASCII characters of Inter SemiBold in hundredths of the font size. Viewers draw with their
# own font, mostly narrower; boxes leave room for a wider one.
_WIDTHS = bytes(32) + bytes(
    [
        25,
        32,
        52,
        64,
        65,
        100,
        66,
        33,
        37,
        37,
        54,
        67,
        32,
        47,
        32,
        38,
        66,
        42,
        62,
        64,
        67,
        61,
        64,
        58,
        64,
        64,
        32,
        33,
        67,
    ]
    + [67, 67, 54, 100, 73, 66, 74, 72, 61, 59, 75, 75, 28, 58, 70, 57, 92, 76, 77, 65, 77, 65, 65, 66, 74, 73, 102, 72]
    + [71, 65, 37, 38, 37, 48, 47, 35, 57, 62, 58, 62, 59, 39, 63, 61, 26, 26, 57, 26, 90, 61, 61, 62, 62, 40, 55, 35]
    + [61, 59, 84, 57, 59, 57, 45, 36, 45, 67]
    + [0] * 129
)
_REGULAR = 0.965
"""Width of the regular face against the semi-bold one."""


def measure(text: str, size: float, *, bold: bool = False) -> float:
    """Width of *text* in pixels at font size *size*, as Inter draws it (other scripts: a fair guess)."""
    if text.isascii():
        total = sum(text.encode().translate(_WIDTHS))
    else:
        total = sum(_WIDTHS[ord(c)] if c < "\x7f" else _width_of_other(c) for c in text)
    return total * size / 100 * (1.0 if bold else _REGULAR)


def _width_of_other(char: str) -> int:
    if _joins(char):
        return 0
    if unicodedata.east_asian_width(char) in ("W", "F"):
        return 110
    return 75 if char.isupper() or char in "…—→←⇒" else 62


def fit(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """*text* cut with `…` to at most *width* pixels."""
    if measure(text, size, bold=bold) <= width:
        return text
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if measure(text[: middle - 1] + "…", size, bold=bold) <= width:
            low = middle
        else:
            high = middle - 1
    return cut_at(text, low)


def wrap(text: str, width: float, size: float, *, lines: int = 2, bold: bool = False) -> list[str]:
    """*text* in at most *lines* lines of *width* pixels, broken between words, the last one cut with `…`."""
    if measure(text, size, bold=bold) <= width or lines == 1:
        return [fit(text, width, size, bold=bold)]
    pieces = _BREAKS.findall(text)
    first = ""
    for piece in pieces:
        if measure((first + piece).rstrip(), size, bold=bold) > width:
            break
        first += piece
    rest = text[len(first) :].strip()
    if not first.strip() or not rest:
        return [fit(text, width, size, bold=bold)]
    return [first.rstrip(), *wrap(rest, width, size, lines=lines - 1, bold=bold)]


_BREAKS = re.compile(r"[^\s_\-./]*[\s_\-./]+|[^\s_\-./]+")


# ------------------------------------------------------------------------------------------------ nodes, arrows


def category(node: DomainNode) -> str:
    """The node type's category; `unknown` for a type that is not registered."""
    spec = nodes.NODE_SPECS.get(node.type)
    return spec.META.category.value if spec else "unknown"


CATEGORIES = (*(c.value for c in NodeCategory), "unknown")


def title(node: DomainNode) -> str:
    """The node's label, cleaned; its id when the label has nothing to show."""
    return clean(node.label) or clean(node.id) or "unnamed"


def type_words(node: DomainNode) -> str:
    """The node type in words."""
    return clean(node.type, 40).replace("_", " ")


def persons_by_reference(diagram: DomainDiagram) -> Mapping[str, tuple[str, str]]:
    """Every spelling of a person in nodes → (label, model or service), cleaned; ids go before labels."""
    shown = {
        p.id: (clean(p.label), _RELEASE.sub("", clean(p.llm.model or p.llm.service or "default model")))
        for p in diagram.persons
    }
    found: dict[str, tuple[str, str]] = {}
    for person in diagram.persons:
        for reference in (person.label, f"person_{person.label}"):
            found.setdefault(reference, shown[person.id])
    return found | shown


_RELEASE = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")
"""The day of release in a model's name, which only takes up room."""


def subtitle(node: DomainNode, persons: Mapping[str, tuple[str, str]]) -> str:
    """One line on what the node works with: its model, expression, file, address …; else its type.

    Empty when that would only repeat the label.
    """
    describe = _SUBTITLES.get(node.type)
    words = describe(node.data, persons, node.label) if describe else ""
    words = clean(words) or type_words(node)
    return words if words.lower() != title(node).lower() else ""


def _text(data: Mapping[str, Any], *names: str) -> str:
    """The first of these properties that has something to show."""
    for name in names:
        value = data.get(name)
        if isinstance(value, (list, tuple)):
            value = ", ".join(str(v)[:LABEL_LIMIT] for v in value[:3])
        if value not in (None, "", {}, []):
            return str(value)[: 4 * LABEL_LIMIT]
    return ""


def _path(data: Mapping[str, Any], *names: str) -> str:
    """The last two pieces of a path, which are what one recognises it by."""
    pieces = _text(data, *names).replace("\\", "/").rstrip("/").split("/")
    return "/".join(pieces[-2:]) if len(pieces[-1]) < 18 else pieces[-1]


def _person_job(data: Mapping[str, Any], persons: Mapping[str, tuple[str, str]], label: str) -> str:
    reference = _text(data, "person")
    name, model = persons.get(reference, (reference, ""))
    words = [name if name != label else "", model]
    return " · ".join(w for w in words if w) or "no person"


def _condition(data: Mapping[str, Any], persons: Mapping[str, tuple[str, str]], label: str) -> str:
    kind = _text(data, "condition_type") or "custom"
    if kind == "detect_max_iterations":
        return "all runs used?"
    if kind == "check_nodes_executed":
        return f"ran: {_text(data, 'node_indices')}?" if _text(data, "node_indices") else "nodes executed?"
    if kind == "llm_decision":
        return " · ".join(w for w in (_text(data, "person"), _text(data, "judge_by", "judge_by_file")) if w)
    return _text(data, "expression")


def _db(data: Mapping[str, Any], persons: Mapping[str, tuple[str, str]], label: str) -> str:
    place = _path(data, "file", "source_details", "collection")
    return f"{_text(data, 'operation') or 'read'} {place}" if place else _text(data, "operation")


def _endpoint(data: Mapping[str, Any], persons: Mapping[str, tuple[str, str]], label: str) -> str:
    place = _path(data, "file_name", "file_path")
    return f"→ {place}" if place else ""


def _code_job(data: Mapping[str, Any], persons: Mapping[str, tuple[str, str]], label: str) -> str:
    language = _text(data, "language", "code_type") or "python"
    place = _path(data, "file_path", "filePath")
    if place:
        return f"{language} · {place}"
    code = data.get("code")
    lines = [line for line in str(code).splitlines() if line.strip()] if code else []
    if len(lines) > 1:
        return f"{language} · {len(lines)} lines"
    return f"{language} · {lines[0].strip()}" if lines else language


def _api_job(data: Mapping[str, Any], persons: Mapping[str, tuple[str, str]], label: str) -> str:
    url = re.sub(r"^https?://", "", _text(data, "url"))
    return f"{_text(data, 'method') or 'GET'} {url}" if url else ""


def _start(data: Mapping[str, Any], persons: Mapping[str, tuple[str, str]], label: str) -> str:
    mode = _text(data, "trigger_mode")
    return f"on {_text(data, 'hook_event') or 'event'}" if mode == "hook" else ""


def _plain(*names: str, path: bool = False) -> Any:
    def describe(data: Mapping[str, Any], persons: Mapping[str, tuple[str, str]], label: str) -> str:
        return _path(data, *names) if path else _text(data, *names)

    return describe


_SUBTITLES = {
    "start": _start,
    "endpoint": _endpoint,
    "person_job": _person_job,
    "condition": _condition,
    "code_job": _code_job,
    "api_job": _api_job,
    "db": _db,
    "user_response": _plain("prompt"),
    "hook": _plain("command", "url", "hook_type"),
    "template_job": _plain("template_path", "output_path", "engine", path=True),
    "json_schema_validator": _plain("schema_path", "data_path", path=True),
    "typescript_ast": _plain("file", "source", path=True),
    "sub_diagram": _plain("diagram_name", path=True),
    "integrated_api": lambda data, persons, label: ".".join(
        w for w in (_text(data, "provider"), _text(data, "operation")) if w
    ),
    "ir_builder": _plain("builder_type", "config_path"),
    "diff_patch": _plain("target_path", path=True),
}

_HANDLE_WORDS = {"condtrue": "true", "condfalse": "false", "default": ""}


def arrow_words(arrow: DomainArrow, *, limit: int = 60) -> tuple[str, str]:
    """The texts of an arrow: (branch, label). The branch is the source's handle unless it is the default."""
    branch = _HANDLE_WORDS.get(arrow.source_handle, arrow.source_handle)
    return clean(branch, limit), clean(arrow.label or "", limit)


def summary(diagram: DomainDiagram, name: str, statuses: Iterable[str] = ()) -> str:
    """One sentence for screen readers: `Diagram debate: 7 nodes, 8 arrows, 3 persons; 4 completed, 1 running.`"""
    counts = [(len(diagram.nodes), "node"), (len(diagram.arrows), "arrow"), (len(diagram.persons), "person")]
    parts = ", ".join(f"{n} {word}{'' if n == 1 else 's'}" for n, word in counts)
    by_status: dict[str, int] = {}
    for status in statuses:
        by_status[status] = by_status.get(status, 0) + 1
    states = ", ".join(f"{n} {status_look(s).word}" for s, n in by_status.items())
    return f"Diagram {isolate(clean(name))}: {parts}{'; ' + states if states else ''}."
