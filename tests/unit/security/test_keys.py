"""Stored keys: where they lie, who can read them, what is said of them, and how one gets them in and out."""

from __future__ import annotations

import json
import logging
import os
import pickle
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import keyring.backends.fail
import keyring.backends.null
import pexpect
import pytest
from pydantic import SecretStr

from dipeo_nb.common.redaction import redactor
from dipeo_nb.config import Settings, get_settings, reset_settings
from dipeo_nb.container import build
from dipeo_nb.domain.chat import ChatMessage, LLMRequest
from dipeo_nb.errors import (
    APIKeyError,
    APIKeyNotFoundError,
    DipeoError,
    MissingDependencyError,
    StorageError,
    ValidationError,
)
from dipeo_nb.llm.client_pool import ClientManager
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.environment import EnvironmentAPIKeyService, variables_of_services
from dipeo_nb.security.keys import APIKeyChain, APIKeyService, overview
from dipeo_nb.security.keystore import KeyFile, KeyFilePermissionWarning, SystemKeyring, stores
from tests.support.keyring_backend import DictKeyring
from tests.support.wire_openai import ScriptedServer, run, settings_with

CANARY = "sk-canary-Stored-3Wd8Kq1Zp6Xv"
OTHER = "ghp_canaryStored5Tb2Nc9Rf4Lh7Yg0Jm"
PASSPHRASE = SecretStr("correct horse battery 9")
POSIX = pytest.mark.skipif(os.name == "nt", reason="not here: Windows has no modes of files")
TERMINAL = pytest.mark.skipif(os.name == "nt", reason="not here: no terminals to drive on Windows")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "apikeys.json"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base directory is not where the keys are."""
    (tmp_path / "base").mkdir()
    monkeypatch.chdir(tmp_path / "base")
    monkeypatch.setenv("DIPEO_BASE_DIR", str(tmp_path / "base"))
    monkeypatch.setenv("DIPEO_DATA_DIR", str(tmp_path / "data"))
    for variable in {name for names in variables_of_services().values() for name in names}:
        monkeypatch.delenv(variable, raising=False)
    reset_settings()


@pytest.fixture
def ring() -> Iterator[DictKeyring]:
    """A keyring of this process, set up as the system's."""
    before = keyring.get_keyring()
    made = DictKeyring()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


def secret(keys: Any, name: str) -> str:
    return run(keys.get_api_key(name)).get_secret_value()


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# What the service does.


def test_keys_are_created_found_changed_and_deleted():
    """Usable right after construction; ids are as upstream's; rows are masked."""
    keys = APIKeyService()
    row = run(keys.create_api_key("Team", "OpenAI", CANARY))
    assert row == {
        **row,
        "label": "Team",
        "service": "openai",
        "key": f"sk-…{CANARY[-4:]}",
        "source": "key file",
    }
    assert row["id"].startswith("APIKEY_")
    assert int(row["id"].removeprefix("APIKEY_"), 16) >= 0
    assert run(keys.list_api_keys()) == [row]
    assert secret(keys, row["id"]) == CANARY
    changed = run(keys.update_api_key(row["id"], label="Mine", key="sk-another-0123456789"))
    assert (changed["label"], changed["service"], changed["key"]) == ("Mine", "openai", "sk-…6789")
    run(keys.delete_api_key(row["id"]))
    assert run(keys.list_api_keys()) == []
    for gone in (keys.get_api_key(row["id"]), keys.update_api_key(row["id"], label="x"), keys.delete_api_key("openai")):
        with pytest.raises(APIKeyNotFoundError):
            run(gone)


def test_a_key_is_found_by_id_service_alias_and_model():
    """A person of a diagram names a key by its id or by a service; of several, the first of a service counts."""
    keys = APIKeyService()
    first = run(keys.create_api_key("a", "anthropic", CANARY))
    run(keys.create_api_key("b", "anthropic", "another-key-0123456789"))
    for name in (
        first["id"],
        first["id"].lower(),
        "anthropic",
        "Claude",
        "claude-sonnet-5",
        "anthropic:claude-sonnet-5",
    ):
        assert secret(keys, name) == CANARY
    with pytest.raises(APIKeyError, match="There are 2 keys") as caught:
        run(keys.delete_api_key("anthropic"))
    assert first["id"] in str(caught.value.hint)


def test_setting_replaces_and_takes_ids_of_diagrams():
    """Setting a service twice leaves one key; an id that a diagram has can be given its key."""
    keys = APIKeyService()
    run(keys.set_api_key("openai", "sk-first-0123456789"))
    run(keys.set_api_key("gpt", f" {CANARY}\n"))
    run(keys.set_api_key("APIKEY_52609F", OTHER, service="github"))
    assert [row["service"] for row in run(keys.list_api_keys())] == ["openai", "github"]
    assert (secret(keys, "openai"), secret(keys, "APIKEY_52609F"), secret(keys, "github")) == (CANARY, OTHER, OTHER)


