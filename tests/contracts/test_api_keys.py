"""The contract of sources of keys (`dipeo_nb.testing.contracts.api_keys`) on every one we have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from dipeo_nb.config import Settings
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from dipeo_nb.security.in_memory import InMemoryAPIKeyService
from dipeo_nb.security.keys import APIKeyChain, APIKeyService
from dipeo_nb.security.keystore import KeyFile, KeyStore, StoredKey, SystemKeyring
from dipeo_nb.testing.contracts import APIKeyContract
from dipeo_nb.testing.contracts.api_keys import CANARY
from tests.support.keyring_backend import DictKeyring

NAMED = Settings(openai_api_key=SecretStr(CANARY))


class TestSources(APIKeyContract):
    @pytest.fixture(autouse=True, params=["memory", "environment", "environment then memory"])
    def source(self, request: pytest.FixtureRequest) -> None:
        if request.param == "memory":
            self.make = lambda: InMemoryAPIKeyService({"openai": CANARY})
        elif request.param == "environment":
            self.writable = False
            self.make = lambda: EnvironmentAPIKeyService(NAMED)
        else:
            self.make = lambda: APIKeyChain(EnvironmentAPIKeyService(NAMED), InMemoryAPIKeyService())


class TestStored(APIKeyContract):
    @pytest.fixture(autouse=True, params=["file", "encrypted file", "keyring", "environment then file"])
    def source(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        ring = DictKeyring()

        def store() -> KeyStore:
            if request.param == "keyring":
                return SystemKeyring(ring, tmp_path / "keyring.lock")
            passphrase = SecretStr("correct horse") if request.param == "encrypted file" else None
            return KeyFile(tmp_path / "keys" / "apikeys.json", passphrase=passphrase)

        def reopened(made: Any = None) -> APIKeyPort:
            stored = APIKeyService(stores=[store()])
            return APIKeyChain(EnvironmentAPIKeyService(), stored) if "environment" in request.param else stored

        def make() -> APIKeyPort:
            with store().changing() as keys:
                keys["APIKEY_000001"] = StoredKey("mine", "openai", SecretStr(CANARY))
            return reopened()

        self.make, self.reopen = make, reopened


def test_settings_show_no_secret():
    """Printing the settings prints no key."""
    assert CANARY not in repr(NAMED) + str(NAMED) + NAMED.model_dump_json()
