"""Effect of the settings in a folder's files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from dipeo_nb.config.addresses import OWN_HOSTS, is_own_server, is_url

Scope = Literal["personal", "suggested", "harmless", "key"]
"""Effect of a field in a folder's file."""


def _stays(value: Any, folder: Path) -> bool:
    """Whether a path stays in the folder and outside its hidden folders other than `.dipeo`."""
    text = str(value)
    if is_url(text) or text.startswith("~"):
        return False
    if text in (":memory:", "memory:"):
        return True
    try:
        place = (folder / text).resolve().relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False
    return not any(part.startswith(".") and part != ".dipeo" for part in place.parts)


def _is_embedded(value: Any, folder: Path) -> bool:
    """Whether all models are `echo` or embedded ones, by name: nothing leaves the machine, no file is opened."""
    names = [name.strip().lower() for name in str(value).split(",") if name.strip()]
    return all(re.fullmatch(r"(local|echo)(:[\w-]+(\.\w+)*)?", name) and not (folder / name[6:]).is_file() for name in names)


def _is_model_name(value: Any, folder: Path) -> bool:
    text = str(value)
    return bool(re.fullmatch(r"[\w-]++(?:\.\d++)*+[\w-]*+", text)) and not (folder / text).exists()


HARMLESS: dict[str, Callable[[Any, Path], bool]] = {
    "base_dir": lambda value, folder: _stays(value, folder) and (folder / str(value)).is_dir(),
    "state_store_path": _stays,
    "blob_store": _stays,
    "conversation_store": _stays,
    "llm_recordings": _stays,
    "event_bus": lambda value, folder: value in ("memory", "memory:"),
    "otel": lambda value, folder: str(value).strip().lower() in ("false", "0", "no", "off", "f", "n"),
    "llm_mode": lambda value, folder: value == "live",
    "default_llm_model": _is_embedded,
    "llm_fallbacks": _is_embedded,
    "local_model": _is_model_name,
    "openai_base_url": lambda value, folder: is_own_server(str(value), OWN_HOSTS["openai"]),
    "anthropic_base_url": lambda value, folder: is_own_server(str(value), OWN_HOSTS["anthropic"]),
    "google_base_url": lambda value, folder: is_own_server(str(value), OWN_HOSTS["google"]),
}
"""Field → predicate for values that are harmless although the field in general is not."""
