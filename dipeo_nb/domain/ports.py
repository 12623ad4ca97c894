"""Every seam of the system, in one place; adapters live in the rooms above.

A class that inherits a port and lacks a method of it cannot be instantiated: Python's TypeError lists what is missing. One that
only looks like it is checked where it is handed over (`container.build`), and behaves like it when it passes the port's contract
(`dipeo_nb.testing.contracts`). The few methods with a body here may be left out: opening and closing, where there is nothing
to open or close, and what a store may be unable to do.

All errors named here are from `dipeo_nb.errors`. Methods that touch the outside are async unless said otherwise.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal, NamedTuple, Protocol, runtime_checkable

from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, Message, StreamEvent
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.domain.enums import EventPriority, EventType
from dipeo_nb.domain.events import Event, RunSummary
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.errors import StorageError


@runtime_checkable
class LLMClient(Protocol):
    """One provider's models. Born, used and closed on the library's loop thread."""

    @property
    @abstractmethod
    def provider(self) -> str:
        """Service name, e.g. `openai`."""
        ...

    async def prepare(self) -> None:
        """Load what a first call needs, such as the provider's package: the time limit of a call does not count it. Default: nothing.

        Raises:
            MissingDependencyError: the provider's package is not installed.
        """

    @abstractmethod
    def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        """Answer *request* piece by piece; the last event is `end` with the whole response.

        Cancelling the iteration stops the work and closes the connection. What the provider reports of tokens before the end is
        kept with `request.note`, so that an answer that breaks off is booked; one that failed for good carries it as `usage`.

        Raises:
            LLMError: a subclass for each cause; vendor errors never pass through.
            APIKeyNotFoundError: a key is needed and there is none.
            MissingDependencyError: the provider's package is not installed.
        """
        ...

    async def cleanup(self) -> None:
        """Close connections and free memory. Safe to call twice. Default: nothing to close."""


@runtime_checkable
class LLMServicePort(Protocol):
    """All models behind one door: chooses the client by `request.service`, fills defaults, counts cost."""

    @property
    @abstractmethod
    def services(self) -> Sequence[str]:
        """Names of the services that requests can go to."""
        ...

    @abstractmethod
    def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        """As `LLMClient.stream`.

        Raises:
            UnsupportedError: no such service; the message lists the choices and the nearest.
        """
        ...

    @abstractmethod
    async def complete(self, request: LLMRequest) -> LLMResponse:
        """The whole answer at once; same errors."""
        ...

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""


class FileInfo(NamedTuple):
    """What a file system knows about a file."""

    path: Path
    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch."""
    is_dir: bool = False
    created: float | None = None
    """Seconds since the epoch; None where that is not known."""
    mime_type: str | None = None
    """By the ending of the name; None for folders and endings that say nothing."""


