"""Taking secrets out of what is written down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "[hidden]"
"""Stands where a secret stood."""
_FIELD = re.compile(
    r"(^|[-_.])(authorization|api[-_]?key|secret|client[-_]?secret|password|passwd|credentials?|access[-_]?token|"
    r"refresh[-_]?token|auth[-_]?token|set-cookie|cookie|private[-_]?key)$",
    re.IGNORECASE,
)
"""Names of fields whose text is a secret."""
_SHAPES = re.compile(
    r"""
    -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    | (?<![A-Za-z0-9])(?:
        sk-(?!learn)[A-Za-z0-9_-]{16,}                 # OpenAI, Anthropic, many that copied them
      | AIza[0-9A-Za-z_-]{30,}                         # Google
      | (?:gsk|xai|hf|ghp|gho|ghs|glpat|pplx|r8)[_-][A-Za-z0-9_-]{20,}
      | github_pat_[A-Za-z0-9_]{20,}
      | xox[abpros]-[A-Za-z0-9-]{10,}                  # Slack
      | (?:AKIA|ASIA)[A-Z0-9]{16}                      # AWS
      | eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}   # JSON web tokens
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_AFTER = re.compile(
    r"""
    (?P<before>
        \b(?:authorization["']?\s*[:=]\s*["']?(?:bearer|basic)\s+ | bearer\s+(?=[A-Za-z0-9._~+/-]*\d))
      | "(?:authorization|(?:x-)?api[-_]?key|password|client_secret|access_token)"\s*:\s*"
      | [?&](?:api[-_]?key|key|access_token|token|sig|signature)=
    )
    (?P<secret>[^\s"'&@,;]{8,})
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Secrets told by what stands before them: headers, JSON fields, parts of addresses."""
_USER = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
"""Name and password in an address."""


def scrubbed(value: Any, secrets: Iterable[str] = ()) -> Any:
    """*value* (of JSON: texts, lists, mappings …) with every secret replaced by `[hidden]`.

    Secrets are the given texts, what has the shape of a known kind of key (`sk-…`), and texts in fields such as
    `Authorization`, `api_key` and `password`.
    """
    known = sorted({s for s in secrets if s}, key=len, reverse=True)  # the longest first: one may be part of another

    def walk(node: Any) -> Any:
        if isinstance(node, str):
            return text(node)
        if isinstance(node, Mapping):
            return {
                text(str(k)): HIDDEN if isinstance(v, str) and v and _FIELD.search(str(k)) else walk(v)
                for k, v in node.items()  # pyright: ignore[reportUnknownVariableType]
            }
        if isinstance(node, (list, tuple)):
            return [walk(item) for item in node]  # pyright: ignore[reportUnknownVariableType]
        return node

    def text(words: str) -> str:
        for secret in known:
            words = words.replace(secret, HIDDEN)
        words = _USER.sub(HIDDEN, _SHAPES.sub(HIDDEN, words))
        return _AFTER.sub(lambda found: found["before"] + HIDDEN, words)

    return walk(value)
