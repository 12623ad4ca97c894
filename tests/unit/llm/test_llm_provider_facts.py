"""A provider is one class and one entry: whatever the package has to know of one is read from its facts."""

from __future__ import annotations

import ast
import asyncio
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb import cli
from dipeo_nb.common import redaction
from dipeo_nb.common.redaction import redactor
from dipeo_nb.config import FIELDS, get_settings
from dipeo_nb.domain import llm_providers
from dipeo_nb.domain.chat import TokenUsage, parse_model
from dipeo_nb.domain.lifecycle import lifecycle
from dipeo_nb.domain.llm_providers import BUILT_IN, ProviderFacts, costs_nothing, facts_of, normalize_service
from dipeo_nb.errors import APIKeyNotFoundError, ConfigurationError, ValidationError
from dipeo_nb.events.telemetry import _of_model
from dipeo_nb.llm import catalogue, providers
from dipeo_nb.llm.capabilities import capabilities_of
from dipeo_nb.llm.core.client import UnifiedClient
from dipeo_nb.llm.pricing import cost_usd
from dipeo_nb.llm.providers.echo import EchoClient
from dipeo_nb.security.environment import EnvironmentAPIKeyService, service_of
from tests.support.source_tree import FILES, PACKAGE

CLASS = """
from dipeo_nb.llm.providers.echo import EchoClient


class ParrotClient(EchoClient):
    provider = "parrot"
    key_variable, other_key_variables = "PARROT_API_KEY", ("PARROT_TOKEN",)
    key_prefixes = ("prt-",)
    hosts = ("api.parrot.example",)
    model_names = ("parrot", "gptparrot")
    models_of, price_id, telemetry_name = "openai", "openai", "parrot.ai"
    abilities = {"supports_tools": False, "structured": ["native"], "models": {"parrot-grey": {"supports_web_search": True}}}
    default_model = "parrot-grey"

    @classmethod
    def why_unavailable(cls, settings):
        return "feed the parrot"
"""
KEY = "prt-0123456789abcdefghij"
OTHER = "prt-9876543210zyxwvutsrq"
"""A key that nobody has had in his hands."""
DIAGRAM = (
    "version: light\npersons: {Ann: {service: Parrot}}\nnodes:\n- {label: S, type: start}\n"
    "- {label: Say, type: person_job, person: Ann, default_prompt: good day}\n- {label: E, type: endpoint}\n"
    "connections:\n- {from: S, to: Say}\n- {from: Say, to: E}\n"
)


def _install(folder: Path) -> None:
    """Write a distribution with an entry point, as pip would leave it."""
    (folder / "parrot_package.py").write_text(CLASS)
    info = folder / "parrot_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{llm_providers.GROUP}]\nParrot = parrot_package:ParrotClient\n")


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages; the current folder is none, from which nothing is imported unasked."""
    return tmp_path_factory.mktemp("site")


@pytest.fixture(params=["registered", "installed"])
def parrot(request: pytest.FixtureRequest, site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A provider of a third party that was registered in this process, or installed as a package."""
    for name in ("_SHAPES", "_MARKS", "_HEADS", "_OPEN_KEY"):
        monkeypatch.setattr(redaction, name, getattr(redaction, name))
    monkeypatch.setattr(llm_providers, "_REGISTERED", {})
    monkeypatch.setattr(llm_providers, "_LOADED", {})
    monkeypatch.syspath_prepend(site)
    _install(site)
    if request.param == "registered":
        (site / "parrot_package-1.0.dist-info" / "entry_points.txt").unlink()
    caches = (llm_providers.installed, llm_providers._named_by_packages)
    for cache in caches:
        cache.cache_clear()
    if request.param == "registered":
        providers.register("Parrot", importlib.import_module("parrot_package").ParrotClient)
    yield
    sys.modules.pop("parrot_package", None)
    for cache in caches:
        cache.cache_clear()


