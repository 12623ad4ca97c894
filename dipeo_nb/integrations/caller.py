"""Sending a request to a provider: limits, authorisation, and repetition by effect (`attempts`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dipeo_nb.common.retry import Backoff
from dipeo_nb.domain.ports import HTTPPort, HTTPResponse
from dipeo_nb.errors import IntegrationError, ProviderRateLimitError, ProviderUnavailableError, UnknownOutcomeError
from dipeo_nb.integrations import limits
from dipeo_nb.integrations.answers import error_of, value_of
from dipeo_nb.integrations.attempts import Failure, Limits, Next, after
from dipeo_nb.integrations.authorization import Authorizer
from dipeo_nb.integrations.manifest import Manifest, Operation
from dipeo_nb.integrations.requests import Request, other_server

JITTER = 0.1


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    """The answer to a request: its value and what came with it."""

    value: Any
    status: int
    headers: Mapping[str, str]
    url: str
    attempts: int


class Caller:
    """Sends the requests of one provider."""

    def __init__(
        self, manifest: Manifest, authorizer: Authorizer, http: HTTPPort, shared: Limits, servers: Collection[str]
    ) -> None:
        self._manifest = manifest
        self._authorizer = authorizer
        self._http = http
        self._limits = shared
        self._servers = servers

    async def send(
        self,
        name: str,
        operation: Operation,
        request: Request,
        *,
        key_id: str | None,
        timeout: float | None,
        max_retries: int | None,
    ) -> ServiceAnswer:
        """Send a request until there is an answer.

        Raises:
            IntegrationError: one of its kinds; `UnknownOutcomeError` when nobody knows whether it was carried out.
        """
        retry = self._manifest.retry
        retries = retry.max if max_retries is None else max_retries
        backoff = Backoff(retry.delay, retry.longest, jitter=JITTER)
        of = (self._manifest.name, key_id or "", name if operation.limit is not None else "")
        attempt, renewed = 0, False
        while True:
            attempt += 1
            await self._limits.wait(name, operation.limit or self._manifest.limit, of, retry.longest)
            ready = await self._authorizer.authorized(request, key_id)
            wait: float | None = None
            response: HTTPResponse | None = None
            try:
                response = await self._once(ready, operation, timeout)
            except IntegrationError as error:
                failed, failure = self._lost(name, error, attempt)
            else:
                wait = limits.wait_asked(response.status, response.headers, self._limits.wall())
                if wait is not None:
                    self._limits.close(of, wait)
                found = error_of(name, self._manifest, operation, response, attempt, wait)
                if found is None:
                    return ServiceAnswer(
                        value_of(name, operation, response), response.status, response.headers, response.url, attempt
                    )
                if found.status == 401 and self._authorizer.renewable and not renewed:
                    renewed = True
                    await self._authorizer.forget(key_id)
                    attempt -= 1
                    continue
                failed = found
                failure = Failure(True, response.status, isinstance(found, ProviderRateLimitError))
            match after(failure, operation.effective, attempt, retry.on, retries):
                case Next.UNKNOWN:
                    raise UnknownOutcomeError(
                        f"{failed.message.rstrip('.')}; whether it was carried out is not known, so it was not sent again.",
                        hint="Look whether it is there before you do it again.", **failed.facts,
                    ) from None  # fmt: skip
                case Next.FAIL:
                    raise failed from None
                case Next.AGAIN:
                    if wait is not None and wait > retry.longest:
                        raise failed from None
                    if wait is None:
                        await self._limits.pause(backoff.delay(attempt))

    async def _once(self, request: Request, operation: Operation, timeout: float | None) -> HTTPResponse:
        limit = operation.timeout or self._manifest.timeout
        return await self._http.request(
            request.method,
            request.address,
            headers=dict(request.headers),
            content=request.content,
            timeout=limit if timeout is None else min(timeout, limit) if operation.timeout else timeout,
            max_retries=0,
            allowed=self._allowed,
        )

    def _allowed(self, server: str) -> bool:
        return server in self._servers

    def _lost(self, name: str, error: IntegrationError, attempts: int) -> tuple[IntegrationError, Failure]:
        """An attempt without an answer that can be read."""
        facts = {**error.facts, "attempts": attempts}
        if error.facts.get("cause") in ("not_granted", "private_address"):
            wanted = str(error.facts.get("wanted", "")).removeprefix("net=")
            raise other_server(
                f"{name}: {self._manifest.name} leads to {wanted or 'a server'}, which is none of its servers."
            ) from None
        if "sent" not in error.facts:  # an answer came, and cannot be used
            raise type(error)(f"{name}: {error.message}", hint=error.hint, **facts) from None
        shown = ProviderUnavailableError(f"{name}: {error.message}", hint=error.hint, **facts)
        return shown, Failure(bool(error.facts["sent"]))
