"""Forms in which servers send the same thing, and things that are no answer: each through the whole service, for each provider."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from dipeo_nb.domain.chat import LLMRequest, LLMResponse
from dipeo_nb.errors import (
    AuthError,
    ContentFilteredError,
    ContextLengthError,
    LLMConnectionError,
    LLMError,
    ProviderError,
    RateLimitError,
    ValidationError,
)
from dipeo_nb.llm.core.errors import ErrorContext, said_in_stream, status_error
from dipeo_nb.llm.core.retry import transient
from dipeo_nb.llm.providers.google import UnifiedGoogleClient
from dipeo_nb.llm.tools import tool_of
from tests.support import recorded_streams as recorded
from tests.support import wire_anthropic as anthropic
from tests.support import wire_google as google
from tests.support import wire_ollama as ollama
from tests.support.loopback_providers import WIRES, Wire, text, through_service
from tests.support.provider_clients import with_client
from tests.support.wire_openai import Call, Reply, ScriptedServer, final

OPENAI, ANTHROPIC, GEMINI, OLLAMA = WIRES
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>"


def raw(body: bytes, status: int = 200, **headers: str) -> Reply:
    def reply(call: Call) -> None:
        call.headers(status, content_length=str(len(body)), connection="close", **headers)
        call._handler.wfile.write(body)

    return reply


def body_of(wire: Wire, words: str = "Hello there") -> tuple[bytes, str]:
    """(bytes, content type) of an answer."""
    sent: list[bytes] = []
    kinds: list[str] = []

    class Noted:
        def headers(self, status: int = 200, **headers: str) -> None:
            kinds.append(headers["content_type"])

        def send(self, text: str) -> None:
            sent.append(text.encode())

        def stream(self, events: Sequence[dict[str, Any]], **headers: str) -> None:
            Call.stream(self, events, **headers)  # pyright: ignore[reportArgumentType]

        def events(self, events: Sequence[dict[str, Any]], *, pause: float = 0.0) -> None:
            Call.events(self, events)  # pyright: ignore[reportArgumentType]

    wire.says(words)(Noted())  # pyright: ignore[reportArgumentType]
    return b"".join(sent), kinds[0]


def deflated(data: bytes) -> bytes:
    """As many servers write `deflate`: without the header of zlib."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "deflate ": deflated}
WHOLE = dict(
    zip(
        (w.service for w in WIRES),
        (recorded.OPENAI_WHOLE[0], recorded.ANTHROPIC_WHOLE[0], recorded.GOOGLE_WHOLE[0], recorded.OLLAMA_WHOLE[0]),
        strict=True,
    )
)


def answer(wire: Wire, reply: Reply) -> LLMResponse:
    with ScriptedServer(*wire.script(reply)) as server:
        _, found = through_service(server, wire)
        assert isinstance(found, LLMResponse), found
        assert len(wire.asked(server)) == 1
    return found


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.service)
def test_packed_bodies_and_whole_answers(wire: Wire):
    """A body that is packed although nobody asked for it, with comments in it; an answer in one piece, and in a list of pieces."""
    data, kind = body_of(wire)
    odd = b"\n\n" if wire is OLLAMA else b"\xef\xbb\xbf: ping\n\nevent: ping\ndata:\n\n"
    for encoding, pack in PACKED.items():
        assert answer(wire, raw(pack(odd + data), content_type=kind, content_encoding=encoding.strip())).text == "Hello there"
    whole = json.dumps(WHOLE[wire.service]).encode()
    for given in (whole, b"[" + whole + b"]"):
        assert answer(wire, raw(given, content_type="application/json")).text == recorded.WORDS
        assert (
            answer(wire, raw(gzip.compress(given), content_type="application/json", content_encoding="gzip")).text
            == recorded.WORDS
        )


class Foreign(NamedTuple):
    reply: Reply
    kind: type[LLMError]
    tries: int
    words: str


