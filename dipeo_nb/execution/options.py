"""Options of a run, checked before anything of it begins: the same rules for notebooks, the command line and the server."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from numbers import Integral, Real
from os import PathLike
from typing import Any

from dipeo_nb.domain import llm_providers
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import parse_model
from dipeo_nb.domain.enums import LLMService
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import UnknownModelError, ValidationError
from dipeo_nb.execution.run_options import RunLimits


def checked_timeout(value: Any, name: str = "timeout") -> float | None:
    """Seconds above 0; None stays None.

    Raises:
        ValidationError: it is not such a number.
    """
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool) or not float(value) > 0:
        raise ValidationError(f"{name}={_shown(value)} is not a number of seconds above 0.", hint=f"Use e.g. {name}=60.")
    return float(value)


def checked_count(value: Any, name: str) -> int | None:
    """A whole number from 1 on; None stays None.

    Raises:
        ValidationError: it is not such a number.
    """
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValidationError(f"{name}={_shown(value)} is not a whole number from 1 on.", hint=f"Use e.g. {name}=10.")
    return int(value)


def checked_number(value: Any, name: str) -> float | None:
    """A number from 0 on; None stays None.

    Raises:
        ValidationError: it is not such a number.
    """
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) < math.inf:
        raise ValidationError(f"{name}={_shown(value)} is not a number from 0 on.", hint=f"Use e.g. {name}=0.5.")
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
        f"budget={_shown(value)} is not a budget.",
        hint=f"Name what is limited: dp.Budget(usd={amount}), tokens=, calls= or seconds=.",
    )


def checked_limits(limits: RunLimits) -> RunLimits:
    """The limits of a run, each with a possible value, or None.

    Raises:
        ValidationError: one has another value.
    """
    return RunLimits(
        timeout=checked_timeout(limits.get("timeout")),
        max_iterations=checked_count(limits.get("max_iterations"), "max_iterations"),
        budget=checked_budget(limits.get("budget")),
    )


def checked_mapping(value: Any, name: str, example: str) -> dict[str, Any]:
    """A mapping with names as keys, as a dict; None is an empty one.

    Raises:
        ValidationError: it is not a mapping, or a key is not text.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValidationError(f"{name}= takes a mapping, not {type(value).__name__}.", hint=f"Use e.g. {name}={example}.")
    for key in value:
        if not isinstance(key, str):
            raise ValidationError(
                f"{name}= has the key {_shown(key)}, which is not a name.", hint=f"Use e.g. {name}={example}."
            )
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
        raise ValidationError(f"{name}={_shown(value)} is not a name.", hint=f"Use e.g. {example}.")
    return value


def check_services(plan: Plan, model: str | None, own_models: Collection[str], services: Collection[str]) -> None:
    """See to it that the models of a run can be resolved: that of the run, and that of each person at work that it does
    not move.

    Raises:
        UnknownModelError: there is no such service or model.
        ValidationError, ConfigurationError: the name is not text, or empty.
    """
    if model is not None:
        parse_model(model, services)
    known = {*map(str, LLMService), *llm_providers.services(), *services}
    used = {getattr(node.spec, "person", None) for node in plan.nodes}
    for person in plan.persons.values():
        moved = model is not None and person.id not in own_models
        if moved or not person.llm.service or person.llm.service in known or not used & {person.id, person.label}:
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


def checked_trust(trust: Any, allow: Any) -> None:
    """See to it that what a diagram from elsewhere may do is said in a form that can be meant.

    Raises:
        ValidationError: `trust` is not a bool or code, or `allow` is not a mapping of kinds to True or texts.
    """
    if trust is not None and not isinstance(trust, (bool, str)):
        raise ValidationError(
            f"trust={_shown(trust)} is neither True nor False, nor a code.",
            hint="Say trust=True, or trust='CODE' as the error shows it.",
        )
    if allow is None:
        return
    example = "{'read': 'data/*.csv', 'net': 'api.x.org', 'code': True}"
    hint = f"Use e.g. allow={example}."
    if isinstance(allow, str) or not isinstance(allow, (Mapping, Collection)):
        raise ValidationError(f"allow= takes a mapping, not {_shown(allow)}.", hint=hint)
    for kind, what in allow.items() if isinstance(allow, Mapping) else ((kind, True) for kind in allow):
        names = what if isinstance(what, (list, tuple, set, frozenset)) else (what,)
        if not isinstance(kind, str) or not all(name is None or isinstance(name, (bool, str, PathLike)) for name in names):
            raise ValidationError(f"allow= has {_shown(kind)}: {_shown(what)}, which names nothing.", hint=hint)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"
