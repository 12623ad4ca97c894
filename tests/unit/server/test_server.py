"""`dipeo-nb serve`: a real server, real HTTP, real server-sent events."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import MissingDependencyError
from dipeo_nb.execution.state.sqlite import SqliteRunStore
from dipeo_nb.notebook.session import Session
from dipeo_nb.server import RunServer
from tests.support.served import HELLO, Served

ASKS = """
version: light
nodes:
- {label: Start, type: start}
- {label: Name, type: user_response, prompt: Who?, timeout: 60}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Name}
- {from: Name, to: End}
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "hello.light.yaml").write_text(HELLO)
    (tmp_path / "asks.light.yaml").write_text(ASKS)
    server = Served(tmp_path, "--port", "0")
    yield server
    server.close()


def test_the_history_comes_in_pages(served: Served):
    """With what a table shows of each run; a column that there is not is refused."""
    for name in ("Ada", "Bob", "Cleo"):
        list(served.events(served.start(diagram="hello", inputs={"name": name})))
    page = served.http.get("/runs", params={"offset": 1, "limit": 1}).json()
    assert (page["total"], len(page["runs"]), page["runs"][0]["inputs"]) == (3, 1, "name=Bob")
    found = served.http.get("/runs", params={"text": "hello ada"}).json()
    assert [run["inputs"] for run in found["runs"]] == ["name=Ada"]
    assert served.http.get("/runs", params={"sort": "colour"}).status_code == 400


def test_a_run_is_started_and_followed(served: Served):
    """One request starts it; the stream has every event in order and ends with the run; then its result is there."""
    run_id = served.start(diagram="hello", inputs={"name": "Ada"})
    frames = list(served.events(run_id))
    assert [int(f["id"]) for f in frames] == list(range(1, len(frames) + 1))
    assert [frames[0]["event"], frames[-1]["event"]] == ["execution_started", "execution_completed"]
    assert all(f["data"]["execution_id"] == run_id for f in frames)
    result = served.http.get(f"/runs/{run_id}").json()
    assert result["status"] == "completed"
    assert "Hello Ada." in result["outputs"]["End"]
    assert [r["run_id"] for r in served.http.get("/runs?limit=5").json()["runs"]] == [run_id]


def test_late_and_returning_clients(served: Served):
    """From any event on, without gap or repeat: by `after`, and by the Last-Event-ID of a client that comes back."""
    run_id = served.start(diagram="hello")
    whole = list(served.events(run_id))
    for seen in (0, 1, len(whole) - 1):
        rest = whole[seen:]
        assert list(served.events(run_id, params={"after": seen})) == rest
        assert list(served.events(run_id, headers={"Last-Event-ID": str(seen)})) == rest


def test_answers_given_with_the_order(served: Served, tmp_path: Path):
    """They reach questions of sub-diagrams; a name of nobody is refused with the nearest one."""
    (tmp_path / "outer.light.yaml").write_text(
        ASKS.replace("type: user_response, prompt: Who?, timeout: 60", "type: sub_diagram, diagram_name: asks")
    )
    run_id = served.start(diagram="outer", answers={"Name/Name": "Ada"})
    assert [frame["event"] for frame in served.events(run_id)][-1] == "execution_completed"
    assert served.http.get(f"/runs/{run_id}").json()["outputs"] == {"End": "Ada"}
    refused = served.http.post("/runs", json={"diagram": "outer", "answers": {"Nam": "Ada"}})
    assert refused.status_code == 400
    assert "Did you mean 'Name'?" in refused.json()["error"]["hint"]


def test_several_clients_at_once(served: Served):
    """Each gets everything, also one that joins in the middle and one that leaves."""
    run_id = served.start(diagram="asks")
    seen: list[list[str]] = [[], []]

    def follow(place: int) -> None:
        seen[place] = [f["id"] for f in served.events(run_id)]

    followers = [threading.Thread(target=follow, args=(n,)) for n in range(2)]
    for follower in followers:
        follower.start()
    for frame in served.events(run_id):
        if frame["event"] == "interactive_prompt":
            break  # this client leaves
    assert served.http.post(f"/runs/{run_id}/answer", json={"text": "Ada"}).status_code == 202
    for follower in followers:
        follower.join(20)
    assert seen[0] == seen[1] == [str(n + 1) for n in range(len(seen[0]))]
    assert served.http.get(f"/runs/{run_id}").json()["outputs"] == {"End": "Ada"}


