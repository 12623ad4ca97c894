"""What every conversation repository and every person repository promises."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, ClassVar

from dipeo_nb.config import get_settings
from dipeo_nb.domain.chat import Message, parse_model
from dipeo_nb.domain.diagram import DomainPerson, LLMConfig
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.domain.ports import ConversationRepository, PersonRepository
from dipeo_nb.testing.contracts.promises import BrokenPromiseError, Contract, promise, refusal, same, that

NOT_JSON = {"object": {"x": object()}, "nan": {"x": float("nan")}, "text": {"x": "\ud800"}}
"""Values that could not be read back."""
FULL = LLMConfig(
    "anthropic",
    "claude-x",
    "key",
    "Be brief.",
    "prompt.txt",
    0.5,
    100,
    "http://x",
    {"top_k": [1]},
    0.9,
    ("END",),
    7,
    "low",
    {"a": {"b": 1}},
)
"""A person's model with every field set."""


class ConversationRepositoryContract(Contract):
    """The promises of `ConversationRepository`."""

    port: ClassVar[type] = ConversationRepository

    @promise
    async def test_messages_come_back_as_they_were_added(self, repository: ConversationRepository) -> None:
        """Everything of a message is kept, and the execution and node it belongs to are added."""
        given = message("Grüße\n🙂\0!", "ann", "bob", id="m1", node_id="n0", metadata={"a": [1, {"b": None}]})
        kept = await repository.add_message(given, "run", "n1")
        metadata = {"a": [1, {"b": None}], "execution_id": "run", "node_id": "n1"}
        promised = message("Grüße\n🙂\0!", "ann", "bob", id="m1", node_id="n1", metadata=metadata)
        same(kept, promised, "what add_message() returns")
        same(await repository.get_messages("run"), [promised], "the messages")
        own = await repository.add_message(message("x", node_id="own"), "run")
        same(own.metadata["node_id"], "own", "the node of a message that names one, added without one")
        that(own.id, "a message that was added without an id has none")

    @promise
    async def test_executions_do_not_meet(self, repository: ConversationRepository) -> None:
        """An execution sees and clears its own messages only; without one, all are seen in the order in which they came."""
        for n in range(6):
            await repository.add_message(message(str(n), id=f"m{n // 3}"), ["one", "two", None][n % 3])
        for execution, texts in {"one": ["0", "3"], "two": ["1", "4"], "nobody": []}.items():
            same(said(await repository.get_messages(execution)), texts, f"the messages of the execution {execution!r}")
        same(said(await repository.get_global_conversation()), ["0", "1", "2", "3", "4", "5"], "all messages")
        for execution, count, last in (("one", 2, "3"), (None, 6, "5"), ("nobody", 0, None)):
            same(await repository.get_message_count(execution), count, f"the count of the execution {execution!r}")
            latest = await repository.get_latest_message(execution)
            same(latest and latest.content, last, f"the latest message of the execution {execution!r}")
        await repository.clear("one")
        same(said(await repository.get_messages()), ["1", "2", "4", "5"], "all messages after one execution was cleared")
        await repository.add_message(message("new", id="m0"), "one")
        await repository.clear()
        same(await repository.get_messages(), [], "all messages after all were cleared")
        same(await repository.get_messages("one"), [], "the messages of an execution after all were cleared")
        same(await repository.get_message_count(), 0, "the count after all were cleared")
        await repository.add_message(message("again", id="m0"), "one")
        same(said(await repository.get_messages()), ["again"], "the messages after an id that was cleared is used again")

    @promise
    async def test_a_limit_gives_the_last_ones(self, repository: ConversationRepository) -> None:
        """`limit` cuts at the beginning."""
        texts = [str(n) for n in range(5)]
        for text in texts:
            await repository.add_message(message(text), "run")
        for limit in (2, 9, 0):
            promised = texts[-limit:] if limit else []
            same(said(await repository.get_messages("run", limit=limit)), promised, f"the last {limit} of 5 messages")

    @promise
    async def test_a_person_has_a_history(self, repository: ConversationRepository) -> None:
        """A person's history has its role in each message it sent or got, and no others."""
        await repository.add_message(message("rules", "system", "ann"), "run")
        await repository.add_message(message("hi", "ann", "bob", metadata={"k": 1}), "run")
        await repository.add_message(message("hello", "bob", "ann"), "run")
        await repository.add_message(message("aside", "bob", "cyd"), "run")
        await repository.add_message(message("elsewhere", "bob", "ann"), "other")
        history = await repository.get_conversation_history("ann", "run")
        roles = [("system", "rules"), ("assistant", "hi"), ("user", "hello")]
        same([(m["role"], m["content"]) for m in history], roles, "(role, content) of a person's history")
        same(
            history[1],
            {
                "role": "assistant", "content": "hi", "from_person_id": "ann", "to_person_id": "bob",
                "timestamp": 1000.5, "metadata": {"k": 1, "execution_id": "run"},
            },
            "a message of a person's history",
        )  # fmt: skip
        same(len(await repository.get_conversation_history("ann")), 4, "the length of a history of all executions")

    @promise
    async def test_what_is_given_out_is_a_copy(self, repository: ConversationRepository) -> None:
        """Changing what came in or went out changes nothing that is kept."""
        metadata: dict[str, Any] = {"list": [1]}
        kept = await repository.add_message(message("x", metadata=metadata), "run")
        metadata["list"].append(2)
        changed: Any = kept.metadata
        changed["list"].append(3)
        got = await repository.get_messages("run")
        changed = got[0].metadata
        changed["list"].append(4)
        got.clear()
        (await repository.get_conversation_history("ann"))[0]["metadata"]["list"].append(5)
        found = [m.metadata["list"] for m in await repository.get_messages("run")]
        same(found, [[1]], "the metadata after changes of what came in and went out")

    @promise
    async def test_an_id_is_taken_once(self, repository: ConversationRepository) -> None:
        """The same id twice in one execution is an error, also when many try at once; other executions may use it."""
        await repository.add_message(message("other", id="m1"), "other")
        await repository.add_message(message("none", id="m1"))
        await repository.add_message(message("empty", id="m1"), "")
        adding = (repository.add_message(message(str(n), id="m1"), "run") for n in range(5))
        errors = [e for e in await asyncio.gather(*adding, return_exceptions=True) if isinstance(e, BaseException)]
        same(len(errors), 4, "how many of five messages with one id are refused")
        for error in errors:
            with refusal("adding a second message with the same id", cause="exists"):
                raise error
        same(len(await repository.get_messages("run")), 1, "the number of messages with one id")

    @promise(cases=NOT_JSON)
    async def test_what_is_no_json_is_refused(self, repository: ConversationRepository, metadata: Any) -> None:
        """Metadata that could not be read back is an error before anything is kept."""
        with refusal("adding metadata that is not JSON", cause="not_json"):
            await repository.add_message(message("x", metadata=metadata), "run")
        same(await repository.get_message_count(), 0, "the count after a message was refused")

    @promise
    async def test_many_at_once(self, repository: ConversationRepository) -> None:
        """A thousand messages added at the same time are all there, each with an id of its own."""
        await asyncio.gather(*(repository.add_message(message(str(n)), "run") for n in range(1000)))
        kept = await repository.get_messages("run")
        same(len({m.id for m in kept}), 1000, "the number of different ids of 1,000 messages")
        same({int(m.content) for m in kept} == set(range(1000)), True, "whether all of 1,000 messages are there")

    @promise
    async def test_a_conversation_outlives_the_object(self, repository: ConversationRepository) -> None:
        """A repository that is opened again has the messages, and continues where it was."""
        kept = await repository.add_message(message("before", metadata={"k": [1]}), "run", "n1")
        await repository.add_message(message("elsewhere", id="m2"), "other")
        async with self.opened(lambda: self.reopen(repository)) as again:
            same(await again.get_messages("run"), [kept], "the messages after a restart")
            with refusal("adding, after a restart, a second message with the same id", cause="exists"):
                await again.add_message(message("twice", id="m2"), "other")
            await again.add_message(message("after"), "run")
            same(said(await again.get_messages("run")), ["before", "after"], "the messages of before and after")


