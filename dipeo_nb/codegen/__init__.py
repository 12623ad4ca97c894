"""Code generation: TypeScript in, templates and their filters, and what stands between them.

`dp.codegen.parse`, `build` and `render` are for notebooks; see docs/codegen.md for the rest. Parts are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dipeo_nb.common import lazy

if TYPE_CHECKING:
    from dipeo_nb.codegen.project import GeneratedFile, Generation, Parsing, parse, render
    from dipeo_nb.codegen.templates import CodegenTemplateService
    from dipeo_nb.codegen.typescript.parser import ALL_PATTERNS, TypeScriptParser

__all__ = [
    "ALL_PATTERNS",
    "CodegenTemplateService",
    "GeneratedFile",
    "Generation",
    "Parsing",
    "TypeScriptParser",
    "parse",
    "render",
]

__getattr__ = lazy.attributes(
    __name__,
    {
        "ALL_PATTERNS": "typescript.parser",
        "CodegenTemplateService": "templates",
        "GeneratedFile": "project",
        "Generation": "project",
        "Parsing": "project",
        "TypeScriptParser": "typescript.parser",
        "parse": "project",
        "render": "project",
    },
)


def __dir__() -> list[str]:
    return [*__all__]