@pytest.mark.parametrize("key", ["", "  ", "two words", "two\nlines", "a\0b", "x" * 9000, None, 5], ids=ascii)
def test_what_is_no_key_is_refused(key: Any, file: Path):
    """Empty, several words, control characters, too long, no text (an unset variable): refused, and not repeated."""
    with pytest.raises(ValidationError, match="not an API key") as caught:
        run(APIKeyService().set_api_key("openai", key))
    assert not str(key).strip() or str(key) not in str(caught.value)
    assert not file.exists()


def test_a_key_in_the_place_of_a_name_is_not_repeated():
    """Somebody mistakes the arguments: the error does not show the key."""
    keys = APIKeyService()
    for wrong in (
        keys.set_api_key(CANARY, "x"),
        keys.create_api_key(CANARY, "openai", "x"),
        keys.create_api_key("x", CANARY, "x"),
        APIKeyChain.of(get_settings()).get_api_key(CANARY),
    ):
        with pytest.raises(DipeoError) as caught:
            run(wrong)
        assert CANARY not in told(caught.value)


def told(error: BaseException) -> str:
    """All that an error could show, its chain of causes and its pickled form included."""
    chain, seen = error, [repr(error), "".join(traceback.format_exception(error)), repr(pickle.dumps(error))]
    while (chain := chain.__cause__ or chain.__context__) is not None:
        seen += [repr(chain), repr(vars(chain)), repr(chain.args)]
    return "\n".join(seen)


# The file.


@POSIX
def test_the_file_is_private(file: Path):
    """Mode 0600 in a folder of mode 0700, whatever the umask; no other file stays but the lock."""
    before = os.umask(0)
    try:
        run(APIKeyService().set_api_key("openai", CANARY))
        run(APIKeyService().set_api_key("github", OTHER))
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert {path.name for path in file.parent.iterdir()} <= {"apikeys.json", "apikeys.json.lock"}


@POSIX
def test_a_file_that_others_can_read_is_closed_with_a_warning(file: Path):
    """The next look at it closes it and says so once."""
    keys = APIKeyService()
    run(keys.set_api_key("openai", CANARY))
    file.chmod(0o644)
    with pytest.warns(KeyFilePermissionWarning, match="mode 0600"):
        run(keys.list_api_keys())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret(keys, "openai") == CANARY


def test_no_key_is_written_into_the_base_directory(tmp_path: Path):
    """Diagrams read it, servers show it, people commit it."""
    inside = tmp_path / "base" / ".hidden"
    for keys in (
        APIKeyService(inside / "keys.json"),
        APIKeyService(settings=settings_with(data_dir=inside)),
    ):
        with pytest.raises(APIKeyError, match="base directory") as caught:
            run(keys.set_api_key("openai", CANARY))
        assert "DIPEO_DATA_DIR" in str(caught.value.hint)
    assert not inside.exists()


def test_a_base_directory_above_the_home_does_not_forbid_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whoever starts a notebook in the home directory can store keys in the folder that the system has for that."""
    monkeypatch.setenv("HOME" if os.name != "nt" else "USERPROFILE", str(tmp_path / "home"))
    keys = APIKeyService(settings=settings_with(base_dir=tmp_path, data_dir=tmp_path / "home" / ".local" / "share"))
    run(keys.set_api_key("openai", CANARY))
    assert secret(keys, "openai") == CANARY


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"APIKEY_1": {"label": "x"}}',
        b'{"encryption": {}, "keys": {}}',
        b"[" * 100_000,
        b'{"APIKEY_1": {"label": "x", "service": "openai", "key": "' + CANARY.encode() + b'"}',
    ],
    ids=["empty", "cut", "binary", "list", "row", "encryption", "deep", "cut with a key"],
)
def test_a_damaged_file_is_kept_and_said(damage: bytes, file: Path):
    """Nothing reads it as empty, nothing overwrites it; a private copy is kept; the error shows nothing of its content."""
    file.parent.mkdir()
    file.write_bytes(damage)
    file.chmod(0o600)
    keys = APIKeyService()
    for work in (
        keys.list_api_keys(),
        keys.get_api_key("openai"),
        keys.set_api_key("openai", CANARY),
        keys.create_api_key("x", "openai", CANARY),
        keys.delete_api_key("openai"),
        keys.initialize(),
    ):
        with pytest.raises(APIKeyError, match="is damaged") as caught:
            run(work)
        assert CANARY not in told(caught.value)
    assert file.read_bytes() == damage
    (copy,) = file.parent.glob("*.corrupt-*")
    assert copy.read_bytes() == damage
    assert os.name == "nt" or stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert copy.name in str(caught.value.hint)


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path):
    """A file where the folder should be: said, with what to do."""
    (tmp_path / "data").write_text("in the way")
    keys = APIKeyService()
    for work in (keys.set_api_key("openai", CANARY), keys.list_api_keys()):
        with pytest.raises(APIKeyError, match="cannot be") as caught:
            run(work)
        assert "DIPEO_DATA_DIR" in str(caught.value.hint)


def test_a_link_stays_a_link(file: Path, tmp_path: Path):
    """A file of keys that is linked to from its place is changed where it is."""
    file.parent.mkdir()
    (tmp_path / "vault").mkdir()
    file.symlink_to(tmp_path / "vault" / "keys.json")
    run(APIKeyService().set_api_key("openai", CANARY))
    assert file.is_symlink()
    assert CANARY in (tmp_path / "vault" / "keys.json").read_text()


def test_another_process_is_seen():
    """What one process stores, another that has looked before finds."""
    code = "import sys; from dipeo_nb.common.loop import run_sync; from dipeo_nb.security.keys import APIKeyService; "
    keys = APIKeyService()
    assert run(keys.list_api_keys()) == []
    python(f"{code} run_sync(APIKeyService().set_api_key('openai', sys.argv[1]))", CANARY)
    assert secret(keys, "openai") == CANARY
    run(keys.set_api_key("openai", OTHER))
    assert python(f"{code} print(run_sync(APIKeyService().get_api_key('openai')).get_secret_value())").strip() == OTHER


def test_processes_that_write_at_the_same_time_lose_nothing():
    """Four processes create 15 keys each, and all set one service: 61 keys."""
    code = """