@runtime_checkable
class FileSystemPort(Protocol):
    """Files below one base directory. Every path is confined: outside it is a StorageError before anything happens.

    Synchronous, like the files of the standard library; the engine calls it through a worker thread.
    """

    @property
    @abstractmethod
    def base_path(self) -> Path: ...

    @abstractmethod
    def resolve(self, path: str | Path) -> Path:
        """The confined absolute path.

        Raises:
            StorageError: absolute elsewhere, `..` or a symbolic link that leads out, NUL, empty, reserved or overlong
                name, not a regular file.
        """
        ...

    @abstractmethod
    def read_bytes(self, path: str | Path) -> bytes:
        """Raises StorageError: missing (`cause='not_found'`), a directory, not readable, above the size limit."""
        ...

    @abstractmethod
    def read_text(self, path: str | Path) -> str:
        """UTF-8 (a BOM is dropped). Raises as `read_bytes`, and when the bytes are not UTF-8."""
        ...

    @abstractmethod
    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        """Write atomically (old or new content, never a mix), making parent folders. Returns the size in bytes.

        Args:
            create_only: only where there is nothing of that name; of several writers, also in other processes, one succeeds.

        Raises StorageError: disk full, read-only, above the size limit, `exists` (create_only).
        """
        ...

    @abstractmethod
    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        """As `write_bytes`, UTF-8."""
        ...

    @abstractmethod
    def exists(self, path: str | Path) -> bool: ...

    @abstractmethod
    def stat(self, path: str | Path) -> FileInfo:
        """Raises StorageError when missing."""
        ...

    @abstractmethod
    def glob(self, pattern: str) -> list[Path]:
        """Files matching *pattern* (`*`, `?`, `[…]`, `**`), confined, sorted, relative to the base."""
        ...

    @abstractmethod
    def remove(self, path: str | Path) -> None:
        """Raises StorageError when missing or a directory."""
        ...

    @abstractmethod
    def open(self, path: str | Path, mode: str = "r", encoding: str = "utf-8") -> IO[Any]:
        """A file as Python's `open` gives it: r, w, x, a, with b and +. What is written appears at the close, as a whole; a
        `with` block that ends in an error changes nothing.

        Raises StorageError: as `read_bytes` and `write_bytes`; `unsupported` for other modes.
        """
        ...

    @abstractmethod
    def mkdir(self, path: str | Path, parents: bool = True, exist_ok: bool = True) -> None:
        """Raises StorageError: `exists`, `not_found` (without *parents*), `not_a_directory`."""
        ...

    @abstractmethod
    def listdir(self, path: str | Path = ".") -> list[Path]:
        """Files and folders in a folder, sorted, relative to the base. Raises StorageError: `not_found`, `not_a_directory`."""
        ...

    @abstractmethod
    def rename(self, source: str | Path, target: str | Path) -> None:
        """Move a file or folder; a file takes the place of a file that is there, in one step.

        Raises StorageError: `not_found`, `exists` (a folder is there, or a file where a folder is to go).
        """
        ...

    @abstractmethod
    def rmdir(self, path: str | Path, recursive: bool = False) -> None:
        """Raises StorageError: `not_found`, `not_a_directory`, `not_empty` (without *recursive*)."""
        ...

    @abstractmethod
    def copy(self, source: str | Path, target: str | Path) -> None:
        """Copy a file, in place of one that is there. Raises StorageError as `read_bytes` and `write_bytes`."""
        ...

    @abstractmethod
    def size(self, path: str | Path) -> int:
        """Bytes of a file. Raises StorageError: `not_found`, `is_directory`."""
        ...


@runtime_checkable
class DBOperationsPort(Protocol):
    """Files as a small database; see `storage.json_db`."""

    @abstractmethod
    async def execute_operation(
        self,
        db_name: str,
        operation: str,
        value: Any = None,
        keys: str | Iterable[str] | None = None,
        lines: Any = None,
        *,
        format: str | None = None,
    ) -> dict[str, Any]:
        """`{"value": …, "metadata": {…}}` of one operation on one file.

        Raises:
            ValidationError: an unknown operation, a value or keys that do not fit, content that is not of its format.
            StorageError: no such file (`not_found`), a bad path, too large, not readable.
        """
        ...


BlobData = bytes | BinaryIO | AsyncIterable[bytes]
"""Bytes, an open binary file (read to its end, not closed), or pieces as they come."""


class BlobVersion(NamedTuple):
    """One version of a blob."""

    key: str
    version: str
    size: int
    """Bytes."""
    created: float
    """Seconds since the epoch."""
    current: bool
    metadata: Mapping[str, str]
    checksum: str | None = None
    """SHA-256 in hex; None where the store does not know it."""


