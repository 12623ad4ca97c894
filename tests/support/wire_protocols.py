"""What each provider says on the wire, in one vocabulary for the contract: texts, calls of tools, refusals, halves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from tests.support import wire_anthropic as anthropic
from tests.support import wire_google as google
from tests.support import wire_ollama as ollama
from tests.support import wire_openai as openai
from tests.support.wire_openai import Call, Reply, ScriptedServer

Calls = Sequence[tuple[str, str, dict[str, Any]]]
"""(id, name, arguments) of calls of tools."""


class Wire:
    """One provider's protocol. Subclasses say how; `server` scripts its replies."""

    before_pieces: ClassVar[str] = ""
    """What an answer has before its first piece."""

    def server(self, *replies: Reply) -> ScriptedServer:
        return ScriptedServer(*replies)

    def piece(self, text: str) -> str:
        raise NotImplementedError

    def schema(self, body: dict[str, Any]) -> Any:
        raise NotImplementedError

    def asked_schema(self, body: dict[str, Any]) -> Any:
        """The schema of a request; None when it asks for none."""
        try:
            return self.schema(body)
        except KeyError:
            return None

    def begins(self, call: Call, text: str) -> None:
        """The head and a first piece of an answer that does not end."""
        call.headers(content_type="text/event-stream", content_length="1000000")
        call.send(self.before_pieces + self.piece(text))


class OpenAI(Wire):
    service: ClassVar = "openai"
    model: ClassVar = "gpt-4o"
    key_setting: ClassVar = "openai_api_key"
    url_setting: ClassVar = "openai_base_url"
    path: ClassVar = "/v1"
    output_mode: ClassVar = "native"
    cached: ClassVar = 10
    output: ClassVar = 8

    def says(self, text: str) -> Reply:
        return openai.says(text)

    def calls(self, calls: Calls) -> Reply:
        items = [
            {"type": "function_call", "id": f"fc_{i}", "call_id": i, "name": n, "arguments": json.dumps(a)} for i, n, a in calls
        ]
        steps: list[dict[str, Any]] = []
        for n, item in enumerate(items):
            at = {"output_index": n, "sequence_number": n}
            arguments = {**at, "item_id": item["id"], "name": item["name"]}
            steps += [
                {"type": "response.output_item.added", "item": {**item, "arguments": ""}, **at},
                {"type": "response.function_call_arguments.delta", "delta": item["arguments"], **arguments},
                {"type": "response.function_call_arguments.done", "arguments": item["arguments"], **arguments},
                {"type": "response.output_item.done", "item": item, **at},
            ]
        return lambda call: call.stream([*steps, openai.final(*items)])

    def refuses(self, status: int, message: str, **headers: str) -> Reply:
        return lambda call: call.error(status, message, **headers)

    def piece(self, text: str) -> str:
        """A further piece of an answer, as it stands in the body."""
        return f"data: {json.dumps(openai.delta(text))}\n\n"

    def results(self, body: dict[str, Any]) -> list[str]:
        """The results of tools in a request, in order."""
        return [i["output"] for i in body["input"] if i.get("type") == "function_call_output"]

    def system(self, body: dict[str, Any]) -> str:
        return " ".join(i["content"] for i in body["input"] if i.get("role") in ("system", "developer"))

    def schema(self, body: dict[str, Any]) -> Any:
        return body["text"]["format"]["schema"]

    def limit(self, body: dict[str, Any]) -> int:
        return body["max_output_tokens"]


