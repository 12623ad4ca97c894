"""When models are shut down: the table, what depends on the day, the errors after it, and which models our own texts name."""

from __future__ import annotations

import copy
import json
import pickle
import re
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.cli import main
from dipeo_nb.common import clock
from dipeo_nb.config import (
    DEFAULT_MODEL,
    DEFAULT_MODEL_AFTER,
    DEFAULT_MODEL_ENDS,
    Settings,
    get_settings,
    reset_settings,
)
from dipeo_nb.domain import lifecycle as table
from dipeo_nb.domain.chat import ChatMessage, LLMRequest, LLMResponse, StreamEvent, ToolCall, ToolConfig, ToolResult
from dipeo_nb.domain.lifecycle import Lifecycle, at_provider, lifecycle
from dipeo_nb.errors import ProviderError, RecordingNotFoundError
from dipeo_nb.llm import catalogue, model_check, providers
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.cassette import in_words, read
from dipeo_nb.llm.catalogue import DefaultModelWarning
from dipeo_nb.llm.core.errors import ErrorContext, said_in_stream, status_error
from dipeo_nb.llm.pricing import is_priced
from dipeo_nb.llm.providers.echo import EchoClient
from dipeo_nb.llm.recording import Recordings
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.environment import EnvironmentAPIKeyService
from scripts import check_lifecycle
from tests.support import wire_google
from tests.support.batch_apis import OpenAI as BatchOfOpenAI
from tests.support.wire_openai import Call, ScriptedServer, Seen, request, run, says, settings_with
from tests.support.wire_protocols import WIRES, Wire

ROOT = Path(__file__).parents[2]
NOW = date(2026, 11, 28)
AFTER = date(2026, 12, 12)


@pytest.fixture(autouse=True)
def today() -> Iterator[None]:
    with clock.on(NOW):
        yield


@pytest.fixture(autouse=True)
def not_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_said", set[str]())


# The table.

SERVICES = ("anthropic", "gemini", "openai")
NOT_FOR_TEXT = re.compile(r"image|realtime|audio|live|embedding|robotics|omni|dall-e|sora|mythos")
"""Models that no person talks to, or that only some may ask."""


def test_every_row_is_whole():
    """Names are unique and as they are looked up, ends are dates, sources have an address and a day of reading before today."""
    rows = {service: table.table(service) for service in SERVICES}
    assert {service: len(found) for service, found in rows.items()} == {"anthropic": 35, "gemini": 55, "openai": 130}
    for found in rows.values():
        for name, row in found.items():
            assert name == table.base_name(name)
            assert row.url.startswith("https://")
            assert row.read <= NOW
            assert date(2023, 1, 1) < row.ends < date(2030, 1, 1)


@pytest.mark.parametrize("service", SERVICES)
def test_replacements_live_on_and_are_known(service: str):
    """What is recommended has no announced end within 90 days, is in the price list, and has a profile of its own family."""
    recommended: set[str] = set()
    for name in table.table(service):
        found = lifecycle(service, name, NOW)
        if found.replacement is None:
            assert name.startswith("sora") or name == "gpt-5.5-cyber-preview"
            continue
        replacement = found.replacement.partition(":")[2]
        assert not lifecycle(service, replacement, NOW).soon, f"{name} → {replacement}"
        recommended.add(replacement)
    for model in sorted(m for m in recommended if not NOT_FOR_TEXT.search(m)):
        assert is_priced(service, model), model
        assert capabilities_of(service, model).max_output_tokens, model


def test_the_default_of_the_settings_agrees_with_the_table():
    """The constants that decide about the default model are those of its row."""
    found = lifecycle("openai", DEFAULT_MODEL)
    assert (found.ends, found.replacement) == (DEFAULT_MODEL_ENDS, f"openai:{DEFAULT_MODEL_AFTER}")


def test_the_sdks_know_nothing_that_the_table_does_not(capsys: pytest.CaptureFixture[str]):
    """Dates that the installed SDKs name are in the table; a newer SDK fails here until its dates are taken over."""
    assert check_lifecycle.main() == 0, capsys.readouterr().out
    assert int(capsys.readouterr().out.split()[0]) > 70


CASES: list[tuple[str, str, date, tuple[str, int | None, str | None]]] = [
    ("openai", "gpt-5-nano-2025-08-07", NOW, ("ending", 13, "openai:gpt-6-luna")),
    ("openai", "gpt-5-nano", NOW, ("ending", 13, "openai:gpt-6-luna")),
    ("OpenAI", " GPT-5-Nano ", NOW, ("ending", 13, "openai:gpt-6-luna")),
    ("openai", "gpt-5-nano", date(2026, 12, 10), ("ending", 1, "openai:gpt-6-luna")),
    ("openai", "gpt-5-nano", date(2026, 12, 11), ("ended", 0, "openai:gpt-6-luna")),
    ("openai", "gpt-5-nano", date(2027, 2, 1), ("ended", -52, "openai:gpt-6-luna")),
    ("openai", "gpt-5", NOW, ("ending", 13, "openai:gpt-6.1-sol")),
    ("openai", "gpt-5-mini", NOW, ("ending", 13, "openai:gpt-6.1-terra")),
    ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc", NOW, ("ending", 47, "openai:gpt-6-luna")),
    ("chatgpt", "gpt-4o", NOW, ("ending", 47, "openai:gpt-6-luna")),
    ("openai", "gpt-4-32k", NOW, ("ended", -540, "openai:gpt-6-luna")),  # by way of gpt-4o
    ("openai", "o1-mini", NOW, ("ended", -397, "openai:gpt-5.6-terra")),  # by way of o4-mini
    ("openai", "sora-2", NOW, ("ended", -65, None)),
    ("openai", "gpt-6-luna", NOW, ("active", None, None)),
    ("openai", "gpt-5-nano-of-mine", NOW, ("active", None, None)),
    ("openai", "", NOW, ("active", None, None)),
    ("anthropic", "claude-sonnet-4-5", NOW, ("ending", 2, "anthropic:claude-sonnet-5-5")),
    ("anthropic", "claude-opus-4-5-20251101", NOW, ("ending", 55, "anthropic:claude-opus-5-5")),
    ("claude", "claude-3-5-sonnet-latest", NOW, ("ended", -396, "anthropic:claude-sonnet-4-6")),
    ("claude-code", "claude-opus-4-5", NOW, ("ending", 55, "claude-code:claude-opus-5-5")),
    ("anthropic", "claude-sonnet-5", NOW, ("active", None, None)),
    ("gemini", "gemini-2.5-flash", NOW, ("ending", 3, "gemini:gemini-3.5-flash-lite")),
    ("google", "models/gemini-2.5-pro", NOW, ("ending", 3, "gemini:gemini-3.8-flash")),
    ("gemini", "gemini-2.0-flash-lite", NOW, ("ended", -180, "gemini:gemini-3.5-flash-lite")),  # by way of 3.1
    ("gemini", "gemini-2.5-flash-lite", NOW, ("active", None, None)),
    ("ollama", "gpt-5-nano", NOW, ("active", None, None)),
    ("local", "gpt-5-nano", NOW, ("active", None, None)),
    ("acme", "gpt-5-nano", NOW, ("active", None, None)),
]  # fmt: skip


