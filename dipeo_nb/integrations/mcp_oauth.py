"""Authorization of MCP servers by OAuth: the flow is the SDK's, tokens are stored as keys are.

A server that wants it is used after `dipeo-nb providers authorize mcp_NAME`; a run never opens a browser.
"""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.errors import APIKeyNotFoundError, ProviderAuthError, ValidationError

logging.getLogger("mcp.client.auth").addHandler(logging.NullHandler())  # the errors of the flow are ours to show
REDIRECT = "http://localhost:8765/callback"
"""Where the browser is sent with the code; nobody listens there, and the user pastes the address."""
Paste = Callable[[str], Awaitable[str]]
"""Shows the address to open, and gives the one that it has led to."""


def stored_name(provider: str) -> str:
    """The key under which the tokens of a server are stored."""
    return f"{provider.replace('_', '-')}-oauth"


class KeptTokens:
    """`TokenStorage` of the SDK over the keys of the user."""

    def __init__(self, provider: str, keys: APIKeyPort) -> None:
        self._name, self._keys = stored_name(provider), keys
        self._context: Any = None

    async def resume(self, context: Any) -> None:
        """Bring along what the SDK itself forgets between processes: until when the token holds, and where it is renewed."""
        from mcp.shared.auth import OAuthMetadata

        self._context, kept = context, await self._read()
        context.token_expiry_time = kept.get("until")
        if kept.get("metadata"):
            context.oauth_metadata = OAuthMetadata.model_validate(kept["metadata"])

    async def get_tokens(self) -> Any:
        from mcp.shared.auth import OAuthToken

        found = (await self._read()).get("tokens")
        return None if found is None else OAuthToken.model_validate(found)

    async def set_tokens(self, tokens: Any) -> None:
        redactor.add(*(t for t in (tokens.access_token, tokens.refresh_token) if t))
        metadata = getattr(self._context, "oauth_metadata", None)
        until = None if tokens.expires_in is None else time.time() + tokens.expires_in
        await self._write(tokens=_plain(tokens), until=until, metadata=None if metadata is None else _plain(metadata))

    async def get_client_info(self) -> Any:
        from mcp.shared.auth import OAuthClientInformationFull

        found = (await self._read()).get("client")
        return None if found is None else OAuthClientInformationFull.model_validate(found)

    async def set_client_info(self, client_info: Any) -> None:
        await self._write(client=_plain(client_info))

    async def _read(self) -> dict[str, Any]:
        try:
            value = json.loads(base64.b64decode((await self._keys.get_api_key(self._name)).get_secret_value()))
        except (APIKeyNotFoundError, ValueError):  # none yet, or none of ours: the user is asked again
            return {}
        return value if isinstance(value, dict) else {}

    async def _write(self, **parts: Any) -> None:
        kept = {**await self._read(), **parts}
        await self._keys.set_api_key(self._name, base64.b64encode(json.dumps(kept).encode()).decode())  # a key is one word


def _plain(value: Any) -> dict[str, Any]:
    return value.model_dump(mode="json", exclude_none=True)


async def authorization(
    provider: str, url: str, keys: APIKeyPort, paste: Paste | None, refused: Callable[[Exception], None]
) -> Any:
    """What authorizes the requests to a server, once it asks for that.

    Args:
        paste: asks the user; None: nobody is there, and a server that needs the user's consent is an error.
        refused: hears that error, which the SDK would show as a lost connection.
    """
    from mcp.client.auth import OAuthClientProvider
    from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

    led_to: list[str] = []

    async def redirect(address: str) -> None:
        if paste is None:
            error = ProviderAuthError(
                f"The server of {provider} wants the user's consent.", hint=f"Give it: dipeo-nb providers authorize {provider}."
            )
            refused(error)
            raise error
        led_to.append(await paste(address))

    async def callback() -> Any:
        fields = parse_qs(urlsplit(led_to[-1].strip()).query)
        if "code" not in fields:
            why = fields.get("error_description") or fields.get("error") or ["it has no `code`"]
            error = ValidationError(f"This address gives no consent: {why[0][:200]}.", hint="Paste the whole address.")
            refused(error)
            raise error
        return AuthorizationCodeResult(
            code=fields["code"][0], state=(fields.get("state") or [None])[0], iss=(fields.get("iss") or [None])[0]
        )

    metadata = OAuthClientMetadata.model_validate({
        "client_name": "dipeo-nb", "redirect_uris": [REDIRECT], "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"], "token_endpoint_auth_method": "none",
    })  # fmt: skip
    kept = KeptTokens(provider, keys)
    made = OAuthClientProvider(url, metadata, kept, redirect_handler=redirect, callback_handler=callback)
    await kept.resume(made.context)
    return made
