"""Stores of API keys: the system's keyring, or a file that only its owner can read; both implement `KeyStore`."""

from dipeo_nb.security.keystore.file import KeyFile, KeyFilePermissionWarning
from dipeo_nb.security.keystore.keyring import SystemKeyring
from dipeo_nb.security.keystore.store import KeyStore, StoredKey, passphrase_missing
from dipeo_nb.security.keystore.stores import stores

__all__ = [
    "KeyFile",
    "KeyFilePermissionWarning",
    "KeyStore",
    "StoredKey",
    "SystemKeyring",
    "passphrase_missing",
    "stores",
]
