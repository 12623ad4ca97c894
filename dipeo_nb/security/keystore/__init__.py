"""Where stored keys lie: in the system's keyring, or in a file that only its owner can read; both behind `KeyStore`."""

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
