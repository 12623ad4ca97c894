"""Files that came with a folder: what they suggest waits for the user, and says so where it is needed (config,
security/folder_settings.py)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, Literal

import pexpect
import pytest
from pydantic import SecretStr

import dipeo_nb as dp
from dipeo_nb.common.loop import run_sync
from dipeo_nb.config import (
    FIELDS,
    FolderSettingWarning,
    Settings,
    UnknownSettingWarning,
    get_settings,
    override_settings,
    reset_settings,
    scope_of,
    user_file,
)
from dipeo_nb.errors import ConfigurationError, SettingNotApprovedError
from dipeo_nb.runtime import Runtime
from dipeo_nb.security.folder_settings import (
    approve_settings,
    decline_settings,
    declined_settings,
    forget_settings,
    pending_settings,
    settings_listing,
)

HOSTILE: dict[str, tuple[str, str]] = {
    "base_dir": ("/", "/etc"),
    "default_llm_model": ("openai:gpt-evil", "ollama:evil"),
    "llm_timeout": ("7", "8"),
    "llm_idle_timeout": ("7", "8"),
    "llm_max_retries": ("7", "8"),
    "llm_temperature": ("1.5", "1.6"),
    "llm_max_tokens": ("7", "8"),
    "llm_fallbacks": ("openai:gpt-evil", "local, ollama:evil"),
    "llm_mode": ("record", "replay"),
    "llm_recordings": ("/tmp/evil", "../evil"),
    "execution_timeout": ("7", "8"),
    "node_timeout": ("7", "8"),
    "parallel_execution": ("false", "0"),
    "execution_parallelism": ("7", "8"),
    "max_iterations": ("7", "8"),
    "state_store_path": ("postgresql://evil.example/x", "../evil.db"),
    "state_store_sync": ("full", "full"),
    "streamed_text": ("condensed", "condensed"),
    "blob_store": ("s3://evil/x", "~/evil"),
    "conversation_store": ("redis://evil.example/0", "/tmp/evil.db"),
    "cache_dir": ("/tmp/evil", "evil"),
    "data_dir": ("evil", "/tmp/evil"),
    "keys_store": ("file", "keyring"),
    "keys_passphrase": ("known", "known too"),
    "local_model": ("/tmp/evil.gguf", "evil.gguf"),
    "max_file_size": ("7", "8"),
    "event_bus": ("redis://evil.example/0", "redis"),
    "redis_url": ("redis://evil.example/0", "redis://evil2.example/0"),
    "event_queue_size": ("7", "8"),
    "otel": ("true", "1"),
    "openai_api_key": ("sk-canary-1234567890", "sk-canary-0987654321"),
    "anthropic_api_key": ("sk-ant-canary-1234567890", "sk-ant-canary-0987654321"),
    "google_api_key": ("AIzacanary1234567890", "AIzacanary0987654321"),
    "openai_base_url": ("https://evil.example/v1", "https://api.openai.com.evil.example/v1"),
    "anthropic_base_url": ("https://evil.example", "http://api.anthropic.com"),
    "google_base_url": ("https://evil.example", "https://storage.googleapis.com"),
    "ollama_host": ("https://evil.example", "evil.example:11434"),
    "host": ("0.0.0.0", "::"),
    "port": ("7", "8"),
    "serve_token": ("attackerknows", "attackerknowstoo"),
    "cors_origins": ("https://evil.example", "https://evil2.example"),
    "guest_budget": ("1000", "500"),
    "open_places": (".github", ".ssh"),
    "pass_env": ("AWS_*", "GH_PAT"),
    "log_level": ("DEBUG", "ERROR"),
    "trusted_folders": ("/", "/tmp"),
}
"""Field → two values that a hostile folder may want."""
STATES = ("unapproved", "approved", "changed", "declined")
FILES = (".env", "dipeo.toml")
CASES = [(field, file, state) for field in FIELDS for file in FILES for state in STATES]


def variable_of(field: str) -> str:
    return FIELDS[field].variables[0]


def write(folder: Path, file: str, **values: str) -> None:
    if file == ".env":
        lines = [f"{variable_of(field)}='{value}'" for field, value in values.items()]
    else:
        lines = [f"{field} = {json.dumps(value)}" for field, value in values.items()]
    (folder / file).write_text("\n".join(lines) + "\n")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cloned repository as the current directory; data and configuration of the user lie elsewhere."""
    for name in list(os.environ):
        if name.startswith("DIPEO_") or name.endswith(("_API_KEY", "_BASE_URL")) or name == "OLLAMA_HOST":
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home if name == "HOME" else home / name.lower()))
    home.mkdir()
    monkeypatch.setenv("DIPEO_DATA_DIR", str(home / "data"))
    monkeypatch.setenv("DIPEO_KEYS_STORE", "file")
    clone = tmp_path / "clone"
    clone.mkdir()
    monkeypatch.chdir(clone)
    reset_settings()
    return clone


