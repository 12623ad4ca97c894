"""The run view outside notebooks: a file opened from disk with the network off, and the page of `dipeo-nb serve`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

from playwright.sync_api import Browser, Page, Route, expect

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.events import Event
from dipeo_nb.execution import run_file
from dipeo_nb.execution.run_state import RunState
from tests.support.axe import violations
from tests.support.golden_logs import logs
from tests.support.row_diagrams import ASKS
from tests.support.run_view import golden, statuses
from tests.support.served import HELLO, Served

pytestmark = pytest.mark.browser


@pytest.fixture
def offline(chrome: Browser) -> Iterator[Page]:
    """A page without a network; whatever the page's policy refuses fails the test."""
    context = chrome.new_context(offline=True, viewport={"width": 1280, "height": 800})
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(error.message))
    opened.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    yield opened
    context.close()
    assert complaints == []


def write(file: Path, *runs: tuple[RunState, Sequence[Event]]) -> None:
    file.write_text(run_sync(run_file.html([run_file.held(events, state) for state, events in runs])), encoding="utf-8")


def test_a_file_from_disk_with_the_network_off(offline: Page, tmp_path: Path, shots: Path) -> None:
    """Its timeline moves, an address names a moment, and nothing is asked of anybody."""
    events = golden("debate.light.yaml")
    file = tmp_path / "run.html"
    write(file, (RunState.fold(events), events))
    asked: list[str] = []
    offline.on("request", lambda request: asked.append(request.url))
    offline.goto(file.as_uri())
    expect(offline.locator(".dp-pill")).to_have_text("done")
    offline.screenshot(path=shots / "run-file.png")
    offline.locator(".dp-cursor").focus()
    for _ in range(3):
        offline.keyboard.press("PageDown")
    seq = len(events) - 30
    expect(offline.locator(".dp-seq")).to_have_text(f"event {seq} of {len(events)}")
    assert statuses(offline) == {node: str(n.status) for node, n in RunState.fold(events[:seq]).nodes.items()}
    offline.evaluate("location.hash = '#20'")
    expect(offline.locator(".dp-seq")).to_have_text(f"event 20 of {len(events)}")
    offline.keyboard.press("e")
    offline.locator(".dp-what").first.click()
    expect(offline.locator(".dp-payload")).to_be_visible()
    assert asked == [file.as_uri()]


