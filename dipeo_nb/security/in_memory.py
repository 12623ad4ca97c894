"""API keys in memory, for tests and for sessions that store nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from dipeo_nb.common.redaction import redactor
from dipeo_nb.errors import APIKeyError
from dipeo_nb.security.environment import masked, not_found, service_of


class InMemoryAPIKeyService:
    """`APIKeyPort` over a mapping of ids (or services) to keys."""

    def __init__(self, keys: Mapping[str, str] | None = None) -> None:
        self._keys = {name: SecretStr(key) for name, key in (keys or {}).items()}

    async def get_api_key(self, key_id: str) -> SecretStr:
        for name in (key_id, service_of(key_id)):
            if name in self._keys:
                redactor.add(self._keys[name].get_secret_value())
                return self._keys[name]
        raise not_found(key_id)

    async def set_api_key(self, key_id: str, key: str) -> None:
        if not key_id.strip() or not key.strip():
            raise APIKeyError("A key needs an id and a value.", hint="Provide both.")
        redactor.add(key)
        self._keys[key_id] = SecretStr(key)

    async def delete_api_key(self, key_id: str) -> None:
        if self._keys.pop(key_id, None) is None:
            raise not_found(key_id)

    async def list_api_keys(self) -> list[dict[str, Any]]:
        return [
            {"id": name, "label": name, "service": service_of(name), "key": masked(secret), "source": "memory"}
            for name, secret in self._keys.items()
        ]
