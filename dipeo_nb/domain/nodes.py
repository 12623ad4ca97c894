"""The 16 node types as typed specs, and the registry that notebooks can add to.

A spec is a frozen dataclass: its fields are the node's properties with their defaults, its `META` has the rest
(category, handles, aliases). Readers, compiler, JSON schema, drawing and handlers all read this one place.
Handles are the union of the tables of DiPeO's editor and engine. A field is one line, as in a table, whatever its length.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dipeo_nb.domain.enums import (
    AuthType,
    ConditionType,
    DataFormat,
    DBBlockSubType,
    DBOperation,
    DiagramFormat,
    DiffFormat,
    HookTriggerMode,
    HookType,
    HttpMethod,
    IRBuilderOutputFormat,
    IRBuilderSourceType,
    IRBuilderTargetType,
    NodeCategory,
    NodeType,
    PatchMode,
    SupportedLanguage,
    TemplateEngine,
    TypeScriptExtractPattern,
    TypeScriptOutputFormat,
    TypeScriptParseMode,
)


@dataclass(frozen=True, slots=True)
class NodeMeta:
    """Facts about a node type besides its fields."""

    type: str
    category: NodeCategory
    summary: str
    inputs: tuple[str, ...] = ("default",)
    outputs: tuple[str, ...] = ("default",)
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    """Other spelling → canonical field; used only when the canonical one is absent."""
    write_aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    """Canonical field → spelling that the light writer uses."""
    dropped: tuple[str, ...] = ()
    """Legacy properties that are accepted and thrown away."""
    side_effects: bool = False
    """Whether running twice can do harm outside (files, network, code)."""

    def has_output(self, handle: str) -> bool:
        """Whether an arrow may leave there; the error of every node that works can be led on."""
        return handle in self.outputs or (
            handle == "error" and bool(self.outputs) and self.category is not NodeCategory.CONTROL
        )


def spec(default: Any = None, **meta: Any) -> Any:
    """A field with documentation: `spec(default, doc=…, template=True, code=True, path=True, required=True)`.

    `effect` declares what a value makes the node do when it runs: `read` and `write` a path, call a server (`net`), run `code`, a
    `process` or a `diagram`, or that it names a file that comes with the diagram (`brings`); see `domain.capabilities`.

    A value that does not fit a `lenient` field is a warning, and the default is used.
    """
    if isinstance(default, (dict, list)):
        value: Any = default  # pyright: ignore[reportUnknownVariableType]
        return field(default_factory=lambda: copy(value), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """Fields that every node type takes."""

    META: ClassVar[NodeMeta]

    def __init_subclass__(cls) -> None:
        if cls.__doc__ is None and "META" in vars(cls):
            cls.__doc__ = cls.META.summary  # else that of a dataclass is its signature, which takes long to make

    flipped: bool | tuple[bool, ...] | None = spec(None, doc="Mirrors the node in drawings; without effect on runs")
    metadata: Mapping[str, Any] | None = spec(None, doc="Free notes of editors; without effect on runs")
    on_error: str = spec("fail", doc="`fail` (the run fails) or `continue` (an error value leaves on the `error` output)")
    timeout: float | None = spec(None, doc="Seconds for one run of the node; default: that of the settings")
    retries: int = spec(0, doc="How often a failed run of the node is repeated")
    retry_delay: float = spec(1.0, doc="Seconds before the first retry; doubled for each further one, up to a minute")


# fmt: off
@dataclass(frozen=True, slots=True, kw_only=True)
class StartNode(NodeSpec):
    META: ClassVar = NodeMeta("start", NodeCategory.CONTROL, "Where a run begins", inputs=())

    trigger_mode: HookTriggerMode = spec(HookTriggerMode.NONE, aliases={"automatic": "none"}, doc="`none` starts at once, `hook` waits for `hook_event`")
    custom_data: Any = spec({}, doc="Values published as globals and handed to the successors")
    output_data_structure: Mapping[str, Any] = spec({}, lenient=True, doc="Without effect")
    hook_event: str | None = spec(None, doc="Event awaited when trigger_mode is hook")
    hook_filters: Mapping[str, Any] = spec({}, doc="Key → value that the event's payload must have")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "endpoint",
        NodeCategory.CONTROL,
        "Where a run ends; can save its input to a file",
        outputs=(),
        aliases={"file_path": "file_name", "filePath": "file_name"},
        write_aliases={"file_name": "file_path"},
        side_effects=True,
    )

    save_to_file: bool = spec(False, doc="Write the value to `file_name`")
    file_name: str | None = spec(None, path=True, effect="write", template=True, doc="Relative to the base directory")
    file_format: str | None = spec(None, choices=("txt", "json", "yaml", "md"), lenient=True, doc="Default: by the file's suffix")
    output_variable: str | None = spec(None, doc="Without effect; kept for DiPeO's files")


MEMORY_VIEWS = (
    "GOLDFISH",
    "ALL_MESSAGES",
    "ALL_INVOLVED",
    "SENT_BY_ME",
    "SENT_TO_ME",
    "SYSTEM_AND_ME",
    "CONVERSATION_PAIRS",
)
"""Views that `memorize_to` can name; any other text is a criterion in words, by which a model selects."""


def provider_tool(tool: object) -> str | None:
    """The operation that an entry of `tools` means (`wikipedia.search`, `mcp_files.*`); None when it means something else."""
    if not isinstance(tool, str):
        return None
    name = tool.strip()
    if name.startswith("mcp_") and "." not in name:
        return f"{name}.*"
    provider, dot, operation = name.partition(".")
    return name if dot and provider.isidentifier() and (operation == "*" or operation.isidentifier()) else None


FUNCTION_TOOLS = (
    "Call it in a code_job, or in a node of your own (@dp.node), and give its result to the prompt; or ask in Python, which runs "
    "functions: dp.chat(prompt, tools=[function])."
)
"""Hint on functions as tools: diagrams have built-in tools only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonJobNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "person_job",
        NodeCategory.AI,
        "A person (model with memory) answers a prompt",
        inputs=("first", "default"),
        aliases={"prompt": "first_only_prompt", "memory_profile": "memorize_to"},
        dropped=("memory_config", "memory_settings"),
    )

    person: str | None = spec(None, required=True, doc="Id or label of a person")
    first_only_prompt: str | None = spec(None, template=True, doc="Prompt of the first run")
    first_prompt_file: str | None = spec(None, prompt_file=True, effect="brings", doc="File with the prompt of the first run")
    default_prompt: str | None = spec(None, template=True, doc="Prompt of every (further) run")
    prompt_file: str | None = spec(None, prompt_file=True, effect="brings", doc="File with the prompt of every (further) run")
    resolved_first_prompt: str | None = spec(None, template=True, doc="Filled from first_prompt_file; overrides")
    resolved_prompt: str | None = spec(None, template=True, doc="Filled from prompt_file; overrides")
    max_iteration: int = spec(100, minimum=1, doc="Runs of this node at most; afterwards it is skipped")
    memorize_to: str | None = spec(
        None,
        doc="GOLDFISH, ALL_MESSAGES, ALL_INVOLVED, SENT_BY_ME, SENT_TO_ME, SYSTEM_AND_ME, "
        "CONVERSATION_PAIRS, or a criterion in words (a model then selects)",
    )
    at_most: int | None = spec(None, minimum=1, maximum=500, doc="Messages remembered at most")
    ignore_person: str | None = spec(None, doc="Comma list of persons whose messages are left out")
    tools: Any = spec(None, doc="none, image, websearch, operations of providers (`wikipedia.search`, `mcp_files.*`), a list of them, or tool configurations")
    text_format: Any = spec(None, doc="Pydantic source or JSON schema of the answer")
    text_format_file: str | None = spec(None, path=True, effect="brings", doc="File with the Pydantic source or JSON schema")
    batch: bool = spec(
        False,
        doc="Once for each item of a list: `item` and `default` are the item, its keys are names, `_batch_index` counts from 0",
    )
    batch_input_key: str = spec(
        "items", doc="The name of the list: label of an arrow, key of a mapping that arrives, or input of the run"
    )
    batch_parallel: bool = spec(True, doc="Several items at a time")
    max_concurrent: int = spec(10, minimum=1, doc="Items at a time")
    stream_to: Mapping[str, Any] = spec({}, template=True, doc="Thread that gets the answer as it comes: {provider: slack, channel: …, thread_ts: …}")
    temperature: float | None = spec(None, minimum=0, maximum=2, doc="Overrides the person's")
    max_tokens: int | None = spec(None, minimum=1, doc="Limit of the answer in tokens; overrides the person's")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "condition", NodeCategory.CONTROL, "Chooses between two branches", outputs=("condtrue", "condfalse")
    )

    condition_type: ConditionType = spec(ConditionType.CUSTOM, aliases={"nodes_executed": "check_nodes_executed"}, doc="What decides")
    expression: str | None = spec(None, expression=True, doc="For `custom`: Python operators over names; nothing else can run")
    node_indices: list[str] = spec([], doc="Ids or labels; for check_nodes_executed")
    person: str | None = spec(None, doc="For llm_decision")
    judge_by: str | None = spec(None, template=True, doc="Prompt of the decision")
    judge_by_file: str | None = spec(None, prompt_file=True, effect="brings", doc="File with the prompt of the decision")
    memorize_to: str | None = spec("GOLDFISH", doc="What the person sees of the conversation; as in person_job")
    at_most: int | None = spec(None, minimum=1, maximum=500, doc="Messages remembered at most")
    expose_index_as: str | None = spec(None, doc="Global that holds the 0-based number of the round")
    skippable: bool = spec(False, doc="Edges of this condition never hold a join back")


