"""A provider made from a manifest: its operations with checks, pages, several steps, and calls that arrive exactly once."""

from __future__ import annotations

import inspect
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from dipeo_nb.common import user_code
from dipeo_nb.common.redaction import redactor
from dipeo_nb.common.text import did_you_mean
from dipeo_nb.common.values import parse_json, plain_value
from dipeo_nb.domain.ports import APIKeyPort, Clock, HTTPPort, OfferedTool
from dipeo_nb.errors import ConfigurationError, IntegrationError, ManifestError, UnknownOutcomeError, ValidationError
from dipeo_nb.integrations.answers import result_of, transformed
from dipeo_nb.integrations.attempts import Limits
from dipeo_nb.integrations.authorization import Authorizer
from dipeo_nb.integrations.caller import Caller, ServiceAnswer
from dipeo_nb.integrations.description import description_of, signature_of
from dipeo_nb.integrations.manifest import Find, Manifest, Operation
from dipeo_nb.integrations.paging import Page, first_page, items_of, next_page
from dipeo_nb.integrations.pointers import ABSENT, at
from dipeo_nb.integrations.provider_port import Call
from dipeo_nb.integrations.rendering import rendered, rendered_text
from dipeo_nb.integrations.requests import Request, Values, arguments, build, servers_of, variables_of

FIND_ITEMS = 500
"""Items that a search for a call of unknown outcome looks at."""


