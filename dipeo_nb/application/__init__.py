"""Deprecated: import paths of DiPeO's application layer. Kept for imports of old."""

from dipeo_nb.common.moved import MovedModules

MovedModules(__name__, {"mixins": "dipeo_nb.mixins"}).install()