@pytest.mark.parametrize(("service", "model", "day", "expected"), CASES, ids=[f"{m or 'none'}@{d}" for _, m, d, _ in CASES])
def test_where_a_model_stands(service: str, model: str, day: date, expected: tuple[str, int | None, str | None]):
    """Status, days left and replacement on a day; aliases, fine-tuned versions and Google's `models/` included."""
    found = lifecycle(service, model, day)
    assert (found.status, found.days_left, found.replacement) == expected


def test_the_sentences():
    """What is said before, on and after the day."""
    said = [lifecycle("openai", "gpt-5", DEFAULT_MODEL_ENDS + timedelta(days)).sentence for days in (-13, -1, 0, 1)]
    assert said == [
        "gpt-5 is shut down on 2026-12-11 (13 days)",
        "gpt-5 is shut down on 2026-12-11 (1 day)",
        "gpt-5 was shut down on 2026-12-11 (today)",
        "gpt-5 was shut down on 2026-12-11 (1 day ago)",
    ]
    assert lifecycle("openai", "gpt-6-luna").sentence == lifecycle("openai", "gpt-6-luna").advice == ""
    assert lifecycle("openai", "sora-2").advice == "choose another model; none is recommended"


@pytest.mark.parametrize(
    ("service", "base_url", "setting", "judged"),
    [
        ("openai", None, None, True),
        ("openai", "https://api.openai.com/v1", None, True),
        ("openai", "https://eu.api.openai.com/v1", None, True),
        ("openai", "https://mine.openai.azure.com/openai/v1", None, False),
        ("openai", "https://openrouter.ai/api/v1", None, False),
        ("openai", None, "http://localhost:4000/v1", False),
        ("openai", "https://api.openai.com/v1", "http://localhost:4000/v1", True),
        ("anthropic", None, None, True),
        ("gemini", "https://proxy.example/v1beta", None, False),
        ("ollama", None, None, False),
        ("local", None, None, False),
    ],
)
def test_only_the_providers_own_servers_are_judged(service: str, base_url: str | None, setting: str | None, judged: bool):
    """Clouds, gateways and servers of one's own have dates of their own."""
    settings = settings_with(openai_base_url=setting) if setting else get_settings()
    assert at_provider(service, base_url, settings) is judged


# Errors.


async def answered(settings: Settings, asked: LLMRequest) -> LLMResponse:
    llm = LLMService(settings, EnvironmentAPIKeyService(settings))
    try:
        return await llm.complete(asked)
    finally:
        await llm.cleanup()


REFUSED = [
    (
        "openai",
        "gpt-5-nano-2025-08-07",
        404,
        "The model `gpt-5-nano-2025-08-07` does not exist or you do not have access to it.",
    ),
    ("openai", "gpt-5-nano-2025-08-07", 404, "The model has been deprecated, learn more here: https://x.example"),
    ("openai", "gpt-5-nano-2025-08-07", 400, "The model gpt-5-nano-2025-08-07 has been shut down."),
    ("openai", "gpt-5-nano-2025-08-07", 404, "nothing here"),
    ("openai", "gpt-5-nano-2025-08-07", 410, "Gone"),
    ("anthropic", "claude-3-7-sonnet-latest", 404, "model: claude-3-7-sonnet-latest"),
    ("gemini", "gemini-2.0-flash", 404, "models/gemini-2.0-flash is not found for API version v1beta."),
    ("gemini", "gemini-2.0-flash", 404, "This model models/gemini-2.0-flash is no longer available to new users."),
]


@pytest.mark.filterwarnings("ignore:The model '.*' is deprecated:DeprecationWarning")  # of the SDK
@pytest.mark.parametrize(("service", "model", "status", "words"), REFUSED)
def test_a_refusal_after_the_end_names_the_replacement(service: str, model: str, status: int, words: str):
    """Over the wire, by the real adapter: what was said, when the model was shut down, and what replaces it; one call only."""
    wire: Wire = next(w for w in WIRES if w.service == service)
    with clock.on(AFTER), wire.server(wire.refuses(status, words)) as server:
        settings = settings_with(
            **{wire.url_setting: server.url.removesuffix("/v1") + wire.path, wire.key_setting: "key-of-the-test"}
        )
        with pytest.raises(ProviderError) as caught:
            run(answered(settings, request(service=service, model=model)))
        assert len(server.seen) == 1
    found = lifecycle(service, model, AFTER)
    error = caught.value
    assert words.rstrip(".") in error.message
    assert f"{model} was shut down on {found.ends}" in error.message
    assert str(error.hint).startswith(f"Replace it with {found.replacement}.")
    assert error.status == status


