"""What every person repository promises (`domain.ports.PersonRepository`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb import config
from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.domain.ports import PersonRepository
from dipeo_nb.errors import StorageError
from dipeo_nb.storage.conversation import (
    InMemoryPersonRepository,
    SqliteConversationRepository,
    SqlitePersonRepository,
)

REPOSITORIES: dict[str, Callable[[Path], PersonRepository]] = {
    "memory": lambda folder: InMemoryPersonRepository(),
    "sqlite": lambda folder: SqlitePersonRepository(folder / "persons.db"),
}
FULL = LLMConfig("anthropic", "claude-x", "key", "Be brief.", "prompt.txt", 0.5, 100, "http://x", {"top_k": [1]})


@pytest.fixture(params=REPOSITORIES)
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PersonRepository]:
    made = REPOSITORIES[request.param](tmp_path)
    run_sync(made.initialize())
    yield made
    run_sync(made.cleanup())
    run_sync(made.cleanup())


def test_it_is_the_port(repository: PersonRepository):
    """Every method of the port is there."""
    assert isinstance(repository, PersonRepository)


def test_a_person_is_kept_whole(repository: PersonRepository):
    """What is saved is read back with every field; saving again replaces it, in its place."""

    async def go() -> None:
        await repository.save(DomainPerson("p1", "Änn", FULL))
        await repository.save(DomainPerson("p2", "Bob"))
        assert await repository.get("p1") == DomainPerson("p1", "Änn", FULL)
        await repository.save(DomainPerson("p1", "Ann"))
        assert await repository.get_all() == {"p1": DomainPerson("p1", "Ann"), "p2": DomainPerson("p2", "Bob")}
        assert list(await repository.get_all()) == ["p1", "p2"]
        assert await repository.exists("p1")
        await repository.delete("p1")
        await repository.delete("p1")
        assert not await repository.exists("p1")
        await repository.clear()
        assert await repository.get_all() == {}

    run_sync(go())


def test_a_missing_person_is_a_key_error(repository: PersonRepository):
    """As of a mapping."""
    with pytest.raises(KeyError, match="nobody"):
        run_sync(repository.get("nobody"))


def test_creating(repository: PersonRepository):
    """`create` makes once, `get_or_create` at most once, `register_person` in any case."""

    async def go() -> None:
        assert await repository.create("p", "Ann", FULL) == DomainPerson("p", "Ann", FULL)
        assert await repository.get_or_create("p", "Other") == DomainPerson("p", "Ann", FULL)
        assert await repository.get_or_create("q", "Quin", FULL) == DomainPerson("q", "Quin", FULL)
        assert await repository.register_person("p", LLMConfig("local")) == DomainPerson("p", "p", LLMConfig("local"))
        await repository.create("p", "Again")

    with pytest.raises(StorageError) as error:
        run_sync(go())
    assert error.value.facts["cause"] == "exists"
    assert error.value.hint


def test_the_default_model_is_that_of_the_settings(repository: PersonRepository, monkeypatch: pytest.MonkeyPatch):
    """A person without a configuration gets the service and model of DIPEO_DEFAULT_LLM_MODEL."""
    monkeypatch.setenv("DIPEO_DEFAULT_LLM_MODEL", "claude-haiku-9")
    config.reset_settings()
    person = run_sync(repository.create("p", "Ann"))
    assert (person.llm.service, person.llm.model, person.llm.api_key_id) == ("anthropic", "claude-haiku-9", None)


def test_persons_of_a_service(repository: PersonRepository):
    """By any spelling of the service."""

    async def go() -> None:
        for person_id, service in (("a", "anthropic"), ("b", "openai"), ("c", "claude")):
            await repository.create(person_id, person_id, LLMConfig(service))
        assert [p.id for p in await repository.get_by_service("Claude")] == ["a", "c"]
        assert [p.id for p in await repository.get_by_service("ollama")] == []

    run_sync(go())


def test_what_is_given_out_is_a_copy(repository: PersonRepository):
    """Changing what came in or went out changes nothing that is kept."""

    async def go() -> None:
        extra: dict[str, Any] = {"stop": ["x"]}
        await repository.save(DomainPerson("p", "Ann", LLMConfig(extra=extra)))
        extra["stop"].append("y")
        got: Any = (await repository.get("p")).llm.extra
        got["stop"].append("z")
        assert (await repository.get("p")).llm.extra == {"stop": ["x"]}

    run_sync(go())


def test_what_is_no_json_is_refused(repository: PersonRepository):
    """Extra keys that could not be read back are an error."""
    with pytest.raises(StorageError) as error:
        run_sync(repository.save(DomainPerson("p", "Ann", LLMConfig(extra={"x": object()}))))
    assert error.value.facts["cause"] == "not_json"


def test_one_file_for_persons_and_conversations(tmp_path: Path):
    """Both repositories may share a file, and what was kept is there when it is opened again."""

    async def go() -> None:
        persons, talk = SqlitePersonRepository(tmp_path / "x.db"), SqliteConversationRepository(tmp_path / "x.db")
        await talk.initialize()
        await persons.create("p", "Ann", FULL)
        await persons.cleanup()
        assert await talk.get_messages() == []
        await talk.cleanup()
        again = SqlitePersonRepository(tmp_path / "x.db")
        assert await again.get("p") == DomainPerson("p", "Ann", FULL)
        await again.cleanup()

    run_sync(go())
