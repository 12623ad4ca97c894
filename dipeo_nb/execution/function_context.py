"""What a function of the user's gets as `context`, outside the library's event loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

from dipeo_nb.common.loop import OnLibraryLoop, run_on_loop
from dipeo_nb.domain.chat import LLMRequest, LLMResponse
from dipeo_nb.domain.ports import Services
from dipeo_nb.execution.context import NodeContext


class FunctionContext(NodeContext):
    """The context of a node, with the same state; what is awaited of it, of its services and of the run runs on the library's
    loop, where its connections are."""

    @classmethod
    def of(cls, context: NodeContext) -> FunctionContext:
        made = cls.__new__(cls)
        made.__dict__ = context.__dict__
        return made

    @property
    def execution(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return OnLibraryLoop(self.__dict__["execution"])

    @property
    def services(self) -> Services:
        return self._services

    @cached_property
    def _services(self) -> Services:
        services = super().services
        ports = {f.name: port for f in dataclasses.fields(services) if (port := getattr(services, f.name)) is not None}
        return dataclasses.replace(services, **{name: OnLibraryLoop(port) for name, port in ports.items()})

    async def rendered(self, template: str, names: Any = None) -> str:
        return await run_on_loop(super().rendered(template, names))

    async def complete(
        self, request: LLMRequest, *, show: bool = True, hear: Callable[[str | None], None] | None = None
    ) -> LLMResponse:
        return await run_on_loop(super().complete(request, show=show, hear=hear))

    async def finish_item(self, index: int, given: Any) -> None:
        await run_on_loop(super().finish_item(index, given))
