"""What every source of API keys promises (`domain.ports.APIKeyPort`)."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import Settings
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.errors import APIKeyError, APIKeyNotFoundError
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from dipeo_nb.security.memory import InMemoryAPIKeyService

CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture(params=["memory", "environment"])
def keys(request: pytest.FixtureRequest) -> APIKeyPort:
    if request.param == "memory":
        return InMemoryAPIKeyService({"openai": CANARY})
    return EnvironmentAPIKeyService(Settings(openai_api_key=SecretStr(CANARY)))


def test_it_is_the_port(keys: APIKeyPort):
    """Every method of the port is there."""
    assert isinstance(keys, APIKeyPort)


@pytest.mark.parametrize("name", ["openai", "OpenAI", "gpt", "chatgpt"])
def test_a_key_is_found_by_service_and_alias(keys: APIKeyPort, name: str):
    """Services are found in any case and by alias; the key comes wrapped."""
    secret = run_sync(keys.get_api_key(name))
    assert secret.get_secret_value() == CANARY
    assert CANARY not in repr(secret) + str(secret)


def test_a_missing_key_says_what_to_do(keys: APIKeyPort):
    """The error names the variable and the way without a key."""
    with pytest.raises(APIKeyNotFoundError) as error:
        run_sync(keys.get_api_key("anthropic"))
    assert "ANTHROPIC_API_KEY" in str(error.value)
    assert "--model local" in str(error.value)
    with pytest.raises(APIKeyNotFoundError):
        run_sync(keys.get_api_key("APIKEY_52609F"))


def test_lists_show_no_secret(keys: APIKeyPort):
    """A list shows the last four characters at most."""
    rows = run_sync(keys.list_api_keys())
    assert [row["service"] for row in rows] == ["openai"]
    assert CANARY not in repr(rows)
    assert rows[0]["key"].endswith("cdef")


def test_writing(keys: APIKeyPort):
    """A store that can be written takes and forgets keys; the environment refuses and names the variable."""
    if isinstance(keys, EnvironmentAPIKeyService):
        with pytest.raises(APIKeyError, match="OPENAI_API_KEY"):
            run_sync(keys.set_api_key("openai", "x"))
        with pytest.raises(APIKeyError):
            run_sync(keys.delete_api_key("openai"))
        return
    run_sync(keys.set_api_key("APIKEY_1", "secret-value-1234"))
    assert run_sync(keys.get_api_key("APIKEY_1")).get_secret_value() == "secret-value-1234"
    run_sync(keys.delete_api_key("APIKEY_1"))
    with pytest.raises(APIKeyNotFoundError):
        run_sync(keys.delete_api_key("APIKEY_1"))


def test_settings_show_no_secret():
    """Printing the settings prints no key."""
    settings = Settings(openai_api_key=SecretStr(CANARY))
    assert CANARY not in repr(settings) + str(settings) + settings.model_dump_json()
