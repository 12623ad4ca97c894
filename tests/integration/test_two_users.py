"""Two users on one machine: what one has is closed to the other, and what the other has made is not taken for one's own."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import stat
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.common.locks import FileLock
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.root import own_root
from dipeo_nb.config import get_settings, reset_settings
from dipeo_nb.domain.chat import Message
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.domain.ports import Artifact
from dipeo_nb.errors import APIKeyError, ConfigurationError, StorageError, TrustError, ValidationError
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.security.keystore import KeyFile, KeyFilePermissionWarning
from dipeo_nb.security.trust import Trust
from dipeo_nb.security.trust_store import GuestMade, TrustStore
from tests.support.untrusted_folder import light, marking, node, write

ADA, BOB = 54_321, 54_322
"""Users that have no account: files and processes need none."""

pytestmark = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="not here: only root can act as two users")


def as_user(user: int, function: Callable[[], Any]) -> Any:
    """What a function gives in a process of another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            try:
                result = function(), None
            except BaseException as error:
                result = None, f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(result, pipe)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    value, failed = pickle.loads(data)
    if failed:
        raise AssertionError(failed)
    return value


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user can reach, with a base directory of everybody in it; the user of the tests has no umask."""
    folder = Path(tempfile.mkdtemp(prefix="two-users-"))
    folder.chmod(0o755)
    base = folder / "base"
    base.mkdir()
    base.chmod(0o755)
    monkeypatch.delenv("DIPEO_TRUST")
    for name, value in {
        "DIPEO_BASE_DIR": base,
        "DIPEO_DATA_DIR": folder / "data",
        "XDG_CONFIG_HOME": folder / "config",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(base)
    reset_settings()
    before = os.umask(0)
    yield folder
    os.umask(before)
    shutil.rmtree(folder)


TALK = light(
    node("person_job", person="A", default_prompt="Hi"),
    node("template_job", "Note", template_content="x", output_path="out.txt"),
    persons={"A": {"service": "echo"}},
)


def fill(base: Path) -> None:
    """Something in every store of the product."""
    from dipeo_nb.llm.batch import BatchItem, BatchJob, BatchStore

    write(base, TALK)
    with Session() as session:
        services = session.runtime.services
        session.run("d.light.yaml", view=False)

        async def go() -> None:
            await services.blobs.put("k", b"data")
            await services.artifacts.push(Artifact("m", "v", b"data", {}))
            await services.conversations.add_message(Message("", "a", "b", "c", MessageType.PERSON_TO_PERSON, 0.0), "r")
            await services.keys.set_api_key("openai", "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
            await services.db.execute_operation("t.json", "append", {"a": 1})

        run_sync(go())
        session.trust("d.light.yaml")
        session.runtime.trust.store.signing_key()
        BatchStore(own_root(base).below("batches")).save(BatchJob("b", "openai", "running", 1.0, (BatchItem("1", "x"),)))
        with dp.recording(base / ".dipeo" / "recordings"):
            session.chat("Hi", model="echo")


def reached(paths: list[tuple[str, bool]]) -> list[str]:
    """Those of (path, whether it is a folder) that this user can read, write, list or add to."""
    found: list[str] = []
    for path, is_folder in paths:
        for what, flags in (("read", os.O_RDONLY), ("write", os.O_WRONLY)):
            try:
                if is_folder and what == "write":
                    os.close(os.open(os.path.join(path, "intruder"), os.O_CREAT | os.O_WRONLY))
                elif is_folder:
                    os.listdir(path)
                else:
                    os.close(os.open(path, flags | os.O_NONBLOCK))
            except OSError:
                continue
            found.append(f"{what} {path}")
    return found


@pytest.mark.parametrize("opened", [False, True], ids=["as made", "opened to all by an earlier version"])
def test_stores_are_closed_to_others(place: Path, opened: bool) -> None:
    """Runs, conversations, blobs, artifacts, batches, recordings, drafts, locks, keys and trust; folders that were open are
    closed when they are used again."""
    base = place / "base"
    fill(base)
    if opened:
        for folder in (base / ".dipeo", place / "data"):
            for path in (folder, *folder.rglob("*")):
                if path.name != "signing.key":  # whoever could read that could sign
                    path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
        with pytest.warns(KeyFilePermissionWarning):
            fill(base)
    ours = [(str(path), path.is_dir()) for folder in (base / ".dipeo", place / "data") for path in (folder, *folder.rglob("*"))]
    names = " ".join(path for path, _ in ours)
    for part in (
        "runs.db",
        "conversations.db",
        "blobs",
        "batches",
        "recordings",
        "drafts",
        "trust.json",
        "signing.key",
        "apikeys.json",
    ):
        assert part in names
    found = as_user(BOB, lambda: reached(ours))
    assert [f for f in found if not (opened and f.startswith("read") and not f.endswith((".db", ".json", ".key")))] == []
    if not opened:
        open_modes = [path for path, _ in ours if stat.S_IMODE(os.stat(path).st_mode) & 0o077]
        assert open_modes == []


def test_a_lock_cannot_be_kept_by_others(place: Path) -> None:
    """In an open folder, too."""
    folder = place / "open"
    folder.mkdir(mode=0o755)
    with FileLock(folder / "x.lock", private=True):
        pass
    assert as_user(BOB, lambda: reached([(str(folder / "x.lock"), False)])) == []


# What others have made.


def owned(path: Path, user: int, mode: int | None = None) -> Path:
    os.chown(path, user, user)
    if mode is not None:
        path.chmod(mode)
    return path


def run_keys(data: Path) -> None:
    with KeyFile(data / "apikeys.json").changing() as keys:
        keys.clear()


STORES: dict[str, Callable[[Path, Path], Any]] = {
    "run store": lambda base, data: asyncio.run(SqliteRunStore(base / ".dipeo" / "runs.db", base=base).initialize()),
    "own files": lambda base, data: own_root(base).write("x/y", b"1"),
    "drafts": lambda base, data: own_root(base).below("drafts/d").write("y", b"1"),
    "trust": lambda base, data: TrustStore(data).add(GuestMade(digest="a")),
    "signing key": lambda base, data: TrustStore(data).signing_key(),
    "keys": lambda base, data: run_keys(data),
}


@pytest.mark.parametrize("case", STORES)
@pytest.mark.parametrize("whose", [BOB, ADA], ids=["of another user", "of one's own"])
def test_folders_that_another_user_made_are_not_used(place: Path, case: str, whose: int) -> None:
    """Somebody who was first in a shared folder would get everything; folders of one's own are used."""
    base, data = place / "shared", place / "shared" / ".data"
    base.mkdir()
    base.chmod(0o777)
    for folder in (base / ".dipeo", data):
        folder.mkdir()
        owned(folder, whose, 0o777)

    def work() -> str:
        try:
            STORES[case](base, data)
        except (dp.DipeoError, OSError) as error:
            return str(error)
        return ""

    said = as_user(ADA, work)
    if whose == ADA:
        assert said == ""
    else:
        assert any(word in said for word in ("another user", "belongs", "others"))


