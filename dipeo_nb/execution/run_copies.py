"""A run as a text of Python that does it again: with its models, or as a test with its recorded answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pprint import pformat
from typing import Any, cast

from dipeo_nb.diagram.document import load
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import InteractiveResponse
from dipeo_nb.errors import UserError
from dipeo_nb.execution.conversation import as_seen_by
from dipeo_nb.execution.record import message_of
from dipeo_nb.execution.run_state import RunState

_WIDTH = 110


class Given:
    """What a copy of a run needs of its events, which are given to `take` in order."""

    def __init__(self) -> None:
        self.own = False
        """Whether the diagram was the user's own when it ran."""
        self.answers: list[tuple[str, str]] = []
        """What people answered: id of the node, text."""
        self._first = True

    def take(self, event: Event) -> None:
        if self._first:
            self._first = False
            self.own = (event.payload.get("trust") or {}).get("level") == "yours"
        elif event.type is EventType.INTERACTIVE_RESPONSE and event.node_id is not None:
            response = cast(InteractiveResponse, event.payload)
            self.answers.append((event.node_id, response["answer"]))

    def take_all(self, events: Iterable[Event]) -> None:
        """Take events, as `take` does."""
        for event in events:
            self.take(event)

    def by_label(self, state: RunState) -> dict[str, list[str]]:
        """Label of a node → what people answered it."""
        found: dict[str, list[str]] = {}
        for node_id, answer in self.answers:
            found.setdefault(state.label(node_id), []).append(answer)
        return found


def copied(state: RunState, given: Given, kind: str, node_id: str | None = None, of: int | None = None) -> str:
    """A run as `python` or as a `test`, or what one of its nodes asked a model as `python`.

    Args:
        node_id: the node; None: the whole run.
        of: which run of the node; None: the last one.

    Raises:
        UserError: there is no such form, the node asked no model, or as `as_test`.
    """
    if kind not in ("python", "test") or (kind == "test" and node_id is not None):
        raise UserError(
            f"There is no copy as '{kind:.40}' of that.", hint="A run is copied as python or test, a node as python."
        )
    if node_id is None:
        return as_test(state, given) if kind == "test" else as_python(state, given)
    turns = [turn for turn in state.turns if turn["node_id"] == node_id and of in (None, turn["run"])]
    if not turns:
        which = "" if of is None else f" in its run {of}"
        raise UserError(f"'{state.label(node_id)}' asked no model{which}.", hint="See run.conversation.turns.")
    return turn_as_python(state, state.label(node_id), turns[-1])


def as_python(state: RunState, given: Given) -> str:
    """A program that runs the diagram of a run again, with the same inputs and answers.

    Raises:
        UserError: the record does not have the diagram.
    """
    diagram, answers = _diagram_text(state), given.by_label(state)
    options = [f"model={state.model!r}"] if state.model else []
    options += [f"inputs={_literal(dict(state.variables), 13)}"] if state.variables else []
    options += [f"answers={_literal(answers, 14)}"] if answers else []
    options += [] if given.own else ["trust=False  # it came from elsewhere: limited to models and a folder of its own"]
    return (
        f'"""As run {state.run_id} did."""\n\nimport dipeo_nb as dp\n\nDIAGRAM = {diagram}\n\n'
        f"result = dp.run(\n    DIAGRAM,\n{''.join(f'    {_comma(option)}{chr(10)}' for option in options)})\nprint(result.outputs)\n"
    )


def turn_as_python(state: RunState, label: str, turn: Mapping[str, Any]) -> str:
    """A program that asks the model what a turn asked it: system prompt, remembered messages, prompt."""
    names = _person_names(state)
    known = {message["id"]: message for message in state.conversation}
    facts = turn.get("memory", {})
    recalled = [message_of(known[i]) for i in (*facts.get("ids", ()), *facts.get("brought", ())) if i in known]  # type: ignore[arg-type]
    shown = as_seen_by(recalled, str(turn.get("person_id")), names)
    messages = [{"role": m.role, "content": m.content} for m in shown] + [{"role": "user", "content": turn.get("prompt") or ""}]
    options = [f"model={turn['model']!r},"] if turn.get("model") else []
    options += [f"system={_literal(turn['system'], 11)},"] if turn.get("system") else []
    asked = _literal(messages if len(messages) > 1 else messages[0]["content"], 4)
    return (
        f'"""What {label} was asked in run {turn.get("run", 1)} of {state.run_id}."""\n\nimport dipeo_nb as dp\n\n'
        f"answer = dp.chat(\n    {asked},\n{''.join(f'    {option}{chr(10)}' for option in options)})\nprint(answer)\n"
    )