class Anthropic(Wire):
    service: ClassVar = "anthropic"
    model: ClassVar = "claude-sonnet-5"
    key_setting: ClassVar = "anthropic_api_key"
    url_setting: ClassVar = "anthropic_base_url"
    path: ClassVar = ""
    output_mode: ClassVar = "native"
    cached: ClassVar = 10
    output: ClassVar = 8

    def says(self, text: str) -> Reply:
        return anthropic.says(text)

    def calls(self, calls: Calls) -> Reply:
        blocks = [e for n, (i, name, a) in enumerate(calls) for e in anthropic.tool_use(i, name, a, n)]
        return anthropic.streams(anthropic.start(), *blocks, *anthropic.end("tool_use"))

    def refuses(self, status: int, message: str, **headers: str) -> Reply:
        return anthropic.error(status, message, **headers)

    before_pieces: ClassVar = anthropic.body([anthropic.start(), anthropic.block(0, {"type": "text", "text": ""})[0]])

    def piece(self, text: str) -> str:
        delta = {"type": "text_delta", "text": text}
        return anthropic.body([{"type": "content_block_delta", "index": 0, "delta": delta}])

    def results(self, body: dict[str, Any]) -> list[str]:
        blocks = [b for m in body["messages"] for b in m["content"] if b["type"] == "tool_result"]
        return [b["content"] for b in blocks]

    def system(self, body: dict[str, Any]) -> str:
        return body["system"]

    def schema(self, body: dict[str, Any]) -> Any:
        return body["output_config"]["format"]["schema"]

    def limit(self, body: dict[str, Any]) -> int:
        return body["max_tokens"]


class Google(Wire):
    service: ClassVar = "gemini"
    model: ClassVar = "gemini-2.5-flash"
    key_setting: ClassVar = "google_api_key"
    url_setting: ClassVar = "google_base_url"
    path: ClassVar = ""
    output_mode: ClassVar = "native"
    cached: ClassVar = 10
    output: ClassVar = 8

    def says(self, text: str) -> Reply:
        return google.says(text)

    def calls(self, calls: Calls) -> Reply:
        return google.streams(google.chunk(*(google.function_call(n, a, id=i) for i, n, a in calls), finish="STOP"))

    def refuses(self, status: int, message: str, **headers: str) -> Reply:
        return google.error(status, message, **headers)

    def piece(self, text: str) -> str:
        return google.body([google.chunk(google.text(text))])

    def results(self, body: dict[str, Any]) -> list[str]:
        parts = [p["functionResponse"]["response"] for c in body["contents"] for p in c["parts"] if "functionResponse" in p]
        return [str(next(iter(r.values()))) for r in parts]

    def system(self, body: dict[str, Any]) -> str:
        return " ".join(p["text"] for p in body["systemInstruction"]["parts"])

    def schema(self, body: dict[str, Any]) -> Any:
        return body["generationConfig"]["responseJsonSchema"]

    def limit(self, body: dict[str, Any]) -> int:
        return body["generationConfig"]["maxOutputTokens"]


class Ollama(Wire):
    service: ClassVar = "ollama"
    model: ClassVar = "llama3.2"
    key_setting: ClassVar = None
    url_setting: ClassVar = "ollama_host"
    path: ClassVar = ""
    output_mode: ClassVar = "grammar"
    cached: ClassVar = None
    output: ClassVar = 9

    def server(self, *replies: Reply) -> ScriptedServer:
        return ScriptedServer(ollama.Ollama(*replies))

    def says(self, text: str) -> Reply:
        return ollama.says(text)

    def calls(self, calls: Calls) -> Reply:
        said = [ollama.tool_call(name, arguments) for _, name, arguments in calls]
        return ollama.lines(ollama.chunk(tool_calls=said), ollama.end())

    def refuses(self, status: int, message: str, **headers: str) -> Reply:
        return lambda call: call.json(status, {"error": message}, **headers)

    def piece(self, text: str) -> str:
        return json.dumps(ollama.chunk(text)) + "\n"

    def results(self, body: dict[str, Any]) -> list[str]:
        return [m["content"] for m in body["messages"] if m["role"] == "tool"]

    def system(self, body: dict[str, Any]) -> str:
        return " ".join(m["content"] for m in body["messages"] if m["role"] == "system")

    def schema(self, body: dict[str, Any]) -> Any:
        return body["format"]

    def limit(self, body: dict[str, Any]) -> int:
        return body["options"]["num_predict"]


WIRES = (OpenAI(), Anthropic(), Google(), Ollama())
