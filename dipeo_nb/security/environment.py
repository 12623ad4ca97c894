"""API keys from the environment, through the settings."""

from __future__ import annotations

from typing import Any

from pydantic import SecretStr

from dipeo_nb.config import Settings
from dipeo_nb.domain.chat import normalize_service
from dipeo_nb.errors import APIKeyError, APIKeyNotFoundError

VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GOOGLE_API_KEY",
    "claude-code": "ANTHROPIC_API_KEY",
    "claude-code-custom": "ANTHROPIC_API_KEY",
}
"""Service → variable that holds its key."""


class EnvironmentAPIKeyService:
    """`APIKeyPort` that reads the keys of the settings; read-only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def get_api_key(self, key_id: str) -> SecretStr:
        service = normalize_service(key_id.removeprefix("env_"))
        secret = self._secret(service)
        if secret is None:
            raise not_found(key_id, VARIABLES.get(service))
        return secret

    async def set_api_key(self, key_id: str, key: str) -> None:
        variable = VARIABLES.get(normalize_service(key_id), "its variable")
        raise APIKeyError("Keys of the environment cannot be changed from here.", hint=f"Set {variable} in your shell.")

    async def delete_api_key(self, key_id: str) -> None:
        variable = VARIABLES.get(normalize_service(key_id), "its variable")
        raise APIKeyError(
            "Keys of the environment cannot be changed from here.", hint=f"Unset {variable} in your shell."
        )

    async def list_api_keys(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for service, variable in VARIABLES.items():
            secret = self._secret(service)
            if secret is not None:
                rows.append({"id": f"env_{service}", "label": variable, "service": service, "key": masked(secret)})
        return rows

    def _secret(self, service: str) -> SecretStr | None:
        variable = VARIABLES.get(service)
        secret: SecretStr | None = getattr(self._settings, variable.lower(), None) if variable else None
        return secret if secret is not None and secret.get_secret_value().strip() else None


def not_found(key_id: str, variable: str | None) -> APIKeyNotFoundError:
    """The error of a key that is not there: the variable to set, and the way without a key."""
    where = (
        f"Set {variable}"
        if variable
        else f"Set the key of its service (one of {', '.join(dict.fromkeys(VARIABLES.values()))})"
    )
    return APIKeyNotFoundError(
        f"There is no API key for '{key_id}'.",
        hint=f"{where}, or run without a key on the embedded model: --model local (model='local').",
        key_id=key_id,
        variable=variable,
    )


def masked(secret: SecretStr) -> str:
    """A key as it may be shown: its kind and last four characters; short ones not at all."""
    text = secret.get_secret_value()
    if len(text) < 12:
        return "…"
    return f"{'sk-' if text.startswith('sk-') else ''}…{text[-4:]}"
