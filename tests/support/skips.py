"""Why tests may be skipped."""

from __future__ import annotations

NOT_HERE = "not here:"
"""A skip whose reason starts so is about the platform, not about a missing part; CI accepts it."""
