"""Trust in a diagram, and so the permissions of its runs: decided once, before a run, from what would be executed.

A diagram is the user's own if it was typed or made in code, comes with this package, was saved by this session, or is below a
folder that the user trusts. Any other one is a guest until the user approves exactly what it is: its closure, by digest. An
approval is stored for the base directory in which it was given.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, get_args

from dipeo_nb.common.paths import from_home
from dipeo_nb.config import Settings
from dipeo_nb.diagram.closure import Closure, closure
from dipeo_nb.diagram.detect import DEMOS, stem
from dipeo_nb.diagram.document import Diagram, load, saved_here
from dipeo_nb.diagram.nested import DEEPEST, nested_document
from dipeo_nb.domain.capabilities import ANY, Capabilities, Kind, granted_by
from dipeo_nb.domain.chat import parse_model
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.llm_providers import costs_nothing
from dipeo_nb.domain.nodes import SubDiagramNode
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import (
    ConfigurationError,
    DiagramError,
    StorageError,
    TrustError,
    UnknownModelError,
    ValidationError,
)
from dipeo_nb.security.changes import difference, parts_of, powers_of
from dipeo_nb.security.folder_settings import PendingSetting, approve_settings, forget_settings, pending_settings
from dipeo_nb.security.gate import Level, beyond_guest, granting, seen_later
from dipeo_nb.security.signatures import Signatures
from dipeo_nb.security.trust_store import DiagramTrust, FolderTrust, GuestMade, SettingsTrust, TrustStore

Allow = Mapping[str, Any] | list[str] | tuple[str, ...]
Say = bool | str | None
"""Decision of a caller: True approves anything; False treats it as a guest; a text approves what has that code."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Permissions of a run."""

    level: Level
    closure: Closure | None = None
    granted: Capabilities = field(default_factory=Capabilities)


