"""Calls that users type, checked against their signatures: a misspelt option is refused with the nearest that there is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from dipeo_nb.common.text import nearest
from dipeo_nb.errors import ValidationError

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


def checked_call(function: Callable[P, T], name: str | None = None) -> Callable[P, T]:
    """*function*, which refuses calls that do not fit its signature, with the nearest of its options; Python's own error names none
    and shows our frames.

    Args:
        name: how users call it; default: its name.
    """
    signature = inspect.signature(function)
    called = name or function.__name__

    @functools.wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> T:
        check_call(called, signature, args, given)
        return function(*args, **given)

    return call


def options_of(source: Callable[Concatenate[S, P], Any]) -> Callable[[Callable[..., T]], Callable[Concatenate[S, P], T]]:
    """A decorator for a method that passes its arguments on to *source*: it has the parameters of that one, for readers, for type
    checkers and for completion."""
    given = inspect.signature(source)

    def decorate(method: Callable[..., T]) -> Callable[Concatenate[S, P], T]:
        returned = inspect.signature(method).return_annotation
        method.__signature__ = given.replace(return_annotation=returned)  # type: ignore[attr-defined]
        return method

    return decorate


def check_call(name: str, signature: inspect.Signature, args: Sequence[Any], given: Mapping[str, Any]) -> None:
    """See to it that a call fits a signature.

    Raises:
        ValidationError: an option is unknown, or an argument is missing or too many.
    """
    try:
        signature.bind(*args, **given)
    except TypeError as error:
        options = [p.name for p in signature.parameters.values() if p.name != "self" and p.kind is not p.POSITIONAL_ONLY]
        unknown = next((option for option in given if option not in signature.parameters), None)
        takes = f"It takes {', '.join(options)}." if options else "It takes no options."
        if unknown is None:
            raise ValidationError(f"{name}(): {error}.", hint=takes) from None
        raise ValidationError(
            f"{name}() has no option '{unknown:.80}'.", hint=did_you_mean_option(unknown, options, takes)
        ) from None


def did_you_mean_option(word: str, options: Iterable[str], known: str) -> str:
    """A hint: the option that *word* was probably meant to be, if any, then the sentence *known*."""
    options = list(options)
    near = nearest_option(word, options) or nearest(word, options)
    return f"Did you mean {near}=? {known}" if near else known


def nearest_option(word: str, options: Iterable[str]) -> str | None:
    """The option that *word* is a typo of; None when it is like none."""
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
