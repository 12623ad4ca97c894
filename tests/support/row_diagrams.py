"""Diagrams of nodes in a row, with one person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

MODEL = {"service": "openai", "model": "m"}


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