@pytest.mark.parametrize(
    ("day", "model", "status", "code", "words", "named"),
    [
        (NOW, "gpt-5", 404, "model_not_found", "The model `gpt-5` does not exist.", True),  # earlier than announced
        (NOW, "gpt-5", 403, "model_not_found", "Project `p` does not have access to model `gpt-5`.", True),
        (NOW, "gpt-5", 404, "", "nothing here", False),
        (AFTER, "gpt-5", 404, "", "nothing here", True),
        (AFTER, "gpt-5", 400, "", "Unsupported parameter: 'temperature' is not supported with this model.", False),
        (AFTER, "gpt-5", 429, "", "Rate limit reached for the model.", False),
        (AFTER, "gpt-5", 401, "", "Incorrect API key provided.", False),
        (AFTER, "gpt-5", 500, "", "The model is not available.", False),
        (AFTER, "gpt-99", 404, "model_not_found", "The model `gpt-99` does not exist.", False),
    ],
)
def test_only_refusals_of_the_model_name_it(day: date, model: str, status: int, code: str, words: str, named: bool):
    """Other refusals keep their own advice, before and after the day."""
    with clock.on(day):
        error = status_error(ErrorContext("openai", model, lifecycle=lifecycle("openai", model)), status, words, code=code)
        assert ("gpt-6.1-sol" in (error.hint or "")) is named
        streamed = said_in_stream(
            ErrorContext("openai", model, lifecycle=lifecycle("openai", model)), code or str(status), words
        )
        assert ("gpt-6.1-sol" in (streamed.hint or "")) is (named and bool(code or status != 403))


@pytest.mark.parametrize(
    ("model", "time", "said"),
    [
        ("gemini-3.8-flash", "2026-12-20T00:00:00Z", ["gemini: gemini-3.8-flash is shut down on 2026-12-20 (22 days); choose another model; none is recommended."]),
        ("gemini-2.5-flash", "2026-12-05T00:00:00Z", ["gemini: gemini-2.5-flash is shut down on 2026-12-05 (7 days); replace it with gemini:gemini-3.5-flash-lite."]),
        ("gemini-3.7-flash", "2028-01-01T00:00:00Z", []),
        ("gemini-3.7-flash", None, []),
    ],
)  # fmt: skip
def test_what_an_answer_of_gemini_says(model: str, time: str | None, said: list[str]):
    """Google's answers may say when their model is retired: that is said once, and goes before the table."""
    table._warned.clear()
    status = {"modelStatus": {"modelStage": "LEGACY", **({"retirementTime": time} if time else {})}}
    events = [wire_google.chunk(wire_google.text("Hi"), finish="STOP") | status]
    with (
        ScriptedServer(wire_google.streams(*events), wire_google.streams(*events)) as server,
        warnings.catch_warnings(record=True) as warned,
    ):
        warnings.simplefilter("always")
        settings = settings_with(google_base_url=server.url.removesuffix("/v1"), google_api_key="key-of-the-test")
        for _ in range(2):
            assert run(answered(settings, request(service="gemini", model=model))).text == "Hi"
    assert [str(w.message) for w in warned if issubclass(w.category, table.ModelEndsWarning)] == said


def test_an_error_before_it_is_asked_of_a_gateway_that_has_the_model():
    """A server that still has the model is asked, and answers, whatever the day: the table refuses nothing."""
    with clock.on(AFTER), ScriptedServer(says("Still here.")) as server:
        settings = settings_with(openai_base_url=server.url, openai_api_key="key-of-the-test")
        assert run(answered(settings, request(service="openai", model="gpt-5"))).text == "Still here."


# The default model.


def defaults(day: date, settings: Settings | None = None) -> tuple[str, str]:
    with clock.on(day):
        return (settings or get_settings()).default_llm_model, catalogue.named(None, settings or get_settings())[1]


def test_the_default_has_a_successor():
    """The documented default until its end, its successor from then on: in a process that goes on, too."""
    kept = get_settings()
    assert defaults(NOW, kept) == defaults(date(2026, 12, 10), kept) == (DEFAULT_MODEL, DEFAULT_MODEL)
    with pytest.warns(DefaultModelWarning):
        assert defaults(DEFAULT_MODEL_ENDS, kept) == (DEFAULT_MODEL_AFTER, DEFAULT_MODEL_AFTER)
    assert kept.model_dump()["default_llm_model"] == DEFAULT_MODEL
    assert f"default_llm_model='{DEFAULT_MODEL}'" in repr(kept)
    assert pickle.loads(pickle.dumps(kept)) == kept == kept.model_copy()


def test_explain_says_where_the_default_comes_from():
    """Its origin is the default, with the day and the model that it replaces."""

    def row() -> tuple[str, str]:
        return next((s.value, s.source) for s in get_settings().explain() if s.name == "default_llm_model")

    assert row() == (DEFAULT_MODEL, "default")
    with clock.on(AFTER):
        assert row() == (DEFAULT_MODEL_AFTER, f"default since {DEFAULT_MODEL_ENDS}, when {DEFAULT_MODEL} was shut down")


def test_one_warning_in_a_process():
    """However often, and by whichever way, the successor is used: it is said once. A chosen model says nothing."""
    with clock.on(AFTER), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(3):
            assert dp.llm().name == "openai:gpt-6-luna"
        catalogue.named(None, settings_with(llm_timeout=3.0))
        assert catalogue.named(None, settings_with(default_llm_model=DEFAULT_MODEL)) == ("openai", DEFAULT_MODEL)
        assert catalogue.named("openai", get_settings()) == ("openai", DEFAULT_MODEL_AFTER)
    told = [str(w.message) for w in said if issubclass(w.category, DefaultModelWarning)]
    assert len(told) == 1
    assert all(word in told[0] for word in (DEFAULT_MODEL, DEFAULT_MODEL_AFTER, "DIPEO_DEFAULT_LLM_MODEL"))


