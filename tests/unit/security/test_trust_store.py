"""What the user trusts is remembered in one private file (security/trust_store.py)."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dipeo_nb.errors import StorageError
from dipeo_nb.security.trust_store import (
    KEY_NAME,
    Declined,
    DiagramTrust,
    FolderTrust,
    GuestMade,
    Record,
    SettingsTrust,
    TrustStore,
)

posix = pytest.mark.skipif(os.name == "nt", reason="not here: Windows has access lists instead of modes")

RECORDS: tuple[Record, ...] = (
    DiagramTrust(digest="d1", base="/b", name="clean", listing=("runs code  'Clean'", "reads  data/*.csv"), by="--trust"),
    FolderTrust(path="/b/agents", inode=12),
    SettingsTrust(folder="/b", digest="s1", values=(("openai_base_url", "https://proxy.example"),)),
    GuestMade(digest="g1"),
    Declined(of="settings", where="/c", digest="s2"),
)


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    return TrustStore(tmp_path / "data")


def test_records_come_back_as_they_were(store: TrustStore):
    """Every kind, in another object, in order; nothing is made before something is remembered."""
    assert store.records() == []
    assert not store.folder.exists()
    store.add(*RECORDS)
    other = TrustStore(store.folder)
    assert other.records() == list(RECORDS)
    assert other.find(DiagramTrust, digest="d1", base="/b") == RECORDS[0]
    assert other.find(DiagramTrust, digest="d1", base="/elsewhere") is None
    assert other.find(SettingsTrust, folder="/b") == RECORDS[2]
    assert other.forget(FolderTrust, path="/b/agents") == 1
    assert other.forget(FolderTrust, path="/b/agents") == 0
    assert store.find(FolderTrust, path="/b/agents") is None


def test_a_record_takes_the_place_of_the_one_with_its_key(store: TrustStore):
    """One yes for the settings of a folder, one inode for a path; a yes undoes a no."""
    store.add(*RECORDS)
    store.add(SettingsTrust(folder="/b", digest="new"), FolderTrust(path="/b/agents", inode=13))
    store.add(SettingsTrust(folder="/c", digest="later"))
    assert [r.digest for r in store.records() if isinstance(r, SettingsTrust)] == ["new", "later"]
    assert [r.inode for r in store.records() if isinstance(r, FolderTrust)] == [13]
    assert store.find(Declined) is None


def test_what_a_later_version_remembered_is_kept(store: TrustStore):
    """A record of an unknown kind is no record here, and is still in the file after a change."""
    store.add(RECORDS[0])
    document = json.loads(store.path.read_text())
    document["records"].insert(0, {"kind": "planet", "name": "x"})
    store.path.write_text(json.dumps(document))
    store.add(RECORDS[3])
    assert store.records() == [RECORDS[0], RECORDS[3]]
    assert json.loads(store.path.read_text())["records"][0] == {"kind": "planet", "name": "x"}


@posix
def test_files_are_private(store: TrustStore):
    """0600 in 0700, whatever the umask; rights to read are taken away again."""
    before = os.umask(0)
    try:
        store.add(RECORDS[0])
        store.signing_key()
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE((store.folder / KEY_NAME).stat().st_mode) == 0o600
    store.path.chmod(0o644)
    store.folder.chmod(0o777)
    store.add(RECORDS[3])
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o755


def spoil(path: Path, how: str) -> None:
    """Make a file one that must not be believed."""
    data = path.read_bytes()
    if how == "link":
        path.rename(path.with_name("moved"))
        path.symlink_to(path.with_name("moved"))
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path, 0o600)
    elif how == "writable by others":
        path.chmod(0o666)
    elif how == "of another user":
        os.chown(path, 12345, -1)
    else:
        path.write_bytes({"empty": b"", "cut": data[:-3], "list": b"[]", "deep": b"[" * 100_000}[how])


SPOILT = ["link", "folder", "pipe", "writable by others", "of another user", "empty", "cut", "list", "deep"]


@posix
@pytest.mark.parametrize("name", ["trust.json", KEY_NAME])
@pytest.mark.parametrize("how", SPOILT)
def test_a_file_that_must_not_be_believed_is_an_error(store: TrustStore, name: str, how: str):
    """Neither an empty record nor overwritten: the error names the file and the way out."""
    if how == "of another user" and os.geteuid() != 0:
        pytest.skip("not here: only root can give files away")
    store.add(*RECORDS)
    store.signing_key()
    path = store.folder / name
    spoil(path, how)
    before = None if how in ("folder", "pipe") else path.read_bytes()
    fresh = TrustStore(store.folder)
    calls = (fresh.records, lambda: fresh.add(RECORDS[3])) if name == "trust.json" else (fresh.signing_key,)
    for call in calls:
        with pytest.raises(StorageError, match=r"cannot be used") as caught:
            call()
        assert str(path) in str(caught.value)
        assert caught.value.hint
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "diagram"},
        {"kind": "diagram", "digest": ["a"], "base": "/b"},
        {"kind": "folder", "path": "/b", "inode": "12"},
        {"kind": "folder", "path": "/b", "inode": True},
        {"kind": "settings", "folder": None, "digest": "x"},
        [],
        "diagram",
    ],
)
def test_a_record_of_another_shape_is_damage(store: TrustStore, row: object):
    """A field that is missing or of another type is no yes."""
    store.folder.mkdir()
    store.path.write_text(json.dumps({"version": 1, "records": [row]}))
    store.path.chmod(0o600)
    with pytest.raises(StorageError, match="damaged"):
        store.records()


def test_the_signing_key_is_made_once(store: TrustStore):
    """The same in another object; 32 bytes; another one in another folder."""
    key = store.signing_key()
    assert len(key) == 32
    assert TrustStore(store.folder).signing_key() == key
    assert TrustStore(store.folder / "other").signing_key() != key


def test_processes_add_at_the_same_time(store: TrustStore):
    """Four processes, 25 records each: all are kept, and all see one signing key."""
    code = (
        "import sys; from pathlib import Path; from dipeo_nb.security.trust_store import *\n"
        "store = TrustStore(Path(sys.argv[1]))\n"
        "for i in range(25): store.add(GuestMade(digest=f'{sys.argv[2]}-{i}'))\n"
        "print(store.signing_key().hex())"
    )
    command = [sys.executable, "-c", code, str(store.folder)]
    running = [
        subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for n in range(4)
    ]
    done = [process.communicate(timeout=120) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0, 0], done
    assert len({out for out, _ in done}) == 1
    assert len(store.records()) == 100
