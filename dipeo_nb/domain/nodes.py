"""The 16 node types as typed specs (diagram-spec §3), and the registry that notebooks can add to.

A spec is a frozen dataclass: its fields are the node's properties with their defaults, its `META` says the rest
(category, handles, aliases). Readers, compiler, JSON schema, drawing and handlers all read this one place.
Handles are the union of the two tables of §1.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, fields
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
    """What a node type is, besides its fields."""

    type: str
    category: NodeCategory
    summary: str
    inputs: tuple[str, ...] = ("default",)
    outputs: tuple[str, ...] = ("default",)
    aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    """Other spelling → canonical field; used only when the canonical one is absent."""
    write_aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    """Canonical field → spelling that the light writer uses (§2.2.6)."""
    dropped: tuple[str, ...] = ()
    """Legacy properties that are accepted and thrown away."""
    side_effects: bool = False
    """Whether running twice can do harm outside (files, network, code)."""

    def has_output(self, handle: str) -> bool:
        """Whether an arrow may leave there; the error of every node that works can be led on (§3.0 "Do")."""
        return handle in self.outputs or (
            handle == "error" and bool(self.outputs) and self.category is not NodeCategory.CONTROL
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """Fields that every node type takes."""

    META: ClassVar[NodeMeta]

    flipped: bool | tuple[bool, ...] | None = None
    """Mirrors the picture; no meaning at run time."""
    metadata: Mapping[str, Any] | None = None
    on_error: str = "fail"
    """`fail` (the run fails) or `continue` (an error value leaves on the `error` output)."""
    timeout: float | None = None
    """Seconds; None: the default of the settings."""
    retries: int = 0
    """How often a failed run of the node is tried again."""
    retry_delay: float = 1.0
    """Seconds before the first retry; each further one waits twice as long, a minute at most."""


def spec(default: Any = None, **meta: Any) -> Any:
    """A field with documentation: `spec(default, doc=…, template=True, code=True, path=True, required=True)`.

    `effect` says what a value makes the node do when it runs: `read` and `write` a path, call a server (`net`), run `code`, a
    `process` or a `diagram`, or that it names a file that comes with the diagram (`brings`); see `domain.capabilities`.

    A value that does not fit a `lenient` field is a warning, and the default is used.
    """
    if isinstance(default, (dict, list)):
        value: Any = default  # pyright: ignore[reportUnknownVariableType]
        return field(default_factory=lambda: copy(value), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartNode(NodeSpec):
    META: ClassVar = NodeMeta("start", NodeCategory.CONTROL, "Where a run begins", inputs=())

    trigger_mode: HookTriggerMode = spec(HookTriggerMode.NONE, aliases={"automatic": "none"})
    custom_data: Any = spec({}, doc="Values published as globals and handed to the successors")
    output_data_structure: Mapping[str, Any] = spec({}, lenient=True, doc="Without effect")
    hook_event: str | None = spec(None, doc="Event awaited when trigger_mode is hook")
    hook_filters: Mapping[str, Any] = spec({})


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

    save_to_file: bool = False
    file_name: str | None = spec(None, path=True, effect="write", template=True, doc="Relative to the base directory")
    file_format: str | None = spec(None, choices=("txt", "json", "yaml", "md"), lenient=True, doc="Default: by the file's suffix")
    output_variable: str | None = None


MEMORY_VIEWS = (
    "GOLDFISH",
    "ALL_MESSAGES",
    "ALL_INVOLVED",
    "SENT_BY_ME",
    "SENT_TO_ME",
    "SYSTEM_AND_ME",
    "CONVERSATION_PAIRS",
)
"""What `memorize_to` can name; any other text is a criterion in words, by which a model selects."""


FUNCTION_TOOLS = (
    "Call it in a code_job, or in a node of your own (@dp.node), and give its result to the prompt; or ask in Python, which runs "
    "functions: dp.chat(prompt, tools=[function])."
)
"""Where functions run that models want called: diagrams have built-in tools only."""


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
    first_prompt_file: str | None = spec(None, prompt_file=True, effect="brings")
    default_prompt: str | None = spec(None, template=True, doc="Prompt of every (further) run")
    prompt_file: str | None = spec(None, prompt_file=True, effect="brings")
    resolved_first_prompt: str | None = spec(None, template=True, doc="Filled from first_prompt_file; overrides")
    resolved_prompt: str | None = spec(None, template=True, doc="Filled from prompt_file; overrides")
    max_iteration: int = spec(100, minimum=1)
    memorize_to: str | None = spec(
        None,
        doc="GOLDFISH, ALL_MESSAGES, ALL_INVOLVED, SENT_BY_ME, SENT_TO_ME, SYSTEM_AND_ME, "
        "CONVERSATION_PAIRS, or a criterion in words (a model then selects)",
    )
    at_most: int | None = spec(None, minimum=1, maximum=500, doc="Messages remembered at most")
    ignore_person: str | None = spec(None, doc="Comma list of persons whose messages are left out")
    tools: Any = spec(None, doc="none, image, websearch, a list of them, or tool configurations")
    text_format: Any = spec(None, doc="Pydantic source or JSON schema of the answer")
    text_format_file: str | None = spec(None, path=True, effect="brings")
    batch: bool = spec(
        False,
        doc="Once for each item of a list: `item` and `default` are the item, its keys are names, `_batch_index` counts from 0",
    )
    batch_input_key: str = spec(
        "items", doc="The name of the list: label of an arrow, key of a mapping that arrives, or input of the run"
    )
    batch_parallel: bool = True
    max_concurrent: int = spec(10, minimum=1)
    temperature: float | None = spec(None, minimum=0, maximum=2)
    max_tokens: int | None = spec(None, minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "condition", NodeCategory.CONTROL, "Chooses between two branches", outputs=("condtrue", "condfalse")
    )

    condition_type: ConditionType = spec(ConditionType.CUSTOM, aliases={"nodes_executed": "check_nodes_executed"})
    expression: str | None = spec(None, expression=True)
    node_indices: list[str] = spec([], doc="Ids or labels; for check_nodes_executed")
    person: str | None = spec(None, doc="For llm_decision")
    judge_by: str | None = spec(None, template=True, doc="Prompt of the decision")
    judge_by_file: str | None = spec(None, prompt_file=True, effect="brings")
    memorize_to: str | None = "GOLDFISH"
    at_most: int | None = spec(None, minimum=1, maximum=500)
    expose_index_as: str | None = spec(None, doc="Global that holds the 0-based number of the round")
    skippable: bool = spec(False, doc="Edges of this condition never hold a join back")


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

    language: SupportedLanguage = SupportedLanguage.PYTHON
    code: str | None = spec(None, code=True, effect="code")
    file_path: str | None = spec(None, path=True, effect="code")
    function_name: str = "main"
    isolated: bool = spec(False, doc="True: does not share variables with the run's other code jobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiJobNode(NodeSpec):
    META: ClassVar = NodeMeta("api_job", NodeCategory.INTEGRATION, "Calls an HTTP API", side_effects=True)

    url: str = spec("", template=True, effect="net")
    method: HttpMethod = HttpMethod.GET
    headers: Any = spec({}, template=True)
    params: Any = spec({}, template=True)
    body: Any = spec(None, template=True)
    auth_type: AuthType | None = None
    auth_config: Any = spec({})


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
    operation: DBOperation = DBOperation.READ
    sub_type: DBBlockSubType = spec(DBBlockSubType.FIXED_PROMPT, lenient=True, doc="Without effect; upstream's editor keeps it")
    format: DataFormat | None = spec(None, doc="Default: by the file's suffix")
    serialize_json: bool = False
    keys: Any = spec(None, doc="Comma list or list of dotted paths")
    lines: Any = spec(None, doc="1-based inclusive ranges")
    collection: str | None = None
    query: str | None = None
    data: Any = spec(None, doc="Written when no input has a value; without a file it is the result, and nothing is written")
    glob: bool | None = spec(None, doc="false: `*`, `?` and `[` in `file` are letters of its name")
    default: Any = spec(None, doc="Value when a file to read is missing; without it that is an error")


@dataclass(frozen=True, slots=True, kw_only=True)
class UserResponseNode(NodeSpec):
    META: ClassVar = NodeMeta("user_response", NodeCategory.INTEGRATION, "Asks the user")

    prompt: str = spec("", template=True)
    default: str | None = spec(None, aliases=("default_value",), doc="Answer when nobody answers in time")
    validation_type: str | None = spec(None, choices=("text", "number", "integer", "boolean", "email", "url"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HookNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "hook",
        NodeCategory.COMPUTE,
        "Runs a command, calls a web hook, or waits for an event",
        outputs=("default", "success", "error"),
        side_effects=True,
    )

    hook_type: HookType = spec(HookType.SHELL, aliases={"webhook": "http"})
    command: str | None = spec(
        None, code=True, effect="process", doc="For the shell; {{values}} reach it through the environment and are never run"
    )
    url: str | None = spec(None, template=True, effect="net")
    config: Mapping[str, Any] = spec({}, effect="process", doc="The documented long form: command, args, env, cwd, url, script …")
    retry_count: int = spec(0, minimum=0, maximum=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateJobNode(NodeSpec):
    META: ClassVar = NodeMeta("template_job", NodeCategory.CODEGEN, "Renders a template", side_effects=True)

    template_path: str | None = spec(None, path=True, effect="brings", template=True)
    template_content: str | None = spec(None)
    output_path: str | None = spec(None, path=True, effect="write", template=True)
    variables: Mapping[str, Any] = spec({})
    engine: TemplateEngine = spec(TemplateEngine.JINJA2, lenient=True)
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

    schema_path: str | None = spec(None, path=True, effect="brings")
    json_schema: Any = None
    data_path: str | None = spec(None, path=True, effect="read")
    strict_mode: bool = spec(False, doc="Collect every violation")
    error_on_extra: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TypescriptAstNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "typescript_ast",
        NodeCategory.CODEGEN,
        "Parses TypeScript",
        outputs=("default", "results", "error"),
        aliases={"extract": "extract_patterns", "source_file": "file"},
    )

    source: str | None = None
    file: str | None = spec(None, path=True, effect="read")
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
    )
    include_jsdoc: bool = False
    parse_mode: TypeScriptParseMode = TypeScriptParseMode.MODULE
    transform_enums: bool = False
    flatten_output: bool = False
    output_format: TypeScriptOutputFormat = TypeScriptOutputFormat.STANDARD
    batch: bool = False
    batch_input_key: str = "sources"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubDiagramNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "sub_diagram",
        NodeCategory.COMPUTE,
        "Runs another diagram",
        aliases={"ignoreIfSub": "ignore_if_sub", "passInputData": "pass_input_data"},
        side_effects=True,
    )

    diagram_name: str | None = spec(None, path=True, effect="diagram")
    diagram_data: Mapping[str, Any] | None = spec(None, effect="diagram")
    diagram_format: DiagramFormat | None = None
    input_mapping: Mapping[str, str] = spec({}, doc="child variable → path in the inputs")
    output_mapping: Mapping[str, str] = spec({}, doc="output name → path in the result")
    pass_input_data: bool | None = spec(None, doc="Hand over all inputs; default: when there is no input_mapping")
    wait_for_completion: bool = True
    isolate_conversation: bool = False
    ignore_if_sub: bool = False
    batch: bool = spec(
        False,
        doc="Once for each item of a list: `item` and `default` are the item, its keys are names, `_batch_index` counts from 0",
    )
    batch_input_key: str = spec(
        "items", doc="The name of the list: label of an arrow, key of a mapping that arrives, or input of the run"
    )
    batch_parallel: bool = True
    max_concurrent: int = spec(10, minimum=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegratedApiNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "integrated_api",
        NodeCategory.INTEGRATION,
        "Calls a provider's operation",
        outputs=("default", "error"),
        side_effects=True,
    )

    provider: str = "notion"
    operation: str = ""
    resource_id: str | None = spec(None, template=True)
    config: Mapping[str, Any] = spec({}, template=True)
    max_retries: int = spec(3, minimum=0, maximum=10)
    api_key_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IrBuilderNode(NodeSpec):
    META: ClassVar = NodeMeta("ir_builder", NodeCategory.CODEGEN, "Builds a code generator's intermediate form")

    builder_type: IRBuilderTargetType = IRBuilderTargetType.BACKEND
    source_type: IRBuilderSourceType = IRBuilderSourceType.AST
    config_path: str | None = spec(None, path=True, effect="read")
    output_format: IRBuilderOutputFormat = IRBuilderOutputFormat.JSON
    cache_enabled: bool = True
    validate_output: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffPatchNode(NodeSpec):
    META: ClassVar = NodeMeta(
        "diff_patch",
        NodeCategory.UTILITY,
        "Applies a patch to a file",
        outputs=("default", "success", "error"),
        side_effects=True,
    )

    target_path: str | None = spec(None, required=True, path=True, effect="read write", template=True)
    diff: str | None = spec(None)
    format: DiffFormat = DiffFormat.UNIFIED
    apply_mode: PatchMode = PatchMode.NORMAL
    backup: bool = True
    validate_patch: bool = True
    backup_dir: str | None = spec(None, path=True, effect="write")
    strip_level: int = 1
    fuzz_factor: int = 2
    reject_file: str | None = spec(None, path=True, effect="write")
    ignore_whitespace: bool = False
    create_missing: bool = False


MEMORY_PROFILES = {
    "FULL": "ALL_MESSAGES",
    "FOCUSED": "CONVERSATION_PAIRS",
    "MINIMAL": "SYSTEM_AND_ME",
    "GOLDFISH": "GOLDFISH",
    "ONLY_ME": "SENT_TO_ME",
    "ONLY_I_SENT": "SENT_BY_ME",
}
"""Legacy `memory_profile` → `memorize_to` (§2.2.2)."""

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
        ValueError: the type is one of the 16 built-in ones.
    """
    if cls.META.type in set(NodeType):
        raise ValueError(f"'{cls.META.type}' is a built-in node type; choose another name")
    NODE_SPECS[cls.META.type] = cls


def field_names(cls: type[NodeSpec]) -> tuple[str, ...]:
    """The canonical property names of a node type."""
    return tuple(f.name for f in fields(cls))
