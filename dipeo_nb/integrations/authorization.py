"""How requests are authorised: keys and tokens are added to a finished request, and to nothing else."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.secret_names import of_pair
from dipeo_nb.common.values import parse_json
from dipeo_nb.domain.ports import APIKeyPort, Clock, HTTPPort, HTTPResponse
from dipeo_nb.errors import (
    APIKeyNotFoundError,
    ConfigurationError,
    ProviderAuthError,
    ProviderUnavailableError,
    ValidationError,
)
from dipeo_nb.integrations.manifest import Manifest
from dipeo_nb.integrations.rendering import rendered_text
from dipeo_nb.integrations.requests import Request
from dipeo_nb.integrations.tokens import StoredTokens, Token

MASK = "…"
Hook = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Consent:
    """A question to the user of an OAuth provider: the address to open, and what the answer is checked with."""

    url: str
    state: str
    verifier: str
    redirect_uri: str


class Authorizer:
    """Authorises the requests of one provider.

    Args:
        service: of the API key; the provider's own.
        locks: folder for the locks of stored tokens, which several processes renew.
        hook: the function of `auth.hook`.
    """

    def __init__(
        self, manifest: Manifest, service: str, variables: Mapping[str, str], *, keys: APIKeyPort, http: HTTPPort, clock: Clock,
        locks: Path, hook: Hook | None = None,
    ) -> None:  # fmt: skip
        self._manifest = manifest
        self._auth = manifest.auth
        self.service = service
        self._variables = variables
        self._keys = keys
        self._http = http
        self._clock = clock
        self._hook = hook
        self._tokens: dict[str, Token] = {}
        """Of client credentials."""
        self._stored = StoredTokens(keys, clock, locks, lasting=manifest.timeout, again=self._again)
        self._renewing: dict[tuple[int, str], asyncio.Lock] = {}

    @property
    def renewable(self) -> bool:
        """Whether a refused token can be replaced."""
        return self._auth.kind in ("client_credentials", "oauth2_code")

    async def authorized(self, request: Request, key_id: str | None = None) -> Request:
        """The request with what authorises it.

        Raises:
            APIKeyNotFoundError: there is no key.
            ValidationError: *key_id* is the key of another service.
            ProviderAuthError: no token is issued.
        """
        auth = self._auth
        if auth.kind == "none":
            return request
        secret = await self._secret(key_id)
        if secret is None:
            return request
        match auth.kind:
            case "header":
                return _with_headers(request, {auth.name: f"{auth.prefix}{secret}"})
            case "query":
                return replace(request, query=(*request.query, (auth.name, secret)))
            case "bearer":
                return _with_headers(request, {"Authorization": f"Bearer {secret}"})
            case "basic":
                user, password = self._pair(secret)
                redactor.add(*of_pair(user, password))
                encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
                return _with_headers(request, {"Authorization": f"Basic {encoded}"})
            case "client_credentials":
                token = await self._token(secret)
                return _with_headers(request, {"Authorization": f"Bearer {token}"})
            case "oauth2_code":
                token = await self._stored.access(key_id or _stored_name(self.service), secret, self._renewed)
                return _with_headers(request, {"Authorization": f"Bearer {token}"})
            case "custom":
                assert self._hook is not None
                made = self._hook(request, secret)
                headers: Mapping[str, str] = await made if asyncio.iscoroutine(made) else made
                redactor.add_named({"headers": dict(headers)})
                return _with_headers(request, headers)

    def masked(self, request: Request) -> Request:
        """The request as it is shown: with a mark where the secret goes."""
        auth = self._auth
        match auth.kind:
            case "none":
                return request
            case "query":
                return replace(request, query=(*request.query, (auth.name, MASK)))
            case "header":
                return _with_headers(request, {auth.name: f"{auth.prefix}{MASK}"})
            case "basic":
                return _with_headers(request, {"Authorization": f"Basic {MASK}"})
            case "custom":
                return _with_headers(request, {"Authorization": MASK})
            case _:
                return _with_headers(request, {"Authorization": f"Bearer {MASK}"})

    async def forget(self, key_id: str | None = None) -> None:
        """Get a new token for the next request."""
        if self._auth.kind == "client_credentials":
            self._tokens.clear()
        elif self._auth.kind == "oauth2_code":
            self._stored.refused()

    async def ready(self, key_id: str | None = None) -> bool:
        """Whether there is a key, or none is needed."""
        if self._auth.kind == "none" or self._auth.optional:
            return True
        try:
            return await self._secret(key_id) is not None
        except APIKeyNotFoundError:
            return False

    async def require(self, key_id: str | None = None) -> None:
        """Check that there is the key of a call, if it needs one. Raises APIKeyNotFoundError or ValidationError, as `authorized`."""
        if self._auth.kind != "none":
            await self._secret(key_id)

    # Keys.

    async def _secret(self, key_id: str | None) -> str | None:
        if key_id is not None:
            await self._check_own(key_id)
        wanted = key_id or (_stored_name(self.service) if self._auth.kind == "oauth2_code" else self.service)
        try:
            secret = (await self._keys.get_api_key(wanted)).get_secret_value()
        except APIKeyNotFoundError as error:
            if self._auth.optional:
                return None
            variable = getattr(error, "variable", None)
            way = (
                f"Set {variable}, or store it: dipeo-nb keys set {wanted}."
                if variable
                else f"Store it: dipeo-nb keys set {wanted}."
            )
            if self._auth.kind == "oauth2_code":
                way = f"Allow it once: dipeo-nb providers authorize {self._manifest.name}."
            raise APIKeyNotFoundError(
                f"{self._manifest.name} needs a key.", hint=way, key_id=wanted, variable=variable
            ) from None
        redactor.add(secret)
        return secret

    async def _check_own(self, key_id: str) -> None:
        """A key goes to its own service only."""
        name = key_id.strip().lower().replace("_", "-")
        own = self.service.lower().replace("_", "-")
        of = next(
            (
                str(row["service"])
                for row in await self._keys.list_api_keys()
                if str(row["id"]).lower() == key_id.strip().lower()
            ),
            name,
        )
        if of.lower() not in (own, f"{own}-oauth"):
            raise ValidationError(
                f"The key of another service is not sent to {self._manifest.name}.",
                hint=f"Name a key of {self.service}: dipeo-nb keys list.",
            )

    def _pair(self, secret: str) -> tuple[str, str]:
        user = rendered_text(self._auth.user, self._variables) if self._auth.user else ""
        if user:
            return user, secret
        user, colon, password = secret.partition(":")
        if not colon:
            raise ConfigurationError(
                f"The key of {self._manifest.name} is not a pair.",
                hint=f"Store it as user:password: dipeo-nb keys set {self.service}.",
            )
        return user, password

    # Tokens.

    def _lock(self, name: str) -> asyncio.Lock:
        return self._renewing.setdefault((id(asyncio.get_running_loop()), name), asyncio.Lock())

    async def _token(self, secret: str) -> str:
        """The token for client credentials; issued once until it expires."""
        known = hashlib.sha256(secret.encode()).hexdigest()
        async with self._lock(known):
            token = self._tokens.get(known)
            if token is None or not token.is_fresh(self._clock.now()):
                user, password = self._pair(secret)
                redactor.add(*of_pair(user, password))
                form = {"grant_type": "client_credentials", "client_id": user, "client_secret": password}
                if self._auth.scopes:
                    form["scope"] = " ".join(self._auth.scopes)
                token = self._tokens[known] = await self._issued(form)
        return token.access

    async def _renewed(self, token: Token) -> Token:
        client = await self._client()
        return await self._issued({"grant_type": "refresh_token", "refresh_token": token.refresh, **client})

    async def consent(self, redirect_uri: str = "http://localhost:8765/callback") -> Consent:
        """What the user has to open to allow the use of an account (OAuth with PKCE)."""
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        fields = {
            "response_type": "code", "client_id": (await self._client())["client_id"], "redirect_uri": redirect_uri, "state": state,
            "code_challenge": challenge, "code_challenge_method": "S256", "scope": " ".join(self._auth.scopes),
        }  # fmt: skip
        return Consent(f"{self._auth.authorize_url}?{urlencode(fields)}", state, verifier, redirect_uri)

    async def complete(self, consent: Consent, answer: str) -> None:
        """Store the token for the address that the provider led to after the user had agreed.

        Raises:
            ValidationError: the address is not the answer to this question.
            ProviderAuthError: no token is issued.
        """
        fields = parse_qs(urlsplit(answer.strip()).query)
        if fields.get("error"):
            raise ProviderAuthError(f"{self._manifest.name} was not allowed: {fields['error'][0][:100]}.", hint="Begin again.")
        if fields.get("state") != [consent.state] or not fields.get("code"):
            raise ValidationError(
                "That is not the address which the provider led to.", hint="Copy the whole address from the browser."
            )
        redactor.add(fields["code"][0])
        form = {
            "grant_type": "authorization_code", "code": fields["code"][0], "redirect_uri": consent.redirect_uri,
            "code_verifier": consent.verifier, **await self._client(),
        }  # fmt: skip
        token = await self._issued(form)
        await self._stored.store(_stored_name(self.service), token)

    async def _client(self) -> dict[str, str]:
        """Id of this program at the provider, and its secret if it has one: the API key of the service."""
        try:
            secret = (await self._keys.get_api_key(self.service)).get_secret_value()
        except APIKeyNotFoundError:
            client_id = self._variables.get("client_id", "")
            if not client_id:
                raise ConfigurationError(
                    f"{self._manifest.name} needs a client id.",
                    hint=f"Store it as id:secret: dipeo-nb keys set {self.service}.",
                ) from None
            return {"client_id": client_id}
        user, colon, password = secret.partition(":")
        redactor.add(*(of_pair(user, password) if colon else ()))
        return {"client_id": user, "client_secret": password} if colon else {"client_id": secret}

    async def _issued(self, form: Mapping[str, str]) -> Token:
        """A token from the token endpoint. Never repeated: a code and many refresh tokens work once."""
        response = await self._http.request(
            "POST",
            self._auth.token_url,
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            content=urlencode(form),
            timeout=self._manifest.timeout,
            max_retries=0,
        )
        value = _fields(response)
        if response.status >= 500 or response.status == 429:
            raise ProviderUnavailableError(
                f"{self._manifest.name} issues no token: it answers {response.status}.",
                hint="Try again later.",
                status=response.status,
            )
        access = value.get("access_token")
        if response.status >= 400 or not isinstance(access, str) or not access:
            reason = redactor.text(str(value.get("error_description") or value.get("error") or response.status))[:200]
            raise self._again(f"no token is issued ({reason})", status=response.status, provider_code=value.get("error"))
        refresh = str(value.get("refresh_token") or "")
        redactor.add(access, *([refresh] if refresh else []))
        lasts = value.get("expires_in")
        seconds = float(lasts) if isinstance(lasts, (int, float)) or (isinstance(lasts, str) and lasts.isdigit()) else 0.0
        return Token(access, self._clock.now() + seconds if seconds else 0.0, refresh)

    def _again(self, why: str, **facts: Any) -> ProviderAuthError:
        name = self._manifest.name
        way = (
            f"dipeo-nb providers authorize {name}" if self._auth.kind == "oauth2_code" else f"dipeo-nb keys set {self.service}"
        )
        return ProviderAuthError(f"{name}: {why}.", hint=f"Renew it: {way}.", **facts)


def _fields(response: HTTPResponse) -> Mapping[str, Any]:
    try:
        value = parse_json(response.text)
    except ValueError:
        return {}
    return value if isinstance(value, Mapping) else {}


def _with_headers(request: Request, headers: Mapping[str, str]) -> Request:
    return replace(request, headers={**request.headers, **headers})


def _stored_name(service: str) -> str:
    return f"{service.lower().replace('_', '-')}-oauth"
