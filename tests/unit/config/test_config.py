"""Settings: where they come from, what they say of themselves, and that they have effect."""

from __future__ import annotations

import ast
import itertools
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import dipeo_nb
from dipeo_nb.config import (
    FIELDS,
    Settings,
    UnknownSettingWarning,
    get_settings,
    override_settings,
    reset_settings,
    scope_of,
    secret_values,
    without_password,
)
from dipeo_nb.config.checked import CheckedSettings
from dipeo_nb.config.plain import PlainSettings
from dipeo_nb.domain.llm_providers import BUILT_IN
from dipeo_nb.errors import ConfigurationError, UserError
from dipeo_nb.security.environment import variables_of_services

SEED = {
    "DIPEO_BASE_DIR": ("/tmp", "base_dir", Path("/tmp")),
    "DIPEO_DEFAULT_LLM_MODEL": ("gpt-4o", "default_llm_model", "gpt-4o"),
    "DIPEO_LLM_TIMEOUT": ("12.5", "llm_timeout", 12.5),
    "DIPEO_EXECUTION_TIMEOUT": ("60", "execution_timeout", 60.0),
    "DIPEO_PARALLEL_EXECUTION": ("false", "parallel_execution", False),
    # The names that worked upstream.
    "DIPEO_LLM_DEFAULT_MODEL": ("gpt-4o", "default_llm_model", "gpt-4o"),
    "DIPEO_LLM_TIMEOUT_S": ("12.5", "llm_timeout", 12.5),
    "DIPEO_EXECUTION_ENGINE_TIMEOUT_S": ("60", "execution_timeout", 60.0),
    "DIPEO_EXECUTION_ENABLE_PARALLEL": ("0", "parallel_execution", False),
    "DIPEO_EXECUTION_MAX_ITERATIONS": ("7", "max_iterations", 7),
    "DIPEO_MSG_MAX_QUEUE_SIZE": ("9", "event_queue_size", 9),
}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, no variables of ours, settings read anew."""
    for name in list(os.environ):
        if name.startswith("DIPEO_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    reset_settings()


@pytest.mark.parametrize("variable", SEED)
def test_both_names_of_a_variable_have_effect(variable: str, monkeypatch: pytest.MonkeyPatch):
    """The documented name and the one that worked upstream set the same field."""
    value, field, expected = SEED[variable]
    monkeypatch.setenv(variable, value)
    reset_settings()
    assert getattr(get_settings(), field) == expected


def test_defaults_are_the_seeds():
    """Without any variable: the seed's values."""
    settings = get_settings()
    assert settings.default_llm_model == "gpt-5-nano-2025-08-07"
    assert (settings.llm_timeout, settings.execution_timeout, settings.parallel_execution) == (300, 3600, True)
    assert settings.base_dir == Path.cwd()


def test_sources_have_an_order_and_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The environment goes before .env, which goes before dipeo.toml; explain() says which it was; keys stay hidden."""
    (tmp_path / "dipeo.toml").write_text('llm_timeout = 1\nnode_timeout = 2\nexecution_timeout = 3\nlocal_model = "toml"\n')
    (tmp_path / ".env").write_text("DIPEO_LLM_TIMEOUT=10\nDIPEO_NODE_TIMEOUT=20\nOPENAI_API_KEY=sk-canary-123456789\n")
    monkeypatch.setenv("DIPEO_LLM_TIMEOUT_S", "100")
    reset_settings()
    settings = get_settings()
    assert (settings.llm_timeout, settings.node_timeout, settings.execution_timeout) == (100, 20, 3)
    explained = {s.name: s for s in settings.explain()}
    assert explained["llm_timeout"].source == "environment DIPEO_LLM_TIMEOUT_S"
    assert explained["node_timeout"].source == ".env"
    assert explained["execution_timeout"].source == "dipeo.toml"
    assert explained["max_iterations"].source == "default"
    with override_settings(max_iterations=3) as changed:
        assert {s.name: s for s in changed.explain()}["max_iterations"].source == "given"
        assert get_settings() is changed
    assert get_settings() is settings
    shown = repr(settings.explain()) + settings.explain()._repr_html_() + repr(settings)
    assert "sk-canary" not in shown
    assert "llm_timeout" in shown


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("DIPEO_LLM_TIMOUT", "Unknown setting DIPEO_LLM_TIMOUT. Did you mean DIPEO_LLM_TIMEOUT"),
        ("DIPEO_XYZZY_PLUGH", "Unknown setting DIPEO_XYZZY_PLUGH."),
        ("DIPEO_WORKERS", "no effect"),
        ("DIPEO_DI_ENABLE_AUDIT", "no effect"),
    ],
)
def test_unknown_variables_are_warned_about(name: str, said: str, monkeypatch: pytest.MonkeyPatch):
    """A variable that nothing reads is named with the nearest, or with the reason."""
    monkeypatch.setenv(name, "1")
    reset_settings()
    with pytest.warns(UnknownSettingWarning, match=said.replace("?", r"\?")):
        get_settings()


def test_a_value_that_cannot_be_used_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The error names the variable; the value may be a key in the wrong place."""
    monkeypatch.setenv("DIPEO_LLM_TIMEOUT", "sk-canary-123456789")
    reset_settings()
    with pytest.raises(ConfigurationError, match=r"DIPEO_LLM_TIMEOUT|llm_timeout") as caught:
        get_settings()
    assert "sk-canary" not in str(caught.value)
    monkeypatch.delenv("DIPEO_LLM_TIMEOUT")
    (tmp_path / "dipeo.toml").write_text("llm_timeout = = 3")
    reset_settings()
    with pytest.raises(ConfigurationError, match=r"dipeo\.toml cannot be read"):
        get_settings()