def test_it_is_known_everywhere(parrot: None, monkeypatch: pytest.MonkeyPatch):
    """Its service, the names of its models, its keys, prices and ends of models, its name in traces, what it can do and what it lacks."""
    assert "parrot" in providers.services()
    assert parse_model("parrot") == ("parrot", None)
    assert parse_model("parrot-grey") == ("parrot", "parrot-grey")
    # ours come before packages
    assert parse_model("gptparrot-1") == ("parrot" if llm_providers._REGISTERED else "openai", "gptparrot-1")
    assert service_of("parrot-grey") == service_of("env_PARROT") == "parrot"
    assert facts_of("parrot").key_variables == ("PARROT_API_KEY", "PARROT_TOKEN")
    assert cost_usd("parrot", "gpt-5-nano", TokenUsage(1000, 1000)) == cost_usd("openai", "gpt-5-nano", TokenUsage(1000, 1000))
    assert cost_usd("parrot", "gpt-5-nano", TokenUsage(1, 1), base_url="https://api.parrot.example/v1") is not None
    assert cost_usd("parrot", "gpt-5-nano", TokenUsage(1, 1), base_url="https://api.openai.com/v1") is None
    assert lifecycle("parrot", "gpt-4-0613").ends == lifecycle("openai", "gpt-4-0613").ends is not None
    assert not costs_nothing("parrot")  # its class inherits from that of a free service
    spans = _of_model({"provider": "parrot", "model": "m", "usage": {"input": 1, "output": 1}})  # pyright: ignore[reportArgumentType]
    assert spans["gen_ai.provider.name"] == "parrot.ai"
    assert (capabilities_of("parrot").supports_tools, capabilities_of("parrot", "parrot-grey-2").supports_web_search) == (
        False,
        True,
    )
    monkeypatch.setenv("PARROT_TOKEN", KEY)
    settings = get_settings()
    keys = EnvironmentAPIKeyService(settings)
    assert asyncio.run(keys.get_api_key("parrot")).get_secret_value() == KEY
    assert asyncio.run(keys.get_api_key("parrot-grey")).get_secret_value() == KEY
    (row,) = [row for row in asyncio.run(catalogue.services(settings, keys)) if row.service == "parrot"]
    assert (row.ready, row.why_not, row.model) == (False, "feed the parrot", "parrot-grey")
    assert row.key.startswith("PARROT_TOKEN")
    assert "structured: native" in row.abilities


def test_a_missing_key_names_its_variable(parrot: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PARROT_API_KEY", raising=False)
    with pytest.raises(APIKeyNotFoundError, match="PARROT_API_KEY"):
        asyncio.run(EnvironmentAPIKeyService(get_settings()).get_api_key("parrot"))


def test_its_keys_are_redacted(parrot: None):
    """In texts that nobody marked, and in those that come in pieces; a word that merely begins like one stays."""
    assert facts_of("parrot").key_prefixes == ("prt-",)
    assert redactor(f"the key is {OTHER}.") == "the key is [hidden]."
    stream = redactor.stream()
    shown = [stream.feed(piece) for piece in ("so: p", "rt-9876543", "210zyxwvutsrq", " done")]
    assert "".join([*shown, stream.rest()]) == "so: [hidden] done"
    assert redactor(f"prt-1 and re{OTHER}") == f"prt-1 and re{OTHER}"
    assert redactor(["sk-0123456789abcdef0123"]) == ["[hidden]"]  # the built-in ones still are


def test_users_meet_it_as_a_built_in_one(parrot: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """In diagrams, chats, `dp.models()`, and the commands `models`, `keys` and `doctor`."""
    with dp.Session() as session:
        diagram = session.load(DIAGRAM)
        assert [found for found in diagram.diagnostics if found.code == "unknown-service"] == []
        monkeypatch.setenv("PARROT_API_KEY", KEY)
        assert "good day" in str(session.run(diagram, view=False).output)
        assert "parrot" in str(session.models())
    monkeypatch.delenv("PARROT_API_KEY")
    assert cli.main(["keys", "list"]) == 0
    assert "PARROT_API_KEY" in capsys.readouterr().out
    assert cli.main(["models"]) == 0
    assert "set PARROT_API_KEY" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setenv("PARROT_API_KEY", KEY)
    cli.main(["doctor"])
    shown = capsys.readouterr().out
    assert "parrot" in shown
    assert KEY not in shown


def test_importing_the_package_imports_no_provider(tmp_path: Path):
    """Neither that of a third party nor one of ours, nor does reading a diagram that names services of ours."""
    _install(tmp_path)
    program = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport dipeo_nb as dp\ndp.load({DIAGRAM.replace('Parrot', 'openai')!r})\n"
        "print([m for m in sys.modules if m == 'parrot_package' or m.startswith('dipeo_nb.llm.providers.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_broken_package_spoils_nothing(
    site: Path, monkeypatch: pytest.MonkeyPatch, parrot: None, capsys: pytest.CaptureFixture[str]
):
    """Whatever its import raises: keys are listed, models are resolved, and using it says what is wrong."""
    monkeypatch.setattr(llm_providers, "_REGISTERED", {})
    monkeypatch.setattr(llm_providers, "_LOADED", {})
    sys.modules.pop("parrot_package", None)
    (site / "parrot_package.py").write_text("raise RuntimeError('no feathers')")
    (site / "parrot_package-1.0.dist-info" / "entry_points.txt").write_text(
        f"[{llm_providers.GROUP}]\nParrot = parrot_package:ParrotClient\n"
    )
    llm_providers.installed.cache_clear()
    llm_providers._named_by_packages.cache_clear()
    assert facts_of("parrot") == ProviderFacts()
    assert parse_model("gpt-6-luna") == ("openai", "gpt-6-luna")
    assert cli.main(["keys", "list"]) == 0
    assert cli.main(["models"]) == 0
    assert "no feathers" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(ConfigurationError, match="no feathers"):
        providers.client_class("parrot")


def test_a_provider_without_structured_answers_is_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(llm_providers, "_REGISTERED", {})
    providers.register("parrot", type("Parrot", (EchoClient,), {"provider": "parrot", "abilities": {"structured": []}}))
    (row,) = [row for row in dp.models() if row.service == "parrot"]
    assert not [ability for ability in row.abilities if ability.startswith("structured")]
    assert cli.main(["models"]) == 0
    assert "parrot" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["", "sk", "a b c", "[a-z]+", "käse-"])
