"""Metadata of a diagram, and top-level keys that are not a part of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram.reading import ReadContext, as_text
from dipeo_nb.domain.diagram import DiagramMetadata

_METADATA_TEXTS = ("version", "created", "modified", "id", "name", "description", "author", "format")


def read_metadata(value: Any, top: Mapping[str, Any], reading: ReadContext) -> DiagramMetadata | None:
    """Metadata from the `metadata:` mapping and from *top*: keys next to it (name, description, unknown ones)."""
    if value is not None and not isinstance(value, dict):
        reading.warn("wrong-type", "'metadata' is a mapping; it is ignored.", "metadata", hint="Write 'name: …' below it.")
        value = None
    inside: dict[str, Any] = dict(value or {})
    for key, beside in top.items():
        inside.setdefault(key, beside)
    if not inside:
        return None
    texts = {
        key: as_text(inside[key], reading, *(("metadata", key) if key in (value or {}) else (key,)))
        for key in _METADATA_TEXTS
        if inside.get(key) is not None
    }
    tags = inside.get("tags")
    return DiagramMetadata(
        tags=tuple(str(t) for t in tags) if isinstance(tags, list) else ((str(tags),) if tags else None),
        extra={k: v for k, v in inside.items() if k not in _METADATA_TEXTS and k != "tags"},
        **{k: v for k, v in texts.items() if v},
    )


def written_metadata(meta: DiagramMetadata | None) -> dict[str, Any]:
    """Metadata in wire form. `created` and `modified` are required there, so they are empty when unknown."""
    if meta is None:
        return {}
    values = {key: getattr(meta, key) for key in _METADATA_TEXTS}
    made = {k: v for k, v in values.items() if v is not None or k in ("created", "modified")}
    made |= {k: "" for k in ("created", "modified") if made[k] is None}
    if meta.tags is not None:
        made["tags"] = list(meta.tags)
    return made | dict(meta.extra)


def unknown_top_keys(reading: ReadContext, known: Iterable[str]) -> dict[str, Any]:
    """Top-level keys that the format does not have, each reported; they are kept with the metadata.

    Keys that begin with `$` (`$schema`) are an editor's, `api_keys` may hold secrets: both are dropped.
    """
    allowed = tuple(known)
    kept: dict[str, Any] = {}
    for key, value in reading.value.items():
        if key in allowed or key.startswith(("$", "__")):
            continue
        if key == "api_keys":
            reading.warn(
                "api-keys",
                "'api_keys' is ignored: keys do not belong in a diagram.",
                key,
                hint="Set the provider's environment variable, e.g. OPENAI_API_KEY.",
            )
            continue
        kept[key] = value
        reading.warn(
            "unknown-key",
            f"'{shorten(key)}' is not a part of a diagram; it is kept and has no effect.",
            key,
            hint=did_you_mean(key, allowed, f"The parts are {', '.join(allowed)}."),
        )
    return kept
