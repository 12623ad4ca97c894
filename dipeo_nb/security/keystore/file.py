"""Keys in a file that only its owner can read."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.paths import from_home
from dipeo_nb.errors import APIKeyError
from dipeo_nb.security.keystore.document import SCRYPT, decrypted, document_of, fernet, json_bytes, plain
from dipeo_nb.security.keystore.store import StoredKey, passphrase_missing, store_lock

if TYPE_CHECKING:
    import pydantic
    from pydantic import SecretStr
else:
    pydantic = lazy.module("pydantic")

_CHECK = "dipeo-nb"
"""Encrypted in each file, to detect a wrong passphrase even without keys."""


class KeyFilePermissionWarning(UserWarning):
    """A file with keys could be read by others."""


class KeyFile:
    """Keys in a JSON file of mode 0600: id → label, service, key, as in DiPeO; with a passphrase, keys are encrypted
    (Fernet, the key from scrypt), labels and services are not.

    A reader sees the old content or the new, even if the writer is killed. A file that cannot be parsed is never overwritten:
    a copy is kept next to it, and every operation fails until it is repaired or removed.

    Args:
        path: the file; its folder is created with mode 0700 when something is stored.
        passphrase: encrypts the keys; a plain file is encrypted when it is next written. Needs the extra `keys`.
        keep_out: a folder visible to diagrams and servers: nothing is written into it or below. (Unless it contains the user's
            home, and so all of the user's files; servers do not expose hidden folders.)
    """

    name = "key file"

    def __init__(self, path: Path, *, passphrase: SecretStr | None = None, keep_out: Path | None = None) -> None:
        self.path: Path = from_home(path)
        self._passphrase = passphrase if passphrase and passphrase.get_secret_value() else None
        self._keep_out = keep_out
        self._derived: tuple[object, Any] = (None, None)
        """Source of the cipher, and the cipher, since deriving it takes long."""

    def __repr__(self) -> str:
        return f"KeyFile({str(self.path)!r})"

    @property
    def locked(self) -> bool:
        return self._passphrase is None and "encryption" in self._load()

    def unlock(self, passphrase: SecretStr) -> None:
        document = self._load()
        if "encryption" in document:
            self._opened(document, passphrase)
            self._passphrase = passphrase

    def protect(self, passphrase: SecretStr) -> None:
        """Encrypt the keys with *passphrase* from now on, replacing the present one. Raises APIKeyError like `changing`."""
        if not passphrase.get_secret_value():
            raise APIKeyError("An empty passphrase protects nothing.", hint="Provide one.", path=str(self.path))
        with self._exclusive() as (path, document):
            keys, before = self._keys(document), self._passphrase
            self._passphrase = passphrase
            try:
                self._replace(path, {}, keys)
            except BaseException:
                self._passphrase = before
                raise

    def read(self) -> dict[str, StoredKey]:
        return self._keys(self._load())

    @contextmanager
    def changing(self) -> Iterator[dict[str, StoredKey]]:
        with self._exclusive() as (path, document):
            keys = self._keys(document)
            before = dict(keys)
            yield keys
            if keys != before:
                self._replace(path, document, keys)

    @contextmanager
    def _exclusive(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the path to write to and the document, locked against other writers within the block."""
        self._refuse_seen()
        path = self.path.resolve()  # keep a symbolic link
        with self._told("written"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _check_owner(path.parent, os.stat(path.parent))
        with store_lock(path.with_name(f"{path.name}.lock")):
            document = self._load()
            if "encryption" in document and self._passphrase is None:
                raise passphrase_missing()
            yield path, document

    def _replace(self, path: Path, document: Mapping[str, Any], keys: Mapping[str, StoredKey]) -> None:
        data = self._written(document, keys)
        with self._told("written"):
            for draft in path.parent.glob(f".{path.name}.*.tmp"):  # of a killed writer, since we hold the lock
                draft.unlink()
            write_atomic(path, data, mode=0o600)

    def _load(self) -> dict[str, Any]:
        """Return the document of the file; empty when there is no file."""
        with self._told("read"):
            try:
                file = self.path.open("rb")
            except FileNotFoundError:
                return {}
            with file:
                self._close_to_others(file.fileno())
                data = file.read()
        document = document_of(data)
        if document is None:
            raise self._corrupt(data)
        return document

    def _keys(self, document: Mapping[str, Any]) -> dict[str, StoredKey]:
        if "encryption" not in document:
            return {
                name: StoredKey(row["label"], row["service"], pydantic.SecretStr(row["key"])) for name, row in document.items()
            }
        cipher = self._opened(document, self._passphrase) if self._passphrase else None
        return {
            name: StoredKey(
                row["label"], row["service"], cipher and decrypted(cipher, self.path, row["key"], name, row["service"])
            )
            for name, row in document["keys"].items()
        }

    def _written(self, document: Mapping[str, Any], keys: Mapping[str, StoredKey]) -> bytes:
        rows = {name: {"label": key.label, "service": key.service} for name, key in keys.items()}
        texts = {name: key.secret.get_secret_value() for name, key in keys.items() if key.secret}
        if self._passphrase is None:
            return json_bytes({name: {**row, "key": texts[name]} for name, row in rows.items()})
        facts: Mapping[str, Any] = document.get("encryption") or {
            "cipher": "fernet", "kdf": "scrypt", **SCRYPT, "salt": base64.b64encode(secrets.token_bytes(16)).decode(),
        }  # fmt: skip
        cipher = self._cipher(facts, self._passphrase)
        # The id and the service are encrypted, too, so that keys cannot be swapped.
        sealed = {
            name: {**row, "key": cipher.encrypt(json_bytes([name, row["service"], texts[name]])).decode()}
            for name, row in rows.items()
        }
        return json_bytes({"encryption": {**facts, "check": cipher.encrypt(_CHECK.encode()).decode()}, "keys": sealed})

    def _opened(self, document: Mapping[str, Any], passphrase: SecretStr) -> Any:
        """Return the cipher of an encrypted document. Raises APIKeyError when the passphrase is wrong."""
        facts = document["encryption"]
        cipher = self._cipher(facts, passphrase)
        if plain(cipher, facts["check"]) != _CHECK.encode():
            raise APIKeyError(
                f"{self.path} cannot be decrypted: the passphrase is wrong.",
                hint="Set DIPEO_KEYS_PASSPHRASE to the one that it was encrypted with.",
                path=str(self.path),
            )
        return cipher

    def _cipher(self, facts: Mapping[str, Any], passphrase: SecretStr) -> Any:
        source = (passphrase, facts["salt"], facts["n"], facts["r"], facts["p"])
        if self._derived[0] != source:
            self._derived = (source, fernet(facts, passphrase))
        return self._derived[1]

    def _refuse_seen(self) -> None:
        if self._keep_out is None:
            return
        seen, home = self._keep_out.resolve(), Path(os.path.expanduser("~")).resolve()
        if self.path.resolve().is_relative_to(seen) and not home.is_relative_to(seen):
            raise APIKeyError(
                f"{self.path} would lie in the base directory {seen}, whose files diagrams and servers see.",
                hint="Set DIPEO_DATA_DIR to a folder elsewhere.",
                path=str(self.path),
            )

    def _close_to_others(self, file: int) -> None:
        if os.name == "nt":  # access control lists protect the user's folders
            return
        _check_owner(self.path, os.fstat(file))
        if not stat.S_IMODE(os.fstat(file).st_mode) & 0o077:
            return
        with contextlib.suppress(OSError):  # checked below
            os.fchmod(file, 0o600)
        if stat.S_IMODE(os.fstat(file).st_mode) & 0o077:
            raise APIKeyError(
                f"{self.path} holds keys that others can read or change, and its permissions cannot be changed.",
                hint=f"Run: chmod 600 {self.path}",
                path=str(self.path),
            )
        warnings.warn(
            f"{self.path} holds keys and could be read or changed by others; now it cannot (mode 0600). "
            "Renew the keys if others use this machine.",
            KeyFilePermissionWarning,
            stacklevel=2,
        )

    def _corrupt(self, data: bytes) -> APIKeyError:
        copy = self.path.with_name(f"{self.path.name}.corrupt-{hashlib.sha256(data).hexdigest()[:8]}")
        kept = f"A copy is kept as {copy.name}; "
        try:
            if not copy.exists():
                write_atomic(copy, data, mode=0o600)
        except OSError:  # the folder is read-only or full: the file itself is still there
            kept = ""
        return APIKeyError(
            f"{self.path} is damaged: it is not a file of keys. It was left as it is.",
            hint=f"{kept}repair the file, or remove it and store the keys again.",
            path=str(self.path),
        )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise APIKeyError(
                f"{self.path}, the file of keys, cannot be {what}: {error.strerror or error}.",
                hint="Free some space or correct the permissions of that folder; or choose another with DIPEO_DATA_DIR.",
                path=str(self.path),
            ) from error


def _check_owner(path: Path, facts: os.stat_result) -> None:
    """Refuse files of other users: their keys would send the user's prompts to their accounts."""
    if os.name != "nt" and facts.st_uid != os.geteuid():
        raise APIKeyError(
            f"{path} belongs to another user.",
            hint="Move it away, or choose another folder with DIPEO_DATA_DIR.",
            path=str(path),
        )
