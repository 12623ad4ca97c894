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

from dipeo_nb.errors.base import DipeoError
from dipeo_nb.errors.llm import (
    AuthError,
    ContentFilteredError,
    ContextLengthError,
    EmptyAnswerError,
    LLMConnectionError,
    LLMError,
    LLMTimeoutError,
    ModelUnavailableError,
    ProviderError,
    RateLimitError,
    RecordingError,
    RecordingNotFoundError,
    StructureError,
    ToolLoopError,
    UnknownModelError,
    UnsupportedError,
    ValidatorCodeError,
)
from dipeo_nb.errors.run import (
    BudgetExceededError,
    CodeError,
    DeadlockError,
    ExpressionError,
    MaxIterationsError,
    NodeExecutionError,
    NodeTimeoutError,
    NotGrantedError,
    RunAbortedError,
    RunError,
    RunInterruptedError,
    RunTimeoutError,
    TemplateError,
)
from dipeo_nb.errors.service import (
    APIKeyError,
    APIKeyNotFoundError,
    EventBusError,
    IntegrationError,
    ProviderAuthError,
    ProviderNotFoundError,
    ProviderRateLimitError,
    ProviderRejectedError,
    ProviderUnavailableError,
    ServiceError,
    StorageError,
    UnknownOutcomeError,
)
from dipeo_nb.errors.user import (
    ConfigurationError,
    DiagramError,
    DiagramFormatError,
    DiagramNotFoundError,
    InvalidDiagramError,
    ManifestError,
    MissingDependencyError,
    SettingNotApprovedError,
    TrustError,
    UnknownNodeError,
    UserError,
    ValidationError,
)

__all__ = [
    "APIKeyError",
    "APIKeyNotFoundError",
    "AuthError",
    "BudgetExceededError",
    "CodeError",
    "ConfigurationError",
    "ContentFilteredError",
    "ContextLengthError",
    "DeadlockError",
    "DiagramError",
    "DiagramFormatError",
    "DiagramNotFoundError",
    "DipeoError",
    "EmptyAnswerError",
    "EventBusError",
    "ExpressionError",
    "IntegrationError",
    "InvalidDiagramError",
    "LLMConnectionError",
    "LLMError",
    "LLMTimeoutError",
    "ManifestError",
    "MaxIterationsError",
    "MissingDependencyError",
    "ModelUnavailableError",
    "NodeExecutionError",
    "NodeTimeoutError",
    "NotGrantedError",
    "ProviderAuthError",
    "ProviderError",
    "ProviderNotFoundError",
    "ProviderRateLimitError",
    "ProviderRejectedError",
    "ProviderUnavailableError",
    "RateLimitError",
    "RecordingError",
    "RecordingNotFoundError",
    "RunAbortedError",
    "RunError",
    "RunInterruptedError",
    "RunTimeoutError",
    "ServiceError",
    "SettingNotApprovedError",
    "StorageError",
    "StructureError",
    "TemplateError",
    "ToolLoopError",
    "TrustError",
    "UnknownModelError",
    "UnknownNodeError",
    "UnknownOutcomeError",
    "UnsupportedError",
    "UserError",
    "ValidationError",
    "ValidatorCodeError",
]

for _name in __all__:
    globals()[_name].__module__ = __name__  # as users import them: in tracebacks, and in pickles of any version
