"""Manifests in DiPeO's shape: read as ours, and called; what has no counterpart is an error with its line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import ManifestError, ProviderRejectedError, ValidationError
from dipeo_nb.integrations.manifest_reader import read_manifest
from dipeo_nb.integrations.provider_port import Call
from tests.support.provider_server import Asked, Keys, Reply, provider, serving

TEXT = """
name: demo-api
version: 1.2.0
description: A service
base_url: http://127.0.0.1
auth: {strategy: api_key_header, header: X-Key, format: "Token {{ secret }}"}
retry_policy: {strategy: exponential, max_retries: 1, base_delay_ms: 100, max_delay_ms: 1000, retry_on_status: [503]}
rate_limit: {algorithm: token_bucket, capacity: 10, refill_per_sec: 2.0, window_size_sec: 60}
default_timeout: 20
default_headers: {X-Version: "7"}
webhook_events: [x]
metadata: {any: thing}
operations:
  send:
    method: POST
    path: /rooms/{{ config.room }}/messages/{{ resource_id }}
    request:
      body_schema: {type: object, required: [text], properties: {text: {type: string}, loud: {type: boolean}}}
      body_template: '{"text": "{{ config.text }}", "note": "{{ config.note }}"}'
      query_params_template: {loud: "{{ config.loud }}"}
      headers_template: {X-Note: "{{ config.note }}"}
    response: {success_codes: [200, 201], json_pointer: $.data.id, error_json_pointer: /error/text}
    rate_limit_override: {algorithm: none}
    timeout_override: 5
    required_scopes: [write]
  list:
    method: GET
    path: /rooms/{id}
    request: {path_params_template: {id: "{{ config.room }}"}}
    pagination: {type: cursor, cursor_param: after, cursor_path: next, items_path: items, limit_param: count, default_limit: 2}
"""


def test_it_is_called_as_it_says(tmp_path: Path):
    """Path, query, headers, body and key as DiPeO's documents promise them; quotes and newlines stay values."""
    nasty = 'He said "hi"\n{{ x }} 😀'

    def respond(asked: Asked) -> Reply:
        if asked.method == "GET":
            last = asked.query.get("after") == ["c2"]
            return Reply({"items": [1, 2] if not last else [3], "next": None if last else "c2"})
        if asked.json["text"] == "bad":
            return Reply({"error": {"text": "it is bad"}}, 400)
        return Reply({"data": {"id": 9}}, 201)

    async def use() -> None:
        with serving(respond) as server:
            made = provider(
                TEXT, tmp_path, Keys(**{"demo-api": "k-12345678", "demo_api": "k-12345678"}), given={"base_url": server.url}
            )
            assert made.name == "demo_api"
            config = {"room": "a b", "text": nasty, "note": "n", "loud": True}
            assert await made.execute("send", Call(config, "m/1")) == 9
            asked = server.asked[0]
            assert asked.path in ("/rooms/a b/messages/m%2F1", "/rooms/a%20b/messages/m%2F1", "/rooms/a b/messages/m/1")
            assert (asked.json, asked.query) == ({"text": nasty, "note": "n"}, {"loud": ["true"]})
            assert (asked.headers["x-key"], asked.headers["x-version"], asked.headers["x-note"]) == (
                "Token k-12345678",
                "7",
                "n",
            )
            assert await made.execute("list", Call({"room": "r"}, all=True)) == [1, 2, 3]
            assert server.asked[1].query == {"count": ["2"]}
            with pytest.raises(ProviderRejectedError, match="it is bad"):
                await made.execute("send", Call({"room": "r", "text": "bad", "note": "n", "loud": False}, "m"))
            with pytest.raises(ValidationError, match="needs the parameter 'text'"):
                await made.execute("send", Call({"room": "r"}, "m"))

    asyncio.run(use())


def test_its_parts_are_ours():
    manifest = read_manifest(TEXT)
    assert (manifest.retry.max, manifest.retry.delay, manifest.retry.longest, manifest.retry.on) == (1, 0.1, 1.0, (503,))
    assert manifest.limit is not None
    assert (manifest.limit.capacity, manifest.limit.per_second) == (10, 2.0)
    assert manifest.timeout == 20
    send = manifest.operations["send"]
    assert (send.timeout, send.scopes, send.resource, send.success) == (5, ("write",), "resource_id", (200, 201))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("strategy: api_key_header", "strategy: api_key_heder", r"no strategy 'api_key_heder'"),
        ("body_template:", "body_templat:", r"no key 'body_templat'"),
        ("capacity: 10", "capacty: 10", "capacty"),
        ("cursor_param: after", "cursr_param: after", "no key 'cursr_param'"),
        ("success_codes: [200, 201]", "transform: '{{ x }}'", "no counterpart"),
        ('"{{ config.note }}"}\n    response', '"{{ secret }}"}\n    response', "secret|key"),
        ("query_params_template: {loud", "query_params_template: [loud", "manifest.yaml"),
        ("webhook_events", "webhok_events", "webhok_events"),
    ],
)
def test_mistakes(old: str, new: str, words: str):
    """One error with the place; nothing is left out silently."""
    changed: Any = TEXT.replace(old, new)
    assert changed != TEXT
    with pytest.raises(ManifestError, match=words) as caught:
        read_manifest(changed)
    assert caught.value.hint
