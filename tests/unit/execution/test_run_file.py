"""A run as one HTML file: what is in it, how large it is, and what it may do."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import weakref
import zlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.execution import run_file
from dipeo_nb.execution.run_state import RunState

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 \u2029 ]]> &amp; \ud800"
OUTER = """
version: light
nodes:
- {label: Start, type: start}
- {label: Inner, type: sub_diagram, diagram_name: inner}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Inner}
- {from: Inner, to: End}
"""
INNER = """
version: light
persons:
  Ada: {service: echo, model: m}
nodes:
- {label: Start, type: start}
- {label: Say, type: person_job, person: Ada, default_prompt: "Hello."}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Say}
- {from: Say, to: End}
"""


def data_of(page: str) -> Any:
    """The runs in a file."""
    packed = re.search(r'id="data">([A-Za-z0-9+/=]*)</script>', page)
    assert packed
    return json.loads(zlib.decompress(base64.b64decode(packed[1])))


def log(*outputs: dict[str, Any], label: str = "A") -> run_file.Log:
    """A run of one node."""
    events = [
        Event(1, EventType.EXECUTION_STARTED, "exec_1", 1.0, None, {"labels": {"a": label}, "diagram": label, "variables": {}})
    ]
    events.append(
        Event(
            2, EventType.NODE_STARTED, "exec_1", 1.0, "a", {"run": 1, "inputs": {}, "label": label, "node_type": "person_job"}
        )
    )
    events += [Event(n, EventType.NODE_OUTPUT, "exec_1", 1.0 + n / 100, "a", one) for n, one in enumerate(outputs, 3)]
    return run_file.held(events)


def html(logs: Sequence[run_file.Log]) -> str:
    return asyncio.run(run_file.html(logs))


def test_what_a_text_says_ends_no_script() -> None:
    """Of a model, and of a label: nothing in the file but its own tags, and the texts come out as they were."""
    page = html([log({"kind": "text", "text": HOSTILE, "run": 1}, label=HOSTILE)])
    assert re.findall(r"<(/?script|main|h1|pre|style)", page) == [
        "style",
        "main",
        "h1",
        "pre",
        "script",
        "/script",
        "script",
        "/script",
    ]
    assert "\u2028" not in re.sub(r"<pre .*</pre>", "", page, flags=re.DOTALL)
    assert "alert(1)</script>" not in page
    [run] = data_of(page)
    assert run["events"][2][4]["text"] == HOSTILE


def test_its_policy_lets_only_its_own_script_run() -> None:
    page = html([log()])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert re.findall(r"\b(?:src|href)=[\"']?https?:", page) == []


def test_ten_thousand_events_are_no_more_than_a_megabyte_and_a_half() -> None:
    pieces = [{"kind": "text", "text": f" word{n * 7919 % 10_007}", "is_partial": True, "run": 1} for n in range(10_000)]
    page = html([log(*pieces)])
    assert len(page.encode()) < 1_500_000
    assert len(data_of(page)[0]["events"]) == 10_002


def test_texts_that_are_too_long_are_cut_until_it_fits() -> None:
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=400_000))
    page = html([log(*({"kind": "stdout", "text": noise[n:] + noise[:n], "run": 1} for n in range(0, 400_000, 40_000)))])
    assert len(page.encode()) < 1_600_000
    assert data_of(page)[0]["events"][2][4]["text"]["$cut"] == 400_000


def test_a_run_is_written_with_its_sub_diagrams(tmp_path: Path) -> None:
    (tmp_path / "inner.light.yaml").write_text(INNER)
    (tmp_path / "outer.light.yaml").write_text(OUTER)
    with dp.Session(tmp_path) as session:
        run = session.start("outer.light.yaml", model="echo")
        run.result()
        written = run.to_html(tmp_path / "run.html")
        opened = session.open_run(run.id).to_html(tmp_path / "again.html")
    runs = data_of(written.read_text(encoding="utf-8"))
    assert [one["head"]["name"] for one in runs] == ["outer", "inner"]
    assert runs[1]["head"]["run_id"] == next(e[4]["data"]["run_id"] for e in runs[0]["events"] if e[4].get("kind") == "run")
    assert "Hello." in json.dumps(runs[1]["events"])
    assert opened.read_bytes() == written.read_bytes()


def test_secrets_stay_out() -> None:
    redactor.add("sk-very-secret-0123456789")
    page = html([log({"kind": "text", "text": "the key is sk-very-secret-0123456789", "run": 1})])
    assert "very-secret" not in page + json.dumps(data_of(page))


def test_shorter_texts_are_tried_only_where_they_cut_something(monkeypatch: pytest.MonkeyPatch):
    """The data of a run of very many small events is too large whatever is cut: it is made once, not once for each limit."""
    made: list[int] = []

    class Packer(run_file._Packer):
        def __init__(self, limit: int, size: int) -> None:
            made.append(limit)
            super().__init__(limit, size)

    monkeypatch.setattr(run_file, "_Packer", Packer)
    events = [Event(1, EventType.EXECUTION_STARTED, "r", 0.0, None, {"diagram": "d", "labels": {"n": "N"}})]
    events += [Event(n, EventType.NODE_OUTPUT, "r", 0.0, "n", {"kind": "text", "text": f"{n}"}) for n in range(2, 50)]
    asyncio.run(run_file.packed([run_file.held(events)], size=10))
    assert made == [1_000_000]
    made.clear()
    events.append(
        Event(50, EventType.NODE_OUTPUT, "r", 0.0, "n", {"kind": "text", "text": "x" * 50_000, "data": ["y" * 30_000]})
    )
    data = asyncio.run(run_file.packed([run_file.held(events)], size=10))
    assert made == [1_000_000, 20_000, 4_000, 500]
    assert len(json.loads(zlib.decompress(base64.b64decode(data)))[0]["events"]) == 50


class Pages:
    """A long run that is read in pages of texts that do not compress, and how many of those there were at a time."""

    class Page(list[Event]):
        pass

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.most = self.read = 0
        self.there = weakref.WeakSet[Pages.Page]()

    async def pages(self, after: int) -> AsyncIterator[Page]:
        for first in range(after + 1, self.count + 1, 100):
            page = self.Page(self.event(seq) for seq in range(first, min(first + 100, self.count + 1)))
            self.there.add(page)
            self.read += 1
            self.most = max(self.most, len(self.there))
            yield page

    def event(self, seq: int) -> Event:
        if seq == 1:
            return Event(1, EventType.EXECUTION_STARTED, "r", 0.0, None, {"diagram": "d", "labels": {"n": "N"}})
        text = "".join(random.Random(seq).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=self.size))
        return Event(seq, EventType.NODE_OUTPUT, "r", seq / 10, "n", {"kind": "stdout", "text": text})

    def log(self) -> run_file.Log:
        state = RunState.fold([self.event(1)])
        state.events = self.count
        return run_file.Log(state, self.pages)

    __hash__ = object.__hash__


Pages.Page.__hash__ = object.__hash__  # type: ignore[method-assign]


@pytest.mark.parametrize("events", [10_000, 700])
def test_a_run_is_written_without_being_held(events: int) -> None:
    run = Pages(3_000, 10)
    data = asyncio.run(run_file.packed([run.log()], events=events))
    assert run.most <= 3
    rows = json.loads(zlib.decompress(base64.b64decode(data)))[0]["events"]
    if events > 3_000:
        assert [row[0] for row in rows] == list(range(1, 3_001))
    else:
        assert [row[0] for row in rows] == [1, 2_300, *range(2_301, 3_001)]
        assert rows[1][1] == "left_out"


def test_data_that_will_be_made_smaller_is_not_made_to_its_end() -> None:
    run = Pages(1_000, 5_000)
    data = asyncio.run(run_file.packed([run.log()], size=1_000_000))
    assert run.read <= 20  # of 10 pages for each of the two limits
    assert len(json.loads(zlib.decompress(base64.b64decode(data)))[0]["events"]) == 1_000


def test_runs_of_sub_diagrams_share_what_is_left_for_them() -> None:
    logs = [Pages(count, 1).log() for count in (900, 200, 400, 300)]
    runs = json.loads(zlib.decompress(base64.b64decode(asyncio.run(run_file.packed(logs, events=500)))))
    assert [(len(run["events"]), run["events"][-1][0]) for run in runs] == [(502, 900), (200, 200), (302, 400)]


def test_what_is_left_out_is_cut_once() -> None:
    """However often shorter texts were tried."""
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=99_000))
    events = [Event(1, EventType.EXECUTION_STARTED, "r", 0.0, None, {"diagram": "d", "labels": {"n": "N"}})]
    events += [Event(2, EventType.NODE_STARTED, "r", 0.0, "n", {"run": 1, "inputs": {}, "label": "N"})]
    events += [Event(n, EventType.NODE_OUTPUT, "r", 0.0, "n", {"kind": "stdout", "text": noise}) for n in range(3, 30)]
    data = asyncio.run(run_file.packed([run_file.held(events)], size=1_000, events=10))
    rows = json.loads(zlib.decompress(base64.b64decode(data)))[0]["events"]
    [[_, node]] = rows[1][4]["nodes"]
    kept = node["text"]["text"]
    assert node["text"] == {"$cut": 100_000, "text": (noise * 2)[98_000:][: len(kept)]}
    assert rows[2][4]["text"] == {"$cut": 99_000, "text": noise[: len(kept)]}
    assert len(kept) == 500
