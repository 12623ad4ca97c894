"""Where the value of a setting came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from."""

    source: Literal["default", "given", "environment", "user", ".env", "dipeo.toml"]
    variable: str = ""
    """The name under which it stood there."""
    file: Path | None = None
    suggestion: bool = False
    """Whether it is one that a folder may only suggest."""

    @property
    def personal(self) -> bool:
        """Whether it is the user's word; else it came with the folder."""
        return self.source not in (".env", "dipeo.toml")

    def __str__(self) -> str:
        if self.source == "environment":
            return f"environment {self.variable}"
        return str(self.file) if self.source == "user" else self.source


DEFAULT = Origin("default")
GIVEN = Origin("given")


class Credential(NamedTuple):
    """A key, the variable that holds it, and where that is set."""

    variable: str
    secret: SecretStr
    origin: Origin


class FolderSecret(SecretStr):
    """A key that came with a folder; keys of other types are the user's own."""

    def __init__(self, text: str, origin: Origin) -> None:
        super().__init__(text)
        self.origin = origin
