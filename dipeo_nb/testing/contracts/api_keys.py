"""What every source of API keys promises."""

from __future__ import annotations

from typing import Any, ClassVar

from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.ports import APIKeyPort
from dipeo_nb.errors import APIKeyError, APIKeyNotFoundError
from dipeo_nb.testing.contracts.promises import Contract, promise, refusal, same, that

CANARY = "sk-canary-0123456789abcdef"


class APIKeyContract(Contract):
    """The promises of `APIKeyPort`. The source that `make` gives holds one key: that of openai, CANARY."""

    port: ClassVar[type] = APIKeyPort
    writable: bool = True
    """Whether keys can be set and deleted; where they cannot, that is an error with what to do."""

    @promise(cases={name: name for name in ("openai", "OpenAI", "gpt", "chatgpt")})
    async def test_a_key_is_found_by_service_and_alias(self, keys: APIKeyPort, name: str) -> None:
        """Services are found in any case and by alias; the key comes wrapped, and is known to the redactor."""
        secret = await keys.get_api_key(name)
        that(hasattr(secret, "get_secret_value"), f"get_api_key({name!r}) gives a {type(secret).__name__}, no SecretStr")
        that(secret.get_secret_value() == CANARY, f"get_api_key({name!r}) gives another key")
        that(CANARY not in repr(secret) + str(secret), "repr or str of what get_api_key() gives shows the key")
        that(CANARY not in redactor(f"key {CANARY}"), "a key is handed out that `common.scrub.redactor` does not know")

    @promise
    async def test_a_missing_key_says_what_to_do(self, keys: APIKeyPort) -> None:
        """The error names the variable and the way without a key."""
        with refusal("asking for a key that is not there", APIKeyNotFoundError, says="ANTHROPIC_API_KEY") as caught:
            await keys.get_api_key("anthropic")
        that("--model local" in str(caught[0]), "the error does not name the way without a key: --model local")
        with refusal("asking for an unknown key", APIKeyNotFoundError):
            await keys.get_api_key("APIKEY_52609F")

    @promise
    async def test_lists_show_no_secret(self, keys: APIKeyPort) -> None:
        """A list has id, label, service and the last four characters at most."""
        rows: list[dict[str, Any]] = await keys.list_api_keys()
        same([row["service"] for row in rows], ["openai"], "the services of the list")
        that({"id", "label", "service", "key"} <= set(rows[0]), f"a row of the list has only {', '.join(rows[0])}")
        that(not [n for n in range(len(CANARY) - 4) if CANARY[n : n + 5] in rows[0]["key"]], "the list shows the key")
        that(CANARY not in repr(rows), "the list shows the key")
        that(CANARY not in repr(keys), "repr of the source shows the key")

    @promise
    async def test_writing(self, keys: APIKeyPort) -> None:
        """A source that can be written takes and forgets keys; one that cannot refuses and says what to do."""
        if not self.writable:
            with refusal("setting a key", APIKeyError):
                await keys.set_api_key("openai", "x")
            with refusal("deleting a key", APIKeyError):
                await keys.delete_api_key("openai")
            return
        await keys.set_api_key("anthropic", "secret-value-1234")
        found = (await keys.get_api_key("anthropic")).get_secret_value()
        that(found == "secret-value-1234", "a key that was set is not what is found")
        await keys.delete_api_key("anthropic")
        with refusal("asking for a deleted key", APIKeyNotFoundError):
            await keys.get_api_key("anthropic")
        with refusal("deleting a key that is not there", APIKeyNotFoundError):
            await keys.delete_api_key("anthropic")

    @promise
    async def test_keys_outlive_the_object(self, keys: APIKeyPort) -> None:
        """A source that is opened again has the key."""
        async with self.opened(lambda: self.reopen(keys)) as again:
            that((await again.get_api_key("openai")).get_secret_value() == CANARY, "the key is another after a restart")
