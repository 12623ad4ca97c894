"""Diagrams as prompts of the Model Context Protocol, which clients offer as commands (`/ask`), and the completion of their arguments."""

from __future__ import annotations

from collections.abc import Mapping

import mcp_types as types

from dipeo_nb.common.values import json_text
from dipeo_nb.server.diagram_tools import DiagramTool

MOST_VALUES = 100
"""Completions in an answer at most: the protocol's limit."""


def prompt(tool: DiagramTool) -> types.Prompt:
    """A prompt that has a model call a tool."""
    arguments = [
        types.PromptArgument(name=name, description=field.get("description"), required=False)
        for name, field in tool.schema["properties"].items()
    ]
    return types.Prompt(name=tool.name, title=tool.title, description=tool.description, arguments=arguments)


def message(tool: DiagramTool, arguments: Mapping[str, str]) -> types.GetPromptResult:
    """What such a prompt says."""
    given = f" with these arguments: {json_text(dict(arguments))}" if arguments else ""
    text = f"Call the tool `{tool.name}`{given}. It does this: {tool.description}\nThen tell me its result."
    return types.GetPromptResult(
        description=tool.description, messages=[types.PromptMessage(role="user", content=types.TextContent(text=text))]
    )


def values(tool: DiagramTool, argument: str, typed: str) -> list[str]:
    """Values that an argument may take and that begin so."""
    field = tool.schema["properties"].get(argument, {})
    known = field.get("enum") or (
        [True, False] if field.get("type") == "boolean" else [field["default"]] if "default" in field else []
    )
    texts = (one if isinstance(one, str) else json_text(one) for one in known)
    return [text for text in texts if text.startswith(typed)][:MOST_VALUES]
