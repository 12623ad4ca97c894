"""The page of a run, as notebooks show it; see `execution.run_page`."""

from __future__ import annotations

from dipeo_nb.execution.run_page import FOLDER, Row, cut, head_of, modules, rows, script, styles

__all__ = ["FOLDER", "Row", "cut", "head_of", "modules", "rows", "script", "styles"]
