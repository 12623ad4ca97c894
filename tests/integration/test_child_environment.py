"""What programs of a diagram see of the environment: an allow-list, however a secret's variable is called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb import config
from dipeo_nb.common.child_environment import NEVER, PASSED, advice, child_environment
from dipeo_nb.config import Settings, override_settings, reset_settings
from dipeo_nb.errors import ConfigurationError, DipeoError
from dipeo_nb.llm import model_store
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

SECRETS = (
    "OPENAI_API_KEY", "AWS_SESSION_TOKEN", "GH_PAT", "DATABASE_URL", "MYSQL_PWD", "PGPASSWORD", "GPG_PASSPHRASE", "SENTRY_DSN",
    "SLACK_WEBHOOK", "NPM_AUTH", "JWT", "SESSION", "BEARER", "HF_AUTH", "AZURE_SAS", "OTEL_EXPORTER_OTLP_HEADERS",
    "DIPEO_REDIS_URL", "DIPEO_KEYS_PASSPHRASE", "STATE_STORE_PATH", "NETRC", "PIP_INDEX_URL", "SSH_AUTH_SOCK", "KUBECONFIG",
)  # fmt: skip
HIJACKS = (
    "PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONINSPECT", "BASH_ENV", "ENV", "NODE_OPTIONS", "LD_PRELOAD", "LD_AUDIT",
    "DYLD_INSERT_LIBRARIES", "PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "BASH_FUNC_ls%%", "PROMPT_COMMAND", "SHELLOPTS",
)  # fmt: skip
"""Variables that make an interpreter do something before its program."""
CANARY = "canary-7Hq2Lx9Pz4"
PRINTS = {
    "python": ("code_job", {"language": "python", "code": "import os\nreturn dict(os.environ)"}),
    "bash": ("code_job", {"language": "bash", "code": "env"}),
    "sh": ("code_job", {"language": "shell", "code": "env"}),
    "typescript": ("code_job", {"language": "typescript", "code": "return process.env;"}),
    "shell hook": ("hook", {"hook_type": "shell", "command": "env"}),
    "hook with arguments": ("hook", {"hook_type": "shell", "config": {"command": "env", "args": ["--"]}}),
    "Python hook": ("hook", {"hook_type": "python", "config": {"script": "look.py"}}),
}


def diagram(kind: str, props: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "light",
        "nodes": [
            {"label": "Start", "type": "start"},
            {"label": "Look", "type": kind, "props": props},
            {"label": "End", "type": "endpoint"},
        ],
        "connections": [
            {"from": "Start", "to": "Look"},
            {"from": "Look", "to": "End", "content_type": "generic"},
        ],
    }


def seen(base: Path, kind: str, props: dict[str, Any]) -> str:
    (base / "look.py").write_text("import os\ndef hook(**_): return dict(os.environ)\n")
    with Session(base, llm=scripted()) as dp:
        return str(dp.run(diagram(kind, props), view=False).output)


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SECRETS) + len(HIJACKS) >= 38
    for name in (*SECRETS, *HIJACKS):
        if name not in ("LD_PRELOAD", "LD_AUDIT"):  # this machine's own `env` would complain of them
            monkeypatch.setenv(name, ":memory:" if name == "STATE_STORE_PATH" else f"{CANARY}-{name}")
    monkeypatch.setenv("https_proxy", f"http://me:{CANARY}@proxy.test:3128")
    monkeypatch.setenv("LC_MESSAGES", "C.harmless")


@pytest.mark.parametrize("name", PRINTS)
def test_programs_see_harmless_variables_only(tmp_path: Path, canaries: None, name: str):
    """No canary reaches any kind of program; the language does, and the address of the proxy without its password."""
    text = seen(tmp_path, *PRINTS[name])
    assert CANARY not in text
    # Values may be hidden in what a run shows; the names of the variables are not.
    assert not [variable for variable in (*SECRETS, *HIJACKS) if re.search(rf"\b{re.escape(variable)}\b", text)]
    assert "C.harmless" in text
    assert "http://proxy.test:3128" in text
    assert str(tmp_path) in text  # DIPEO_BASE_DIR, which we set


@pytest.mark.parametrize("name", PRINTS)
def test_pass_env_and_the_nodes_own_variables_are_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, canaries: None
):
    """The setting `pass_env` lets variables through, by name or by beginning; a hook's `env` is its own."""
    monkeypatch.setenv("MINE_A", "alpha")
    kind, props = PRINTS[name]
    if kind == "hook" and "config" in props and "args" in props["config"]:
        props = {**props, "config": {**props["config"], "env": {"OWN": "beta"}}}
    with override_settings(pass_env="GH_PAT, MINE_*"):
        text = seen(tmp_path, kind, props)
    assert "alpha" in text
    assert "GH_PAT" in text
    assert "DATABASE_URL" not in text
    assert ("beta" in text) == ("OWN" in str(props))