def test_clients_that_stop_reading(served: Served, tmp_path: Path):
    """Row S85: 40 MB of events for each of five that do not read: the server holds next to nothing; who reads gets all."""
    count = 20_000
    first = Event(1, EventType.EXECUTION_STARTED, "big", 1.0, None, {"diagram": "big"})
    rest = [Event(n, EventType.NODE_OUTPUT, "big", 1.0, "n", {"text": "x" * 2000}) for n in range(2, count)]
    last = Event(count, EventType.EXECUTION_COMPLETED, "big", 1.0, None, {"status": "completed"})
    store = SqliteRunStore(tmp_path / ".dipeo" / "runs.db")
    run_sync(store.initialize())
    run_sync(store.append([first, *rest, last]))
    run_sync(store.cleanup())
    assert next(served.events("big", params={"after": count - 1}))["id"] == str(count)
    server = psutil.Process(served.process.pid)
    before = server.memory_info().rss
    with ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            client.sendall(f"GET /runs/big/events?token={served.token} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            assert client.recv(12) == b"HTTP/1.1 200"
        assert [int(frame["id"]) for frame in served.events("big")] == list(range(1, count + 1))
        assert server.memory_info().rss - before < 60_000_000


def test_stop(served: Served):
    """The run ends as aborted, and its stream with it."""
    run_id = served.start(diagram="asks")
    frames = served.events(run_id)
    while next(frames)["event"] != "interactive_prompt":
        pass
    assert served.http.post(f"/runs/{run_id}/stop").status_code == 202
    assert list(frames)[-1]["data"]["data"]["status"] == "aborted"


def test_nothing_without_the_token(served: Served):
    """Neither reading nor starting; and no page of another site can reach it under a name of its own."""
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer wrong"}):
        for method, path in (("GET", "/runs"), ("POST", "/runs"), ("GET", "/runs/x/events"), ("POST", "/runs/x/stop")):
            assert served.http.request(method, path, headers=headers).status_code == 401
    assert served.http.get("/runs", headers={"Host": "evil.example"}).status_code == 400
    assert httpx.get(f"http://127.0.0.1:{served.port}/health").json() == {"status": "ok"}
    assert served.http.get(f"/runs?token={served.token}", headers={"Authorization": ""}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{", 422, "JSON"),
        ({}, 422, "diagram"),
        ({"diagram": "hello", "odd": 1}, 422, "odd"),
        ('{"diagram": "hello", "timeout": Infinity}', 422, "timeout"),
        ('{"diagram": "hello", "timeout": 1e999}', 422, "timeout"),
        ({"diagram": "nothing"}, 404, "no diagram 'nothing'"),
        ({"diagram": "../../etc/passwd"}, 404, "passwd"),
        ({"diagram": "/etc/hostname"}, 404, "hostname"),
        ({"diagram": HELLO}, 400, "sent by name, not by its text"),
        ({"diagram": "{}"}, 400, "sent by name, not by its text"),
        ({"diagram": "hello", "inputs": {"x": "y" * 1_100_000}}, 413, "more than"),
    ],
)
def test_bad_requests(served: Served, body: Any, status: int, words: str):
    """One clear error each, as JSON, and nothing runs."""
    content = body if isinstance(body, str) else json.dumps(body)
    answer = served.http.post("/runs", content=content)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]["message"]
    assert served.http.get("/runs").json()["runs"] == []


def test_unknown_runs(served: Served):
    """404 with what to do."""
    for path in ("/runs/exec_x", "/runs/exec_x/events"):
        answer = served.http.get(path)
        assert (answer.status_code, answer.json()["error"]["hint"]) == (404, "See GET /runs for those there are.")
    assert served.http.get("/runs/exec_x/events?after=x").status_code == 404
    assert served.http.post("/runs/exec_x/stop").status_code == 404


