"""Payloads of events, one type for each `EventType`: what stands in the log of a run, and so in every run store and on every bus.

A payload is a plain JSON mapping; the types cost nothing where it is written or read. Readers cast it once, where the type of the
event is known: `cast(NodeStarted, event.payload)`. Fields that logs of older versions lack, or that only some events have, are
`NotRequired`. `docs/events.md` is made from this module.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NotRequired, TypedDict

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.node_meta import NodeMeta, Turn, UsageCounts


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


class NodeWaiting(TypedDict):
    """A run of a node is ready and waits for a place: as many nodes are at work as may be (`parallelism`)."""

    label: str
    node_type: str
    run: int
    """1-based number of the run of the node."""


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
    pieces: NotRequired[int]
    """In how many pieces the text came, when in more than one: about as many tokens of a model."""


STREAMED = ("text", "reasoning", "stdout")
"""Kinds of output that come in pieces of one text."""
VARYING = frozenset({"text", "pieces", "restart"})
"""Fields in which pieces of one text differ."""


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
    """`done` and `total`, counts, or bytes where `unit` says so; or of a sub-diagram `run_id`, `node` and `type` (of the event)."""


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


class PromptVariable(TypedDict):
    """A tag of a prompt's template that printed something, and where that came from."""

    tag: str
    """What it prints: a name, or a path into its value."""
    name: str
    """The name that it begins with."""
    start: NotRequired[int]
    """Where its text begins in the prompt, in characters; absent, as `end`, when that is not known."""
    end: NotRequired[int]
    origin: NotRequired[Literal["node", "input", "variable", "code", "item", "run"]]
    """The output of a node that arrived, an input of the run, a variable that a node has set, one that code has set, the item of a
    batch, or what each run has (`inputs`, `global_conversation` …); absent: of the template itself (a loop)."""
    node: NotRequired[str]
    """Id of the node that it comes from."""
    run: NotRequired[int]
    """Number of the run of that node."""


class PromptData(TypedDict):
    """What the model gets besides the prompt."""

    person_id: str
    model: NotRequired[str]
    """`service:model` that is asked."""
    system: NotRequired[str]
    """System prompt; absent when the person has none, and after its first turn in the run, as it stays the same."""
    memory: Mapping[str, Any]
    """What of the conversation it is shown: `view` or `criterion`, `ids` of messages, `brought` by an arrow, and how many
    `candidates` there were."""
    template: NotRequired[str]
    """From which the prompt was made; absent when it has no tags."""
    variables: NotRequired[Sequence[PromptVariable]]
    index: NotRequired[int]
    """Of the item of a batch, from 0."""


class PromptOutput(TypedDict):
    """A person's turn begins: `text` is the prompt, as it is sent."""

    kind: Literal["prompt"]
    text: str
    is_partial: NotRequired[bool]
    run: int
    data: PromptData


NodeOutput = PromptOutput | TextOutput | ToolOutput | ProgressOutput | UsageOutput | ItemOutput | RunOutput
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
    kind: NotRequired[Literal["text", "multiline", "choice", "approval"]]
    """What an answer is: one line (when absent), several, one of `choices`, or approve or reject."""
    choices: NotRequired[Sequence[str]]
    arguments: NotRequired[Mapping[str, Any]]
    """approval: of the call that waits; an answer that is a JSON object approves it with these arguments instead."""
    tool: NotRequired[str]
    """approval: what would be called."""
    path: NotRequired[Sequence[str]]
    """Labels from the outermost run down to the node that asks, when that is part of a sub-diagram."""


class InteractiveResponse(Signed):
    """A question is answered."""

    request_id: str
    answer: str
    source: str
    """`user`, `answers` (given beforehand) or `default`."""


class RunNote(TypedDict):
    """Somebody's remark on a stretch of the log. It may come after the end of the run, and changes nothing of it."""

    first: int
    """Number of the first event that it is about."""
    last: int
    text: str


PAYLOADS: Mapping[EventType, tuple[type, ...]] = {
    EventType.EXECUTION_STARTED: (ExecutionStarted,),
    EventType.EXECUTION_COMPLETED: (ExecutionCompleted,),
    EventType.EXECUTION_ERROR: (ExecutionError,),
    EventType.NODE_WAITING: (NodeWaiting,),
    EventType.NODE_STARTED: (NodeStarted,),
    EventType.NODE_COMPLETED: (NodeCompleted,),
    EventType.NODE_ERROR: (NodeError,),
    EventType.NODE_OUTPUT: (PromptOutput, TextOutput, ToolOutput, ProgressOutput, UsageOutput, ItemOutput, RunOutput),
    EventType.EXECUTION_LOG: (ExecutionLog,),
    EventType.INTERACTIVE_PROMPT: (InteractivePrompt,),
    EventType.INTERACTIVE_RESPONSE: (InteractiveResponse,),
    EventType.RUN_NOTE: (RunNote,),
}
"""Type of event → its payload; several where `kind` tells them apart."""
