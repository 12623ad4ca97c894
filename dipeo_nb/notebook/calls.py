"""How the functions that users type look at what they are given, before anything happens."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dipeo_nb.diagram.fields import nearest
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import ValidationError
from dipeo_nb.execution.options import nearest_option
from dipeo_nb.execution.used_names import UsedNames

P = ParamSpec("P")
T = TypeVar("T")

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


class UnusedInputWarning(UserWarning):
    """An input of a run that nothing in its diagram names: it is probably misspelt."""


def checked_call(method: Callable[P, T]) -> Callable[P, T]:
    """*method*, which refuses calls that do not fit its signature, with the nearest of its options; Python's own error names none
    and shows our frames."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(*args: P.args, **given: P.kwargs) -> T:
        check_call(method.__name__, signature, args, given)
        return method(*args, **given)

    return call


def check_call(name: str, signature: inspect.Signature, args: Sequence[Any], given: Mapping[str, Any]) -> None:
    """See to it that a call fits a signature.

    Raises:
        ValidationError: an option is unknown, or an argument is missing or too many.
    """
    try:
        signature.bind(*args, **given)
    except TypeError as error:
        options = [p.name for p in signature.parameters.values() if p.name != "self"]
        unknown = next((option for option in given if option not in signature.parameters), None)
        if unknown is None:
            raise ValidationError(f"{name}(): {error}.", hint=f"It takes {', '.join(options)}.") from None
        near = nearest_option(unknown, options) or nearest(unknown, options)
        guess = f"Did you mean {near}=? " if near else ""
        raise ValidationError(
            f"{name}() has no option '{unknown:.80}'.", hint=f"{guess}It takes {', '.join(options)}."
        ) from None


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
