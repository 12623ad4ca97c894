"""The gate of a run: its services, as far as its diagram may use them.

A run reaches the world through its services and by the code and commands of its nodes. For a diagram of the user's own the gate
is open: the services are those of the runtime. For any other one, each use is compared with what was granted when the run was
prepared: before a node begins (code, commands, functions), and in the services (files, servers, models). What is not granted is an
error of the node, never a question. Sub-diagrams get a gate from that of their parent.
"""

from __future__ import annotations

import enum
import inspect
import posixpath
import shlex
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal, cast, get_args

from dipeo_nb.common.paths import name_below
from dipeo_nb.common.root import Root
from dipeo_nb.common.scrub import logger
from dipeo_nb.diagram.closure import Closure, closure, environment_names, plan_digest
from dipeo_nb.diagram.detect import stem
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.capabilities import (
    ANY_DIAGRAM,
    ANYWHERE,
    DEFAULT_MODEL_USE,
    Capabilities,
    Kind,
    Use,
    model_field,
    origin,
    path_fits,
    uses_of,
)
from dipeo_nb.domain.chat import LLMRequest, StreamEvent
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports import (
    CodeRunner,
    DBOperationsPort,
    FileInfo,
    FileSystemPort,
    HTTPPort,
    HTTPResponse,
    IntegrationPort,
    IRBuilderPort,
    LLMServicePort,
    Services,
)
from dipeo_nb.domain.request_options import beyond_wording
from dipeo_nb.errors import NotGrantedError, StorageError, TrustError
from dipeo_nb.security.signatures import Signatures, holds_objects, signed

