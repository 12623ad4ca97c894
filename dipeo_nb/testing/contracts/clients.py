"""What every client of language models promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar

from pydantic import BaseModel

from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent
from dipeo_nb.domain.ports import LLMClient
from dipeo_nb.errors import AuthError, LLMError, ProviderError, RateLimitError
from dipeo_nb.testing.contracts.promises import BrokenPromiseError, Contract, NotHereError, promise, refusal, same, that


class Reply(BaseModel):
    """The structure the suite asks for as a class."""

    agreed: bool
    mark: int


SCHEMA = {
    "type": "object",
    "properties": {"decision": {"type": "boolean"}},
    "required": ["decision"],
    "additionalProperties": False,
}
"""The structure it asks for as a schema."""
REFUSALS: dict[str, tuple[int, type[LLMError]]] = {
    "401": (401, AuthError),
    "404": (404, ProviderError),
    "429": (429, RateLimitError),
    "500": (500, ProviderError),
}
"""Status of a provider → the error it becomes."""


class LLMClientContract(Contract):
    """The promises of `LLMClient`. What the model says does not matter, if it is at least three words."""

    port: ClassVar[type] = LLMClient
    model: str = ""
    """The model of the requests; empty: the client's own default."""
    max_tokens: int = 20
    structure: bool = True
    """Whether the client gives structured answers (with `structure=False` that is not checked)."""
    output_modes: tuple[str, ...] = ("native", "grammar")
    """The output modes that it may name (`LLMResponse.output_mode`)."""

    def refused(self, status: int) -> LLMClient:
        """A client whose provider answers with that HTTP status. Without it, the distinction of errors is not checked."""
        raise NotHereError("there is no refused() to make a client whose provider refuses")

    def request(self, client: LLMClient, prompt: str = "Say hello.", **more: Any) -> LLMRequest:
        """A request that the client can answer."""
        options: dict[str, Any] = {"max_tokens": self.max_tokens, **more}
        return LLMRequest(client.provider, self.model, (ChatMessage("user", prompt),), **options)

    @promise
    async def test_a_stream_has_one_beginning_and_one_end(self, client: LLMClient) -> None:
        """`start` first; pieces of text that together are the answer; usage; exactly one `end`, last, with the response."""
        events = [e for e in await events_of(client, self.request(client)) if e.kind != "progress"]
        kinds = [e.kind for e in events]
        same(kinds[:1], ["start"], "the first event")
        same(kinds[-2:], ["usage", "end"], "the last two events")
        for kind in ("start", "usage", "end"):
            same(kinds.count(kind), 1, f"the number of events '{kind}'")
        same(set(kinds), {"start", "text", "usage", "end"}, "the kinds of events of a plain answer")
        that(all(e.response is None for e in events[:-1]), "an event before the end has a response")
        response = _response(events)
        that(response.text, "the answer has no text")
        pieces = "".join(e.text for e in events if e.kind == "text")
        same(pieces.strip(), response.text.strip(), "the pieces of text put together, and the text of the response")
        that(response.provider and response.model, "the response does not name provider and model")
        that(response.finish_reason in ("stop", "length"), f"finish_reason is {response.finish_reason!r}")
        same(response.structured, None, "the structured value of an answer that was not asked for one")

    @promise
    async def test_usage_is_the_providers_own(self, client: LLMClient) -> None:
        """Tokens are counted in disjoint buckets, and what the provider said is kept as it was."""
        usage = _response(await events_of(client, self.request(client))).usage
        buckets = usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning
        that(usage.total, "no tokens are counted")
        same(usage.total, sum(n or 0 for n in buckets), "the total of the tokens, and the sum of their buckets")
        that(usage.raw, "usage.raw, what the provider said, is empty")

    @promise(cases={"pydantic": Reply, "schema": SCHEMA})
    async def test_structure_is_kept(self, client: LLMClient, shape: Any) -> None:
        """A pydantic class gives its instance, a JSON schema an object that fits; the response says how it was obtained."""
        if not self.structure:
            raise NotHereError("the client gives no structured answers (structure=False)")
        asked = self.request(client, "Do you agree? Answer as JSON.", response_format=shape, max_tokens=200)
        response = _response(await events_of(client, asked))
        if shape is Reply:
            that(isinstance(response.structured, Reply), f"for a class, structured is {response.structured!r}")
        else:
            fits = isinstance(response.structured, dict) and isinstance(response.structured.get("decision"), bool)
            that(fits, f"for a schema, structured is {response.structured!r}, which does not fit it")
        that(
            response.output_mode in self.output_modes,
            f"the output mode of a structured answer is {response.output_mode!r}, not of {self.output_modes}",
        )

    @promise
    async def test_a_stream_can_be_left_and_the_client_used_again(self, client: LLMClient) -> None:
        """Closing a stream in the middle ends its work at once; the next call is as good as the first."""
        stream: Any = client.stream(self.request(client, "Tell a long story.", max_tokens=max(self.max_tokens, 2000)))
        async for event in stream:
            if event.kind == "text":
                break
        async with asyncio.timeout(self.timeout / 2):  # less than the long story takes
            await stream.aclose()
            events = await events_of(client, self.request(client))
        same(events[-1].kind, "end", "the last event of the call after one that was left")

    @promise
    async def test_streams_do_not_mix(self, client: LLMClient) -> None:
        """Several answers at the same time each come whole."""
        calls = (events_of(client, self.request(client, f"Number {n}?")) for n in range(4))
        for events in await asyncio.gather(*calls):
            text = "".join(e.text for e in events if e.kind == "text")
            same(text.strip(), _response(events).text.strip(), "the pieces of one of four answers, and its text")

    @promise
    async def test_it_closes_unused(self, client: LLMClient) -> None:
        """Closing is safe before any use, and to repeat."""
        await client.cleanup()

    @promise(cases=REFUSALS)
    async def test_refusals_are_told_apart(self, client: LLMClient, case: tuple[int, type[LLMError]]) -> None:
        """Each status is an error of its own, with provider and status and what to do; vendor errors never pass through."""
        status, kind = case
        async with self.opened(lambda: self.refused(status)) as refused:
            with refusal(f"an answer of the provider with status {status}", kind) as caught:
                await events_of(refused, self.request(refused))
            error = caught[0]
            same((error.provider, error.status), (client.provider, status), "(provider, status) of the error")


async def events_of(client: LLMClient, request: LLMRequest) -> list[StreamEvent]:
    """All events of an answer; the stream is closed whatever happens."""
    stream: AsyncIterator[StreamEvent] = client.stream(request)
    if not hasattr(stream, "aclose"):
        return [event async for event in stream]
    closable: Any = stream
    async with aclosing(closable):
        return [event async for event in closable]


def _response(events: list[StreamEvent]) -> LLMResponse:
    response = events[-1].response if events else None
    if response is None:
        raise BrokenPromiseError("the last event of a stream has no response")
    return response
