"""Origins of settings and keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Origin:
    """Origin of a value."""

    source: Literal["default", "given", "environment", "user", ".env", "dipeo.toml"]
    variable: str = ""
    """Its name there."""
    file: Path | None = None
    suggestion: bool = False
    """Whether it needs the user's approval."""

    @property
    def personal(self) -> bool:
        """Whether the user set it; otherwise it came with the folder."""
        return self.source not in (".env", "dipeo.toml")

    def __str__(self) -> str:
        if self.source == "environment":
            return f"environment {self.variable}"
        return str(self.file) if self.source == "user" else self.source


DEFAULT = Origin("default")
GIVEN = Origin("given")


class Credential(NamedTuple):
    """A key, its variable, and where that is set."""

    variable: str
    secret: SecretStr
    origin: Origin
