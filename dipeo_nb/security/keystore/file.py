"""Where stored keys lie: in the system's keyring, or in a file that only its owner can read; both behind `KeyStore`."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import SecretStr

from dipeo_nb.common.atomic import write_atomic
from dipeo_nb.common.locks import FileLock
from dipeo_nb.common.paths import from_home
from dipeo_nb.config import Settings
from dipeo_nb.errors import APIKeyError, MissingDependencyError, StorageError

FILE_NAME = "apikeys.json"
SCRYPT = {"n": 2**17, "r": 8, "p": 1}
"""Costs of turning a passphrase into a key, as OWASP recommends (Password Storage Cheat Sheet): 128 MB, under a second."""
MOST_EXPENSIVE = 2**20
"""`n` of a file at most: 1 GB. A file that wants more was not written by us."""
_CHECK = "dipeo-nb"
"""Encrypted in each file, to tell a wrong passphrase also when there is no key yet."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key in a store."""

    label: str
    service: str
    secret: SecretStr | None
    """None: encrypted, and there is no passphrase."""


class KeyStore(Protocol):
    """Keys by id, in the order in which they were stored. Methods block; every one raises APIKeyError when the place cannot be
    used, and then nothing was changed."""

    name: str
    """What lists call it."""

    @property
    def locked(self) -> bool:
        """Whether a passphrase is missing."""
        ...

    def unlock(self, passphrase: SecretStr) -> None:
        """Use a passphrase from now on. Raises APIKeyError when it is the wrong one."""
        ...

    def read(self) -> dict[str, StoredKey]:
        """The keys as they are now, also when another process stored them."""
        ...

    def changing(self) -> AbstractContextManager[dict[str, StoredKey]]:
        """The keys, to be changed in place; at the end of the block they are stored. Nobody else changes them within it."""
        ...


class KeyFilePermissionWarning(UserWarning):
    """A file with keys could be read by others."""


