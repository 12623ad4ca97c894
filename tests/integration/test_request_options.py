"""Options of a model's answer: checked before any call wherever they are given, and said to each provider in its own words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import dipeo_nb as dp
from dipeo_nb.diagram import formats
from dipeo_nb.diagram.document import load, load_text
from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.domain.request_options import EFFORTS, beyond_wording, checked_extra, merged
from dipeo_nb.errors import NotGrantedError, TrustError, UnsupportedError, ValidationError
from dipeo_nb.llm import providers
from dipeo_nb.llm.core.types import AdapterConfig
from dipeo_nb.llm.options import adapted, check_options
from dipeo_nb.llm.recording import content_key
from dipeo_nb.security.gate import Gate, Level
from dipeo_nb.testing import scripted
from tests.support.wire_openai import request, settings_with

NAN = math.nan

WRONG = [
    ("temperature", 9), ("temperature", -0.1), ("temperature", NAN), ("temperature", math.inf), ("temperature", "0.5"), ("temperature", True),
    ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", "100"), ("max_tokens", 1.5), ("max_tokens", True), ("max_tokens", NAN),
    ("timeout", "5"), ("timeout", 0), ("timeout", -1), ("timeout", NAN), ("timeout", math.inf), ("timeout", True),
    ("top_p", 1.1), ("top_p", -1), ("top_p", "1"), ("top_p", NAN),
    ("seed", "7"), ("seed", 1.5), ("seed", True),
    ("stop", 5), ("stop", ""), ("stop", ["a", ""]), ("stop", [1]), ("stop", b"x"), ("stop", ["x"] * 17), ("stop", {"a": 1}),
    ("reasoning", "hard"), ("reasoning", 5), ("reasoning", True), ("reasoning", ["low"]),
    ("tool_rounds", -1), ("tool_rounds", "3"),
    ("extra", [1]), ("extra", "x"), ("extra", {1: 2}), ("extra", {"a": object()}), ("extra", {"a": NAN}), ("extra", {" ": 1}),
    ("tool_choice", 5), ("tool_choice", ["a"]), ("base_url", 5), ("base_url", b"http://x"), ("api_key_id", 1),
]  # fmt: skip


def test_no_wrong_value_is_left_out():
    assert len(WRONG) == 49


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda v: repr(v)[:24])
def test_a_wrong_option_is_refused_where_a_request_is_made(name: str, value: Any):
    """By the class itself, so by every client and service, and by `dp.llm` before its first call; the message names the option."""
    with pytest.raises(ValidationError, match=name) as caught:
        LLMRequest("echo", "", (ChatMessage("user", "x"),), **{name: value})
    assert caught.value.hint
    with pytest.raises(ValidationError, match=name):
        dp.llm("echo", **{name: value})
    with pytest.raises(ValidationError, match=name):
        dp.llm("echo").chat("x", display=False, **{name: value})


@pytest.mark.parametrize(
    "options",
    [{"timeout": "5"}, {"max_tokens": 0}, {"max_tokens": "100"}, {"temperature": 9}, {"temperature": NAN}, {"extra_params": {"model": "m"}}, {"max_tokns": 5}],
    ids=str,
)  # fmt: skip
def test_a_wrong_option_of_a_client_is_refused(options: dict[str, Any]):
    """As ours, not as pydantic's."""
    with pytest.raises(ValidationError) as caught:
        providers.create_adapter("openai", "gpt-4o", "sk-x", **options)
    assert caught.value.hint


def test_options_keep_their_values():
    """One text to stop at is a list of one; what is None is not given; a seed of 0 is one."""
    made = LLMRequest("echo", "", (), stop="END", seed=0, top_p=0, temperature=2, reasoning="none", extra={"a": [1]})  # type: ignore[arg-type]
    assert (made.stop, made.seed, made.top_p, made.temperature) == (("END",), 0, 0, 2)
    bare = LLMRequest("echo", "", (), stop=None, extra=None, tool_rounds=None)  # type: ignore[arg-type]
    assert (bare.stop, bare.extra, bare.tool_rounds) == ((), {}, 10)
    assert replace(made, model="m").stop == ("END",)


# Further fields.

