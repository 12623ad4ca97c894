"""Payloads of events, one type for each `EventType`: what stands in the log of a run, and so in every run store and on every bus.

A payload is a plain JSON mapping; the types cost nothing where it is written or read. Readers cast it once, where the type of the
event is known: `cast(NodeStarted, event.payload)`. Fields that logs of older versions lack, or that only some events have, are
`NotRequired`. `docs/events.md` is made from this module.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from dipeo_nb.domain.enums import EventType


class Signed(TypedDict):
    """What every payload may carry."""

    mac: NotRequired[str]
    """Signature of the event, where a resumed or forked run takes something from it."""


class ErrorInfo(TypedDict):
    """An error, as events describe it."""

    type: str
    """Name of its class."""
    message: str
    node: str | None
    """Label of the node at fault; null when no node is."""
    hint: NotRequired[str | None]
    """What to do about it."""
    details: NotRequired[Mapping[str, Any]]
    """Facts that a diagram may work with: `violations` of a schema, `status` of an HTTP answer."""
    traceback: NotRequired[str]
    """Of the node's own code."""


class RecordedOptions(TypedDict):
    """How the run is run."""

    node_timeout: NotRequired[float]
    """Seconds for one run of one node that names no own limit."""
    timeout: float
    """Seconds for the run."""
    parallelism: int
    """Nodes at work at the same time."""
    max_iterations: int
    """Visits of one node before its loop counts as endless."""
    own_models: NotRequired[Sequence[str]]
    """Ids of persons that `model` does not move."""


class TrustStamp(TypedDict):
    """What was decided about running the diagram."""

    level: str
    digest: str
    """Of the diagram and all that it runs."""
    base: str
    """The base directory."""
    whole: NotRequired[str]
    """Mark of the diagram as it was, when it held a credential and is not recorded whole."""


class ForkOrigin(TypedDict):
    """The run that this one is a fork of."""

    run_id: str
    node: str | None
    """Id of the node from which on it differs; null: from the changed nodes on."""
    run: int
    """Number of the run of that node."""


class ExecutionStarted(Signed):
    """A run begins, or is resumed."""

    variables: Mapping[str, Any]
    """Inputs of the run."""
    diagram: str
    """Its name."""
    diagram_id: NotRequired[str | None]
    """Path of its file; null for one that was built in memory."""
    source: NotRequired[Mapping[str, Any] | None]
    """The diagram in native form."""
    labels: NotRequired[Mapping[str, str]]
    """Node id → label, in file order."""
    model: NotRequired[str | None]
    """The model that all persons were moved to; null: each has its own."""
    parent: NotRequired[str | None]
    """Id of the run whose sub_diagram node began this one."""
    trust: NotRequired[TrustStamp | None]
    resumed: NotRequired[int]
    """Number of the last event before the run was cut off; absent when it begins."""
    forked_from: NotRequired[ForkOrigin]
    options: NotRequired[RecordedOptions]


class ExecutionCompleted(Signed):
    """A run has completed."""

    status: Literal["completed"]
    total_duration_ms: NotRequired[float]
    """Milliseconds at work; the time in which a run lay cut off does not count."""
    node_status: NotRequired[Mapping[str, str]]
    """Node id → `skipped` or `maxiter_reached`; of nodes that simply completed or failed there is none."""


class ExecutionError(Signed):
    """A run has failed, was aborted, or was interrupted because its process ended."""

    status: Literal["failed", "aborted", "interrupted"]
    error: ErrorInfo
    total_duration_ms: NotRequired[float]
    """See `execution_completed`."""
    node_status: NotRequired[Mapping[str, str]]
    """See `execution_completed`; also `aborted` or `interrupted` for nodes that were at work."""


class NodeStarted(TypedDict):
    """A run of a node begins."""

    label: str
    node_type: str
    run: int
    """1-based number of the run of the node."""
    inputs: Mapping[str, tuple[str, int]]
    """Name → [id of the source node, number of its run]."""
    arrived: NotRequired[Sequence[tuple[str, int]]]
    """All inputs, in order, when two of them have one name."""
    attempt: NotRequired[int]
    """2 or more when the run of the node was begun before and cut off."""


