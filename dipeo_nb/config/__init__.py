"""Settings. The only package that reads the environment.

Each variable is accepted under the name that upstream documents and under the one that worked there. What code or the command
line gives goes first, then the environment, then the user's own file (`config.toml` in the user's configuration folder), then `.env`
and `dipeo.toml` of the current directory (fields of `Settings` or variables as keys).

The first three are the user's word. The files of a folder may have come with it, so each field has a scope that says what they may
do: `personal` fields are ignored there, `suggested` ones wait until the user approves them, `harmless` ones have effect, a `key` is
used as `llm.pool` says. `get_settings().explain()` says where each value came from and what it is worth; a `DIPEO_*` variable that
nothing reads is warned about.
"""

from dipeo_nb.config.addresses import OWN_HOSTS, is_loopback, is_own_server, ollama_address
from dipeo_nb.config.child_environment import (
    ambient_headers,
    claude_code_environment,
    code_environment,
    missing_variable,
    pip_environment,
)
from dipeo_nb.config.current import get_settings, override_settings, reset_settings
from dipeo_nb.config.default_model import DEFAULT_MODEL, DEFAULT_MODEL_AFTER, DEFAULT_MODEL_ENDS, default_model
from dipeo_nb.config.explain import Explanation, Setting
from dipeo_nb.config.origins import DEFAULT, GIVEN, Credential, FolderSecret, Origin
from dipeo_nb.config.redaction import without_password
from dipeo_nb.config.scopes import Scope
from dipeo_nb.config.secrets import secret_values
from dipeo_nb.config.settings import Settings, folder_suggestions, not_approved, scope_of
from dipeo_nb.config.sources import user_file
from dipeo_nb.config.suggestions import Approval, Approvals, Suggestion, Suggestions, use_approvals
from dipeo_nb.config.warnings import FolderSettingWarning, UnknownSettingWarning

__all__ = [
    "DEFAULT",
    "DEFAULT_MODEL",
    "DEFAULT_MODEL_AFTER",
    "DEFAULT_MODEL_ENDS",
    "GIVEN",
    "OWN_HOSTS",
    "Approval",
    "Approvals",
    "Credential",
    "Explanation",
    "FolderSecret",
    "FolderSettingWarning",
    "Origin",
    "Scope",
    "Setting",
    "Settings",
    "Suggestion",
    "Suggestions",
    "UnknownSettingWarning",
    "ambient_headers",
    "claude_code_environment",
    "code_environment",
    "default_model",
    "folder_suggestions",
    "get_settings",
    "is_loopback",
    "is_own_server",
    "missing_variable",
    "not_approved",
    "ollama_address",
    "override_settings",
    "pip_environment",
    "reset_settings",
    "scope_of",
    "secret_values",
    "use_approvals",
    "user_file",
    "without_password",
]
