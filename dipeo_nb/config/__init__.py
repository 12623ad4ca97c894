"""Settings. The only package that reads the environment.

Each variable is accepted under the name that DiPeO documents and under the one that its code reads. Precedence: values passed in code
or on the command line, the environment, the user's own file (`config.toml` in the user's configuration folder), then `.env` and
`dipeo.toml` of the current directory (keys are fields of `Settings` or variables).

The first three belong to the user. A folder's files may have come with the folder, so each field has a scope that limits them:
`personal` fields are ignored there, `suggested` fields have no effect until the user approves them, `harmless` fields apply, and a
`key` is used as described in `llm.pool`. `get_settings().explain()` shows the origin and standing of each value; an unknown `DIPEO_*`
variable causes a warning.
"""

from typing import TYPE_CHECKING

from dipeo_nb.common.moved import moved_names
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
from dipeo_nb.config.explain import Setting, SettingsTable
from dipeo_nb.config.origins import DEFAULT, GIVEN, Credential, Origin
from dipeo_nb.config.redaction import without_password
from dipeo_nb.config.scopes import Scope
from dipeo_nb.config.secrets import secret_values
from dipeo_nb.config.settings import FIELDS, Settings, folder_suggestions, not_approved, scope_of
from dipeo_nb.config.sources import user_file
from dipeo_nb.config.suggestions import Approval, Approvals, Suggestion, Suggestions, use_approvals
from dipeo_nb.config.warnings import FolderSettingWarning, UnknownSettingWarning

__all__ = [
    "DEFAULT",
    "DEFAULT_MODEL",
    "DEFAULT_MODEL_AFTER",
    "DEFAULT_MODEL_ENDS",
    "FIELDS",
    "GIVEN",
    "OWN_HOSTS",
    "Approval",
    "Approvals",
    "Credential",
    "FolderSettingWarning",
    "Origin",
    "Scope",
    "Setting",
    "Settings",
    "SettingsTable",
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


# The former name, for one release.
if not TYPE_CHECKING:
    __getattr__ = moved_names(
        __name__,
        {
            "Explanation": "dipeo_nb.config:SettingsTable",
        },
    )
