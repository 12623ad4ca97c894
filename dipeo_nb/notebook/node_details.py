"""What each node of a run did, folded: the prompt as it was sent, the answer with its Markdown, errors, tokens and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import inert, money
from dipeo_nb.common.values import json_text
from dipeo_nb.diagram.labels import clean, status_look
from dipeo_nb.execution.node_state import NodeState
from dipeo_nb.execution.run_state import RunState
from dipeo_nb.notebook.markdown_html import code_html, lines, markdown_html

TEXT_LIMIT = 4_000
"""Characters of one text."""
ALL_LIMIT = 30_000
"""Characters of all texts of a run; a saved notebook stays small."""
TURNS = 3
"""Latest turns of a node that are shown."""
MESSAGES, REMEMBERED = 10, 300
"""Latest messages of a memory that are shown, and characters of each."""
SUMMARY = 'style="display:list-item;cursor:pointer"'
"""The page of nbconvert's template `classic` takes the triangle away otherwise."""
_SCROLLS = 'style="overflow-x:auto;overflow-wrap:break-word"'
"""An answer may hold a table or a block of code that is wider than the page."""


class NodeDetails:
    """Of one run.

    Args:
        nodes: id and state, in the order in which they are shown.
    """

    def __init__(self, state: RunState, nodes: Sequence[tuple[str, NodeState]]) -> None:
        self._state, self._nodes = state, nodes
        self._left = ALL_LIMIT
        self._messages: Mapping[str, Mapping[str, Any]] = {m["id"]: m for m in state.conversation if "id" in m}

    def html(self) -> str:
        """One `details` for each node that did something; nothing but plain tags."""
        return "".join(self._node(node_id, node) for node_id, node in self._nodes if node.started_at is not None)

    def _node(self, node_id: str, node: NodeState) -> str:
        label = self._state.label(node_id)
        turns = [turn for turn in self._state.turns if turn["node_id"] == node_id]
        parts = [self._turn(turn, label) for turn in turns[-TURNS:]]
        if len(turns) > TURNS:
            parts.insert(0, f"<p><small>{len(turns) - TURNS} earlier turns: run.conversation.turns</small></p>")
        cut_off = node.status != "completed" and node.text
        if cut_off or node.status == "failed":
            parts += [self._sent(sent) for sent in node.sent.values()][:1]
        if cut_off:
            parts.append(self._answer(node.text))
        if node.error is not None:
            hint = f"<br>{lines(inert(str(node.error['hint'])))}" if node.error.get("hint") else ""
            parts.append(f"<p><strong>✗ {lines(inert(self._within(str(node.error.get('message')))))}</strong>{hint}</p>")
        if not turns and not cut_off and node.output is not None:
            parts.append(self._value(node.output))
        if stdout := node.meta.get("stdout"):
            parts.append(f"<p><small>printed</small></p>{self._pre(stdout)}")
        return f"<details><summary {SUMMARY}>{self._summary(label, node)}</summary>{''.join(parts)}</details>"

    @staticmethod
    def _summary(label: str, node: NodeState) -> str:
        look, total = status_look(str(node.status)), node.usage.total
        facts = [look.word]
        if node.runs > 1:
            facts.append(f"×{node.runs}")
        if node.duration_s >= 0.05:
            facts.append(f"{node.duration_s:.1f} s")
        if total is not None:
            facts.append(f"{total:,} tokens")
            facts.append(money(node.cost_usd))
        if node.estimated + node.pieces:
            facts.append(f"~{node.estimated + node.pieces:,} tokens cut off")
        if model := node.meta.get("model"):
            facts.append(clean(model, 60))
        return f"{look.glyph} <strong>{escape(clean(label, 120))}</strong>: {escape(', '.join(facts))}"

    def _turn(self, turn: Mapping[str, Any], label: str) -> str:
        said = [m["content"] for m in turn.get("messages", ()) if m.get("from_person_id") == turn.get("person_id")]
        answer = said[-1] if said else turn.get("answer")
        run = f"<p><small>run {turn['run']}</small></p>" if turn["run"] > 1 else ""
        return f"{run}{self._sent(turn)}{self._answer(str(answer)) if answer else ''}"

    def _sent(self, sent: Mapping[str, Any]) -> str:
        """The prompt as it was sent: the system prompt, the messages that were remembered, and what was asked."""
        system = f"<p><small>system</small></p>{self._pre(sent['system'])}" if sent.get("system") else ""
        asked = f"<p><small>user</small></p>{self._pre(str(sent.get('prompt') or ''))}"
        inside = f"{system}{self._memory(sent.get('memory', {}))}{asked}"
        return f"<details><summary {SUMMARY}><small>prompt</small></summary><blockquote>{inside}</blockquote></details>"

    def _memory(self, shown: Mapping[str, Any]) -> str:
        """What the person remembered of the conversation."""
        ids = [*shown.get("ids", ()), *shown.get("brought", ())]
        if not ids:
            return ""
        known = [self._messages[i] for i in ids if i in self._messages]
        said = "".join(
            f"<li><strong>{escape(clean(m.get('from_person_id'), 80))}</strong>: "
            f"{escape(clean(self._within(str(m.get('content'))), REMEMBERED))}</li>"
            for m in known[-MESSAGES:]
        )
        left = len(ids) - len(known[-MESSAGES:])
        earlier = f"<li>and {left} more: run.conversation.turns</li>" if left else ""
        count = f"{len(ids)} messages" if len(ids) > 1 else "1 message"
        return f"<p><small>memory, {count}</small></p><ul>{said}{earlier}</ul>"

    def _answer(self, text: str) -> str:
        source = self._within(text)
        made = f"<section {_SCROLLS}>{markdown_html(source)}</section>"
        self._left -= max(0, len(made) - len(source))
        return made

    def _value(self, value: Any) -> str:
        return self._answer(value) if isinstance(value, str) else self._pre(json_text(value, indent=2))

    def _pre(self, text: str) -> str:
        return code_html(self._within(text))

    def _within(self, text: str) -> str:
        """As much of a text as there is room for."""
        text = redactor(text)
        room = max(0, min(TEXT_LIMIT, self._left))
        self._left -= min(len(text), room)
        return text if len(text) <= room else f"{text[:room]}… ({len(text) - room:,} more characters: run.node(…).output)"
