"""Content of a key file. Errors raised here must not contain the text: a JSONDecodeError holds all of it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.errors import APIKeyError, MissingDependencyError

if TYPE_CHECKING:
    import pydantic
    from pydantic import SecretStr
else:
    pydantic = lazy.module("pydantic")

SCRYPT = {"n": 2**17, "r": 8, "p": 1}
"""Costs of deriving a key from a passphrase, as recommended by OWASP (Password Storage Cheat Sheet): 128 MB, under a second."""
MOST_EXPENSIVE = 2**20
"""Maximum `n` of a file: 1 GB. A file with more was not written by this package."""


def parsed(data: bytes | str) -> Any:
    """Return the JSON value, or None when the text is invalid."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def document_of(data: bytes) -> dict[str, Any] | None:
    """Return the content of a key file, or None when it is something else."""
    document = parsed(data)
    if not isinstance(document, dict):
        return None
    rows: Any = document
    if "encryption" in document:
        rows = document.get("keys")
        if not _is_encryption(document["encryption"]) or not isinstance(rows, dict):
            return None
    return document if all(map(is_row, rows.values())) else None


def is_row(value: Any) -> bool:
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


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


def fernet(facts: Mapping[str, Any], passphrase: SecretStr) -> Any:
    try:
        from cryptography.fernet import Fernet
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
    except ModuleNotFoundError as error:
        raise MissingDependencyError.for_extra("cryptography", extra="keys") from error
    kdf = Scrypt(base64.b64decode(facts["salt"]), length=32, n=facts["n"], r=facts["r"], p=facts["p"])
    return Fernet(base64.urlsafe_b64encode(kdf.derive(passphrase.get_secret_value().encode("utf-8", "surrogateescape"))))


def plain(cipher: Any, token: str) -> bytes | None:
    """Decrypt a token; None when it was encrypted by another cipher, or changed since."""
    from cryptography.fernet import InvalidToken

    try:
        return cipher.decrypt(token.encode())
    except InvalidToken:
        return None


def decrypted(cipher: Any, path: Path, token: str, name: str, service: str) -> SecretStr:
    sealed = parsed(plain(cipher, token) or b"")
    if not isinstance(sealed, list) or sealed[:2] != [name, service] or len(sealed) != 3:
        raise APIKeyError(
            f"The key '{name}' in {path} was changed from outside: it does not belong to its id and service.",
            hint="Remove it from the file and store the key again.",
            path=str(path),
        )
    return pydantic.SecretStr(sealed[2])
