"""What events say of a run of a node besides its output: usage and cost, the turns of persons, files, requests, children."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


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

    index: int
    """Of the item, from 0."""

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
    """Of a decision or a user_response, as it was put; a person_job's is the first of its `messages`."""
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
    reason: str
    """user_response of the kind approval: why it was rejected."""


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