class UsageCounts(TypedDict, total=False):
    """Tokens; a kind that was not reported is absent."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    reasoning: int
    total: int


class MessageRecord(TypedDict):
    """One message of the conversation of a run."""

    id: str
    from_person_id: str
    to_person_id: str
    role: str
    """`user` or `assistant`."""
    content: str
    message_type: str
    timestamp: float
    """Seconds since the epoch."""
    node_id: str | None


class Turn(TypedDict, total=False):
    """What a person did for one item of a batch."""

    person_id: str
    prompt: str
    memory: Mapping[str, Any]
    messages: Sequence[MessageRecord]


class Reused(TypedDict):
    """Where a result was taken over from."""

    run_id: str
    seq: int


class CallsMeta(TypedDict, total=False):
    """What calls of models took, and how the run of the node came about."""

    usage: UsageCounts
    """Of its calls of models."""
    cost_usd: float | None
    """Of its calls; null when the price of one is unknown."""
    saved_usd: float
    """What recorded answers would have cost."""
    calls: int
    """Of models."""
    person: str | None
    """Label of the person that was asked."""
    provider: str
    model: str
    requested_model: str
    """The model that was asked for, when the server names its own otherwise."""
    retries: int
    """Attempts before the one that succeeded, of a node with `retries`."""
    reused: Reused
    """The run of the node was taken over from another run."""
    skipped: str
    """Why nothing was done."""


class PersonMeta(TypedDict, total=False):
    """Of a person_job."""

    person_id: str
    prompt: str
    """As it was put; of a user_response, too."""
    messages: Sequence[MessageRecord]
    """That it added to the conversation; of a sub_diagram, those of its run in the same conversation."""
    memory: Mapping[str, Any]
    """What of the conversation the person was shown."""
    turns: Sequence[Turn]
    """With a batch: one for each item."""
    is_structured: bool
    """The output is a JSON value."""
    rung: str | None
    """How structured output was asked for."""
    finish_reason: str | None
    """Why the model stopped."""
    warnings: Sequence[str]
    """Of the client."""


class DecisionMeta(TypedDict, total=False):
    """Of a condition, a start, a user_response."""

    branch: str
    """condition: `condtrue` or `condfalse`."""
    answer: str | None
    """condition: the words of the model that decided."""
    variables_of_run: bool
    """condition: what it passes on are the variables of the run."""
    trigger_mode: str
    """start: as in the diagram."""
    source: str
    """user_response: who answered (`user`, `answers` or `default`)."""


class CodeMeta(TypedDict, total=False):
    """Of a code_job, or a hook that runs code."""

    variables: Mapping[str, Any]
    """Variables of the code that survive."""
    code: Mapping[str, Any]
    """Objects and definitions of the code."""
    stdout: str
    """What was printed."""
    stderr: str
    """What a shell command printed as errors."""


class FileMeta(TypedDict, total=False):
    """Of a db, diff_patch, endpoint, hook, json_schema_validator, template_job or typescript_ast."""

    path: str
    """The file that was read or written."""
    paths: Sequence[str]
    """Files that were read."""
    bytes: int
    """Size of what was written."""
    missing: bool
    """db: there was no file, and the default counts."""
    saved_to: str
    """endpoint: the file."""
    written: bool
    """template_job: the text was written to the file."""
    placed: Sequence[Sequence[Any]]
    """diff_patch: where the hunks went."""
    valid: bool
    """json_schema_validator."""
    sources: int
    """typescript_ast: number of sources."""


class RequestMeta(TypedDict, total=False):
    """Of an api_job, hook or integrated_api."""

    status: int
    """HTTP status, or exit status of a command."""
    url: str
    attempts: int
    """How often the request was sent."""
    content_type: str
    """Of the answer."""
    event: str
    """hook: name of the event that it waited for."""
    operation: str
    """integrated_api."""


class ChildrenMeta(TypedDict, total=False):
    """Of a sub_diagram."""

    run_ids: Sequence[str]
    total_items: int
    """With a batch."""
    successful: int
    failed: int


class NodeMeta(CallsMeta, PersonMeta, DecisionMeta, CodeMeta, FileMeta, RequestMeta, ChildrenMeta, total=False):
    """What else is known of a run of a node; a node type of your own may add more."""


class ConversationPoint(TypedDict):
    """From which the conversation that a node hands on is made again."""

    person_id: str
    model: str
    upto: int
    """Number of messages of the run when the person had spoken."""
    whole: bool
    """All messages from and to the person; else only its last turn."""


class NodeCompleted(Signed):
    """A run of a node has completed, or (`maxiter_reached`) the node passed its last output on because it may not run again."""

    label: str
    node_type: NotRequired[str]
    run: int
    """1-based number of the run of the node."""
    status: Literal["completed", "maxiter_reached"]
    output: NotRequired[Any]
    """What it hands on: any JSON value; absent, as all that follows, with `maxiter_reached`."""
    text: NotRequired[str | None]
    """The output as text, when that is not the output itself."""
    handles: NotRequired[Sequence[str]]
    """Outputs that it leaves by."""
    meta: NotRequired[NodeMeta]
    globals: NotRequired[Mapping[str, Any]]
    """Global variables that it set."""
    duration_ms: NotRequired[float]
    """Milliseconds at work."""
    conversation: NotRequired[ConversationPoint | None]


class NodeError(Signed):
    """A run of a node has failed."""

    label: str
    run: int
    error: ErrorInfo
    handled: NotRequired[bool]
    """The run continues: the node says so, or an arrow leads from its error output."""
    meta: NotRequired[NodeMeta]
    """What its calls of models took."""
    duration_ms: NotRequired[float]


class TextOutput(TypedDict):
    """A piece of text: of a model's answer (`text`), of its thoughts (`reasoning`), or printed by code or a command (`stdout`)."""

    kind: Literal["text", "reasoning", "stdout"]
    text: str
    is_partial: NotRequired[bool]
    run: int
    restart: NotRequired[bool]
    """The answer begins again; what was shown of it does not count."""
    call_id: NotRequired[str]
    """Which text it belongs to, when several come at once."""


