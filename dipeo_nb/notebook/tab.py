"""Registers our Tab completion with IPython; nothing else of ours is imported before Tab is pressed."""

from __future__ import annotations

import sys
from typing import Any


def register_here() -> None:
    """Register with the shell of this process, when there is one; may be called again."""
    ipython: Any = sys.modules.get("IPython")
    find = getattr(ipython, "get_ipython", None)
    shell: Any = find() if find is not None else None
    completer = getattr(shell, "Completer", None)
    if completer is None or any(getattr(m, "__module__", "") == __name__ for m in completer.custom_matchers):
        return
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher()
    def matcher(context: Any) -> Any:
        from dipeo_nb.errors import DipeoError
        from dipeo_nb.notebook.completion import complete

        try:
            found = complete(context.line_with_cursor[: context.cursor_position], shell.user_ns)
        except DipeoError:  # e.g. the run store cannot be read; Tab is not the moment to report it
            found = None
        text, offered = found or ("", [])
        return {
            "completions": [SimpleCompletion(text=word, type="text") for word in offered],
            "matched_fragment": text,
            "suppress": bool(offered),
        }

    completer.custom_matchers.append(matcher)