FOREIGN = {
    "a page": Foreign(raw(HTML, content_type="text/html; charset=utf-8"), ProviderError, 1, "sent a web page, not an answer"),
    "a page with 502": Foreign(raw(HTML, 502, content_type="text/html"), ProviderError, 3, "502: a web page came"),
    "a page without a type": Foreign(raw(HTML, 502), ProviderError, 3, "502: a web page came"),
    "a redirect": Foreign(
        raw(b"", 307, location="https://user:secret@new.example:8443/v1?key=secret"), ProviderError, 1, "elsewhere (307), to https://new.example:8443/v1;"
    ),
    "other JSON": Foreign(raw(b'{"hello": "world"}', content_type="application/json"), ProviderError, 1, "not an answer of the API"),
    "null": Foreign(raw(b"null", content_type="application/json"), ProviderError, 1, "not an answer of the API"),
    "an empty list": Foreign(raw(b"[]", content_type="application/json"), ProviderError, 1, "not an answer of the API"),
    "cut JSON": Foreign(raw(b'{"candidates": [', content_type="application/json"), ProviderError, 1, "not JSON"),
    "nothing": Foreign(raw(b"", content_type="application/json"), LLMConnectionError, 3, "ended before it was complete"),
    "no gzip": Foreign(raw(b"nonsense", content_type="text/event-stream", content_encoding="gzip"), LLMConnectionError, 3, ""),
    "overloaded with 200": Foreign(
        raw(b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}', content_type="application/json"), ProviderError, 3, "529: Overloaded",
    ),
    "overloaded in words": Foreign(raw(b'{"error": "Overloaded"}', content_type="application/json"), ProviderError, 3, "529: Overloaded"),
    "a name of google.rpc": Foreign(
        raw(b'{"error": {"message": "slow down", "status": "RESOURCE_EXHAUSTED"}}', content_type="application/json"), RateLimitError, 3, "slow down"
    ),
    "credits": Foreign(raw(b'{"error": {"code": 402, "message": "No credits"}}', content_type="application/json"), ProviderError, 1, "No credits"),
}  # fmt: skip
assert len(FOREIGN) == 14


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.service)
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_answer(wire: Wire, name: str):
    reply, kind, tries, words = FOREIGN[name]
    with ScriptedServer(*wire.script(reply)) as server:
        _, found = through_service(server, wire)
        assert isinstance(found, kind), found
        assert words in found.message
        assert "secret" not in str(found)
        assert len(wire.asked(server)) == tries


# What an error says.

