"""Deprecated: the factory is `dipeo_nb.llm.providers` now. Kept for imports of old."""

from dipeo_nb.common.moved import MovedModules

MovedModules(__name__, {"factory": "dipeo_nb.llm.providers"}).install()