class Steps(Protocol):
    """What a hook of several steps calls operations with: `await call("operation", parameter=…)`."""

    def __call__(self, operation: str, /, **parameters: Any) -> Awaitable[Any]: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What providers need of the process."""

    keys: APIKeyPort
    http: HTTPPort
    clock: Clock
    limits: Limits
    locks: Path


class ManifestProvider:
    """The operations of a manifest.

    Args:
        hooks: loaded module of its hooks.
        given: variables of the user's, `base_url` and `key` among them.
        key_service: service of its API key.
        others: calls an operation of another provider, for hooks.
        source: where the manifest is from: `package`, a path, or the name of a distribution.
    """

    def __init__(
        self,
        manifest: Manifest,
        surroundings: Surroundings,
        *,
        hooks: ModuleType | None = None,
        given: Mapping[str, str] | None = None,
        key_service: str = "",
        others: Callable[[str, str, Call], Awaitable[Any]] | None = None,
        source: str = "package",
    ) -> None:
        self.manifest = manifest
        self.name: str = manifest.name
        self.source = source
        self._hooks = hooks
        self._given = dict(given or {})
        self._others = others
        self._surroundings = surroundings
        self._known_undone: set[str] = set()
        """Stamps of failed calls that were certainly not carried out."""
        service = self._given.get("key") or key_service or manifest.auth.key or manifest.name
        self.authorizer: Authorizer = Authorizer(
            manifest, service, variables_of(manifest, self._given), keys=surroundings.keys, http=surroundings.http,
            clock=surroundings.clock, locks=surroundings.locks, hook=self._hook(manifest.auth.hook),
        )  # fmt: skip

    @property
    def operations(self) -> dict[str, Operation]:
        """Those that are not only for hooks."""
        return {name: operation for name, operation in self.manifest.operations.items() if not operation.internal}

    starts = False

    def operation_names(self) -> tuple[str, ...]:
        return tuple(self.operations)

    def operation(self, name: str) -> Operation:
        """One of them. Raises ValidationError."""
        if (found := self.operations.get(name)) is None:
            raise ValidationError(
                f"{self.name} has no operation '{name:.80}'.",
                hint=did_you_mean(name, self.operations, f"It has: {', '.join(self.operations)}."),
            )
        return found

    async def ready(self) -> str:
        """`yes`, or why it cannot be called yet."""
        try:
            servers_of(self.manifest, self._given)
        except ConfigurationError as error:
            return f"no: {error.message.removeprefix(f'{self.name} ').rstrip('.')}"
        if all(operation.steps is not None for operation in self.operations.values()):
            return "as its services are"
        if await self.authorizer.ready():
            return "yes"
        return f"no: dipeo-nb keys set {self.authorizer.service}"

    async def check_key(self, key_id: str | None) -> None:
        """See `ProviderPort`."""
        servers_of(self.manifest, self._given)
        await self.authorizer.require(key_id)

    def check(self, operation: str, config: Mapping[str, Any], resource_id: str | None = None) -> dict[str, Any]:
        """The parameters of a call with defaults. Raises ValidationError."""
        return arguments(f"{self.name}.{operation}", self.operation(operation), config, resource_id)

    def check_node(self, operation: str, config: Mapping[str, Any], *, paged: bool = False) -> None:
        """See `ProviderPort`."""
        found, name = self.operation(operation), f"{self.name}.{operation}"
        arguments(name, found, {n: v for n, v in config.items() if not _is_template(v)}, partial=True)
        for parameter in config:
            if _is_template(config[parameter]) and parameter not in found.parameters:
                arguments(name, found, {parameter: ""}, partial=True)
        if paged and found.paging is None and found.steps is None:
            raise ValidationError(f"{name} has no pages.", hint="Leave out `all` and `limit`.")

    def accepted(self, operation: str) -> frozenset[str] | None:
        """See `ProviderPort`."""
        return frozenset(self.operation(operation).parameters)

    def preview(self, operation: str, config: Mapping[str, Any], resource_id: str | None = None) -> dict[str, Any]:
        """The request that a call would send first, with the key masked; nothing is sent."""
        found = self.operation(operation)
        values = self._values(operation, Call(config, resource_id, stamp="STAMP"))
        shown: dict[str, Any] = {"operation": f"{self.name}.{operation}", "effect": found.effective}
        if found.steps is not None:
            return {
                **shown,
                "parameters": dict(values.parameters),
                "steps": (self._function(found.steps).__doc__ or found.description).strip(),
            }
        page = first_page(found.paging) if found.paging is not None else None
        request = self._request(found, values, page, self._size(found, None))
        masked = self.authorizer.masked(request)
        shown |= {"method": masked.method, "url": masked.url, "query": dict(masked.query), "headers": dict(masked.headers)}
        if request.content is not None:
            shown["body"] = _readable(request.content)
        return shown

    async def offered(self) -> list[OfferedTool]:
        """See `ProviderPort`; likewise for the next ones."""
        return [
            OfferedTool(f"{self.name}.{name}", operation.description, operation.json_schema())
            for name, operation in self.operations.items()
        ]

    async def row(self) -> dict[str, Any]:
        about = self.manifest.description
        return {
            "provider": self.name, "ready": await self.ready(), "operations": len(self.operations), "about": about, "from": self.source,
        }  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                "operation": name,
                "effect": operation.effective,
                "parameters": ", ".join(f"{p}*" if q.required else p for p, q in operation.parameters.items()),
                "about": operation.description,
            }
            for name, operation in self.operations.items()
        ]

    def signature(self, operation: str) -> inspect.Signature:
        return signature_of(self.operation(operation))

    def help(self, operation: str) -> str:
        return description_of(self.operation(operation))

    async def execute(self, operation: str, call: Call) -> Any:
        """The result of an operation: a JSON value; of a list the items of its first page, with `all` or `limit` of all pages.

        Raises:
            IntegrationError: one of its kinds.
            ValidationError: there is no such operation, or the parameters do not fit.
            APIKeyNotFoundError: there is no key.
        """
        found = self.operation(operation)
        return await self._execute(operation, found, call)

    async def pages(self, operation: str, call: Call) -> AsyncIterator[list[Any]]:
        """The pages of a list, one after the other.

        Raises: as `execute`; IntegrationError also when pages repeat, or there are more than `paging.max_pages`.
        """
        found = self.operation(operation)
        if found.paging is None:
            raise ValidationError(f"{self.name}.{operation} has no pages.", hint="Call it without `all` and `limit`.")
        async for items in self._pages(operation, found, call, self._values(operation, call)):
            yield items

    # One call.

    async def _execute(self, operation: str, found: Operation, call: Call) -> Any:
        name = f"{self.name}.{operation}"
        if found.deprecated:
            warnings.warn(f"{name}: {found.deprecated}", FutureWarning, stacklevel=2)
        if (call.all or call.limit is not None) and found.paging is None:
            raise ValidationError(f"{name} has no pages.", hint="Leave out `all` and `limit`.")
        if call.limit is not None and call.limit < 1:
            raise ValidationError(f"limit={call.limit} is not a number of items.", hint="Say how many, at least 1.")
        values = self._values(operation, call)
        if found.steps is not None:
            result = await self._stepwise(found, call, values)
        elif call.all or call.limit is not None:
            result = []
            async for items in self._pages(operation, found, call, values):
                result += items
            result = result[: call.limit]
        else:
            result = await self._single(name, found, call, values)
        if found.after is not None:
            result = await user_code.call(self._function(found.after), result)
        return plain_value(result, name)

    def _values(self, operation: str, call: Call) -> Values:
        found = self.manifest.operations[operation]
        parameters = arguments(f"{self.name}.{operation}", found, call.parameters, call.resource_id)
        redactor.add_named(dict(parameters))
        return Values(
            parameters,
            variables_of(self.manifest, self._given),
            call.stamp or uuid.uuid4().hex,
            call.parameters,
            call.resource_id,
        )

    async def _single(self, name: str, found: Operation, call: Call, values: Values) -> Any:
        page = first_page(found.paging) if found.paging is not None else None
        request = self._request(found, values, page, self._size(found, None) if page is not None else None)
        if found.effective == "once" and call.repeated and values.stamp not in self._known_undone:
            lost = UnknownOutcomeError(
                f"{name} may have been sent before this run was cut off, so it was not sent again.",
                hint="Look whether it is there before you do it again.",
            )
            arrived = await self._found(found, call, values, lost)
            if arrived is not ABSENT:
                return arrived
        tries = 0
        while True:
            try:
                answer = await self._send(name, found, request, call)
                break
            except UnknownOutcomeError as lost:
                arrived = await self._found(found, call, values, lost)
                tries += 1
                if arrived is not ABSENT:
                    return arrived
                if tries > self._retries(call):
                    self._known_undone.add(values.stamp)
                    raise
            except IntegrationError:
                self._known_undone.add(values.stamp)
                raise
        if found.paging is not None:
            return transformed(found, items_of(found.paging, answer.value, name), values.parameters)
        return transformed(found, result_of(name, found, answer.value), values.parameters)

    async def _found(self, found: Operation, call: Call, values: Values, lost: UnknownOutcomeError) -> Any:
        """What a call of unknown outcome has made, `ABSENT` when it did not arrive. Raises *lost* when there is no way to find out."""
        if (find := found.find) is None:
            raise lost from None
        other = self.manifest.operations[find.operation]
        looking = Call(rendered(find.parameters, values.names), key_id=call.key_id, timeout=call.timeout)
        wanted = rendered_text(find.contains, values.names)
        seen = 0
        try:
            if other.paging is None:
                result = await self._single(
                    f"{self.name}.{find.operation}", other, looking, self._values(find.operation, looking)
                )
                batches: list[list[Any]] = [result if isinstance(result, list) else [result]]
            else:
                batches = []
                async for items in self._pages(find.operation, other, looking, self._values(find.operation, looking), raw=True):
                    batches.append(items)
                    seen += len(items)
                    if seen >= FIND_ITEMS or any(_is_it(item, find, wanted) for item in items):
                        break
        except IntegrationError as error:
            raise UnknownOutcomeError(
                f"{lost.message.rstrip('.')}. Looking for it failed, too: {error.message}", hint=lost.hint, **lost.facts
            ) from None
        return next((item for items in batches for item in items if _is_it(item, find, wanted)), ABSENT)

    async def _stepwise(self, found: Operation, call: Call, values: Values) -> Any:
        number = 0

        async def step(operation: str, /, **parameters: Any) -> Any:
            nonlocal number
            number += 1
            part = Call(
                parameters, key_id=call.key_id, stamp=f"{values.stamp}:{number}", repeated=call.repeated, timeout=call.timeout,
                max_retries=call.max_retries, limit=parameters.pop("_limit", None), all=parameters.pop("_all", False),
                progress=call.progress,
            )  # fmt: skip
            provider, dot, name = operation.partition(".")
            if not dot:
                return await self._execute(operation, self.manifest.operations[operation], part)
            if self._others is None:
                raise ManifestError(f"{self.name} cannot call other providers.", hint=f"Leave out {operation}.")
            return await self._others(
                provider, name, Call(parameters, timeout=call.timeout, max_retries=call.max_retries, limit=part.limit)
            )

        names = {**variables_of(self.manifest, self._given), **values.parameters}
        return await user_code.call(self._function(found.steps or ""), step, names)

    # Pages.

    async def _pages(
        self, operation: str, found: Operation, call: Call, values: Values, *, raw: bool = False
    ) -> AsyncIterator[list[Any]]:
        paging = found.paging
        assert paging is not None
        name = f"{self.name}.{operation}"
        size = self._size(found, call.limit)
        page: Page | None = first_page(paging)
        seen: set[Any] = set()
        while page is not None:
            if page.number >= paging.max_pages:
                raise IntegrationError(
                    f"{name} has more than {paging.max_pages} pages.", hint="Ask for fewer items with `limit`, or filter them."
                )
            marker = (page.url, str(page.value))
            if page.number and marker in seen:
                raise IntegrationError(
                    f"{name} gives the same page again and again.",
                    hint="The provider is at fault; ask for fewer items with `limit`.",
                )
            seen.add(marker)
            answer = await self._send(name, found, self._request(found, values, page, size), call)
            items = items_of(paging, answer.value, name)
            following = next_page(paging, page, answer.value, answer.headers, len(items), size if paging.size else None)
            if call.progress is not None:
                call.progress(f"{name}: page {page.number + 1}, {page.seen + len(items)} items")
            yield items if raw else transformed(found, items, values.parameters)
            if call.limit is not None and page.seen + len(items) >= call.limit:
                return
            page = following

    def _size(self, found: Operation, limit: int | None) -> int | None:
        """Items to ask for on a page; None where the request does not say."""
        if found.paging is None or not found.paging.size:
            return None
        return found.paging.default_size if limit is None else min(limit, found.paging.default_size)

    # Requests.

    def _request(self, found: Operation, values: Values, page: Page | None, size: int | None) -> Request:
        return build(self.manifest, found, values, self._given, page, size)

    async def _send(self, name: str, found: Operation, request: Request, call: Call) -> ServiceAnswer:
        if found.before is not None:
            request = await user_code.call(self._function(found.before), request)
        near = self._surroundings
        caller = Caller(self.manifest, self.authorizer, near.http, near.limits, servers_of(self.manifest, self._given))
        return await caller.send(name, found, request, key_id=call.key_id, timeout=call.timeout, max_retries=call.max_retries)

    def _retries(self, call: Call) -> int:
        return self.manifest.retry.max if call.max_retries is None else call.max_retries

    def _hook(self, name: str | None) -> Callable[..., Any] | None:
        return None if name is None else self._function(name)

    def _function(self, name: str) -> Callable[..., Any]:
        function = getattr(self._hooks, name, None)
        if not callable(function):
            raise ManifestError(
                f"The hooks of {self.name} have no function '{name}'.", hint="Write it, or correct the manifest."
            )
        return function


def _is_it(item: Any, find: Find, wanted: str) -> bool:
    found = at(item, find.pointer)
    return isinstance(found, str) and (found == wanted if find.exact else wanted in found)


def _readable(content: str | bytes) -> Any:
    if isinstance(content, bytes):
        return f"{len(content):,} bytes"
    try:
        return parse_json(content)
    except ValueError:
        return content


def _is_template(value: Any) -> bool:
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, Mapping):
        return any(map(_is_template, value.values()))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    return isinstance(value, list) and any(map(_is_template, value))  # pyright: ignore[reportUnknownArgumentType]