def test_the_port_is_a_setting(tmp_path: Path):
    """DIPEO_PORT says where it listens (S101), DIPEO_SERVE_TOKEN what it wants; a port in use is one clear error."""
    (tmp_path / "hello.light.yaml").write_text(HELLO)
    first = Served(tmp_path, "--port", "0")
    try:
        command = [sys.executable, "-m", "dipeo_nb", "serve", "--base-dir", str(tmp_path)]
        environment = {**os.environ, "DIPEO_PORT": str(first.port)}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
        assert done.returncode == 2
        assert f":{first.port} cannot be listened at" in done.stderr
        assert "DIPEO_PORT" in done.stderr
    finally:
        assert first.close() in (0, 130, -signal.SIGTERM)
    again = Served(tmp_path, DIPEO_PORT=str(first.port), DIPEO_SERVE_TOKEN="canary-token-0123456789")
    try:
        assert again.port == first.port
        assert again.http.get("/runs").status_code == 200
        again.process.send_signal(signal.SIGTERM)
        said = "".join(again.process.communicate(timeout=60))
        assert "canary" not in said, "a token that was given is not printed"
    finally:
        again.close()


def test_models_are_resolved_as_everywhere(served: Served):
    """A name that says no service is refused before anything runs, with the next action."""
    for model in ("nope", "opnai:gpt-5", ""):
        answer = served.http.post("/runs", json={"diagram": "hello", "model": model})
        assert answer.status_code == 400
        assert answer.json()["error"]["hint"]
    assert served.http.get("/runs").json()["runs"] == []


def test_the_end_of_the_server_stops_runs_first(tmp_path: Path):
    """Whoever follows a run gets its final event and a stream that ends well; no stack trace, and in a moment."""
    (tmp_path / "asks.light.yaml").write_text(ASKS)
    server = Served(tmp_path, "--port", "0")
    run_id = server.start(diagram="asks")
    frames: list[dict[str, Any]] = []
    asked = threading.Event()

    def follow() -> None:
        for frame in server.events(run_id):
            frames.append(frame)
            if frame["event"] == "interactive_prompt":
                asked.set()

    follower = threading.Thread(target=follow)
    follower.start()
    assert asked.wait(30)
    server.process.send_signal(signal.SIGTERM)
    follower.join(30)
    assert not follower.is_alive()
    assert frames[-1]["event"] == "execution_error"
    assert frames[-1]["data"]["data"]["status"] == "aborted"
    assert server.process.wait(30) in (0, 130)
    assert server.process.stderr is not None
    assert "Traceback" not in server.process.stderr.read()
    server.close()


def test_a_stream_after_the_end(served: Served):
    """204 tells an EventSource that there is nothing to come; what is new is sent first."""
    run_id = served.start(diagram="hello")
    last = list(served.events(run_id))[-1]["id"]
    newest: list[dict[str, Any]] = [{"headers": {"Last-Event-ID": last}}, {"params": {"after": str(int(last) + 7)}}]
    for options in newest:
        answer = served.http.get(f"/runs/{run_id}/events", **options)
        assert (answer.status_code, answer.content) == (204, b"")
    assert [f["id"] for f in served.events(run_id, params={"after": int(last) - 1})] == [last]
    for wrong in ("99999999999999999999999", "-1", "x", "1.5", "²"):
        answer = served.http.get(f"/runs/{run_id}/events", params={"after": wrong})
        assert answer.status_code == 400, wrong
        assert answer.json()["error"]["hint"]


def test_every_error_is_json(served: Served):
    """Wrong paths, methods, names, sizes and hosts: a status that fits, a message and what to do."""
    cases: list[tuple[str, str, dict[str, Any], int]] = [
        ("GET", "/nope", {}, 404),
        ("PUT", "/runs", {}, 405),
        ("GET", "/runs/x/stop", {}, 405),
        ("POST", "/runs", {"json": {"diagram": "a" * 999}}, 404),
        ("POST", "/runs", {"json": {"diagram": "ä" * 400}}, 404),
        ("POST", "/runs", {"content": b"x" * 2_000_000}, 413),
        ("POST", "/runs/exec_x/stop", {}, 404),
        ("POST", "/runs/exec_x/signal", {"json": {"name": "n"}}, 404),
        ("POST", "/runs/exec_x/answer", {"json": {"text": "t"}}, 404),
        ("POST", "/runs/exec_x/resume", {}, 404),
        ("DELETE", "/runs/exec_x", {}, 404),
        ("GET", "/runs", {"headers": {"Host": "evil.example"}}, 400),
        ("GET", "/runs", {"headers": {"Authorization": "Bearer wrong"}}, 401),
    ]
    for method, path, options, status in cases:
        answer = served.http.request(method, path, **options)
        assert answer.status_code == status, (path, answer.text)
        assert set(answer.json()["error"]) >= {"message", "hint"}
    assert served.http.get("/runs", headers={"Authorization": f"bearer {served.token}"}).status_code == 200


