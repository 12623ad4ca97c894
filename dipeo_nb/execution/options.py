"""Options of a run, checked before anything of it begins: the same rules for notebooks, the command line and the server."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import parse_model
from dipeo_nb.domain.enums import LLMService
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import UnknownModelError, ValidationError


def checked_timeout(value: Any, name: str = "timeout") -> float | None:
    """Seconds above 0; None stays None.

    Raises:
        ValidationError: it is no such number.
    """
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool) or not float(value) > 0:
        raise ValidationError(f"{name}={_shown(value)} is no number of seconds above 0.", hint=f"Say e.g. {name}=60.")
    return float(value)


def checked_count(value: Any, name: str) -> int | None:
    """A whole number from 1 on; None stays None.

    Raises:
        ValidationError: it is no such number.
    """
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValidationError(f"{name}={_shown(value)} is no whole number from 1 on.", hint=f"Say e.g. {name}=10.")
    return int(value)


def checked_number(value: Any, name: str) -> float | None:
    """A number from 0 on; None stays None.

    Raises:
        ValidationError: it is no such number.
    """
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) < math.inf:
        raise ValidationError(f"{name}={_shown(value)} is no number from 0 on.", hint=f"Say e.g. {name}=0.5.")
    return float(value)


def checked_budget(value: Any) -> Budget | None:
    """A budget, or None.

    Raises:
        ValidationError: it is something else; a bare number is taken for no unit.
    """
    if value is None or isinstance(value, Budget):
        return value
    amount = f"{value:g}" if isinstance(value, Real) and not isinstance(value, bool) else "0.1"
    raise ValidationError(
        f"budget={_shown(value)} is no budget.", hint=f"Say what is limited: dp.Budget(usd={amount}), tokens=, calls= or seconds=."
    )


def checked_mapping(value: Any, name: str, example: str) -> dict[str, Any]:
    """A mapping with names as keys, as a dict; None is an empty one.

    Raises:
        ValidationError: it is no mapping, or a key is no text.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValidationError(f"{name}= takes a mapping, not {type(value).__name__}.", hint=f"Say e.g. {name}={example}.")
    for key in value:
        if not isinstance(key, str):
            raise ValidationError(f"{name}= has the key {_shown(key)}, which is no name.", hint=f"Say e.g. {name}={example}.")
    return dict(value)


def checked_flag(value: Any, name: str) -> bool:
    """True or False.

    Raises:
        ValidationError: it is something else; the text "no" is true to Python.
    """
    if not isinstance(value, bool):
        raise ValidationError(f"{name}={_shown(value)} is neither True nor False.", hint=f"Say {name}=True or {name}=False.")
    return value


def checked_text(value: Any, name: str, example: str) -> str:
    """A text that is not empty.

    Raises:
        ValidationError: it is something else.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValidationError(f"{name}={_shown(value)} is no name.", hint=f"Say e.g. {example}.")
    return value


def check_services(plan: Plan, model: str | None, own_models: Collection[str], services: Collection[str]) -> None:
    """See to it that the models of a run can be resolved: that of the run, and that of each person at work that it does
    not move.

    Raises:
        UnknownModelError: there is no such service or model.
        ValidationError, ConfigurationError: the name is no text, or empty.
    """
    if model is not None:
        parse_model(model, services)
    known = {*map(str, LLMService), *services}
    used = {getattr(node.spec, "person", None) for node in plan.nodes}
    for person in plan.persons.values():
        moved = model is not None and person.id not in own_models
        if moved or person.llm.service in known or not used & {person.id, person.label}:
            continue
        try:
            parse_model(f"{person.llm.service}:{person.llm.model or ''}", services)
        except UnknownModelError as error:
            raise UnknownModelError(
                f"Person '{person.label}': {error.message}",
                hint=f"{error.hint} Correct the diagram, or move all persons: --model local (model='local').",
                provider=person.llm.service,
            ) from None
        raise UnknownModelError(
            f"Person '{person.label}': there is no LLM service '{person.llm.service}'; there are {', '.join(sorted(known))}.",
            hint="Correct the diagram, or move all persons: --model local (model='local').",
            provider=person.llm.service,
        )


def nearest_option(word: str, options: Iterable[str]) -> str | None:
    """The option that *word* is a slip of the pen for; None when it is a word of its own."""
    plain = word.lower().replace("_", "")
    for option in options:
        known = option.replace("_", "")
        if plain == known or (len(plain) >= 6 and known.startswith(plain)):
            return option
        if _distance(plain[:40], known) <= (1 if len(known) < 6 else 2):
            return option
    return None


def _distance(a: str, b: str) -> int:
    """Letters to insert, drop, change or swap with the next one."""
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
