"""The error tree. Every message ends with the next action; the facts are attributes.

    DipeoError
    ├── UserError                 you made a mistake: nothing was run, fix the input and try again
    │   ├── ValidationError           a value has the wrong type, shape or size
    │   ├── UnknownNodeError          (a KeyError) no node of that label or id
    │   ├── ConfigurationError        a setting or a combination of options cannot work
    │   │   ├── ManifestError             the manifest of a provider cannot be used; carries `path` and `line`
    │   │   └── MissingDependencyError    an optional package is not installed
    │   ├── TrustError                code in a diagram was not trusted to run
    │   └── DiagramError              the diagram cannot be read or run
    │       ├── DiagramNotFoundError
    │       ├── DiagramFormatError        not a diagram: bad YAML/JSON, binary, too large
    │       └── InvalidDiagramError       read, but refused by the compiler; carries `diagnostics`
    ├── RunError                  the run failed; the events up to that point are in the run store
    │   ├── NodeExecutionError        a node's work raised
    │   │   ├── ExpressionError           an expression of a condition could not be evaluated
    │   │   ├── TemplateError             a prompt or path template could not be rendered
    │   │   └── CodeError                 the code of a code_job raised; carries its own traceback
    │   │       └── ValidatorCodeError        (also an LLMError) so did a validator of yours that read an answer
    │   ├── NodeTimeoutError          a node was slower than its time limit
    │   ├── RunTimeoutError           the run was slower than its time limit
    │   ├── MaxIterationsError        a loop did not end within its limit
    │   ├── DeadlockError             nodes wait for inputs that can never come
    │   ├── BudgetExceededError       a limit of tokens, cost, calls or seconds was reached
    │   └── RunAbortedError           stopped by the user
    │       └── RunInterruptedError       interrupted by the end of its process
    └── ServiceError              something outside failed
        ├── StorageError              files, blobs, run store; carries `operation`
        ├── EventBusError             events could not be passed on; the run store has them
        ├── IntegrationError          a web service; carries `status`, `url` (without its query), `attempts`
        │   └── ProviderAuthError, ProviderNotFoundError, ProviderRateLimitError, ProviderRejectedError,
        │       ProviderUnavailableError, UnknownOutcomeError
        ├── APIKeyError
        │   └── APIKeyNotFoundError
        └── LLMError                  carries provider, model, status, request_id
            ├── AuthError, RateLimitError, ContextLengthError, ContentFilteredError,
            │   LLMTimeoutError, LLMConnectionError, UnsupportedError, ProviderError
            ├── UnknownModelError         (an UnsupportedError and a UserError) no such service or model
            ├── EmptyAnswerError          (a ProviderError) the limit of tokens was reached before the first word
            ├── StructureError            (a ProviderError) the answer does not fit the requested structure
            ├── RecordingError            a recorded answer cannot be read or written
            │   └── RecordingNotFoundError    (replay) there is none for this call
            ├── ToolLoopError             tools were called round after round, without an answer
            └── ModelUnavailableError     an embedded or local model cannot be fetched or loaded

Keep the two first branches apart: a `UserError` means nothing ran (exit code 2), a `RunError` means a run
exists in the store (exit code 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from dipeo_nb.errors.rendering import line_of_caller, printable, quoted

if TYPE_CHECKING:
    from dipeo_nb.domain.diagnostics import Diagnostic


class DipeoError(Exception):
    """Base of all errors of this package.

    Args:
        message: what happened, one sentence, in the user's words.
        hint: the next action (a command, a variable, a spelling); shown after the message.
        facts: typed facts, kept as attributes (`error.path`, `error.model` …).
    """

    code = "dipeo_error"
    """Stable, machine-readable name of the kind of error."""

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        self.message = message
        self.hint = hint
        self.facts = facts
        for name, value in facts.items():
            setattr(self, name, value)
        super().__init__(str(self))

    def __str__(self) -> str:
        # Not from the arguments: the hint may be added later, where more is known than where the error was raised.
        between = "" if self.message[-1:].isspace() else " "
        return f"{self.message}{between}{self.hint}" if self.hint else self.message

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the line of the cell, the message and the hint, instead of our own frames."""
        lines = [f"\x1b[31m{type(self).__name__}\x1b[0m: {printable(self.message)}"]
        if place := line_of_caller(self):
            lines.insert(0, place)
        if theirs := getattr(self, "traceback", ""):
            lines.append(printable(str(theirs).rstrip()))
        if self.hint:
            lines.append(printable(self.hint))
        return lines

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments are lost by the default protocol; errors must cross process boundaries.
        return _rebuild, (type(self), self.message, self.hint, self.facts)