class Trust:
    """The decisions for one base directory.

    Args:
        settings: location of the trust store, and folders trusted by setting.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.store: TrustStore = TrustStore(settings.data_dir)
        self.signatures: Signatures = Signatures(self.store.signing_key)
        self.base: Path = settings.base_dir.resolve()

    # Decisions.

    def decide(
        self,
        document: Diagram,
        plan: Plan,
        *,
        say: Say = None,
        allow: Allow | None = None,
        foreign: bool = False,
        model_chosen: bool = False,
        by: str = "",
    ) -> Decision:
        """Decide the permissions of a run.

        Args:
            say, allow: decision of the caller (`trust=`, `allow=`).
            foreign: text without a file is not the user's own, such as text from a pipe.
            model_chosen: the user chose one model for all persons.
            by: source of an approval, for the record; with a code, the approval is stored.

        Raises:
            TrustError: it needs more than a guest may do, and has not been approved.
            ValidationError: `allow` has unknown names.
        """
        if say is not False and self.owns(document, foreign=foreign):
            for inner, inner_plan in self._foreign(document, plan):
                self.decide(inner, inner_plan, say=say, allow=allow, model_chosen=model_chosen, by=by)
            return Decision(Level.YOURS)
        found = closure(document, base_dir=self.base, plan=plan)
        granted = self._allowed(allow)
        if say is True:
            self.remember(found, by=by or "trust=True")
            return Decision(Level.TRUSTED, found, Capabilities(found.uses | granted))
        if isinstance(say, str):
            if not hmac.compare_digest(say.strip().lower().encode(), found.code.encode()):
                raise self._refused(
                    document, found, found.uses, f"'{document.name}' is not what the code {say[:40]!r} was given for"
                )
            if by:
                self.remember(found, by=by)
            return Decision(Level.TRUSTED, found, Capabilities(found.uses | granted))
        paid = self._settings.guest_budget > 0
        wanted = beyond_guest(
            found.uses, paid=paid, free_default=not paid and self._default_is_free(), model_chosen=model_chosen
        )
        missing = [use for use in wanted if not granted.includes(use) and not seen_later(use, granted)]
        if say is not False and allow is None and self.knows(found):
            return Decision(Level.TRUSTED, found, found.uses)
        if missing:
            what = "wants more than was allowed" if allow is not None else "wants more than to call models"
            if allow is None and say is None and (earlier := self._earlier(found)) is not None:
                what = f"has changed since you approved it: {difference(earlier.parts, earlier.powers, found)}"
            besides = "" if allow is None else granting(Capabilities(missing).of(*get_args(Kind)))
            raise self._refused(
                document,
                found,
                Capabilities(missing) if allow is not None else found.uses,
                f"'{document.name}' {what}",
                besides,
            )
        return Decision(Level.GUEST, found, granted)

    def _default_is_free(self) -> bool:
        """Whether the default model costs nothing; a folder's suggestion that has not been approved does not count."""
        if self._settings.waits("default_llm_model"):
            return False
        try:
            return costs_nothing(parse_model(self._settings.default_llm_model)[0])
        except UnknownModelError:
            return False  # of a service that was registered

    def knows(self, found: Closure) -> bool:
        """Whether exactly this was approved in this base directory."""
        return self.store.find(DiagramTrust, digest=found.digest, base=str(self.base)) is not None

    def remember(self, found: Closure, *, by: str) -> None:
        """Store the approval of a closure."""
        _DECLINED.discard((found.digest, self.base))
        if not self.knows(found):
            self.store.add(
                DiagramTrust(
                    digest=found.digest,
                    base=str(self.base),
                    name=found.name,
                    listing=tuple(found.uses.listing()[:200]),
                    by=by,
                    path=_file_of(found),
                    parts=parts_of(found),
                    powers=powers_of(found.uses),
                )
            )

    def decline(self, digest: str) -> None:
        """Record that a closure was declined, so that this process does not ask again; an approval reverts it."""
        _DECLINED.add((digest, self.base))

    def _earlier(self, found: Closure) -> DiagramTrust | None:
        """Return the last approval of what was in the same file."""
        path = _file_of(found)
        return self.store.find(DiagramTrust, base=str(self.base), path=path) if path else None

    def _allowed(self, allow: Allow | None) -> Capabilities:
        if allow is None:
            return Capabilities()
        try:
            granted = granted_by(allow)
        except ValueError as error:
            raise ValidationError(
                f"'{error}' is nothing that can be allowed.",
                hint="Use e.g. --allow read=data/*.csv, write=out/, net=api.x.org, code, process, service=NAME, function.",
            ) from None
        # Code can do anything a program can.
        return Capabilities({*granted, *granted_by(["process"])}) if granted.covers("code", ANY) else granted

    def _refused(self, document: Diagram, found: Closure, uses: Capabilities, why: str, besides: str = "") -> TrustError:
        name = document.path.name if document.path is not None else "FILE"
        place = document.path.resolve().parent if document.path is not None else None
        folder = place if place is not None and place.is_relative_to(self.base) else None
        trusted = f"; everything in {folder}: dipeo-nb trust {folder} (dp.trust)" if folder else ""
        waiting: tuple[PendingSetting, ...] = ()
        if folder is not None and _open_to_others(folder, self._trusted_above(folder) or folder):
            why, folder, trusted = f"{why}; all users may write into {folder}, so it is not trusted", None, ""
        if folder is not None:
            with contextlib.suppress(ConfigurationError):  # files of settings that cannot be read have no effect
                waiting = pending_settings(folder, settings=self._settings)
        return TrustError(
            f"{why}{f' ({place})' if place else ''}.",
            hint=f'Read it (dipeo-nb inspect {name}). Then approve exactly this: --pin {found.code} (trust="{found.code}"), '
            f"remembered: --trust (trust=True){trusted}{f'; or allow that, too: {besides}' if besides else ''}.",
            lines=tuple(uses.listing()),
            uses=uses.report(),
            pin=found.code,
            digest=found.digest,
            folder=None if folder is None else str(folder),
            path=None if document.path is None else str(document.path),
            settings=waiting,
            declined=(found.digest, self.base) in _DECLINED,
        )

    # The user's own.

    def owns(self, document: Diagram, *, foreign: bool = False) -> bool:
        """Whether a diagram is the user's own; this does not include the diagrams that it runs."""
        if document.path is None:
            return not foreign
        if _digest(document.text) in _packaged() or saved_here(document.text):
            return True
        return self.in_trusted_folder(document.path) and not self._made_by_guest(document.text)

    def in_trusted_folder(self, path: Path) -> bool:
        """Whether a file is below a folder that the user trusts, and other users could not have put it there."""
        try:
            place = path.resolve(strict=True)
            facts = place.stat()
        except OSError:
            return False
        folder = self._trusted_above(place)
        if folder is None:
            return False
        if os.name == "nt":
            return not _downloaded(place)
        owners = {os.geteuid(), 0, folder.stat().st_uid}
        mine = facts.st_uid in owners and not facts.st_mode & stat.S_IWOTH
        return mine and not _open_to_others(place.parent, folder) and not _downloaded(place)

    def _trusted_above(self, place: Path) -> Path | None:
        named = {folder.expanduser().resolve() for folder in self._settings.trusted_folders}
        known = {Path(r.path): r.inode for r in self.store.records() if isinstance(r, FolderTrust)}
        for folder in (place, *place.parents):
            if folder in named:
                return folder
            with contextlib.suppress(OSError):
                if folder in known and folder.stat().st_ino == known[folder]:
                    return folder
        return None

    def remember_made(self, data: bytes) -> None:
        """Record that a guest has written a diagram: it stays a guest, even in a trusted folder, until it is edited."""
        self.store.add(GuestMade(digest=hashlib.sha256(data).hexdigest()))

    def _made_by_guest(self, text: str) -> bool:
        return self.store.find(GuestMade, digest=_digest(text)) is not None

    def _foreign(self, document: Diagram, plan: Plan) -> Iterator[tuple[Diagram, Plan]]:
        """Return the sub-diagrams of the user's own diagram that are not the user's own; of each branch the topmost."""
        seen: set[str] = set()

        def below(plan: Plan, depth: int) -> Iterator[tuple[Diagram, Plan]]:
            for node in plan.nodes:
                spec = node.spec
                if not isinstance(spec, SubDiagramNode) or depth > DEEPEST:
                    continue
                name = (spec.diagram_name or "").strip()
                if not spec.diagram_data and "{" in name:
                    continue  # the gate decides when the name is known
                try:
                    inner = nested_document(spec, name, source_path=plan.source_path, base_dir=self.base)
                    key = _digest(f"{inner.path}\0{inner.text}")
                    if key in seen:
                        continue
                    seen.add(key)
                    inner_plan = inner.compile(base_dir=self.base)
                except (DiagramError, StorageError):
                    continue  # reported by the run, if it matters
                if self.owns(inner):
                    yield from below(inner_plan, depth + 1)
                else:
                    yield inner, inner_plan

        yield from below(plan, 0)

    def trust_folder(self, path: Path, *, shown: Sequence[PendingSetting] | None = None) -> Path:
        """Trust everything below a folder from now on, and the settings that it suggests, as they are now.

        Args:
            shown: the settings that the user has seen, if that was earlier.

        Raises:
            ValidationError: there is no such folder, or all users may write into it.
            ConfigurationError: its settings files cannot be read, or have changed since they were shown.
        """
        folder = from_home(path).resolve()
        if not folder.is_dir():
            raise ValidationError(f"There is no folder {folder}.", hint="Name a folder, or a diagram.")
        if _open_to_others(folder, folder):
            raise ValidationError(
                f"All users of this machine may write into {folder}, so its contents cannot be trusted.",
                hint=f'chmod o-w "{folder}"',
            )
        approve_settings(folder, settings=self._settings, shown=shown)
        self.store.add(FolderTrust(path=str(folder), inode=folder.stat().st_ino))
        return folder

    def trust(self, path: Path) -> None:
        """Trust a folder, or a diagram as it is now in this base directory."""
        if from_home(path).is_dir():
            self.trust_folder(path)
        else:
            self.remember(load(from_home(path), base_dir=self.base).capabilities(base_dir=self.base), by="dp.trust")

    def forget(self, path: str) -> int:
        """Remove the decisions about a folder or a diagram, by path or name; return the number of removed records."""
        folder = from_home(path).resolve()
        return (
            self.store.forget(FolderTrust, path=str(folder))
            + forget_settings(folder, settings=self._settings)
            + self.store.forget(DiagramTrust, name=stem(path))
            + (self.store.forget(DiagramTrust, name=path) if stem(path) != path else 0)
        )

    def lines(self) -> list[str]:
        """List what is trusted, one line each."""
        named = [f"folder   {folder}  (DIPEO_TRUST)" for folder in self._settings.trusted_folders]
        kept = [
            f"folder   {r.path}  {r.at}" if isinstance(r, FolderTrust) else f"diagram  {r.name} in {r.base}  {r.at}"
            for r in self.store.records()
            if isinstance(r, (FolderTrust, DiagramTrust))
        ]
        approved = [
            f"setting  {name}={value} of {r.folder}  {r.at}"
            for r in self.store.records()
            if isinstance(r, SettingsTrust)
            for name, value in r.values
        ]
        return [*named, *kept, *approved]

    # Records of runs.

    def stamp(self, decision: Decision) -> Mapping[str, str]:
        """Return the decision recorded in the first event of a run, which its signature protects."""
        digest = decision.closure.digest if decision.closure else ""
        return {"level": str(decision.level), "digest": digest, "base": str(self.base)}

    def verified(self, first: Event) -> Level | None:
        """Return the level of a recorded run of this user in this base directory by its first event; None if it is not known to be
        this user's."""
        stamp: object = first.started.get("trust")  # as a record from elsewhere has it
        if not isinstance(stamp, Mapping) or stamp.get("base") != str(self.base) or not self.signatures.hold([first]):
            return None
        level = stamp.get("level")
        return Level(level) if level in set(Level) else None


_DECLINED: set[tuple[str, Path]] = set()
"""(digest of a closure, base directory) of what the user declined in this process."""


def _file_of(found: Closure) -> str:
    path = next(iter(found.plans.values())).source_path
    return os.path.abspath(path) if path else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _packaged() -> frozenset[str]:
    """Return the digests of the diagrams that come with this package."""
    return frozenset(_digest(path.read_text(encoding="utf-8")) for path in DEMOS.iterdir() if path.suffix in (".yaml", ".json"))


def _open_to_others(folder: Path, upto: Path) -> bool:
    """Whether all users may write into a folder, or one of its parents up to another: then anybody may have put diagrams, and
    modules next to them, there."""
    if os.name == "nt":
        return False
    places = [place for place in (folder, *folder.parents) if place.is_relative_to(upto)]
    return any(place.stat().st_mode & stat.S_IWOTH for place in places)


def _downloaded(path: Path) -> bool:
    """Whether the system has marked a file as downloaded."""
    if os.name == "nt":
        return os.path.exists(f"{path}:Zone.Identifier")
    names = getattr(os, "listxattr", None)
    if names is None:
        return False
    with contextlib.suppress(OSError):
        return "com.apple.quarantine" in names(path)
    return False
