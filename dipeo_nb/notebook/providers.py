"""Providers of web services as a notebook uses them: `dp.providers()`, `dp.provider("slack").send_message(…)`, `dp.call(…)`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.loop import iterate_on_loop, run_on_loop, run_sync
from dipeo_nb.common.paths import from_home
from dipeo_nb.common.text import displayed, nearest
from dipeo_nb.common.values import json_text
from dipeo_nb.diagram.labels import clean
from dipeo_nb.errors import ConfigurationError, DipeoError, ValidationError
from dipeo_nb.integrations.providers import BaseProvider
from dipeo_nb.integrations.registry import SUFFIXES
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.tables import Table

if TYPE_CHECKING:
    from dipeo_nb.runtime import Runtime

OPTIONS = ("all", "limit", "key_id", "timeout", "max_retries")
"""Options of a call, besides the parameters of its operation."""


class ProviderCall:
    """A call of an operation that is made when it is awaited, or asked for its `result()`; shown as the request that it would send.

    A list of records is a `Table`, with `.to_dataframe()`.
    """

    def __init__(self, runtime: Runtime, provider: str, operation: str, parameters: Mapping[str, Any], **options: Any) -> None:
        self._runtime = runtime
        self._provider = provider
        self._operation = operation
        self._parameters = dict(parameters)
        self._options = {name: value for name, value in options.items() if value not in (None, False)}

    def __await__(self) -> Generator[Any, None, Any]:
        return run_on_loop(self._made()).__await__()

    def result(self) -> Any:
        """Make the call, and wait for it.

        Raises:
            IntegrationError: one of its kinds.
            ValidationError: there is no such operation, or the parameters do not fit.
        """
        return run_sync(self._made())

    def preview(self) -> dict[str, Any]:
        """The request that would be sent, with the key masked; nothing is sent. Raises ValidationError."""
        return _service(self._runtime).preview(self._provider, self._operation, self._parameters)

    def pages(self) -> AsyncIterator[Table]:
        """The pages of a list, for `async for`. Raises as `result`."""
        return iterate_on_loop(self._pages())

    async def _pages(self) -> AsyncIterator[Any]:
        options = {name: value for name, value in self._options.items() if name != "all"}
        async for items in _service(self._runtime).pages(self._provider, self._operation, self._parameters, **options):
            yield shown(items)

    async def _made(self) -> Any:
        options = dict(self._options)
        key_id = options.pop("key_id", None)
        service = self._runtime.services.integrations
        if service is None:
            raise ConfigurationError("There are no integrations here.", hint="Give some: dp.Session(integrations=…).")
        answer = await service.execute(self._provider, self._operation, config=self._parameters, api_key_id=key_id, **options)
        return shown(answer)

    @displayed
    def __repr__(self) -> str:
        name = f"{self._provider}.{self._operation}"
        try:
            return f"<{name}, not called yet: await it, or .result()>\n{json_text(self.preview(), indent=2)}"
        except DipeoError as error:
            return f"<{name}, which cannot be called: {error}>"


class Operation:
    """An operation of a provider: call it with its parameters; `.call(…)` gives a `ProviderCall`, `.preview(…)` what it would send."""

    def __init__(self, runtime: Runtime, provider: str, name: str) -> None:
        self._runtime = runtime
        self._provider = provider
        self.name = name
        service = _service(runtime)
        found = service.find(provider)
        self.__signature__, self.__doc__ = found.signature(name), found.help(name)
        self.__name__ = name

    def __call__(self, **parameters: Any) -> Any:
        return self.call(**parameters).result()

    def call(self, **parameters: Any) -> ProviderCall:
        """The call, not made yet; of the options, `all` and `limit` are for lists."""
        return called(self._runtime, self._provider, self.name, parameters)

    def preview(self, **parameters: Any) -> dict[str, Any]:
        """The request that it would send, with the key masked; nothing is sent."""
        return self.call(**parameters).preview()

    @displayed
    def __repr__(self) -> str:
        return f"{self._provider}.{self.name}{self.__signature__}\n{self.__doc__}"


class Provider:
    """A provider: its operations are attributes, with completion and help."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self.name = name
        self._operations = _service(runtime).operations_of(name)

    def __getattr__(self, name: str) -> Operation:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._operations:
            near = nearest(name, self._operations)
            hint = f"Did you mean '{near}'?" if near else f"It has: {', '.join(self._operations)}."
            raise AttributeError(f"{self.name} has no operation '{name}'. {hint}")
        return Operation(self._runtime, self.name, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._operations]

    def operations(self) -> Table:
        """One row per operation: name, effect, parameters and what it does."""
        return Table(_service(self._runtime).find(self.name).rows())

    @displayed
    def __repr__(self) -> str:
        return f"{self.name}\n{self.operations()!r}"

    @displayed
    def _repr_html_(self) -> str:
        return static_view.titled(f"<strong>{clean(self.name)}</strong>", self.operations()._repr_html_())


def provider(runtime: Runtime, source: str | os.PathLike[str] | BaseProvider, variables: Mapping[str, Any]) -> Provider:
    """See `Session.provider`."""
    service = _service(runtime)
    if isinstance(source, BaseProvider):
        service.register(source)
        name = source.name
    elif isinstance(source, os.PathLike) or str(source).endswith(SUFFIXES):
        path = from_home(source)
        path = path if path.is_absolute() else runtime.settings.base_dir / path
        if not Path(path).is_file():
            raise ConfigurationError(
                f"There is no file {path}.", hint="Give the path of a manifest, or the name of a provider."
            )
        name = service.add(Path(path).resolve())
    else:
        name = str(source)
    if variables:
        service.configure(name, **variables)
    return Provider(runtime, name)


def called(runtime: Runtime, provider: str, operation: str, parameters: Mapping[str, Any]) -> ProviderCall:
    """A call; what is not a parameter of the operation and the name of an option is that option."""
    known = _service(runtime).accepted(provider, operation)
    taken = {name for name in OPTIONS if name in parameters and (known is None or name not in known)}
    options = {name: parameters[name] for name in taken}
    return ProviderCall(runtime, provider, operation, {n: v for n, v in parameters.items() if n not in taken}, **options)


def call(runtime: Runtime, name: str, parameters: Mapping[str, Any]) -> ProviderCall:
    """See `Session.call`."""
    given, dot, operation = name.partition(".")
    if not dot or not operation:
        raise ValidationError(
            f"'{name:.80}' is not an operation.", hint='Write it as provider.operation: dp.call("github.list_issues", …).'
        )
    return called(runtime, given, operation, parameters)


def providers(runtime: Runtime) -> Table:
    """See `Session.providers`."""
    service = _service(runtime)
    return Table([run_sync(service.row(name)) for name in service.names()], {"operations": int})


def shown(value: Any) -> Any:
    """A list of records as a table; anything else as it is."""
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):  # pyright: ignore[reportUnknownVariableType]
        return Table(value)  # pyright: ignore[reportUnknownArgumentType]
    return value  # pyright: ignore[reportUnknownVariableType]


def _service(runtime: Runtime) -> Any:
    service = runtime.services.integrations
    if service is None or not hasattr(service, "manifest_provider"):
        raise ConfigurationError(
            "The integrations of this session have no providers that can be listed.",
            hint="Call them from integrated_api nodes.",
        )
    return service