OURS = [
    "model", "messages", "input", "contents", "instructions", "system", "systemInstruction", "stream", "stream_options", "tools", "tool_choice",
    "toolConfig", "functions", "previous_response_id", "conversation", "prompt", "response_format", "format", "n", "temperature", "top_p",
    "max_tokens", "max_output_tokens", "maxOutputTokens", "api_key", "api_base", "base_url", "headers", "extra_headers", "http_options",
]  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_what_a_request_says_itself_is_no_further_field(name: str):
    """Refused with what to use instead, in any spelling."""
    with pytest.raises(ValidationError, match="sets itself") as caught:
        checked_extra({name: 1})
    assert "Use " in str(caught.value.hint)


@pytest.mark.parametrize(
    "extra",
    [{"text": {"format": {}}}, {"generationConfig": {"responseJsonSchema": {}}}, {"generation_config": {"candidateCount": 2}}, {"output_config": {"format": {}}}],
    ids=str,
)  # fmt: skip
def test_structure_is_not_replaced_from_within(extra: Any):
    with pytest.raises(ValidationError, match="sets itself"):
        checked_extra(extra)


def test_fields_are_merged():
    """Mappings are filled in, anything else is replaced."""
    assert merged({"text": {"format": 1}}, {"text": {"verbosity": "low"}, "a": [1]}) == {
        "text": {"format": 1, "verbosity": "low"},
        "a": [1],
    }
    assert merged({"a": {"b": 1}}, {"a": 2}) == {"a": 2}


def client(service: str, model: str, **config: Any) -> Any:
    made = AdapterConfig(provider_type=service, model=model, api_key=SecretStr("sk-test"), **config)
    return providers.create(made, settings_with())


def body(service: str, model: str, **options: Any) -> dict[str, Any]:
    """What goes on the wire, as JSON."""
    asked = request("Hi.", service=service, model=model, **options)
    made = client(service, model)
    if service == "gemini":
        config = made._call(asked)["config"]
        words = config.model_dump(mode="json", by_alias=True, exclude_none=True)
        return words | words.get("httpOptions", {}).get("extraBody", {})
    if service == "local":
        from dipeo_nb.llm.providers.local import _payload

        return _payload(asked, asked.extra)
    if service.startswith("claude-code"):
        options = made._session_settings(asked).options(None)
        return {name: getattr(options, name) for name in ("effort", "thinking", "betas", "permission_mode", "tools")}
    words = made._body(asked)
    return words | words.pop("extra_body", {})


