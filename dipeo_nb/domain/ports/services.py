"""The services of a run, and what guards them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.ports.blobs import ArtifactStorePort, BlobStorePort
from dipeo_nb.domain.ports.code import ASTParserPort, CodeRunner, IRBuilderPort
from dipeo_nb.domain.ports.conversations import ConversationRepository, PersonRepository
from dipeo_nb.domain.ports.files import DBOperationsPort, FileSystemPort
from dipeo_nb.domain.ports.http import HTTPPort, IntegrationPort
from dipeo_nb.domain.ports.llm import APIKeyPort, LLMServicePort
from dipeo_nb.domain.ports.prompts import TemplateProcessorPort
from dipeo_nb.domain.ports.runs import EventBus, RunStore


class Clock(Protocol):
    """Time, ids and randomness, injected so that a replayed run is the recorded one."""

    @abstractmethod
    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    @abstractmethod
    def monotonic(self) -> float: ...

    @abstractmethod
    def new_id(self, prefix: str = "") -> str:
        """A fresh id: *prefix* and 32 hex digits."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The ports a run works with. Built by `container.build`; tests swap any of them with `dataclasses.replace`."""

    llm: LLMServicePort
    files: FileSystemPort
    db: DBOperationsPort
    store: RunStore
    bus: EventBus
    blobs: BlobStorePort
    artifacts: ArtifactStorePort
    """Over `blobs`."""
    conversations: ConversationRepository
    persons: PersonRepository
    keys: APIKeyPort
    templates: TemplateProcessorPort
    code: Callable[[], CodeRunner]
    """Makes the code runner of one run."""
    clock: Clock
    http: HTTPPort
    integrations: IntegrationPort | None = None
    """None: integrated_api nodes do not run. So with the next two and their nodes: this version ships no adapters of them."""
    typescript: ASTParserPort | None = None
    ir: IRBuilderPort | None = None


@runtime_checkable
class RunGate(Protocol):
    """What one run may do; `security.gate`."""

    @property
    @abstractmethod
    def services(self) -> Services:
        """The services, as far as the run may use them."""
        ...

    @property
    @abstractmethod
    def budget(self) -> Budget | None:
        """What the run may spend on models when nobody says more."""
        ...

    @abstractmethod
    def stamped(self, source: Mapping[str, Any] | None, *, whole: bool) -> Mapping[str, str] | None:
        """What is recorded about the decision.

        Args:
            source: the diagram.
            whole: it is recorded as it is; otherwise (it holds a credential) the stamp tells what exactly it was, without saying it.
        """
        ...

    @abstractmethod
    def sign(self, event: Event) -> Event:
        """An event of the run as it is recorded: with a signature, where a run could go on from it."""
        ...

    @abstractmethod
    def admit(self, events: Sequence[Event]) -> None:
        """Raises NotGrantedError when the run must not go on from these events of a record."""
        ...

    @abstractmethod
    def check(self, node: PlanNode, plan: Plan) -> None:
        """Raises NotGrantedError for a node that wants what was not granted."""
        ...

    @property
    @abstractmethod
    def sources(self) -> Mapping[str, bytes] | None:
        """The files that are run, as they were shown, by path below the base directory; None: those on the disk."""
        ...

    @abstractmethod
    def source(self, path: str, *, code: bool = False) -> bytes | None:
        """The bytes of a file that is run, as they were shown; None: read it. Raises NotGrantedError."""
        ...

    @abstractmethod
    def check_programs(self, names: Iterable[str], *, env: Mapping[str, str] | None = None, folder: str = "") -> None:
        """Raises NotGrantedError when files that a program may run, by name or by a variable, are not as they were shown."""
        ...

    @abstractmethod
    def child(self, document: Any, plan: Plan, record: Event | None = None) -> RunGate:
        """The gate of a sub-diagram; *record*: the first event of the run whose record it is from. Raises NotGrantedError."""
        ...