def test_there_is_a_case_for_every_field():
    """A new setting needs a hostile value here, so that its scope is thought about."""
    assert set(HOSTILE) == set(FIELDS)
    assert len(set(CASES)) >= 200
    assert len(CASES) == 8 * len(HOSTILE)


@pytest.mark.parametrize(("field", "file", "state"), CASES)
def test_a_hostile_folder(
    field: str,
    file: str,
    state: Literal["unapproved", "approved", "changed", "declined"],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Personal settings have no effect; suggested ones exactly when they were approved as they are; harmless ones have."""
    for variable in ("DIPEO_DATA_DIR", "DIPEO_KEYS_STORE"):
        if variable_of(field) == variable:
            monkeypatch.delenv(variable)
    reset_settings()
    usual = Settings().peek(field)
    first, second = HOSTILE[field]
    write(folder, file, **{field: first})
    if state in ("approved", "changed"):
        approve_settings(folder, settings=Settings())
    if state == "declined":
        decline_settings(folder, settings=Settings())
    if state == "changed":
        write(folder, file, **{field: second})
    reset_settings()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settings = get_settings()
    scope = scope_of(field)
    said = [str(w.message) for w in caught if issubclass(w.category, FolderSettingWarning)]
    standing = next(row.standing for row in settings.explain() if row.name == field)
    if scope == "personal":
        assert getattr(settings, field) == usual
        assert len(said) == 1
        assert file in said[0]
        assert str(user_file()) in said[0]
        assert "ignored (personal)" in standing
        return
    assert not said
    assert settings.origin(field).source == file
    assert not settings.origin(field).personal
    expected = settings.peek(field)
    assert expected != usual
    if scope in ("harmless", "key"):
        assert getattr(settings, field) == expected
        assert standing == "folder"
    elif state == "approved":
        assert getattr(settings, field) == expected
        assert standing.startswith("folder, approved ")
    else:
        with pytest.raises(SettingNotApprovedError) as refused:
            getattr(settings, field)
        message = str(refused.value)
        assert "dipeo-nb trust" in message
        assert variable_of(field) in message
        assert str(folder / file) in message
        assert standing.startswith("folder, declined" if state == "declined" else "folder, waiting")


HARMLESS = [
    ("base_dir", "sub", True),
    ("base_dir", "out", False),  # a link that leads outside
    ("base_dir", "..", False),
    ("state_store_path", "runs.db", True),
    ("state_store_path", ".dipeo/runs.db", True),
    ("state_store_path", ":memory:", True),
    ("state_store_path", ".git/config", False),
    ("state_store_path", "out/runs.db", False),
    ("state_store_path", "sub/../../x.db", False),
    ("blob_store", "data/blobs", True),
    ("blob_store", "memory:", True),
    ("blob_store", "file:///etc", False),
    ("conversation_store", "talk.db", True),
    ("conversation_store", "~/talk.db", False),
    ("llm_recordings", "recordings", True),
    ("llm_recordings", "../recordings", False),
    ("llm_mode", "live", True),
    ("event_bus", "memory", True),
    ("otel", "false", True),
    ("default_llm_model", "local", True),
    ("default_llm_model", "echo", True),
    ("default_llm_model", "local:smollm2-135m", True),
    ("default_llm_model", "local:/etc/x.gguf", False),
    ("default_llm_model", "locals", False),
    ("llm_fallbacks", "local, echo", True),
    ("llm_fallbacks", "local, gpt-5", False),
    ("local_model", "smollm2-135m", True),
    ("local_model", "sub", False),  # it is there, so it may be a file
    ("openai_base_url", "https://api.openai.com/v1", True),
    ("openai_base_url", "https://eu.api.openai.com/v1", True),
    ("openai_base_url", "http://api.openai.com/v1", False),
    ("openai_base_url", "https://api.openai.com@evil.example/v1", False),
    ("openai_base_url", "https://evil.example/?https://api.openai.com", False),
    ("openai_base_url", "https://xapi.openai.com/v1", False),
    ("openai_base_url", "https://evil.example\\\\.api.openai.com/v1", False),
    ("anthropic_base_url", "https://api.anthropic.com", True),
    ("google_base_url", "https://generativelanguage.googleapis.com", True),
    ("google_base_url", "https://storage.googleapis.com", False),
]


@pytest.mark.parametrize(("field", "value", "harmless"), HARMLESS)
def test_some_values_are_harmless(field: str, value: str, harmless: bool, folder: Path):
    """What stays in the folder, on this machine or at the provider has effect at once."""
    (folder / "sub").mkdir()
    (folder / "out").symlink_to(folder.parent)
    write(folder, ".env", **{field: value})
    reset_settings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FolderSettingWarning)
        settings = get_settings()
    if field == "base_dir":
        assert settings.base_dir == (folder / value if harmless else folder)
    elif harmless:
        getattr(settings, field)
        assert not settings.waits(field)
    else:
        assert settings.waits(field)


def test_an_approval_is_for_the_folder_and_all_its_values(folder: Path, tmp_path: Path):
    """A timeout or a key may change; a URL, one that is added or taken away, and the same file elsewhere ask again."""
    write(folder, ".env", openai_base_url="https://proxy.example/v1", llm_timeout="7", openai_api_key="sk-1234567890")
    assert [p.variable for p in pending_settings(folder)] == ["OPENAI_BASE_URL"]
    assert [p.variable for p in approve_settings(folder)] == ["OPENAI_BASE_URL"]
    assert approve_settings(folder) == ()
    write(folder, ".env", openai_base_url="https://proxy.example/v1", llm_timeout="8", openai_api_key="sk-0987654321")
    assert pending_settings(folder) == ()
    (folder / ".env").rename(folder / "kept")
    write(folder, "dipeo.toml", openai_base_url="https://proxy.example/v1")
    assert pending_settings(folder) == ()  # which file says it makes no difference
    write(folder, "dipeo.toml", openai_base_url="https://evil.example/v1", otel="true")
    pending = {p.name: p for p in pending_settings(folder)}
    assert pending["openai_base_url"].before == "https://proxy.example/v1"
    assert "was https://proxy.example/v1" in str(pending["openai_base_url"])
    assert pending["otel"].before is None
    copy = tmp_path / "copy"
    copy.mkdir()
    write(copy, ".env", openai_base_url="https://proxy.example/v1")
    assert len(pending_settings(copy)) == 1
    assert forget_settings(folder)
    assert not forget_settings(folder)


def test_what_was_shown_is_approved_and_nothing_else(folder: Path):
    """A file that changes between the question and the answer."""
    write(folder, ".env", openai_base_url="https://proxy.example/v1")
    shown = pending_settings(folder)
    write(folder, ".env", openai_base_url="https://evil.example/v1")
    with pytest.raises(ConfigurationError, match="changed since they were shown"):
        approve_settings(folder, shown=shown)
    assert len(pending_settings(folder)) == 1


def test_a_folder_cannot_flood_or_steer_the_terminal(folder: Path):
    """Names in its files are shown escaped, and only some of them; a number with 5000 digits is one clear error."""
    lines = [f'"\\u001b[2J\\u202ename{n}" = 1' for n in range(3000)]
    (folder / "dipeo.toml").write_text("\n".join(lines))
    reset_settings()
    with pytest.warns(UnknownSettingWarning) as caught:
        get_settings()
    said = [str(w.message) for w in caught]
    assert len(said) == 21
    assert "2980 more unknown settings" in said[-1]
    assert all(text.isprintable() for text in said)
    (folder / "dipeo.toml").write_text(f"port = {'9' * 5000}")
    reset_settings()
    with pytest.raises(ConfigurationError):
        get_settings()


def test_a_run_says_what_waits(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A node that would ask a server of the folder fails with both ways out; the key is not sent."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-of-the-user-1234")
    write(folder, ".env", openai_base_url="http://127.0.0.2:9/v1")
    reset_settings()
    asking = {**LIGHT, "persons": {"Ada": {"service": "openai", "model": "m"}}}
    with (
        dp.Session() as session,
        pytest.raises(Exception, match=r"OPENAI_BASE_URL=http://127\.0\.0\.2:9/v1 .* needs your approval") as caught,
    ):
        session.run(asking)
    assert "dipeo-nb trust" in str(caught.value)


def test_a_no_is_kept_and_a_yes_undoes_it(folder: Path):
    """For exactly what was declined."""
    write(folder, ".env", ollama_host="https://one.example")
    decline_settings(folder)
    assert declined_settings(folder)
    assert "declined" in settings_listing(folder)[0]
    write(folder, ".env", ollama_host="https://two.example")
    assert not declined_settings(folder)
    approve_settings(folder)
    assert not declined_settings(folder)
    assert "approved" in settings_listing(folder)[0]


def test_an_approval_has_effect_at_once(folder: Path):
    """Settings, sessions and their copies that were made before see it: nobody restarts a kernel."""
    write(folder, ".env", state_store_path="../elsewhere.db")
    reset_settings()
    settings = get_settings()
    copy = settings.model_copy(update={"llm_timeout": 3})
    with dp.Session(), pytest.raises(SettingNotApprovedError):
        dp.runs()
    approve_settings(folder)
    assert settings.state_store_path == copy.state_store_path == folder / "../elsewhere.db"
    assert len(dp.runs()) == 0


LIGHT = {
    "version": "light",
    "persons": {"Ada": {"service": "echo"}},
    "nodes": [
        {"label": "Start", "type": "start"},
        {"label": "Say", "type": "person_job", "props": {"person": "Ada", "default_prompt": "hi"}},
        {"label": "End", "type": "endpoint"},
    ],
    "connections": [{"from": "Start", "to": "Say"}, {"from": "Say", "to": "End"}],
}


@pytest.mark.parametrize(
    ("field", "value", "runs"),
    [
        ("openai_base_url", "https://evil.example", True),  # nobody asks OpenAI
        ("ollama_host", "https://evil.example", True),
        ("default_llm_model", "openai:evil", True),
        ("llm_fallbacks", "openai:evil", True),
        ("blob_store", "s3://evil/x", True),
        ("local_model", "/etc/evil.gguf", True),
        ("otel", "true", True),
        ("state_store_path", "postgresql://evil.example/x", False),
        ("event_bus", "redis://evil.example/0", False),
        ("llm_mode", "replay", False),
    ],
)
def test_what_does_not_need_it_works(field: str, value: str, runs: bool, folder: Path):
    """Loading, checking and drawing always; a run unless it needs the very setting."""
    write(folder, ".env", **{field: value})
    (folder / "d.light.yaml").write_text(json.dumps(LIGHT))
    reset_settings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FolderSettingWarning)
        with dp.Session() as session:
            diagram = session.load("d")
            assert "svg" in diagram.svg()
            if runs:
                assert session.run(diagram).outputs["End"] is not None
            else:
                with pytest.raises(Exception, match="needs your approval"):
                    session.run(diagram)


def test_a_waiting_conversation_store_refuses_only_conversations(folder: Path):
    """No other store takes its place."""
    write(folder, ".env", conversation_store="redis://evil.example/0", blob_store="s3://evil/x")
    reset_settings()
    services = Runtime().services
    for call in (lambda: services.conversations.get_messages("x"), lambda: services.blobs.get("x")):
        with pytest.raises(SettingNotApprovedError):
            run_sync(call())


def cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dipeo_nb", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
    )


def test_the_command_refuses_without_a_terminal(folder: Path):
    """Exit status 2, both ways out, nothing made; looking works."""
    write(folder, ".env", state_store_path="postgresql://user:canarypassword@evil.example/x")
    (folder / "d.light.yaml").write_text(json.dumps(LIGHT))
    done = cli(folder, "run", "d")
    assert done.returncode == 2
    assert "dipeo-nb trust" in done.stderr
    assert "STATE_STORE_PATH" in done.stderr
    assert "canarypassword" not in done.stderr
    assert cli(folder, "validate", "d").returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="not here: no terminals to drive on Windows")
def test_a_terminal_is_asked_once(folder: Path):
    """No is remembered, and then not asked again; yes is remembered, and the run goes on."""
    write(folder, ".env", state_store_path="../elsewhere.db")
    (folder / "d.light.yaml").write_text(json.dumps(LIGHT))

    def ask(answer: str | None) -> tuple[str, int | None]:
        child = pexpect.spawn(sys.executable, ["-m", "dipeo_nb", "run", "--quiet", "d"], encoding="utf-8", timeout=60)
        if answer is not None:
            child.expect(r"STATE_STORE_PATH=\.\./elsewhere\.db[\s\S]*Use them, as they are now\? \[y/N\] ")
            child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        return child.before or "", child.exitstatus

    assert ask("")[1] == 2
    said, status = ask(None)
    assert (status, "Use them" in said) == (2, False)
    forget_settings(folder)
    assert ask("y")[1] == 0
    assert ask(None)[1] == 0
    assert (folder.parent / "elsewhere.db").exists()


# Files and values.


def test_the_users_own_file(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """It goes after the environment and before the folder, and may set everything."""
    path = user_file()
    path.parent.mkdir(parents=True)
    path.write_text('host = "::1"\nllm_timeout = 5\nOPENAI_BASE_URL = "https://mine.example"\nnode_timeout = 4\n')
    path.chmod(0o600)
    write(folder, ".env", llm_timeout="6", openai_base_url="https://evil.example", max_iterations="9")
    monkeypatch.setenv("DIPEO_NODE_TIMEOUT", "3")
    reset_settings()
    settings = get_settings()
    assert (settings.host, settings.llm_timeout, settings.openai_base_url) == ("::1", 5, "https://mine.example")
    assert (settings.node_timeout, settings.max_iterations) == (3, 9)
    assert settings.origin("host").personal
    assert str(settings.origin("host")) == str(path)
    path.write_text("hots = 1\n")
    reset_settings()
    with pytest.warns(UnknownSettingWarning, match=r"config\.toml: there is no setting 'hots'. Did you mean 'host'"):
        get_settings()


@pytest.mark.skipif(os.name == "nt", reason="not here: Windows has access lists instead of modes")
@pytest.mark.parametrize("how", ["writable", "of another user"])
def test_a_users_file_that_others_can_change_is_refused(how: str):
    """It says where keys go."""
    path = user_file()
    path.parent.mkdir(parents=True)
    path.write_text('host = "0.0.0.0"\n')
    if how == "writable":
        path.chmod(0o622)
    elif os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        pytest.skip("not here: only root can give files away")
    reset_settings()
    with pytest.raises(ConfigurationError, match=r"config\.toml cannot be read"):
        get_settings()


@pytest.mark.skipif(os.name == "nt", reason="not here: Windows has access lists instead of modes")
def test_a_file_that_somebody_put_into_a_shared_folder_is_ignored(folder: Path):
    """Such as /tmp/.env of another user."""
    if os.geteuid() != 0:
        pytest.skip("not here: only root can give files away")
    write(folder, ".env", llm_timeout="7")
    os.chown(folder / ".env", 12345, -1)
    reset_settings()
    with pytest.warns(UserWarning, match="belongs to another user and is ignored"):
        assert get_settings().llm_timeout == 300
    os.chown(folder, 12345, -1)  # the whole folder is theirs, as a mounted one is: like any other clone
    reset_settings()
    assert get_settings().llm_timeout == 7


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
@pytest.mark.parametrize("file", FILES)
def test_encodings(encoding: str, file: str, folder: Path):
    """With a byte order mark UTF-16 is read, too, as PowerShell writes it; anything else is one clear error."""
    text = "DIPEO_LLM_TIMEOUT=7\n# ä\n" if file == ".env" else "llm_timeout = 7\n# ä\n"
    (folder / file).write_bytes(text.encode(encoding))
    reset_settings()
    if encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert get_settings().llm_timeout == 7
    else:
        with pytest.raises(ConfigurationError, match=rf"{file.replace('.', '[.]')} cannot be read: it is not UTF-8"):
            get_settings()
        assert "defect" not in cli(folder, "validate", "d").stderr


@pytest.mark.skipif(os.name == "nt", reason="not here: no pipes in folders on Windows")
@pytest.mark.parametrize("how", ["pipe", "zero device", "folder", "large", "dangling link", "broken", "deep"])
@pytest.mark.parametrize("file", FILES)
def test_odd_files_neither_hang_nor_crash(how: str, file: str, folder: Path):
    """A folder of that name is no file of settings; the rest is one clear error."""
    path = folder / file
    match how:
        case "pipe":
            os.mkfifo(path)
        case "zero device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "dangling link":
            path.symlink_to("nowhere")
        case "large":
            path.write_bytes(b"#" * 1_000_000)
        case "broken":
            path.write_text("= = =\n'" if file == ".env" else "a = = 3")
        case _:
            path.write_text(f"A={'[' * 100_000}")
    reset_settings()
    if how in ("folder", "dangling link") or (file == ".env" and how in ("broken", "deep")):
        assert get_settings().llm_timeout == 300
    else:
        with pytest.raises(ConfigurationError, match=rf"{file.replace('.', '[.]')} cannot be read"):
            get_settings()


def test_a_file_cannot_take_variables_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """`${OPENAI_API_KEY}` in a value would carry the key to where the value goes; references within the file are fine."""
    monkeypatch.setenv("GITHUB_TOKEN", "canary-of-the-user")
    (folder / ".env").write_text(
        "HOST=proxy.example\nOPENAI_BASE_URL=https://${HOST}/${GITHUB_TOKEN}/v1\nANTHROPIC_API_KEY=${GITHUB_TOKEN}x${NO:-y}\n"
    )
    reset_settings()
    settings = get_settings()
    assert settings.peek("openai_base_url") == "https://proxy.example//v1"
    assert settings.anthropic_api_key == SecretStr("xy")


@pytest.mark.parametrize("field", FIELDS)
def test_an_empty_variable_is_unset(field: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """In the environment, in .env, in dipeo.toml: the default."""
    if variable_of(field) == "DIPEO_DATA_DIR":
        monkeypatch.delenv("DIPEO_DATA_DIR")
    usual = Settings().peek(field)
    write(folder, ".env", **{field: " "})
    write(folder, "dipeo.toml", **{field: ""})
    if variable_of(field) not in ("DIPEO_DATA_DIR", "DIPEO_KEYS_STORE"):
        monkeypatch.setenv(variable_of(field), "")
    assert Settings().peek(field) == usual


PATHS = (
    "base_dir",
    "cache_dir",
    "data_dir",
    "state_store_path",
    "llm_recordings",
    "blob_store",
    "conversation_store",
    "local_model",
)


@pytest.mark.parametrize("field", PATHS)
@pytest.mark.parametrize("where", ["environment", "user's file", "code"])
def test_a_tilde_is_the_home(field: str, where: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """In every path, wherever it stands."""
    home = Path(os.environ["HOME"])
    (home / "x").mkdir()
    if where == "environment":
        monkeypatch.setenv(variable_of(field), "~/x")
    elif where == "user's file":
        monkeypatch.delenv("DIPEO_DATA_DIR")
        user_file().parent.mkdir(parents=True)
        write(user_file().parent, "dipeo.toml", **{field: "~/x"})
        (user_file().parent / "dipeo.toml").rename(user_file())
        user_file().chmod(0o600)
    reset_settings()
    with override_settings(**({field: "~/x"} if where == "code" else {})) as settings:
        assert str(getattr(settings, field)) == str(home / "x")
    assert not (folder / "~").exists()


def test_chdir_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Settings are those of the folder in which they were first asked for, with its relative paths."""
    write(folder, ".env", state_store_path="runs.db", llm_timeout="7")
    reset_settings()
    before = get_settings()
    monkeypatch.chdir("/")
    assert get_settings() is before
    assert before.state_store_path == folder / "runs.db"
    assert before.base_dir == before.folder == folder


@pytest.mark.parametrize(
    "changes",
    [{"port": "abc"}, {"llm_timeout": -1}, {"llm_mode": "x"}, {"no_such": 1}, {"log_level": "LOUD"}, {"data_dir": 3}],
)
def test_overrides_are_checked(changes: dict[str, Any]):
    """As variables are; a name that is none is refused."""
    for use in (
        lambda: override_settings(**changes).__enter__(),
        lambda: Settings(**changes),
        lambda: get_settings().model_copy(update=changes),
    ):
        with pytest.raises(ConfigurationError):
            use()


def test_overrides_of_threads_do_not_meet():
    """Each thread sees its own, whichever ends first, and nothing is left behind; calls in threads of the block see the block's."""
    barrier = threading.Barrier(2)
    seen: dict[int, list[int]] = {}

    def work(port: int) -> None:
        with override_settings(port=port):
            barrier.wait()
            seen[port] = [get_settings().port]
            barrier.wait()
            if port == 2:
                barrier.wait()
                seen[port].append(get_settings().port)
        if port == 1:
            barrier.wait()
        seen[port].append(get_settings().port)

    threads = [threading.Thread(target=work, args=(port,)) for port in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {1: [1, 8000], 2: [2, 2, 8000]}
    assert get_settings().port == 8000

    async def port() -> int:
        return await asyncio.to_thread(lambda: get_settings().port)

    with override_settings(port=3):
        assert asyncio.run(port()) == 3
        assert run_sync(port()) == 3


def test_an_override_is_the_users_word(folder: Path):
    """Also of what the folder suggests."""
    write(folder, ".env", openai_base_url="https://evil.example")
    reset_settings()
    with override_settings(openai_base_url="https://mine.example") as settings:
        assert settings.openai_base_url == "https://mine.example"
        assert settings.origin("openai_base_url").personal
    with pytest.raises(SettingNotApprovedError):
        _ = get_settings().openai_base_url


def test_names_of_variables_in_toml_have_effect_without_a_warning(folder: Path):
    """By field or by variable."""
    (folder / "dipeo.toml").write_text("DIPEO_PORT = 9\nllm_timeout = 3\nport_x = 1\n")
    reset_settings()
    with pytest.warns(UnknownSettingWarning) as caught:
        assert (get_settings().port, get_settings().llm_timeout) == (9, 3)
    assert [str(w.message).partition(".toml")[2] for w in caught] == [": there is no setting 'port_x'. Did you mean 'port'?"]


@pytest.mark.parametrize("folder_value", ["postgresql://u:canary1@evil.example/x", "https://h/?api_key=canary1"])
def test_values_are_shown_without_passwords(folder_value: str, folder: Path):
    """In what explain(), the listing and the error say."""
    write(folder, ".env", state_store_path=folder_value)
    reset_settings()
    settings = get_settings()
    with pytest.raises(SettingNotApprovedError) as caught:
        _ = settings.state_store_path
    shown = f"{caught.value}{settings.explain()!r}{settings.explain()._repr_html_()}{settings_listing(folder)}"
    assert "canary1" not in shown
    assert "evil.example" in shown or "h/?" in shown


def test_trusting_a_folder_approves_its_settings(folder: Path):
    """`dipeo-nb trust .` shows and approves them; --list tells their standing; --forget takes all of it back."""
    write(folder, ".env", openai_base_url="https://proxy.example/v1")
    assert "waiting" in cli(folder, "trust", ".", "--list").stdout
    done = cli(folder, "trust", ".")
    assert "OPENAI_BASE_URL=https://proxy.example/v1" in done.stdout
    assert pending_settings(folder) == ()
    assert "approved" in cli(folder, "trust", ".", "--list").stdout
    assert "openai_base_url=https://proxy.example/v1" in cli(folder, "trust").stdout
    write(folder, ".env", openai_base_url="https://evil.example/v1")
    assert len(pending_settings(folder)) == 1  # also in a trusted folder
    assert cli(folder, "trust", ".", "--forget").returncode == 0
    assert "proxy.example" not in cli(folder, "trust").stdout
    dp.Session().trust(".")
    assert pending_settings(folder) == ()
