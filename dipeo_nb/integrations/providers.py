"""The service of integrations: finds a provider by its name, whatever is behind it (`provider_port`), and calls it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dipeo_nb.common import user_code
from dipeo_nb.common.text import did_you_mean
from dipeo_nb.domain.ports import OfferedTool
from dipeo_nb.errors import ConfigurationError, DipeoError, ValidationError
from dipeo_nb.integrations.class_provider import TRANSIENT as TRANSIENT  # where it was
from dipeo_nb.integrations.class_provider import BaseProvider, ClassProvider
from dipeo_nb.integrations.manifest_provider import ManifestProvider, Surroundings
from dipeo_nb.integrations.mcp_client import McpClients
from dipeo_nb.integrations.mcp_provider import McpProvider
from dipeo_nb.integrations.mcp_servers import PREFIX
from dipeo_nb.integrations.provider_port import Ask, Call, Progress, ProviderPort
from dipeo_nb.integrations.registry import Found, Registry, variables_known


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
        """Provider → its operations; none of one that would have to be started."""
        return {name: () if (found := self.find(name)).starts else found.operation_names() for name in self.names()}

    def operations_of(self, name: str) -> tuple[str, ...]:
        """The operations of one provider. Raises as `find`."""
        return self.find(name).operation_names()

    def find(self, name: str) -> ProviderPort:
        """A provider.

        Raises:
            ValidationError: there is none.
            ManifestError: its manifest cannot be used.
            TrustError: it is in a folder that is not trusted.
        """
        if (own := self.provider_class(name)) is not None:
            return ClassProvider(own)
        if (clients := self.mcp_clients(name)) is not None:
            return McpProvider(name, clients)
        return self.manifest_provider(name)

    async def row(self, name: str) -> dict[str, Any]:
        """A provider in a list; one that cannot be used says why."""
        try:
            found = self.find(name)
        except DipeoError as error:
            return {"provider": name, "ready": f"no: {error}", "operations": 0, "about": "", "from": ""}
        return await found.row()

    def mcp_clients(self, name: str) -> McpClients | None:
        """The connections, when the provider is an MCP server."""
        return self._mcp if self._mcp is not None and name.startswith(PREFIX) and name not in self._classes else None

    def provider_class(self, name: str) -> BaseProvider | None:
        """A provider that is a class; None when there is none of that name."""
        self._take_offers()
        return self._classes.get(name)

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
        self.find(provider).check(operation, config, resource_id)

    def accepted(self, provider: str, operation: str) -> frozenset[str] | None:
        """The parameters of an operation; None when they are not known. Raises ValidationError."""
        return self.find(provider).accepted(operation)

    def check_node(self, provider: str, operation: str, config: Mapping[str, Any], *, paged: bool = False) -> None:
        """Check a call whose parameters are templates, and may also come from elsewhere, as far as that is known before a run.

        Raises:
            ValidationError: there is no such provider, operation or parameter, or a value does not fit.
            ManifestError: the manifest cannot be used.
        """
        self.find(provider).check_node(operation, config, paged=paged)

    async def check_key(self, provider: str, key_id: str | None = None) -> None:
        """Check that calls of a provider would have their key. Raises as `find`, and as `ProviderPort.check_key`."""
        await self.find(provider).check_key(key_id)

    def preview(
        self, provider: str, operation: str, config: Mapping[str, Any], resource_id: str | None = None
    ) -> dict[str, Any]:
        """What a call would send, with the key masked. Raises as `check`."""
        return self.find(provider).preview(operation, config, resource_id)

    # Calls.

    async def offered(self, name: str) -> list[OfferedTool]:
        """The tools that `provider.operation` or `provider.*` means.

        Raises:
            ValidationError: there is no such provider or operation.
            ProviderUnavailableError: an MCP server cannot be used.
        """
        provider, _, wanted = name.partition(".")
        found = await self.find(provider).offered()
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
        call = Call(
            config or {}, resource_id, api_key_id, idempotency_key or "", repeated, all, limit, timeout, max_retries, progress, ask
        )  # fmt: skip
        return await self.find(provider).execute(operation, call)

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