def test_the_default_model_is_that_of_a_bare_call(tmp_path: Path):
    """DIPEO_DEFAULT_LLM_MODEL moves what names no model, in a process of its own."""
    code = "import dipeo_nb as dp; print(dp.chat('hi', display=False).text, end='')"
    environment = {**os.environ, "DIPEO_DEFAULT_LLM_MODEL": "echo", "DIPEO_BASE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[echo] hi"


def test_the_base_directory_moves_everything(tmp_path: Path):
    """With DIPEO_BASE_DIR nothing is written anywhere else below the current directory."""
    base, here = tmp_path / "base", tmp_path / "here"
    base.mkdir(), here.mkdir()
    diagram = {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start"},
            {"label": "Save", "type": "db", "props": {"operation": "write", "file": "out/x.json", "data": {"a": 1}}},
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [{"from": "Start", "to": "Save"}, {"from": "Save", "to": "End"}],
    }
    (base / "d.light.yaml").write_text(json.dumps(diagram))
    command = [sys.executable, "-m", "dipeo_nb", "run", "d", "--quiet"]
    environment = {**os.environ, "DIPEO_BASE_DIR": str(base), "DIPEO_TRUST": str(base)}
    subprocess.run(command, env=environment, cwd=here, check=True, capture_output=True)
    assert not list(here.iterdir())
    assert (base / "out/x.json").exists()
    assert (base / ".dipeo/runs.db").exists()


def test_every_field_is_documented():
    """Each setting has a sentence under it, but for the keys, whose names say all."""
    tree = ast.parse(Path(dipeo_nb.__file__).with_name("config").joinpath("settings.py").read_text())
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Settings").body
    documented = {
        a.target.id
        for a, b in itertools.pairwise(body)
        if isinstance(a, ast.AnnAssign) and isinstance(a.target, ast.Name) and isinstance(b, ast.Expr)
    }
    bare = set(FIELDS) - documented
    assert bare <= {
        "openai_api_key",
        "anthropic_api_key",
        "google_api_key",
        "openai_base_url",
        "anthropic_base_url",
        "log_level",
    }


PLAIN = {
    "nothing": {},
    "keys": {"OPENAI_API_KEY": "sk-of-a-test", "DIPEO_KEYS_PASSPHRASE": "of a test"},
    "paths": {"DIPEO_DATA_DIR": "~", "STATE_STORE_PATH": "runs.db", "DIPEO_BLOB_STORE": "memory:"},
    "lists": {"DIPEO_OPEN_PLACES": ".github, .vscode", "DIPEO_TRUST": f"a{os.pathsep}b"},
    "texts": {"OLLAMA_HOST": "box", "DIPEO_PASS_ENV": "GH_PAT", "DIPEO_DEFAULT_LLM_MODEL": "echo"},
}
CHECKED = {
    "a number": {"DIPEO_PORT": "1", "OPENAI_API_KEY": "sk-of-a-test"},
    "a choice": {"DIPEO_LLM_MODE": "auto"},
    "a truth value": {"DIPEO_OTEL": "no"},
}


@pytest.mark.parametrize("variables", [*PLAIN.values(), *CHECKED.values()], ids=[*PLAIN, *CHECKED])
def test_plain_and_checked_settings_are_the_same(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Values that need no check are as the model would have them, and what they cannot do the model does."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "dipeo.toml").write_text('llm_fallbacks = "openai:gpt-6-luna"\n')
    found, checked = get_settings(), Settings()
    assert isinstance(found, PlainSettings) == (variables in PLAIN.values())
    assert isinstance(checked, CheckedSettings)
    assert [found.peek(name) for name in FIELDS] == [checked.peek(name) for name in FIELDS]
    assert [type(found.peek(name)) for name in FIELDS] == [type(checked.peek(name)) for name in FIELDS]
    assert found.explain() == checked.explain()
    assert found.waits("llm_fallbacks") == checked.waits("llm_fallbacks") is True
    assert found == checked == pickle.loads(pickle.dumps(found))
    assert (repr(found), hash(found), secret_values(found)) == (repr(checked), hash(checked), secret_values(checked))
    assert found.model_dump_json() == checked.model_dump_json()  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(found.model_copy(update={"base_dir": tmp_path}), type(found))
    assert found.model_copy(update={"port": 7}).port == 7
    with pytest.raises(ValueError, match="frozen"):
        found.port = 3
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        found.nothing_of_the_kind  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018


def test_passwords_in_urls_are_secrets():
    """They are shown nowhere, and taken out of what is written; the rest of the URL stays."""
    place = "redis://me:canary%21secret@cache.example:6379/0"
    with override_settings(conversation_store=place) as settings:
        shown = repr(settings) + str(settings) + repr(settings.explain()) + settings.explain()._repr_html_()
        assert "canary" not in shown
        assert "redis://me:…@cache.example:6379/0" in shown
        assert "canary!secret" in secret_values(settings)
    assert without_password("redis://cache:6379/0 http://a@b/c:d@e") == "redis://cache:6379/0 http://a@b/c:d@e"


def test_every_setting_is_read_by_something():
    """Each field is looked at outside the settings, or by a property of theirs that is; one that nothing reads is no setting."""
    package = Path(dipeo_nb.__file__).parent
    read: set[str] = set()
    for file in package.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and (
                file.parent.name != "config" or getattr(node.value, "id", "") in ("self", "settings")
            ):
                read.add(node.attr)
    read |= {facts.base_url_setting for facts in BUILT_IN.values()}  # by the clients
    keys = {name for name in FIELDS if scope_of(name) == "key"}  # by `Settings.secret`, through their variables
    variables = {variable for found in variables_of_services().values() for variable in found}
    for name in keys:
        assert {name.upper()} & variables
    assert set(FIELDS) - read - keys == set()


def test_the_level_of_the_log_has_its_effect(tmp_path: Path):
    """What the package logs is seen on stderr from that level on."""
    code = (
        "import logging, sys\n"
        "from dipeo_nb.cli import main\n"
        "main(['keys', 'list'])\n"
        "logging.getLogger('dipeo_nb.x').info('said at info')\n"
        "logging.getLogger('dipeo_nb.x').error('said at error')\n"
    )
    for level, seen in (("INFO", {"info", "error"}), ("error", {"error"}), ("CRITICAL", set[str]())):
        environment = {**os.environ, "DIPEO_LOG_LEVEL": level, "DIPEO_DATA_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert {word for word in ("info", "error") if f"said at {word}" in done.stderr} == seen


def test_homes_of_users_that_do_not_exist_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Nothing is made below a folder called `~name`, by any entry point."""
    words = "there is no user 'nosuchuser'"
    monkeypatch.setenv("DIPEO_DATA_DIR", "~nosuchuser/x")
    reset_settings()
    with pytest.raises(ConfigurationError, match=words):
        get_settings()
    monkeypatch.delenv("DIPEO_DATA_DIR")
    monkeypatch.setenv("STATE_STORE_PATH", "~nosuchuser/x.db")
    reset_settings()
    with pytest.raises(ConfigurationError, match=words):
        get_settings()
    monkeypatch.delenv("STATE_STORE_PATH")
    reset_settings()
    for entry in (dipeo_nb.Session, dipeo_nb.load, dipeo_nb.trust, dipeo_nb.recording):
        with pytest.raises(UserError, match=words):
            entry("~nosuchuser/x")
    assert list(tmp_path.iterdir()) == []
