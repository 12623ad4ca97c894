"""Stored API keys, and the chain of sources of keys: the environment first, then stored keys."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dipeo_nb.common import lazy
from dipeo_nb.common.redaction import redactor
from dipeo_nb.config import Settings, get_settings
from dipeo_nb.domain.llm_providers import is_service
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.errors import APIKeyError, APIKeyNotFoundError, ValidationError
from dipeo_nb.security.environment import (
    EnvironmentAPIKeyService,
    is_of_folder,
    masked,
    not_found,
    service_of,
    variables_of_services,
)
from dipeo_nb.security.keystore import KeyFile, KeyStore, StoredKey, passphrase_missing, stores

if TYPE_CHECKING:
    import pydantic
    from pydantic import SecretStr
else:
    pydantic = lazy.module("pydantic")

__all__ = ["APIKeyChain", "APIKeyService", "EnvironmentAPIKeyService", "checked_name", "overview"]

LONGEST = 8192
"""Maximum characters of a key."""
_ID = re.compile(r"APIKEY_[A-Z0-9_]{1,32}\Z")
_SERVICE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}\Z")


class APIKeyService:
    """Stored keys: created, found, listed (masked), changed and deleted. Usable right after construction.

    They are stored in the system's keyring if there is one, else in a file of mode 0600, encrypted if there is a passphrase
    (`security.keystore`). Every call reads the store again, to see changes of other processes. Work is done in threads.

    A key is found by its id (`APIKEY_52609F`) or by its service, an alias or model of it; of several keys of a service, by
    the first that was stored.

    Args:
        file_path: file to store them in. Default: by the settings (DIPEO_KEYS_STORE, DIPEO_DATA_DIR).
        stores: stores to use: new keys go to the first, all are searched.
        settings: default: those of the process.

    All methods raise APIKeyError when a store cannot be read or written, is damaged, or lacks its passphrase.
    """

    def __init__(
        self,
        file_path: str | os.PathLike[str] | None = None,
        *,
        stores: Sequence[KeyStore] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._settings = settings or get_settings()
        self._chosen: Sequence[KeyStore] = stores or ()
        if file_path is not None:
            settings = self._settings
            self._chosen = (KeyFile(Path(file_path), passphrase=settings.keys_passphrase, keep_out=settings.base_dir),)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{': ' if self._chosen else ''}{', '.join(map(repr, self._chosen))}>"

    async def initialize(self) -> None:
        """Check that the keys can be read. Optional; it reports problems early."""
        await asyncio.to_thread(self._rows)

    async def create_api_key(self, label: str, service: str, key: str | SecretStr) -> dict[str, Any]:
        """Store another key; return its row, with the new id.

        Raises:
            ValidationError: label, service or key is invalid.
        """
        stored = StoredKey(_label(label), _service(service), _secret(key))
        return await asyncio.to_thread(self._add, stored)

    async def get_api_key(self, key_id: str) -> SecretStr:
        """Return the key with that id, or of that service.

        Raises:
            APIKeyNotFoundError: there is none; the hint names the variable, the command that stores one, and the alternative without a key.
        """
        _, _, found = await asyncio.to_thread(self._find, key_id)
        if found.secret is None:
            raise passphrase_missing()
        redactor.add(found.secret.get_secret_value())
        return found.secret

    async def list_api_keys(self) -> list[dict[str, Any]]:
        """Return id, label, service, masked key (`locked` when it is encrypted and there is no passphrase) and source of each."""
        return await asyncio.to_thread(self._rows)

    async def update_api_key(
        self,
        key_id: str,
        label: str | None = None,
        service: str | None = None,
        key: str | SecretStr | None = None,
    ) -> dict[str, Any]:
        """Change the given fields; return the row.

        Raises:
            APIKeyNotFoundError: there is no such key.
            ValidationError: label, service or key is invalid.
        """
        given = (
            None if label is None else _label(label),
            None if service is None else _service(service),
            None if key is None else _secret(key),
        )
        return await asyncio.to_thread(self._change, key_id, *given)

    async def set_api_key(self, key_id: str, key: str | SecretStr, *, service: str | None = None) -> None:
        """Store *key* in place of the one with that id or of that service, or as a new one.

        Args:
            key_id: a service (the key gets an id), or an id, such as in a diagram.
            service: service of a key given by id.

        Raises:
            ValidationError: id, service or key is invalid.
        """
        name, secret = checked_name(key_id), _secret(key)
        of = name if service is None and not _ID.match(name) else service
        await asyncio.to_thread(self._put, name, None if of is None else _service(of), secret)

    async def delete_api_key(self, key_id: str) -> None:
        """Delete the key with that id, or the one of that service.

        Raises:
            APIKeyNotFoundError: there is none.
            APIKeyError: the service has several; the hint names their ids. Also as above.
        """
        await asyncio.to_thread(self._delete, key_id)

    @property
    def locked(self) -> bool:
        """Whether keys are encrypted and the passphrase is missing."""
        return any(store.locked for store in self._stores)

    def unlock(self, passphrase: str | SecretStr) -> None:
        """Use a passphrase for encrypted keys, in this object. Raises APIKeyError when it is wrong."""
        secret = _known(passphrase)
        for store in self._stores:
            if store.locked:
                store.unlock(secret)

    async def protect(self, passphrase: str | SecretStr) -> None:
        """Encrypt the key file with a passphrase from now on, replacing the present one.

        Raises:
            APIKeyError: keys go to the system's keyring; the old passphrase is missing; also as above.
            MissingDependencyError: without the extra `keys`.
        """
        file = self._stores[0]
        if not isinstance(file, KeyFile):
            raise APIKeyError(
                f"Keys are stored in the {file.name}, which does not use a passphrase of dipeo-nb.",
                hint="Set DIPEO_KEYS_STORE=file to keep them in a file.",
            )
        await asyncio.to_thread(file.protect, _known(passphrase))

    # In threads.

    @property
    def _stores(self) -> Sequence[KeyStore]:
        if not self._chosen:
            self._chosen = stores(self._settings)
        return self._chosen

    def _rows(self) -> list[dict[str, Any]]:
        return [_row(store, name, key) for store in self._stores for name, key in store.read().items()]

    def _find(self, key_id: str) -> tuple[KeyStore, str, StoredKey]:
        for store in self._stores:
            keys = store.read()
            if (name := _named(keys, key_id)) is not None:
                return store, name, keys[name]
        raise not_found(key_id)

    def _add(self, key: StoredKey) -> dict[str, Any]:
        store = self._stores[0]
        with store.changing() as keys:
            name = _new_id(keys)
            keys[name] = key
        return _row(store, name, key)

    def _put(self, name: str, service: str | None, secret: SecretStr) -> None:
        store = next((s for s in self._stores if _named(s.read(), name) is not None), self._stores[0])
        with store.changing() as keys:
            there = _named(keys, name)
            if there is None:
                keys[name if _ID.match(name) else _new_id(keys)] = StoredKey(name, service or "", secret)
            else:
                keys[there] = replace(keys[there], service=service or keys[there].service, secret=secret)

    def _change(self, key_id: str, label: str | None, service: str | None, secret: SecretStr | None) -> dict[str, Any]:
        store, name, _ = self._find(key_id)
        with store.changing() as keys:
            if name not in keys:  # deleted in between
                raise not_found(key_id)
            given = {"label": label, "service": service, "secret": secret}
            keys[name] = new = replace(keys[name], **{field: value for field, value in given.items() if value is not None})
        return _row(store, name, new)

    def _delete(self, key_id: str) -> None:
        store, name, _ = self._find(key_id)
        with store.changing() as keys:
            if name not in keys:
                raise not_found(key_id)
            others = [n for n, key in keys.items() if key.service == keys[name].service]
            if key_id.strip().upper() != name and len(others) > 1:
                raise APIKeyError(
                    f"There are {len(others)} keys of '{keys[name].service}'.",
                    hint=f"Choose one: {', '.join(others)}.",
                    key_id=key_id,
                )
            del keys[name]


class APIKeyChain:
    """`APIKeyPort` over several sources: a key comes from the first that has it; changes go to the last that accepts keys."""

    def __init__(self, *sources: APIKeyPort) -> None:
        if not sources:
            raise TypeError("APIKeyChain needs at least one source of keys")
        self.sources = sources
        self._kept = next((s for s in reversed(sources) if not getattr(s, "read_only", False)), sources[-1])

    def __repr__(self) -> str:
        return f"APIKeyChain({', '.join(map(repr, self.sources))})"

    @classmethod
    def of(cls, settings: Settings) -> APIKeyChain:
        """Return the chain of the environment, stored keys, and keys that came with the folder; the `.env` of a trusted folder
        takes precedence over stored keys."""
        return cls(
            EnvironmentAPIKeyService(settings, part="before stored"),
            APIKeyService(settings=settings),
            EnvironmentAPIKeyService(settings, part="after stored"),
        )

    async def get_api_key(self, key_id: str) -> SecretStr:
        for source in self.sources[:-1]:
            try:
                return await source.get_api_key(key_id)
            except APIKeyNotFoundError:
                continue
        return await self.sources[-1].get_api_key(key_id)

    async def set_api_key(self, key_id: str, key: str) -> None:
        await self._kept.set_api_key(key_id, key)

    async def delete_api_key(self, key_id: str) -> None:
        """Delete a key. Raises APIKeyError when another source has it, and the one that accepts keys has not."""
        try:
            await self._kept.delete_api_key(key_id)
        except APIKeyNotFoundError:
            for source in self.sources:
                if source is self._kept:
                    continue
                try:
                    await source.get_api_key(key_id)
                except APIKeyNotFoundError:
                    continue
                await source.delete_api_key(key_id)
                return
            raise

    async def list_api_keys(self) -> list[dict[str, Any]]:
        return [row for source in self.sources for row in await source.list_api_keys()]

    @property
    def locked(self) -> bool:
        """Whether a source needs its passphrase."""
        return any(getattr(source, "locked", False) for source in self.sources)

    def unlock(self, passphrase: str | SecretStr) -> None:
        """Pass the passphrase to the sources that need it. Raises APIKeyError when it is wrong."""
        for source in self.sources:
            if isinstance(source, (APIKeyService, APIKeyChain)) and source.locked:
                source.unlock(passphrase)


def checked_name(key_id: str) -> str:
    """Return *key_id* as used by stores: an id in capitals, else the service that it refers to.

    Raises:
        ValidationError: it is neither; for example the key itself, so the message does not repeat it.
    """
    name = key_id.strip().upper()
    return name if _ID.match(name) else _service(key_id)


async def overview(keys: APIKeyPort) -> list[dict[str, str]]:
    """Return a table of all keys, masked, and of model services without keys; by service.

    `from` is the source of a key; of several keys of a service, the first one is used.
    """
    variables = variables_of_services()
    rows: list[dict[str, str]] = []
    for row in await keys.list_api_keys():
        service, source = str(row["service"]), str(row.get("source", ""))
        variable = row["label"] if source == "environment" else variables.get(service, ("",))[0]
        shown = {
            "service": service,
            "variable": str(variable),
            "key": str(row["key"]),
            "from": source,
            "id": str(row["id"]),
        }
        rows.append(shown)
    there = {row["service"] for row in rows}
    for service, names in variables.items():
        if is_service(service) and service not in there:
            rows.append({"service": service, "variable": names[0], "key": "not set", "from": "", "id": ""})
    return sorted(rows, key=lambda row: row["service"])


def _named(keys: Mapping[str, StoredKey], key_id: str) -> str | None:
    """Return the id that *key_id* refers to: an id, or the first of its service."""
    if (name := key_id.strip().upper()) in keys:
        return name
    if is_of_folder(key_id):
        return None
    service = service_of(key_id)
    return next((name for name, key in keys.items() if key.service == service), None)


def _new_id(taken: Container[str]) -> str:
    while (name := f"APIKEY_{secrets.token_hex(3).upper()}") in taken:
        pass
    return name


def _row(store: KeyStore, name: str, key: StoredKey) -> dict[str, Any]:
    shown = "locked" if key.secret is None else masked(key.secret)
    return {"id": name, "label": key.label, "service": key.service, "key": shown, "source": store.name}


def _secret(key: str | SecretStr) -> SecretStr:
    given: object = key.get_secret_value() if isinstance(key, pydantic.SecretStr) else key
    text = given.strip() if isinstance(given, str) else ""  # None, for example, from an environment variable that is not set
    if not text or len(text) > LONGEST or not text.isprintable() or " " in text:
        raise ValidationError(
            "That is not an API key: it is empty, longer than "
            f"{LONGEST} characters, or has spaces, line breaks or control characters in it.",
            hint="Copy it again, alone.",
        )
    redactor.add(text)
    return pydantic.SecretStr(text)


def _service(name: str) -> str:
    service = service_of(name)
    if redactor(name) != name or not _SERVICE.match(service):
        # Not repeated: it may be the key itself.
        raise ValidationError(
            "That is not a service name: lower-case letters, digits, dots and dashes.",
            hint="Name one, such as openai; the key itself is asked for.",
        )
    return service


def _known(passphrase: str | SecretStr) -> SecretStr:
    secret = passphrase if isinstance(passphrase, pydantic.SecretStr) else pydantic.SecretStr(passphrase)
    redactor.add(secret.get_secret_value())
    return secret


def _label(text: str) -> str:
    if not text.strip() or len(text) > 100 or not text.isprintable() or redactor(text) != text:
        raise ValidationError(
            "That is not a label: it is empty, longer than 100 characters, has control characters or a key in it.",
            hint="Use a few words, such as: Team account.",
        )
    return text.strip()
