"""Errors for uses that were not granted, with the option that grants them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import cast, get_args

from dipeo_nb.domain.capabilities import ANY_DIAGRAM, ANYWHERE, Capabilities, Kind, Use
from dipeo_nb.errors import NotGrantedError


def refusal(kind: str, what: str) -> NotGrantedError:
    """Return the error for a use that was not granted, with the option that grants it."""
    return NotGrantedError(
        f"This diagram was not allowed to {_deed(kind, what)}.",
        hint=f"Allow exactly that with {granting([Use(cast(Kind, kind), what)])}, or see all it wants: dipeo-nb inspect FILE.",
        kind=kind,
        what=what,
    )


def refusal_of_all(uses: Sequence[Use], diagram: str) -> NotGrantedError:
    """Return the error for a sub-diagram that was chosen during the run, with the option that grants all its uses."""
    ordered = Capabilities(uses).of(*get_args(Kind))
    deeds = "; ".join(dict.fromkeys(_deed(use.kind, use.what) for use in ordered[:5]))
    return NotGrantedError(
        f"The diagram '{diagram}', which was chosen during the run, was not allowed to {deeds}{' …' if len(ordered) > 5 else ''}.",
        hint=f"Allow exactly that with {granting(ordered)}, in addition to what the run was already granted.",
        kind=ordered[0].kind,
        what=ordered[0].what,
    )


def _deed(kind: str, what: str) -> str:
    words = {
        "read": f"read '{what}'", "write": f"write '{what}'", "net": f"call {'any server' if what == '*' else what}",
        "code": f"run code ({what})", "process": f"run a program ({what})", "service": f"use {what}",
        "function": f"call {what}", "diagram": f"run {what}",
    }  # fmt: skip
    return words.get(kind, f"{kind} {what}")


def granting(uses: Iterable[Use]) -> str:
    """Return the command line option and the argument that allow some uses: `--allow code,read=a.csv (allow={'code': True, …})`."""
    valued: dict[str, list[str]] = {}
    for use in uses:
        named = use.kind in ("read", "write", "net", "service", "diagram") and use.what not in ("*", ANYWHERE, ANY_DIAGRAM)
        valued.setdefault(use.kind, []).append(use.what if named else "")
    valued = {kind: [] if "" in values else list(dict.fromkeys(values)) for kind, values in valued.items()}
    mapping = {kind: values[0] if len(values) == 1 else values or True for kind, values in valued.items()}
    argument = f"allow={mapping}"
    parts = [f"{kind}={value}" if value else kind for kind, values in valued.items() for value in values or ("",)]
    if any("," in part or not part.isprintable() or part != part.strip() for part in parts):
        return argument  # on a command line a comma ends the name, and the rest would be allowed as well
    return f"--allow {shlex.quote(','.join(parts))} ({argument})"


def unshown(path: str) -> NotGrantedError:
    return NotGrantedError(
        f"The code file '{path}' was not part of what was shown before the run.",
        hint="Start the run again with that file in place, so that it is shown; or trust the folder: dipeo-nb trust FOLDER.",
        kind="code",
        what=path,
    )


def made_by_run(what: str, name: str) -> NotGrantedError:
    return NotGrantedError(
        f"'{name}' was written by this run, and what a run has written is not used as {what} in it.",
        hint="Look at the file, and run it afterwards; or trust the folder: dipeo-nb trust FOLDER.",
        kind="diagram",
        what=name,
    )