class ToolOutput(TypedDict):
    """A model calls a tool, or has its result."""

    kind: Literal["tool"]
    text: str
    is_partial: NotRequired[bool]
    run: int
    data: NotRequired[Any]
    step: NotRequired[Literal["call", "result"]]


class ProgressOutput(TypedDict):
    """How far the run of the node is."""

    kind: Literal["progress"]
    text: str
    is_partial: NotRequired[bool]
    run: int
    data: NotRequired[Mapping[str, Any] | None]
    """`done` and `total`, counts; or of a sub-diagram `run_id`, `node` and `type` (of the event)."""


class UsageData(TypedDict):
    """What calls of models took."""

    usage: UsageCounts
    cost_usd: NotRequired[float | None]
    """Null when the price of one is unknown."""
    person: NotRequired[str | None]
    calls: NotRequired[int]
    """How many; absent: one."""
    run_id: NotRequired[str]
    """The run of a sub-diagram that made them."""
    model: NotRequired[str]


class UsageOutput(Signed):
    """Calls of models that were paid for, in case the run of the node never ends; when it does, its `meta` has the sum."""

    kind: Literal["usage"]
    text: str
    is_partial: NotRequired[bool]
    run: int
    data: UsageData
    background: NotRequired[bool]
    """Nothing waits for it: the node has finished, and its `meta` does not count it."""


class ItemData(TypedDict):
    """What an item gave."""

    index: int
    """From 0."""
    output: Any
    meta: NotRequired[Turn]


class ItemOutput(Signed):
    """An item of a batch is finished."""

    kind: Literal["item"]
    text: str
    run: int
    data: ItemData


class ChildData(TypedDict):
    """A run of a sub-diagram."""

    run_id: str
    index: int
    """Of the item, from 0; 0 without a batch."""
    diagram: str
    """Its name."""


class RunOutput(Signed):
    """A run of a sub-diagram begins."""

    kind: Literal["run"]
    text: str
    run: int
    data: ChildData


NodeOutput = TextOutput | ToolOutput | ProgressOutput | UsageOutput | ItemOutput | RunOutput
"""Told apart by `kind`."""


class ExecutionLog(TypedDict):
    """A line of the log of the run."""

    level: str
    """Name of a level of Python's `logging`."""
    message: str
    logger_name: str
    extra_fields: Mapping[str, Any]


class InteractivePrompt(Signed):
    """A question waits for an answer."""

    prompt: str
    timeout: float | None
    """Seconds until the default counts, or the node fails; null: none."""
    default: str | None
    request_id: str
    label: NotRequired[str]
    """Of the node that asks."""
    path: NotRequired[Sequence[str]]
    """Labels from the outermost run down to the node that asks, when that is part of a sub-diagram."""


class InteractiveResponse(Signed):
    """A question is answered."""

    request_id: str
    answer: str
    source: str
    """`user`, `answers` (given beforehand) or `default`."""


PAYLOADS: Mapping[EventType, tuple[type, ...]] = {
    EventType.EXECUTION_STARTED: (ExecutionStarted,),
    EventType.EXECUTION_COMPLETED: (ExecutionCompleted,),
    EventType.EXECUTION_ERROR: (ExecutionError,),
    EventType.NODE_STARTED: (NodeStarted,),
    EventType.NODE_COMPLETED: (NodeCompleted,),
    EventType.NODE_ERROR: (NodeError,),
    EventType.NODE_OUTPUT: (TextOutput, ToolOutput, ProgressOutput, UsageOutput, ItemOutput, RunOutput),
    EventType.EXECUTION_LOG: (ExecutionLog,),
    EventType.INTERACTIVE_PROMPT: (InteractivePrompt,),
    EventType.INTERACTIVE_RESPONSE: (InteractiveResponse,),
}
"""Type of event → its payload; several where `kind` tells them apart."""