def test_a_prefix_that_is_none_is_refused(prefix: str):
    """It would hide ordinary words, or be read as a pattern."""
    with pytest.raises(ValidationError, match="not the beginning of keys"):
        redaction.recognize_keys(prefix)


@pytest.mark.parametrize("service", BUILT_IN)
def test_classes_of_built_in_providers_have_the_facts_of_their_entries(service: str):
    kind: Any = providers.client_class(service)
    assert kind.provider == service
    assert f"{kind.__module__}:{kind.__qualname__}" == BUILT_IN[service].client
    for name in llm_providers.OF_CLASSES:
        assert getattr(kind, name) == getattr(BUILT_IN[service], name)


def test_a_subclass_takes_over_how_a_client_works_and_not_what_a_service_costs():
    """A class over that of OpenAI, for another server: its key and SDK are inherited, prices and models are not."""

    class Own(providers.client_class("openai")):
        provider = "own"

    facts = llm_providers.facts_of_class(Own)
    assert (facts.key_variable, facts.sdk_module) == ("OPENAI_API_KEY", "openai")
    assert (facts.price_id, facts.model_names, facts.models_of, facts.pricing) == ("", (), "", "list")
    free = llm_providers.facts_of_class(type("Free", (providers.client_class("echo"),), {"provider": "free"}))
    assert free.pricing == "list"


def test_every_fact_can_be_stated_by_a_class():
    """The attributes of `UnifiedClient` are the fields of the facts, with the same defaults."""
    for fact in fields(ProviderFacts):
        if fact.name != "client":
            assert getattr(UnifiedClient, fact.name) == getattr(ProviderFacts(), fact.name), fact.name


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("gpt-4o", "openai"), ("o1", "openai"), ("o3-mini", "openai"), ("chatgpt-4o-latest", "openai"), ("claude-3", "anthropic"),
        ("gemini-2.5-pro", "gemini"), ("gptx", "gptx"), ("o1x", "o1x"), ("claudette", "claudette"), ("gpt-oss", "ollama"), ("grok-4", "xai"),
    ],
)  # fmt: skip
def test_keys_are_found_by_names_of_models(name: str, service: str):
    """A service that is merely called like a family of models is another one, and its key another."""
    assert service_of(name) == service


def test_names_of_services_in_telemetry_and_settings():
    assert facts_of(normalize_service("google")).telemetry_name == "gcp.gemini"
    assert {facts.base_url_setting for facts in BUILT_IN.values() if facts.base_url_setting} <= set(FIELDS)


def _abilities() -> set[str]:
    """Names of the fields in `capabilities.toml`."""
    found: set[str] = set()
    for service in tomllib.loads((PACKAGE / "llm/capabilities.toml").read_text(encoding="utf-8")).values():
        for family in (service, *service.get("models", {}).values()):
            found |= family.keys() - {"models"}
    return found


@pytest.mark.parametrize("name", sorted(_abilities()))
def test_every_ability_is_documented_and_read(name: str):
    """A field of `capabilities.toml` is one of `ProviderCapabilities`, has a docstring there, and decides something somewhere."""
    types = ast.parse((PACKAGE / "llm/core/types.py").read_text(encoding="utf-8"))
    (kind,) = [node for node in types.body if isinstance(node, ast.ClassDef) and node.name == "ProviderCapabilities"]
    documented = {
        ast.unparse(field.target)
        for field, text in pairwise(kind.body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    assert name in documented
    readers = [
        file for file in FILES if re.search(rf"\b\w+\.{name}\b", file.read_text(encoding="utf-8")) and file.name != "types.py"
    ]
    assert readers


def test_all_abilities_are_looked_at():
    assert len(_abilities()) == 13