DAYS = ((date(2026, 12, 10), DEFAULT_MODEL, 0), (DEFAULT_MODEL_ENDS, DEFAULT_MODEL_AFTER, 1), (AFTER, DEFAULT_MODEL_AFTER, 1))
"""A day, the model that is asked by default, and how often its change is said."""


@pytest.mark.parametrize(("day", "model", "said"), DAYS)
def test_every_way_to_ask_the_default(day: date, model: str, said: int, tmp_path: Path):
    """The day before, on the day and after it: models and conversations that were made long before, too, batches and runs."""
    (tmp_path / "p.light.yaml").write_text(PLAIN)
    provider = BatchOfOpenAI(looks=1)

    def reply(call: Call) -> None:
        (provider if call.seen.path.removeprefix("/v1").startswith(("/files", "/batches")) else says("Fine."))(call)

    with ScriptedServer(reply) as server:
        settings = settings_with(base_dir=tmp_path, openai_base_url=server.url, openai_api_key="key-of-the-test")
        with dp.Session(settings=settings) as session, warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            early, named, spoken = session.llm(), session.llm(f"openai:{DEFAULT_MODEL}"), session.llm("openai").conversation()
            assert spoken("Hi.", display=False).text == "Fine."
            server.seen.clear()
            with clock.on(day):
                ways: dict[str, Callable[[], Any]] = {
                    "chat": lambda: session.chat("Hi.", display=False),
                    "model of before": lambda: early.chat("Hi.", display=False),
                    "conversation of before": lambda: spoken("Hi.", display=False),
                    "stream": lambda: list(session.llm().stream("Hi.")),
                    "several": lambda: session.llm().batch(["Hi."]),
                    "copy of a model of before": lambda: copy.deepcopy(early).chat("Hi.", display=False),
                    "run": lambda: session.run(PLAIN),
                    "run of a file": lambda: session.run("p"),
                    "batch": lambda: early.submit(["item 0"]).wait(interval=0.01).collect(),
                }
                for way, work in ways.items():
                    before = len(server.seen)
                    work()
                    bodies = [seen.body or _submitted(seen) for seen in server.seen[before:]]
                    assert {body["model"] for body in bodies if "model" in body} == {model}, way
                assert early.name == f"openai:{model}"
                named.chat("Hi.", display=False)
                assert server.seen[-1].body["model"] == DEFAULT_MODEL
    assert sum(issubclass(w.category, DefaultModelWarning) for w in warned) == said


def _submitted(seen: Seen) -> dict[str, Any]:
    """The request in a file of a batch."""
    lines = [line for line in seen.raw.decode(errors="replace").splitlines() if line.startswith("{")]
    return json.loads(lines[0])["body"] if lines else {}


