"""Inputs of runs that were given as keywords, looked at before anything happens."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dipeo_nb.common.calls import nearest_option
from dipeo_nb.common.text import nearest
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import ValidationError
from dipeo_nb.execution.used_names import UsedNames

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


class UnusedInputWarning(UserWarning):
    """An input of a run that nothing in its diagram names: it is probably misspelt."""


class RunGoesOnWarning(UserWarning):
    """A notebook cell starts a run, and one that it started before still goes on."""


def check_variables(variables: Mapping[str, Any], plan: Plan, base_dir: Path, options: Iterable[str]) -> None:
    """Look at the inputs that came as keywords: one that nothing in the diagram names is a slip of the pen for an option, which
    is refused, or for another input, which is warned about.

    Raises:
        ValidationError: the name is nearly that of an option.
    """
    if not variables:
        return
    used = UsedNames(plan, base_dir)
    unknown = used.unknown(variables)
    for name in variables:
        if name not in used.names and (near := nearest_option(name, options)):
            raise ValidationError(
                f"There is no option '{name}', and nothing in the diagram '{plan.name:.80}' names an input of that name.",
                hint=f"Did you mean {near}=? An input of the run that is called so goes into inputs={{'{name}': …}}.",
            )
    for name in unknown:
        near = nearest(name, sorted(used.names))
        guess = f" Did you mean '{near}'?" if near else ""
        warn(f"Nothing in the diagram '{plan.name:.80}' names the input '{name:.80}'.{guess}", UnusedInputWarning)


def warn(message: str, category: type[Warning]) -> None:
    """A warning that points to the line outside this package."""
    frame, level = sys._getframe(0), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