def test_answers_over_http_belong_to_a_question(served: Served):
    """404 for unknown questions and for those that are over, whoever answered; nothing of that is lost without a word."""
    run_id = served.start(diagram="asks")
    (question,) = [f for f in _until_asked(served, run_id) if f["event"] == "interactive_prompt"]
    request_id = question["data"]["data"]["request_id"]
    for wrong in ({"request_id": "nope"}, {"node": "Nobody"}):
        answer = served.http.post(f"/runs/{run_id}/answer", json={"text": "x", **wrong})
        assert answer.status_code == 404, answer.text
    assert served.http.post(f"/runs/{run_id}/answer", json={"text": "Ada", "node": "Name"}).status_code == 202
    list(served.events(run_id))
    late = served.http.post(f"/runs/{run_id}/answer", json={"text": "Bob", "request_id": request_id})
    assert late.status_code == 404
    assert served.http.get(f"/runs/{run_id}").json()["outputs"] == {"End": "Ada"}
    assert served.http.post(f"/runs/{run_id}/stop").status_code == 409


def _until_asked(served: Served, run_id: str) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    for frame in served.events(run_id):
        frames.append(frame)
        if frame["event"] == "interactive_prompt":
            return frames
    raise AssertionError("it did not ask")


def test_resuming_and_deleting_over_http(served: Served):
    """A stopped run goes on; one that goes on is neither resumed nor deleted (409); a deleted one is unknown."""
    run_id = served.start(diagram="asks")
    _until_asked(served, run_id)
    for method, path in (("POST", f"/runs/{run_id}/resume"), ("DELETE", f"/runs/{run_id}")):
        refused = served.http.request(method, path)
        assert refused.status_code == 409, refused.text
        assert "is still running in this process" in refused.json()["error"]["message"]
    served.http.post(f"/runs/{run_id}/stop")
    list(served.events(run_id))
    assert served.http.get(f"/runs/{run_id}").json()["status"] == "aborted"
    again = served.http.post(f"/runs/{run_id}/resume", json={"answers": {"Name": "Eve"}})
    assert (again.status_code, again.json()) == (201, {"run_id": run_id})
    list(served.events(run_id, params={"after": 6}))
    assert served.http.get(f"/runs/{run_id}").json()["outputs"] == {"End": "Eve"}
    assert served.http.post(f"/runs/{run_id}/resume").status_code in (400, 409)
    assert served.http.delete(f"/runs/{run_id}").json() == {"deleted": [run_id]}
    assert served.http.get(f"/runs/{run_id}").status_code == 404


def test_the_list_of_diagrams(served: Served, tmp_path: Path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "inner.light.yaml").write_text(HELLO)
    (tmp_path / ".hidden.light.yaml").write_text(HELLO)
    (tmp_path / "notes.yaml").write_text("a: 1")
    names = served.http.get("/diagrams").json()["diagrams"]
    assert names == ["asks.light.yaml", "deep/inner.light.yaml", "hello.light.yaml"]
    run_id = served.start(diagram=names[1])
    assert [f["event"] for f in served.events(run_id)][-1] == "execution_completed"


def test_pages_of_other_origins(served: Served, tmp_path: Path):
    """None by default; those that the setting names."""
    asking = {
        "Origin": "https://lab.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    assert "access-control-allow-origin" not in served.http.get("/runs", headers={"Origin": "https://lab.example"}).headers
    other = Served(tmp_path, "--port", "0", DIPEO_CORS_ORIGINS="https://lab.example, https://two.example/")
    try:
        preflight = other.http.options("/runs", headers=asking)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://lab.example"
        found = other.http.get("/runs", headers={"Origin": "https://two.example"})
        assert found.headers["access-control-allow-origin"] == "https://two.example"
        assert "access-control-allow-origin" not in other.http.get("/runs", headers={"Origin": "https://evil.example"}).headers
    finally:
        other.close()


def test_without_its_extra_the_server_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It can be imported, so that `serve --help` works; making one says which extra is missing."""
    monkeypatch.setattr("dipeo_nb.server.web._missing", ImportError("no starlette", name="starlette"))
    with pytest.raises(MissingDependencyError, match="starlette") as refused:
        RunServer(Session(tmp_path).runtime)
    assert "dipeo-nb[serve]" in (refused.value.hint or "")
