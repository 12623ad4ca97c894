"""Shell completion of arguments and options: diagrams, models, run ids, nodes that ask.

`dipeo-nb --install-completion` sets it up for bash, zsh, fish and PowerShell. Only this machine's files are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from dipeo_nb.common import lazy
from dipeo_nb.domain.enums import NodeType, Status
from dipeo_nb.errors import DipeoError

if TYPE_CHECKING:
    from dipeo_nb import config, container
    from dipeo_nb.common import loop
    from dipeo_nb.config import Settings
    from dipeo_nb.diagram import detect
    from dipeo_nb.diagram import document as documents
    from dipeo_nb.domain import nodes
    from dipeo_nb.domain.ports import RunStore
    from dipeo_nb.execution import run_list
    from dipeo_nb.llm import catalogue, model_store, providers
else:  # every command names its completers, and only a shell that completes asks them
    config = lazy.module("dipeo_nb.config")
    container = lazy.module("dipeo_nb.container")
    loop = lazy.module("dipeo_nb.common.loop")
    detect = lazy.module("dipeo_nb.diagram.detect")
    documents = lazy.module("dipeo_nb.diagram.document")
    nodes = lazy.module("dipeo_nb.domain.nodes")
    run_list = lazy.module("dipeo_nb.execution.run_list")
    catalogue = lazy.module("dipeo_nb.llm.catalogue")
    model_store = lazy.module("dipeo_nb.llm.model_store")
    providers = lazy.module("dipeo_nb.llm.providers")

Completer = Callable[[typer.Context, str], list[str]]
RUNS = 30
"""How many of the newest runs are offered."""
_PLAIN = re.compile(r"[\w.,:/@%+=?-]+")
"""Words that need no quotes: bash inserts completions as they are."""


def _completer(offered: Callable[[typer.Context, Settings], Iterable[str]]) -> Completer:
    """A completer for typer: those of the *offered* words that begin with the typed text."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        with suppress(DipeoError):  # settings or a run store that cannot be read: the command reports that, Tab does not
            settings = _settings(ctx)
            return [
                word for word in dict.fromkeys(offered(ctx, settings)) if word.startswith(incomplete) and _PLAIN.fullmatch(word)
            ]
        return []

    return complete


def _settings(ctx: typer.Context) -> Settings:
    """The settings, with the base directory of the command line so far."""
    given = ctx.params.get("base_dir")
    settings = config.get_settings()
    return settings if given is None else settings.model_copy(update={"base_dir": Path(given).resolve()})


def _diagrams(ctx: typer.Context, settings: Settings) -> Iterable[str]:
    yield from detect.names(settings.base_dir)
    yield from (f"{detect.DEMO_PREFIX}{detect.stem(path)}" for path in sorted(detect.DEMOS.glob("*.yaml")))


def _models(ctx: typer.Context, settings: Settings) -> Iterable[str]:
    for service in providers.services():
        yield service
        if model := catalogue.default_model(service, settings):
            yield f"{service}:{model}"
    yield from (f"local:{name}" for name in model_store.known())


def _services(ctx: typer.Context, settings: Settings) -> Iterable[str]:
    return providers.services()


def _runs(ctx: typer.Context, settings: Settings) -> Iterable[str]:
    place = settings.run_store
    if not isinstance(place, Path) or not place.exists():  # Tab must not wait for a server
        return []

    async def read(store: RunStore) -> list[str]:
        await store.initialize()
        try:
            return [row.run_id for row in await store.runs(limit=RUNS)]
        finally:
            await store.cleanup()

    ids = loop.run_sync(read(container.run_store(settings)))
    length = run_list.short_length(ids)
    return [*(run_list.short_id(run_id, length) for run_id in ids), *ids]


def _asking(ctx: typer.Context, settings: Settings) -> Iterable[str]:
    """`NODE=` of each node that asks in the diagram that is typed already."""
    # Behind an option without its value, the parser leaves arguments where they were.
    name: str | None = ctx.params.get("file") or next((word for word in ctx.args if not word.startswith("-")), None)
    if name is None or name == "-":
        return []
    document = documents.load(name, base_dir=settings.base_dir)
    return [f"{node.label}=" for node in document.nodes if node.type == NodeType.USER_RESPONSE]


diagrams: Completer = _completer(_diagrams)
models: Completer = _completer(_models)
services: Completer = _completer(_services)
runs: Completer = _completer(_runs)
answers: Completer = _completer(_asking)
node_types: Completer = _completer(lambda ctx, settings: nodes.NODE_SPECS)
formats: Completer = _completer(lambda ctx, settings: detect.FORMATS)
statuses: Completer = _completer(lambda ctx, settings: map(str, Status))
