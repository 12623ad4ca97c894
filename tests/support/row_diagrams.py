"""Diagrams of nodes in a row, with one person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

MODEL = {"service": "openai", "model": "m"}
LETTER = """
version: light
metadata: {name: Letter}
persons:
  Anna: {service: openai, model: m, system_prompt: Be brief.}
nodes:
- {label: Start, type: start, custom_data: {topic: cats}}
- {label: Writer, type: person_job, person: Anna, default_prompt: "About {{topic}}."}
- {label: Letter, type: endpoint}
connections:
- {from: Start, to: Writer}
- {from: Writer, to: Letter}
"""
"""Anna writes about what the start node says."""
ECHO_LETTER = """
version: light
metadata: {name: Letter}
persons:
  Ada: {service: echo, model: m}
nodes:
- {label: Start, type: start}
- {label: Write, type: person_job, person: Ada, default_prompt: "About {{topic}}."}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Write}
- {from: Write, to: End}
"""
"""Ada repeats what she is asked about an input."""
ASKING_LETTER = """
version: light
metadata: {name: Asking}
persons:
  Ada: {service: echo, model: m}
nodes:
- {label: Start, type: start, custom_data: {topic: tea}}
- {label: Write, type: person_job, person: Ada, default_prompt: "About {{topic}}."}
- {label: Ask, type: user_response, prompt: "Good?", timeout: 600}
- {label: Check, type: person_job, person: Ada, default_prompt: "Check {{default}}, {{answer}}"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Write}
- {from: Start, to: Ask}
- {from: Write, to: Check}
- {from: Ask, to: Check, label: answer}
- {from: Check, to: End}
"""
"""A question waits while a letter is written."""
ASKS = """
version: light
metadata: {name: Asks}
nodes:
- {label: Start, type: start}
- {label: Name, type: user_response, prompt: "Who **are** you?", timeout: 600}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Name}
- {from: Name, to: End}
"""
"""A question alone."""
HOSTILE_NAME = """
version: light
metadata: {name: "Two <b>nodes</b>"}
persons:
  Anna: {service: openai, model: m}
nodes:
- {label: Start, type: start}
- {label: Writer, type: person_job, person: Anna, default_prompt: Write.}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Writer}
- {from: Writer, to: End}
"""
"""Anna writes, in a diagram whose name is markup."""
BROKEN_CODE = """
version: light
nodes:
- {label: Start, type: start}
- {label: Work, type: code_job, code: "result = 1 / 0"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Work}
- {from: Work, to: End}
"""
"""A code job that fails."""


def with_code(text: str, label: str, code: str) -> str:
    """The diagram *text* with a code job between Write and End."""
    node = f'- {{label: {label}, type: code_job, language: python, code: "{code}"}}\n'
    text = text.replace("- {label: End,", f"{node}- {{label: End,")
    return text.replace("- {from: Write, to: End}", f"- {{from: Write, to: {label}}}\n- {{from: {label}, to: End}}")


def diagram(*nodes: Mapping[str, Any], arrows: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """Start, *nodes* in a row, and an endpoint; with a person P. Arrows pass values on as they are."""
    labels = ["Start", *(str(node["label"]) for node in nodes), "End"]
    row = [{"from": a, "to": b, "content_type": "generic"} for a, b in pairwise(labels)]
    return {
        "version": "light",
        "persons": {"P": MODEL},
        "nodes": [{"label": "Start", "type": "start"}, *nodes, {"label": "End", "type": "endpoint"}],
        "connections": row if arrows is None else arrows,
    }


def asking(prompt: str, **more: Any) -> dict[str, Any]:
    return {
        "label": "Ask",
        "type": "person_job",
        "person": "P",
        "default_prompt": prompt,
        "memorize_to": "GOLDFISH",
        **more,
    }
