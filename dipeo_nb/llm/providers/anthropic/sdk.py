"""The official SDK: its import, and what it knows of models."""

from __future__ import annotations

from typing import Any

from dipeo_nb.errors import MissingDependencyError


def load_sdk() -> Any:
    try:
        import anthropic
    except ImportError as error:
        raise MissingDependencyError(
            "The package 'anthropic' is not installed.", hint="Run: pip install anthropic"
        ) from error
    return anthropic


def retired(model: str) -> str | None:
    """When a model ends, as the SDK knows it."""
    from anthropic.resources.messages import messages

    return getattr(messages, "DEPRECATED_MODELS", {}).get(model)