CODE_FILE = re.compile(r"[^\n]+\.(py|ts|mts|js|mjs|sh|bash)")
"""A single line of `code` that is a file of code when there is one of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeJobNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "code_job",
        NodeCategory.COMPUTE,
        "Runs code",
        aliases={"code_type": "language", "filePath": "file_path", "functionName": "function_name"},
        write_aliases={"language": "code_type"},
        side_effects=True,
    )

    language: SupportedLanguage = spec(SupportedLanguage.PYTHON, doc="`python` runs in a worker process; the others need their interpreter")
    code: str | None = spec(None, code=True, effect="code", doc="The code; `return` or `result` gives the value")
    file_path: str | None = spec(None, path=True, effect="code", doc="File with the code, below the base directory")
    function_name: str = spec("main", doc="Function that is called when the code has no `return` or `result`")
    isolated: bool = spec(False, doc="True: does not share variables with the run's other code jobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiJobNode(NodeSpec):
    META: ClassVar = NodeMeta("api_job", NodeCategory.INTEGRATION, "Calls an HTTP API", side_effects=True)

    url: str = spec("", template=True, effect="net", doc="Address to call")
    method: HttpMethod = spec(HttpMethod.GET, doc="HTTP method")
    headers: Any = spec({}, template=True, doc="Mapping of headers")
    params: Any = spec({}, template=True, doc="Mapping of query parameters")
    body: Any = spec(None, template=True, doc="Body of the request; mappings and lists are sent as JSON")
    auth_type: AuthType | None = spec(None, doc="How to authenticate")
    auth_config: Any = spec({}, doc="`token` (bearer), `username` and `password` (basic), `key_name` and `key_value` (api_key)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DbNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "db",
        NodeCategory.INTEGRATION,
        "Reads and writes files",
        aliases={"source_details": "file", "subType": "sub_type", "serializeJson": "serialize_json"},
        write_aliases={"file": "source_details"},
        side_effects=True,
    )

    file: str | list[str] | None = spec(None, path=True, effect="read write", doc="Path, list of paths or glob; single braces take inputs")
    operation: DBOperation = spec(DBOperation.READ, doc="What to do with the file")
    sub_type: DBBlockSubType = spec(DBBlockSubType.FIXED_PROMPT, lenient=True, doc="Without effect; DiPeO's editor keeps it")
    format: DataFormat | None = spec(None, doc="Default: by the file's suffix")
    serialize_json: bool = spec(False, doc="Parse the text that is read as JSON")
    keys: Any = spec(None, doc="Comma list or list of dotted paths")
    lines: Any = spec(None, doc="1-based inclusive ranges")
    collection: str | None = spec(None, doc="Without effect; kept for DiPeO's files")
    query: str | None = spec(None, doc="Without effect; kept for DiPeO's files")
    data: Any = spec(None, doc="Written when no input has a value; without a file it is the result, and nothing is written")
    glob: bool | None = spec(None, doc="false: `*`, `?` and `[` in `file` are letters of its name")
    default: Any = spec(None, doc="Value when a file to read is missing; without it that is an error")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserResponseNode(NodeSpec):
    META: ClassVar = NodeMeta("user_response", NodeCategory.INTEGRATION, "Asks the user")

    prompt: str = spec("", template=True, doc="The question")
    default: str | None = spec(None, aliases=("default_value",), doc="Answer when none arrives in time")
    kind: str | None = spec(None, choices=("text", "multiline", "choice", "approval"), doc="What an answer is: one line (default), several, one of `choices`, or approve or reject")
    choices: list[str] = spec([], doc="Answers to choose from")
    validation_type: str | None = spec(None, choices=("text", "number", "integer", "boolean", "email", "url"), doc="What an answer must be; others are asked for again")


@dataclass(frozen=True, slots=True, kw_only=True)
class HookNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "hook",
        NodeCategory.COMPUTE,
        "Runs a command, calls a web hook, or waits for an event",
        outputs=("default", "success", "error"),
        side_effects=True,
    )

    hook_type: HookType = spec(HookType.SHELL, aliases={"webhook": "http"}, doc="What it does")
    command: str | None = spec(
        None, code=True, effect="process", doc="For the shell; {{values}} reach it through the environment and are never run"
    )
    url: str | None = spec(None, template=True, effect="net", doc="For `http`: address to call")
    config: Mapping[str, Any] = spec({}, effect="process", doc="The documented long form: command, args, env, cwd, url, script …")
    retry_count: int = spec(0, minimum=0, maximum=5, doc="How often a failed hook is repeated")


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateJobNode(NodeSpec):
    META: ClassVar = NodeMeta("template_job", NodeCategory.CODEGEN, "Renders a template", side_effects=True)

    template_path: str | None = spec(None, path=True, effect="brings", template=True, doc="File with the template")
    template_content: str | None = spec(None, doc="The template")
    output_path: str | None = spec(None, path=True, effect="write", template=True, doc="File to write the result to")
    variables: Mapping[str, Any] = spec({}, doc="Further names for the template")
    engine: TemplateEngine = spec(TemplateEngine.JINJA2, lenient=True, doc="`jinja2`, or `internal`: the template language of prompts")
    preprocessor: Any = spec(None, effect="code", doc="Dotted path, or {module, function, args}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchemaValidatorNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "json_schema_validator",
        NodeCategory.CODEGEN,
        "Checks data against a JSON schema",
        outputs=("default", "success", "error"),
        aliases={"strict": "strict_mode", "schema": "json_schema"},
        write_aliases={"strict_mode": "strict"},
    )

    schema_path: str | None = spec(None, path=True, effect="brings", doc="File with the schema")
    json_schema: Any = spec(None, doc="The schema")
    data_path: str | None = spec(None, path=True, effect="read", doc="File to check instead of what arrives")
    strict_mode: bool = spec(False, doc="Collect every violation")
    error_on_extra: bool = spec(False, doc="Refuse properties that the schema does not list")


@dataclass(frozen=True, slots=True, kw_only=True)
class TypescriptAstNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "typescript_ast",
        NodeCategory.CODEGEN,
        "Parses TypeScript",
        outputs=("default", "results", "error"),
        aliases={"extract": "extract_patterns", "source_file": "file"},
    )

    source: str | None = spec(None, doc="The TypeScript text; default: `file`, or what arrives")
    file: str | None = spec(None, path=True, effect="read", doc="File to parse")
    extract_patterns: list[TypeScriptExtractPattern] = spec(
        ["interface", "type", "enum"],
        aliases={
            "interfaces": "interface",
            "types": "type",
            "enums": "enum",
            "classes": "class",
            "functions": "function",
            "constants": "const",
            "consts": "const",
            "exports": "export",
        },
        doc="What to extract",
    )
    include_jsdoc: bool = spec(False, doc="With JSDoc comments")
    parse_mode: TypeScriptParseMode = spec(TypeScriptParseMode.MODULE, doc="`module` or `script`; both are read alike")
    transform_enums: bool = spec(False, doc="Members of an enum as an object")
    flatten_output: bool = spec(False, doc="One flat list")
    output_format: TypeScriptOutputFormat = spec(TypeScriptOutputFormat.STANDARD, doc="`for_codegen`: without positions; `for_analysis`: with counts")
    batch: bool = spec(False, doc="Parse a mapping of names to texts")
    batch_input_key: str = spec("sources", doc="The name of that mapping")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubDiagramNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "sub_diagram",
        NodeCategory.COMPUTE,
        "Runs another diagram",
        aliases={"ignoreIfSub": "ignore_if_sub", "passInputData": "pass_input_data"},
        side_effects=True,
    )

    diagram_name: str | None = spec(None, path=True, effect="diagram", doc="Path or name of a diagram; looked up beside this one, then below the base directory")
    diagram_data: Mapping[str, Any] | None = spec(None, effect="diagram", doc="The diagram itself, instead of a name")
    diagram_format: DiagramFormat | None = spec(None, doc="Format of that diagram; default: by its name or content")
    input_mapping: Mapping[str, str] = spec({}, doc="child variable → path in the inputs")
    output_mapping: Mapping[str, str] = spec({}, doc="output name → path in the result")
    pass_input_data: bool | None = spec(None, doc="Hand over all inputs; default: when there is no input_mapping")
    wait_for_completion: bool = spec(True, doc="False: the run continues at once with the child's id")
    isolate_conversation: bool = spec(False, doc="The child's persons start with an empty conversation")
    ignore_if_sub: bool = spec(False, doc="Skip the node when this diagram is itself a sub-diagram")
    batch: bool = spec(
        False,
        doc="Once for each item of a list: `item` and `default` are the item, its keys are names, `_batch_index` counts from 0",
    )
    batch_input_key: str = spec(
        "items", doc="The name of the list: label of an arrow, key of a mapping that arrives, or input of the run"
    )
    batch_parallel: bool = spec(True, doc="Several items at a time")
    max_concurrent: int = spec(10, minimum=1, doc="Items at a time")


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegratedApiNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "integrated_api", NodeCategory.INTEGRATION, "Calls a provider's operation", outputs=("default", "error"), side_effects=True
    )

    provider: str = spec("notion", doc="Which provider; `dipeo-nb providers` lists them")
    operation: str = spec("", doc="Operation of the provider; `dipeo-nb providers show NAME` lists them")
    resource_id: str | None = spec(None, template=True, doc="What the operation works on")
    config: Mapping[str, Any] = spec({}, template=True, doc="Arguments of the operation; they override those that arrive")
    all: bool = spec(False, doc="All pages of a list, not only the first")
    limit: int | None = spec(None, minimum=1, doc="Items of a list at most, from as many pages as they need")
    max_retries: int = spec(3, minimum=0, maximum=10, doc="How often a failed call is repeated")
    api_key_id: str | None = spec(None, doc="Key to use; default: that of the provider")


@dataclass(frozen=True, slots=True, kw_only=True)
class IrBuilderNode(NodeSpec):
    META: ClassVar = NodeMeta("ir_builder", NodeCategory.CODEGEN, "Builds a code generator's intermediate representation")

    builder_type: IRBuilderTargetType = spec(IRBuilderTargetType.BACKEND, doc="What is built")
    builder_name: str | None = spec(None, doc="Of `custom`: which builder; default: the only one")
    source_type: IRBuilderSourceType = spec(IRBuilderSourceType.AST, doc="Form of the input")
    config_path: str | None = spec(None, path=True, effect="read", doc="File with options of the builder")
    output_format: IRBuilderOutputFormat = spec(IRBuilderOutputFormat.JSON, doc="Form of the result")
    cache_enabled: bool = spec(True, doc="Keep what is built, by content, for 24 hours of this process")
    validate_output: bool = spec(True, doc="Refuse an IR that is empty or contradicts itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffPatchNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "diff_patch",
        NodeCategory.UTILITY,
        "Applies a patch to a file",
        outputs=("default", "success", "error"),
        side_effects=True,
    )

    target_path: str | None = spec(None, required=True, path=True, effect="read write", template=True, doc="File to patch")
    diff: str | None = spec(None, doc="The patch; default: the input `diff`, or what arrives")
    format: DiffFormat = spec(DiffFormat.UNIFIED, doc="Format of the patch")
    apply_mode: PatchMode = spec(PatchMode.NORMAL, doc="`normal`: all hunks or none; `force`: those that fit; `dry_run`: write nothing; `reverse`: undo the patch")
    backup: bool = spec(True, doc="Keep a copy of the file as it was")
    validate_patch: bool = spec(True, doc="Without effect; patches are always checked")
    backup_dir: str | None = spec(None, path=True, effect="write", doc="Folder of the copy; default: beside the file")
    strip_level: int = spec(1, doc="Leading folders to strip from names in a patch of several files")
    fuzz_factor: int = spec(2, doc="Lines of context that may differ")
    reject_file: str | None = spec(None, path=True, effect="write", doc="File for hunks that do not fit")
    ignore_whitespace: bool = spec(False, doc="Ignore differences of blanks")
    create_missing: bool = spec(False, doc="Create the file if it does not exist")


NODE_SPECS: dict[str, type[NodeSpec]] = {
    cls.META.type: cls
    for cls in (
        StartNode,
        EndpointNode,
        PersonJobNode,
        ConditionNode,
        CodeJobNode,
        ApiJobNode,
        DbNode,
        UserResponseNode,
        HookNode,
        TemplateJobNode,
        JsonSchemaValidatorNode,
        TypescriptAstNode,
        SubDiagramNode,
        IntegratedApiNode,
        IrBuilderNode,
        DiffPatchNode,
    )
}
"""Node type → its spec. `register_node_spec` adds to it."""


def register_node_spec(cls: type[NodeSpec]) -> None:
    """Make a further node type known to readers, compiler and drawing.

    Raises:
        ValueError: the type is a built-in one.
    """
    if cls.META.type in set(NodeType):
        raise ValueError(f"'{cls.META.type}' is a built-in node type; choose another name")
    NODE_SPECS[cls.META.type] = cls
