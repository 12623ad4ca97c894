"""Every enumeration of the diagram language, with its exact wire values."""

from __future__ import annotations

from enum import StrEnum


class NodeType(StrEnum):
    START = "start"
    PERSON_JOB = "person_job"
    CONDITION = "condition"
    CODE_JOB = "code_job"
    API_JOB = "api_job"
    ENDPOINT = "endpoint"
    DB = "db"
    USER_RESPONSE = "user_response"
    HOOK = "hook"
    TEMPLATE_JOB = "template_job"
    JSON_SCHEMA_VALIDATOR = "json_schema_validator"
    TYPESCRIPT_AST = "typescript_ast"
    SUB_DIAGRAM = "sub_diagram"
    INTEGRATED_API = "integrated_api"
    IR_BUILDER = "ir_builder"
    DIFF_PATCH = "diff_patch"


class NodeCategory(StrEnum):
    CONTROL = "control"
    AI = "ai"
    COMPUTE = "compute"
    INTEGRATION = "integration"
    CODEGEN = "codegen"
    UTILITY = "utility"


class HandleDirection(StrEnum):
    INPUT = "input"
    OUTPUT = "output"


class HandleLabel(StrEnum):
    DEFAULT = "default"
    FIRST = "first"
    CONDTRUE = "condtrue"
    CONDFALSE = "condfalse"
    SUCCESS = "success"
    ERROR = "error"
    RESULTS = "results"


class DataType(StrEnum):
    ANY = "any"
    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"
    OBJECT = "object"
    ARRAY = "array"


class ContentType(StrEnum):
    RAW_TEXT = "raw_text"
    CONVERSATION_STATE = "conversation_state"
    OBJECT = "object"
    EMPTY = "empty"
    GENERIC = "generic"
    VARIABLE = "variable"
    BINARY = "binary"


class DiagramFormat(StrEnum):
    NATIVE = "native"
    YAML = "yaml"
    JSON = "json"
    READABLE = "readable"
    EXECUTABLE = "executable"
    LIGHT = "light"


class Status(StrEnum):
    """Status of a run or of a node."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    ABORTED = "aborted"
    SKIPPED = "skipped"
    MAXITER_REACHED = "maxiter_reached"
    INTERRUPTED = "interrupted"
    """Ours: the process ended during the run."""


class FlowStatus(StrEnum):
    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    BLOCKED = "blocked"


class CompletionStatus(StrEnum):
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    MAX_ITER = "max_iter"


class ExecutionPhase(StrEnum):
    MEMORY_SELECTION = "memory_selection"
    DIRECT_EXECUTION = "direct_execution"
    DECISION_EVALUATION = "decision_evaluation"
    DEFAULT = "default"


class EventType(StrEnum):
    EXECUTION_STARTED = "execution_started"
    EXECUTION_COMPLETED = "execution_completed"
    EXECUTION_ERROR = "execution_error"
    NODE_WAITING = "node_waiting"
    NODE_STARTED = "node_started"
    NODE_COMPLETED = "node_completed"
    NODE_ERROR = "node_error"
    NODE_OUTPUT = "node_output"
    EXECUTION_LOG = "execution_log"
    INTERACTIVE_PROMPT = "interactive_prompt"
    INTERACTIVE_RESPONSE = "interactive_response"
    RUN_NOTE = "run_note"


class EventPriority(StrEnum):
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    CRITICAL = "critical"


class LLMService(StrEnum):
    """Services a person can name. `local` and `echo` are ours; the others are the wire values of the spec."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    CLAUDE_CODE = "claude-code"
    CLAUDE_CODE_CUSTOM = "claude-code-custom"
    GOOGLE = "google"
    GEMINI = "gemini"
    OLLAMA = "ollama"
    LOCAL = "local"
    ECHO = "echo"


class ToolType(StrEnum):
    WEB_SEARCH = "web_search"
    WEB_SEARCH_PREVIEW = "web_search_preview"
    IMAGE_GENERATION = "image_generation"


class ToolSelection(StrEnum):
    NONE = "none"
    IMAGE = "image"
    WEBSEARCH = "websearch"