import sys
from dipeo_nb.common.loop import run_sync
from dipeo_nb.security.keys import APIKeyService
keys = APIKeyService()
for n in range(15):
    run_sync(keys.create_api_key(f"{sys.argv[1]}-{n}", "github", f"key-{sys.argv[1]}-{n}-0123456789"))
    run_sync(keys.set_api_key("openai", f"sk-{sys.argv[1]}-{n}-0123456789"))
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(4)]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    rows = run(APIKeyService().list_api_keys())
    labels = sorted(row["label"] for row in rows if row["service"] == "github")
    assert labels == sorted(f"{n}-{i}" for n in range(4) for i in range(15))
    assert len(rows) == 61


# Encryption.


def test_an_encrypted_file_shows_no_key(file: Path):
    """Neither key nor passphrase is in the file; labels and services are, so that a list needs no passphrase."""
    keys = APIKeyService(settings=settings_with(keys_passphrase=PASSPHRASE))
    run(keys.create_api_key("Team", "openai", CANARY))
    text = file.read_text()
    assert CANARY not in text
    assert CANARY[3:] not in text
    assert PASSPHRASE.get_secret_value() not in text
    assert secret(APIKeyService(settings=settings_with(keys_passphrase=PASSPHRASE)), "openai") == CANARY
    locked = APIKeyService()
    assert locked.locked
    (row,) = run(locked.list_api_keys())
    assert (row["label"], row["service"], row["key"]) == ("Team", "openai", "locked")


def test_without_the_passphrase_nothing_is_read_or_written(file: Path):
    """What needs the passphrase says so; a wrong one is told; what is not there is simply not there."""
    run(APIKeyService(settings=settings_with(keys_passphrase=PASSPHRASE)).set_api_key("openai", CANARY))
    before = file.read_bytes()
    locked = APIKeyService()
    for work in (locked.get_api_key("openai"), locked.set_api_key("github", OTHER), locked.delete_api_key("openai")):
        with pytest.raises(APIKeyError, match="there is no passphrase") as caught:
            run(work)
        assert "DIPEO_KEYS_PASSPHRASE" in str(caught.value.hint)
    with pytest.raises(APIKeyNotFoundError):
        run(locked.get_api_key("APIKEY_000000"))
    wrong = APIKeyService(settings=settings_with(keys_passphrase=SecretStr("wrong")))
    for work in (wrong.list_api_keys(), wrong.set_api_key("github", OTHER)):
        with pytest.raises(APIKeyError, match="the passphrase is wrong"):
            run(work)
    with pytest.raises(APIKeyError, match="the passphrase is wrong"):
        locked.unlock("wrong")
    assert locked.locked
    locked.unlock(PASSPHRASE)
    assert secret(locked, "openai") == CANARY
    assert file.read_bytes() == before


def test_a_plain_file_is_encrypted_when_it_is_next_written(file: Path):
    """Setting the passphrase is all there is to do."""
    run(APIKeyService().set_api_key("openai", CANARY))
    keys = APIKeyService(settings=settings_with(keys_passphrase=PASSPHRASE))
    assert secret(keys, "openai") == CANARY
    run(keys.set_api_key("github", OTHER))
    assert CANARY not in file.read_text()
    assert (secret(keys, "openai"), secret(keys, "github")) == (CANARY, OTHER)


