"""The part of a gate that checked services depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from dipeo_nb.diagram.closure import Closure
from dipeo_nb.domain.budget import Budget
from dipeo_nb.domain.capabilities import Capabilities, Kind
from dipeo_nb.domain.ports import FileSystemPort


class Permissions(Protocol):
    """Permissions of one run; see `Gate` for each member."""

    written: set[str]

    @property
    def granted(self) -> Capabilities: ...

    @property
    def budget(self) -> Budget | None: ...

    @property
    def closure(self) -> Closure | None: ...

    @property
    def base(self) -> Path: ...

    @property
    def drafts(self) -> Callable[[], FileSystemPort] | None: ...

    @property
    def made(self) -> Callable[[bytes], None]: ...

    @property
    def sources(self) -> Mapping[str, bytes] | None: ...

    def may_use(self, path: str, writing: bool) -> bool: ...

    def require(self, kind: Kind, what: str) -> None: ...
