"""Values that must never be written down."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from dipeo_nb.common.secret_names import is_secret_name, looks_random, may_be_secret_name, secrets_of_text
from dipeo_nb.config.current import get_settings
from dipeo_nb.config.redaction import SECRET_NAME, URL, url_secrets
from dipeo_nb.config.settings import FIELDS, Settings

_PATH = re.compile(r"\s|^(?:[/~.]|[A-Za-z]:[/\\])")


def secret_values(settings: Settings | None = None) -> set[str]:
    """Return the values to redact: the keys of *settings* (default: those of the process), and the values of variables that
    look like secrets.

    Short values and paths are omitted: they occur in ordinary text and are not secrets.
    """
    settings = settings or get_settings()
    values = {name: settings.peek(name) for name in FIELDS}
    keys = {value.get_secret_value().strip() for name, value in values.items() if FIELDS[name].secret and value is not None}
    urls = [found["rest"] for value in values.values() if isinstance(value, str) for found in URL.finditer(value)]
    keys |= {text for url in urls for secret in url_secrets(url) for text in (secret, unquote(secret))}
    others = (
        value.strip()
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) or is_secret_name(name) or (may_be_secret_name(name) and looks_random(value.strip()))
    )
    keys |= {secret for value in os.environ.values() if "://" in value for secret in secrets_of_text(value, code=False)}
    return {key for key in keys if len(key) >= 8} | {text for text in others if len(text) >= 12 and not _PATH.search(text)}
