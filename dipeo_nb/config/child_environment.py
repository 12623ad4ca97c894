"""The environment of child processes."""

from __future__ import annotations

import os
from collections.abc import Iterable

from dipeo_nb.common import child_environment
from dipeo_nb.config.redaction import SECRET_NAME


def ambient_headers(variable: str) -> frozenset[str]:
    """Return the names of the headers that an SDK sends to every server because of an environment variable: `Name: value`, one a line."""
    lines = os.environ.get(variable, "").splitlines() if variable else []
    return frozenset(line.partition(":")[0].strip() for line in lines if ":" in line)


def code_environment(pass_env: Iterable[str] = ()) -> dict[str, str]:
    """Return the environment of a process that runs a diagram's code; see `common.child_environment`.

    Args:
        pass_env: additional variables (`Settings.passed_variables`).
    """
    return child_environment.child_environment(os.environ, pass_env)


def missing_variable(code: str, message: str, pass_env: Iterable[str] = ()) -> str:
    """Return advice when code may have failed because a variable was withheld from it; otherwise an empty text."""
    name = child_environment.withheld(code, message, os.environ, pass_env)
    return child_environment.advice(name) if name else ""


def pip_environment(pass_env: Iterable[str] = ()) -> dict[str, str]:
    """Return the environment of pip: that of any child process, plus the user's settings for package indexes."""
    return child_environment.child_environment(os.environ, (*child_environment.PIP, *pass_env), credentials_of_proxies=True)


def claude_code_environment(*, key: str | None, base_url: str | None, pass_env: Iterable[str] = ()) -> dict[str, str]:
    """Return the changes to the environment that the Claude Code program inherits: variables that it must not see are emptied (its
    SDK cannot remove them), then its key and server are set. Its own retries are turned off."""
    pass_env = tuple(pass_env)
    passed = child_environment.child_environment(
        os.environ, (*child_environment.CLAUDE_CODE, *pass_env), credentials_of_proxies=True
    )
    keys = {name for name in passed if SECRET_NAME.search(name) and not child_environment.matches(name, pass_env)}
    hidden = {name: "" for name in os.environ if name not in passed or name in keys}
    mine = {"ANTHROPIC_API_KEY": key or "", "ANTHROPIC_AUTH_TOKEN": ""}
    if not key:  # the user's own login, of whatever kind
        mine = {name: os.environ[name] for name in os.environ if name.startswith("CLAUDE_CODE_OAUTH")}
    server = {"ANTHROPIC_BASE_URL": base_url} if base_url else {}
    quiet = {
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    return {**hidden, **quiet, **mine, **server}
