"""Settings for display: without passwords and keys."""

from __future__ import annotations

import os
import re
from typing import Any

from dipeo_nb.common.text import printable

URL = re.compile(r"(?P<scheme>(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*+://)(?P<rest>[^\s\"'<>]*)", re.IGNORECASE)
SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
"""Matches names of variables that hold secrets."""
_SECRET_PARAMETER = re.compile(r"key|token|secret|pass|pwd|credential|auth|sig", re.IGNORECASE)


def without_password(text: str) -> str:
    """Replace the passwords and keys in the URLs of a text with `…`, both before the host and in the query."""

    def masked(found: re.Match[str]) -> str:
        rest = found["rest"]
        for secret in sorted(url_secrets(rest), key=len, reverse=True):
            rest = rest.replace(secret, "…")
        return found["scheme"] + rest

    return URL.sub(masked, text)


def url_secrets(rest: str) -> set[str]:
    """Return the passwords and keys in a URL (after `scheme://`), as written there.

    Passwords with `/` and `@` that should have been encoded as `%2F` and `%40` are recognized, too.
    """
    place, _, query = rest.partition("?")
    before, at, _ = place.rpartition("@")
    secrets: set[str] = set()
    if at:
        user, colon, password = before.partition(":")
        if colon and "/" not in user:
            secrets.add(password)
        elif not colon and len(user) >= 16 and "/" not in user:  # a token in place of the user
            secrets.add(user)
    for pair in re.split(r"[&;#]", query):
        name, _, value = pair.partition("=")
        if _SECRET_PARAMETER.search(name):
            secrets.add(value)
    return {secret for secret in secrets if secret}


def shown(value: Any) -> str:
    """Format a value on one line, without passwords and without terminal control characters."""
    if isinstance(value, tuple):
        return os.pathsep.join(map(str, value))
    return printable(without_password(str(value))[:500])