@runtime_checkable
class BlobStorePort(Protocol):
    """Named bytes in versions. Keys are relative paths with `/`; a key may be the beginning of another.

    A put is seen whole or not at all, whatever kills the writer; what was acknowledged stays. Streams go through in bounded
    memory. Keys that leave the store (`..`, absolute, control characters …) are a StorageError with cause `refused`.
    """

    @abstractmethod
    async def put(
        self, key: str, data: BlobData, metadata: Mapping[str, str] | None = None, *, create_only: bool = False
    ) -> str:
        """Store a new current version and return its id.

        Raises:
            StorageError: `exists` (create_only and there is one), `too_large`, `disk_full`, `read_only`, `permission`,
                `unavailable` (a server that cannot be reached).
        """
        ...

    @abstractmethod
    async def get(self, key: str, version: str | None = None) -> BinaryIO:
        """An open binary file, to be closed by the caller. Raises StorageError `not_found`."""
        ...

    @abstractmethod
    async def exists(self, key: str, version: str | None = None) -> bool:
        """Raises StorageError when that cannot be told (forbidden, unreachable)."""
        ...

    @abstractmethod
    async def delete(self, key: str, version: str | None = None) -> None:
        """Delete one version, or the key with all of them. What is not there is no error."""
        ...

    @abstractmethod
    def list(self, prefix: str = "", limit: int = 1000) -> AsyncIterator[str]:
        """Keys that begin with *prefix*, sorted, *limit* at most."""
        ...

    async def versions(self, key: str) -> Sequence[BlobVersion]:
        """Newest first; empty when there is no such key. What is put right now is listed as the current one, or not yet.

        Raises StorageError `unsupported` where the store has no versions; so does this default.
        """
        raise StorageError(
            f"{type(self).__name__} does not list versions.", hint="Use a store with versions.",
            operation="versions", path=key, cause="unsupported",
        )  # fmt: skip

    @abstractmethod
    async def presign_url(self, key: str, operation: str = "GET", expires_in: int = 3600) -> str:
        """A URL for one operation (GET, PUT, DELETE, HEAD) that works for *expires_in* seconds.

        Raises StorageError `unsupported` for what the store has no URLs for.
        """
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something to keep under a name and a version: a model, a data set, a report."""

    name: str
    """May have parts: `models/classifier`."""
    version: str
    data: BlobData
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """JSON values."""
    tags: tuple[str, ...] = ()


class ArtifactRef(NamedTuple):
    """One version of an artifact in a store."""

    name: str
    version: str
    uri: str
    """`artifact:name@version`; `%` and `@` within the two are written `%25` and `%40`."""
    size: int
    """Bytes."""
    created: float
    """When it was pushed, in seconds since the epoch."""
    metadata: Mapping[str, Any]
    checksum: str
    """SHA-256 in hex."""


@runtime_checkable
class ArtifactStorePort(Protocol):
    """Artifacts in versions, with stages and tags. Names, versions and tags are relative paths without parts that begin with `@`.

    A push is seen whole or not at all. Nothing here is read, changed and written back: processes that push, promote and tag at
    the same time lose nothing. Every method raises StorageError as the blob store below it does.
    """

    @abstractmethod
    async def push(self, artifact: Artifact, *, create_only: bool = False) -> ArtifactRef:
        """Store a version; one that is there already is replaced, and is then the newest. Its tags are added to those it has.

        Of several pushes that make the same version at the same time, one succeeds.

        Args:
            create_only: a version that is there already is an error.

        Raises:
            StorageError: `exists` (create_only and there is one, or another push made it meanwhile), `refused` (name, version
                or tag), `not_json` (metadata). Nothing of the push is left then.
            ValidationError: the tags are one string, not several.
        """
        ...

    @abstractmethod
    async def pull(self, ref: ArtifactRef, folder: Path | None = None) -> Path:
        """Write the content to a file and return its path.

        Args:
            folder: the file is `folder/name` and appears whole; None: a temporary file, removed by `cleanup`.

        Raises:
            StorageError: `not_found`; `corrupt` when the content is not what was pushed (no file is left).
        """
        ...

    @abstractmethod
    async def list_versions(self, name: str) -> Sequence[ArtifactRef]:
        """Newest first, each once; empty for an unknown name."""
        ...

    @abstractmethod
    async def promote(self, ref: ArtifactRef, stage: str) -> None:
        """Make *ref* the version of a stage: dev, staging, prod or latest.

        Raises:
            ValidationError: another stage.
            StorageError: `not_found`.
        """
        ...

    @abstractmethod
    async def tag(self, ref: ArtifactRef, tags: Iterable[str]) -> None:
        """Add *tags*. Raises StorageError `not_found`, `refused`; ValidationError when they are one string, not several."""
        ...

    @abstractmethod
    async def find_by_tag(self, tag: str) -> Sequence[ArtifactRef]:
        """All versions with exactly that tag, by name, newest first."""
        ...

    @abstractmethod
    async def get_latest(self, name: str, stage: str | None = None) -> ArtifactRef | None:
        """The version of a stage; None when nothing was promoted to it, or there is no such stage or name.

        Without a stage, and for `latest`: the version that was last pushed or promoted to `latest`.
        """
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Remove temporary files. Safe to call twice. Default: nothing to close."""