class PersonRepositoryContract(Contract):
    """The promises of `PersonRepository`."""

    port: ClassVar[type] = PersonRepository

    @promise
    async def test_a_person_is_kept_whole(self, repository: PersonRepository) -> None:
        """What is saved is read back with every field; saving again replaces it, in its place."""
        await repository.save(DomainPerson("p1", "Änn", FULL))
        await repository.save(DomainPerson("p2", "Bob"))
        same(await repository.get("p1"), DomainPerson("p1", "Änn", FULL), "a person with every field")
        await repository.save(DomainPerson("p1", "Ann"))
        persons = {"p1": DomainPerson("p1", "Ann"), "p2": DomainPerson("p2", "Bob")}
        same(await repository.get_all(), persons, "all persons after one was saved again")
        same(list(await repository.get_all()), ["p1", "p2"], "the order of the persons")
        that(await repository.exists("p1"), "exists() is False for a person that is there")
        await repository.delete("p1")
        await repository.delete("p1")
        that(not await repository.exists("p1"), "exists() is True for a deleted person")
        await repository.clear()
        same(await repository.get_all(), {}, "all persons after all were cleared")

    @promise
    async def test_a_missing_person_is_a_key_error(self, repository: PersonRepository) -> None:
        """As of a mapping; the error names the id."""
        try:
            found = await repository.get("nobody")
        except KeyError as error:
            that("nobody" in str(error), f"the KeyError of a missing person does not name it: {error}")
        else:
            raise BrokenPromiseError(f"getting a person that is not there gives {found!r}; promised is KeyError")

    @promise
    async def test_creating(self, repository: PersonRepository) -> None:
        """`create` makes once, `get_or_create` at most once, `register_person` in any case."""
        ann = DomainPerson("p", "Ann", FULL)
        same(await repository.create("p", "Ann", FULL), ann, "what create() returns")
        same(await repository.get_or_create("p", "Other"), ann, "get_or_create() of a person that is there")
        quin = await repository.get_or_create("q", "Quin", FULL)
        same(quin, DomainPerson("q", "Quin", FULL), "get_or_create() of a new person")
        registered = await repository.register_person("p", LLMConfig("local"))
        same(registered, DomainPerson("p", "p", LLMConfig("local")), "what register_person() returns")
        with refusal("creating a person that is there", cause="exists"):
            await repository.create("p", "Again")

    @promise
    async def test_the_default_model_is_that_of_the_settings(self, repository: PersonRepository) -> None:
        """A person without a configuration gets the service and model of DIPEO_DEFAULT_LLM_MODEL."""
        promised = (*parse_model(get_settings().default_llm_model), None)
        llm = (await repository.create("p", "Ann")).llm
        same((llm.service, llm.model, llm.api_key_id), promised, "(service, model, key) of a person without any")

    @promise
    async def test_persons_of_a_service(self, repository: PersonRepository) -> None:
        """By any spelling of the service."""
        for person_id, service in (("a", "anthropic"), ("b", "openai"), ("c", "claude")):
            await repository.create(person_id, person_id, LLMConfig(service))
        same([p.id for p in await repository.get_by_service("Claude")], ["a", "c"], "the persons of 'Claude'")
        same([p.id for p in await repository.get_by_service("ollama")], [], "the persons of 'ollama'")

    @promise
    async def test_what_is_given_out_is_a_copy(self, repository: PersonRepository) -> None:
        """Changing what came in or went out changes nothing that is kept."""
        extra: dict[str, Any] = {"stop": ["x"]}
        await repository.save(DomainPerson("p", "Ann", LLMConfig(extra=extra)))
        extra["stop"].append("y")
        got: Any = (await repository.get("p")).llm.extra
        got["stop"].append("z")
        same((await repository.get("p")).llm.extra, {"stop": ["x"]}, "the extra keys after changes of what was given")

    @promise
    async def test_what_is_no_json_is_refused(self, repository: PersonRepository) -> None:
        """Extra keys that could not be read back are an error."""
        with refusal("saving extra keys that are not JSON", cause="not_json"):
            await repository.save(DomainPerson("p", "Ann", LLMConfig(extra={"x": object()})))

    @promise
    async def test_persons_outlive_the_object(self, repository: PersonRepository) -> None:
        """A repository that is opened again has the persons."""
        await repository.create("p", "Ann", FULL)
        async with self.opened(lambda: self.reopen(repository)) as again:
            same(await again.get("p"), DomainPerson("p", "Ann", FULL), "the person after a restart")


def message(content: str, sender: str = "system", receiver: str = "ann", **more: Any) -> Message:
    """A message of the suite's, without an id unless one is given."""
    facts: dict[str, Any] = {"id": "", "message_type": MessageType.PERSON_TO_PERSON, "timestamp": 1000.5, **more}
    return Message(from_person_id=sender, to_person_id=receiver, content=content, **facts)


def said(messages: Iterable[Message]) -> list[str]:
    """The contents of messages."""
    return [m.content for m in messages]