def _rebuild(cls: type[DipeoError], message: str, hint: str | None, facts: dict[str, Any]) -> DipeoError:
    return cls(message, hint=hint, **facts)


class UserError(DipeoError):
    """You made a mistake; nothing was run."""

    code = "user_error"


class ValidationError(UserError):
    """A value has the wrong type, shape or size."""

    code = "validation_error"


class UnknownNodeError(UserError, KeyError):
    """A run or a diagram has no node of that label or id."""

    code = "unknown_node"


class ConfigurationError(UserError):
    """A setting, or a combination of options, cannot work."""

    code = "configuration_error"


class SettingNotApprovedError(ConfigurationError):
    """A file of the folder suggests this value, and the user has not approved it; `variable`, `file` and `folder` say which."""

    code = "setting_not_approved"


class ManifestError(ConfigurationError):
    """The manifest of a provider cannot be used; `path` and `line` say where."""

    code = "manifest_error"
    path: str | None = None
    line: int | None = None


class MissingDependencyError(ConfigurationError):
    """An optional package is not installed; the hint names the extra to install."""

    code = "missing_dependency"

    @classmethod
    def for_extra(cls, package: str, *, extra: str) -> MissingDependencyError:
        """The error for an optional *package* that the *extra* of this distribution brings."""
        return cls(
            f"This needs the package '{package}', which is not installed.",
            hint=f'Run: pip install "dipeo-nb[{extra}]"',
            package=package,
            extra=extra,
        )


class TrustError(UserError):
    """A diagram wants more than an untrusted one may do, and the user has not approved it.

    `lines` list what it wants for people, `uses` the same as JSON values; `pin` is the code that approves exactly this;
    `folder` is the folder that could be trusted instead, when the diagram is below the base directory, and `settings` are the
    settings of that folder that would be approved with it.
    """

    code = "not_trusted"
    shown: ClassVar[Callable[[TrustError], bool]] = staticmethod(lambda _: False)
    """Shows the error as a panel, and returns whether the user sees it; notebooks replace it."""
    bundle: ClassVar[Callable[[TrustError], dict[str, str]]] = staticmethod(lambda error: {"text/plain": error.text()})
    """The panel as a mimebundle; notebooks replace it."""

    def listing(self) -> list[str]:
        """The lines of what it wants, with characters that a screen does not show as escapes."""
        return [printable(str(line)) for line in self.facts.get("lines", ())]

    def ways(self) -> list[tuple[str, str]]:
        """(meaning, line of Python to copy) of each way to approve it; empty when there is none."""
        found: list[tuple[str, str]] = []
        function, first = self.facts.get("call", ("dp.run", self.facts.get("path")))
        if self.facts.get("pin"):
            given = "…" if first is None else quoted(str(first))
            found.append(("Exactly this, as it is now", f'{function}({given}, trust="{self.facts["pin"]}")'))
        if self.facts.get("folder"):
            found.append((f"Everything in {printable(self.facts['folder'])}", f"dp.trust({quoted(self.facts['folder'])})"))
        return found

    def settings_lines(self) -> list[str]:
        """The settings of the folder that trusting it approves."""
        return [printable(str(setting)) for setting in self.facts.get("settings", ())]

    def text(self) -> str:
        """All of it as plain text."""
        lines = [f"{type(self).__name__}: {printable(self.message)}", *self.listing()]
        if ways := self.ways():
            lines.append("To say yes, copy one of these lines:")
            for meaning, line in ways:
                lines += [f"  # {meaning}", f"  {line}"]
            if settings := self.settings_lines():
                lines += ["  # with these settings of the folder:", *(f"  #   {setting}" for setting in settings)]
        elif self.hint:
            lines.append(printable(self.hint))
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return TrustError.bundle(self)

    def _render_traceback_(self) -> list[str]:
        if not TrustError.shown(self):
            place = line_of_caller(self)
            return [*([place] if place else []), *self.text().splitlines()]
        *lines, _ = super()._render_traceback_() if self.hint else [*super()._render_traceback_(), ""]
        return [*lines, "The list of what it would do, and the lines that say yes, are above."]


