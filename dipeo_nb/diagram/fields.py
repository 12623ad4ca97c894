"""Former home of names that have modules of their own now. Importing one warns; until 0.2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dipeo_nb.common.moved import moved_names

__getattr__: Callable[[str], Any] = moved_names(
    __name__,
    {
        "PERSON_NUMBERS": "dipeo_nb.diagram.person_fields",
        "PERSON_OPTIONS": "dipeo_nb.diagram.person_fields",
        "PERSON_TEXTS": "dipeo_nb.diagram.person_fields",
        "PersonNames": "dipeo_nb.diagram.person_fields",
        "Vocabulary": "dipeo_nb.diagram.vocabulary",
        "as_text": "dipeo_nb.diagram.reading",
        "did_you_mean": "dipeo_nb.common.text",
        "free_id": "dipeo_nb.diagram.node_fields",
        "given_ids": "dipeo_nb.diagram.node_fields",
        "infer_type": "dipeo_nb.diagram.node_fields",
        "known_names": "dipeo_nb.common.text",
        "llm_settings": "dipeo_nb.diagram.person_fields",
        "nearest": "dipeo_nb.common.text",
        "node_type": "dipeo_nb.diagram.node_fields",
        "person": "dipeo_nb.diagram.person_fields",
        "persons": "dipeo_nb.diagram.person_fields",
        "position": "dipeo_nb.diagram.node_fields",
        "properties": "dipeo_nb.diagram.vocabulary",
        "resolve_persons": "dipeo_nb.diagram.person_fields",
        "service_name": "dipeo_nb.diagram.person_fields",
        "shorten": "dipeo_nb.common.text",
        "spellings": "dipeo_nb.diagram.vocabulary",
        "stray_item": "dipeo_nb.diagram.reading",
        "unique_labels": "dipeo_nb.diagram.node_fields",
        "unknown_top_keys": "dipeo_nb.diagram.metadata",
        "vocabulary": "dipeo_nb.diagram.vocabulary",
        "whole": "dipeo_nb.diagram.node_fields",
        "written_metadata": "dipeo_nb.diagram.metadata",
        "written_persons": "dipeo_nb.diagram.person_fields",
        "written_properties": "dipeo_nb.diagram.vocabulary",
    },
)
