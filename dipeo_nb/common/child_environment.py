"""The environment of child processes: an allow-list, so that a secret stays behind whatever its variable is called.

Children are the processes that run a diagram's code (Python workers, bash, Node, commands of hooks), Claude Code and pip. They get
the variables of `PASSED`, those that the setting `pass_env` names, and what the node itself sets. Code still runs with the user's
rights: it can read the user's files, and on Linux also /proc/<pid>/environ of the process that started it. This keeps secrets out of
code that does not look for them, its output, its error reports and its own children; it does not contain hostile code.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

PASSED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "TEMP", "TMP", "TERM",
    "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "XDG_*", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
    "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA",
    "PROGRAMFILES*",
)  # fmt: skip
"""Names (`*` matches any ending) that every child gets: where programs and files are, language, time zone, certificates."""
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY")
"""Also in lower case; without the user and password that they may hold."""
NEVER = (
    "DIPEO_*", "STATE_STORE_PATH", "OTEL_*", "PYTHON*", "BASH_ENV", "BASH_FUNC_*", "ENV", "SHELLOPTS", "BASHOPTS", "PS4",
    "PROMPT_COMMAND", "NODE_OPTIONS", "LD_PRELOAD", "LD_AUDIT", "DYLD_*", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS",
)  # fmt: skip
"""Not even when `pass_env` has them: our own settings, and what makes an interpreter run something else first."""
CLAUDE_CODE = ("CLAUDE_CONFIG_DIR", "CLAUDE_CODE_*", "NODE_EXTRA_CA_CERTS")
"""Further variables for its program: where its own login and settings are."""
PIP = ("PIP_*", "NETRC")
"""Further variables for pip: the user's index, with its credentials. (It downloads; it runs nothing of what it downloads.)"""


def child_environment(
    environment: Mapping[str, str], pass_env: Iterable[str] = (), *, credentials_of_proxies: bool = False
) -> dict[str, str]:
    """The variables of the process's own *environment* that a child gets.

    Args:
        pass_env: further names, with `*` for any ending.
        credentials_of_proxies: whether proxies keep their user and password.
    """
    wanted = (*PASSED, *pass_env)
    passed: dict[str, str] = {}
    for name, value in environment.items():
        if matches(name, NEVER):
            continue
        if matches(name, wanted):
            passed[name] = value
        elif name.upper() in PROXIES:
            passed[name] = value if credentials_of_proxies else without_user(value)
    return passed


def withheld(code: str, message: str, environment: Mapping[str, str], pass_env: Iterable[str] = ()) -> str:
    """The variable of *environment* that *code* asks for and did not get, or that the *message* of its failure names; empty
    when there is none."""
    if "env" not in code.lower() and "$" not in code:
        return ""  # it looks no variable up
    given = child_environment(environment, pass_env)
    missing = [name for name in environment if name not in given and len(name) > 2 and name not in _OF_SHELLS]
    for words in (set(_WORD.findall(message)), set(_LOOKED_UP.findall(code))):
        if found := next((name for name in missing if name in words), ""):
            return found
    return ""


def advice(name: str) -> str:
    """A hint on passing the variable *name* to code."""
    if matches(name, NEVER):
        return f"{name} is never handed to the code of diagrams; give the value as an input of the run."
    return (
        f"The environment has {name}, but code gets only harmless variables: allow it with the setting pass_env "
        f"(DIPEO_PASS_ENV={name}), or give the value as an input of the run."
    )


def refused(names: Iterable[str]) -> list[str]:
    """Those of *names* that are never passed on."""
    return [name for name in names if matches(name, NEVER)]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a variable is one of *patterns*; on Windows names have no case."""
    if os.name == "nt":
        name, patterns = name.upper(), [p.upper() for p in patterns]
    return any(fnmatchcase(name, pattern) if pattern.endswith("*") else name == pattern for pattern in patterns)


def without_user(url: str) -> str:
    """An address without user and password; empty when it cannot be read."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
    except ValueError:
        return ""
    whole = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return whole if "://" in url else whole.removeprefix("//")


_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOOKED_UP = re.compile(r"""(?:["'$]|\$\{|\benv\.)([A-Za-z_][A-Za-z0-9_]*)""")
"""A name as programs write one that they look up: `"NAME"`, `$NAME`, `${NAME}`, `env.NAME`."""
_OF_SHELLS = frozenset(("PWD", "OLDPWD", "SHLVL", "HOSTNAME", "IFS", "PS4"))
"""Shells set these themselves."""