@pytest.mark.parametrize("name", ["trust.json", "signing.key", "apikeys.json", ".env", "dipeo.toml", "config.toml"])
def test_files_of_others_are_not_believed(place: Path, name: str) -> None:
    """Records of trust, secrets and settings: an error, or ignored with a warning."""
    base, data, config = place / "base", place / "data", place / "config" / "dipeo-nb"
    for folder in (data, config):
        folder.mkdir(parents=True)
    home = {"trust.json": data, "signing.key": data, "apikeys.json": data, "config.toml": config}.get(name, base)
    text = {
        "trust.json": json.dumps({"version": 1, "records": []}),
        "signing.key": "00" * 32,
        ".env": f"OPENAI_BASE_URL=http://x\nDIPEO_TRUST={base}",
    }
    (home / name).write_text(text.get(name, 'openai_base_url = "http://x"'))
    owned(home / name, BOB, 0o644)

    def believed() -> bool:
        reset_settings()
        settings = get_settings()
        return str(settings.peek("openai_base_url") or "").startswith("http://x")

    if name == "apikeys.json":
        with pytest.raises(APIKeyError, match="belongs to another user"):
            KeyFile(data / name).read()
    elif home is data:
        store = TrustStore(data)
        with pytest.raises(StorageError, match="belongs to another user"):
            store.records() if name == "trust.json" else store.signing_key()
    elif home is config:
        with pytest.raises(ConfigurationError, match="another user"):
            believed()
    else:
        with pytest.warns(UserWarning, match="another user"):
            assert not believed()


