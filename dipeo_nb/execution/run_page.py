"""The page of a run: its script and styles, and what it is given of a run. Notebooks, `run_file` and the server show the same page.

The page is the ES modules and style sheets of `notebook/static/run_view`. There is no build step: `script` puts the modules behind each
other, which needs that no two of them declare the same name at their top.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from dipeo_nb.common.redaction import redactor
from dipeo_nb.diagram.drawing import draw
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.events import Event

FOLDER = Path(__file__).parents[1] / "notebook" / "static" / "run_view"
ENTRY = "main.js"
STYLES = ("tokens.css", "view.css")
VALUE_LIMIT = 20_000
"""Characters of one text in an event sent to a page; it asks for the whole event when someone opens it."""
_IMPORT = re.compile(r'^import \{[^{}\n]*\} from "\./([\w.]+)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const|let)\b)", re.MULTILINE)

Row = list[Any]
"""seq, type, seconds since the epoch, node or None, payload of an event."""


@functools.cache
def script(entry: str = ENTRY) -> str:
    """*entry* and all modules that it needs as one module; that of `main.js` exports `createRunView`."""
    return "".join(modules(entry).values()) + ("export { createRunView };\n" if entry == ENTRY else "")


def modules(entry: str = ENTRY) -> dict[str, str]:
    """Name → text of *entry* and all it imports, without imports and exports; each after those that it imports."""
    found: dict[str, str] = {}

    def add(name: str) -> None:
        if name in found:
            return
        text = (FOLDER / name).read_text(encoding="utf-8")
        found[name] = ""  # modules may import each other in a circle: functions are there before any of them runs
        for other in _IMPORT.findall(text):
            add(other)
        del found[name]
        found[name] = _EXPORT.sub("", _IMPORT.sub("", text))

    add(entry)
    return found


@functools.cache
def styles() -> str:
    """The style sheet of the page."""
    return "".join((FOLDER / name).read_text(encoding="utf-8") for name in STYLES)


def document(entry: str, *, title: str, inside: str = "", connects: bool = False) -> str:
    """An HTML page that runs a module of the view and nothing else.

    Args:
        entry: the module; it looks for the element `run`.
        title: text.
        inside: HTML that stands behind that element.
        connects: whether it may ask the server that it came from.
    """
    code, looks = script(entry), styles() + _DOCUMENT_STYLES
    server = "connect-src 'self'; " if connects else ""
    policy = f"default-src 'none'; script-src {_hash(code)}; style-src {_hash(looks)}; img-src data:; {server}base-uri 'none'; form-action 'none'"
    return (
        f'<!doctype html>\n<html lang="en" class="dp-page"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="referrer" content="no-referrer">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="generator" content="dipeo_nb">'
        f"<title>{escape(clean(title, 120)) or 'Run'}</title><style>{looks}</style></head>\n"
        f'<body><main id="run"><h1 class="dp-sr">{escape(clean(title, 120)) or "Run"}</h1></main>{inside}\n<script type="module">{code}</script></body></html>\n'
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_DOCUMENT_STYLES = """
.dp-page { color-scheme: light dark; background: light-dark(#eef0f3, #0d0f12); color: light-dark(#14181f, #eceff3); }
.dp-page body { margin: 0; }
.dp-page main, .dp-text-only { display: block; max-width: 1280px; margin: 16px auto; padding: 0 16px; font-family: system-ui, sans-serif; }
.dp-text-only { white-space: pre-wrap; overflow-wrap: anywhere; }
@media screen and (scripting) { .dp-text-only { display: none; } }
@media print {
  .dp-page, .dp-page .dp-run { color-scheme: light; background: none; }
  .dp-page .dp-run :is(.dp-main, .dp-panel, .dp-body, .dp-foot, .dp-notice, .dp-lane-box, .dp-tabs) { height: auto; max-height: none; overflow: visible; }
  .dp-page .dp-run .dp-tabs { flex-wrap: wrap; }
}
"""


def head_of(
    run_id: str,
    diagram: DomainDiagram | None,
    *,
    name: str = "",
    model: str | None = None,
    budget: float | None = None,
    live: bool = False,
    can: Iterable[str] = (),
) -> dict[str, Any]:
    """What the page is given of a run besides its events.

    Args:
        diagram: None when the run has no record of it: the page then has no drawing.
        budget: US dollars that the run may cost.
        can: what may be asked of the one who shows it: `stop`, `answer`, `since`, `body`, `note`, `fork`.
    """
    nodes = diagram.nodes if diagram else ()
    return redactor(
        {
            "run_id": run_id,
            "name": clean(name or (diagram and diagram.metadata and diagram.metadata.name) or "diagram", 120),
            "model": model,
            "svg": draw(diagram, live=True, title=name or None) if diagram else "",
            "nodes": {n.id: _node(n.data, n.type, n.label) for n in nodes},
            "ids": {clean(n.id): n.id for n in nodes},
            "budget": budget,
            "live": live,
            "theme": None,
            "can": list(can),
        }
    )


def _node(data: Mapping[str, Any], kind: str, label: str) -> dict[str, Any]:
    prompt = data.get("default_prompt") or data.get("prompt") or data.get("code") or data.get("template_content")
    return {"label": clean(label, 120), "type": kind, "person": data.get("person"), "prompt": prompt}


def rows(events: Iterable[Event], limit: int = VALUE_LIMIT) -> Iterator[Row]:
    """Events as the page takes them, without known secrets; longer texts are cut to their beginning."""
    for event in events:
        whole = whole_row(event)
        whole[4] = cut(whole[4], limit)
        yield whole


def whole_row(event: Event) -> Row:
    """An event as the page takes it, without known secrets."""
    return [event.seq, str(event.type), event.occurred_at, event.node_id, redactor(event.payload)]


def cut(value: Any, limit: int) -> Any:
    """A JSON value in which texts longer than *limit* are `{"$cut": length, "text": beginning}`."""
    if isinstance(value, str):
        return value if len(value) <= limit else {"$cut": len(value), "text": value[:limit]}
    if isinstance(value, Mapping):
        return {key: cut(inner, limit) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cut(inner, limit) for inner in value]
    return value