class DiagramError(UserError):
    """The diagram cannot be read or run."""

    code = "diagram_error"
    diagnostics: Sequence[Diagnostic] = ()


class DiagramNotFoundError(DiagramError):
    """No diagram under that path or name."""

    code = "diagram_not_found"


class DiagramFormatError(DiagramError):
    """The text is not a diagram: bad YAML or JSON, binary data, wrong encoding, too large."""

    code = "diagram_format"


class InvalidDiagramError(DiagramError):
    """The diagram was read and then refused; `diagnostics` says where and why."""

    code = "invalid_diagram"


class RunError(DipeoError):
    """The run failed. `run_id` and `node` (label) are set when known."""

    code = "run_error"
    run_id: str | None = None
    node: str | None = None


class NodeExecutionError(RunError):
    """The work of a node raised."""

    code = "node_failed"


class NotGrantedError(NodeExecutionError):
    """A node needed something that its diagram is not allowed to do; `kind` and `what` name it as in `--allow`."""

    code = "not_granted"


class ExpressionError(NodeExecutionError):
    """An expression could not be parsed or evaluated."""

    code = "expression_error"


class TemplateError(NodeExecutionError):
    """A template could not be parsed or rendered."""

    code = "template_error"


class CodeError(NodeExecutionError):
    """The code of a code_job raised; `traceback` is the user's part of the traceback."""

    code = "code_error"
    traceback: str = ""


class NodeTimeoutError(RunError):
    """A node was slower than its time limit."""

    code = "node_timeout"


class RunTimeoutError(RunError):
    """The run was slower than its time limit."""

    code = "run_timeout"


class MaxIterationsError(RunError):
    """A loop did not end within its limit."""

    code = "max_iterations"


class DeadlockError(RunError):
    """Nodes wait for inputs that can never come; the message names the missing edges."""

    code = "deadlock"


class BudgetExceededError(RunError):
    """A limit of tokens, cost, calls or seconds was reached."""

    code = "budget_exceeded"


class RunAbortedError(RunError):
    """The run was stopped by the user."""

    code = "aborted"


class ServiceError(DipeoError):
    """Something outside this package failed."""

    code = "service_error"


class RunInterruptedError(RunAbortedError):
    """The run was interrupted by the orderly end of its process; it can be resumed."""

    code = "interrupted"


class StorageError(ServiceError):
    """A file, blob or database operation failed; `operation` names it."""

    code = "storage_error"
    operation: str | None = None


class EventBusError(ServiceError):
    """Events could not be passed on; the run store has them. `cause`: invalid, unavailable, overflow or closed."""

    code = "event_bus_error"


class IntegrationError(ServiceError):
    """A web service refused, failed or could not be reached; `status` is its HTTP answer, when there was one."""

    code = "integration_error"
    status: int | None = None


class ProviderAuthError(IntegrationError):
    """The provider refuses the key: it is wrong, expired, or lacks a permission."""

    code = "provider_auth"


class ProviderNotFoundError(IntegrationError):
    """The provider has nothing of that name or id."""

    code = "provider_not_found"


class ProviderRateLimitError(IntegrationError):
    """Too many calls; `retry_after` in seconds when the provider said so."""

    code = "provider_rate_limit"
    retry_after: float | None = None


class ProviderRejectedError(IntegrationError):
    """The provider refuses the request as it is; `provider_code` is its own name for the reason."""

    code = "provider_rejected"
    provider_code: str | None = None


