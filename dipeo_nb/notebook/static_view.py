"""The static form of a run, which needs no kernel: one mimebundle of HTML, PNG and text, from its state alone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from numbers import Real
from typing import Any

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import inert, money
from dipeo_nb.common.values import json_text, well_formed
from dipeo_nb.diagram.drawing import draw, overview
from dipeo_nb.diagram.html import figure
from dipeo_nb.diagram.labels import NodeLook, clean, status_look
from dipeo_nb.diagram.layout import place
from dipeo_nb.diagram.png import saved_picture
from dipeo_nb.diagram.text_tree import text_tree
from dipeo_nb.domain.diagram import DomainDiagram
from dipeo_nb.execution.inputs import as_text
from dipeo_nb.execution.metrics import RunMetrics
from dipeo_nb.execution.node_state import NodeState
from dipeo_nb.execution.run_diff import NodeDiff, RunDiff, cost_in_words, model_in_words, words
from dipeo_nb.execution.run_file import diagram_of
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook.markdown_html import code_html, lines, markdown_html
from dipeo_nb.notebook.node_details import SUMMARY, NodeDetails
from dipeo_nb.notebook.timeline import Timeline, timeline_svg

SAVED, SAVED_MANY, MANY = 120_000, 300_000, 40
"""Characters that a run leaves in a notebook at most, and those of one with more than `MANY` nodes."""
CELL_LIMIT = 2_000
"""Characters of one value shown."""
DIFF_LIMIT = 10_000
"""Characters of one value compared."""
ROW_LIMIT = 200
"""Rows of one table shown; a saved notebook stays small."""
_RAW = 'class="mathjax_ignore tex2jax_ignore"'
"""On the outermost element of text; without it, front ends take what is between two dollar signs for mathematics."""
_BREAKS = 'style="overflow-wrap:break-word"'
"""On what holds texts that others wrote: a long word ends at the edge of the page, and columns of tables keep their words whole."""
_TEXT = 'style="padding:4px 8px;text-align:left;vertical-align:top;white-space:pre-wrap'
_LONG_WORD = re.compile(r"\S{40}")
"""A word that would make a table wider than the page, and so may be broken; other words stay whole even in narrow columns."""
_NUMBER = 'align="right" style="padding:4px 8px;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums'
"""The attribute is for viewers that remove styles (GitHub), the style for those that have one of their own for cells (JupyterLab)."""


class Figure(str):
    """A formatted number, such as `1,234`, `2.10 s` or `$0.02`; its column is aligned to the right."""


def looks(state: RunState) -> dict[str, NodeLook]:
    """How each node of a run is drawn, with its tokens when it called a model."""
    return {i: NodeLook(str(n.status), n.runs, _note(n)) for i, n in state.nodes.items()}


def bundle(
    state: RunState, diagram: DomainDiagram | None = None, *, png: bool = True, when: Timeline | None = None
) -> dict[str, str]:
    """text/html, image/png (when *png*, and it is small enough to be saved with every run) and text/plain of a run.

    Args:
        when: its timeline, where it is known.
    """
    diagram = diagram or diagram_of(state)
    data = {"text/html": html(state, diagram, when), "text/plain": plain(state, diagram)}
    if png and diagram is not None:
        svg = draw(diagram, status=looks(state), theme="light", title=state.diagram)
        picture = saved_picture(svg)
        if picture and len(data["text/html"]) + len(picture) <= SAVED:
            data["image/png"] = picture
    return data


def html(state: RunState, diagram: DomainDiagram | None, when: Timeline | None = None) -> str:
    """Semantic HTML that stays readable without styles and scripts, with as much of the run as a notebook should hold."""
    limit = SAVED if len(state.nodes) <= MANY else SAVED_MANY
    for texts, drawn, details in ((1, True, True), (1, True, False), (5, True, False), (5, False, False)):
        whole = _html(state, diagram if drawn else None, when, CELL_LIMIT // texts, details=details)
        if len(whole) <= limit:
            return whole
    return _html(state, None, None, CELL_LIMIT // 20, details=False)


def _html(state: RunState, diagram: DomainDiagram | None, when: Timeline | None, texts: int, *, details: bool) -> str:
    parts = [
        f"<section {_BREAKS} {_RAW}><p><strong>{escape(clean(state.diagram, 120))}</strong>: {escape(headline(state))}</p>"
    ]
    if diagram is not None:
        look, layout, title = looks(state), place(diagram), f"{state.diagram}, {state.status}"
        svg = draw(diagram, status=look, title=title, layout=layout)
        whole = overview(diagram, layout, status=look, title=title)
        parts.append(figure(svg, alt=f"Diagram {title}", overview=whole))
    if when is not None and (picture := timeline_svg(when, state.diagram)):
        parts.append(figure(picture, alt=f"Timeline of {state.diagram}"))
    if state.error is not None:
        parts.append(failure(state.error))
    if state.outputs:
        parts.append("<h4>Outputs</h4>" + outputs_table(state.outputs, texts))
    if details:
        parts.append(NodeDetails(state, in_order(state)).html())
    elif rows := [_row(state.label(i), node, texts) for i, node in in_order(state)]:
        head = ("node", "status", "runs", "seconds", "tokens", "last output")
        parts.append(f"<details><summary {SUMMARY}>Nodes ({len(rows)})</summary>{table(head, rows)}</details>")
    if state.notes:
        noted = ((f"{note['first']} to {note['last']}", note["text"]) for note in state.notes)
        parts.append(table(("events", "note"), noted))
    if not details and state.run_id:
        parts.append(f"<p><small>Shortened; dp.open_run('{escape(clean(state.run_id))}') has all of it.</small></p>")
    parts.append(f"<p><small>run {escape(state.run_id)}</small></p></section>" if state.run_id else "</section>")
    return "".join(parts)


def timeless(state: RunState) -> RunState:
    """A copy without what differs between two runs that do the same: the id and how long things took."""
    copied = state.snapshot()
    copied.run_id, copied.duration_s = "", 0.0
    for node in copied.nodes.values():
        node.duration_s = 0.0
    return copied


def unfinished(run_id: str) -> str:
    """The line below a run that was going on when its notebook was saved."""
    shown = escape(clean(run_id))
    return (
        f"<p {_RAW}><small>This is how far the run was at {time.strftime('%H:%M:%S')}. <code>dp.open_run('{shown}')</code> shows "
        f"its latest state; if its kernel has gone, <code>dp.resume('{shown}')</code> continues it.</small></p>"
    )


def short_html(state: RunState) -> str:
    """The headline and the outputs."""
    outputs = outputs_table(state.outputs) if state.outputs else ""
    return f"<section {_RAW}><p><strong>{escape(clean(state.diagram, 120))}</strong>: {escape(headline(state))}</p>{outputs}</section>"


def outputs_table(outputs: Mapping[str, Any], limit: int = CELL_LIMIT) -> str:
    """What endpoints were given: texts with their Markdown, other values as JSON."""
    return table(
        ("endpoint", "value"),
        (
            (label, Html((markdown_html if isinstance(value, str) else code_html)(shown(value, limit))))
            for label, value in outputs.items()
        ),
    )


def difference(diff: RunDiff, drawing: str = "") -> str:
    """Two runs compared: *drawing* (HTML), the numbers, the inputs that differ, and the nodes that differ, with the words that changed."""
    head = ("", *(Titled(run.removeprefix("exec_")[:8], run) for run in diff.runs))
    costs = [cost_in_words(*one) for one in zip(diff.cost_usd, diff.tokens, strict=True)]
    numbers = table(
        head,
        [
            ("status", *diff.status),
            *([("model", *map(model_in_words, diff.model))] if diff.model[0] != diff.model[1] else []),
            ("seconds", *(f"{s:.2f}" for s in diff.seconds)),
            ("tokens", *(f"{count:,}" for count in diff.tokens)),
            ("cost", *costs),
        ],
    )
    parts = [drawing, numbers]
    if diff.inputs:
        parts.append(table(("input", "before", "after"), diff.inputs))
    if diff.persons:
        persons = ((label, name, _side(name, before), _side(name, after)) for label, name, before, after in diff.persons)
        parts.append(table(("person", "field", "before", "after"), persons))
    if diff.arrows:
        parts.append(table(("arrow before", "arrow after"), diff.arrows))
    parts += map(_node_difference, diff.changed)
    if not diff.changed:
        parts.append("<p>All nodes gave the same output.</p>")
    return f"<section {_RAW}>{''.join(parts)}</section>"


def _side(field: str, value: Any) -> Any:
    """Whether a person exists, in a word; any other field as it is."""
    return value if field != "person" else "none" if value is None else "there"


def explanation(sentences: Iterable[str], of_run: RunMetrics) -> str:
    """A run in words, and a row for each of its nodes."""
    rows = of_run.rows
    said = "".join(f"<p>{escape(clean(sentence, 2000))}</p>" for sentence in sentences)
    return f"<section {_RAW}>{said}{table(rows[0], (row.values() for row in rows)) if rows else ''}</section>"


def _node_difference(node: NodeDiff) -> str:
    fields = "".join(
        f"<p><em>{escape(clean(name, 80))}</em>: {_words(as_text(before), as_text(after))}</p>"
        for name, before, after in node.fields
    )
    given = node.output if None not in node.status else ("", "")
    output = f"<p><em>output</em>: {_words(*given)}</p>" if given[0] != given[1] else ""
    status = " → ".join(dict.fromkeys(str(s) for s in node.status if s is not None))
    tokens = f", {node.tokens[0]:,} → {node.tokens[1]:,} tokens" if any(node.tokens) else ""
    costs = [cost_in_words(*one) for one in zip(node.cost_usd, node.tokens, strict=True)]
    spent = f", {' → '.join(dict.fromkeys(costs))}" if any(node.tokens) else ""
    models = [clean(model, 60) for model in node.model if model is not None]
    answered = f", answered by {escape(' → '.join(models))}" if len(dict.fromkeys(models)) == 2 else ""
    return (
        f"<details open><summary {SUMMARY}><strong>{escape(clean(node.label, 80))}</strong>: {node.change}, {status}, "
        f"{node.seconds[0]:.2f} → {node.seconds[1]:.2f} s{tokens}{spent}{answered}</summary>{fields}{output}</details>"
    )


def _words(before: str, after: str) -> str:
    """A word-by-word difference: removed words struck through, added ones underlined."""
    tags = {" ": "span", "-": "del", "+": "ins"}
    return "".join(
        f'<{tags[mark]} style="white-space:pre-wrap">{lines(inert(text))}</{tags[mark]}>'
        for mark, text in words(redactor(before)[:DIFF_LIMIT], redactor(after)[:DIFF_LIMIT])
    )


def failure(error: Mapping[str, Any]) -> str:
    """An error with its node and its hint."""
    node = f" in <em>{escape(clean(error['node'], 80))}</em>" if error.get("node") else ""
    hint = f"<br>{lines(shown(str(error['hint'])))}" if error.get("hint") else ""
    trace = error.get("traceback")
    details = code_html(str(trace)) if trace else ""
    message = lines(shown(str(error.get("message"))))
    return f"<section {_BREAKS} {_RAW}><p><strong>{escape(clean(error.get('type')))}</strong>{node}: {message}{hint}</p>{details}</section>"


def conversation_table(messages: Iterable[Mapping[str, Any]]) -> str:
    """The messages of a conversation, with sender and receiver."""
    return table(
        ("from", "to", "message"),
        ((m.get("from_person_id"), m.get("to_person_id"), m.get("content")) for m in messages),
    )


def turns_html(turns: Iterable[Mapping[str, Any]]) -> str:
    """What each person saw before it spoke, collapsed."""
    shown = list(turns)
    parts = [
        f"<details {_RAW}><summary {SUMMARY}>{escape(clean(t['node']))} #{t['run']}: {escape(clean(t['person']))} saw {len(t['saw'])} "
        f"({escape(clean(t['memory'], 80))})</summary>"
        + table(
            ("from", "message"),
            [
                *((m.get("from_person_id"), m.get("content")) for m in t["saw"]),
                ("prompt", t["prompt"]),
                ("answer", t["answer"]),
            ],
        )
        + "</details>"
        for t in shown[:ROW_LIMIT]
    ]
    more = len(shown) - ROW_LIMIT
    return "".join(parts) + (f"<p><small>… and {more} more turns</small></p>" if more > 0 else "")


class Titled(str):
    """A shortened text, with the full text as a tooltip."""

    whole: str

    def __new__(cls, text: str, whole: str) -> Titled:
        self = super().__new__(cls, text)
        self.whole = whole
        return self


class Html(str):
    """Content of a cell that is HTML already, of `markdown_html`."""


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """An HTML table on one line; each cell is escaped and cut, and after `ROW_LIMIT` rows comes the number of further ones."""
    names = list(head)
    found = rows if isinstance(rows, Sequence) else list(rows)
    shown_rows = [list(row) for row in found[:ROW_LIMIT]]
    right = numeric(shown_rows, len(names))
    sides = [_NUMBER if i in right else _TEXT for i in range(len(names))]
    at = ("right" if i in right else "left" for i in range(len(names)))
    top = "".join(
        f'<th scope="col" align="{side}" style="padding:4px 8px;text-align:{side}">{_cell(name)}</th>'
        for side, name in zip(at, names, strict=True)
    )
    body = "".join("<tr>" + "".join(map(_td, row, sides)) + "</tr>" for row in shown_rows)
    more = len(found) - ROW_LIMIT
    rest = f"<p><small>… and {more} more rows</small></p>" if more > 0 else ""
    return f"<section {_RAW}><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{rest}</section>"


def numeric(rows: Sequence[Sequence[Any]], columns: int) -> set[int]:
    """The columns that hold only numbers and gaps."""
    found: set[int] = set()
    for i in range(columns):
        values = [row[i] for row in rows if row[i] is not None and row[i] != ""]
        if values and all(isinstance(v, (Real, Figure)) and not isinstance(v, bool) for v in values):
            found.add(i)
    return found


def note(text: str) -> str:
    """A line of HTML instead of a table."""
    return f"<p {_RAW}>{escape(clean(text, 400))}</p>"


def titled(title: str, *parts: str) -> str:
    """HTML with a line of text as its heading; none of it is taken for mathematics."""
    return f"<section {_RAW}><p>{title}</p>{''.join(parts)}</section>"


def plain(state: RunState, diagram: DomainDiagram | None) -> str:
    """The run as lines of text."""
    text = [f"{clean(state.diagram, 120)}: {headline(state)}"]
    if diagram is not None:
        text.append(text_tree(diagram, status=looks(state)))
    if state.error is not None:
        failed = f"{state.error.get('type')}: {state.error.get('message')} {state.error.get('hint') or ''}"
        text.append(shown(failed.rstrip()))
    text += [f"{clean(label, 80)} = {shown(value)}" for label, value in state.outputs.items()]
    return "\n".join(text)


def headline(state: RunState) -> str:
    """Status, duration, tokens and cost in one line."""
    parts = [str(state.status)]
    if state.duration_s:
        parts.append(f"{state.duration_s:.1f} s")
    if (total := state.usage.total) is not None:
        parts.append(f"{total:,} tokens")
    if total is not None or not state.cost_complete:
        parts.append(money(state.cost_usd))
    return ", ".join(parts)


def shown(value: Any, limit: int = CELL_LIMIT) -> str:
    """A value as text: text as it is, structures as JSON; cut, and without control characters."""
    text = value if isinstance(value, str) else json_text(value, indent=2)
    text = inert(redactor(text)[: 2 * limit])  # a secret that is cut would not be found
    return well_formed(text if len(text) <= limit else text[: limit - 1] + "…")


def in_order(state: RunState) -> list[tuple[str, NodeState]]:
    """Nodes in the order in which they first ran, then those that never did, in file order."""
    ran = set(state.order)
    return [(i, state.nodes[i]) for i in (*state.order, *(i for i in state.nodes if i not in ran))]


def _note(node: NodeState) -> str:
    total = node.usage.total
    return "" if total is None else f"{total:,} tokens"


def _row(label: str, node: NodeState, texts: int) -> tuple[Any, ...]:
    tokens = node.usage.total
    last = node.text or None if node.output is None else node.output  # what it had said when it was cut off
    return (
        clean(label, 120),
        status_look(str(node.status)).word,
        node.runs,
        Figure(f"{node.duration_s:.2f}"),
        None if tokens is None else Figure(f"{tokens:,}"),
        None if last is None else shown(last, texts),
    )


def _td(value: Any, attributes: str) -> str:
    if isinstance(value, Html):
        # The column has what room there is; what cannot be broken scrolls in it.
        inside = f'<section style="overflow-x:auto;overflow-wrap:anywhere">{value}</section>'
        return f'<td dir="auto" style="padding:4px 8px;text-align:left;width:100%;max-width:0">{inside}</td>'
    cell = _cell(value)
    breaks = ";overflow-wrap:anywhere" if _LONG_WORD.search(re.sub(r"<[^<>]*+>", " ", cell)) else ""
    return f'<td dir="auto" {attributes}{breaks}">{cell}</td>'


def _cell(value: Any) -> str:
    if isinstance(value, Titled):
        return f'<span title="{escape(clean(value.whole, 200))}">{escape(clean(value))}</span>'
    return "" if value is None else lines(shown(value))