def test_the_passphrase_can_be_changed(file: Path):
    """The old one opens nothing any more, and the salt is another one."""
    keys = APIKeyService()
    run(keys.set_api_key("openai", CANARY))
    run(keys.protect(PASSPHRASE))
    salt = json.loads(file.read_bytes())["encryption"]["salt"]
    run(keys.protect("another passphrase"))
    assert json.loads(file.read_bytes())["encryption"]["salt"] != salt
    fresh = APIKeyService()
    with pytest.raises(APIKeyError, match="the passphrase is wrong"):
        fresh.unlock(PASSPHRASE)
    fresh.unlock("another passphrase")
    assert (secret(fresh, "openai"), secret(keys, "openai")) == (CANARY, CANARY)
    with pytest.raises(APIKeyError, match="empty passphrase"):
        run(keys.protect(""))


def test_an_encrypted_key_cannot_pass_for_another(file: Path):
    """Exchanging two keys in the file, or renaming a service, is found."""
    keys = APIKeyService(settings=settings_with(keys_passphrase=PASSPHRASE))
    first, second = (run(keys.create_api_key("x", name, CANARY))["id"] for name in ("openai", "github"))
    good = json.loads(file.read_bytes())
    for change in (
        {first: {"key": good["keys"][second]["key"]}},
        {first: {"service": "anthropic"}},
        {first: {"key": "junk"}},
    ):
        bad = {**good, "keys": {name: {**row, **change.get(name, {})} for name, row in good["keys"].items()}}
        file.write_text(json.dumps(bad))
        with pytest.raises(APIKeyError, match="changed from outside"):
            run(keys.get_api_key(first))


@pytest.mark.parametrize("costs", [{"n": 2**40}, {"n": 1000}, {"r": 10**6}, {"p": -1}, {"salt": "§"}, {"kdf": "none"}], ids=str)
def test_a_file_with_absurd_costs_is_damaged(costs: dict[str, Any], file: Path):
    """A file cannot make a reader work for hours or take all memory."""
    run(APIKeyService(settings=settings_with(keys_passphrase=PASSPHRASE)).set_api_key("openai", CANARY))
    document = json.loads(file.read_bytes())
    document["encryption"].update(costs)
    file.write_text(json.dumps(document))
    with pytest.raises(APIKeyError, match="is damaged"):
        run(APIKeyService(settings=settings_with(keys_passphrase=PASSPHRASE)).get_api_key("openai"))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, file: Path):
    """Without `cryptography` nothing is written in the open instead; without `keyring` the file is used."""
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(MissingDependencyError, match=r"dipeo-nb\[keys\]"):
        run(APIKeyService(settings=settings_with(keys_passphrase=PASSPHRASE)).set_api_key("openai", CANARY))
    assert not file.exists()
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert [store.name for store in stores(settings_with(keys_store="auto"))] == ["key file"]
    with pytest.raises(MissingDependencyError, match=r"dipeo-nb\[keys\]"):
        stores(settings_with(keys_store="keyring"))


# The keyring.


def test_the_keyring_is_used_where_there_is_one(ring: DictKeyring, file: Path):
    """Keys go there; those that a file has already are found, changed and deleted where they are."""
    run(APIKeyService().set_api_key("github", OTHER))
    keys = APIKeyService(settings=settings_with(keys_store="auto"))
    run(keys.set_api_key("openai", CANARY))
    assert CANARY not in file.read_text()
    assert any(CANARY in entry for entry in ring.entries.values())
    found = [(row["service"], row["source"]) for row in run(keys.list_api_keys())]
    assert found == [("openai", "system keyring"), ("github", "key file")]
    run(keys.set_api_key("github", "another-key-0123456789"))
    assert secret(keys, "github") == "another-key-0123456789"
    run(keys.delete_api_key("github"))
    run(keys.delete_api_key("openai"))
    assert run(keys.list_api_keys()) == []
    assert not any("sk-" in entry for entry in ring.entries.values())
    with pytest.raises(APIKeyError, match="does not use a passphrase"):
        run(keys.protect("x"))


@pytest.mark.parametrize("kind", [keyring.backends.fail.Keyring, keyring.backends.null.Keyring, "plain"], ids=str)
def test_what_keeps_nothing_or_keeps_it_in_the_open_is_no_keyring(kind: Any, ring: DictKeyring):
    """`fail`, `null` and those that `keyring` itself does not recommend: the file is used, or it is an error if none may be."""

    class Plain(DictKeyring):
        priority = 0.5  # pyright: ignore[reportAssignmentType]

    keyring.set_keyring(Plain() if kind == "plain" else kind())
    assert [store.name for store in stores(settings_with(keys_store="auto"))] == ["key file"]
    with pytest.raises(APIKeyError, match="no usable keyring"):
        stores(settings_with(keys_store="keyring"))


