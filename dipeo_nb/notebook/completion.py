"""Tab completion inside texts: labels of nodes, diagrams, models, ids of runs, paths into diagrams, and the words of our magics.

`tab` asks `complete` on behalf of IPython.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from dipeo_nb.diagram import detect
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.person_fields import PERSON_NUMBERS, PERSON_OPTIONS, PERSON_TEXTS
from dipeo_nb.domain.enums import NodeType, Status
from dipeo_nb.domain.nodes import NODE_SPECS
from dipeo_nb.domain.request_options import EFFORTS
from dipeo_nb.llm import catalogue, model_store, providers
from dipeo_nb.notebook import facade
from dipeo_nb.notebook.run import Run, RunResult

RUNS = 50
"""Newest runs whose ids are offered."""
DIPEO_WORDS = {
    "models": (),
    "keys": ("set", "delete", "unlock"),
    "runs": (),
    "replay": (),
    "nodes": tuple(NODE_SPECS),
    "nest": (),
}
"""Words after `%dipeo` → words after those."""
PROMPT_OPTIONS = ("--model", "--system", "--temperature", "--max-tokens")

LOOKED_AT = 200
"""Number of characters at the end of a line that are considered."""
_OBJECT = r"([A-Za-z_]\w*)(?:\.run)?"
_QUOTED = r"(?P<quote>[\"'])(?P<text>(?:(?!(?P=quote)).)*)$"
_NODE = re.compile(rf"{_OBJECT}\.node\(\s*{_QUOTED}")
_OUTPUT = re.compile(rf"{_OBJECT}\.outputs\[\s*{_QUOTED}")
_FORK = rf"{_OBJECT}\.fork\(\s*(?:{_OBJECT}\s*,)?.*"
_AT = re.compile(rf"{_FORK}\bat\s*=\s*{_QUOTED}")
_SET = re.compile(rf"(?:{_OBJECT}\.set\(\s*|{_FORK}\bset\s*=\s*\{{(?:.*,)?\s*){_QUOTED}")
_MODEL = re.compile(rf"(?:\bmodel\s*=\s*|\bllm\(\s*){_QUOTED}")
_RUN = re.compile(rf"\b(?:open_run|resume|fork|replay|diff)\((?:[^()]*,)?\s*{_QUOTED}")
_DIAGRAM = re.compile(rf"\b(?:load|run|arun|start)\(\s*{_QUOTED}")
_ANSWER = re.compile(rf"\b(?:run|arun|start)\(\s*{_OBJECT}\s*,.*\banswers\s*=\s*\{{(?:.*,)?\s*{_QUOTED}")
_STATUS = re.compile(rf"\bruns\((?:.*,)?\s*status\s*=\s*{_QUOTED}")
_FORMAT = re.compile(rf"\b(?:load|save|to_text)\(.*,?\s*format\s*=\s*{_QUOTED}")
_EFFORT = re.compile(rf"\breasoning\s*=\s*{_QUOTED}")
_MAGIC = re.compile(r"^\s*%dipeo\s+(?:(?P<word>\w+)\s+)?(?P<text>\S*)$")
_PROMPT = re.compile(r"^\s*%%prompt\s+(?:.*\s)?(?P<text>\S*)$")
_PROMPT_MODEL = re.compile(r"^\s*%%prompt\s+(?:.*\s)?(?:--model|-m)[\s=](?P<text>\S*)$")


def complete(line: str, names: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """(the typed part of the word, its completions) at the end of *line*; None where we have none.

    Args:
        line: the line up to the cursor.
        names: variables of the notebook.
    """
    sources: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Iterable[str]]], ...] = (
        (_PROMPT_MODEL, lambda m: _models()),
        (_PROMPT, lambda m: PROMPT_OPTIONS),
        (_MAGIC, _words),
        (_NODE, lambda m: _labels(names, m)),
        (_AT, lambda m: _labels(names, m)),
        (_OUTPUT, lambda m: _outputs(names, m)),
        (_SET, lambda m: _paths(names, m)),
        (_ANSWER, lambda m: _asking(names, m)),
        (_STATUS, lambda m: map(str, Status)),
        (_FORMAT, lambda m: detect.FORMATS),
        (_EFFORT, lambda m: EFFORTS),
        (_MODEL, lambda m: _models()),
        (_RUN, lambda m: _run_ids()),
        (_DIAGRAM, lambda m: _diagrams()),
    )
    line = line[-LOOKED_AT:]
    for pattern, offered in sources:
        if found := pattern.search(line):
            text = found["text"]
            quote = found.groupdict().get("quote") or "\n"
            fit = dict.fromkeys(o for o in offered(found) if o.startswith(text) and quote not in o and "\\" not in o)
            return text, list(fit)
    return None


def _object(names: Mapping[str, Any], found: re.Match[str]) -> Any:
    for name in found.groups():
        value = names.get(name or "")
        if isinstance(value, (Run, RunResult, Diagram)):
            return value.run if isinstance(value, RunResult) else value
    return None


def _labels(names: Mapping[str, Any], found: re.Match[str]) -> Iterable[str]:
    value = _object(names, found)
    return list(value._state.labels.values()) if isinstance(value, Run) else ()


def _asking(names: Mapping[str, Any], found: re.Match[str]) -> Iterable[str]:
    """Labels of the nodes that ask the user."""
    value = _object(names, found)
    return (
        [node.label for node in value.model.nodes if node.type == NodeType.USER_RESPONSE] if isinstance(value, Diagram) else ()
    )


def _outputs(names: Mapping[str, Any], found: re.Match[str]) -> Iterable[str]:
    value = _object(names, found)
    return list(value.outputs) if isinstance(value, Run) else ()


def _paths(names: Mapping[str, Any], found: re.Match[str]) -> Iterable[str]:
    """Paths for `Diagram.set`."""
    value = _object(names, found)
    model = value.model if isinstance(value, Diagram) else value._diagram if isinstance(value, Run) else None
    if model is None:
        return
    yield from ("name", "description")
    for node in model.nodes:
        kind = NODE_SPECS.get(node.type)
        known = [f.name for f in fields(kind)] if kind is not None else list(node.data)
        yield from (f"nodes.{node.label}.{name}" for name in ("label", *known) if not name.startswith("resolved_"))
    for person in model.persons:
        yield from (f"persons.{person.label}.{name}" for name in ("service", *PERSON_TEXTS, *PERSON_NUMBERS, *PERSON_OPTIONS))


def _models() -> Iterable[str]:
    settings = facade.default_session().settings
    for service in providers.services():
        yield service
        if model := catalogue.default_model(service, settings):
            yield f"{service}:{model}"
    yield from (f"local:{name}" for name in model_store.known())


def _run_ids() -> Iterable[str]:
    return [row.run_id for row in facade.default_session().runs(RUNS)]


def _diagrams() -> Iterable[str]:
    base = facade.default_session().settings.base_dir
    return [*detect.names(base), *(f"{detect.DEMO_PREFIX}{detect.stem(path)}" for path in sorted(detect.DEMOS.glob("*.yaml")))]


def _words(found: re.Match[str]) -> Iterable[str]:
    word = found["word"]
    if word is None:
        return DIPEO_WORDS
    return _run_ids() if word == "replay" else DIPEO_WORDS.get(word, ())