CONTEXT = ErrorContext("openai", "m", variable="OPENAI_API_KEY", base_url_variable="OPENAI_BASE_URL")
TOO_LONG: Sequence[tuple[int, str, str]] = (
    (400, "context_length_exceeded", "Your input exceeds the limit of this model."),
    (400, "", "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"),
    (400, "", "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
    (400, "invalid_request_error", "input length and `max_tokens` exceed context limit: 190123 + 32000 > 200000"),
    (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    (400, "exceed_context_size_error", "the request exceeds the available context size"),
    (400, "", "Input is too long for requested model."),
    (400, "", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
    (400, "", "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
    (400, "", "too many tokens: total number of tokens in the prompt cannot exceed 4081"),
    (400, "", "Invalid request: Your request exceeded model token limit: 8192"),
    (400, "", "Range of input length should be [1, 30720]"),
    (400, "", "Please reduce the length of the messages or completion."),
    (400, "string_above_max_length", "Invalid 'input': string too long. Expected a string with maximum length 10485760"),
    (413, "", "Payload Too Large"),
    (422, "validation", "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 512 `max_new_tokens`"),
    (422, "validation", "Input validation error: `max_new_tokens` must be <= 512. Given: 1000"),
    (422, "validation", "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"),
    (429, "rate_limit_exceeded", "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 42000."),
    (500, "", "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length of only 4096"),
)  # fmt: skip
FILTERED: Sequence[tuple[int, str, str]] = (
    (400, "invalid_prompt", "Invalid prompt: your prompt was flagged as potentially violating our usage policy. Please try again with a different prompt"),
    (400, "content_filter", "The response was filtered."),
    (400, "", "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."),
    (400, "content_policy_violation", "Your request was rejected."),
    (400, "bio_policy", "This request was blocked."),
    (400, "misalignment_policy_violation", "This was blocked."),
    (400, "image_content_policy_violation", "The image is not allowed."),
    (400, "", "Your request was rejected as a result of our safety system."),
    (403, "403", "Your chosen model requires moderation and your input was flagged"),
)  # fmt: skip
OTHERWISE: Sequence[tuple[int, str, str, type[LLMError]]] = (
    (400, "invalid_prompt", "The field 'input' is required.", ProviderError),  # gateways mean any prompt that is not right
    (422, "", "temperature: must be <= 2", ProviderError),
    (429, "rate_limit_exceeded", "Rate limit reached for tokens per min", RateLimitError),
    (403, "", "Country, region, or territory not supported", AuthError),
)
UNPAID: Sequence[tuple[int, str, str]] = (
    (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."),
    (402, "", "Insufficient credits"),
    (402, "402", "Payment required"),
    (429, "insufficient_quota", "You exceeded your current quota."),
    (429, "billing_hard_limit_reached", "Billing hard limit has been reached"),
    (429, "", "Error code: insufficient balance"),
)
REFUSED: Sequence[tuple[int, str, str, type[LLMError], str, str]] = (
    (403, "unsupported_country_region_territory", "Country, region, or territory not supported", AuthError, "does not serve this region", "Another key does not help"),
    (403, "PERMISSION_DENIED", "This service is not available in your country.", AuthError, "does not serve this region", "VPN"),
    (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", AuthError, "does not serve this region", "--model local"),
    (451, "", "Unavailable in your jurisdiction", AuthError, "does not serve this region", "--model local"),
    (403, "", "The model claude-x is not available in your region", AuthError, "does not serve this region", "a model that is offered"),
    (401, "ip_not_authorized", "Your IP address is not on the allowlist of this project", AuthError, "from this IP address", "allowlist"),
    (403, "", "Your account has insufficient balance.", ProviderError, "insufficient balance", "billing"),
    (403, "BILLING_DISABLED", "This API method requires billing to be enabled.", ProviderError, "requires billing", "billing"),
    (403, "", "Your team doesn't have any credits yet. You can purchase them.", ProviderError, "credits", "billing"),
    (403, "SERVICE_DISABLED", "Generative Language API has not been used in project 1 before or it is disabled.", AuthError, "the API is not enabled", "Enable it"),
    (403, "model_not_found", "Project `p` does not have access to model `gpt-x`", AuthError, "does not allow the use of 'm'", "Ask the provider"),
    (403, "permission_error", "You are not allowed to sample from this model", AuthError, "does not allow the use of 'm'", "choose another one"),
    (403, "", "This model is gated: request access on its page", AuthError, "does not allow the use of 'm'", "choose another one"),
    (404, "model_not_found", "Your organization must be verified to use the model `o3`.", AuthError, "does not allow the use of 'm'", "Verify the organization"),
    (401, "", "You have insufficient permissions for this operation. Missing scopes: model.request", AuthError, "lacks a permission", "Give the key"),
    (403, "", "<html><title>Attention Required! | Cloudflare</title>", AuthError, "Something in front of openai", "proxy or firewall"),
    (403, "", "API key not valid", AuthError, "refused the key", "OPENAI_API_KEY"),
    (400, "invalid_request_error", "Invalid schema for function 'f': 'country' is a required property", ProviderError, "answered 400", "Check the request"),
    (400, "", "tool 'bank': the balance is not allowed to be a text", ProviderError, "answered 400", "Check the request"),
)  # fmt: skip
"""(status, code, words of the server, class, words of the message, words of the hint)."""
assert (len(TOO_LONG), len(FILTERED), len(OTHERWISE), len(UNPAID), len(REFUSED)) == (20, 9, 4, 6, 19)


@pytest.mark.parametrize(("status", "code", "said"), UNPAID)
def test_nothing_left_to_pay_with(status: int, code: str, said: str):
    """It is said so, and waiting does not help."""
    found = status_error(CONTEXT, status, said, code=code)
    assert type(found) is ProviderError
    assert "billing" in (found.hint or "")
    assert not transient(found)
    of_google = status_error(
        CONTEXT, 429, "You exceeded your current quota, please check your plan and billing details.", code="RESOURCE_EXHAUSTED"
    )
    assert transient(of_google)  # of a minute


@pytest.mark.parametrize(
    ("status", "code", "said", "kind"),
    [*((*case, ContextLengthError) for case in TOO_LONG), *((*case, ContentFilteredError) for case in FILTERED), *OTHERWISE],
)
def test_what_servers_mean(status: int, code: str, said: str, kind: type[LLMError]):
    """Too long and not allowed, in all wordings, with a status and within a stream."""
    found = status_error(CONTEXT, status, said, code=code)
    assert type(found) is kind
    if status in (400, 422):
        assert type(said_in_stream(CONTEXT, code, said)) is kind


# Calls of tools.


def weather(city: str) -> str:
    """The weather."""
    return f"sun in {city}"


ARGUMENTS: Sequence[tuple[Any, str]] = (
    ('{"city": "Bern"}', "sun in Bern"),
    ({"city": "Bern"}, "sun in Bern"),
    ("", "do not fit: city"),
    (None, "do not fit: city"),
    ('{"city": "Be', "not a JSON object"),
    ('["Bern"]', "not a JSON object"),
    (["Bern"], "not a JSON object"),
    (7, "not a JSON object"),
    ({"dipeo_no_object": '{"city": "Bern"}', "x": 1}, "do not fit"),
)
assert len(ARGUMENTS) == 9


@pytest.mark.parametrize(("arguments", "told"), ARGUMENTS)
def test_arguments_of_ollama_that_are_no_object(arguments: Any, told: str):
    """Some servers behind its API write them as text, as OpenAI does."""
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": arguments}}]}
    first = ollama.lines({**ollama.chunk(), "message": call}, ollama.end())
    with ScriptedServer(*OLLAMA.script(first, OLLAMA.says("done"))) as server:
        _, found = through_service(server, OLLAMA, tools=(tool_of(weather),))
        assert isinstance(found, LLMResponse), found
        last = OLLAMA.asked(server)[-1].body["messages"]
    assert told in last[-1]["content"]
    assert isinstance(last[-2]["tool_calls"][0]["function"]["arguments"], dict)


def calls_of(wire: Wire, ids: Sequence[Any]) -> Reply:
    """A turn that calls `weather` once for each id."""
    if wire is OPENAI:
        items = [
            {
                "type": "function_call",
                "id": f"fc_{n}",
                "call_id": given,
                "name": "weather",
                "arguments": f'{{"city": "{n}"}}',
                "status": "completed",
            }
            for n, given in enumerate(ids)
        ]
        added = [
            {"type": "response.output_item.added", "output_index": n, "item": {**item, "arguments": ""}}
            for n, item in enumerate(items)
        ]
        return lambda call: call.stream([*added, final(*items)])
    if wire is ANTHROPIC:
        blocks = [e for n, given in enumerate(ids) for e in anthropic.tool_use(given, "weather", {"city": str(n)}, n)]
        return anthropic.streams(anthropic.start(), *blocks, *anthropic.end("tool_use"))
    parts = [
        google.function_call("weather", {"city": str(n)}, **({"id": given} if given else {})) for n, given in enumerate(ids)
    ]
    return google.streams(google.chunk(*parts, finish="STOP"))


@pytest.mark.parametrize("wire", WIRES[:3], ids=lambda wire: wire.service)
@pytest.mark.parametrize("ids", [("", ""), (None, None), ("same", "same"), ("a", "")], ids=str)
def test_calls_without_an_id_of_their_own(wire: Wire, ids: Sequence[Any]):
    """Each is run, and each result goes to its own call."""
    with ScriptedServer(*wire.script(calls_of(wire, ids), wire.says("done"))) as server:
        _, found = through_service(server, wire, tools=(tool_of(weather),))
        assert isinstance(found, LLMResponse), found
        sent = server.seen[-1].body
    if wire is OPENAI:
        calls = {i["call_id"]: i["arguments"] for i in sent["input"] if i.get("type") == "function_call"}
        results = {i["call_id"]: i["output"] for i in sent["input"] if i.get("type") == "function_call_output"}
    elif wire is ANTHROPIC:
        blocks = [b for m in sent["messages"] for b in m["content"]]
        calls = {b["id"]: json.dumps(b["input"]) for b in blocks if b["type"] == "tool_use"}
        results = {b["tool_use_id"]: b["content"] for b in blocks if b["type"] == "tool_result"}
    else:
        parts = [p for c in sent["contents"] for p in c["parts"]]
        assert [p["functionResponse"]["response"]["output"] for p in parts if "functionResponse" in p] == [
            "sun in 0",
            "sun in 1",
        ]
        given = [p["functionCall"].get("id") for p in parts if "functionCall" in p]
        assert [p["functionResponse"].get("id") for p in parts if "functionResponse" in p] == given
        assert len(set(given) - {None}) == len([g for g in given if g is not None])
        return
    assert len(calls) == 2
    assert all(calls)
    assert {call: f'{{"city": "{results[call][-1]}"}}' for call in results} == calls


# Event streams of Gemini.

HI = f"data: {json.dumps(google.chunk(google.text('Hi'), finish='STOP'))}\r\n\r\n"


@pytest.mark.parametrize(
    "before",
    [
        "event: ping\ndata: {}\n\n", "data: {}\n\n", "event: ping\n\n", "event: ping\ndata:\n\n", 'event: ping\ndata: {"type": "ping"}\n\n',
        "data: null\n\n", ": c\n\n", "id: 1\nevent: message\ndata: {}\n\n", "retry: 5\n\n",
    ],
)  # fmt: skip
def test_events_of_gemini_without_an_answer(before: str):
    assert answer(GEMINI, text(before + HI + "event: done\ndata: {}\n\ndata: [DONE]\n\n")).text == "Hi"


# Batches.


@pytest.mark.parametrize(
    "bad",
    [
        None, 7, "text", [], {}, {"metadata": None}, {"response": None}, {"response": 7, "metadata": {"key": "b"}},
        {"response": {"candidates": "none"}, "metadata": {"key": "b"}}, {"error": "no", "metadata": {"key": "b"}},
        {"error": {"code": "x"}, "metadata": {"key": "b"}}, {"response": {"candidates": [{"content": {"parts": [{"text": 5}]}}]}, "metadata": {"key": ["b"]}},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_item_of_a_batch_of_gemini_costs_itself(bad: Any):
    first, _, last = recorded.GOOGLE_BATCH
    newer = {**last, "response": {**last["response"], "laterField": 1}, "laterField": 2}
    output = {"inlinedResponses": {"inlinedResponses": [first, bad, newer]}}
    stats = {"requestCount": "3", "successfulRequestCount": "2", "failedRequestCount": "1"}
    job = {
        "name": "batches/b",
        "done": True,
        "metadata": {"state": "BATCH_STATE_SUCCEEDED", "output": output, "batchStats": stats},
    }
    requests = {name: LLMRequest("gemini", GEMINI.model, ()) for name in "abc"}

    async def work(client: UnifiedGoogleClient) -> tuple[Any, Mapping[str, Any]]:
        return await client.poll_batch("batches/b"), await client.batch_results("batches/b", requests)

    status, found = with_client(UnifiedGoogleClient, lambda call: call.json(200, job), work)
    assert (status.id, status.state, status.completed, status.failed) == ("batches/b", "completed", 2, 1)
    assert found["a"].text == found["c"].text == recorded.WORDS
    assert isinstance(found["b"], LLMError)


class Named(Call):
    """Says of a body that it is in another encoding than it is."""

    def headers(self, status: int = 200, **headers: str) -> None:
        super().headers(status, **{**headers, "content_type": f"{headers['content_type']}; charset=utf-16"})


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.service)
def test_streams_are_utf_8_whatever_they_are_called(wire: Wire):
    said = wire.says("Grüße 😀 dir.")
    with ScriptedServer(*wire.script(lambda call: said(Named(call._handler, call._server, call.seen)))) as server:
        _, answer = through_service(server, wire)
    assert isinstance(answer, LLMResponse)
    assert answer.text == "Grüße 😀 dir."


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.service)
def test_a_tool_that_is_not_there_cannot_be_chosen(wire: Wire):
    """It is refused before the call, with the names of those that are."""
    with ScriptedServer(*wire.script(wire.says("x"))) as server:
        _, error = through_service(server, wire, tools=[tool_of(weather)], tool_choice="wether")
        assert wire.asked(server) == []
    assert isinstance(error, ValidationError)
    assert "weather" in (error.hint or "")


@pytest.mark.parametrize("keyless", [False, True])
@pytest.mark.parametrize(("status", "code", "said", "kind", "message", "hint"), REFUSED)
def test_why_a_call_is_refused(status: int, code: str, said: str, kind: type[LLMError], message: str, hint: str, keyless: bool):
    """The real cause is named: the key is only blamed, or asked for, when nothing else is the reason."""
    context = ErrorContext("openai", "m", keyless=keyless, variable="OPENAI_API_KEY", base_url_variable="OPENAI_BASE_URL")
    found = status_error(context, status, said, code=code)
    if keyless and message == "refused the key":
        message, hint = "The server wants a key", "OPENAI_BASE_URL"
    assert type(found) is kind
    assert message in found.message
    assert hint in (found.hint or "")
    assert not transient(found)


def test_a_server_that_wants_a_key_for_a_model():
    """Without a key, what a server says of models and permissions is what a key would give."""
    context = ErrorContext("openai", "m", keyless=True, base_url_variable="OPENAI_BASE_URL")
    found = status_error(context, 403, "An API key with access to this model is needed")
    assert "The server wants a key" in found.message