@pytest.mark.parametrize("broken", ["set index", "set"])
def test_a_change_of_the_keyring_that_fails_leaves_the_old_keys(ring: DictKeyring, broken: str, tmp_path: Path):
    """Between the entry of the list and that of the key: the old keys, and nothing half."""
    store = SystemKeyring(ring, tmp_path / "keyring.lock")
    keys = APIKeyService(stores=[store])
    run(keys.set_api_key("openai", CANARY))
    ring.broken = {broken}
    with pytest.raises(APIKeyError, match="Could not write to the system keyring") as caught:
        run(keys.set_api_key("github", OTHER))
    assert OTHER not in told(caught.value)
    ring.broken = set()
    assert [row["service"] for row in run(keys.list_api_keys())] == ["openai"]
    run(keys.set_api_key("github", OTHER))
    assert secret(keys, "github") == OTHER
    ring.broken = {"set index"}
    with pytest.raises(APIKeyError):
        run(keys.delete_api_key("github"))
    ring.broken = set()
    assert [row["service"] for row in run(keys.list_api_keys())] == ["openai"]


@pytest.mark.parametrize("entry", ["index", "key"])
def test_a_damaged_entry_of_the_keyring_is_kept_and_said(ring: DictKeyring, entry: str, tmp_path: Path):
    """It is not overwritten, and what is in it is not shown."""
    keys = APIKeyService(stores=[SystemKeyring(ring, tmp_path / "keyring.lock")])
    run(keys.set_api_key("openai", CANARY))
    name = next(name for name in ring.entries if (name[1] == "index") == (entry == "index"))
    ring.entries[name] = f'{{"{CANARY}"'
    before = dict(ring.entries)
    for work in (keys.list_api_keys(), keys.set_api_key("openai", OTHER), keys.create_api_key("x", "github", OTHER)):
        with pytest.raises(APIKeyError, match="is damaged") as caught:
            run(work)
        assert CANARY not in told(caught.value)
    assert ring.entries == before


# The environment, and the chain.

