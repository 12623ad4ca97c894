"""Credentials that a diagram holds as they are: what `validate` warns of, and what displays and records hide.

A credential is recognised by its position: a field of `auth_config`, a header, a parameter or any other field named like a secret, an
assignment in code, the password in an address. Templates (`{{globals.token}}`) are none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from dipeo_nb.common.secret_names import is_reference, of_pair, secrets_in, secrets_of_text
from dipeo_nb.common.values import parse_json
from dipeo_nb.domain.diagram import DomainDiagram, DomainNode

_NO_SECRETS = frozenset(("username", "key_name", "user", "type", "scheme"))
"""Fields of `auth_config` that only identify the caller, or where the key goes."""
_PROSE = ("prompt", "description", "text", "content", "message", "question")
"""Fields with one of these in their names are for people or models: names of secrets in them are just words."""


def credentials_of(model: DomainDiagram) -> Iterator[str]:
    """Every text in a diagram that is a credential."""
    for node in model.nodes:
        for _, secret in of_node(node):
            yield secret
    for person in model.persons:
        llm = person.llm
        yield from secrets_in(llm.extra)
        for text in (llm.base_url, llm.system_prompt):
            if text:
                yield from secrets_of_text(text, code=False)


def of_node(node: DomainNode) -> Iterator[tuple[str, str]]:
    """(field, credential) for each credential in a node."""
    for field, value in node.data.items():
        if field == "auth_config":
            config = _mapping(value)
            for name, item in config.items():
                if name not in _NO_SECRETS and isinstance(item, str) and item.strip() and not is_reference(item):
                    yield field, item
            user, password = config.get("username"), config.get("password")
            if isinstance(user, str) and isinstance(password, str) and not is_reference(password):
                yield from ((field, secret) for secret in of_pair(user, password))
            continue
        if type(value) in _ATOMS:
            continue
        for secret in secrets_in(_mapping(value) or value, field):
            yield field, secret
        for name, text in _texts(value, field):
            for secret in secrets_of_text(text, code=not _is_prose(name)):
                yield field, secret


_ATOMS = frozenset([int, float, bool, type(None)])


@lru_cache(maxsize=1_000)
def _is_prose(name: str) -> bool:
    return any(word in name.lower() for word in _PROSE)


def _mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, also one that is written as JSON text; empty for everything else."""
    if isinstance(value, str) and value.lstrip().startswith("{") and not value.lstrip().startswith("{{"):
        try:
            value = parse_json(value)
        except ValueError:
            return {}
    return value if isinstance(value, Mapping) else {}  # pyright: ignore[reportUnknownVariableType]


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """(name of the field, text) for every text in plain data."""
    if type(value) is str:
        yield name, value
        return
    waiting: list[tuple[str, Any]] = [(name, value)]
    while waiting:
        called, item = waiting.pop()
        if isinstance(item, str):
            yield called, item
        elif isinstance(item, Mapping):
            waiting += [(str(key), inner) for key, inner in item.items()]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        elif isinstance(item, (list, tuple)):
            waiting += [(called, inner) for inner in item]  # pyright: ignore[reportUnknownVariableType]