@pytest.mark.parametrize(("day", "model", "said"), DAYS)
def test_the_command_line_asks_the_default(
    day: date, model: str, said: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A run of it; what checks a diagram or a file that names no model has nothing to say of it."""
    (folder / "p.light.yaml").write_text(PLAIN)
    with ScriptedServer(says("Fine.")) as server, clock.on(day), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
        reset_settings()
        assert main(["validate", "p.light.yaml"]) == main(["models", "check", "p.light.yaml"]) == 0
        assert main(["run", "p.light.yaml"]) == 0
    assert [seen.body["model"] for seen in server.seen] == [model]
    assert "model-ends" not in capsys.readouterr().err
    assert sum(issubclass(w.category, DefaultModelWarning) for w in warned) == said


def test_a_default_that_somebody_chose_stays(monkeypatch: pytest.MonkeyPatch):
    """The old name, given by the user, is the user's word also after the day."""
    monkeypatch.setenv("DIPEO_DEFAULT_LLM_MODEL", DEFAULT_MODEL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert defaults(AFTER, Settings()) == (DEFAULT_MODEL, DEFAULT_MODEL)


PLAIN = """
version: light
persons: {Ada: {}}
nodes:
  - {label: Start, type: start}
  - {label: Ask, type: person_job, props: {person: Ada, default_prompt: Say hello.}}
  - {label: End, type: endpoint}
connections:
  - {from: Start, to: Ask}
  - {from: Ask, to: End}
"""


@pytest.mark.filterwarnings("ignore::dipeo_nb.llm.catalogue.DefaultModelWarning")
def test_answers_of_the_default_of_old_replay(tmp_path: Path):
    """Recorded under the old default, in chats and diagrams; replayed after its end. What names the successor is another request."""
    with ScriptedServer(says("Hello of old.")) as server:
        old = settings_with(openai_base_url=server.url, openai_api_key="key-of-the-test", default_llm_model=DEFAULT_MODEL)
        with dp.Session(settings=old) as session, Recordings(tmp_path / "kept", "record"):
            assert session.chat("Say hello.", display=False).text == "Hello of old."
            assert session.run(PLAIN).outputs["End"] == "Hello of old."
        url = server.url
    new = settings_with(openai_base_url=url, openai_api_key="key-of-the-test")
    with clock.on(AFTER), dp.Session(settings=new) as session, Recordings(tmp_path / "kept", "replay") as kept:
        answer = session.chat("Say hello.", display=False)
        assert (answer.text, answer.model) == ("Hello of old.", "gpt-5-nano-2025-08-07")
        assert session.run(PLAIN).outputs["End"] == "Hello of old."
        assert session.llm().conversation()("Say hello.", display=False).text == "Hello of old."
        assert kept.replayed == 3
        with pytest.raises(RecordingNotFoundError):
            session.chat("Say hello.", model="openai:gpt-6-luna", display=False)


TWO = PLAIN.replace(
    "Say hello.}}", "First.}}\n  - {label: Again, type: person_job, props: {person: Ada, default_prompt: Second.}}"
).replace("{from: Ask, to: End}", "{from: Ask, to: Again}\n  - {from: Again, to: End}")


@pytest.mark.filterwarnings("ignore::dipeo_nb.llm.catalogue.DefaultModelWarning")
def test_a_run_goes_on_after_the_day(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Begun under the old default and resumed under its successor: what was done stays, the rest asks the successor. A fork reuses it."""
    asked: list[tuple[str, str]] = []

    class Once(EchoClient):
        async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
            asked.append((request.model, request.messages[-1].content))
            if request.model == DEFAULT_MODEL and "Second" in request.messages[-1].content:
                raise ProviderError("It failed.", status=400)
            async for event in super().stream(request):
                yield event

    monkeypatch.setattr(providers, "create", lambda config, settings: Once(config, settings=settings))
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
    reset_settings()
    (tmp_path / "two.light.yaml").write_text(TWO)
    with dp.Session(tmp_path) as session:
        with pytest.raises(ProviderError) as caught:
            session.run("two")
        begun = str(caught.value.run_id)  # type: ignore[attr-defined]
        assert asked == [(DEFAULT_MODEL, "First."), (DEFAULT_MODEL, "Second.")]
        with clock.on(AFTER):
            assert session.resume(begun).result().status == "completed"
            assert asked[2:] == [(DEFAULT_MODEL_AFTER, "Second.")]
            assert session.fork(begun, at="Again").result().status == "completed"
            assert asked[3:] == [(DEFAULT_MODEL_AFTER, "Second.")]


def test_the_command_line_warns_of_models_that_are_asked_only(folder: Path, capsys: pytest.CaptureFixture[str]):
    """A run that moves all persons says nothing of the diagram's models; `validate` does, and calls it valid."""
    (folder / "d.light.yaml").write_text(DYING)
    assert main(["validate", "d.light.yaml"]) == 0
    assert capsys.readouterr().err.count("warning[model-ends]") == 2
    assert main(["run", "d.light.yaml", "--model", "echo"]) == 0
    assert "model-ends" not in capsys.readouterr().err


# Recordings made before the tutorials moved to models that live on.

BEFORE = ROOT / "tests" / "golden" / "recordings"


def rebuilt(words: dict[str, Any]) -> LLMRequest:
    """The request that a recording is of."""
    messages = []
    for m in words["messages"]:
        calls = tuple(ToolCall(**call) for call in m.get("tool_calls", ()))
        result = (
            ToolResult(m["tool_result"]["call_id"], m["content"], m["tool_result"].get("is_error", False))
            if "tool_result" in m
            else None
        )
        messages.append(ChatMessage(m["role"], m.get("content", ""), m.get("name"), calls, result, m.get("raw")))
    return LLMRequest(
        words["service"], words.get("model", ""), messages, temperature=words.get("temperature"),
        max_tokens=words.get("max_tokens"), response_format=words.get("response_schema"), output_mode=words.get("rung"),
        tools=[ToolConfig(**tool) for tool in words.get("tools", ())], tool_choice=words.get("tool_choice"),
        base_url=words.get("base_url"),
    )  # fmt: skip


def test_recordings_made_before_still_replay():
    """All of them, by their contents, on a day on which their models are gone."""
    kept = Recordings(BEFORE, "replay")
    names = sorted(path.name for path in BEFORE.glob("*.json"))
    assert len(names) == 21

    async def replayed(asked: LLMRequest) -> Any:
        events = await kept.replay(asked)
        assert events is not None
        return [event async for event in events][-1].response

    with clock.on(AFTER):
        for name in names:
            words, answers = read(kept._root, name)
            asked = rebuilt(words)
            assert in_words(asked) == words
            if "response" in answers[0]:
                assert run(replayed(asked)).cached


def test_the_calls_of_the_old_tutorial_replay(monkeypatch: pytest.MonkeyPatch):
    """As its reader made them, with no key and no server."""
    monkeypatch.setenv("DIPEO_LLM_MODE", "replay")
    reset_settings()
    with clock.on(AFTER), Recordings(BEFORE, "replay"):
        assert dp.chat("Tabs or spaces? One sentence.", model="openai:gpt-5-nano", display=False).text.startswith("Spaces")
        assert (
            dp.chat("Say hello in your own way.", model="gemini:gemini-2.5-flash", display=False).text
            == "Hi! Two stars rise to greet you."
        )
        capitals = dp.llm("openai:gpt-5-nano").batch(["Capital of Italy?", "Capital of Norway?", "Capital of Kenya?"])
        assert [getattr(answer, "text", None) for answer in capitals] == ["Rome", "Oslo", "Nairobi"]


# Diagrams, and the command that finds what must move.

DYING = """version: light
persons:
  Ada: {service: openai, model: gpt-5-nano-2025-08-07}  # the first
  Bob:
    service: anthropic
    model: claude-opus-4-5
  Cyd: {service: openai, model: gpt-5, base_url: "http://localhost:4000/v1"}
  Dee: {service: openai, model: gpt-5.1}
  Eve: {}
nodes:
  - {label: Start, type: start}
  - {label: Ask, type: person_job, props: {person: Ada, default_prompt: Hi}}
  - {label: End, type: endpoint}
connections:
  - {from: Start, to: Ask}
  - {from: Ask, to: End}
"""


def findings(text: str, day: date) -> list[tuple[str, int | None, str, str]]:
    with clock.on(day):
        return [(str(d.severity), d.line, d.message, d.hint or "") for d in dp.load(text).check() if d.code == "model-ends"]


def test_a_diagram_is_warned_of_models_that_end():
    """With the place, the day, the days left and the replacement; never an error; not for servers of one's own."""
    assert findings(DYING, NOW) == [
        (
            "warning", 3, "Person 'Ada': gpt-5-nano-2025-08-07 is shut down on 2026-12-11 (13 days).",
            "Replace it with openai:gpt-6-luna: `dipeo-nb models check --fix FILE` does.",
        ),
        (
            "warning", 6, "Person 'Bob': claude-opus-4-5 is shut down on 2027-01-22 (55 days).",
            "Replace it with anthropic:claude-opus-5-5: `dipeo-nb models check --fix FILE` does.",
        ),
    ]  # fmt: skip
    assert [(severity, line) for severity, line, *_ in findings(DYING, date(2027, 5, 1))] == [
        ("warning", 3),
        ("warning", 6),
        ("warning", 8),
    ]
    assert findings(DYING, date(2026, 6, 1)) == []


def test_a_gateway_in_the_settings_is_not_judged():
    """With OPENAI_BASE_URL elsewhere the provider's dates say nothing."""
    with dp.override_settings(openai_base_url="http://localhost:4000/v1"):
        assert [line for _, line, *_ in findings(DYING, NOW)] == [6]


def test_a_diagram_of_an_ended_model_still_runs():
    """Moved to another model, or on its recordings: the warning refuses nothing."""
    with clock.on(AFTER):
        assert dp.run(DYING, model="echo").outputs["End"] == "[Ada] Hi"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


PYTHON = '''"""Prose about gpt-5 and "gpt-4o"."""
import dipeo_nb as dp

model = dp.llm("o3")  # about gpt-5
words = {"o1": 1}
answer = dp.chat("Compare gpt-5 with others.", model="openai:gpt-4o", fallbacks=["anthropic:claude-sonnet-4-5", "local"])
fine = dp.chat("Hi", model="openai:gpt-6-luna")
TEXT = """
version: light
persons:
  Ada: {service: gemini, model: gemini-2.5-flash}
nodes: [{label: Start, type: start}]
connections: []
"""
tuned = dp.llm("openai:ft:gpt-4o-mini-2024-07-18:acme::abc")
'''


def notebook(*cells: str) -> str:
    made = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "outputs": [], "source": cell.splitlines(keepends=True)}
        for n, cell in enumerate(cells)
    ]
    made.insert(0, {"cell_type": "markdown", "id": "m", "metadata": {}, "source": ["Prose about gpt-5-nano"]})
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1, ensure_ascii=False) + "\n"