class HookType(StrEnum):
    SHELL = "shell"
    HTTP = "http"
    PYTHON = "python"
    FILE = "file"


class HookTriggerMode(StrEnum):
    NONE = "none"
    MANUAL = "manual"
    HOOK = "hook"


class ConditionType(StrEnum):
    DETECT_MAX_ITERATIONS = "detect_max_iterations"
    CHECK_NODES_EXECUTED = "check_nodes_executed"
    CUSTOM = "custom"
    LLM_DECISION = "llm_decision"


class SupportedLanguage(StrEnum):
    PYTHON = "python"
    TYPESCRIPT = "typescript"
    BASH = "bash"
    SHELL = "shell"


class HttpMethod(StrEnum):
    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    DELETE = "DELETE"
    PATCH = "PATCH"


class AuthType(StrEnum):
    NONE = "none"
    BEARER = "bearer"
    BASIC = "basic"
    API_KEY = "api_key"


class RetryStrategy(StrEnum):
    NONE = "none"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"
    FIBONACCI = "fibonacci"
    CONSTANT = "constant"
    EXPONENTIAL_BACKOFF = "exponential_backoff"
    LINEAR_BACKOFF = "linear_backoff"
    FIXED_DELAY = "fixed_delay"


class DBBlockSubType(StrEnum):
    FIXED_PROMPT = "fixed_prompt"
    FILE = "file"
    CODE = "code"
    API_TOOL = "api_tool"


class DBOperation(StrEnum):
    PROMPT = "prompt"
    READ = "read"
    WRITE = "write"
    APPEND = "append"
    UPDATE = "update"


class DataFormat(StrEnum):
    JSON = "json"
    YAML = "yaml"
    CSV = "csv"
    TEXT = "text"
    XML = "xml"


class TemplateEngine(StrEnum):
    INTERNAL = "internal"
    JINJA2 = "jinja2"


class IRBuilderTargetType(StrEnum):
    BACKEND = "backend"
    FRONTEND = "frontend"
    STRAWBERRY = "strawberry"
    CUSTOM = "custom"


class IRBuilderSourceType(StrEnum):
    AST = "ast"
    SCHEMA = "schema"
    CONFIG = "config"
    AUTO = "auto"


class IRBuilderOutputFormat(StrEnum):
    JSON = "json"
    YAML = "yaml"
    PYTHON = "python"


class TypeScriptExtractPattern(StrEnum):
    INTERFACE = "interface"
    TYPE = "type"
    ENUM = "enum"
    CLASS = "class"
    FUNCTION = "function"
    CONST = "const"
    EXPORT = "export"


class TypeScriptParseMode(StrEnum):
    MODULE = "module"
    SCRIPT = "script"


class TypeScriptOutputFormat(StrEnum):
    STANDARD = "standard"
    FOR_CODEGEN = "for_codegen"
    FOR_ANALYSIS = "for_analysis"


class DiffFormat(StrEnum):
    UNIFIED = "unified"
    GIT = "git"
    CONTEXT = "context"
    ED = "ed"
    NORMAL = "normal"


class PatchMode(StrEnum):
    NORMAL = "normal"
    FORCE = "force"
    DRY_RUN = "dry_run"
    REVERSE = "reverse"


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class MessageType(StrEnum):
    PERSON_TO_PERSON = "person_to_person"
    SYSTEM_TO_PERSON = "system_to_person"
    PERSON_TO_SYSTEM = "person_to_system"


SERVICE_ALIASES = {
    "claude": LLMService.ANTHROPIC,
    "claude-sdk": LLMService.CLAUDE_CODE,
    "chatgpt": LLMService.OPENAI,
    "gpt": LLMService.OPENAI,
    "gpt-4": LLMService.OPENAI,
    "gpt-3.5": LLMService.OPENAI,
    "google": LLMService.GEMINI,
    "llama": LLMService.OLLAMA,
    "mistral": LLMService.OLLAMA,
    "gemma": LLMService.OLLAMA,
    "phi": LLMService.OLLAMA,
}
"""Spellings accepted for a service, after lower-casing and `_` → `-`."""
