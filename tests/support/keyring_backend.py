"""A real backend of `keyring`, of the kind that others write: it keeps its entries in a mapping of this process."""

from __future__ import annotations

from keyring.backend import KeyringBackend
from keyring.errors import KeyringError, PasswordDeleteError


class DictKeyring(KeyringBackend):
    """Keeps entries by (collection, name); `broken` names the operations that fail, as those of a locked keyring do."""

    priority = 9  # pyright: ignore[reportAssignmentType]

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}
        self.broken: set[str] = set()

    def get_password(self, service: str, username: str) -> str | None:
        self._work("get")
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._work("set index" if username == "index" else "set")
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._work("delete")
        if self.entries.pop((service, username), None) is None:
            raise PasswordDeleteError("not found")

    def _work(self, what: str) -> None:
        if what in self.broken:
            raise KeyringError("the keyring is locked")