def as_test(state: RunState, given: Given) -> str:
    """A test for pytest: the diagram with the recorded answers of its models and people gives the recorded outputs.

    Raises:
        UserError: the run did not complete, its record does not have the diagram, or it has runs of sub-diagrams.
    """
    if state.status != "completed":
        raise UserError(f"Run {state.run_id} is {state.status}.", hint="Copy a run that has completed as a test.")
    if any(node.children for node in state.nodes.values()):
        raise UserError("The run has runs of sub-diagrams.", hint="Copy one of these as a test: dp.runs(parent=run.id).")
    said, answers = _model_answers(state), given.by_label(state)
    options = ["DIAGRAM", "view=False"]
    options += [f"inputs={_literal(dict(state.variables), 19)}"] if state.variables else []
    options += [f"answers={_literal(answers, 20)}"] if answers else []
    options += [] if given.own else ["trust=False"]
    return (
        f'"""Run {state.run_id} once more, with the answers that its models gave then: nothing is called."""\n\n'
        "import dipeo_nb as dp\nfrom dipeo_nb.testing import scripted\n\n"
        f"DIAGRAM = {_diagram_text(state)}\n\nANSWERS = {_literal(said, 0)}\n\n\n"
        f"def test_{_identifier(state.diagram)}(tmp_path):\n"
        "    with dp.Session(tmp_path, llm=scripted(ANSWERS)) as session:\n"
        f"        result = session.run(\n{''.join(f'            {_comma(option)}{chr(10)}' for option in options)}        )\n"
        f"    assert dict(result.outputs) == {_literal(dict(state.outputs), 4)}\n"
    )


def input_facts(state: RunState) -> list[dict[str, Any]]:
    """What a form for another run of the diagram asks for: name, value of this run, default of the start node, and kind
    (`text`, `number`, `boolean` or `json`)."""
    defaults: dict[str, Any] = {}
    for node in state.in_source("nodes"):
        given = (node.get("data") or {}).get("custom_data")
        if node.get("type") == "start" and isinstance(given, Mapping):
            defaults.update(given)
    return [
        {"name": name, "value": value, "default": defaults.get(name), "kind": _kind(value)}
        for name, value in {**defaults, **state.variables}.items()
    ]


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "number" if isinstance(value, (int, float)) else "text" if isinstance(value, str) else "json"


def _diagram_text(state: RunState) -> str:
    if not state.source:
        raise UserError(f"The record of run {state.run_id} does not have its diagram.", hint="Run the diagram again.")
    text = load(dict(state.source), format="native").to_text("light")
    safe = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return f'"""\\\n{safe}"""'


def _model_answers(state: RunState) -> dict[str, list[str]]:
    """Label of a node → what its models answered, in order; the choice of what to remember is one answer."""
    found: dict[str, list[str]] = {}
    for turn in state.turns:
        said = found.setdefault(state.label(turn["node_id"]), [])
        facts = turn.get("memory", {})
        if facts.get("chosen_by") == "model":
            said.append(json.dumps({"message_ids": facts.get("ids", [])}))
        spoken = [m["content"] for m in turn.get("messages", ()) if m["from_person_id"] == turn["person_id"]]
        said.append(spoken[-1] if spoken else turn.get("answer") or "")
    return found


def _person_names(state: RunState) -> dict[str, str]:
    return {str(person.get("id")): str(person.get("label") or person.get("id")) for person in state.in_source("persons")}


def _literal(value: Any, indent: int) -> str:
    """A value as Python writes it, its further lines indented."""
    return pformat(value, width=_WIDTH - indent, sort_dicts=False).replace("\n", "\n" + " " * indent)


def _comma(option: str) -> str:
    """The option with its comma, before a comment."""
    value, mark, comment = option.partition("  # ")
    return f"{value},{mark}{comment}"


def _identifier(name: str) -> str:
    words = "".join(c if c.isascii() and c.isalnum() else "_" for c in name.lower()).strip("_")
    return words[:60] or "run"