@pytest.mark.parametrize("name", NEVER)
def test_what_is_passed_to_nobody_is_refused_as_a_setting(monkeypatch: pytest.MonkeyPatch, name: str):
    """A setting that could have no effect is an error that says so."""
    monkeypatch.setenv("DIPEO_PASS_ENV", f"FINE,{name.replace('*', 'X')}")
    reset_settings()
    with pytest.raises(ConfigurationError, match="never handed"):
        config.get_settings()


def test_pass_env_may_be_a_list():
    """As TOML writes it."""
    assert Settings(pass_env=["A", "B_*"]).passed_variables == ("A", "B_*")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("kind", "props"),
    [
        ("code_job", {"language": "python", "code": "import os\nreturn os.environ['GH_PAT']"}),
        ("code_job", {"language": "python", "code": "import os\nreturn 'x' + os.getenv('GH_PAT')"}),
        ("code_job", {"language": "python", "code": "from helper import pat\nreturn pat()"}),
        ("code_job", {"language": "bash", "code": "set -u\necho $GH_PAT"}),
        ("code_job", {"language": "bash", "code": 'test -n "${GH_PAT}"'}),
        ("code_job", {"language": "typescript", "code": "return process.env.GH_PAT.length;"}),
        ("hook", {"hook_type": "shell", "command": "test -n $GH_PAT && test $GH_PAT = x"}),
    ],
)
def test_code_that_misses_a_variable_is_told_of_pass_env(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, props: dict[str, Any]
):
    """The hint names the variable and the setting."""
    monkeypatch.setenv("GH_PAT", CANARY)
    (tmp_path / "helper.py").write_text("import os\ndef pat(): return os.environ['GH_PAT']\n")
    with pytest.raises(DipeoError) as caught, Session(tmp_path, llm=scripted()) as dp:
        dp.run(diagram(kind, props), view=False)
    assert "DIPEO_PASS_ENV=GH_PAT" in str(caught.value.hint)


def test_other_errors_keep_their_own_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A key of a mapping that happens to be called as a variable is no variable."""
    monkeypatch.setenv("GH_PAT", CANARY)
    code = "return {}['GH_PAT']"
    with pytest.raises(DipeoError) as caught, Session(tmp_path, llm=scripted()) as dp:
        dp.run(diagram("code_job", {"language": "python", "code": code}), view=False)
    assert "PASS_ENV" not in str(caught.value.hint)


def test_what_cannot_be_passed_is_not_advised():
    """The advice for our own variables is another one."""
    assert "pass_env" not in advice("DIPEO_SERVE_TOKEN")


def test_claude_code_and_pip_get_theirs(canaries: None, monkeypatch: pytest.MonkeyPatch):
    """Claude Code: all but harmless variables and its own are emptied, for its SDK adds ours to those it inherits. pip: the
    user's index."""
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", "/home/me/.claude")
    changed = config.claude_code_environment(key="its-own-key", base_url=None)
    assert {changed[name] for name in (*SECRETS, *HIJACKS) if name in changed} == {""}
    assert set(SECRETS) <= set(changed)
    assert "CLAUDE_CONFIG_DIR" not in changed  # inherited
    assert changed["ANTHROPIC_API_KEY"] == "its-own-key"
    assert "GH_PAT" not in config.claude_code_environment(key=None, base_url=None, pass_env=["GH_PAT"])
    pip = config.pip_environment()
    assert pip["PIP_INDEX_URL"] == f"{CANARY}-PIP_INDEX_URL"
    assert pip["https_proxy"].startswith("http://me:")
    assert {name for name in (*SECRETS, *HIJACKS) if name in pip} == {"PIP_INDEX_URL", "NETRC"}
    assert model_store.pip_environment is config.pip_environment


def test_allowed_and_never_are_apart():
    """Nothing that is passed to everybody is on the other list; an empty environment stays empty."""
    assert not {name for name in PASSED if child_environment({name.rstrip("*") + "X" * name.endswith("*"): "1"}) == {}}
    assert child_environment({}) == {}
    assert child_environment({"HTTP_PROXY": "me:pw@proxy:1"}) == {"HTTP_PROXY": "proxy:1"}
    assert child_environment({"HTTP_PROXY": "http://[bad"}) == {"HTTP_PROXY": ""}