def test_a_file_that_leaves_out_the_beginning_of_a_long_run(
    offline: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, shows the same from there on, and an event that is not there leads to what stands for it."""
    events = golden("debate.light.yaml")
    file, cut = tmp_path / "run.html", len(events) - 30
    packed = run_file.packed
    monkeypatch.setattr(run_file, "packed", lambda logs: packed(logs, events=30))
    write(file, (RunState.fold(events), events))
    offline.goto(file.as_uri())
    notice = offline.locator(".dp-notice")
    expect(notice).to_have_text(
        f"Events 2 to {cut} are not in this page; what they led to is. The whole log: dipeo-nb export {events[0].run_id} -o run.jsonl"
    )
    expect(offline.locator(".dp-seq")).to_have_text(f"event {len(events)} of {len(events)}")
    assert statuses(offline) == {node: str(n.status) for node, n in RunState.fold(events).nodes.items()}
    offline.evaluate("location.hash = '#20'")
    expect(offline.locator(".dp-seq")).to_have_text(f"event {cut} of {len(events)}")
    assert statuses(offline) == {node: str(n.status) for node, n in RunState.fold(events[:cut]).nodes.items()}
    offline.locator(".dp-log summary").click()
    expect(offline.locator(".dp-event").nth(1)).to_contain_text("Events 2 to this one are not in this page")
    for tab in offline.locator(".dp-tab").all():
        tab.click()
        expect(tab).to_have_attribute("aria-selected", "true")
    assert violations(offline, "#run") == []


def test_a_sub_diagram_opens_in_place(offline: Page, tmp_path: Path) -> None:
    batch = [(RunState.fold(events), events) for name, events in logs() if name == "sub_diagrams.light.yaml"]
    outer, child = next(
        (o, c) for o in batch for c in batch if any(c[1][0].payload.get("parent") and n.children for n in o[0].nodes.values())
    )
    node_id, node = next((i, n) for i, n in outer[0].nodes.items() if n.children)
    child[0].run_id = node.children[0]
    file = tmp_path / "run.html"
    write(file, outer, child)
    offline.goto(file.as_uri())
    offline.locator(f"[data-node='{node_id}']").dblclick()
    expect(offline.locator(".dp-crumb b")).to_have_text(child[0].diagram)
    offline.keyboard.press("Tab")
    offline.locator(".dp-crumb button").click()
    expect(offline.locator(".dp-crumb")).to_have_count(0)
    expect(offline.locator(".dp-run:visible")).to_have_count(1)


def test_the_items_of_a_batch_follow_each_other(offline: Page, tmp_path: Path) -> None:
    found = [(RunState.fold(events), events) for name, events in logs() if name == "batch.light.yaml"]
    outer = found[0]
    node_id, node = next((i, n) for i, n in outer[0].nodes.items() if len(n.children) == 3)
    children = [log for log in found if log[1][0].payload.get("parent")][:3]
    for log, run_id in zip(children, node.children, strict=True):
        log[0].run_id = run_id
    file = tmp_path / "run.html"
    write(file, outer, *children)
    offline.goto(file.as_uri())
    offline.locator(f"[data-node='{node_id}']").click()
    offline.get_by_role("button", name="2 ").first.click()
    expect(offline.locator(".dp-crumb .dp-num")).to_have_text("2 of 3")
    offline.get_by_role("button", name="Next item").click()
    expect(offline.locator(".dp-crumb .dp-num")).to_have_text("3 of 3")
    expect(offline.locator(".dp-run:visible")).to_have_count(1)
    offline.locator(".dp-body:visible").focus()
    offline.keyboard.press("Escape")
    expect(offline.locator(".dp-crumb")).to_have_count(0)


def test_the_page_of_a_server(page: Page, tmp_path: Path, shots: Path) -> None:
    """It follows a run, takes the answer to its question and shows the end; the token does not stay in the address."""
    (tmp_path / "asks.light.yaml").write_text(ASKS)
    served = Served(tmp_path, "--port", "0")
    try:
        run_id = served.start(diagram="asks")
        page.goto(f"http://127.0.0.1:{served.port}/runs/{run_id}/page?token={served.token}")
        expect(page.locator(".dp-asked strong")).to_have_text("are")
        assert served.token not in page.url
        page.screenshot(path=shots / "run-served.png")
        page.reload()
        page.locator(".dp-question input").fill("Ada")
        page.keyboard.press("Enter")
        expect(page.locator(".dp-pill")).to_have_text("done")
        expect(page.locator(".dp-question")).to_be_hidden()
        assert served.http.get(f"/runs/{run_id}").json()["outputs"] == {"End": "Ada"}
        page.goto(f"http://127.0.0.1:{served.port}/runs/exec_none/page?token={served.token}")
        expect(page.get_by_role("alert")).to_contain_text("There is no run 'exec_none'.")
    finally:
        served.close()


def test_the_page_of_a_server_begins_late_in_a_long_run(page: Page, tmp_path: Path) -> None:
    """It asks for what came before, and follows the run from there on."""
    (tmp_path / "asks.light.yaml").write_text(ASKS)
    served = Served(tmp_path, "--port", "0")
    streamed: list[str] = []
    page.on("request", lambda request: streamed.append(request.url) if "/events?" in request.url else None)
    page.route("**/beginning?*", lambda route: route.continue_(url=f"{route.request.url}keep=2"))
    try:
        run_id = served.start(diagram="asks")
        address = f"http://127.0.0.1:{served.port}/runs/{run_id}/page?token={served.token}"
        page.goto(address)
        page.locator(".dp-question input").fill("Ada")
        page.keyboard.press("Enter")
        expect(page.locator(".dp-pill")).to_have_text("done")
        count = served.http.get(f"/runs/{run_id}").json()["events"]
        streamed.clear()
        page.goto(address)
        expect(page.locator(".dp-pill")).to_have_text("done")
        expect(page.locator(".dp-notice")).to_contain_text(f"Events 2 to {count - 2} are not in this page")
        expect(page.locator(".dp-seq")).to_have_text(f"event {count} of {count}")
        assert streamed[0].endswith(f"?after={count - 2}")
    finally:
        served.close()


def test_the_page_of_a_server_that_was_away(page: Page, tmp_path: Path) -> None:
    """Streams end early, a proxy says that nobody is there, then nobody is: the question is still there when the server is, and can be answered."""
    (tmp_path / "asks.light.yaml").write_text(ASKS)
    served = Served(tmp_path, "--port", "0")
    tries = 0

    def stream(route: Route) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            route.fulfill(status=200, content_type="text/event-stream", body=begun)
        elif tries == 2:
            route.fulfill(status=503, content_type="text/plain", body="Nobody is there.")
        elif tries < 9:
            route.abort()
        else:
            route.continue_()

    try:
        run_id = served.start(diagram="asks")
        frames: list[str] = []
        for frame in served.events(run_id):
            frames.append(f"id: {frame['id']}\nevent: {frame['event']}\ndata: {json.dumps(frame['data'])}\n\n")
            if frame["event"] == "interactive_prompt":
                break
        begun = "".join(frames)
        page.route("**/events?*", stream)
        page.goto(f"http://127.0.0.1:{served.port}/runs/{run_id}/page?token={served.token}")
        expect(page.locator(".dp-pill")).to_have_attribute("data-state", "gone")
        expect(page.locator(".dp-pill")).to_have_attribute("data-state", "waiting")
        page.locator(".dp-question input").fill("Ada")
        page.keyboard.press("Enter")
        expect(page.locator(".dp-pill")).to_have_text("done")
        assert tries == 9, "who is gone is asked for again until it is back, and nobody else is"
    finally:
        served.close()


def test_the_history_of_a_server(page: Page, tmp_path: Path, shots: Path) -> None:
    """Runs open in it, one that is going on, too, several at a time; two are compared, one is deleted; nothing needs a pointer."""
    (tmp_path / "asks.light.yaml").write_text(ASKS)
    (tmp_path / "hello.light.yaml").write_text(HELLO)
    served = Served(tmp_path, "--port", "0")
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    try:
        for name in ("Ada", "Bob"):
            list(served.events(served.start(diagram="hello", inputs={"name": name})))
        going = served.start(diagram="asks")
        page.goto(f"http://127.0.0.1:{served.port}/runs/page?token={served.token}")
        rows = page.locator(".dp-history tbody tr")
        expect(rows).to_have_count(3)
        assert served.token not in page.url
        rows.nth(0).get_by_role("button").focus()
        page.keyboard.press("Enter")
        views = page.locator(".dp-opened .dp-run[data-status]")
        expect(views.nth(0).locator(".dp-asked")).to_contain_text("Who")
        rows.nth(1).get_by_role("button").focus()
        page.keyboard.press("Enter")
        expect(views.nth(1).locator(".dp-pill")).to_have_text("done")
        views.nth(1).locator(".dp-node").filter(has_text="Say").click()
        expect(views.nth(1).locator(".dp-body")).to_contain_text("Bob")
        page.screenshot(path=shots / "history-served.png", full_page=True)
        assert violations(page, "main") == []
        views.nth(0).locator(".dp-question input").fill("Eve")
        page.keyboard.press("Enter")
        expect(views.nth(0).locator(".dp-pill")).to_have_text("done")
        expect(rows.nth(0)).to_have_attribute("data-status", "completed")  # by itself
        page.get_by_role("button", name=re.compile("^Close Hello")).click()
        expect(views).to_have_count(1)
        expect(rows.nth(1).get_by_role("button")).to_be_focused()
        for n in (1, 2):
            rows.nth(n).get_by_role("checkbox").focus()
            page.keyboard.press("Space")
        page.get_by_role("button", name="Compare").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".dp-comparison")).to_contain_text("Ada → Bob")
        page.screenshot(path=shots / "history-compared.png", full_page=True)
        page.get_by_role("button", name="Close the comparison").click()
        expect(page.locator(".dp-comparison")).to_have_count(0)
        rows.nth(2).get_by_role("checkbox").uncheck()
        page.get_by_role("button", name="Delete 1 run").click()
        page.get_by_role("button", name="Delete 1 run for good?").click()
        expect(rows).to_have_count(2)
        page.get_by_role("searchbox").fill("hello")
        expect(rows).to_have_count(1)
        page.get_by_role("searchbox").fill("nobody")
        expect(page.locator(".dp-history [role=status]")).to_have_text("No runs")
        assert served.http.get(f"/runs/{going}").json()["outputs"] == {"End": "Eve"}
        assert complaints == []
    finally:
        served.close()


def test_the_page_of_a_server_makes_other_runs(page: Page, tmp_path: Path, shots: Path) -> None:
    """Its policy lets all of it happen: an edited prompt leads to the page of the new run, whose difference is shown in place."""
    (tmp_path / "hello.light.yaml").write_text(HELLO)
    served = Served(tmp_path, "--port", "0")
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    try:
        run_id = served.start(diagram="hello", inputs={"name": "Ada"})
        list(served.events(run_id))
        page.goto(f"http://127.0.0.1:{served.port}/runs/{run_id}/page?token={served.token}")
        expect(page.locator(".dp-pill")).to_have_text("done")
        page.locator(".dp-node").filter(has_text="Say").focus()
        page.keyboard.press("Enter")
        page.keyboard.press("n")
        page.keyboard.type("Too polite.")
        page.get_by_role("button", name="Keep it").click()
        expect(page.locator(".dp-flag")).to_have_attribute("title", "Too polite.")
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.locator(".dp-body").focus()
        page.keyboard.press("f")
        page.keyboard.press("Control+a")
        page.keyboard.type("Away, {{name}}.")
        page.keyboard.press("Control+Enter")
        page.wait_for_url(lambda url: run_id not in url)
        expect(page.locator(".dp-pill")).to_have_text("done")
        page.locator(".dp-node").filter(has_text="Say").click()
        expect(page.locator(".dp-body")).to_have_text("[Ada] Away, Ada.")
        page.locator(".dp-body").focus()
        page.keyboard.press("v")
        page.get_by_role("dialog").get_by_role("button").filter(has_text="Too polite.").click()
        expect(page.locator(".dp-comparison ins").first).to_contain_text("Away")
        page.screenshot(path=shots / "run-served-compared.png")
        page.keyboard.press("Escape")
        page.locator(".dp-body").focus()
        page.keyboard.press("y")
        expect(page.get_by_role("dialog")).to_contain_text("dp.chat(")
        assert complaints == []
    finally:
        served.close()
