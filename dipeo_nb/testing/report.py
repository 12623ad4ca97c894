"""Contracts outside pytest: check an adapter, get a table."""

from __future__ import annotations

import html
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dipeo_nb.errors import ValidationError
from dipeo_nb.testing.contracts.promises import NOT_HERE, BrokenPromiseError, Contract, NotHereError

MESSAGES = 3
"""Messages shown of a promise that is broken in many cases."""
SIGNS = {"kept": "✓", "broken": "✗", "not here": "–"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One promise of a contract, and whether an adapter keeps it."""

    name: str
    """Of the method: `test_…`."""
    promise: str
    """In words."""
    status: Literal["kept", "broken", "not here"]
    """`not here`: it cannot be checked on this adapter."""
    message: str = ""
    """What the adapter did instead, or why it could not be checked."""
    errors: tuple[Exception, ...] = ()
    """What was raised, one for each case that is broken."""

    @property
    def title(self) -> str:
        """The name as words."""
        return self.name.removeprefix("test_").replace("_", " ")


@dataclass(frozen=True, repr=False)
class Report:
    """What `check` found; shown as a table. True when no promise is broken."""

    contract: str
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """Whether no promise is broken."""
        return not self.broken

    @property
    def kept(self) -> tuple[Outcome, ...]:
        """Promises that are kept."""
        return self._with("kept")

    @property
    def broken(self) -> tuple[Outcome, ...]:
        """Promises that are broken."""
        return self._with("broken")

    @property
    def not_here(self) -> tuple[Outcome, ...]:
        """Promises that cannot be checked on this adapter."""
        return self._with("not here")

    def require(self) -> Report:
        """This report, when no promise is broken.

        Raises:
            BrokenPromiseError: else; with one line for each promise.
        """
        if self.ok:
            return self
        lines = [f"{self.contract}: {len(self.broken)} of {len(self.outcomes)} promises are broken."]
        lines += [f"- {outcome.title}: {outcome.message}" for outcome in self.broken]
        raise BrokenPromiseError("\n".join(lines)) from self.broken[0].errors[0]

    def __bool__(self) -> bool:
        return self.ok

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    def __repr__(self) -> str:
        width = max((len(outcome.title) for outcome in self.outcomes), default=0)
        rows = [f"  {SIGNS[o.status]} {o.title:<{width}}  {o.message}".rstrip() for o in self.outcomes]
        return "\n".join([self._summary(), *rows])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="text-align:center" title="{o.status}">{SIGNS[o.status]}</td>'
            f'<td style="text-align:left" title="{html.escape(o.promise)}">{html.escape(o.title)}</td>'
            f'<td style="text-align:left">{html.escape(o.message)}</td></tr>'
            for o in self.outcomes
        )
        return f"<p><b>{html.escape(self._summary())}</b></p><table>{rows}</table>"

    def _summary(self) -> str:
        parts = [f"{len(self.kept)} promises kept", f"{len(self.broken)} broken", f"{len(self.not_here)} not here"]
        return f"{self.contract}: {', '.join(parts)}"

    def _with(self, status: str) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status == status)


def check(
    contract: type[Contract],
    make: Callable[[], Any] | None = None,
    *,
    reopen: Callable[[Any], Any] | None = None,
    only: Iterable[str] = (),
    **options: Any,
) -> Report:
    """Whether an adapter keeps the promises of its port. Blocking; works in a notebook's cell and needs no pytest.

    Args:
        contract: a suite of `dipeo_nb.testing.contracts`, or a subclass of one.
        make: gives a new, empty adapter, or an awaitable of one, once for each promise (and each of its cases); None: as
            the subclass says.
        reopen: gives, for an adapter, another on the same content; left out: that content outlives the object is not checked.
        only: names of promises, with or without `test_`; default: all.
        options: what else the contract has: `limit=` of stores, `model=` of clients …

    Raises:
        ValidationError: the contract has no such option or promise.
    """
    changes = {**options, **{name: given for name, given in (("make", make), ("reopen", reopen)) if given is not None}}
    if unknown := [name for name in changes if name.startswith(("_", "test_")) or not hasattr(contract, name)]:
        raise ValidationError(
            f"{contract.__name__} has no option {', '.join(unknown)}.", hint=f"It has: {', '.join(_options(contract))}."
        )
    names = _promises(contract)
    wanted = {name if name.startswith("test_") else f"test_{name}" for name in ([only] if isinstance(only, str) else only)}
    if unknown := sorted(wanted - set(names)):
        raise ValidationError(f"{contract.__name__} has no promise {', '.join(unknown)}.", hint=f"It has: {', '.join(names)}.")
    chosen = [name for name in names if not wanted or name in wanted]
    with _provoked():
        return Report(contract.__name__, tuple(_outcome(contract, name, changes) for name in chosen))


@contextmanager
def _provoked() -> Iterator[None]:
    """Failures are made on purpose here: without a configuration of logging, adapters' lines about them go nowhere."""
    logger, nowhere = logging.getLogger("dipeo_nb"), logging.NullHandler()
    logger.addHandler(nowhere)
    try:
        yield
    finally:
        logger.removeHandler(nowhere)


def _outcome(contract: type[Contract], name: str, changes: dict[str, Any]) -> Outcome:
    method = getattr(contract, name)
    words = " ".join((method.__doc__ or "").split())
    cases = getattr(method, "cases", None)
    calls: list[tuple[Any, ...]] = [()] if cases is None else [(case,) for case in cases.values()]
    errors: list[Exception] = []
    for call in calls:
        suite = contract()
        for option, value in changes.items():
            setattr(suite, option, value)
        try:
            getattr(suite, name)(*call)
        except NotHereError as error:
            return Outcome(name, words, "not here", str(error).removeprefix(NOT_HERE))
        except Exception as error:  # noqa: BLE001 - whatever the adapter raises is the finding
            errors.append(error)
    if not errors:
        return Outcome(name, words, "kept")
    messages = list(dict.fromkeys(map(_said, errors)))
    more = f"; and {len(messages) - MESSAGES} more" if len(messages) > MESSAGES else ""
    some = "" if len(calls) == 1 else f"in {len(errors)} of {len(calls)} cases: "
    return Outcome(name, words, "broken", some + "; ".join(messages[:MESSAGES]) + more, tuple(errors))


def _said(error: Exception) -> str:
    """What is wrong, in one line; of an error nobody expected, also where it was raised."""
    text = " ".join(str(error).split())
    if isinstance(error, BrokenPromiseError):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}:{last.lineno})"


def _promises(contract: type[Contract]) -> list[str]:
    """Names of the promises, in the order in which they are written; those of bases first."""
    names = (name for base in reversed(contract.__mro__) for name in vars(base) if name.startswith("test_"))
    return list(dict.fromkeys(names))


def _options(contract: type[Contract]) -> list[str]:
    found = {name for base in contract.__mro__ for name in getattr(base, "__annotations__", {})} - {"port"}
    return sorted({"make", "reopen", *found} | ({"refused"} if hasattr(contract, "refused") else set()))
