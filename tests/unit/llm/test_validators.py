"""Validators of the user's: one that says "it does not fit" asks the model once more, one that fails is the user's error."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, field_serializer

from dipeo_nb.common.values import error_text
from dipeo_nb.config import reset_settings
from dipeo_nb.domain.chat import Budget, ChatMessage, LLMRequest, LLMResponse
from dipeo_nb.errors import (
    CodeError,
    LLMError,
    ProviderError,
    RateLimitError,
    RecordingError,
    StructureError,
    ValidatorCodeError,
)
from dipeo_nb.errors import ValidationError as InvalidInput
from dipeo_nb.llm.batch import BatchItem, BatchJob, collect
from dipeo_nb.llm.service import LLMService
from dipeo_nb.llm.structured import schema_of, validated
from dipeo_nb.security.keys import EnvironmentAPIKeyService
from tests.support.loopback_providers import WIRES, Wire, settings_for, through_service
from tests.support.wire_openai import ScriptedServer, final, run

ANSWER = '{"name": "Bern"}'


def _nested() -> None:
    class Inner(BaseModel):
        x: int

    Inner(x="no")  # pyright: ignore[reportArgumentType]


FAILURES: tuple[BaseException, ...] = (
    KeyError("population"),
    ZeroDivisionError("division by zero"),
    IndexError("list index out of range"),
    AttributeError("no such attribute"),
    TypeError("unhashable type"),
    RuntimeError("dictionary changed size"),
    RecursionError("maximum recursion depth exceeded"),
    OSError(2, "No such file or directory"),
    ConnectionError("refused"),
    TimeoutError("slow"),
    StopIteration(),
    SystemExit(3),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    RateLimitError("of a call within the validator"),
    LLMError("of a call within the validator", retryable=True),
    StructureError("of a call within the validator", repairable=True),
)
assert len(FAILURES) == 17
"""What a validator raises that fails."""


def city(check: Callable[[str], str]) -> type[BaseModel]:
    class City(BaseModel):
        name: Annotated[str, AfterValidator(check)]

    return City


def raising(error: BaseException) -> Callable[[str], str]:
    def check(value: str) -> str:
        raise copy.copy(error)

    return check


@pytest.mark.parametrize(
    ("wire", "error"),
    [(wire, error) for wire in WIRES for error in (FAILURES if wire is WIRES[0] else FAILURES[:2] + FAILURES[-4:])],
    ids=lambda value: value.service if isinstance(value, Wire) else type(value).__name__,
)
def test_a_validator_that_fails_is_the_users_error(wire: Wire, error: BaseException):
    """One request, no fallback, and what it took is booked."""
    budget = Budget()
    with ScriptedServer(*wire.script(wire.says(ANSWER))) as server:
        _, found = through_service(
            server, wire, response_format=city(raising(error)), budget=budget, fallbacks=[f"{wire.service}:{wire.model}"]
        )
        assert len(wire.asked(server)) == 1
    assert isinstance(found, ValidatorCodeError)
    assert isinstance(found, CodeError)
    assert not isinstance(found, ProviderError)
    assert found.message == f"A validator of City failed: {error_text(error)}."
    assert (found.provider, found.model, found.status) == (wire.service, wire.model, None)
    assert "in check" in found.traceback
    assert "pydantic" not in found.traceback
    assert found.usage.total == budget.used_tokens > 0


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.service)
@pytest.mark.parametrize("words", ["ValueError", "AssertionError", "ValidationError"])
def test_an_answer_that_does_not_fit_is_asked_for_once_more(wire: Wire, words: str):
    def check(value: str) -> str:
        if value != "Thun":
            if words == "ValueError":
                raise ValueError("too large")
            if words == "ValidationError":
                _nested()
            raise AssertionError("too large")
        return value

    with ScriptedServer(*wire.script(wire.says(ANSWER), wire.says('{"name": "Thun"}'))) as server:
        _, found = through_service(server, wire, response_format=city(check))
        assert len(wire.asked(server)) == 2
    assert found.structured.name == "Thun"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("mode", ["tool", "prompt", "json_mode"])
def test_so_it_is_on_every_way_to_structure(mode: Any):
    wire = WIRES[0]
    calls = {
        "type": "function_call",
        "id": "f",
        "call_id": "c",
        "name": "give_answer",
        "arguments": ANSWER,
        "status": "completed",
    }
    reply = (lambda call: call.stream([final(calls)])) if mode == "tool" else wire.says(ANSWER)
    with ScriptedServer(reply) as server:
        _, found = through_service(server, wire, response_format=city(raising(KeyError("k"))), output_mode=mode)
        assert len(server.seen) == 1
    assert isinstance(found, ValidatorCodeError)
    assert found.usage.total == 42


def test_the_circuit_stays_closed():
    """Failures of the user's code say nothing about the server."""
    wire = WIRES[0]
    with ScriptedServer(wire.says(ANSWER)) as server:
        settings = settings_for(server)

        async def go() -> list[Any]:
            service = LLMService(settings, EnvironmentAPIKeyService(settings))
            request = LLMRequest("openai", "m", (ChatMessage("user", "Hi"),), response_format=city(raising(KeyError("k"))))
            try:
                return await service.batch([request] * 12)
            finally:
                await service.cleanup()

        found = run(go())
        assert len(server.seen) == 12
    assert [type(error) for error in found] == [ValidatorCodeError] * 12


def test_in_a_batch_it_is_the_error_of_its_own_item():
    seen: list[str] = []

    class Client:
        async def batch_results(self, batch_id: str, requests: Any) -> Any:
            return {name: LLMResponse(f'{{"name": "{name}"}}', "openai", "m") for name in requests}

    def check(value: str) -> str:
        seen.append(value)
        return value if value == "a" else {}[value]

    items = tuple(BatchItem(name, "m", "prompt", {}) for name in "ab")
    job = BatchJob("b", "openai", "completed", 0.0, items)
    good, bad = run(collect(Client(), job, city(check)))  # pyright: ignore[reportArgumentType]
    assert good.structured.name == "a"  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(bad, ValidatorCodeError)
    assert seen == ["a", "b"]


class Written(BaseModel):
    """Its answers fit, and cannot be written."""

    name: str

    @field_serializer("name")
    def written(self, value: str) -> str:
        raise KeyError(value)


def test_a_serializer_that_fails_costs_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Only a recording needs it."""
    wire = WIRES[0]
    with ScriptedServer(wire.says(ANSWER)) as server:
        _, found = through_service(server, wire, response_format=Written)
        assert isinstance(found, LLMResponse)
        assert found.structured == Written(name="Bern")
        monkeypatch.setenv("DIPEO_LLM_MODE", "record")
        reset_settings()
        _, found = through_service(server, wire, response_format=Written)
    assert isinstance(found, RecordingError)
    assert "a Written cannot be written as JSON" in found.message
    assert validated({"name": "Bern"}, Written) == (ANSWER.replace(" ", ""), Written(name="Bern"))


class NoSchema(BaseModel):
    call: Callable[[], int]


class Later(BaseModel):
    x: Missing  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


class Own(BaseModel):
    @classmethod
    def __get_pydantic_json_schema__(cls, *_: Any) -> Any:
        raise KeyError("schema")


@pytest.mark.parametrize("kind", [NoSchema, Later, Own, list[NoSchema]])
def test_a_class_without_a_schema_is_refused_before_the_call(kind: Any):
    with pytest.raises(InvalidInput, match="is a type or a JSON schema"):
        schema_of(kind)
