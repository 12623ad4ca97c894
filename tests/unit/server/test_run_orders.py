"""What the page of a run orders over HTTP: another run, a note, a copy, a comparison; with the checks of every other request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.row_diagrams import ASKING_LETTER, ECHO_LETTER, with_code
from tests.support.served import Served


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    (tmp_path / "letter.light.yaml").write_text(ECHO_LETTER)
    (tmp_path / "asking.light.yaml").write_text(ASKING_LETTER)
    server = Served(tmp_path, "--port", "0")
    yield server
    server.close()


@pytest.fixture
def run_id(served: Served) -> str:
    """A run that has ended."""
    found = served.start(diagram="letter", inputs={"topic": "tea"})
    list(served.events(found))
    return found


def node_id(served: Served, run_id: str, label: str) -> str:
    nodes = served.http.get(f"/runs/{run_id}/head").json()["nodes"]
    return next(i for i, node in nodes.items() if node["label"] == label)


def ordered(served: Served, run_id: str, **order: object) -> dict:
    """The outcome of the run that is ordered."""
    answer = served.http.post(f"/runs/{run_id}/another", json=order)
    assert answer.status_code == 201, answer.text
    new = answer.json()["run_id"]
    frames = list(served.events(new))
    return {**served.http.get(f"/runs/{new}").json(), "events_seen": [f["data"] for f in frames]}


def test_other_runs_are_made_from_a_run(served: Served, run_id: str) -> None:
    """From a node with another prompt, of that node alone, and of all of it with other inputs; the page says what may be ordered."""
    write = node_id(served, run_id, "Write")
    assert set(served.http.get(f"/runs/{run_id}/head").json()["can"]) == {"note", "copy", "fork", "alone", "again", "compare"}
    fork = ordered(served, run_id, kind="fork", node=write, prompt="Praise {{topic}}.")
    assert fork["outputs"] == {"End": "[Ada] Praise tea."}
    reused = [e for e in fork["events_seen"] if e["type"] == "node_completed" and e["data"].get("meta", {}).get("reused")]
    assert len(reused) == 1, "Start is taken over, not run again"
    assert ordered(served, run_id, kind="alone", node=write)["outputs"] == {"Output": "[Ada] About tea."}
    assert ordered(served, run_id, kind="alone", node=write, prompt="Hey {{topic}}")["outputs"] == {"Output": "[Ada] Hey tea"}
    again = ordered(served, run_id, kind="again", inputs={"topic": "ink"})
    assert again["outputs"] == {"End": "[Ada] About ink."}
    compared = served.http.get(f"/runs/{again['run_id']}/compared", params={"with": run_id}).json()
    assert compared["inputs"] == [["topic", "tea", "ink"]]
    assert {node["label"]: node["kind"] for node in compared["nodes"]}["Write"] == "changed"
    assert f'data-node="{write}"' in compared["svg"]


def waits(served: Served, run_id: str) -> None:
    """Until the letter of a run is written and its question waits."""
    seen = set[str]()
    for frame in served.events(run_id):
        event = frame["data"]
        seen.add(f"{event['type']} {event['data'].get('person') or event['data'].get('meta', {}).get('person') or ''}".strip())
        if {"interactive_prompt", "node_completed Ada"} <= seen:
            return
    raise AssertionError(seen)


def test_others_are_made_from_a_run_that_goes_on(served: Served) -> None:
    """Its page offers them; the new run takes over what has finished, and the old one takes its answer as before."""
    going = served.start(diagram="asking")
    waits(served, going)
    assert {"fork", "alone", "again", "compare", "stop", "answer"} <= set(served.http.get(f"/runs/{going}/head").json()["can"])
    write, ask, check = (node_id(served, going, label) for label in ("Write", "Ask", "Check"))
    assert ordered(served, going, kind="alone", node=write, prompt="Hey")["outputs"] == {"Output": "[Ada] Hey"}
    early = served.http.post(f"/runs/{going}/another", json={"kind": "fork", "node": check})
    assert (early.status_code, "has no run 1" in early.json()["error"]["message"]) == (400, True)
    fork = served.http.post(f"/runs/{going}/another", json={"kind": "fork", "node": ask}).json()["run_id"]
    waits(served, fork)
    for run_id, text in ((going, "yes"), (fork, "well")):
        assert served.http.post(f"/runs/{run_id}/answer", json={"text": text}).status_code == 202
        list(served.events(run_id))
        assert served.http.get(f"/runs/{run_id}").json()["outputs"] == {"End": f"[Ada] Check [Ada] About tea., {text}"}


def test_notes_copies_and_inputs(served: Served, run_id: str) -> None:
    assert served.http.post(f"/runs/{run_id}/notes", json={"first": 1, "last": 3, "text": "So."}).status_code == 201
    assert served.http.get(f"/runs/{run_id}").json()["notes"][0]["text"] == "So."
    assert served.http.get(f"/runs/{run_id}/inputs").json()["inputs"] == [
        {"name": "topic", "value": "tea", "default": None, "kind": "text"}
    ]
    write = node_id(served, run_id, "Write")
    for query, part in (
        ({"as": "python"}, "dp.run("),
        ({"as": "test"}, "def test_letter(tmp_path)"),
        ({"as": "python", "node": write, "of": "1"}, "dp.chat("),
    ):
        text = served.http.get(f"/runs/{run_id}/copy", params=query).json()["text"]
        compile(text, "copy", "exec")
        assert part in text


def test_what_cannot_be_ordered_is_refused_with_the_next_action(served: Served, run_id: str) -> None:
    """Without the token nothing; no other field of a node, no code, no unknown node or run of it, no note on what is not there."""
    write, start = node_id(served, run_id, "Write"), node_id(served, run_id, "Start")
    path = f"/runs/{run_id}"
    with httpx.Client(base_url=served.http.base_url) as stranger:
        for method, where in (("POST", "another"), ("POST", "notes"), ("GET", "inputs"), ("GET", "copy"), ("GET", "compared")):
            assert stranger.request(method, f"{path}/{where}", json={}).status_code == 401
        evil = {"Host": "evil.example", "Authorization": f"Bearer {served.token}"}
        assert stranger.post(f"{path}/another", json={"kind": "again"}, headers=evil).status_code == 400
    for status, order in (
        (422, {"kind": "fork", "node": write, "code": "import os"}),
        (422, {"kind": "everything"}),
        (422, {"kind": "fork", "node": write, "of": 0}),
        (400, {"kind": "fork"}),
        (400, {"kind": "fork", "node": "nobody"}),
        (400, {"kind": "fork", "node": write, "of": 9}),
        (400, {"kind": "fork", "node": start, "prompt": "x"}),
        (400, {"kind": "alone", "node": start}),
        (400, {"kind": "again", "model": "nope"}),
    ):
        answer = served.http.post(f"{path}/another", json=order)
        assert answer.status_code == status, (order, answer.text)
        assert answer.json()["error"]["message"]
        assert answer.json()["error"]["hint"]
    assert served.http.post(f"{path}/another", content=b"{").status_code == 422
    assert served.http.post(f"{path}/notes", json={"first": 5000, "last": 6000, "text": "x"}).status_code == 400
    assert served.http.post(f"{path}/notes", json={"first": 1, "last": 2, "text": " "}).status_code == 400
    assert served.http.get(f"{path}/copy", params={"as": "exe"}).status_code == 400
    assert served.http.get(f"{path}/copy", params={"node": write, "of": "²"}).status_code == 400
    assert served.http.get(f"{path}/compared", params={"with": "exec_none"}).status_code == 404
    assert len(served.http.get("/runs").json()["runs"]) == 1, "nothing was begun"


def test_a_run_whose_folder_has_become_a_stranger_s_makes_no_more_than_guests(
    served: Served, run_id: str, tmp_path: Path
) -> None:
    """The record is what counts, not the file of that name: what is in it now is never run."""
    (tmp_path / "letter.light.yaml").write_text(with_code(ECHO_LETTER, "Shout", "result = 'x'"))
    again = ordered(served, run_id, kind="again")
    assert again["outputs"] == {"End": "[Ada] About tea."}


def test_a_page_is_given_the_beginning_of_a_long_run_as_one_row(served: Served, run_id: str) -> None:
    """And nothing of a run that is short enough."""
    events = [frame["data"] for frame in served.events(run_id)]
    assert served.http.get(f"/runs/{run_id}/beginning").json() == {"rows": []}
    first, left = served.http.get(f"/runs/{run_id}/beginning", params={"keep": 3}).json()["rows"]
    assert (first[0], first[1], left[0], left[1]) == (1, "execution_started", len(events) - 3, "left_out")
    assert left[4]["status"] == "running"
    for wrong in ("0", "-1", "x", "9" * 30):
        assert served.http.get(f"/runs/{run_id}/beginning", params={"keep": wrong}).status_code == 400
    assert served.http.get("/runs/exec_none/beginning").status_code == 404
