"""Checks the inputs of a run that were given as keywords, and warns at the user's line."""

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
    """An input of a run that its diagram does not use: it is probably misspelt."""


class RunGoesOnWarning(UserWarning):
    """A notebook cell starts a run while one that it started before is still running."""


def check_variables(variables: Mapping[str, Any], plan: Plan, base_dir: Path, options: Iterable[str]) -> None:
    """Check the inputs that were given as keywords: one that the diagram does not use is probably a typo.

    It causes a warning, or an error when an option has a similar name.

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
                f"There is no option '{name}', and the diagram '{plan.name:.80}' uses no input of that name.",
                hint=f"Did you mean {near}=? To pass an input of that name, use inputs={{'{name}': …}}.",
            )
    for name in unknown:
        near = nearest(name, sorted(used.names))
        guess = f" Did you mean '{near}'?" if near else ""
        warn(f"The diagram '{plan.name:.80}' does not use the input '{name:.80}'.{guess}", UnusedInputWarning)


def warn(message: str, category: type[Warning]) -> None:
    """Warn, pointing to the line outside this package that led here."""
    frame, level = sys._getframe(0), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
