"""Selection of key stores by the settings."""

from __future__ import annotations

from dipeo_nb.config import Settings
from dipeo_nb.security.keystore.file import KeyFile
from dipeo_nb.security.keystore.keyring import SystemKeyring, backend_of
from dipeo_nb.security.keystore.store import KeyStore

FILE_NAME = "apikeys.json"


def stores(settings: Settings) -> tuple[KeyStore, ...]:
    """Return the stores selected by *settings*: new keys go to the first, all are searched.

    Raises:
        APIKeyError: DIPEO_KEYS_STORE=keyring, and there is none; or the configured keyring cannot be used.
        MissingDependencyError: DIPEO_KEYS_STORE=keyring without the extra `keys`.
    """
    folder = settings.data_dir.expanduser()
    file = KeyFile(folder / FILE_NAME, passphrase=settings.keys_passphrase, keep_out=settings.base_dir)
    if settings.keys_store == "file":
        return (file,)
    needed = settings.keys_store == "keyring"
    backend = backend_of(needed)
    if backend is None:
        return (file,)
    ring = SystemKeyring(backend, folder / "keyring.lock")
    return (ring,) if needed else (ring, file)  # keep keys that were stored before there was a keyring
