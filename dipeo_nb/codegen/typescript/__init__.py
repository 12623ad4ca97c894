"""Reads TypeScript without Node: declarations, JSDoc, and the values of constants, with positions and diagnostics."""

from dipeo_nb.codegen.typescript.parser import ALL_PATTERNS, DEFAULT_PATTERNS, TypeScriptParser, parse, parse_batch

__all__ = ["ALL_PATTERNS", "DEFAULT_PATTERNS", "TypeScriptParser", "parse", "parse_batch"]