SAID: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("openai", "gpt-4o", {"top_p": 0.5}, {"top_p": 0.5}),
    ("openai", "gpt-5-nano", {"reasoning": "low"}, {"reasoning": {"effort": "low"}}),
    ("openai", "gpt-5-nano", {"reasoning": "max"}, {"reasoning": {"effort": "high"}}),
    ("openai", "gpt-5.1", {"reasoning": "minimal"}, {"reasoning": {"effort": "low"}}),
    ("openai", "gpt-5.1", {"reasoning": "none"}, {"reasoning": {"effort": "none"}}),
    ("openai", "o3", {"reasoning": "xhigh"}, {"reasoning": {"effort": "high"}}),
    ("openai", "gpt-6-sol", {"reasoning": "max"}, {"reasoning": {"effort": "max"}}),
    ("openai", "gpt-5-nano", {"reasoning": "low", "extra": {"reasoning": {"summary": "auto"}}}, {"reasoning": {"effort": "low", "summary": "auto"}}),
    ("openai", "gpt-5-nano", {"extra": {"text": {"verbosity": "low"}, "store": True}}, {"text": {"verbosity": "low"}, "store": True}),
    ("openai", "qwen3", {"extra": {"seed": 7, "chat_template_kwargs": {"enable_thinking": False}}}, {"seed": 7, "chat_template_kwargs": {"enable_thinking": False}}),
    ("openai", "gpt-4o", {"reasoning": "none"}, {"reasoning": None}),
    ("anthropic", "claude-sonnet-4-5", {"stop": ["A", "B"], "top_p": 0.5}, {"stop_sequences": ["A", "B"], "top_p": 0.5}),
    ("anthropic", "claude-opus-4-8", {"reasoning": "minimal"}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}),
    ("anthropic", "claude-opus-4-8", {"reasoning": "xhigh"}, {"output_config": {"effort": "xhigh"}}),
    ("anthropic", "claude-opus-4-8", {"reasoning": "none"}, {"thinking": {"type": "disabled"}}),
    ("anthropic", "claude-sonnet-4-5", {"reasoning": "medium", "temperature": 0.5}, {"thinking": {"type": "enabled", "budget_tokens": 8192}, "temperature": None}),
    ("anthropic", "claude-sonnet-4-5", {"reasoning": "high", "max_tokens": 4000}, {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
    ("anthropic", "claude-opus-4-8", {"extra": {"top_k": 5, "output_config": {"effort": "max"}}}, {"top_k": 5, "output_config": {"effort": "max"}}),
    ("gemini", "gemini-2.5-flash", {"stop": "X", "top_p": 0.5, "seed": 0}, {"stopSequences": ["X"], "topP": 0.5, "seed": 0}),
    ("gemini", "gemini-2.5-flash", {"reasoning": "none"}, {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 0}}),
    ("gemini", "gemini-2.5-pro", {"reasoning": "high"}, {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 16384}}),
    ("gemini", "gemini-3-flash", {"reasoning": "minimal"}, {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "MINIMAL"}}),
    ("gemini", "gemini-3-flash", {"reasoning": "max"}, {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "HIGH"}}),
    ("gemini", "gemini-3-flash", {"extra": {"serviceTier": "flex"}}, {"serviceTier": "flex"}),
    ("ollama", "llama3.2", {"stop": "X", "top_p": 0.5, "seed": 3}, {"options": {"stop": ["X"], "top_p": 0.5, "seed": 3}}),
    ("ollama", "qwen3", {"reasoning": "none"}, {"think": False}),
    ("ollama", "gpt-oss", {"reasoning": "minimal"}, {"think": "low"}),
    ("ollama", "gpt-oss", {"reasoning": "max"}, {"think": "high"}),
    ("ollama", "llama3.2", {"max_tokens": 5, "extra": {"options": {"num_ctx": 16384}, "keep_alive": "1h"}}, {"options": {"num_predict": 5, "num_ctx": 16384}, "keep_alive": "1h"}),
    ("local", "", {"stop": ["X"], "top_p": 0.5, "seed": 3, "extra": {"top_k": 4}}, {"stop": ["X"], "top_p": 0.5, "seed": 3, "top_k": 4}),
    ("claude-code", "", {"reasoning": "minimal", "extra": {"betas": ["x"]}}, {"effort": "low", "betas": ["x"], "tools": []}),
    ("claude-code", "", {"reasoning": "none"}, {"thinking": {"type": "disabled"}, "effort": None}),
]  # fmt: skip


@pytest.mark.parametrize(("service", "model", "options", "expected"), SAID, ids=lambda v: str(v)[:40])
def test_options_are_said_in_the_providers_words(service: str, model: str, options: dict[str, Any], expected: dict[str, Any]):
    found = body(service, model, **options)
    assert {name: found.get(name) for name in expected} == expected


def test_every_service_says_its_options():
    assert {row[0] for row in SAID} == {"openai", "anthropic", "gemini", "ollama", "local", "claude-code"}
    assert len(SAID) == 32


EFFORTS_TAKEN: Mapping[tuple[str, str], str] = {
    ("openai", "o3-mini"): "low medium high",
    ("openai", "gpt-5-nano-2025-08-07"): "minimal low medium high",
    ("openai", "gpt-5-codex"): "low medium high",
    ("openai", "gpt-5-pro"): "high",
    ("openai", "gpt-5.1"): "none low medium high",
    ("openai", "gpt-5.1-codex-max"): "none low medium high xhigh",
    ("openai", "gpt-5.2"): "none low medium high xhigh",
    ("openai", "gpt-5.3-codex"): "low medium high xhigh",
    ("openai", "gpt-5.4-mini"): "none low medium high xhigh",
    ("openai", "gpt-5.6-sol"): "none low medium high xhigh max",
    ("openai", "gpt-6-luna"): "none low medium high xhigh max",
    ("openai", "gpt-6.1-sol"): "none low medium high xhigh max",
    ("anthropic", "claude-opus-4-6"): "low medium high max",
    ("anthropic", "claude-sonnet-4-6"): "low medium high max",
    ("anthropic", "claude-opus-4-7"): "low medium high xhigh max",
    ("anthropic", "claude-sonnet-5"): "low medium high xhigh max",
    ("anthropic", "claude-opus-5-5"): "low medium high xhigh max",
    ("gemini", "gemini-3-pro-preview"): "low high",
    ("gemini", "gemini-3.1-pro-preview"): "low medium high",
    ("gemini", "gemini-3.5-flash-lite"): "minimal low medium high",
    ("gemini", "gemini-3.8-flash"): "low medium high",
    ("gemini", "gemini-4-argon"): "low medium high",
    ("gemini", "gemini-4-hydrogen"): "low medium high xhigh",
    ("gemini", "gemini-flash-latest"): "low medium high",
}
"""The efforts that models have, of the providers' pages; they refuse others."""
assert len(EFFORTS_TAKEN) == 24