NAMES = {
    "openai": "OPENAI_API_KEY", "chatgpt": "OPENAI_API_KEY", "gpt-5-nano": "OPENAI_API_KEY", "env_openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY", "Claude": "ANTHROPIC_API_KEY", "claude-sonnet-5": "ANTHROPIC_API_KEY",
    "claude-code": "ANTHROPIC_API_KEY", "google": "GOOGLE_API_KEY", "gemini": "GOOGLE_API_KEY", "gemini-2.5-flash": "GOOGLE_API_KEY",
    "mistral": "MISTRAL_API_KEY", "codestral-latest": "MISTRAL_API_KEY", "deepseek": "DEEPSEEK_API_KEY",
    "openrouter": "OPENROUTER_API_KEY", "openrouter:some/model": "OPENROUTER_API_KEY", "groq": "GROQ_API_KEY", "grok": "XAI_API_KEY",
    "slack": "SLACK_BOT_TOKEN", "GitHub": "GITHUB_TOKEN", "notion": "NOTION_API_KEY", "google_search": "GOOGLE_SEARCH_API_KEY",
    "jira": "JIRA_API_TOKEN", "huggingface": "HF_TOKEN",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_its_variable(name: str, monkeypatch: pytest.MonkeyPatch):
    """Services, aliases, models and the ids of lists lead to their variable and to no other."""
    for variable in set(NAMES.values()):
        monkeypatch.setenv(variable, f"key-of-{variable}")
    reset_settings()
    keys = EnvironmentAPIKeyService()
    assert secret(keys, name) == f"key-of-{NAMES[name]}"
    rows = {row["service"]: row for row in run(keys.list_api_keys())}
    assert len(rows) >= 12
    assert all(row["id"] == f"env_{service}" and row["source"] == "environment" for service, row in rows.items())


def test_further_variables_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The second name counts when the first is unset or blank; `.env` counts as well."""
    monkeypatch.setenv("GITHUB_TOKEN", "  ")
    monkeypatch.setenv("GH_TOKEN", OTHER)
    (tmp_path / "base" / ".env").write_text("MISTRAL_API_KEY=of-the-file-0123456789\n")
    reset_settings()
    keys = EnvironmentAPIKeyService()
    assert secret(keys, "github") == OTHER
    assert secret(keys, "mistral") == "of-the-file-0123456789"


def test_names_can_be_added(monkeypatch: pytest.MonkeyPatch):
    """By the constructor or later; an addition may replace a name that is there."""
    monkeypatch.setenv("LINEAR_API_KEY", CANARY)
    monkeypatch.setenv("WORK_GITHUB", OTHER)
    keys = EnvironmentAPIKeyService(variables={"linear": "LINEAR_API_KEY", "github": ("HOME_GITHUB", "WORK_GITHUB")})
    assert (secret(keys, "Linear"), secret(keys, "github")) == (CANARY, OTHER)
    keys.register("my_tracker", "LINEAR_API_KEY")
    assert secret(keys, "my-tracker") == CANARY
    for bad in ((), ("NOT A NAME",)):
        with pytest.raises(ValidationError, match="at least one variable"):
            keys.register("x", *bad)


def test_the_environment_is_read_only():
    """Setting and deleting say which variable to change, and the command that stores a key."""
    keys = EnvironmentAPIKeyService()
    for work, word in ((keys.set_api_key("slack", "x"), "Set"), (keys.delete_api_key("slack"), "Unset")):
        with pytest.raises(APIKeyError, match="cannot be changed from here") as caught:
            run(work)
        assert f"{word} SLACK_BOT_TOKEN" in str(caught.value.hint)
        assert "dipeo-nb keys set slack" in str(caught.value.hint)


def test_the_container_looks_in_the_environment_first(monkeypatch: pytest.MonkeyPatch):
    """Then at what was stored; what is in neither is an error that names both ways."""
    keys = build().keys
    with pytest.raises(APIKeyNotFoundError) as caught:
        run(keys.get_api_key("openai"))
    hint = str(caught.value.hint)
    assert "OPENAI_API_KEY" in hint
    assert "`dipeo-nb keys set openai`" in hint
    assert "--model local" in hint
    run(keys.set_api_key("openai", "sk-stored-0123456789"))
    assert secret(keys, "openai") == "sk-stored-0123456789"
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    reset_settings()
    keys = build().keys
    assert secret(keys, "openai") == CANARY
    assert [(row["from"], row["key"]) for row in run(overview(keys)) if row["service"] == "openai"] == [
        ("environment", f"sk-…{CANARY[-4:]}"),
        ("key file", "sk-…6789"),
    ]
    run(keys.delete_api_key("openai"))
    with pytest.raises(APIKeyError, match="cannot be changed from here"):
        run(keys.delete_api_key("openai"))
    with pytest.raises(APIKeyNotFoundError, match="There is no API key for 'github'"):
        run(keys.delete_api_key("github"))
    with pytest.raises(TypeError, match="at least one"):
        APIKeyChain()


def test_what_is_handed_out_is_known_to_the_redactor(ring: DictKeyring, tmp_path: Path):
    """Every source tells it, also of keys without a shape that gives them away."""
    for number, make in enumerate((
        lambda: APIKeyService(),
        lambda: APIKeyService(stores=[SystemKeyring(ring, tmp_path / "lock")]),
    )):  # fmt: skip
        key = f"shapeless {number} 0123456789".replace(" ", "_")
        run(make().set_api_key("slack", key))
        redactor.known = tuple(form for form in redactor.known if form != key)
        assert redactor(key) == key
        assert secret(make(), "slack") == key
        assert redactor(key) == "[hidden]"


def answer(call: Any) -> None:
    """A provider that takes CANARY and nothing else."""
    if call.seen.headers.get("authorization") == f"Bearer {CANARY}":
        call.json(200, {"object": "list", "data": []})
    else:
        call.error(401, "no such key")


def test_a_person_uses_a_stored_key_by_id_and_by_service():
    """The key that a diagram names by its id goes to the provider; without one, that of the service."""
    keys = APIKeyService()
    run(keys.set_api_key("openai", "sk-of-the-service-0123456789"))
    run(keys.set_api_key("APIKEY_52609F", CANARY, service="openai"))
    with ScriptedServer(lambda call: call.error(400, "enough")) as server:
        llm = LLMService(settings_with(openai_base_url=server.url), APIKeyChain.of(get_settings()))

        async def ask(**more: Any) -> None:
            with pytest.raises(DipeoError):
                await llm.complete(LLMRequest("openai", "gpt-5-nano", (ChatMessage("user", "hi"),), **more))

        async def go() -> None:
            await ask(api_key_id="APIKEY_52609F")
            await ask()
            await ask(api_key_id="APIKEY_OF_ANOTHER_MACHINE")
            await llm.cleanup()

        run(go())
        sent = [seen.headers["authorization"] for seen in server.seen]
    of_service = "Bearer sk-of-the-service-0123456789"
    assert sent == [f"Bearer {CANARY}", of_service, of_service]


def test_nothing_shows_a_key(
    ring: DictKeyring, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], tmp_path: Path
):
    """Everything at DEBUG, all that comes out searched."""
    caplog.set_level(logging.DEBUG)
    settings = settings_with(keys_passphrase=PASSPHRASE)
    shown: list[str] = [repr(settings), repr(settings.explain()), settings.explain()._repr_html_()]
    for keys in (
        APIKeyService(settings=settings),
        APIKeyService(stores=[SystemKeyring(ring, tmp_path / "lock")]),
        APIKeyChain(EnvironmentAPIKeyService(Settings(openai_api_key=SecretStr(CANARY))), APIKeyService(tmp_path / "k.json")),
    ):
        run(keys.set_api_key("anthropic", CANARY))
        run(keys.set_api_key("APIKEY_1", OTHER))
        shown += [repr(keys), repr(vars(keys)), repr(run(keys.list_api_keys())), repr(run(overview(keys)))]
        shown.append(repr(run(keys.get_api_key("anthropic"))))
        for source in getattr(keys, "sources", ()):
            shown.append(repr(vars(source)))
        for store in getattr(keys, "_chosen", ()):
            shown += [repr(vars(store)), repr(store.read())]
    out = capfd.readouterr()
    everything = "\n".join([*shown, caplog.text, out.out, out.err])
    assert [text for text in (CANARY, OTHER, PASSPHRASE.get_secret_value()) if text in everything] == []


# The command.


def cli(*arguments: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dipeo_nb", "keys", *arguments], capture_output=True, text=True, check=False, timeout=60,
        env={**os.environ, **variables}, **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
    )  # fmt: skip


def test_the_command_sets_lists_and_deletes(file: Path):
    """The key comes from stdin; the list is masked; exit codes are those of the house."""
    done = cli("set", "openai", stdin=f"{CANARY}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Stored in the key file: APIKEY_")
    assert CANARY in file.read_text()
    listed = cli("list")
    rows = {row["service"]: row for row in json.loads(cli("list", "--json", GITHUB_TOKEN=OTHER).stdout)["keys"]}
    assert (rows["openai"]["key"], rows["openai"]["from"]) == (f"sk-…{CANARY[-4:]}", "key file")
    assert (rows["github"]["variable"], rows["github"]["from"]) == ("GITHUB_TOKEN", "environment")
    assert rows["anthropic"]["key"] == "not set"
    assert "key file" in listed.stdout
    noted = cli("set", "openai", stdin=CANARY, OPENAI_API_KEY="sk-of-the-shell-0123456789")
    assert "OPENAI_API_KEY is set, too, and goes first." in noted.stderr
    assert cli("delete", "openai").stdout == "Deleted: openai\n"
    missing = cli("delete", "openai")
    assert missing.returncode == 1
    assert "There is no API key for 'openai'" in missing.stderr
    for shown in (done, listed, noted, missing):
        assert CANARY not in shown.stdout + shown.stderr


@pytest.mark.parametrize(
    "arguments", [("set", "openai", CANARY), ("set", CANARY), ("set", "openai", "a", CANARY), ("test", CANARY)]
)
def test_a_key_as_an_argument_is_refused_and_not_repeated(arguments: tuple[str, ...], file: Path):
    """It would be in the history; the message says so without it."""
    done = cli(*arguments, stdin=CANARY)
    assert done.returncode == 2
    assert "hint: " in done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert not file.exists()


def test_nothing_on_stdin_is_a_mistake(file: Path):
    """No key, no file."""
    done = cli("set", "openai")
    assert (done.returncode, file.exists()) == (2, False)
    assert "That is not an API key" in done.stderr
    encrypt = cli("set", "openai", "--encrypt", stdin=CANARY)
    assert encrypt.returncode == 2
    assert "DIPEO_KEYS_PASSPHRASE" in encrypt.stderr


def test_the_command_tests_keys():
    """The provider is asked whether it takes the key; the exit code tells."""
    with ScriptedServer(answer) as server:
        url = {"OPENAI_BASE_URL": server.url}
        assert cli("test", **url).returncode == 1
        cli("set", "openai", stdin=CANARY)
        good = cli("test", "openai", **url)
        assert (good.stdout, good.stderr, good.returncode) == ("openai: accepted\n", "", 0)
        cli("set", "APIKEY_BAD", "--service", "openai", stdin="sk-bad-0123456789")
        both = cli("test", **url)
        assert (both.stdout, both.returncode) == ("openai: accepted\nAPIKEY_BAD: refused by the provider\n", 1)
        cli("set", "github", stdin=OTHER)
        other = cli("test", "github", **url)
    assert other.returncode == 1
    assert other.stdout.startswith("github: not tested. ")


@TERMINAL
def test_the_terminal_does_not_show_the_key(file: Path):
    """It is asked for without echo; `--encrypt` asks for a passphrase twice, later commands ask for it once."""

    def talk(arguments: list[str], *said: tuple[str, str]) -> tuple[str, int | None]:
        child = pexpect.spawn(sys.executable, ["-m", "dipeo_nb", "keys", *arguments], encoding="utf-8", timeout=60)
        shown = ""
        for question, reply in said:
            child.expect(question)
            shown += f"{child.before}{child.after}"
            child.waitnoecho()
            child.sendline(reply)
        child.expect(pexpect.EOF)
        child.close()
        return f"{shown}{child.before}", child.exitstatus

    phrase = PASSPHRASE.get_secret_value()
    shown, status = talk(["set", "openai"], ("Key of openai: ", CANARY))
    assert (status, CANARY in shown) == (0, False)
    assert "Stored in the key file" in shown
    shown, status = talk(
        ["set", "github", "--encrypt"],
        ("New passphrase of the stored keys: ", phrase), ("Again: ", phrase), ("Key of github: ", OTHER),
    )  # fmt: skip
    assert (status, OTHER in shown, phrase in shown) == (0, False, False)
    assert not {CANARY, OTHER} & set(file.read_text().split('"'))
    shown, status = talk(["delete", "github"], ("Passphrase of the stored keys: ", "wrong"))
    assert (status, "the passphrase is wrong" in shown) == (1, True)
    shown, status = talk(["delete", "github"], ("Passphrase of the stored keys: ", phrase))
    assert (status, "Deleted: github" in shown) == (0, True)
    assert cli("delete", "openai").returncode == 1
    assert cli("delete", "openai", DIPEO_KEYS_PASSPHRASE=phrase).returncode == 0


# The notebook.


def test_keys_in_a_kernel(file: Path):
    """`%dipeo keys set` asks for the key as a password is asked for; outputs show its tail at most."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    try:

        def cell(code: str, *replies: str) -> str:
            waiting = list(replies)
            shown: list[str] = []

            def answer(message: dict[str, Any]) -> None:
                assert message["content"]["password"]
                shown.append(message["content"]["prompt"])
                client.input(waiting.pop(0))

            client.execute_interactive(
                code,
                allow_stdin=bool(replies),
                stdin_hook=answer,
                timeout=60,
                output_hook=lambda m: shown.append(repr(m["content"])),
            )
            assert not waiting
            return "\n".join(shown)

        cell("%load_ext dipeo_nb")
        shown = cell("%dipeo keys set openai", CANARY)
        assert "Key of openai: " in shown
        assert CANARY[-4:] in shown
        assert CANARY in file.read_text()
        refused = cell(f"%dipeo keys set github {OTHER}")
        assert "saved with the notebook" in refused
        nobody = cell("%dipeo keys set github")
        assert "executed by a program" in nobody
        run(APIKeyService().protect(PASSPHRASE))
        phrase = PASSPHRASE.get_secret_value()
        assert "locked" in cell("%dipeo keys")
        unlocked = cell("%dipeo keys unlock", phrase)
        assert CANARY[-4:] in unlocked
        shown += unlocked + cell("%dipeo keys delete openai") + cell("%dipeo keys sett x")
        assert "does not know that" in shown
        for output in (shown, nobody, refused.replace(f"keys set github {OTHER}", "")):
            assert CANARY not in output
            assert phrase not in output
        assert OTHER not in nobody + shown
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    (row,) = [row for row in run(overview(APIKeyService())) if row["service"] == "openai"]
    assert row["key"] == "not set"


# Where it used to be.


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("shared.keys", "security.keys", ("APIKeyService", "EnvironmentAPIKeyService")),
        ("shared.drivers.utils", "common", ("SingleFlightCache", "FileLock", "AsyncFileLock", "CacheFileLock")),
    ],
)
def test_the_old_path_warns_once(old: str, new: str, names: tuple[str, ...]):
    """The same classes, and one DeprecationWarning that names the new home."""
    code = f"""
import warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import dipeo_nb.{old}
    import dipeo_nb.{old} as old
import dipeo_nb.{new} as new
print([(w.category.__name__, "dipeo_nb.{new}" in str(w.message)) for w in seen])
print(all(getattr(old, name) is getattr(new, name) for name in {names}))
"""
    assert python(code).splitlines() == ["[('DeprecationWarning', True)]", "True"]


