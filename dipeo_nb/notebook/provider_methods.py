"""What a session offers of providers of web services. The module behind it is imported by those who use them."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.calls import checked_call

if TYPE_CHECKING:
    from dipeo_nb.integrations.providers import BaseProvider
    from dipeo_nb.notebook.providers import Provider, ProviderCall
    from dipeo_nb.notebook.tables import Table
    from dipeo_nb.runtime import Runtime


class ProviderMethods:
    """Part of `Session`."""

    runtime: Runtime

    def providers(self) -> Table:
        """The providers of web services (Slack, Notion, GitHub …): one row each, with what it lacks and how many operations it has.

        Providers come with the package, from manifests in the folder `integrations` of the base directory, from other packages,
        and from `dp.provider("file.yaml")`.
        """
        return _module().providers(self.runtime)

    @checked_call
    def provider(self, source: str | os.PathLike[str] | BaseProvider, **variables: Any) -> Provider:
        """A provider, whose operations are its methods: `dp.provider("slack").send_message(channel="C1", text="Hello")`.

        Args:
            source: its name, the file of a manifest, or a `BaseProvider` to register for this session.
            variables: of the provider, kept for this session and its runs, such as `site`; `base_url` for another server, `key` for
                the service whose key it uses.

        Raises:
            ValidationError: there is no such provider.
            ManifestError: the manifest cannot be used; the message has the line.
            TrustError: its hooks, or the folder of the base directory, are not trusted.
            ConfigurationError: it has no such variable.
        """
        return _module().provider(self.runtime, source, variables)

    @checked_call
    def call(self, operation: str, **parameters: Any) -> ProviderCall:
        """A call of a provider, to be awaited: `rows = await dp.call("github.list_issues", owner="me", repo="mine", all=True)`.

        Args:
            operation: `provider.operation`.
            parameters: of the operation, and of the call: `all` (every page of a list), `limit` (items at most), `key_id`,
                `timeout` (seconds for one attempt), `max_retries`.

        Returns:
            The call, not made yet: `await` it, or use `.result()`, `.preview()` (what it would send) or `async for` over `.pages()`.

        Raises:
            ValidationError: there is no such operation.
        """
        return _module().call(self.runtime, operation, parameters)


def _module() -> Any:
    return importlib.import_module("dipeo_nb.notebook.providers")