def found(files: list[str], **options: Any) -> list[tuple[str, int | None, str]]:
    return [(m.where, m.line, m.written) for m in model_check.check(files, get_settings(), **options)]


def test_what_python_names(folder: Path):
    """Texts that are names, lists of fallbacks, diagrams as texts; not prose, docstrings and comments."""
    (folder / "a.py").write_text(PYTHON)
    assert sorted(found(["a.py"]), key=lambda row: row[1] or 0) == [
        ("", 4, "o3"),
        ("", 6, "openai:gpt-4o"),
        ("", 6, "anthropic:claude-sonnet-4-5"),
        ("person 'Ada'", 11, "gemini-2.5-flash"),
        ("", 15, "openai:ft:gpt-4o-mini-2024-07-18:acme::abc"),
    ]


def test_what_a_notebook_names(folder: Path):
    """Calls, magics, commands and diagrams of code cells; not prose."""
    cells = (
        'dp.chat("Hi", model="gpt-5")',
        "%%prompt --model openai:gpt-4.1 > x\nTell me about gpt-5.",
        "!dipeo-nb run d --model gpt-5-mini\nx = 1",
        "%%diagram\n" + DYING,
        "%time dp.llm('gemini-2.5-pro')\nif broken(:",
    )
    (folder / "a.ipynb").write_text(notebook(*cells))
    assert found(["a.ipynb"]) == [
        ("cell 2", 1, "gpt-5"),
        ("cell 3", 1, "openai:gpt-4.1"),
        ("cell 4", 1, "gpt-5-mini"),
        ("cell 5, person 'Ada'", 4, "gpt-5-nano-2025-08-07"),
        ("cell 5, person 'Bob'", 7, "claude-opus-4-5"),
    ]


@pytest.mark.parametrize("form", ["light", "native", "readable", "executable"])
def test_diagrams_of_all_formats_are_checked_and_fixed(folder: Path, form: str, capsys: pytest.CaptureFixture[str]):
    """What ends is found, replaced, and gone; what stays is as it was."""
    name = {
        "light": "d.light.yaml",
        "native": "d.native.json",
        "readable": "d.readable.yaml",
        "executable": "d.executable.json",
    }[form]
    (folder / name).write_text(dp.load(DYING).to_text(form))
    assert [row[2] for row in found([name])] == ["gpt-5-nano-2025-08-07", "claude-opus-4-5"]
    assert main(["models", "check", name, "--fix"]) == 0
    assert found([name]) == []
    moved = {p.label: p.llm.model for p in dp.load(folder / name).persons}
    assert moved == {"Ada": "gpt-6-luna", "Bob": "claude-opus-5-5", "Cyd": "gpt-5", "Dee": "gpt-5.1", "Eve": None}
    assert capsys.readouterr().out.count("(replaced)") == 2


