"""Providers that are classes of Python."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from dipeo_nb.common import lazy, user_code
from dipeo_nb.domain.ports import OfferedTool
from dipeo_nb.errors import IntegrationError, ServiceError, ValidationError
from dipeo_nb.integrations.provider_port import Call

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


class ClassProvider:
    """`ProviderPort` over a class."""

    starts = False

    def __init__(self, own: BaseProvider) -> None:
        self.own = own
        self.name: str = own.name

    def operation_names(self) -> tuple[str, ...]:
        return tuple(self.own.operations())

    def check(self, operation: str, config: Mapping[str, Any], resource_id: str | None = None) -> Any:
        return self._arguments(operation, Call(config, resource_id))

    def check_node(self, operation: str, config: Mapping[str, Any], *, paged: bool = False) -> None:
        self._method(operation)

    async def check_key(self, key_id: str | None) -> None:
        """Nothing: what it needs, only its own code knows."""

    def accepted(self, operation: str) -> frozenset[str] | None:
        return None

    def preview(self, operation: str, config: Mapping[str, Any], resource_id: str | None = None) -> dict[str, Any]:
        self.check(operation, config, resource_id)
        return {"operation": f"{self.name}.{operation}", "effect": "once", "parameters": dict(config)}

    async def offered(self) -> list[OfferedTool]:
        return [
            OfferedTool(f"{self.name}.{name}", inspect.getdoc(method) or name, _schema_of(method))
            for name, method in self.own.operations().items()
        ]

    async def execute(self, operation: str, call: Call) -> Any:
        method, arguments = self._method(operation), self._arguments(operation, call)
        retries = 3 if call.max_retries is None else call.max_retries
        try:
            async for attempt in stamina.retry_context(on=_is_transient, attempts=retries + 1, timeout=None):
                with attempt:
                    async with asyncio.timeout(call.timeout):
                        return await user_code.call(method, **arguments)
        except TimeoutError as error:
            raise IntegrationError(
                f"{self.name}.{operation} took too long{'' if call.timeout is None else f' (limit: {call.timeout:g} s)'}.",
                hint="Raise the timeout of the node.",
            ) from error

    async def row(self) -> dict[str, Any]:
        about = (inspect.getdoc(self.own) or "").partition("\n")[0]
        count = len(self.own.operations())
        return {"provider": self.name, "ready": "yes", "operations": count, "about": about, "from": type(self.own).__module__}

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "operation": name,
                "effect": "",
                "parameters": str(inspect.signature(method)),
                "about": (inspect.getdoc(method) or "").partition("\n")[0],
            }
            for name, method in self.own.operations().items()
        ]

    def signature(self, operation: str) -> inspect.Signature:
        return inspect.signature(self._method(operation))

    def help(self, operation: str) -> str:
        return inspect.getdoc(self._method(operation)) or ""

    def _method(self, operation: str) -> Callable[..., Any]:
        operations = self.own.operations()
        if operation not in operations:
            raise ValidationError(f"{self.name} has no operation '{operation}'.", hint=f"It has: {', '.join(operations)}.")
        return operations[operation]

    def _arguments(self, operation: str, call: Call) -> dict[str, Any]:
        signature = inspect.signature(self._method(operation))
        of_node = {"resource_id": call.resource_id, "api_key_id": call.key_id, "idempotency_key": call.stamp or None}
        given = {key: value for key, value in of_node.items() if key in signature.parameters and value is not None}
        given |= call.parameters
        try:
            signature.bind(**given)
        except TypeError as error:
            raise ValidationError(
                f"{self.name}.{operation}{signature}: {error}.", hint="Correct the `config` of the node."
            ) from None
        return given


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


def _is_transient(error: Exception) -> bool:
    return isinstance(error, ServiceError) and error.facts.get("status") in TRANSIENT