@pytest.mark.parametrize(("service", "model"), EFFORTS_TAKEN)
def test_no_effort_is_sent_that_a_model_does_not_have(service: str, model: str):
    """Each that it has is sent as it is, and any other as the nearest of them; not to think is asked of those only that can."""
    taken = EFFORTS_TAKEN[service, model].split()
    for effort in EFFORTS:
        if effort == "none" and (service == "anthropic" or "none" not in taken):
            continue
        words = body(service, model, reasoning=effort)
        place, name = {
            "openai": ("reasoning", "effort"),
            "anthropic": ("output_config", "effort"),
            "gemini": ("thinkingConfig", "thinkingLevel"),
        }[service]
        sent = words[place][name].lower()
        assert sent == effort if effort in taken else sent in taken


NOT_TAKEN: list[tuple[str, str, dict[str, Any]]] = [
    ("openai", "gpt-4o", {"stop": "X"}),
    ("openai", "gpt-4o", {"seed": 1}),
    ("openai", "gpt-5-nano", {"top_p": 0.5}),
    ("openai", "gpt-4o", {"reasoning": "low"}),
    ("openai", "gpt-5-nano", {"reasoning": "none"}),
    ("openai", "o3-mini", {"reasoning": "none"}),
    ("anthropic", "claude-opus-4-8", {"top_p": 0.5}),
    ("anthropic", "claude-sonnet-4-5", {"seed": 1}),
    ("anthropic", "claude-3-5-haiku", {"reasoning": "low"}),
    ("anthropic", "claude-sonnet-4-5", {"reasoning": "low", "max_tokens": 1500}),
    ("gemini", "gemini-2.0-flash", {"reasoning": "low"}),
    ("gemini", "gemini-2.5-pro", {"reasoning": "none"}),
    ("gemini", "gemini-3-flash", {"reasoning": "none"}),
    ("local", "", {"reasoning": "low"}),
    ("claude-code", "", {"stop": "X"}),
    ("claude-code", "", {"top_p": 0.5}),
    ("claude-code", "", {"seed": 1}),
]


@pytest.mark.parametrize(("service", "model", "options"), NOT_TAKEN, ids=str)
def test_what_a_model_does_not_take_is_refused_before_the_call(service: str, model: str, options: dict[str, Any]):
    with pytest.raises(UnsupportedError) as caught:
        body(service, model, **options)
    assert caught.value.hint
    assert caught.value.provider == service


@pytest.mark.parametrize(
    "extra",
    [{"permission_mode": "bypassPermissions"}, {"cwd": "/"}, {"env": {"A": "b"}}, {"model": "x"}, {"nonsense": 1}],
    ids=str,
)
def test_claude_code_keeps_its_own_options(extra: dict[str, Any]):
    """What keeps it from files and commands is not changed from outside."""
    with pytest.raises(ValidationError, match="cannot hold"):
        body("claude-code", "", extra=extra)


@pytest.mark.parametrize("effort", EFFORTS)
def test_every_effort_has_its_words(effort: Any):
    """All efforts reach every model that can be told; only those that always think refuse to be kept from it."""
    for service, model in (("openai", "gpt-6-sol"), ("anthropic", "claude-opus-5"), ("anthropic", "claude-haiku-4-5"), ("gemini", "gemini-2.5-flash"), ("ollama", "x")):  # fmt: skip
        assert body(service, model, reasoning=effort)


def test_options_are_part_of_what_is_recorded():
    """Each of them makes another request; requests without any have the key that they had."""
    plain = request("Hi.", service="openai", model="gpt-4o")
    others = [{"top_p": 0.5}, {"stop": ("X",)}, {"seed": 0}, {"reasoning": "low"}, {"extra": {"a": 1}}, {"extra": {"a": 2}}]
    keys = [content_key(plain), *(content_key(replace(plain, **more)) for more in others)]
    assert len(set(keys)) == len(keys)
    assert keys[0] == content_key(replace(plain, stop=(), extra={}))


