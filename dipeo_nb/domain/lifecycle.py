"""Dates on which providers shut models down, and their replacements. The facts are data: `lifecycle.toml`.

The table is about the providers' own servers. Gateways, clouds and one's own servers keep models as long as they like, so models
there are not judged: see `at_provider`.
"""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib import resources
from typing import Any, Literal, NamedTuple

from dipeo_nb.common import clock
from dipeo_nb.config import Settings, is_own_server
from dipeo_nb.domain.llm_providers import facts_of, normalize_service

SOON = 90
"""Days before its end from which a model is warned about."""


class Row(NamedTuple):
    """A provider's announcement about a model."""

    ends: date
    """The first day on which calls fail."""
    replacement: str | None
    """The model that the provider recommends."""
    url: str
    """Its source."""
    read: date


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """State of a model on a day."""

    service: str
    model: str
    status: Literal["active", "ending", "ended"]
    """`active`: no end is announced, or the model is not known."""
    ends: date | None = None
    """The first day on which calls fail."""
    days_left: int | None = None
    """Days until then; negative afterwards."""
    replacement: str | None = None
    """The replacement, as `service:model`; it lives on that day, and lives longest of those that the providers' recommendations
    lead to. None: nothing is recommended."""
    url: str = ""
    """The source of that."""

    @property
    def soon(self) -> bool:
        """Whether it has ended or ends within `SOON` days."""
        return self.within(SOON)

    def within(self, days: int) -> bool:
        """Whether it has ended, or ends within so many days."""
        return self.days_left is not None and self.days_left <= days

    @property
    def sentence(self) -> str:
        """`NAME is shut down on 2026-12-11 (13 days)`; empty for an active model."""
        if self.ends is None or self.days_left is None:
            return ""
        if self.days_left > 0:
            return f"{self.model} is shut down on {self.ends} ({_days(self.days_left)})"
        when = f"{_days(-self.days_left)} ago" if self.days_left else "today"
        return f"{self.model} was shut down on {self.ends} ({when})"

    @property
    def advice(self) -> str:
        """The advice, as a clause: `replace it with openai:gpt-6-luna`; empty for an active model."""
        if self.ends is None:
            return ""
        return f"replace it with {self.replacement}" if self.replacement else "choose another model; none is recommended"


def lifecycle(service: str, model: str, on: date | None = None) -> Lifecycle:
    """The state of a model.

    Args:
        service: in any spelling.
        model: a name or alias, also a fine-tuned version (`ft:NAME:…`) or with Google's `models/`.
        on: the day; default: today.
    """
    service = normalize_service(service)
    row = row_of(service, model)
    if row is None:
        return Lifecycle(service, model, "active")
    left = (row.ends - (on or clock.today())).days
    return Lifecycle(service, model, "ending" if left > 0 else "ended", row.ends, left, _replacement(service, row), row.url)


def row_of(service: str, model: str) -> Row | None:
    """The announcement about a model; None: there is none, or the model is not known."""
    name = base_name(model)
    row = table(service).get(name)
    ends = _announced.get().get(facts_of(service).models_of or service, {}).get(name)
    if ends is None:
        return row
    return Row(ends, row.replacement if row else None, row.url if row else "", clock.today())


@contextmanager
def announced(ends: Mapping[str, Mapping[str, date]]) -> Generator[None]:
    """Within the block, announcements of the providers take precedence over the dates of the table.

    Args:
        ends: service → model → the first day on which calls fail.
    """
    before = _announced.set(ends)
    try:
        yield
    finally:
        _announced.reset(before)


_announced: ContextVar[Mapping[str, Mapping[str, date]]] = ContextVar("dipeo_nb_announced_ends", default={})  # noqa: B039 - never changed


def ends_of(models: Iterable[tuple[Any, Any]]) -> dict[str, date]:
    """(name, day) of a provider's list of models as a mapping; what is not a name or no day is left out.

    Args:
        models: days as dates, times, or texts that begin like `2026-12-11`.
    """
    found: dict[str, date] = {}
    for name, day in models:
        with suppress(ValueError):
            if isinstance(name, str) and day:
                found[base_name(name)] = date.fromisoformat(str(day)[:10])
    return found


def table(service: str) -> Mapping[str, Row]:
    """Models of a service by name, as far as their end is announced."""
    return _tables().get(facts_of(service).models_of or service, {})


def base_name(model: str) -> str:
    """The name that the table has: in lower case, of a fine-tuned version that of the model it was made of."""
    name = model.strip().lower().removeprefix("models/")
    if name.startswith("ft:"):
        name = name[3:].partition(":")[0]
    return name


def warn_of_end(service: str, model: str, day: Any) -> None:
    """Warn once in a process that a model ends soon, when an answer of its provider announces it.

    Args:
        day: when; as for `ends_of`.
    """
    said = {service: ends_of([(model, day)])}
    with announced(said):
        found = lifecycle(service, model)
    if said[service] and found.soon and (service, model) not in _warned:
        _warned.add((service, model))
        warnings.warn(f"{service}: {found.sentence}; {found.advice}.", ModelEndsWarning, stacklevel=2)


_warned: set[tuple[str, str]] = set()


class ModelEndsWarning(UserWarning):
    """A model that answered will be shut down soon, according to its provider."""


def at_provider(service: str, base_url: str | None, settings: Settings) -> bool:
    """Whether calls of a service go to the provider's own servers, whose dates the table has.

    Args:
        base_url: the server that a person or request names itself.
        settings: may name another one.
    """
    facts = facts_of(normalize_service(service))
    if not facts.hosts:
        return False
    url = base_url or (settings.peek(facts.base_url_setting) if facts.base_url_setting else None)
    return not url or is_own_server(str(url), facts.hosts)


def _replacement(service: str, row: Row) -> str | None:
    """The last one that recommendations lead to: what ends itself is replaced in turn."""
    seen: set[str] = set()
    name = row.replacement
    while name and name not in seen and (following := row_of(service, name)) and following.replacement:
        seen.add(name)
        name = following.replacement
    return f"{service}:{name}" if name else None


def _days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"


@cache
def _tables() -> dict[str, dict[str, Row]]:
    data = tomllib.loads(resources.files("dipeo_nb.domain").joinpath("lifecycle.toml").read_text("utf-8"))
    sources: dict[str, dict[str, Any]] = data.pop("sources")
    return {service: dict(_rows(rows, sources)) for service, rows in data.items()}


def _rows(rows: list[dict[str, Any]], sources: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Row]]:
    for row in rows:
        source = sources[row["source"]]
        found = Row(row["ends"], row.get("replacement"), source["url"], source["read"])
        for name in row["models"]:
            yield name, found
