"""Asks the user to approve what a diagram wants to do, or what the settings of a folder change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dipeo_nb.cli.arguments import settings_for
from dipeo_nb.cli.prompts import interactive
from dipeo_nb.config import reset_settings
from dipeo_nb.errors import SettingNotApprovedError, TrustError
from dipeo_nb.runtime import Runtime
from dipeo_nb.security import folder_settings
from dipeo_nb.terminal import safe, say

Answered = TypeVar("Answered")


def with_consent(
    runtime: Runtime,
    prepare: Callable[..., Answered],
    trust: bool | str | None,
    *,
    ask: bool,
    needed: Callable[[], SettingNotApprovedError | None] = lambda: None,
) -> Answered:
    """The result of *prepare*; when it is refused because the diagram is not trusted, ask the user once, if one is present.

    Args:
        prepare: called with `trust`, and `by` for the record.
        needed: the error of a setting that the run needs and that waits for a yes, too, so that one answer does for both.
    """
    try:
        return prepare(trust)
    except TrustError as error:
        if not (ask and interactive()) or "pin" not in error.facts or error.facts["declined"]:
            raise
        say(error.message, *error.listing())
        folder = error.facts["folder"]
        of_folder = error.facts["settings"]
        waits = needed()
        place = waits.facts["folder"] if waits is not None else None
        declined = place is not None and folder_settings.declined_settings(place, settings=runtime.settings)
        wanted = folder_settings.pending_settings(place, settings=runtime.settings) if place and not declined else ()
        if wanted:
            say(
                f"It needs these settings of {place}, which decide where your prompts, keys and records go:",
                *(f"  {setting}" for setting in wanted),
            )
        if of_folder and (more := [setting for setting in of_folder if setting not in wanted]):
            say(f"With [f], these settings of {folder} take effect, too:", *(f"  {setting}" for setting in more))
        choices = "[y] this, as it is now" + (f"   [f] everything in {folder}" if folder else "") + "   [N]"
        sys.stderr.write(f"\nCode can do everything that you can. Run it?  {safe(choices)} > ")
        sys.stderr.flush()
        answer = sys.stdin.readline().strip().lower()
        chosen = folder if answer == "f" else None
        if answer not in ("y", "yes") and chosen is None:
            runtime.trust.decline(error.facts["digest"])
            raise TrustError(error.message, hint=error.hint) from None  # the list has been shown
        if wanted and place is not None and place != chosen:
            folder_settings.approve_settings(place, settings=runtime.settings, shown=wanted)
        if chosen is not None:
            runtime.trust.trust_folder(Path(chosen), shown=of_folder)
            return prepare(trust)
        return prepare(error.facts["pin"], by="prompt")  # exactly what was shown


def settings_approved(error: SettingNotApprovedError) -> bool:
    """Ask whether the folder's settings shall take effect, if a user is present and has not said no before."""
    folder = error.facts["folder"]
    settings = settings_for(None)
    if not interactive() or folder_settings.declined_settings(folder, settings=settings):
        return False
    say(f"{folder} has settings that decide where your prompts, keys and records go:")
    shown = folder_settings.pending_settings(folder, settings=settings)
    say(*(f"  {setting}" for setting in shown))
    sys.stderr.write("Use them, as they are now? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        folder_settings.decline_settings(folder, settings=settings)
        return False
    folder_settings.approve_settings(folder, settings=settings, shown=shown)
    reset_settings()
    return True