TAKEN: dict[str, Callable[[Path, Path], Any]] = {
    "file of another user": lambda base, path: owned(path, BOB, 0o644),
    "file that all may write": lambda base, path: path.chmod(0o666),
    "file in a folder that all may write": lambda base, path: path.parent.chmod(0o777),
    "file in a folder as of temporary files": lambda base, path: path.parent.chmod(0o1777),
    "folder above that all may write": lambda base, path: path.parent.parent.chmod(0o777),
}


@pytest.mark.parametrize("case", TAKEN)
def test_in_a_trusted_folder_what_others_may_have_made_is_no_ones(place: Path, case: str) -> None:
    """A yes to a folder does not hold for what another user may have put there, or beside it; a yes to the diagram itself does."""
    base = place / "base"
    path = write(base, light(node("code_job", code=marking())), "deep/sub/d.light.yaml")
    for part in (path, path.parent, path.parent.parent):
        part.chmod(0o755)
    with Session() as session:
        session.trust(base)
        assert session.runtime.trust.in_trusted_folder(path)
        TAKEN[case](base, path)
        with pytest.raises(TrustError) as caught:
            session.run(path, view=False)
        assert not (base / "ran.txt").exists()
        assert session.run(path, trust=caught.value.facts["pin"], view=False).output == 1


def test_a_folder_of_everybody_cannot_be_trusted(place: Path) -> None:
    """The error says how to close it, and nobody is offered it."""
    base = place / "base"
    base.chmod(0o777)
    write(base, light(node("code_job", code="return 1"))).chmod(0o644)
    with pytest.raises(ValidationError, match="All users of this machine may write") as caught:
        Trust(get_settings()).trust_folder(base)
    assert "chmod o-w" in str(caught.value.hint)
    with Session() as session, pytest.raises(TrustError) as refused:
        session.run("d.light.yaml", view=False)
    assert refused.value.facts["folder"] is None
    base.chmod(0o755)
    Trust(get_settings()).trust_folder(base)
    with Session() as session:
        assert session.run("d.light.yaml", view=False).output == 1


def test_another_user_gets_nothing_from_the_server(place: Path) -> None:
    """The port is open to all users of the machine; without the token it gives nothing, and the token stands nowhere that they
    can read."""
    import subprocess
    import urllib.error
    import urllib.request

    serving = subprocess.Popen(
        [sys.executable, "-m", "dipeo_nb", "serve", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert serving.stdout is not None
        assert serving.stderr is not None
        token = serving.stdout.readline().strip()
        url = next(line for line in serving.stderr if "http://" in line).split()[-1]

        "a".encode("idna")  # the codec is imported here: the other user cannot read the interpreter's files

        def attack() -> list[Any]:
            got: list[Any] = []
            for path, headers in (("/runs", {}), ("/diagrams", {}), ("/runs", {"Authorization": "Bearer guess"}), ("/", {})):
                try:
                    got.append(urllib.request.urlopen(urllib.request.Request(url + path, headers=headers), timeout=20).status)
                except urllib.error.HTTPError as error:
                    got.append(error.code)
            for name in ("cmdline", "environ"):
                try:
                    got.append(token.encode() in Path(f"/proc/{serving.pid}/{name}").read_bytes())
                except OSError:
                    got.append(False)
            return got

        assert token
        statuses = as_user(BOB, attack)
        assert set(statuses[:3]) == {401}
        assert statuses[3] in (401, 404)
        assert statuses[4:] == [False, False]
    finally:
        serving.terminate()
        serving.communicate(timeout=30)
