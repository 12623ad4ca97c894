"""The services of a run, and its gate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dipeo_nb.domain.events import Event
from dipeo_nb.domain.ports.blobs import ArtifactStorePort, BlobStorePort
from dipeo_nb.domain.ports.code import ASTParserPort, CodeRunner, IRBuilderPort
from dipeo_nb.domain.ports.conversations import ConversationRepository, PersonRepository
from dipeo_nb.domain.ports.files import DBOperationsPort, FileSystemPort
from dipeo_nb.domain.ports.http import HTTPPort, IntegrationPort
from dipeo_nb.domain.ports.llm import APIKeyPort, LLMServicePort
from dipeo_nb.domain.ports.prompts import TemplateProcessorPort
from dipeo_nb.domain.ports.runs import EventBus, RunStore

if TYPE_CHECKING:  # opening a store needs no plans
    from dipeo_nb.domain.budget import Budget
    from dipeo_nb.domain.plan import Plan, PlanNode


class Clock(Protocol):
    """Time, ids and randomness, injected so that a replay equals the recorded run."""

    @abstractmethod
    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    @abstractmethod
    def monotonic(self) -> float: ...

    @abstractmethod
    def new_id(self, prefix: str = "") -> str:
        """Return a new id: *prefix* and 32 hex digits."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The ports that a run uses. Built by `container.build`; tests replace any of them with `dataclasses.replace`."""

    llm: LLMServicePort
    files: FileSystemPort
    db: DBOperationsPort
    store: RunStore
    bus: EventBus
    blobs: BlobStorePort
    artifacts: ArtifactStorePort
    """Uses `blobs`."""
    conversations: ConversationRepository
    persons: PersonRepository
    keys: APIKeyPort
    templates: TemplateProcessorPort
    code: Callable[[], CodeRunner]
    """Creates the code runner of one run."""
    clock: Clock
    http: HTTPPort
    integrations: IntegrationPort | None = None
    """None: integrated_api nodes are unavailable, as this version has no adapter for them; likewise for the next two and their nodes."""
    typescript: ASTParserPort | None = None
    ir: IRBuilderPort | None = None


@runtime_checkable
class RunGate(Protocol):
    """Permissions of one run; see `security.gate`."""

    @property
    @abstractmethod
    def services(self) -> Services:
        """The services, restricted to what the run may use."""
        ...

    @property
    @abstractmethod
    def budget(self) -> Budget | None:
        """What the run may spend on models without further approval."""
        ...

    @abstractmethod
    def stamped(self, source: Mapping[str, Any] | None, *, whole: bool) -> Mapping[str, str] | None:
        """Return the record of the decision.

        Args:
            source: the diagram.
            whole: it is recorded as it is; otherwise (it holds a credential) the stamp identifies it without revealing it.
        """
        ...

    @abstractmethod
    def sign(self, events: list[Event]) -> list[Event]:
        """Return events as recorded: those that a run could resume from with a signature."""
        ...

    @abstractmethod
    def admit(self, events: Sequence[Event]) -> None:
        """Raise NotGrantedError when the run must not resume from these events of a record."""
        ...

    @abstractmethod
    def check(self, node: PlanNode, plan: Plan) -> None:
        """Raise NotGrantedError for a node that needs what was not granted."""
        ...

    @property
    @abstractmethod
    def sources(self) -> Mapping[str, bytes] | None:
        """The executed files as they were shown, by path below the base directory; None: those on disk."""
        ...

    @abstractmethod
    def source(self, path: str, *, code: bool = False) -> bytes | None:
        """Return the bytes of an executed file as they were shown; None: read it. Raises NotGrantedError."""
        ...

    @abstractmethod
    def check_programs(self, names: Iterable[str], *, env: Mapping[str, str] | None = None, folder: str = "") -> None:
        """Raise NotGrantedError when files that a program may execute, by name or variable, differ from those that were shown."""
        ...

    @abstractmethod
    def child(self, document: Any, plan: Plan, record: Event | None = None) -> RunGate:
        """Return the gate of a sub-diagram; *record*: the first event of the run whose record it is from. Raises NotGrantedError."""
        ...