@runtime_checkable
class ConversationRepository(Protocol):
    """Messages in the order in which they were added, each of one execution.

    Without an `execution_id`, methods see all executions. What they return are copies: changing them changes nothing here.
    """

    @abstractmethod
    async def add_message(
        self, message: Message, execution_id: str | None = None, node_id: str | None = None
    ) -> Message:
        """Append and return the message as it is kept: with an id when it had none, `node_id` when given, and
        `execution_id` and `node_id` in its metadata.

        Raises:
            StorageError: `exists` (the execution has a message with that id), `not_json` (metadata), `unavailable` …
        """
        ...

    @abstractmethod
    async def get_messages(self, execution_id: str | None = None, *, limit: int | None = None) -> list[Message]:
        """In order; only the last *limit* when given."""
        ...

    @abstractmethod
    async def get_global_conversation(self) -> list[Message]:
        """All messages of all executions, in order."""
        ...

    @abstractmethod
    async def get_conversation_history(self, person_id: str, execution_id: str | None = None) -> list[dict[str, Any]]:
        """Messages from and to a person, as mappings with `role` (assistant: the person spoke; system: the system did; else
        user), `content`, `from_person_id`, `to_person_id`, `timestamp`, `metadata`."""
        ...

    @abstractmethod
    async def get_message_count(self, execution_id: str | None = None) -> int: ...

    @abstractmethod
    async def get_latest_message(self, execution_id: str | None = None) -> Message | None: ...

    @abstractmethod
    async def clear(self, execution_id: str | None = None) -> None:
        """Forget one execution's messages, or all."""
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""


@runtime_checkable
class PersonRepository(Protocol):
    """Persons by id."""

    @abstractmethod
    async def get(self, person_id: str) -> DomainPerson:
        """Raises KeyError when there is none."""
        ...

    @abstractmethod
    async def save(self, person: DomainPerson) -> None:
        """Keep *person*, in place of the one with its id. Raises StorageError `not_json` (extra keys of its model)."""
        ...

    @abstractmethod
    async def create(self, person_id: str, name: str, llm_config: LLMConfig | None = None) -> DomainPerson:
        """Make and keep a person; without a configuration it gets the default model of the settings.

        Raises StorageError `exists`.
        """
        ...

    @abstractmethod
    async def get_or_create(self, person_id: str, name: str, llm_config: LLMConfig | None = None) -> DomainPerson:
        """The person with that id, made when there is none."""
        ...

    @abstractmethod
    async def register_person(self, person_id: str, config: LLMConfig) -> DomainPerson:
        """Keep a person that is called as its id, in place of one that is there."""
        ...

    @abstractmethod
    async def delete(self, person_id: str) -> None:
        """What is not there is no error."""
        ...

    @abstractmethod
    async def exists(self, person_id: str) -> bool: ...

    @abstractmethod
    async def get_all(self) -> dict[str, DomainPerson]:
        """By id, in the order in which they were first kept."""
        ...

    @abstractmethod
    async def get_by_service(self, service: str) -> list[DomainPerson]:
        """Persons whose model is of a service; aliases are understood (`claude` is `anthropic`)."""
        ...

    @abstractmethod
    async def clear(self) -> None: ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    async def cleanup(self) -> None:
        """Safe to call twice. Default: nothing to close."""


