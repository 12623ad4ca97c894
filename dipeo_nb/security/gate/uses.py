"""Uses of an untrusted diagram that are granted without approval, and uses that only the run can judge."""

from __future__ import annotations

from dipeo_nb.domain.capabilities import ANY_DIAGRAM, DEFAULT_MODEL_USE, Capabilities, Use
from dipeo_nb.domain.llm_providers import costs_nothing

GUEST_CALLS, GUEST_TOKENS = 50, 200_000
"""Model calls, and their tokens, that a guest's run may use without approval, including its sub-diagrams."""


def beyond_guest(uses: Capabilities, *, paid: bool = True, free_default: bool = False, model_chosen: bool = False) -> list[Use]:
    """Return the uses that an untrusted diagram is not granted without approval.

    Args:
        paid: whether models may be called within the budget.
        free_default: the default model costs nothing.
    """
    found: list[Use] = []
    for use in uses:
        if use.of_model and model_chosen:
            continue
        match use.kind:
            case "brings" | "event" | "write":
                continue  # it writes into a folder of its own
            case "model" if paid or costs_nothing(use.what.partition(":")[0]):
                continue
            case "model" if free_default and use.what == DEFAULT_MODEL_USE:
                continue
            case "read" if any(w.kind == "write" and w.what == use.what and w.node != use.node for w in uses):
                continue  # it reads what it has written
            case _:
                found.append(use)
    return found


def seen_later(use: Use, granted: Capabilities) -> bool:
    """Whether uses of that kind are allowed in part, so that only the run can judge this one."""
    if use.kind == "diagram" and use.what == ANY_DIAGRAM:
        return any(u.kind == "diagram" for u in granted)
    return use.kind in ("read", "write", "net") and "*" in use.what and any(u.kind == use.kind for u in granted)
