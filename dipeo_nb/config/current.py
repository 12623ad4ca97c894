"""The settings of this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from dipeo_nb.config.plain import settings_of
from dipeo_nb.config.settings import FIELDS, Settings
from dipeo_nb.config.sources import Sources
from dipeo_nb.config.warnings import warn


@cache
def _cached() -> Settings:
    sources = Sources.read(FIELDS)
    settings = settings_of(sources, sources.chosen({}))
    warn(sources)
    return settings


_override: ContextVar[Settings | None] = ContextVar("dipeo_nb_settings", default=None)


def get_settings() -> Settings:
    """Return the settings of this process: read once, then cached until `reset_settings`.

    Raises:
        ConfigurationError: a variable has an invalid value; the message names it.
    """
    return _override.get() or _cached()


def reset_settings() -> None:
    """Clear the cache; the next `get_settings` reads the environment again."""
    _cached.cache_clear()


@contextmanager
def override_settings(**changes: Any) -> Iterator[Settings]:
    """Override settings within the block, for tests: `with override_settings(base_dir=tmp): …`.

    They apply to this thread, and to tasks and `asyncio.to_thread` calls that start within the block.

    Raises:
        ConfigurationError: a value is invalid, or there is no such setting.
    """
    changed = get_settings().model_copy(update=changes)
    before = _override.set(changed)
    try:
        yield changed
    finally:
        _override.reset(before)