def test_a_file_can_be_named(tmp_path: Path):
    """The seed's constructor takes the path; the format is upstream's, so its file can be used as it is."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"APIKEY_52609F": {"label": "main", "service": "openai", "key": CANARY}}))
    path.chmod(0o600)
    assert secret(APIKeyService(path), "APIKEY_52609F") == CANARY
    assert KeyFile(path).read()["APIKEY_52609F"].label == "main"


@pytest.mark.parametrize("key_id", ["env_github", "stored"])
def test_a_key_of_another_service_is_not_sent(key_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A diagram that names a GitHub token for a model of OpenAI gets an error before anything is sent."""
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_canaryOfGitHub0123456789abcdef")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-own-0123456789abcdef0123")
    reset_settings()
    settings = get_settings()
    chain = APIKeyChain.of(settings)

    async def go() -> None:
        name = key_id
        if name == "stored":
            row = await APIKeyService(settings=settings).create_api_key("token", "github", "ghp_stored0123456789abcdefgh")
            name = row["id"]
        manager = ClientManager(settings, chain)
        with pytest.raises(APIKeyError, match="is one of github, not of openai"):
            async with manager.client(LLMRequest("openai", "gpt-5-nano", (), api_key_id=name)):
                pass
        # The mere name of another service is no id: the service's own key is used.
        async with manager.client(LLMRequest("openai", "gpt-5-nano", (), api_key_id="github")) as client:
            assert client.config.api_key.get_secret_value().startswith("sk-own")
        await manager.cleanup()

    run(go())


def test_a_diagram_cannot_read_the_stored_keys(tmp_path: Path):
    """Where the base directory is the home, the folder of keys and trust is no place for a diagram's files."""
    settings = get_settings().model_copy(update={"base_dir": tmp_path, "data_dir": tmp_path / "data"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "apikeys.json").write_text("{}")
    files = build(settings).files
    for work in (files.read_text, files.exists, files.remove, lambda p: files.write_text(p, "x")):
        with pytest.raises(StorageError, match="place of dipeo-nb itself"):
            work("data/apikeys.json")
    assert files.glob("**/*") == []
