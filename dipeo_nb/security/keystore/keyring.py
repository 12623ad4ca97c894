"""Keys in the system's keyring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.errors import APIKeyError, MissingDependencyError
from dipeo_nb.security.keystore.document import is_row, parsed
from dipeo_nb.security.keystore.store import StoredKey, store_lock

if TYPE_CHECKING:
    import pydantic
    from pydantic import SecretStr
else:
    pydantic = lazy.module("pydantic")


class SystemKeyring:
    """Keys in the system's keyring: Keychain, Credential Manager, Secret Service, KWallet, through `keyring`.

    A keyring cannot be listed, so an entry `index` holds the ids. A key exists only if it is in both places: a killed process
    leaves the old keys or the new ones.

    Args:
        backend: a `keyring.backend.KeyringBackend`.
        lock_file: excludes other processes during changes.
    """

    name = "system keyring"
    collection = "dipeo-nb"
    index = "index"
    locked = False  # the system asks for what it needs

    def __init__(self, backend: Any, lock_file: Path) -> None:
        self._backend = backend
        self._lock_file = lock_file

    def __repr__(self) -> str:
        return f"SystemKeyring({type(self._backend).__module__})"

    def unlock(self, passphrase: SecretStr) -> None:
        raise APIKeyError(
            "The system keyring does not use a passphrase of dipeo-nb.", hint="Set DIPEO_KEYS_STORE=file to use one."
        )

    def read(self) -> dict[str, StoredKey]:
        keys: dict[str, StoredKey] = {}
        for name in self._ids():
            row = self._get(name)
            if row is None:  # removed with the system's tools
                continue
            if not is_row(row):
                raise _damaged_entry(name)
            keys[name] = StoredKey(row["label"], row["service"], pydantic.SecretStr(row["key"]))
        return keys

    @contextmanager
    def changing(self) -> Iterator[dict[str, StoredKey]]:
        try:
            self._lock_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unlockable(self._lock_file, error) from error
        with store_lock(self._lock_file):
            keys = self.read()
            before = dict(keys)
            yield keys
            if keys.keys() - before.keys():
                self._set(self.index, list(before | keys))  # an id without an entry does not count
            for name, key in keys.items():
                if before.get(name) != key and key.secret is not None:
                    row = {"label": key.label, "service": key.service, "key": key.secret.get_secret_value()}
                    self._set(name, row)
            for name in before.keys() - keys.keys():
                with _asked("delete from"):
                    self._backend.delete_password(self.collection, name)
            if before.keys() - keys.keys():
                self._set(self.index, list(keys))

    def _ids(self) -> list[str]:
        ids = self._get(self.index)
        if ids is None:
            return []
        if not isinstance(ids, list) or not all(isinstance(name, str) for name in ids):
            raise _damaged_entry(self.index)
        return ids

    def _get(self, name: str) -> Any:
        with _asked("read from"):
            text = self._backend.get_password(self.collection, name)
        if text is None:
            return None
        value = parsed(text)
        if value is None:
            raise _damaged_entry(name)
        return value

    def _set(self, name: str, value: Any) -> None:
        with _asked("write to"):
            self._backend.set_password(self.collection, name, json.dumps(value))


def backend_of(needed: bool) -> Any:
    """Return the system's keyring; None when there is none, or one that stores nothing or stores plain text.

    `keyring` gives real ones a priority of 1 and more (`keyring.core.recommended`); `fail`, `null` and plain files have less.
    """
    try:
        import keyring
    except ModuleNotFoundError as error:
        if needed:
            raise MissingDependencyError.for_extra("keyring", extra="keys") from error
        return None
    try:
        backend = keyring.get_keyring()
        real = float(backend.priority) >= 1
    except Exception as error:  # third-party backends raise anything
        raise APIKeyError(
            f"The configured system keyring cannot be used: {type(error).__name__}: {error}.",
            hint="Correct PYTHON_KEYRING_BACKEND or keyringrc.cfg, or set DIPEO_KEYS_STORE=file.",
        ) from error
    if real:
        return backend
    if needed:
        raise APIKeyError(
            "This system has no usable keyring.",
            hint="Set DIPEO_KEYS_STORE=file, best with DIPEO_KEYS_PASSPHRASE.",
        )
    return None


@contextmanager
def _asked(what: str) -> Iterator[None]:
    """Convert errors of the keyring to ours. Backends also raise errors of their own libraries."""
    try:
        yield
    except Exception as error:
        raise APIKeyError(
            f"Could not {what} the system keyring: {type(error).__name__}: {error}.",
            hint="Unlock it with the tools of the system, or set DIPEO_KEYS_STORE=file.",
        ) from error


def _unlockable(path: Path, error: OSError) -> APIKeyError:
    return APIKeyError(
        f"{path} cannot be locked: {error.strerror or error}.",
        hint="Correct the permissions of that folder; or choose another with DIPEO_DATA_DIR.",
        path=str(path),
    )


def _damaged_entry(name: str) -> APIKeyError:
    return APIKeyError(
        f"The entry '{name}' of '{SystemKeyring.collection}' in the system keyring is damaged. It was left as it is.",
        hint="Repair or remove it with the tools of the system.",
    )
