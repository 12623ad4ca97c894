"""Permissions of one run."""

from __future__ import annotations

import enum
import posixpath
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dipeo_nb.common.paths import name_below
from dipeo_nb.common.root import Root
from dipeo_nb.diagram.closure import Closure, closure, environment_names, plan_digest
from dipeo_nb.diagram.detect import stem
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.capabilities import ANY_DIAGRAM, Capabilities, Kind, Use, path_fits, uses_of
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import DBOperationsPort, FileSystemPort, Services
from dipeo_nb.errors import NotGrantedError, StorageError, TrustError
from dipeo_nb.security.gate.checked_files import GuestFiles, TrustedFiles
from dipeo_nb.security.gate.checked_services import (
    CheckedBuilder,
    CheckedCode,
    CheckedDb,
    CheckedHTTP,
    CheckedIntegrations,
    CheckedModels,
)
from dipeo_nb.security.gate.refusals import granting, made_by_run, refusal, refusal_of_all, unshown
from dipeo_nb.security.gate.uses import beyond_guest, seen_later
from dipeo_nb.security.signatures import Signatures, holds_objects, signed

PROGRAM_FILES = (".py", ".pyc", ".pyd", ".so", ".ipynb", ".sh", ".bash", ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts")
"""Endings of executable files, which are written only if granted by name."""
_BEFORE: Collection[Kind] = ("code", "process", "function", "service", "diagram")
"""Kinds that are checked before a node starts, since its handler need not use a service for them."""


class Level(enum.StrEnum):
    """Level of trust in a diagram."""

    YOURS = "yours"
    """The user's own: everything below the base directory, except protected places."""
    TRUSTED = "trusted"
    """The user approved exactly this list."""
    GUEST = "guest"
    """Not approved: models within a budget, and a folder of its own."""


@dataclass
class Gate:
    """Permissions of one run with its sub-diagrams; see the package.

    Args:
        services: those of the runtime.
        drafts: creates the folder of a guest's files when the first is written.
        db: creates the database service over checked files; None: the runtime's own is checked by name.
        decide: returns the gate of a sub-diagram that is not the user's own, in a run that is; raises TrustError.
        stamp: record of the decision.
        signatures: sign the record of the run and verify records of this user; None: nothing is signed.
        records: `own` accepts records of this user only, `data` also others without objects of code, `any` all.
    """

    level: Level
    services: Services
    closure: Closure | None = None
    granted: Capabilities = field(default_factory=Capabilities)
    budget: Budget | None = None
    drafts: Callable[[], FileSystemPort] | None = None
    db: Callable[[FileSystemPort], DBOperationsPort] | None = None
    decide: Callable[[Diagram, Plan, Event | None], Gate] | None = None
    stamp: Mapping[str, str] | None = None
    signatures: Signatures | None = None
    records: Literal["own", "data", "any"] = "own"
    made: Callable[[bytes], None] = lambda data: None
    """Records the content of a diagram that a guest was allowed to write among the user's files."""
    base: Path = Path()
    model_chosen: bool = False
    """Whether the user chose one model for all persons, so that the persons' own models are not used."""
    written: set[str] = field(default_factory=set[str])
    """Paths below the base directory that this run has written; they are data, and this run never executes them."""
    _plans: set[str] = field(default_factory=set[str])
    _looked_at: set[int] = field(default_factory=set[int])
    _admitting: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.level is Level.YOURS:
            return
        assert self.closure is not None
        self._plans = set(self.closure.plans)
        self.services = self._checked(self.services)

    @classmethod
    def open(cls, services: Services) -> Gate:
        """Return a gate that allows everything, for diagrams made in code and tests."""
        return cls(Level.YOURS, services)

    # Before a node starts.

    def check(self, node: PlanNode, plan: Plan) -> None:
        """Raise NotGrantedError for a node whose fields need what was not granted."""
        if self.level is Level.YOURS or (node.index in self._looked_at and self._is_own(plan)):
            return
        for use in uses_of(node, plan):
            if (
                use.kind in _BEFORE
                and not (use.of_model and self.model_chosen)
                and not self.granted.includes(use)
                and not seen_later(use, self.granted)
            ):
                raise refusal(use.kind, use.what)
        if self._is_own(plan):
            self._looked_at.add(node.index)

    def _is_own(self, plan: Plan) -> bool:
        assert self.closure is not None
        return plan is next(iter(self.closure.plans.values()))

    def require(self, kind: Kind, what: str) -> None:
        """Raise NotGrantedError for a use that was not granted."""
        if self.level is not Level.YOURS and not self.granted.covers(kind, what):
            raise refusal(kind, what)

    @property
    def sources(self) -> Mapping[str, bytes] | None:
        """The executed files as they were when the run was prepared, by path below the base directory; None: those on disk."""
        return None if self.level is Level.YOURS or self.closure is None else self.closure.files

    def source(self, path: str, *, code: bool = False) -> bytes | None:
        """Return the bytes of an executed file as they were when the run was prepared; None: read it.

        Args:
            code: whether it is code, which must have been shown; a template whose name is computed during the run need not.

        Raises:
            NotGrantedError: the run has written it, or it did not exist then.
        """
        if self.sources is None:
            return None
        name = name_below(path, self.base)
        if name in self.sources:
            return self.sources[name]
        if code:
            raise unshown(path)
        files = self.services.files
        if self._below(files.resolve(path)) in self.written:
            raise made_by_run("a template", path)
        return None

    def check_programs(self, names: Iterable[str], *, env: Mapping[str, str] | None = None, folder: str = "") -> None:
        """Check that files that a program may execute are those that were shown.

        Args:
            names: paths below the base directory; those that are not files are ignored.
            env: variables of the program; files and folders that they name are checked, too.
            folder: where it runs, below the base directory.

        Raises:
            NotGrantedError: one has changed, did not exist, or was written by this run.
        """
        sources = self.sources
        if sources is None:
            return
        root = Root(self.base)
        for name in names:
            self._check_program(name, root, sources)
        for name in environment_names(env, folder, root, self.base):
            if name not in sources and (self.base / name).is_file():
                raise unshown(name)
            self._check_program(name, root, sources)

    def _check_program(self, name: str, root: Root, sources: Mapping[str, bytes]) -> None:
        if self.written and self._below(self.base / name) in self.written:
            raise made_by_run("a program", name)
        if name not in sources:
            return
        try:
            same = root.read(name, len(sources[name])) == sources[name]
        except (OSError, StorageError):
            same = False
        if not same:
            raise NotGrantedError(
                f"The file '{name}' has changed since it was shown.",
                hint="Start the run again, so that it is shown as it is now; or trust the folder: dipeo-nb trust FOLDER.",
                kind="code",
                what=name,
            )

    def stamped(self, source: Mapping[str, Any] | None, *, whole: bool) -> Mapping[str, str] | None:
        """Return the record of the decision; for a diagram that is not recorded whole, including its identity."""
        if whole or self.stamp is None or self.signatures is None or (mark := self.signatures.mark(source)) is None:
            return self.stamp
        return {**self.stamp, "whole": mark}

    def sign(self, events: list[Event]) -> list[Event]:
        """Return events with their signatures."""
        signatures = self.signatures
        return events if signatures is None else [signed(event, signatures.of(event)) for event in events]

    def admit(self, events: Sequence[Event]) -> None:
        """Check whether a run may continue from these events of a record.

        Raises:
            NotGrantedError: they are not known to be this user's, and hold objects of code, or the run may do more than a guest.
        """
        if self.records == "any" or self.signatures is None or self.signatures.hold(events):
            return
        if (self.records == "data" or self.level is Level.GUEST) and not holds_objects(events):
            return
        raise NotGrantedError(
            f"The record of run {events[0].run_id} differs from what this user's runs have written.",
            hint="Run the diagram again; or review it, and approve it with --trust (trust=True).",
            kind="code",
            what=events[0].run_id,
        )

    def child(self, document: Diagram, plan: Plan, record: Event | None = None) -> Gate:
        """Return the gate of a sub-diagram, which is never wider than this one.

        Args:
            record: the first event of the run that the diagram was recorded with, when it is not read from its file.

        Raises:
            NotGrantedError: it was not shown, and other diagrams were not allowed.
        """
        if self.level is Level.YOURS:
            if (document.path is None and record is None) or self.decide is None:
                return self
            try:
                return self.decide(document, plan, record)
            except TrustError as error:
                raise NotGrantedError(
                    f"The diagram '{plan.name}' is not trusted, and wants more than to call models: "
                    f"{'; '.join(line.strip() for line in error.listing()[:3])}.",
                    hint=f"Look at it: dipeo-nb inspect {document.path}; then: dipeo-nb trust {document.path}",
                    kind="diagram",
                    what=plan.name,
                ) from error
        assert self.closure is not None
        if plan_digest(plan) in self._plans:
            return self
        if document.path is not None and self._below(document.path) in self.written:
            raise made_by_run("a diagram", plan.name)
        place = None if document.path is None else self._below(document.path)
        if not self.granted.covers("diagram", ANY_DIAGRAM) and not (place and self._may_run(place)):
            name = plan.name if place is None else posixpath.join(posixpath.dirname(place), stem(place))
            raise NotGrantedError(
                f"The diagram '{plan.name}' was not part of what was shown before the run, or has changed since.",
                hint=f"Start the run again, so that it is shown; allow it ({granting([Use('diagram', name)])}); "
                "or trust the folder: dipeo-nb trust FOLDER.",
                kind="diagram",
                what=plan.name,
            )
        with self._admitting:  # children are started by several threads
            return self._admitted(document, plan)

    def _admitted(self, document: Diagram, plan: Plan) -> Gate:
        """Return this gate, extended by a diagram that was chosen during the run."""
        assert self.closure is not None
        found = closure(document, base_dir=self.base, plan=plan)
        for name in found.files:
            if self._below(self.base / name) in self.written:
                raise made_by_run("a part of a diagram", name)
        wanted = (
            beyond_guest(found.uses, model_chosen=self.model_chosen)
            if self.level is Level.GUEST
            else [
                u for u in found.uses if u.kind not in ("brings", "model", "event") and not (u.of_model and self.model_chosen)
            ]
        )
        any_diagram = self.granted.covers("diagram", ANY_DIAGRAM)
        missing = [
            u
            for u in wanted
            if not self.granted.includes(u) and not seen_later(u, self.granted) and not (u.kind == "diagram" and any_diagram)
        ]
        if missing:
            raise refusal_of_all(missing, plan.name)
        shown = self.closure
        # For files in both, the one that was shown before the run counts.
        self.closure = replace(
            shown,
            files={**found.files, **shown.files},
            uses=Capabilities(shown.uses | found.uses),
            modules=shown.modules | found.modules,
        )
        self._plans |= set(found.plans)
        return self

    def _may_run(self, place: str) -> bool:
        """Whether a diagram that is chosen during the run was allowed by its path, with or without its suffix."""
        names = (place, posixpath.join(posixpath.dirname(place), stem(place)))
        return any(u.kind == "diagram" and any(path_fits(name, u.what) for name in names) for u in self.granted)

    # Services.

    def _checked(self, services: Services) -> Services:
        files = GuestFiles(self, services.files) if self.level is Level.GUEST else TrustedFiles(self, services.files)
        db = self.db(files) if self.db is not None else CheckedDb(self, services.db)
        code = services.code
        return replace(
            services,
            files=files,
            db=db,
            http=CheckedHTTP(self, services.http),
            llm=CheckedModels(self, services.llm),
            code=lambda: CheckedCode(self, code),
            integrations=None if services.integrations is None else CheckedIntegrations(self, services.integrations),
            ir=None if services.ir is None else CheckedBuilder(self, services.ir),
        )

    def may_use(self, path: str, writing: bool) -> bool:
        """Whether a file below the base directory may be read or written.

        Args:
            path: after links.
        """
        assert self.closure is not None
        if writing:
            return self.granted.covers("write", path) and not self._is_program(path)
        return (
            path in ("", ".")
            or path in self.closure.files
            or self.granted.covers("read", path)
            or self.granted.covers("write", path)
        )

    def _is_program(self, path: str) -> bool:
        """Whether a file is executed by this diagram, or could be executed by something else without being named."""
        assert self.closure is not None
        if path in self.closure.files:
            return True
        name = posixpath.basename(path).casefold()
        if not name.endswith(PROGRAM_FILES):
            return False
        named = any(u.kind == "write" and posixpath.normpath(u.what) == path for u in self.granted)
        return not named or path.partition("/")[0].partition(".")[0] in self.closure.modules or "*" in self.closure.modules

    def _below(self, path: Path) -> str:
        base = self.base.resolve()
        place = path.resolve()
        return place.relative_to(base).as_posix() if place.is_relative_to(base) else str(place)
