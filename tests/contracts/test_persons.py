"""The contract of person repositories (`dipeo_nb.testing.contracts.conversations`) on every one we have; what is ours below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dipeo_nb import config
from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.diagram import DomainPerson
from dipeo_nb.domain.ports import PersonRepository
from dipeo_nb.storage.conversation import (
    InMemoryPersonRepository,
    SqliteConversationRepository,
    SqlitePersonRepository,
)
from dipeo_nb.testing.contracts import PersonRepositoryContract
from dipeo_nb.testing.contracts.conversations import FULL


class TestPersonRepositories(PersonRepositoryContract):
    @pytest.fixture(autouse=True, params=["memory", "sqlite"])
    def adapter(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        if request.param == "memory":
            self.make = InMemoryPersonRepository
            return
        self.make = lambda: SqlitePersonRepository(tmp_path / "persons.db")

        def reopen(made: Any) -> PersonRepository:
            return SqlitePersonRepository(tmp_path / "persons.db")

        self.reopen = reopen


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_default_model_is_that_of_the_settings(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A person without a configuration gets the service and model of DIPEO_DEFAULT_LLM_MODEL."""
    monkeypatch.setenv("DIPEO_DEFAULT_LLM_MODEL", "claude-haiku-9")
    config.reset_settings()
    repository = InMemoryPersonRepository() if kind == "memory" else SqlitePersonRepository(tmp_path / "persons.db")
    person = run_sync(repository.create("p", "Ann"))
    run_sync(repository.cleanup())
    assert (person.llm.service, person.llm.model, person.llm.api_key_id) == ("anthropic", "claude-haiku-9", None)


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
