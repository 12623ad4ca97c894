"""Warnings about settings without effect."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path

from dipeo_nb.config.redaction import shown
from dipeo_nb.config.sources import Sources, user_file


class FolderSettingWarning(UserWarning):
    """A folder's file sets what only the user may set."""


class UnknownSettingWarning(UserWarning):
    """A DIPEO_* variable or a key of a settings file that nothing reads."""


NOT_USED = {
    "DIPEO_WORKERS": "the server is one process",
    "DIPEO_RELOAD": "the server does not reload itself",
    "DIPEO_ENV": "there are no environments to choose between",
    "DIPEO_COMPILE_PROMPTS": "prompts are always compiled",
}
"""DiPeO's variables without effect here → reason."""
OTHERS = ("DIPEO_DI_", "DIPEO_MSG_")
"""Prefixes of DiPeO's variables for components that do not exist here."""
MOST_WARNINGS = 20
"""Unknown names of a file that are reported one by one; the rest are counted."""


def warn(sources: Sources) -> None:
    """Warn about the settings without effect."""
    fields = sources.fields
    variables = {v for field in fields.values() for v in field.variables}
    said: dict[Path | None, int] = {}
    for written, file in sorted(set(sources.names), key=str):
        name = written.upper()
        toml = file.name if file is not None and file.suffix == ".toml" else ""
        if name in variables or (toml and written.lower() in fields):
            continue
        if not toml and not name.startswith("DIPEO_"):
            continue
        said[file] = said.get(file, 0) + 1
        if file is not None and said[file] > MOST_WARNINGS:
            continue
        written, name = shown(written), shown(name)
        if name in NOT_USED:
            message = f"{name} has no effect: {NOT_USED[name]}."
        elif name.startswith(OTHERS):
            message = f"{name} has no effect: it configures a component of DiPeO that does not exist here."
        elif toml:
            near = difflib.get_close_matches(written, fields, n=1)
            message = f"{toml}: there is no setting '{written}'." + (f" Did you mean '{near[0]}'?" if near else "")
        else:
            near = difflib.get_close_matches(name, variables, n=1)
            message = f"Unknown setting {name}." + (f" Did you mean {near[0]}?" if near else "")
        warnings.warn(message, UnknownSettingWarning, stacklevel=4)
    for file, count in said.items():
        if file is not None and count > MOST_WARNINGS:
            warnings.warn(f"{file.name}: {count - MOST_WARNINGS} more unknown settings.", UnknownSettingWarning, stacklevel=4)
    for file, names in sources.ignored.items():
        warnings.warn(
            f"{file}: {', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect: a folder cannot set this. "
            f"Set it in the environment or in {user_file()}.",
            FolderSettingWarning,
            stacklevel=4,
        )
