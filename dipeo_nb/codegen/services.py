"""The services of typescript_ast and ir_builder nodes, whose modules are imported when a node first uses them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dipeo_nb.codegen.ir.service import IRBuilderService
    from dipeo_nb.codegen.typescript.parser import TypeScriptParser


class ParserService:
    """Parses TypeScript (`ASTParserPort`; `codegen.typescript.parser`).

    Args:
        base_dir: of the parser.
    """

    def __init__(self, base_dir: str | Path) -> None:
        self._base = base_dir

    @cached_property
    def parser(self) -> TypeScriptParser:
        from dipeo_nb.codegen.typescript.parser import TypeScriptParser

        return TypeScriptParser(self._base)

    async def parse(self, sources: Mapping[str, str], options: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `TypeScriptParser.parse`."""
        return await self.parser.parse(sources, options)


class BuilderService:
    """Builds intermediate representations (`IRBuilderPort`; `codegen.ir.service`)."""

    @cached_property
    def builder(self) -> IRBuilderService:
        from dipeo_nb.codegen.ir.service import IRBuilderService

        return IRBuilderService()

    async def build(self, source: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `IRBuilderService.build`."""
        return await self.builder.build(source, options)
