"""Reads TypeScript without Node: declarations, JSDoc, and the values of constants, with positions and diagnostics."""

from dipeo_nb.common import lazy

__getattr__ = lazy.attributes(
    __name__,
    dict.fromkeys(("ALL_PATTERNS", "DEFAULT_PATTERNS", "TypeScriptParser", "parse", "parse_batch"), "parser"),
)
