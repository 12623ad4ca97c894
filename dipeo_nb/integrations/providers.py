"""Providers of integrated_api nodes: manifests and classes, and the service that nodes call them through."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dipeo_nb.common import lazy, user_code
from dipeo_nb.common.text import did_you_mean
from dipeo_nb.domain.ports import OfferedTool
from dipeo_nb.errors import ConfigurationError, IntegrationError, ServiceError, ValidationError
from dipeo_nb.integrations.manifest_provider import Call, ManifestProvider, Progress, Surroundings
from dipeo_nb.integrations.mcp_client import Ask, McpClients, check_arguments
from dipeo_nb.integrations.mcp_servers import PREFIX
from dipeo_nb.integrations.registry import Found, Registry, variables_known
from dipeo_nb.integrations.requests import arguments

if TYPE_CHECKING:
    import stamina
else:
    stamina = lazy.module("stamina")  # with tenacity a tenth of the start of a command; only what is repeated needs it

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
            n for kind in type(self).__mro__ if issubclass(kind, BaseProvider) and kind is not BaseProvider for n in vars(kind)
        }
        lifecycle = ("initialize", "cleanup")
        methods = {n: getattr(self, n) for n in sorted(own) if not n.startswith("_") and n not in lifecycle}
        return {n: method for n, method in methods.items() if inspect.iscoroutinefunction(method)}


class IntegratedApiService:
    """`IntegrationPort` over providers: classes that are registered, and manifests.

        dp.Session(integrations=IntegratedApiService(JiraProvider()))

    Args:
        providers: classes.
        registry: where manifests are found; None: only what is registered.
        surroundings: what providers with a manifest need.
        mcp: connections to MCP servers, each of which is a provider named `mcp_SERVER`.

    Raises:
        ConfigurationError: a provider has no name, one that another has, or no operation.
    """

    def __init__(
        self,
        *providers: BaseProvider,
        registry: Registry | None = None,
        surroundings: Callable[[], Surroundings] | None = None,
        mcp: McpClients | None = None,
    ) -> None:
        self._classes: dict[str, BaseProvider] = {}
        self._manifests: dict[str, ManifestProvider] = {}
        self._given: dict[str, dict[str, str]] = {}
        self._added: dict[str, Found] = {}
        self._registry = registry
        self._mcp = mcp
        self._make = surroundings
        self._surroundings: Surroundings | None = None
        self._guard = threading.RLock()
        self._offered = registry is None
        for provider in providers:
            self.register(provider)

    # Registration.

    def register(self, provider: BaseProvider) -> None:
        """Add a provider. Raises ConfigurationError as above."""
        name = getattr(provider, "name", "")
        if (
            not name
            or name in self._classes
            or (self._registry is not None and name in self._registry.names())
            or name in self._added
        ):
            why = f"there is a provider '{name}' already" if name else "it has no `name`"
            raise ConfigurationError(
                f"{type(provider).__name__} cannot be registered: {why}.", hint="Give it a name of its own."
            )
        if not provider.operations():
            raise ConfigurationError(
                f"{type(provider).__name__} has no operation.", hint="Write its operations as public async methods."
            )
        self._classes[name] = provider

    def add(self, path: Path) -> str:
        """Use the manifest in a file that the user has named; returns the name of the provider.

        Raises:
            ManifestError: it cannot be used.
            ConfigurationError: there is another provider of that name.
        """
        found = self._registered().read(path)
        name = found.manifest.name
        if name in self._classes:
            raise ConfigurationError(f"There is a provider '{name}' already.", hint="Choose another `name`.")
        with self._guard:
            self._added[name] = found
            self._manifests.pop(name, None)
        return name

    def configure(self, name: str, **variables: Any) -> None:
        """Set variables of a provider, such as `site` or `base_url`, for all later calls of this service.

        Raises:
            ConfigurationError: it has no such variable.
        """
        found = self._found(name)
        if found is None:
            raise ConfigurationError(f"{name} has no variables.", hint="Give them to its class.")
        with self._guard:
            self._given[name] = {**self._given.get(name, {}), **variables_known(found.manifest, variables)}
            self._manifests.pop(name, None)

    # Looking up.

    def names(self) -> list[str]:
        """All providers."""
        self._take_offers()
        servers = () if self._mcp is None else self._mcp.names()
        return sorted({*self._classes, *self._added, *servers, *(() if self._registry is None else self._registry.names())})

    def operations(self) -> Mapping[str, Sequence[str]]:
        """Provider → its operations; none of an MCP server, which would have to be started."""
        return {name: () if self.mcp_clients(name) is not None else self.operations_of(name) for name in self.names()}

    def operations_of(self, name: str) -> tuple[str, ...]:
        """The operations of one provider. Raises ValidationError."""
        if (own := self.provider_class(name)) is not None:
            return tuple(own.operations())
        if (clients := self.mcp_clients(name)) is not None:
            return tuple(clients.known_tools(name))
        return tuple(self.manifest_provider(name).operations)

    def mcp_clients(self, name: str) -> McpClients | None:
        """The connections, when the provider is an MCP server."""
        return self._mcp if self._mcp is not None and name.startswith(PREFIX) and name not in self._classes else None

    def provider_class(self, name: str) -> BaseProvider | None:
        """A provider that is a class; None when there is none of that name."""
        self._take_offers()
        return self._classes.get(name)

    def class_operation(self, provider: str, operation: str) -> Callable[..., Any]:
        """An operation of a provider that is a class. Raises ValidationError."""
        return self._method(self._classes[provider], operation)

    def manifest_provider(self, name: str) -> ManifestProvider:
        """A provider with a manifest.

        Raises:
            ValidationError: there is none.
            ManifestError: it cannot be used.
            TrustError: it is in a folder that is not trusted.
        """
        with self._guard:
            if (made := self._manifests.get(name)) is not None:
                return made
            if (found := self._found(name)) is None:
                raise ValidationError(
                    f"There is no provider '{name:.80}'.",
                    hint=did_you_mean(name, self.names(), f"There are: {', '.join(self.names()) or 'none'}."),
                )
            registry = self._registered()
            made = ManifestProvider(
                found.manifest, self._near(), hooks=registry.hooks(found), given=self._given.get(name), key_service=found.key_service,
                others=self._call_other if found.source == "package" else None, source=found.source,
            )  # fmt: skip
            self._manifests[name] = made
            return made

    def check(self, provider: str, operation: str, config: Mapping[str, Any], resource_id: str | None = None) -> None:
        """Check a call without making it. Raises ValidationError when it cannot be made."""
        if (own := self.provider_class(provider)) is not None:
            self._arguments(self._method(own, operation), dict(config), {"resource_id": resource_id}, f"{provider}.{operation}")
        elif (clients := self.mcp_clients(provider)) is None:
            self.manifest_provider(provider).check(operation, config, resource_id)
        elif (tool := clients.known_tools(provider).get(operation)) is not None:
            check_arguments(f"{provider}.{operation}", tool, config)
        else:
            raise ValidationError(
                f"{provider} has no tool '{operation:.80}'.", hint=f"It has: {', '.join(clients.known_tools(provider))}."
            )

    def accepted(self, provider: str, operation: str) -> frozenset[str] | None:
        """The parameters of an operation; None when they are not known. Raises ValidationError."""
        if self.provider_class(provider) is not None or self.mcp_clients(provider) is not None:
            return None
        return frozenset(self.manifest_provider(provider).operation(operation).parameters)

    def check_node(self, provider: str, operation: str, config: Mapping[str, Any], *, paged: bool = False) -> None:
        """Check a call whose parameters are templates, and may also come from elsewhere, as far as that is known before a run.

        Raises:
            ValidationError: there is no such provider, operation or parameter, or a value does not fit.
            ManifestError: the manifest cannot be used.
        """
        if (own := self.provider_class(provider)) is not None:
            self._method(own, operation)
            return
        if (clients := self.mcp_clients(provider)) is not None:
            clients.check_server(provider)
            return
        found = self.manifest_provider(provider)
        arguments(
            f"{provider}.{operation}",
            found.operation(operation),
            {n: v for n, v in config.items() if not _is_template(v)},
            partial=True,
        )
        for name in config:
            if _is_template(config[name]) and name not in found.operation(operation).parameters:
                arguments(f"{provider}.{operation}", found.operation(operation), {name: ""}, partial=True)
        if paged and found.operation(operation).paging is None and found.operation(operation).steps is None:
            raise ValidationError(f"{provider}.{operation} has no pages.", hint="Leave out `all` and `limit`.")

    def preview(
        self, provider: str, operation: str, config: Mapping[str, Any], resource_id: str | None = None
    ) -> dict[str, Any]:
        """What a call would send, with the key masked. Raises as `check`."""
        if self.provider_class(provider) is None and self.mcp_clients(provider) is None:
            return self.manifest_provider(provider).preview(operation, config, resource_id)
        self.check(provider, operation, config, resource_id)
        return {"operation": f"{provider}.{operation}", "effect": "once", "parameters": dict(config)}

    # Calls.

    async def offered(self, name: str) -> list[OfferedTool]:
        """The tools that `provider.operation` or `provider.*` means.

        Raises:
            ValidationError: there is no such provider or operation.
            ProviderUnavailableError: an MCP server cannot be used.
        """
        provider, _, wanted = name.partition(".")
        if (own := self.provider_class(provider)) is not None:
            found = [
                OfferedTool(f"{provider}.{n}", inspect.getdoc(method) or n, _schema_of(method))
                for n, method in own.operations().items()
            ]
        elif (clients := self.mcp_clients(provider)) is not None:
            tools = await clients.tools(provider)
            found = [
                OfferedTool(f"{provider}.{n}", tool.description or n, tool.schema, tool.destructive)
                for n, tool in tools.items()
            ]
        else:
            operations = self.manifest_provider(provider).operations
            found = [
                OfferedTool(f"{provider}.{n}", operation.description, operation.json_schema())
                for n, operation in operations.items()
            ]
        chosen = [tool for tool in found if wanted in ("*", tool.operation.partition(".")[2])]
        if not chosen:
            names = [tool.operation.partition(".")[2] for tool in found]
            raise ValidationError(
                f"{provider} has no operation '{wanted:.80}'.", hint=did_you_mean(wanted, names, f"It has: {', '.join(names)}.")
            )
        return chosen

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
        repeated: bool = False,
        all: bool = False,
        limit: int | None = None,
        progress: Progress | None = None,
        ask: Ask | None = None,
    ) -> Any:
        if (own := self.provider_class(provider)) is not None:
            return await self._of_class(
                own, provider, operation, dict(config or {}), timeout, max_retries,
                {"resource_id": resource_id, "api_key_id": api_key_id, "idempotency_key": idempotency_key},
            )  # fmt: skip
        if (clients := self.mcp_clients(provider)) is not None:
            return await clients.execute(provider, operation, config or {}, timeout=timeout, progress=progress, ask=ask)
        call = Call(
            config or {}, resource_id, api_key_id, idempotency_key or "", repeated, all, limit, timeout, max_retries, progress
        )  # fmt: skip
        return await self.manifest_provider(provider).execute(operation, call)

    # DiPeO's names.

    def register_provider(self, provider: BaseProvider) -> None:
        """As `register`."""
        self.register(provider)

    def get_supported_providers(self) -> list[str]:
        """As `names`."""
        return self.names()

    def get_provider_operations(self, provider: str) -> list[str]:
        """As `operations_of`, as a list. Raises ValidationError."""
        return list(self.operations_of(provider))

    def validate_operation(self, provider: str, operation: str, config: Mapping[str, Any] | None = None) -> bool:
        """Whether there is such an operation, and the parameters, when they are given, fit."""
        try:
            if operation not in self.operations_of(provider):
                return False
            if config is not None:
                self.check(provider, operation, config)
        except ValidationError:
            return False
        return True

    async def execute_operation(
        self, provider: str, operation: str, config: Mapping[str, Any] | None = None, resource_id: str | None = None,
        api_key: str | None = None, timeout: float = 30, max_retries: int = 3,
    ) -> dict[str, Any]:  # fmt: skip
        """As `execute`, with the result in DiPeO's shape: `{success, data, metadata: {provider, operation}}`.

        Args:
            api_key: id of a key, not the key itself.
        """
        data = await self.execute(
            provider,
            operation,
            config=config,
            resource_id=resource_id,
            api_key_id=api_key,
            timeout=timeout,
            max_retries=max_retries,
        )
        return {"success": True, "data": data, "metadata": {"provider": provider, "operation": operation}}

    async def pages(self, provider: str, operation: str, config: Mapping[str, Any], **options: Any) -> AsyncIterator[list[Any]]:
        """The pages of a list, one after the other. Raises as `execute`."""
        async for items in self.manifest_provider(provider).pages(operation, Call(config, **options)):
            yield items

    async def _call_other(self, provider: str, operation: str, call: Call) -> Any:
        return await self.manifest_provider(provider).execute(operation, call)

    async def _of_class(
        self, own: BaseProvider, provider: str, operation: str, config: dict[str, Any], timeout: float | None, max_retries: int,
        of_node: dict[str, Any],
    ) -> Any:  # fmt: skip
        method = self._method(own, operation)
        arguments = self._arguments(method, config, of_node, f"{provider}.{operation}")
        try:
            async for attempt in stamina.retry_context(on=_is_transient, attempts=max_retries + 1, timeout=None):
                with attempt:
                    async with asyncio.timeout(timeout):
                        return await user_code.call(method, **arguments)
        except TimeoutError as error:
            raise IntegrationError(
                f"{provider}.{operation} took too long{'' if timeout is None else f' (limit: {timeout:g} s)'}.",
                hint="Raise the timeout of the node.",
            ) from error

    @staticmethod
    def _method(own: BaseProvider, operation: str) -> Callable[..., Any]:
        operations = own.operations()
        if operation not in operations:
            raise ValidationError(f"{own.name} has no operation '{operation}'.", hint=f"It has: {', '.join(operations)}.")
        return operations[operation]

    @staticmethod
    def _arguments(method: Callable[..., Any], config: dict[str, Any], of_node: dict[str, Any], name: str) -> dict[str, Any]:
        signature = inspect.signature(method)
        given = {key: value for key, value in of_node.items() if key in signature.parameters and value is not None} | config
        try:
            signature.bind(**given)
        except TypeError as error:
            raise ValidationError(f"{name}{signature}: {error}.", hint="Correct the `config` of the node.") from None
        return given

    async def cleanup(self) -> None:
        """Close the providers that can be closed, all of them."""
        closing = [user_code.call(close) for p in self._classes.values() if (close := getattr(p, "cleanup", None)) is not None]
        failed = [r for r in await asyncio.gather(*closing, return_exceptions=True) if isinstance(r, BaseException)]
        if self._mcp is not None:
            await self._mcp.cleanup()
        if failed:
            raise failed[0]

    # Inside.

    def _found(self, name: str) -> Found | None:
        self._take_offers()
        if name in self._added:
            return self._added[name]
        return None if self._registry is None else self._registry.find(name)

    def _take_offers(self) -> None:
        """Register what other packages offer, once."""
        with self._guard:
            if self._offered or self._registry is None:
                return
            self._offered = True
            for _, value in self._registry.entry_points():
                if isinstance(value, Found):
                    self._added.setdefault(value.manifest.name, value)
                elif isinstance(value, BaseProvider):
                    self.register(value)
                else:
                    raise ConfigurationError(
                        f"An entry point offers {type(value).__name__}, which is not a provider.",
                        hint="Give a BaseProvider, or the path of a manifest.",
                    )

    def _registered(self) -> Registry:
        if self._registry is None:
            self._registry = Registry()
        return self._registry

    def _near(self) -> Surroundings:
        if self._surroundings is None:
            if self._make is None:
                raise ConfigurationError("This service has no manifests.", hint="Use the one of the session: dp.provider(…).")
            self._surroundings = self._make()
        return self._surroundings


def _schema_of(method: Callable[..., Any]) -> dict[str, Any]:
    """A JSON schema of a method's parameters, as far as their names say it."""
    parameters = inspect.signature(method).parameters.values()
    kinds = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
    properties: dict[str, Any] = {}
    for parameter in parameters:
        named = kinds.get(getattr(parameter.annotation, "__name__", str(parameter.annotation)))
        properties[parameter.name] = {"type": named} if named else {}
    required = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    return {"type": "object", "properties": properties, "required": required}


def _is_template(value: Any) -> bool:
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(map(_is_template, value.values()))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return isinstance(value, list) and any(map(_is_template, value))  # pyright: ignore[reportUnknownArgumentType]


def _is_transient(error: Exception) -> bool:
    return isinstance(error, ServiceError) and error.facts.get("status") in TRANSIENT
