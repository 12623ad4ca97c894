"""Which code of diagrams from elsewhere may run here: remembered by the hash of the code, so a change of it asks again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.locks import FileLock
from dipeo_nb.domain.nodes import code_of
from dipeo_nb.domain.plan import Plan
from dipeo_nb.errors import StorageError

Sources = Sequence[tuple[str, str]]
"""(label of the node, its code)."""


def sources_of(plan: Plan) -> list[tuple[str, str]]:
    """All code that a run of *plan* may run, in file order."""
    return [(node.label, code) for node in plan.nodes for code in code_of(node.spec)]


def digest_of(sources: Sources) -> str:
    """SHA-256 in hex of all the code, with the labels of its nodes: what a person read before saying yes."""
    return hashlib.sha256(json.dumps(list(sources), ensure_ascii=False).encode()).hexdigest()


class TrustedCode:
    """The hashes that somebody said yes to, in one JSON file; shared by all processes of the user.

    Args:
        path: the file; its folder is made when something is remembered.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __contains__(self, digest: str) -> bool:
        return digest in self._read()

    def remember(self, digest: str, name: str) -> None:
        """Trust that code from now on. *name* (of the diagram) only tells a reader of the file what it was.

        Raises:
            StorageError: the file cannot be read or written; nothing is changed then.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(self.path.with_name(f"{self.path.name}.lock")):
                known = self._read()
                if digest not in known:
                    known[digest] = {"diagram": name, "trusted_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
                    write_atomic(self.path, json.dumps(known, indent=2, ensure_ascii=False).encode())
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written: {error.strerror or error}.",
                hint="Make room or correct the permissions of that folder; or choose another with DIPEO_DATA_DIR.",
                operation="remember",
                path=str(self.path),
            ) from error

    def forget(self, digest: str) -> bool:
        """Trust that code no more; whether it was trusted."""
        if digest not in self:
            return False
        with FileLock(self.path.with_name(f"{self.path.name}.lock")):
            known = self._read()
            known.pop(digest, None)
            write_atomic(self.path, json.dumps(known, indent=2, ensure_ascii=False).encode())
        return True

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            known = error
        if isinstance(known, dict):
            return known
        raise StorageError(
            f"{self.path}, which holds the hashes of trusted code, cannot be read.",
            hint="Repair or remove it; then the code of diagrams from elsewhere is asked about again.",
            operation="read",
            path=str(self.path),
        )
