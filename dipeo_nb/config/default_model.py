"""The model of persons without a model of their own."""

from __future__ import annotations

from datetime import date

from dipeo_nb.common import clock

DEFAULT_MODEL = "gpt-5-nano-2025-08-07"
"""The default model, of OpenAI."""
DEFAULT_MODEL_ENDS = date(2026, 12, 11)
"""Day on which it is shut down (`domain/lifecycle.toml`)."""
DEFAULT_MODEL_AFTER = "gpt-6-luna"
"""The default model from that day on."""


def default_model() -> str:
    """Return today's default model."""
    return DEFAULT_MODEL_AFTER if clock.today() >= DEFAULT_MODEL_ENDS else DEFAULT_MODEL