class ProviderUnavailableError(IntegrationError):
    """The provider fails, or cannot be reached."""

    code = "provider_unavailable"


class UnknownOutcomeError(IntegrationError):
    """The connection was lost after a request was sent that must not be sent twice: nobody knows whether it arrived."""

    code = "unknown_outcome"


class APIKeyError(ServiceError):
    """An API key cannot be stored, read or used."""

    code = "api_key_error"


class APIKeyNotFoundError(APIKeyError):
    """No API key for that provider; the hint names the variable and the keyless way."""

    code = "api_key_not_found"


class LLMError(ServiceError):
    """A call of a language model failed. Attributes: provider, model, status, request_id (None when unknown)."""

    code = "llm_error"
    provider: str | None = None
    model: str | None = None
    status: int | None = None
    request_id: str | None = None
    retryable: bool | None = None
    """Whether the server indicated that a retry may succeed; None when it did not."""
    usage: Any = None
    """`TokenUsage` of an answer that was charged nevertheless (a refusal, or one that does not fit); None without one."""
    cost_usd: float | None = None
    """Its cost in US dollars; None when unknown."""
    charged: bool = False
    """Whether `cost_usd` was computed."""
    cached: bool = False
    """Whether the answer came from a recording, and cost nothing."""
    saved_usd: float | None = None
    """The cost that a recorded answer saved."""


class AuthError(LLMError):
    """The provider refused the key (401, 403)."""

    code = "llm_auth"


class RateLimitError(LLMError):
    """Too many requests (429); `retry_after` in seconds when the provider said so."""

    code = "llm_rate_limit"
    retry_after: float | None = None


class ContextLengthError(LLMError):
    """The prompt does not fit into the model's context."""

    code = "llm_context_length"


class ContentFilteredError(LLMError):
    """The provider refused to answer for reasons of content."""

    code = "llm_content_filtered"


class LLMTimeoutError(LLMError):
    """No answer, or no further token, within the time limit."""

    code = "llm_timeout"


class LLMConnectionError(LLMError):
    """The provider cannot be reached, or the connection broke."""

    code = "llm_connection"


class UnsupportedError(LLMError):
    """The model cannot do that; refused before the call, the hint says what would work."""

    code = "llm_unsupported"


class UnknownModelError(UserError, UnsupportedError):
    """A name that is neither a service nor a model of a known family; nothing was called or run."""

    code = "llm_unknown_model"


class ProviderError(LLMError):
    """Any other answer of the provider that is not a success; `retry_after` in seconds when it said so."""

    code = "llm_provider"
    retry_after: float | None = None


class EmptyAnswerError(ProviderError):
    """The model reached its limit of tokens before it gave an answer: it thought too long, or its context is full."""

    code = "llm_empty_answer"


class StructureError(ProviderError):
    """The answer does not fit the requested structure."""

    code = "llm_structure"
    problem: str = ""
    """The part that does not fit, and where it is."""
    text: str = ""
    """The answer."""
    repairable: bool = False
    """Whether asking once more, with the problem named, may help; not when the answer was cut off."""


class RecordingError(LLMError):
    """A recorded answer cannot be read or written; `path` is its file or folder."""

    code = "llm_recording"
    path: Any = None


class RecordingNotFoundError(RecordingError):
    """Nothing may be called (`replay`), and this call is not recorded; `nearest` is the file of the most similar one."""

    code = "llm_recording_not_found"
    nearest: Any = None


class ValidatorCodeError(CodeError, LLMError):
    """A validator of the class that was asked for raised neither ValueError nor AssertionError, by which it would say that the answer
    does not fit: a failure of the user's code, not of the provider. The answer was paid for; nothing is asked again."""

    code = "validator_code_error"


class ToolLoopError(LLMError):
    """The model kept calling tools beyond the limit of rounds."""

    code = "llm_tool_loop"


class ModelUnavailableError(LLMError):
    """An embedded or local model cannot be fetched or loaded."""

    code = "llm_model_unavailable"
