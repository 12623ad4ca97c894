"""Settings of Claude Code sessions."""

from __future__ import annotations

from pathlib import Path

from dipeo_nb.llm.providers.claude_code.sessions import ARGUMENT_LIMIT, SessionSettings


def claude_code_settings(folder: Path, prompt: str) -> SessionSettings:
    """Of a session whose system prompt is too long for an argument, and stands in a file."""
    return SessionSettings(f"{prompt} {'x' * ARGUMENT_LIMIT}", None, (), None, folder / "one" / "two", (), "{}")