GUEST_CALLS, GUEST_TOKENS = 50, 200_000
"""Calls of models, and their tokens, that a guest's run may take unasked, with its sub-diagrams."""
PROGRAM_FILES = (".py", ".pyc", ".pyd", ".so", ".ipynb", ".sh", ".bash", ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts")
"""Endings of files that programs run: written only where the list names them."""
DIAGRAM_FILES = (".yaml", ".yml", ".json")
_BEFORE: Collection[Kind] = ("code", "process", "function", "service", "diagram")
"""Kinds that are looked at before a node begins, since its handler need not use a service for them."""

_LOG = logger(__name__)


class Level(enum.StrEnum):
    """Whose word a diagram is."""

    YOURS = "yours"
    """The user's own: everything below the base directory, except protected places."""
    TRUSTED = "trusted"
    """Somebody said yes to exactly this list."""
    GUEST = "guest"
    """Nobody has said anything: models within a budget, and a folder of its own."""


@dataclass
class Gate:
    """What one run, with its sub-diagrams, may do; see the module.

    Args:
        services: those of the runtime.
        drafts: makes the folder of a guest's files, when the first is written.
        db: makes the database service over checked files; None: the runtime's own is checked by name.
        decide: the gate of a sub-diagram that is not the user's own, in a run that is; raises TrustError.
        stamp: what is recorded about the decision.
        signatures: sign the record of the run, and tell whether other ones are of this user; None: nothing is signed.
        records: `own` takes up records of this user only, `data` also other ones that hold no objects of code, `any` all.
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
    """Remembers the content of a diagram that a guest was allowed to write among the user's files."""
    base: Path = Path()
    model_chosen: bool = False
    """Whether the user moved every person to a model: then what the persons' own models would do is not done."""
    written: set[str] = field(default_factory=set[str])
    """Paths below the base directory that this run has written; they are data, and never run by it."""
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
        """For diagrams that are made in code, and tests: everything is allowed."""
        return cls(Level.YOURS, services)

    # Before a node begins.

    def check(self, node: PlanNode, plan: Plan) -> None:
        """Raises NotGrantedError for a node whose fields want what was not granted."""
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
        """Raises NotGrantedError for a use that was not granted."""
        if self.level is not Level.YOURS and not self.granted.covers(kind, what):
            raise refusal(kind, what)

    @property
    def sources(self) -> Mapping[str, bytes] | None:
        """The files that are run, as they were when the run was prepared, by path below the base directory; None: those on the disk."""
        return None if self.level is Level.YOURS or self.closure is None else self.closure.files

    def source(self, path: str, *, code: bool = False) -> bytes | None:
        """The bytes of a file that is run, as they were when the run was prepared; None: read it.

        Args:
            code: it is code, which must be part of what was shown; a template whose name is made while the run goes on need not.

        Raises:
            NotGrantedError: the run has written it, or it was not there.
        """
        if self.sources is None:
            return None
        name = name_below(path, self.base)
        if name in self.sources:
            return self.sources[name]
        if code:
            raise _unshown(path)
        files = self.services.files
        if self._below(files.resolve(path)) in self.written:
            raise _made("a template", path)
        return None

    def check_programs(self, names: Iterable[str], *, env: Mapping[str, str] | None = None, folder: str = "") -> None:
        """Look whether files that a program may run are what was shown.

        Args:
            names: paths below the base directory; those that are no files do not matter.
            env: variables for the program; files and folders that they name are looked at, too.
            folder: where it runs, below the base directory.

        Raises:
            NotGrantedError: one has changed, was not there, or was written by this run.
        """
        sources = self.sources
        if sources is None:
            return
        root = Root(self.base)
        for name in names:
            self._check_program(name, root, sources)
        for name in environment_names(env, folder, root, self.base):
            if name not in sources and (self.base / name).is_file():
                raise _unshown(name)
            self._check_program(name, root, sources)

    def _check_program(self, name: str, root: Root, sources: Mapping[str, bytes]) -> None:
        if self.written and self._below(self.base / name) in self.written:
            raise _made("a program", name)
        if name not in sources:
            return
        try:
            same = root.read(name, len(sources[name])) == sources[name]
        except (OSError, StorageError):
            same = False
        if not same:
            raise NotGrantedError(
                f"The file '{name}' has changed since it was shown.",
                hint="Begin the run again, so that it is shown as it is now; or trust the folder: dipeo-nb trust FOLDER.",
                kind="code",
                what=name,
            )

    def stamped(self, source: Mapping[str, Any] | None, *, whole: bool) -> Mapping[str, str] | None:
        """What is recorded about the decision; of a diagram that is not recorded whole, also what exactly it was."""
        if whole or self.stamp is None or self.signatures is None or (mark := self.signatures.mark(source)) is None:
            return self.stamp
        return {**self.stamp, "whole": mark}

    def sign(self, event: Event) -> Event:
        """An event of the run as it is recorded."""
        return event if self.signatures is None else signed(event, self.signatures.of(event))

    def admit(self, events: Sequence[Event]) -> None:
        """Look whether a run may go on from these events of a record.

        Raises:
            NotGrantedError: they are not known to be of this user, and hold objects of code, or the run may do more than a guest.
        """
        if self.records == "any" or self.signatures is None or self.signatures.hold(events):
            return
        if (self.records == "data" or self.level is Level.GUEST) and not holds_objects(events):
            return
        raise NotGrantedError(
            f"The record of run {events[0].run_id} is not as this user's runs have written it.",
            hint="Run the diagram again; or look at it, and say yes with --trust (trust=True).",
            kind="code",
            what=events[0].run_id,
        )

    def child(self, document: Diagram, plan: Plan, record: Event | None = None) -> Gate:
        """The gate of a sub-diagram: never wider than this one.

        Args:
            record: the first event of the run that the diagram was recorded with, when it is not read from its file.

        Raises:
            NotGrantedError: it was not part of what was shown, and nobody allowed others.
        """
        if self.level is Level.YOURS:
            if (document.path is None and record is None) or self.decide is None:
                return self
            try:
                return self.decide(document, plan, record)
            except TrustError as error:
                raise NotGrantedError(
                    f"The diagram '{plan.name}' is not trusted, and wants more than to talk to models: "
                    f"{'; '.join(line.strip() for line in error.listing()[:3])}.",
                    hint=f"Look at it: dipeo-nb inspect {document.path}; then: dipeo-nb trust {document.path}",
                    kind="diagram",
                    what=plan.name,
                ) from error
        assert self.closure is not None
        if plan_digest(plan) in self._plans:
            return self
        if document.path is not None and self._below(document.path) in self.written:
            raise _made("a diagram", plan.name)
        place = None if document.path is None else self._below(document.path)
        if not self.granted.covers("diagram", ANY_DIAGRAM) and not (place and self._may_run(place)):
            name = plan.name if place is None else posixpath.join(posixpath.dirname(place), stem(place))
            raise NotGrantedError(
                f"The diagram '{plan.name}' was not part of what was shown before the run, or has changed since.",
                hint=f"Begin the run again, so that it is shown; allow it ({granting([Use('diagram', name)])}); "
                "or trust the folder: dipeo-nb trust FOLDER.",
                kind="diagram",
                what=plan.name,
            )
        with self._admitting:  # children are begun by several threads
            return self._admitted(document, plan)

    def _admitted(self, document: Diagram, plan: Plan) -> Gate:
        """This gate, with what a diagram brings that was chosen while the run went on."""
        assert self.closure is not None
        found = closure(document, base_dir=self.base, plan=plan)
        for name in found.files:
            if self._below(self.base / name) in self.written:
                raise _made("a part of a diagram", name)
        wanted = (
            beyond_guest(found.uses, model_chosen=self.model_chosen)
            if self.level is Level.GUEST
            else [u for u in found.uses if u.kind not in ("brings", "model", "event") and not (u.of_model and self.model_chosen)]
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
        # A file that both name is the one that was shown before the run.
        self.closure = replace(
            shown,
            files={**found.files, **shown.files},
            uses=Capabilities(shown.uses | found.uses),
            modules=shown.modules | found.modules,
        )
        self._plans |= set(found.plans)
        return self

    def _may_run(self, place: str) -> bool:
        """Whether a diagram that is chosen while the run goes on was allowed by its path, with or without its suffix."""
        names = (place, posixpath.join(posixpath.dirname(place), stem(place)))
        return any(u.kind == "diagram" and any(path_fits(name, u.what) for name in names) for u in self.granted)

    # Services.

    def _checked(self, services: Services) -> Services:
        files = _GuestFiles(self, services.files) if self.level is Level.GUEST else _TrustedFiles(self, services.files)
        db = self.db(files) if self.db is not None else _CheckedDb(self, services.db)
        code = services.code
        return replace(
            services,
            files=files,
            db=db,
            http=_CheckedHTTP(self, services.http),
            llm=_CheckedModels(self, services.llm),
            code=lambda: _CheckedCode(self, code),
            integrations=None if services.integrations is None else _CheckedIntegrations(self, services.integrations),
            ir=None if services.ir is None else _CheckedBuilder(self, services.ir),
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
        """Whether a file is run by this diagram, or could be run by something else without being named."""
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


def refusal(kind: str, what: str) -> NotGrantedError:
    """The error of a use that was not granted, with what grants it."""
    return NotGrantedError(
        f"This diagram was not allowed to {_deed(kind, what)}.",
        hint=f"Allow exactly that with {granting([Use(cast(Kind, kind), what)])}, or see all it wants: dipeo-nb inspect FILE.",
        kind=kind,
        what=what,
    )


def refusal_of_all(uses: Sequence[Use], diagram: str) -> NotGrantedError:
    """The error of a sub-diagram that was chosen while the run went on, with what grants all that it wants."""
    ordered = Capabilities(uses).of(*get_args(Kind))
    deeds = "; ".join(dict.fromkeys(_deed(use.kind, use.what) for use in ordered[:5]))
    return NotGrantedError(
        f"The diagram '{diagram}', which was chosen while the run went on, was not allowed to {deeds}{' …' if len(ordered) > 5 else ''}.",
        hint=f"Allow exactly that with {granting(ordered)}, beside what the run was given already.",
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
    """The option of the command line, and the argument, that allow some uses: `--allow code,read=a.csv (allow={'code': True, …})`."""
    valued: dict[str, list[str]] = {}
    for use in uses:
        named = use.kind in ("read", "write", "net", "service", "diagram") and use.what not in ("*", ANYWHERE, ANY_DIAGRAM)
        valued.setdefault(use.kind, []).append(use.what if named else "")
    valued = {kind: [] if "" in values else list(dict.fromkeys(values)) for kind, values in valued.items()}
    mapping = {kind: values[0] if len(values) == 1 else values or True for kind, values in valued.items()}
    argument = f"allow={mapping}"
    parts = [f"{kind}={value}" if value else kind for kind, values in valued.items() for value in values or ("",)]
    if any("," in part or not part.isprintable() or part != part.strip() for part in parts):
        return argument  # a comma would end the name on a command line, and what follows it would be allowed as well
    return f"--allow {shlex.quote(','.join(parts))} ({argument})"


def seen_later(use: Use, granted: Capabilities) -> bool:
    """Whether something of that kind is allowed, and only the run will show whether this is."""
    if use.kind == "diagram" and use.what == ANY_DIAGRAM:
        return any(u.kind == "diagram" for u in granted)
    return use.kind in ("read", "write", "net") and "*" in use.what and any(u.kind == use.kind for u in granted)


def _unshown(path: str) -> NotGrantedError:
    return NotGrantedError(
        f"The code file '{path}' was not part of what was shown before the run.",
        hint="Begin the run again with that file in place, so that it is shown; or trust the folder: dipeo-nb trust FOLDER.",
        kind="code",
        what=path,
    )


def _made(what: str, name: str) -> NotGrantedError:
    return NotGrantedError(
        f"'{name}' was written by this run, and what a run has written is not used as {what} in it.",
        hint="Look at the file, and run it afterwards; or trust the folder: dipeo-nb trust FOLDER.",
        kind="diagram",
        what=name,
    )


class _CheckedFiles:
    """Files that are chosen, or refused, for each use of them."""

    def __init__(self, gate: Gate, files: FileSystemPort) -> None:
        self._gate = gate
        self._files = files

    def _for(self, path: str | Path, writing: bool) -> FileSystemPort:
        raise NotImplementedError

    @property
    def base_path(self) -> Path:
        return self._files.base_path

    def resolve(self, path: str | Path) -> Path:
        return self._for(path, False).resolve(path)

    def read_bytes(self, path: str | Path) -> bytes:
        return self._for(path, False).read_bytes(path)

    def read_text(self, path: str | Path) -> str:
        return self._for(path, False).read_text(path)

    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        return self._for(path, True).write_bytes(path, data, create_only=create_only)

    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        return self._for(path, True).write_text(path, text, create_only=create_only)

    def exists(self, path: str | Path) -> bool:
        return self._for(path, False).exists(path)

    def stat(self, path: str | Path) -> FileInfo:
        return self._for(path, False).stat(path)

    def glob(self, pattern: str) -> list[Path]:
        return [path for path in self._files.glob(pattern) if self._visible(path)]

    def remove(self, path: str | Path) -> None:
        self._for(path, True).remove(path)

    def open(self, path: str | Path, mode: str = "r", encoding: str = "utf-8") -> IO[Any]:
        return self._for(path, any(c in mode for c in "wax+")).open(path, mode, encoding)

    def mkdir(self, path: str | Path, parents: bool = True, exist_ok: bool = True) -> None:
        self._for(path, True).mkdir(path, parents, exist_ok)

    def listdir(self, path: str | Path = ".") -> list[Path]:
        return [entry for entry in self._files.listdir(path) if self._visible(entry)]

    def rename(self, source: str | Path, target: str | Path) -> None:
        files = self._for(source, True)
        self._for(target, True)
        files.rename(source, target)

    def rmdir(self, path: str | Path, recursive: bool = False) -> None:
        self._for(path, True).rmdir(path, recursive)

    def copy(self, source: str | Path, target: str | Path) -> None:
        self.write_bytes(target, self.read_bytes(source))

    def size(self, path: str | Path) -> int:
        return self._for(path, False).size(path)

    def _visible(self, path: Path) -> bool:
        return self._gate.may_use(path.as_posix(), False)


class _TrustedFiles(_CheckedFiles):
    """The files of the base directory that are on the list, by their paths after links."""

    def __init__(self, gate: Gate, files: FileSystemPort) -> None:
        super().__init__(gate, files)
        restricted = getattr(files, "restricted", None)
        self._inner: FileSystemPort = files if restricted is None else restricted(self._check)

    def _check(self, path: str, writing: bool) -> str | None:
        if not self._gate.may_use(path, writing):
            raise refusal("write" if writing else "read", path)
        if writing:
            self._gate.written.add(path)
        return None

    def _for(self, path: str | Path, writing: bool) -> FileSystemPort:
        if self._inner is self._files:  # no adapter of ours: names are all there is to check
            base = str(self._files.base_path)
            text = str(path).removeprefix(f"{base}/")
            self._check(posixpath.normpath(text), writing)
        return self._inner


class _GuestFiles(_CheckedFiles):
    """A folder of its own for what it writes, the files that came with it, and what was allowed besides."""

    def __init__(self, gate: Gate, files: FileSystemPort) -> None:
        super().__init__(gate, files)
        self._allowed = _TrustedFiles(gate, files)
        self._drafts: FileSystemPort | None = None
        self._said = False

    def _own(self) -> FileSystemPort:
        if self._drafts is None:
            if self._gate.drafts is None:
                raise refusal("write", "files")
            self._drafts = self._gate.drafts()
        return self._drafts

    def _write_own(self) -> FileSystemPort:
        """The folder to write into; said once."""
        drafts = self._own()
        if not self._said:
            self._said = True
            _LOG.warning(
                "This diagram is not trusted, so its files are written into %s; to have them where it names them, "
                "say yes to it (--trust, trust=True), or trust its folder (dipeo-nb trust FOLDER).",
                drafts.base_path,
            )
        return drafts

    def _for(self, path: str | Path, writing: bool) -> FileSystemPort:
        gate = self._gate
        name = posixpath.normpath(str(path))
        if name in (".", ""):
            return self._files
        if gate.granted.covers("write" if writing else "read", name):
            return self._allowed
        if writing:
            return self._write_own()
        if name not in self._brought and (gate.granted.covers("write", name) or self._own().exists(path)):
            return self._allowed if gate.granted.covers("write", name) else self._own()
        if name in self._brought:
            return self._allowed
        if self._wrote_like(name):
            return self._own()
        raise refusal("read", name)

    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        files = self._for(path, True)
        if files is self._allowed and str(path).casefold().endswith(DIAGRAM_FILES):
            self._gate.made(data)  # first: what is there and not remembered could be taken for the user's own
        return files.write_bytes(path, data, create_only=create_only)

    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        return self.write_bytes(path, text.encode(), create_only=create_only)

    @property
    def _brought(self) -> Mapping[str, bytes]:
        assert self._gate.closure is not None
        return self._gate.closure.files

    def _wrote_like(self, name: str) -> bool:
        """Whether it may write that file, so that it may also find that it is not there."""
        assert self._gate.closure is not None
        return self._gate.closure.uses.covers("write", name)

    def read_bytes(self, path: str | Path) -> bytes:
        name = posixpath.normpath(str(path))
        if name in self._brought and not (self._drafts is not None and self._drafts.exists(path)):
            return self._brought[name]
        return super().read_bytes(path)

    def read_text(self, path: str | Path) -> str:
        name = posixpath.normpath(str(path))
        if name in self._brought:
            return self.read_bytes(path).decode("utf-8-sig")
        return super().read_text(path)

    def glob(self, pattern: str) -> list[Path]:
        return sorted({*super().glob(pattern), *self._own().glob(pattern)})


class _CheckedDb:
    """A database service that is not ours: files are checked by name."""

    def __init__(self, gate: Gate, db: DBOperationsPort) -> None:
        self._gate = gate
        self._db = db

    async def execute_operation(self, db_name: str, operation: str, *args: Any, **options: Any) -> dict[str, Any]:
        if operation != "prompt":
            self._gate.require("read" if operation == "read" else "write", posixpath.normpath(db_name))
        return await self._db.execute_operation(db_name, operation, *args, **options)


class _CheckedHTTP:
    """Requests to the servers on the list, also by redirects."""

    def __init__(self, gate: Gate, http: HTTPPort) -> None:
        self._gate = gate
        self._http = http
        self._follows = "allowed" in inspect.signature(http.request).parameters

    async def request(self, method: str, url: str, **options: Any) -> HTTPResponse:
        self._gate.require("net", origin(url))
        for name, value in (options.get("headers") or {}).items():
            if str(name).lower() == "host":  # servers of many names, such as CDNs, go by it
                self._gate.require("net", origin(f"{url.partition('://')[0]}://{value}"))
        if self._follows:
            options["allowed"] = lambda server: self._gate.granted.covers("net", server)
        return await self._http.request(method, url, **options)


class _CheckedIntegrations:
    """The operations of providers that are on the list."""

    def __init__(self, gate: Gate, integrations: IntegrationPort) -> None:
        self._gate = gate
        self._integrations = integrations

    def operations(self) -> Mapping[str, Sequence[str]]:
        return self._integrations.operations()

    async def execute(self, provider: str, operation: str, **options: Any) -> Any:
        self._gate.require("service", f"{provider}.{operation}")
        return await self._integrations.execute(provider, operation, **options)


class _CheckedBuilder:
    """A builder of intermediate forms, which reads its configuration by itself: from files on the list."""

    def __init__(self, gate: Gate, builder: IRBuilderPort) -> None:
        self._gate = gate
        self._builder = builder

    async def build(self, source: Any, options: Mapping[str, Any]) -> Any:
        if path := options.get("config_path"):
            self._gate.require("read", name_below(str(path), self._gate.base))
        return await self._builder.build(source, options)


class _CheckedModels:
    """Models within the budget, at servers that the diagram does not choose unless they are on the list."""

    def __init__(self, gate: Gate, models: LLMServicePort) -> None:
        self._gate = gate
        self._models = models

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    def _admitted(self, request: LLMRequest) -> LLMRequest:
        if request.base_url:
            self._gate.require("net", origin(request.base_url))
        for path, _ in beyond_wording(request.extra):
            self._gate.require("service", model_field(request.service, path))
        if request.budget is None and self._gate.budget is not None:
            return replace(request, budget=self._gate.budget)
        return request

    def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        return self._models.stream(self._admitted(request))

    async def complete(self, request: LLMRequest) -> Any:
        return await self._models.complete(self._admitted(request))


class _CheckedCode:
    """The code runner of a run; it is made only for a diagram whose code was granted."""

    def __init__(self, gate: Gate, make: Callable[[], CodeRunner]) -> None:
        self._gate = gate
        self._make = make
        self._runner: CodeRunner | None = None

    async def run_python(self, code: str, **options: Any) -> Any:
        gate = self._gate
        if not any(u.kind == "code" for u in gate.granted):
            raise refusal("code", options.get("filename", "Python"))
        if self._runner is None:
            self._runner = self._make()
        return await self._runner.run_python(code, modules=gate.sources, **options)

    async def cleanup(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


def beyond_guest(uses: Capabilities, *, paid: bool = True, free_default: bool = False, model_chosen: bool = False) -> list[Use]:
    """The uses that an untrusted diagram is not granted unasked.

    Args:
        paid: whether models may be called within the budget.
        free_default: the model of a person that names none costs nothing.
    """
    found: list[Use] = []
    for use in uses:
        if use.of_model and model_chosen:
            continue
        match use.kind:
            case "brings" | "event" | "write":
                continue  # what it writes goes into a folder of its own
            case "model" if paid or use.what.partition(":")[0] in FREE:
                continue
            case "model" if free_default and use.what == DEFAULT_MODEL_USE:
                continue
            case "read" if any(w.kind == "write" and w.what == use.what and w.node != use.node for w in uses):
                continue  # it reads what it has written
            case _:
                found.append(use)
    return found


FREE = frozenset({"echo", "local", "ollama"})
"""Services of models that cost nothing."""