def test_fixing_keeps_everything_else(folder: Path):
    """Comments and spacing of diagrams and code; names in prose; a fine-tuned version is left to its owner."""
    (folder / "d.light.yaml").write_text(DYING)
    (folder / "a.py").write_text(PYTHON)
    (folder / "a.ipynb").write_text(notebook('dp.chat("Why gpt-5?", model="gpt-5")'))
    left = model_check.fix(model_check.check(["."], get_settings()), get_settings())
    assert [m.written for m in left] == ["openai:ft:gpt-4o-mini-2024-07-18:acme::abc"]
    expected = DYING.replace("gpt-5-nano-2025-08-07", "gpt-6-luna").replace("claude-opus-4-5", "claude-opus-5-5")
    assert (folder / "d.light.yaml").read_text() == expected
    changed = PYTHON.replace('llm("o3")', 'llm("gpt-5.6-sol")').replace('openai:gpt-4o"', 'openai:gpt-6-luna"')
    changed = changed.replace("claude-sonnet-4-5", "claude-sonnet-5-5").replace("gemini-2.5-flash", "gemini-3.5-flash-lite")
    assert (folder / "a.py").read_text() == changed
    assert (folder / "a.ipynb").read_text() == notebook('dp.chat("Why gpt-5?", model="gpt-6.1-sol")')


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]):
    """Exit codes, --within, --on, --json; a folder is looked through; nothing to find is said."""
    (folder / "sub").mkdir()
    (folder / "sub" / "d.light.yaml").write_text(DYING)
    (folder / "data.json").write_text("[1, 2]")
    assert main(["models", "check"]) == 1
    assert (
        "d.light.yaml:3, person 'Ada': gpt-5-nano-2025-08-07 is shut down on 2026-12-11 (13 days); replace it with openai:gpt-6-luna"
        in capsys.readouterr().out
    )
    assert main(["models", "check", "sub", "--within", "10"]) == 0
    assert capsys.readouterr().out == "No model that is named ends within 10 days.\n"
    assert main(["models", "check", "sub/d.light.yaml", "--on", "2026-12-20", "--within", "0", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["on"] == "2026-12-20"
    assert [(m["model"], m["status"], m["days_left"], m["replacement"]) for m in told["models"]] == [
        ("gpt-5-nano-2025-08-07", "ended", -9, "openai:gpt-6-luna")
    ]
    assert main(["models", "check", "nowhere.light.yaml"]) == 2
    assert main(["models", "check", "--within", "-1"]) == 2
    assert main(["models", "check", "--on", "soon"]) == 2


def test_other_texts_are_read_by_words(folder: Path):
    """Settings files, documents, configurations of other programs, diagrams that cannot be read; in folders they do not count."""
    texts = {
        "dipeo.toml": 'llm_timeout = 3\n# default_llm_model = "openai:gpt-4o"\n',
        ".env": "OTHER=1\nDIPEO_DEFAULT_LLM_MODEL=gpt-4o\n",
        "notes.md": "We use\n`gpt-4o`.\n",
        "compose.yaml": "services:\n  app: {environment: [MODEL=gpt-4o]}\n",
        "broken.light.yaml": "version: light\npersons: {A: {model: gpt-4o}\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    for name in texts:
        ((where, line, written),) = [row for row in found([name]) if not row[0].startswith("setting")]
        assert (where, line, written.removeprefix("openai:")) == ("", 2, "gpt-4o"), name
    assert [where for where, *_ in found(["."])] == ["setting default_llm_model (.env)"]
    assert main(["models", "check", "--fix", *texts]) == 0
    for name, text in texts.items():
        assert (folder / name).read_text() == text.replace("gpt-4o", "gpt-6-luna")


LISTED = {
    "openai": [
        {"id": "gpt-6-luna", "object": "model", "created": 0, "owned_by": "openai", "shutdown_date": "2027-01-05"},
        {"id": "gpt-5", "object": "model", "created": 0, "owned_by": "openai", "shutdown_date": "2028-01-01"},
        {"id": "gpt-6-sol", "object": "model", "created": 0, "owned_by": "openai", "shutdown_date": None},
        {"id": "gpt-7", "object": "model", "created": 0, "owned_by": "openai", "shutdown_date": "soon"},
        {"id": None, "object": "model", "created": 0, "owned_by": "openai", "shutdown_date": "2027-01-05"},
    ],
    "anthropic": [
        {"id": "claude-sonnet-5", "type": "model", "display_name": "S", "created_at": "2026-01-01T00:00:00Z", "retires_at": "2027-02-03T00:00:00Z", "lifecycle": "deprecated"},
        {"id": "claude-opus-5", "type": "model", "display_name": "O", "created_at": "2026-01-01T00:00:00Z", "retires_at": None, "lifecycle": "active"},
    ],
}  # fmt: skip
"""Lists of models as the providers send them, with what cannot be used."""


def test_the_providers_can_be_asked(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """--ask: what their lists of models say goes before the table, later dates as well as earlier ones; no call of a model."""
    (folder / "a.py").write_text('models = ["gpt-6-luna", "gpt-5", "claude-sonnet-5", "claude-opus-5", "gpt-5-mini"]\n')
    lists = {
        name: (lambda call, name=name: call.json(200, {"object": "list", "data": LISTED[name], "has_more": False}))
        for name in LISTED
    }
    with ScriptedServer(lists["openai"]) as openai, ScriptedServer(lists["anthropic"]) as anthropic:
        monkeypatch.setenv("OPENAI_BASE_URL", openai.url)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", anthropic.url.removesuffix("/v1"))
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-the-test")
        reset_settings()
        assert main(["models", "check", "a.py", "--ask", "--json"]) == 1
        assert [len(server.seen) for server in (openai, anthropic)] == [1, 1]
    rows = {m["model"]: (m["ends"], m["days_left"], m["replacement"]) for m in json.loads(capsys.readouterr().out)["models"]}
    assert rows == {
        "gpt-6-luna": ("2027-01-05", 38, None),
        "claude-sonnet-5": ("2027-02-03", 67, None),
        "gpt-5-mini": ("2026-12-11", 13, "openai:gpt-6.1-terra"),
    }
    assert main(["models", "check", "a.py"]) == 1  # what was asked is not kept
    assert "gpt-6-luna" not in capsys.readouterr().out


def test_a_provider_that_cannot_be_asked(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Is said on stderr; the table still answers. Without keys nobody is asked."""
    (folder / "a.py").write_text('model = "gpt-5"\n')
    assert main(["models", "check", "a.py", "--ask"]) == 1
    assert "not asked" not in capsys.readouterr().err
    with ScriptedServer(lambda call: call.error(401, "Incorrect API key provided.")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
        reset_settings()
        assert main(["models", "check", "a.py", "--ask"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("openai: not asked. ")
    assert "gpt-5 is shut down on 2026-12-11 (13 days)" in told.out


def test_settings_that_name_an_ending_model(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """What somebody wrote there is found; the default of nobody's choice moves by itself."""
    assert found([]) == []
    monkeypatch.setenv("DIPEO_DEFAULT_LLM_MODEL", "gpt-4o")
    (folder / "dipeo.toml").write_text('llm_fallbacks = "anthropic:claude-sonnet-4-5, local"\n')
    rows = [(m.where, m.written) for m in model_check.check([], Settings())]
    assert rows == [
        ("setting default_llm_model (environment DIPEO_DEFAULT_LLM_MODEL)", "gpt-4o"),
        ("setting llm_fallbacks (dipeo.toml)", "anthropic:claude-sonnet-4-5"),
    ]


def test_the_services_say_when_their_default_ends():
    """`dipeo-nb models` and `%dipeo models`: days left, and what comes then."""
    rows = {row.service: row.ends for row in dp.Session().models()}
    assert rows["openai"] == f"{DEFAULT_MODEL} is shut down on 2026-12-11 (13 days); gpt-6-luna is the default from then on"
    assert rows["local"] == rows["anthropic"] == ""
    with dp.override_settings(default_llm_model="anthropic:claude-opus-4-5"):
        rows = {row.service: row.ends for row in dp.Session(settings=get_settings()).models()}
        assert rows["anthropic"].endswith("(55 days); replace it with anthropic:claude-opus-5-5")
        assert rows["openai"] == f"{DEFAULT_MODEL} is shut down on 2026-12-11 (13 days); gpt-6-luna is the default from then on"


def test_models_of_the_facade():
    """`dp.models()` is the table of `%dipeo models`: a list of rows, shown as a table, and a DataFrame."""
    found = dp.models()
    assert [row.service for row in found] == [row.service for row in dp.Session().models()]
    html = found._repr_html_()
    for text in (repr(found), html):
        assert "2026-12-11" in text
        assert "local" in text
    frame = found.to_dataframe()
    assert list(frame["service"]) == [row.service for row in found]
    assert list(frame["ready"]) == [row.ready for row in found]
    assert frame.set_index("service").loc["openai", "ends"].startswith(DEFAULT_MODEL)


# Our own texts.

EXEMPT = {
    "docs/settings.md": {DEFAULT_MODEL},  # the documented default, and its end
    "dipeo_nb/config/default_model.py": {DEFAULT_MODEL},
    "dipeo_nb/config/settings.py": {DEFAULT_MODEL},
    "dipeo_nb/domain/enums.py": {"gpt-4", "gpt-3.5"},  # names that DiPeO's own diagrams have as services
    "dipeo_nb/llm/usage.py": {"gpt-4"},  # the beginning of names whose searches have another price
    "dipeo_nb/llm/capabilities.toml": {  # beginnings of names, by which models are known
        "gpt-4o",
        "gpt-4.1",
        "gpt-5",
        "gpt-5.1-codex-max",
        "gpt-5.2-codex",
        "gemini-2.5-flash-image",
        "gemini-2.5-pro",
    },
}
"""File → names in it that may end soon, with the reason."""
TABLES = ("dipeo_nb/domain/lifecycle.toml", "CHANGELOG.md")
"""What is about models that end."""


def test_nothing_of_ours_names_a_model_that_ends_within_90_days():
    """README, documents, tutorials, their recordings, the demonstration, examples in docstrings and messages.

    The day is that of this test's run: it fails when a model that we name comes near its end.
    """
    with clock.on(max(NOW, datetime.now(UTC).date())):
        places = {
            f"{name}:{line} {word}"
            for name in ours()
            for line, word, state in model_check.named_in((ROOT / name).read_text(encoding="utf-8"))
            if state.within(90) and word not in EXEMPT.get(name, ())
        }
    assert not places, "\n".join(sorted(places))


def ours() -> list[str]:
    """What is shipped, but for tests."""
    folders = ("dipeo_nb", "docs", "notebooks", "scripts")
    files = [
        p for folder in folders for p in sorted((ROOT / folder).rglob("*")) if p.is_file() and "__pycache__" not in p.parts
    ]
    files += [
        ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml", "environment.yml")
    ]
    kinds = (".py", ".md", ".toml", ".yaml", ".yml", ".json", ".ipynb", ".sh", ".js", ".css", "")
    names = [
        p.relative_to(ROOT).as_posix()
        for p in files
        if p.suffix in kinds and not any(part.startswith(".") for part in p.relative_to(ROOT).parts)
    ]
    return [name for name in names if name not in TABLES]


def test_the_check_of_our_texts_looks():
    """It would fail: on a name in prose, in quotes, with its service, in a notebook."""
    for text in ("about gpt-5-nano.", '"openai:gpt-4o"', "model: gemini-2.5-flash,", "`claude-sonnet-4-5`"):
        ((_, _, state),) = model_check.named_in(text)
        assert isinstance(state, Lifecycle)
        assert state.soon
    assert list(model_check.named_in("the o1 of gpt-6-luna and gpt-5-nano-of-mine")) == []
    assert len(ours()) > 250