@pytest.mark.parametrize("model", ["gemini:gemini-3-flash", "gemini:gemini-2.5-pro", "openai:o3", "openai:gpt-5-nano"])
def test_a_fallback_that_always_thinks_is_asked_all_the_same(model: str):
    """Not to think is left out for it, instead of refused."""
    service, _, name = model.partition(":")
    asked = request("Hi.", service="anthropic", model="claude-opus-4-8", reasoning="none")
    found, left_out = adapted(asked, replace(asked, service=service, model=name))
    assert left_out == ["reasoning"]
    assert found.reasoning is None
    check_options(found)


def test_a_fallback_is_asked_without_what_it_does_not_take(tmp_path: Path):
    """The answer says what was left out."""
    with dp.Session(tmp_path) as session:
        answer = session.chat(
            "Hi.",
            model="ollama:none",
            base_url="http://127.0.0.1:9",
            extra={"keep_alive": 0},
            seed=3,
            fallbacks=["echo:3"],
            display=False,
        )
    assert answer.provider == "echo"
    assert any("no extra" in notice for notice in answer.notices)


# Diagrams.

LIGHT = """
version: light
persons:
  Ann:
    service: ollama
    model: llama3.2
    top_p: 0.5
    stop: [END, STOP]
    seed: 3
    reasoning: low
    extra: {options: {num_ctx: 16384}}
nodes:
- {label: Start, type: start}
- {label: Ask, type: person_job, person: Ann, default_prompt: Hi}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Ask}
- {from: Ask, to: End}
"""