@runtime_checkable
class RunStore(Protocol):
    """The log of every run: append only, numbered without gap, committed before anyone sees an event."""

    @abstractmethod
    async def append(self, events: Sequence[Event]) -> None:
        """Commit *events* (all of one run, consecutive `seq`) in one transaction, all or nothing.

        The first event of a run must be `execution_started` with seq 1. A cancelled append has ended when the CancelledError is
        raised: all of the batch is stored or nothing (`run` tells which), and the next append goes on from there.

        Raises:
            StorageError: whatever goes wrong: a gap or repeat in `seq`, a final event already there, payload not JSON, disk
                full, read-only. Nothing of the batch is then stored.
        """
        ...

    @abstractmethod
    async def events(self, run_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """Events with seq greater than *after*, in order; empty for an unknown run."""
        ...

    @abstractmethod
    async def runs(
        self,
        *,
        limit: int = 100,
        status: str | None = None,
        diagram: str | None = None,
        parent: str | None = None,
        nested: bool = False,
    ) -> list[RunSummary]:
        """Newest first, runs going on included. A run whose process is gone is `interrupted`.

        Args:
            parent: only the runs of sub-diagrams that this run began.
            nested: also runs of sub-diagrams; without it, and without *parent*, they are left out.
        """
        ...

    @abstractmethod
    async def run(self, run_id: str) -> RunSummary | None:
        """One row; None when unknown."""
        ...

    @abstractmethod
    async def claim(self, run_id: str, *, mine: bool = False) -> None:
        """Make a run that ended failed or aborted, or whose process is gone, one of this process that can be appended to.

        Only one of several processes that claim at the same time gets it.

        Args:
            mine: also when the process is this one: the caller knows that the run does not go on.

        Raises:
            StorageError: `not_found`, `completed`, or `going_on` (another process, or this one).
        """
        ...

    @abstractmethod
    async def delete(self, *run_ids: str, mine: bool = False, compact: bool = True) -> list[str]:
        """Forget runs with the runs of their sub-diagrams, all of them or none; unknown ones are ignored.

        Args:
            mine: also runs that this process began or claimed and that have no final event: the caller knows that they do not go on.
            compact: give their space back at once, see `compact`.

        Returns:
            The ids of all that are gone.

        Raises:
            StorageError: `going_on`, one of them lives, or is a part of a run that does; its `run_id` says which.
        """
        ...

    async def compact(self) -> None:
        """Give the space of deleted runs back. Default: the store does so by itself."""

    async def beat(self, run_id: str) -> bool:
        """Note that the run lives, whatever it waits for; called every few seconds. False: somebody else has claimed it since, and
        it is to end. Default: the store needs no heartbeat."""
        return True

    async def put_answer(self, run_id: str, request_id: str, answer: str) -> None:
        """Leave an answer to a question of a run for the process that has the run, or will have it. The first one counts.

        Raises:
            StorageError: `answered`, there is one already; `unsupported` (the default), the store keeps no answers.
        """
        raise StorageError(
            f"{type(self).__name__} keeps no answers.",
            hint="Answer where the run goes on.",
            operation="answer",
            run_id=run_id,
            cause="unsupported",
        )

    async def answers(self, run_id: str) -> dict[str, str]:
        """request_id → answer that was left for a run. Default: none."""
        return {}

    async def drop_answer(self, run_id: str, request_id: str) -> None:
        """Forget an answer that was left: it is recorded, or its question is over. Default: nothing."""

    async def initialize(self) -> None:
        """Open and, when needed, migrate. Raises StorageError when the file is not a run store or too new. Default: nothing
        to open."""

    async def cleanup(self) -> None:
        """Close. Safe to call twice. Default: nothing to close."""


EventHandler = Callable[[Event], Awaitable[None] | None]
Overflow = Literal["block", "drop_oldest", "error"]
"""What happens when an async handler is too slow and its queue is full: `block` makes the publisher wait for room;
`drop_oldest` drops, of what waits, the oldest event of the lowest priority, and counts it (the store has it); `error` ends the
subscription, and says so."""


class Subscription(NamedTuple):
    """Handed out by `EventBus.subscribe`, taken by `unsubscribe`."""

    id: int


@runtime_checkable
class EventBus(Protocol):
    """Distributes events that are already stored. Never a second source of truth. Lives on the library's loop."""

    @abstractmethod
    async def publish(self, event: Event) -> None:
        """A batch of one."""
        ...

    @abstractmethod
    async def publish_batch(self, events: Sequence[Event]) -> None:
        """Hand *events* to the subscribers, each in order; all of them or none. Waits for handlers only where a subscription
        says `block`, and does not raise for them.

        Raises:
            EventBusError: nothing was published; `cause` is `invalid` (one of them is no event, or no JSON where it has to
                travel) or `unavailable` (a server cannot be reached, and what waits for it has reached its limit).
        """
        ...

    @abstractmethod
    def subscribe(
        self,
        handler: EventHandler,
        *,
        types: Iterable[EventType] | None = None,
        run_id: str | None = None,
        where: Callable[[Event], bool] | None = None,
        priority: EventPriority = EventPriority.NORMAL,
        max_queue_size: int | None = None,
        overflow: Overflow | None = None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> Subscription:
        """Call *handler* for each event that fits, from now on.

        A plain handler is called at once, those of higher priority first. An async one has a queue and a task of its own: it
        gets its events in order, and a slow one delays nobody. A handler that raises is logged, told to *on_error*, counted
        in `stats`, and stays subscribed.

        Args:
            types, run_id, where: only these types, this run, events for which *where*, a plain function, is true. One that raises is
                treated as a handler that does.
            max_queue_size, overflow: events that may wait for an async handler, and what then; default: the bus's own.
            on_error: called with what the handler raised, or with the EventBusError that ends the subscription.

        Raises:
            EventBusError: `invalid`, *where* is an async function.
        """
        ...

    @abstractmethod
    def unsubscribe(self, subscription: Subscription) -> None:
        """Nothing comes any more, also nothing that waits. Unknown subscriptions are ignored."""
        ...

    @abstractmethod
    async def drain(self) -> None:
        """Return when everything published here so far has been handled here."""
        ...

    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """`published` (events), and `subscribers`: of each `id`, `priority`, `delivered`, `dropped`, `failed`, `waiting`."""
        ...

    async def initialize(self) -> None:
        """Open what is needed, before anything else. Default: nothing to open."""

    @abstractmethod
    async def cleanup(self) -> None:
        """Drain, then stop. Safe to call twice."""
        ...

    async def __aenter__(self) -> EventBus:
        """Initialised."""
        await self.initialize()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Cleaned up."""
        await self.cleanup()


@runtime_checkable
class APIKeyPort(Protocol):
    """Where API keys come from. Secrets leave only through `get_api_key`, and only as `SecretStr`-like objects; whoever hands
    one out makes it known to `common.scrub.redactor`.

    Every method raises APIKeyError when the place where the keys are cannot be used, and changes nothing then.
    """

    @abstractmethod
    async def get_api_key(self, key_id: str) -> Any:
        """The secret (`pydantic.SecretStr`) for a key id (`APIKEY_52609F`), a service, an alias or the name of a model.

        Raises:
            APIKeyNotFoundError: none there; the hint names the variable, the command to store one and `--model local`.
        """
        ...

    @abstractmethod
    async def set_api_key(self, key_id: str, key: str) -> None:
        """Keep *key* under an id or a service, in place of the one that is there. Raises APIKeyError when this store is
        read-only."""
        ...

    @abstractmethod
    async def delete_api_key(self, key_id: str) -> None:
        """Raises APIKeyNotFoundError when there is none, APIKeyError when this store is read-only."""
        ...

    @abstractmethod
    async def list_api_keys(self) -> list[dict[str, Any]]:
        """id, label, service and a masked form of each (`key`), and where it is from (`source`, optional); never a secret."""
        ...


class TemplateResult(NamedTuple):
    """A rendered template and what was met on the way."""

    content: str
    missing_keys: tuple[str, ...] = ()
    used_keys: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@runtime_checkable
class TemplateProcessorPort(Protocol):
    """Renders prompts. Pure; values are never expanded again."""

    @abstractmethod
    def process(self, template: str, context: Mapping[str, Any]) -> TemplateResult:
        """Render; missing names render empty and are listed. Raises TemplateError for bad syntax."""
        ...

    @abstractmethod
    def process_value(self, template: str, context: Mapping[str, Any]) -> tuple[Any, TemplateResult]:
        """(value, result): what a template of one tag names, as it is; the text of any other. Raises as `process`."""
        ...

    @abstractmethod
    def process_placed(self, template: str, context: Mapping[str, Any], place: Callable[[str], str]) -> TemplateResult:
        """Render with what *place* makes of the text of each value in its place. Raises as `process`."""
        ...

    @abstractmethod
    def process_simple(self, template: str, context: Mapping[str, Any]) -> str: ...

    @abstractmethod
    def process_single_brace(self, template: str, context: Mapping[str, Any]) -> str:
        """`{a.b[0]}` of file names; unknown names stay as they are."""
        ...

    @abstractmethod
    def extract_variables(self, template: str) -> tuple[str, ...]:
        """Top-level names the template asks for."""
        ...


class Question(NamedTuple):
    """A question of a user_response node to the person at the keyboard."""

    run_id: str
    node_id: str
    label: str
    prompt: str
    timeout: float | None
    default: str | None
    request_id: str
    path: tuple[str, ...] = ()
    """The labels on the way from the run's diagram down to the node that asks, with the number of the item in a batch: `Sub[2]`."""


@runtime_checkable
class InteractionPort(Protocol):
    """Who answers questions: a form in the live view, `input()`, given answers."""

    @abstractmethod
    async def ask(self, question: Question) -> tuple[str, str]:
        """(answer, source), source being `user`, `answers` or `default`.

        Raises:
            RunError: nobody can answer here; the hint names `answers=` / `--answer`.
        """
        ...


class CodeResult(NamedTuple):
    """What a piece of code gave back."""

    value: Any
    variables: Mapping[str, Any]
    """What it assigned, or changed in place, of JSON values."""
    stdout: str
    code: Mapping[str, Any] = {}
    """What further names it bound or deleted: see `execution.code_state.Change`."""


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


@runtime_checkable
class CodeRunner(Protocol):
    """Runs the code of one run, apart from this process; killable at any time."""

    @abstractmethod
    async def run_python(
        self,
        code: str,
        *,
        filename: str,
        inputs: Any,
        variables: Mapping[str, Any],
        node_id: str,
        function_name: str,
        timeout: float,
        view: Any = ...,
        shared: bool = True,
        file: Path | None = None,
        modules: Mapping[str, bytes] | None = None,
        on_output: Callable[[str], None] | None = None,
        on_log: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> CodeResult:
        """Run *code*; several pieces may be run at the same time.

        Args:
            filename: what tracebacks call it.
            inputs: the node's inputs (`execution.inputs.Inputs`).
            variables: the run's global variables.
            function_name: called when the code defines it and gives no result otherwise.
            timeout: seconds.
            view: what earlier code of the run assigned (`execution.code_state.View`).
            shared: False gives the code a namespace of its own.
            file: where the code comes from; modules beside it can be imported.
            modules: the files that can be imported of the base directory, by their paths below it, the same for all code of the
                run: no other ones are then, and these as they are here. None: what lies there.
            on_output: told what the code prints, piece by piece.
            on_log: told what it logs, as payloads of `execution_log` events.

        Raises:
            CodeError: it raised, or its result cannot be carried over.
            NodeTimeoutError: it was slower than *timeout* seconds; the worker is killed.
        """
        ...

    @abstractmethod
    async def cleanup(self) -> None:
        """Kill the worker. Safe to call twice."""
        ...


class HTTPResponse(NamedTuple):
    """A web server's answer."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes
    encoding: str
    url: str
    """Of the last redirect, without its query."""
    attempts: int

    @property
    def text(self) -> str:
        return self.content.decode(self.encoding, "replace")


@runtime_checkable
class HTTPPort(Protocol):
    """Requests to web servers: what api_job and hook nodes use."""

    @abstractmethod
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        content: str | bytes | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float = 30.0,
        max_retries: int = 3,
        retry_delay: float = 1.0,
        allowed: Callable[[str], bool] | None = None,
    ) -> HTTPResponse:
        """Send a request; any answer is returned, also 404.

        Redirects are followed, 10 at most. A server other than the one in *url* (scheme, host or port) gets neither a body nor
        credentials: no header but a few harmless ones, no name and password, no key in the query.

        Answers 429, 500, 502, 503 and 504 are asked for again (as the server's Retry-After says, else after *retry_delay*
        seconds, doubled each time, 60 at most), and so are connections that failed where repeating does no harm.

        Args:
            params: added to the query of the address.
            json: body as JSON; or *content*, as it is.
            auth: name and password (Basic).
            timeout: seconds without a byte, each attempt.
            allowed: whether a server (`https://host`, `http://host:8080`: `common.addresses.origin_of`) may be called, also by
                a redirect. Names that lead to this machine or its network are refused then; only an address that is openly
                one (`localhost`, `10.0.0.5`) can be allowed. None: every server.

        Raises:
            ValidationError: the address is none of http or https, or a header cannot be sent.
            IntegrationError: no answer, one that is too large, or a server that may not be called (`cause` is `not_granted`).
        """
        ...


@runtime_checkable
class IntegrationPort(Protocol):
    """Operations of providers (issue trackers, chat rooms …): what integrated_api nodes call (diagram-spec §3.14)."""

    @abstractmethod
    def operations(self) -> Mapping[str, Sequence[str]]:
        """Provider → its operations."""
        ...

    @abstractmethod
    async def execute(
        self,
        provider: str,
        operation: str,
        *,
        resource_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        api_key_id: str | None = None,
        timeout: float | None = None,
        max_retries: int = 3,
        idempotency_key: str | None = None,
    ) -> Any:
        """Call an operation; its answer as a JSON value.

        Args:
            config: what the operation takes.
            api_key_id: id of the key; None: the provider's own.
            timeout: seconds.
            max_retries: how often a transient failure is tried again.
            idempotency_key: the same for every attempt at the same work.

        Raises:
            ServiceError: the provider refuses or cannot be reached.
            ValidationError: no such provider or operation; the message lists those there are.
        """
        ...


@runtime_checkable
class DiagramFilePort(Protocol):
    """Diagrams as files. Diagrams are `Diagram` objects, or the domain's."""

    @abstractmethod
    async def load_from_file(self, path: str, format: str | None = None) -> Any:
        """Raises DiagramNotFoundError, DiagramFormatError."""
        ...

    @abstractmethod
    async def save_to_file(self, diagram: Any, path: str, format: str | None = None) -> str:
        """Write atomically; gives the path back. Raises StorageError, ValidationError."""
        ...

    @abstractmethod
    async def file_exists(self, path: str) -> bool: ...

    @abstractmethod
    async def delete_file(self, path: str) -> None:
        """Raises DiagramNotFoundError."""
        ...


@runtime_checkable
class DiagramRepositoryPort(Protocol):
    """Diagrams by id."""

    @abstractmethod
    async def create(self, name: str, diagram: Any, format: str = "light") -> str:
        """Save under an id of its own, which is returned."""
        ...

    @abstractmethod
    async def get(self, diagram_id: str) -> Any:
        """None when there is none."""
        ...

    @abstractmethod
    async def update(self, diagram_id: str, diagram: Any) -> None:
        """Raises DiagramNotFoundError."""
        ...

    @abstractmethod
    async def delete(self, diagram_id: str) -> None:
        """Raises DiagramNotFoundError."""
        ...

    @abstractmethod
    async def exists(self, diagram_id: str) -> bool: ...

    @abstractmethod
    async def list(self) -> Sequence[Any]:
        """What is known of each: id, path, format, size, time."""
        ...


@runtime_checkable
class DiagramFormatPort(Protocol):
    """Diagrams as texts."""

    @abstractmethod
    def detect_format(self, text: str, path: str | None = None) -> str: ...

    @abstractmethod
    def deserialize(self, text: str, format: str | None = None, path: str | None = None) -> Any:
        """Raises DiagramFormatError."""
        ...

    @abstractmethod
    def serialize(self, diagram: Any, format: str = "light") -> str: ...

    @abstractmethod
    def convert_format(self, text: str, to: str, format: str | None = None) -> str: ...


@runtime_checkable
class DiagramPort(DiagramFilePort, DiagramRepositoryPort, Protocol):
    """Diagrams as files and by id: what `storage.diagrams.DiagramService` does."""


DiagramStoragePort = FileSystemPort
"""Where diagrams are kept."""


@runtime_checkable
class ASTParserPort(Protocol):
    """Reads TypeScript (diagram-spec §3.12)."""

    @abstractmethod
    async def parse(self, sources: Mapping[str, str], options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Name of a source → {"ast": …, "metadata": …}.

        Args:
            sources: name → text.
            options: the node's fields: extract_patterns, include_jsdoc, parse_mode, transform_enums, flatten_output,
                output_format.

        Raises:
            CodeError: a source is not TypeScript; the message says where.
        """
        ...


@runtime_checkable
class IRBuilderPort(Protocol):
    """Makes a code generator's intermediate form (diagram-spec §3.13)."""

    @abstractmethod
    async def build(self, source: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """{"data": …, "metadata": …} from what the parser gave.

        Args:
            options: the node's fields: builder_type, source_type, config_path, output_format, cache_enabled, validate_output.

        Raises:
            ValidationError: the source has not the shape that the builder needs.
        """
        ...


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


FORMER_NAMES = {
    "ApiInvoker": "IntegrationPort",
    "ApiProvider": "IntegrationPort",
    "ApiProviderRegistry": "IntegrationPort",
    "EventStore": "RunStore",
    "ExecutionStateRepository": "RunStore",
    "ExecutionStateService": "RunStore",
    "LLMService": "LLMServicePort",
    "MemoryService": "ConversationRepository",
    "TemplateRendererPort": "TemplateProcessorPort",
}
"""Ports of upstream → the one that has their task here, with methods of its own."""


def __getattr__(name: str) -> Any:
    if name not in FORMER_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    now = FORMER_NAMES[name]
    warnings.warn(f"{__name__}.{name} is deprecated; its task is that of {now}, whose methods differ.", DeprecationWarning, stacklevel=2)
    return globals()[now]