class KeyFile:
    """Keys in a JSON file of mode 0600: id → label, service, key, as upstream has it; with a passphrase, keys are encrypted
    (Fernet, the key from scrypt), labels and services are not.

    A reader sees the old content or the new, whatever kills the writer. A file that cannot be understood is never overwritten:
    a copy is kept beside it, and everything fails until somebody mends or removes it.

    Args:
        path: the file; its folder is made, with mode 0700, when something is stored.
        passphrase: encrypts; a plain file is encrypted when it is next written. Needs the extra `keys`.
        keep_out: a folder that diagrams and servers see: nothing is written into it or below. (Not when it holds the user's
            home; then it holds everything of the user, and hidden folders are what servers do not show.)
    """

    name = "key file"

    def __init__(self, path: Path, *, passphrase: SecretStr | None = None, keep_out: Path | None = None) -> None:
        self.path = from_home(path)
        self._passphrase = passphrase if passphrase and passphrase.get_secret_value() else None
        self._keep_out = keep_out
        self._derived: tuple[object, Any] = (None, None)
        """What the cipher was derived from, and the cipher: it takes long."""

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
        """Encrypt the keys with *passphrase* from now on, in place of the one they have. Raises APIKeyError as `changing`."""
        if not passphrase.get_secret_value():
            raise APIKeyError("An empty passphrase protects nothing.", hint="Give one.", path=str(self.path))
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
        """The path to write to and the document, which nobody else changes within the block."""
        self._refuse_seen()
        path = self.path.resolve()  # a link stays a link
        with self._told("written"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _check_owner(path.parent, os.stat(path.parent))
        with _locked(path.with_name(f"{path.name}.lock")):
            document = self._load()
            if "encryption" in document and self._passphrase is None:
                raise passphrase_missing()
            yield path, document

    def _replace(self, path: Path, document: Mapping[str, Any], keys: Mapping[str, StoredKey]) -> None:
        data = self._written(document, keys)
        with self._told("written"):
            for draft in path.parent.glob(f".{path.name}.*.tmp"):  # of a writer that was killed: we have the lock
                draft.unlink()
            write_atomic(path, data, mode=0o600)

    def _load(self) -> dict[str, Any]:
        """The document of the file; empty when there is none."""
        with self._told("read"):
            try:
                file = self.path.open("rb")
            except FileNotFoundError:
                return {}
            with file:
                self._close_to_others(file.fileno())
                data = file.read()
        document = _document(data)
        if document is None:
            raise self._corrupt(data)
        return document

    def _keys(self, document: Mapping[str, Any]) -> dict[str, StoredKey]:
        if "encryption" not in document:
            return {
                name: StoredKey(row["label"], row["service"], SecretStr(row["key"])) for name, row in document.items()
            }
        cipher = self._opened(document, self._passphrase) if self._passphrase else None
        return {
            name: StoredKey(
                row["label"], row["service"], cipher and _decrypted(cipher, self.path, row["key"], name, row["service"])
            )
            for name, row in document["keys"].items()
        }

    def _written(self, document: Mapping[str, Any], keys: Mapping[str, StoredKey]) -> bytes:
        rows = {name: {"label": key.label, "service": key.service} for name, key in keys.items()}
        texts = {name: key.secret.get_secret_value() for name, key in keys.items() if key.secret}
        if self._passphrase is None:
            return _json({name: {**row, "key": texts[name]} for name, row in rows.items()})
        facts: Mapping[str, Any] = document.get("encryption") or {
            "cipher": "fernet", "kdf": "scrypt", **SCRYPT, "salt": base64.b64encode(secrets.token_bytes(16)).decode(),
        }  # fmt: skip
        cipher = self._cipher(facts, self._passphrase)
        # The id and the service are encrypted along: nobody can make one key pass for another.
        sealed = {
            name: {**row, "key": cipher.encrypt(_json([name, row["service"], texts[name]])).decode()}
            for name, row in rows.items()
        }
        return _json({"encryption": {**facts, "check": cipher.encrypt(_CHECK.encode()).decode()}, "keys": sealed})

    def _opened(self, document: Mapping[str, Any], passphrase: SecretStr) -> Any:
        """The cipher of an encrypted document. Raises APIKeyError when the passphrase is another one."""
        facts = document["encryption"]
        cipher = self._cipher(facts, passphrase)
        if _plain(cipher, facts["check"]) != _CHECK.encode():
            raise APIKeyError(
                f"{self.path} cannot be decrypted: the passphrase is another one.",
                hint="Set DIPEO_KEYS_PASSPHRASE to the one that it was encrypted with.",
                path=str(self.path),
            )
        return cipher

    def _cipher(self, facts: Mapping[str, Any], passphrase: SecretStr) -> Any:
        source = (passphrase, facts["salt"], facts["n"], facts["r"], facts["p"])
        if self._derived[0] != source:
            self._derived = (source, _fernet(facts, passphrase))
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
        if os.name == "nt":  # the user's folders are closed to others by their access lists
            return
        _check_owner(self.path, os.fstat(file))
        if not stat.S_IMODE(os.fstat(file).st_mode) & 0o077:
            return
        with contextlib.suppress(OSError):  # looked at below
            os.fchmod(file, 0o600)
        if stat.S_IMODE(os.fstat(file).st_mode) & 0o077:
            raise APIKeyError(
                f"{self.path} holds keys, can be read or changed by others, and cannot be closed to them.",
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
                hint="Make room or correct the permissions of that folder; or choose another with DIPEO_DATA_DIR.",
                path=str(self.path),
            ) from error


class SystemKeyring:
    """Keys in the keyring of the system: Keychain, Credential Manager, Secret Service, KWallet, through `keyring`.

    A keyring cannot be listed, so an entry `index` has the ids. What is not in both places is not there: a process that is
    killed leaves the old keys or the new.

    Args:
        backend: a `keyring.backend.KeyringBackend`.
        lock_file: keeps other processes out while something is changed.
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
            "The system keyring takes no passphrase of ours.", hint="Set DIPEO_KEYS_STORE=file to use one."
        )

    def read(self) -> dict[str, StoredKey]:
        keys: dict[str, StoredKey] = {}
        for name in self._ids():
            row = self._get(name)
            if row is None:  # removed with the system's own tools
                continue
            if not _is_row(row):
                raise _damaged_entry(name)
            keys[name] = StoredKey(row["label"], row["service"], SecretStr(row["key"]))
        return keys

    @contextmanager
    def changing(self) -> Iterator[dict[str, StoredKey]]:
        try:
            self._lock_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unlockable(self._lock_file, error) from error
        with _locked(self._lock_file):
            keys = self.read()
            before = dict(keys)
            yield keys
            if keys.keys() - before.keys():
                self._set(self.index, list(before | keys))  # an id without an entry is no key
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
        value = _parsed(text)
        if value is None:
            raise _damaged_entry(name)
        return value

    def _set(self, name: str, value: Any) -> None:
        with _asked("write to"):
            self._backend.set_password(self.collection, name, json.dumps(value))


def stores(settings: Settings) -> tuple[KeyStore, ...]:
    """The stores that *settings* choose: the first takes new keys, all are looked into.

    Raises:
        APIKeyError: DIPEO_KEYS_STORE=keyring, and there is none; or `keyring` is set up for one that cannot be used.
        MissingDependencyError: DIPEO_KEYS_STORE=keyring without the extra `keys`.
    """
    folder = settings.data_dir.expanduser()
    file = KeyFile(folder / FILE_NAME, passphrase=settings.keys_passphrase, keep_out=settings.base_dir)
    if settings.keys_store == "file":
        return (file,)
    needed = settings.keys_store == "keyring"
    backend = _backend(needed)
    if backend is None:
        return (file,)
    ring = SystemKeyring(backend, folder / "keyring.lock")
    return (ring,) if needed else (ring, file)  # keys that were stored before there was a keyring are not lost


def _backend(needed: bool) -> Any:
    """The system's keyring; None when there is none, or one that keeps nothing or keeps it in the open.

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
    except Exception as error:  # whatever a backend of somebody else's raises
        raise APIKeyError(
            f"The system keyring that is set up cannot be used: {type(error).__name__}: {error}.",
            hint="Correct PYTHON_KEYRING_BACKEND or keyringrc.cfg, or set DIPEO_KEYS_STORE=file.",
        ) from error
    if real:
        return backend
    if needed:
        raise APIKeyError(
            "This system has no keyring that can be used.",
            hint="Set DIPEO_KEYS_STORE=file, best with DIPEO_KEYS_PASSPHRASE.",
        )
    return None


@contextmanager
def _asked(what: str) -> Iterator[None]:
    """Errors of the keyring as ours. Backends raise errors of their own libraries, too."""
    try:
        yield
    except Exception as error:
        raise APIKeyError(
            f"Could not {what} the system keyring: {type(error).__name__}: {error}.",
            hint="Unlock it with the tools of the system, or set DIPEO_KEYS_STORE=file.",
        ) from error


def _check_owner(path: Path, facts: os.stat_result) -> None:
    """Keys that somebody else has put there would send the user's words to an account of theirs."""
    if os.name != "nt" and facts.st_uid != os.geteuid():
        raise APIKeyError(
            f"{path} belongs to another user.", hint="Move it away, or choose another folder with DIPEO_DATA_DIR.", path=str(path)
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
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


def _unlockable(path: Path, error: OSError) -> APIKeyError:
    return APIKeyError(
        f"{path} cannot be locked: {error.strerror or error}.",
        hint="Correct the permissions of that folder; or choose another with DIPEO_DATA_DIR.",
        path=str(path),
    )


def passphrase_missing() -> APIKeyError:
    """The error of what needs the passphrase."""
    return APIKeyError(
        "The stored keys are encrypted, and there is no passphrase.",
        hint="Set DIPEO_KEYS_PASSPHRASE; in a notebook, `%dipeo keys unlock` asks for it.",
    )


def _damaged_entry(name: str) -> APIKeyError:
    return APIKeyError(
        f"The entry '{name}' of '{SystemKeyring.collection}' in the system keyring is damaged. It was left as it is.",
        hint="Repair or remove it with the tools of the system.",
    )


# What is in a file. No error here may carry the text along: a JSONDecodeError has it whole.


def _parsed(data: bytes | str) -> Any:
    """The JSON value; None when it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _document(data: bytes) -> dict[str, Any] | None:
    """The content of a file of keys; None when it is something else."""
    document = _parsed(data)
    if not isinstance(document, dict):
        return None
    rows: Any = document
    if "encryption" in document:
        rows = document.get("keys")
        if not _is_encryption(document["encryption"]) or not isinstance(rows, dict):
            return None
    return document if all(map(_is_row, rows.values())) else None


def _is_row(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("label", "service", "key"))


def _is_encryption(facts: Any) -> bool:
    return (
        isinstance(facts, dict)
        and (facts.get("cipher"), facts.get("kdf")) == ("fernet", "scrypt")
        and all(type(facts.get(name)) is int for name in SCRYPT)
        and 2 <= facts["n"] <= MOST_EXPENSIVE
        and facts["n"] & (facts["n"] - 1) == 0
        and 1 <= facts["r"] <= 16
        and 1 <= facts["p"] <= 16
        and all(isinstance(facts.get(name), str) for name in ("salt", "check"))
        and _is_base64(facts["salt"])
    )


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except ValueError:
        return False


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


# Encryption.


def _fernet(facts: Mapping[str, Any], passphrase: SecretStr) -> Any:
    try:
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ModuleNotFoundError as error:
        raise MissingDependencyError.for_extra("cryptography", extra="keys") from error
    kdf = Scrypt(base64.b64decode(facts["salt"]), length=32, n=facts["n"], r=facts["r"], p=facts["p"])
    return Fernet(
        base64.urlsafe_b64encode(kdf.derive(passphrase.get_secret_value().encode("utf-8", "surrogateescape")))
    )


def _plain(cipher: Any, token: str) -> bytes | None:
    """What was encrypted; None when it was not by this cipher, or was changed since."""
    from cryptography.fernet import InvalidToken

    try:
        return cipher.decrypt(token.encode())
    except InvalidToken:
        return None


def _decrypted(cipher: Any, path: Path, token: str, name: str, service: str) -> SecretStr:
    sealed = _parsed(_plain(cipher, token) or b"")
    if not isinstance(sealed, list) or sealed[:2] != [name, service] or len(sealed) != 3:
        raise APIKeyError(
            f"The key '{name}' in {path} was changed by somebody else: it does not belong to its id and service.",
            hint="Remove it from the file and store the key again.",
            path=str(path),
        )
    return SecretStr(sealed[2])
