"""The page of a run: its script and styles, what it is given of a run, and a run as one HTML file.

The page is the ES modules and style sheets of `static/run_view`. There is no build step: `script` puts the modules behind each other, which
needs that no two of them declare the same name at their top.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dipeo_nb.common.redaction import redactor
from dipeo_nb.diagram.drawing import draw
from dipeo_nb.diagram.labels import clean
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.domain.events import Event

FOLDER = Path(__file__).parent / "static" / "run_view"
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
    """*entry* and all modules that it needs as one module, which exports what *entry* does: its default, else `createRunView`."""
    parts = modules(entry)
    own = "" if "\nexport default " in parts[entry] else "export { createRunView };\n"
    return "".join(parts.values()) + own


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


def head_of(
    run_id: str,
    diagram: DomainDiagram,
    *,
    name: str = "",
    model: str | None = None,
    budget: float | None = None,
    live: bool = False,
    can: Iterable[str] = (),
) -> dict[str, Any]:
    """What the page is given of a run besides its events.

    Args:
        budget: US dollars that the run may cost.
        can: what may be asked of the one who shows it: `stop`, `answer`, `since`, `body`, `note`, `fork`.
    """
    return redactor(
        {
            "run_id": run_id,
            "name": clean(name or (diagram.metadata.name if diagram.metadata else "") or "diagram", 120),
            "model": model,
            "svg": draw(diagram, live=True, title=name or None),
            "nodes": {n.id: _node(n.data, n.type, n.label) for n in diagram.nodes},
            "ids": {clean(n.id): n.id for n in diagram.nodes},
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
        yield [event.seq, str(event.type), event.occurred_at, event.node_id, cut(redactor(event.payload), limit)]


def cut(value: Any, limit: int) -> Any:
    """A JSON value in which texts longer than *limit* are `{"$cut": length, "text": beginning}`."""
    if isinstance(value, str):
        return value if len(value) <= limit else {"$cut": len(value), "text": value[:limit]}
    if isinstance(value, Mapping):
        return {key: cut(inner, limit) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cut(inner, limit) for inner in value]
    return value
