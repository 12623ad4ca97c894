"""Providers of integrated_api nodes: one class for each service, and the registry that nodes call them through."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import stamina

from dipeo_nb.common import user_code
from dipeo_nb.errors import ConfigurationError, IntegrationError, ServiceError, ValidationError

TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses of HTTP that may be gone the next time."""


class BaseProvider:
    """A service with operations: the public async methods of a subclass, by name.

        class JiraProvider(BaseProvider):
            name = "jira"

            async def create_issue(self, project: str, summary: str) -> str: ...

    The `config` of a node gives the arguments. An operation that takes `resource_id`, `api_key_id` or `idempotency_key` gets those of
    the node, too. Errors are ServiceErrors; one with a `status` of `TRANSIENT` is tried again. Operations and `cleanup` run on the event
    loop of functions, so that one which blocks does not hold runs.
    """

    name: ClassVar[str]

    def operations(self) -> dict[str, Callable[..., Any]]:
        """Name → method."""
        own = {
            n
            for kind in type(self).__mro__
            if issubclass(kind, BaseProvider) and kind is not BaseProvider
            for n in vars(kind)
        }
        lifecycle = ("initialize", "cleanup")
        methods = {n: getattr(self, n) for n in sorted(own) if not n.startswith("_") and n not in lifecycle}
        return {n: method for n, method in methods.items() if inspect.iscoroutinefunction(method)}


class IntegratedApiService:
    """`IntegrationPort` over providers: `dp.Session(integrations=IntegratedApiService(JiraProvider()))`.

    Raises:
        ConfigurationError: a provider has no name, one that another has, or no operation.
    """

    def __init__(self, *providers: BaseProvider) -> None:
        self._providers: dict[str, BaseProvider] = {}
        for provider in providers:
            self.register(provider)

    def register(self, provider: BaseProvider) -> None:
        """Add a provider. Raises ConfigurationError as above."""
        name = getattr(provider, "name", "")
        if not name or name in self._providers:
            why = f"there is a provider '{name}' already" if name else "it has no `name`"
            raise ConfigurationError(
                f"{type(provider).__name__} cannot be registered: {why}.", hint="Give it a name of its own."
            )
        if not provider.operations():
            raise ConfigurationError(
                f"{type(provider).__name__} has no operation.", hint="Write its operations as public async methods."
            )
        self._providers[name] = provider

    def operations(self) -> Mapping[str, tuple[str, ...]]:
        return {name: tuple(provider.operations()) for name, provider in self._providers.items()}

    async def execute(
        self,
        provider: str,
        operation: str,
        *,
        resource_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        api_key_id: str | None = None,
        timeout: float | None = None,
        max_retries: int = 3,
        idempotency_key: str | None = None,
    ) -> Any:
        method = self._method(provider, operation)
        arguments = self._arguments(
            method,
            dict(config or {}),
            {"resource_id": resource_id, "api_key_id": api_key_id, "idempotency_key": idempotency_key},
            f"{provider}.{operation}",
        )
        try:
            async for attempt in stamina.retry_context(on=_is_transient, attempts=max_retries + 1, timeout=None):
                with attempt:
                    async with asyncio.timeout(timeout):
                        return await user_code.call(method, **arguments)
        except TimeoutError as error:
            raise IntegrationError(
                f"{provider}.{operation} took too long{'' if timeout is None else f' (limit: {timeout:g} s)'}.", hint="Raise the timeout of the node."
            ) from error

    def _method(self, provider: str, operation: str) -> Callable[..., Any]:
        if provider not in self._providers:
            names = ", ".join(self._providers) or "none"
            raise ValidationError(f"There is no provider '{provider}'.", hint=f"There are: {names}.")
        operations = self._providers[provider].operations()
        if operation not in operations:
            raise ValidationError(
                f"{provider} has no operation '{operation}'.", hint=f"It has: {', '.join(operations)}."
            )
        return operations[operation]

    @staticmethod
    def _arguments(
        method: Callable[..., Any], config: dict[str, Any], of_node: dict[str, Any], name: str
    ) -> dict[str, Any]:
        signature = inspect.signature(method)
        given = {
            key: value for key, value in of_node.items() if key in signature.parameters and value is not None
        } | config
        try:
            signature.bind(**given)
        except TypeError as error:
            raise ValidationError(f"{name}{signature}: {error}.", hint="Correct the `config` of the node.") from None
        return given

    async def cleanup(self) -> None:
        """Close the providers that can be closed, all of them."""
        closing = [user_code.call(close) for p in self._providers.values() if (close := getattr(p, "cleanup", None)) is not None]
        failed = [r for r in await asyncio.gather(*closing, return_exceptions=True) if isinstance(r, BaseException)]
        if failed:
            raise failed[0]


def _is_transient(error: Exception) -> bool:
    return isinstance(error, ServiceError) and error.facts.get("status") in TRANSIENT
