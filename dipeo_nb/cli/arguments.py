"""Turns arguments of the command line into values."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.config import Settings, get_settings
from dipeo_nb.errors import ConfigurationError, ValidationError
from dipeo_nb.terminal import safe

if TYPE_CHECKING:
    from dipeo_nb.diagram import document
    from dipeo_nb.diagram.document import Diagram
    from dipeo_nb.domain.plan import Plan
    from dipeo_nb.execution import nested
else:  # `runs` and `keys` read no diagram
    document = lazy.module("dipeo_nb.diagram.document")
    nested = lazy.module("dipeo_nb.execution.nested")

STDIN = "-"
"""The name of a diagram that comes from stdin."""


def settings_for(base_dir: str | None) -> Settings:
    """The settings, with another base directory if one is given."""
    settings = get_settings()
    _log_from(settings.log_level)
    name, path = ("DIPEO_BASE_DIR", settings.base_dir) if base_dir is None else ("--base-dir", Path(base_dir))
    if not path.is_dir():
        raise ConfigurationError(f"{name} {path} is not a folder.", hint="Name a folder that exists.")
    return settings.model_copy(update={"base_dir": path.resolve()})


def _log_from(level: str) -> None:
    """Send log messages of the package to stderr, from this level on."""
    logger = logging.getLogger("dipeo_nb")
    logger.setLevel(level)
    if not any(type(handler) is logging.StreamHandler for handler in logger.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    # Calls that are repeated are counted in the run's own messages.
    logging.getLogger("stamina").addHandler(logging.NullHandler())


def load_diagram(file: str, format: str | None, settings: Settings) -> Diagram:
    """The diagram of a file, of a name, or of stdin."""
    if file != STDIN:
        return document.load(file, format=format, base_dir=settings.base_dir)
    if sys.stdin is None or sys.stdin.isatty():
        raise ValidationError("Nothing was piped to stdin.", hint="Use for example `cat diagram.yaml | dipeo-nb validate -`.")
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValidationError(f"The text from stdin is not UTF-8: {error.reason}.", hint="Convert it first.") from error
    return document.load_text(text, format=format, base_dir=settings.base_dir)


def parse_inputs(given: Sequence[str]) -> dict[str, Any]:
    """`k=v` pairs; a value is JSON if it parses, else text."""
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ValidationError(
                f"--input '{text}' is not NAME=VALUE.", hint="Use for example --input topic='tabs or spaces'."
            )
        try:
            values[name.strip()] = json.loads(value)
        except (ValueError, RecursionError):
            values[name.strip()] = value
    return values


def parse_inputs_file(given: str | None) -> dict[str, Any]:
    """The JSON object that *given* is, or that the file of that name holds."""
    if given is None:
        return {}
    hint = 'It must be one JSON object, e.g. {"topic": "tabs or spaces"}, or a file that holds one.'
    here = given.lstrip().startswith(("{", "[", '"'))
    name = "--inputs" if here else f"--inputs {given}"
    try:
        data = json.loads(given if here else Path(given).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValidationError(f"{name} cannot be read: {error.strerror or error}.", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise ValidationError(f"{name} is not JSON: {error}.", hint=hint) from error
    if not isinstance(data, dict):
        raise ValidationError(f"{name} holds {_json_kind(data)}, not an object.", hint=hint)
    return data


def _json_kind(value: object) -> str:
    kinds = {list: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number", type(None): "null"}
    return kinds.get(type(value), type(value).__name__)


def parse_pairs(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` pairs. Raises ValidationError."""
    pairs: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValidationError(f"'{text:.80}' is not NAME=VALUE.", hint="Write e.g. channel=C123.")
        pairs[name] = value
    return pairs


def set_providers(integrations: Any, given: Sequence[str]) -> None:
    """Set variables of providers: `PROVIDER.NAME=VALUE`, for what runs in this process.

    Raises:
        ValidationError: it is not of that form.
        ConfigurationError: the provider has no such variable.
    """
    for name, value in parse_pairs(given).items():
        provider, dot, variable = name.rpartition(".")
        if not dot or not provider:
            raise ValidationError(
                f"--set '{name:.80}={value:.80}' names no provider.", hint="Write PROVIDER.NAME=VALUE, e.g. notes.site=acme."
            )
        if not hasattr(integrations, "configure"):
            raise ValidationError("There are no providers here.", hint="Leave --set out.")
        integrations.configure(provider, **{variable: value})


def parse_answers(given: Sequence[str], plan: Plan, base_dir: Path) -> dict[str, list[str]]:
    """`NODE=TEXT` pairs by node, also of sub-diagrams; labels may hold `=`, so the longest name that fits wins."""
    answers: dict[str, list[str]] = {}
    if not given:
        return answers
    asking = nested.askers(plan, base_dir)
    for text in given:
        ends = (at for at in range(len(text) - 1, -1, -1) if text[at] == "=")
        at = next((at for at in ends if asking.known(text[:at])), -1)
        if at < 0 and asking.open:
            at = text.find("=")
        if at < 0:
            hint = "Leave --answer out."
            if asking.names:
                names = ", ".join(f"'{safe(name, 60)}'" for name in asking.names)
                close = safe(asking.suggestion(text.partition("=")[0]))
                hint = f"{close}It has: {names}. Use for example --answer '{safe(asking.names[0], 60)}=yes'."
            raise ValidationError(
                f"--answer '{text}' names no user_response node of this diagram in the form NODE=TEXT.", hint=hint
            )
        answers.setdefault(text[:at], []).append(text[at + 1 :])
    return answers


ALLOWED_KINDS = ("read", "write", "net", "code", "process", "service", "function", "diagram", "model", "event")


def parse_permissions(given: Sequence[str] | None) -> tuple[str, ...] | None:
    """`--allow read=a,write=b/,code` as single permissions; a value that lists several paths repeats the kind."""
    if not given:
        return None
    parts: list[str] = []
    for text in given:
        for part in text.split(","):
            kind = parts[-1].partition("=")[0] if parts and "=" not in part and part.strip() not in ALLOWED_KINDS else ""
            parts.append(f"{kind}={part.strip()}" if kind else part.strip())
    return tuple(parts)
