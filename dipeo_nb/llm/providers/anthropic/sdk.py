"""The official SDK: its import, and what it knows of models."""

from __future__ import annotations

from typing import Any

from dipeo_nb.llm.core import sdk_client


def load_sdk() -> Any:
    return sdk_client.load("anthropic", "anthropic")


def retired(model: str) -> str | None:
    """When a model ends, as the SDK knows it."""
    from anthropic.resources.messages import messages

    return getattr(messages, "DEPRECATED_MODELS", {}).get(model)
