"""Approval of what the `.env` and `dipeo.toml` of a folder suggest: servers that get the user's prompts and keys, stores of records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dipeo_nb.common.paths import from_home
from dipeo_nb.config import Approval, Settings, Suggestions, folder_suggestions, get_settings, use_approvals
from dipeo_nb.errors import ConfigurationError
from dipeo_nb.security.trust_store import Declined, FolderTrust, SettingsTrust, TrustStore


class PendingSetting(NamedTuple):
    """A setting that a folder suggests and that has not been approved."""

    name: str
    variable: str
    value: str
    """For display: without passwords, on one line."""
    file: str
    before: str | None
    """Another value that was approved earlier, if any."""

    def __str__(self) -> str:
        change = f"   (was {self.before})" if self.before is not None else ""
        return f"{self.variable}={self.value}   in {self.file}{change}"


def pending_settings(folder: str | os.PathLike[str] = ".", *, settings: Settings | None = None) -> tuple[PendingSetting, ...]:
    """Return the settings that need approval; empty when there are none, or exactly these were approved."""
    found = _suggestions(folder)
    store = TrustStore((settings or get_settings()).data_dir)
    return () if approval(store.folder, found).state == "approved" else _pending(found, store)


def declined_settings(folder: str | os.PathLike[str] = ".", *, settings: Settings | None = None) -> bool:
    """Whether the user has declined exactly what the folder suggests now, so that there is no need to ask."""
    return approval((settings or get_settings()).data_dir, _suggestions(folder)).state == "declined"


def approve_settings(
    folder: str | os.PathLike[str] = ".",
    *,
    settings: Settings | None = None,
    shown: Sequence[PendingSetting] | None = None,
) -> tuple[PendingSetting, ...]:
    """Approve what a folder suggests at present; other values need approval again. Return what was newly approved.

    Args:
        shown: what the user has seen (`pending_settings`), if that was earlier.

    Raises:
        ConfigurationError: a file of the folder cannot be read, or has changed since it was shown.
        StorageError: the approval cannot be stored.
    """
    found = _suggestions(folder)
    store = TrustStore((settings or get_settings()).data_dir)
    if not found.entries or approval(store.folder, found).state == "approved":
        return ()
    pending = _pending(found, store)
    if shown is not None and tuple(shown) != pending:
        raise ConfigurationError(
            f"The settings of {found.folder} have changed since they were shown.", hint="Look at them again."
        )
    values = tuple((entry.name, entry.shown) for entry in found.entries)
    store.add(SettingsTrust(folder=str(found.folder), digest=found.digest, values=values))
    return pending


def decline_settings(folder: str | os.PathLike[str] = ".", *, settings: Settings | None = None) -> None:
    """Decline what a folder suggests at present: the user is not asked again; errors still name both solutions."""
    found = _suggestions(folder)
    if found.entries:
        store = TrustStore((settings or get_settings()).data_dir)
        store.add(Declined(of="settings", where=str(found.folder), digest=found.digest))


def forget_settings(folder: str | os.PathLike[str] = ".", *, settings: Settings | None = None) -> int:
    """Remove the decisions about the settings of a folder; return the number of removed records."""
    store, where = TrustStore((settings or get_settings()).data_dir), str(from_home(folder).resolve())
    return store.forget(SettingsTrust, folder=where) + store.forget(Declined, of="settings", where=where)


def settings_listing(folder: str | os.PathLike[str] = ".", *, settings: Settings | None = None) -> list[str]:
    """Return readable lines: everything that a folder suggests, with its standing."""
    found = _suggestions(folder)
    store = TrustStore((settings or get_settings()).data_dir)
    state = approval(store.folder, found).state
    return [f"{entry}   {state}" for entry in _pending(found, store)]


def approval(data_dir: Path, suggestions: Suggestions) -> Approval:
    """Return the user's decision about exactly these suggestions."""
    if not suggestions.entries:
        return Approval("waiting")
    store, where, digest = TrustStore(data_dir), str(suggestions.folder), suggestions.digest
    yes = store.find(SettingsTrust, folder=where, digest=digest)
    if yes is not None:
        return Approval("approved", yes.at)
    declined = store.find(Declined, of="settings", where=where, digest=digest)
    return Approval("waiting") if declined is None else Approval("declined", declined.at)


def is_trusted_folder(settings: Settings) -> bool:
    """Whether the user trusts the folder whose files were read: by setting, or by approval of this very folder."""
    folder = settings.folder
    if any(folder.is_relative_to(trusted.resolve()) for trusted in settings.trusted_folders):
        return True
    store = TrustStore(settings.data_dir)
    for path in (folder, *folder.parents):
        yes = store.find(FolderTrust, path=str(path))
        if yes is not None and yes.inode == path.stat().st_ino:
            return True
    return False


def _suggestions(folder: str | os.PathLike[str]) -> Suggestions:
    return folder_suggestions(from_home(folder))


def _pending(found: Suggestions, store: TrustStore) -> tuple[PendingSetting, ...]:
    yes = store.find(SettingsTrust, folder=str(found.folder))
    before = dict(yes.values) if yes is not None else {}
    return tuple(
        PendingSetting(
            entry.name,
            entry.origin.variable,
            entry.shown,
            str(entry.origin.file),
            before[entry.name] if before.get(entry.name, entry.shown) != entry.shown else None,
        )
        for entry in found.entries
    )


use_approvals(approval)