def written(tmp_path: Path, text: str, name: str = "d.light.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("format", ["light", "native", "readable"])
def test_persons_keep_their_options_in_every_format(tmp_path: Path, format: Any):
    """Read, written, read again: the same."""
    diagram = load(written(tmp_path, LIGHT))
    assert not diagram.diagnostics
    again = load_text(formats.write(diagram.model, format), format=format)
    assert not again.diagnostics
    llm = next(iter(again.compile().persons.values())).llm
    assert (llm.top_p, llm.stop, llm.seed, llm.reasoning) == (0.5, ("END", "STOP"), 3, "low")
    assert llm.passthrough == {"options": {"num_ctx": 16384}}
    assert not llm.extra


@pytest.mark.parametrize(
    "line",
    ["top_p: 2", "stop: ['']", "seed: 1.5", "reasoning: hard", "extra: 5", "extra: {model: x}", "extra: {base_url: 'http://x'}", "temperature: 9", "temperature: .nan",
     "max_tokens: 0", "max_tokens: -1", "max_tokens: 1.5", "temperature: '0.5'"],
)  # fmt: skip
def test_a_wrong_option_of_a_person_is_found_by_reading(tmp_path: Path, line: str):
    """With its place; nothing runs."""
    text = LIGHT.replace(
        "    top_p: 0.5\n    stop: [END, STOP]\n    seed: 3\n    reasoning: low\n    extra: {options: {num_ctx: 16384}}",
        f"    {line}",
    )
    found = [d for d in load(written(tmp_path, text)).diagnostics if d.severity == "error"]
    assert len(found) == 1
    assert found[0].line == 7
    assert line.partition(":")[0] in found[0].message


def test_a_persons_options_reach_its_model(tmp_path: Path):
    """In its answers, and in its decisions but for the texts to stop at."""
    service = scripted("yes")
    text = LIGHT.replace(
        "- {label: End, type: endpoint}",
        "- {label: Good, type: condition, condition_type: llm_decision, person: Ann, judge_by: Is it?}\n- {label: End, type: endpoint}",
    ).replace("- {from: Ask, to: End}", "- {from: Ask, to: Good}\n- {from: Good_condtrue, to: End}")
    with dp.Session(tmp_path, llm=service) as session:
        session.run(written(tmp_path, text), view=False)
    seen = service.requests
    assert [(r.top_p, r.seed, r.reasoning, dict(r.extra)) for r in seen] == [
        (0.5, 3, "low", {"options": {"num_ctx": 16384}})
    ] * 2
    assert [r.stop for r in seen] == [("END", "STOP"), ()]


# What a diagram of somebody else's may fill in.

HARMLESS = [
    {"top_k": 5}, {"options": {"num_ctx": 16384, "top_k": 3}}, {"text": {"verbosity": "low"}}, {"reasoning": {"effort": "low", "summary": "auto"}},
    {"thinking": {"type": "enabled", "budget_tokens": 2048}}, {"generationConfig": {"topK": 4, "thinkingConfig": {"thinkingBudget": 0}}},
    {"chat_template_kwargs": {"enable_thinking": False}}, {"think": False}, {"logit_bias": {"5": 1}},
]  # fmt: skip
POWERS = [
    {"mcp_servers": [{"url": "https://evil.example"}]}, {"store": True}, {"background": True}, {"metadata": {"a": "b"}}, {"service_tier": "priority"},
    {"include": ["file_search_call.results"]}, {"web_search_options": {}}, {"plugins": [{"id": "web"}]}, {"container": "c"}, {"context_management": []},
    {"cachedContent": "x"}, {"safetySettings": []}, {"options": {"num_ctx": 10**9}}, {"options": {"num_gpu": 99}}, {"keep_alive": -1},
    {"reasoning": {"mode": "pro"}}, {"provider": {"order": ["x"]}}, {"models": ["other"]}, {"fallbacks": ["other"]}, {"user": "me"}, {"guardrails": []},
    {"mcpServers": {}}, {"hooks": {}}, {"add_dirs": ["/"]}, {"cli_path": "/tmp/x"}, {"top_k": {"nested": [1]}}, {"think": [1]}, {"metadata": {}}, {"unknown": 1},
    {"thinking": {"other": 1}}, {"options": []}, {"generation_config": {"speech_config": {}}}, {"text": "x"}, {"prompt_cache_key": "x"},
]  # fmt: skip


def test_all_cases_are_there():
    assert (len(HARMLESS), len(POWERS), len(OURS)) == (9, 34, 30)


@pytest.mark.parametrize("extra", HARMLESS, ids=str)
def test_what_shapes_the_words_is_free(extra: dict[str, Any]):
    assert beyond_wording(extra) == []


@pytest.mark.parametrize("extra", POWERS, ids=str)
def test_everything_else_has_to_be_allowed(tmp_path: Path, extra: dict[str, Any]):
    """It is on the list of what the diagram wants, with its value, and a guest's call with it is refused."""
    assert [json.loads(value) for _, value in beyond_wording(extra)]
    text = LIGHT.replace("extra: {options: {num_ctx: 16384}}", f"extra: {json.dumps(extra)}")
    wants = load(written(tmp_path, text)).capabilities().uses.of("service")
    assert [use.what for use in wants] == [f"ollama.{path}" for path, _ in beyond_wording(extra)]


@pytest.mark.parametrize(
    "extra", [{"top_k": 5}, {"mcp_servers": [{"url": "https://evil.example"}]}], ids=["harmless", "powers"]
)
def test_a_guest_gains_no_powers_by_further_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]):
    """What shapes the words runs unasked; anything else is asked about, and never sent when nobody agrees. A yes is for that value."""
    monkeypatch.delenv("DIPEO_TRUST", raising=False)
    text = LIGHT.replace("extra: {options: {num_ctx: 16384}}", f"extra: {json.dumps(extra)}")
    path = written(tmp_path, text)
    service = scripted("ok")
    with dp.Session(tmp_path, llm=service) as session:
        if "top_k" in extra:
            assert session.run(path, view=False).status == "completed"
            return
        with pytest.raises(TrustError) as caught:
            session.run(path, view=False)
        assert "https://evil.example" in "".join(caught.value.listing())
        assert not service.requests
        assert session.run(path, view=False, model="echo").status == "completed"
        assert dict(service.requests[-1].extra) == {}
        assert session.run(path, view=False, allow={"service": "ollama.mcp_servers"}).status == "completed"
        assert session.run(path, view=False, trust=True).status == "completed"
        assert dict(service.requests[-1].extra) == extra
        path.write_text(text.replace("evil", "worse"))
        with pytest.raises(TrustError):
            session.run(path, view=False)


def test_a_guests_request_is_checked_once_more_when_it_is_made(tmp_path: Path):
    """Also one that no person of the file makes."""
    with dp.Session(tmp_path, llm=scripted("ok")) as session:
        closure = load_text(LIGHT).capabilities()
        gate = Gate(Level.GUEST, session.runtime.services, closure)
        asked = request("Hi.", service="openai", model="gpt-4o", extra={"store": True})
        with pytest.raises(NotGrantedError, match=r"openai\.store"):
            gate.services.llm.stream(asked)
        gate.services.llm.stream(replace(asked, extra={"top_k": 1}))
