"""Services of a run, restricted to what was granted."""

from __future__ import annotations

import inspect
import posixpath
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from dipeo_nb.common.paths import name_below
from dipeo_nb.domain.capabilities import model_field, origin
from dipeo_nb.domain.chat import LLMRequest, StreamEvent
from dipeo_nb.domain.ports import (
    CodeRunner,
    DBOperationsPort,
    HTTPPort,
    HTTPResponse,
    IntegrationPort,
    IRBuilderPort,
    LLMServicePort,
    OfferedTool,
)
from dipeo_nb.domain.request_options import beyond_wording
from dipeo_nb.security.gate.permissions import Permissions
from dipeo_nb.security.gate.refusals import refusal


class CheckedDb:
    """A third-party database service: files are checked by name."""

    def __init__(self, gate: Permissions, db: DBOperationsPort) -> None:
        self._gate = gate
        self._db = db

    async def execute_operation(self, db_name: str, operation: str, *args: Any, **options: Any) -> dict[str, Any]:
        if operation != "prompt":
            self._gate.require("read" if operation == "read" else "write", posixpath.normpath(db_name))
        return await self._db.execute_operation(db_name, operation, *args, **options)


class CheckedHTTP:
    """Requests to granted servers, including redirects."""

    def __init__(self, gate: Permissions, http: HTTPPort) -> None:
        self._gate = gate
        self._http = http
        self._follows = "allowed" in inspect.signature(http.request).parameters

    async def request(self, method: str, url: str, **options: Any) -> HTTPResponse:
        self._gate.require("net", origin(url))
        for name, value in (options.get("headers") or {}).items():
            if str(name).lower() == "host":  # servers with many names, such as CDNs, select by it
                self._gate.require("net", origin(f"{url.partition('://')[0]}://{value}"))
        if self._follows:
            options["allowed"] = lambda server: self._gate.granted.covers("net", server)
        return await self._http.request(method, url, **options)


class CheckedIntegrations:
    """Granted operations of providers."""

    def __init__(self, gate: Permissions, integrations: IntegrationPort) -> None:
        self._gate = gate
        self._integrations = integrations

    def operations(self) -> Mapping[str, Sequence[str]]:
        return self._integrations.operations()

    def accepted(self, provider: str, operation: str) -> frozenset[str] | None:
        """The parameters of an operation, where the service knows them."""
        known = getattr(self._integrations, "accepted", None)
        return None if known is None else known(provider, operation)

    async def check_key(self, provider: str, key_id: str | None = None) -> None:
        """Check that calls would have their key, where the service can tell; nothing is called."""
        check = getattr(self._integrations, "check_key", None)
        if check is not None:
            await check(provider, key_id)

    async def offered(self, name: str) -> Sequence[OfferedTool]:
        """The tools that a name of an operation means, when it is granted."""
        self._gate.require("service", name)
        return await cast(Any, self._integrations).offered(name)

    async def execute(self, provider: str, operation: str, **options: Any) -> Any:
        self._gate.require("service", f"{provider}.{operation}")
        return await self._integrations.execute(provider, operation, **options)


class CheckedBuilder:
    """A builder of intermediate forms that reads its own configuration: from granted files."""

    def __init__(self, gate: Permissions, builder: IRBuilderPort) -> None:
        self._gate = gate
        self._builder = builder

    async def build(self, source: Any, options: Mapping[str, Any]) -> Any:
        if path := options.get("config_path"):
            self._gate.require("read", name_below(str(path), self._gate.base))
        return await self._builder.build(source, options)


class CheckedModels:
    """Models within the budget; servers chosen by the diagram must be granted."""

    def __init__(self, gate: Permissions, models: LLMServicePort) -> None:
        self._gate = gate
        self._models = models

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    def _admitted(self, request: LLMRequest) -> LLMRequest:
        if request.base_url:
            self._gate.require("net", origin(request.base_url))
        for path, _ in beyond_wording(request.extra):
            self._gate.require("service", model_field(request.service, path))
        if request.budget is None and self._gate.budget is not None:
            return replace(request, budget=self._gate.budget)
        return request

    def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        return self._models.stream(self._admitted(request))

    async def complete(self, request: LLMRequest) -> Any:
        return await self._models.complete(self._admitted(request))


class CheckedCode:
    """Code runner of a run, created only for a diagram whose code was granted."""

    def __init__(self, gate: Permissions, make: Callable[[], CodeRunner]) -> None:
        self._gate = gate
        self._make = make
        self._runner: CodeRunner | None = None

    async def run_python(self, code: str, **options: Any) -> Any:
        gate = self._gate
        if not any(u.kind == "code" for u in gate.granted):
            raise refusal("code", options.get("filename", "Python"))
        if self._runner is None:
            self._runner = self._make()
        return await self._runner.run_python(code, modules=gate.sources, **options)

    async def cleanup(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
