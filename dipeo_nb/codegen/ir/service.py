"""Builds IRs of what the TypeScript parser gives: the service behind ir_builder nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from dipeo_nb.codegen.ir.builders import options_for
from dipeo_nb.codegen.ir.cache import IRCache
from dipeo_nb.codegen.ir.model import VERSION, IRData, IRMetadata
from dipeo_nb.codegen.ir.pipeline import Build, Sources, digest
from dipeo_nb.codegen.ir.registry import IRBuilderRegistry
from dipeo_nb.common import cancellable
from dipeo_nb.errors import ValidationError

_COLLECTIONS = {"interfaces", "types", "enums", "classes", "functions", "constants", "exports", "imports", "namespaces"}
_CACHED = re.compile(r"^temp/|\.json$")
"""Names of cached results: `temp/core/diagram.ts.json` is that of `core/diagram.ts`."""


class IRBuilderService:
    """Builds IRs off the event loop (`IRBuilderPort`).

    Args:
        registry: the builders.
        cache: what steps have built before.
    """

    def __init__(self, registry: IRBuilderRegistry | None = None, cache: IRCache | None = None) -> None:
        self.registry: IRBuilderRegistry = registry or IRBuilderRegistry()
        self.cache: IRCache = cache or IRCache()

    async def build(self, source: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return {"data": …, "metadata": …}; with the output format json or yaml, the keys of the data stand beside them, as templates
        name them.

        Args:
            source: name of a source → what the parser gave for it; or that of a single source.
            options: the fields of an ir_builder node; `config`, a mapping with the builder's own options.

        Raises:
            ValidationError: there is no such builder, or the sources are not what it needs.
        """
        made = await cancellable.in_thread(self.build_ir, source, options)
        return made.to_dict() if options.get("output_format", "json") == "python" else made.names()

    def build_ir(self, source: Any, options: Mapping[str, Any]) -> IRData:
        """As `build`, typed, in this thread."""
        return self.run(source, options)[0]

    def run(self, source: Any, options: Mapping[str, Any]) -> tuple[IRData, Build]:
        """(the IR, what was done for it). Raises as `build`."""
        kind = str(options.get("builder_type") or "backend")
        name = str(options.get("builder_name") or kind) if kind == "custom" else kind
        pipeline = self.registry.get_builder(name)
        sources = sources_of(source)
        config = options.get("config")
        given = options_for(sources, cast(Mapping[str, Any], config) if isinstance(config, Mapping) else {})
        if not options.get("validate_output", True):
            pipeline = type(pipeline)([step for step in pipeline.steps.values() if step.kind != "validate"])
        build = pipeline.build(sources, given, self.cache if options.get("cache_enabled", True) else None)
        last = [step.name for step in pipeline.steps.values() if step.kind == "assemble"][-1]
        names = tuple(sorted(sources))
        metadata = IRMetadata(name, VERSION, len(names), names, digest(sources, given, name))
        return IRData(metadata, build.results[last]), build


def sources_of(source: Any) -> Sources:
    """Name → collections, of whatever form the results of the parser come in.

    Raises:
        ValidationError: they are not results of the parser.
    """
    if isinstance(source, Mapping) and set(cast(Mapping[str, Any], source)) == {"default"}:
        source = cast(Mapping[str, Any], source)["default"]
    if not isinstance(source, Mapping):
        raise _unfit(f"{type(source).__name__}")
    given = cast(Mapping[str, Any], source)
    if "ast" in given or (given and set(given) <= _COLLECTIONS):
        given = {"source": given}
    found: dict[str, Mapping[str, Any]] = {}
    for name, value in given.items():
        ast: Any = cast(Mapping[str, Any], value).get("ast", value) if isinstance(value, Mapping) else None
        if not isinstance(ast, Mapping):
            raise _unfit(f"'{name}', which is {type(value).__name__}")
        collections = cast(Mapping[str, Any], ast)
        wrong = [key for key in _COLLECTIONS & set(collections) if not isinstance(collections[key], list)]
        if wrong or (collections and not _COLLECTIONS & set(collections)):
            raise _unfit(f"'{name}' without collections of the parser")
        found[_CACHED.sub("", _CACHED.sub("", str(name)))] = collections
    return found


def _unfit(what: str) -> ValidationError:
    return ValidationError(
        f"The builder got {what}.",
        hint="It needs the result of a typescript_ast node: name → {interfaces, types, enums, constants …}.",
    )
