"""Interface of key stores, and their lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dipeo_nb.common.locks import FileLock
from dipeo_nb.errors import APIKeyError, StorageError

if TYPE_CHECKING:
    from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key in a store."""

    label: str
    service: str
    secret: SecretStr | None
    """None: encrypted, without a passphrase to decrypt it."""


class KeyStore(Protocol):
    """Keys by id, in the order in which they were stored. Methods block; all raise APIKeyError when the store cannot be
    used, without changing anything."""

    name: str
    """Name in lists."""

    @property
    def locked(self) -> bool:
        """Whether a passphrase is missing."""
        ...

    def unlock(self, passphrase: SecretStr) -> None:
        """Use a passphrase from now on. Raises APIKeyError when it is wrong."""
        ...

    def read(self) -> dict[str, StoredKey]:
        """Return the current keys, including those stored by other processes."""
        ...

    def changing(self) -> AbstractContextManager[dict[str, StoredKey]]:
        """Yield the keys to be changed in place, locked against other writers; they are stored at the end of the block."""
        ...


@contextmanager
def store_lock(path: Path) -> Iterator[None]:
    lock = FileLock(path, private=True)
    try:
        taken = lock.acquire()
    except StorageError as error:
        hint = f"{error.hint} Or choose another folder with DIPEO_DATA_DIR."
        raise APIKeyError(error.message, hint=hint, path=str(path)) from error
    if not taken:
        raise APIKeyError(
            f"{path} was locked by another process for {lock.timeout:g} s.",
            hint="Wait for it to end and try again.",
            path=str(path),
        )
    try:
        yield
    finally:
        lock.release()


def passphrase_missing() -> APIKeyError:
    """Return the error for a missing passphrase."""
    return APIKeyError(
        "The stored keys are encrypted, and there is no passphrase.",
        hint="Set DIPEO_KEYS_PASSPHRASE; in a notebook, `%dipeo keys unlock` asks for it.",
    )
