"""What stays of a run in a saved notebook: bar, drawing, timeline, a fold for each node; readable without scripts and styles."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.events import Event
from dipeo_nb.errors import RunError
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.markdown_html import markdown_html
from dipeo_nb.notebook.session import Session
from dipeo_nb.notebook.tables import Events
from dipeo_nb.notebook.timeline import timeline, timeline_svg
from dipeo_nb.testing import SlowClient, scripted

KEPT = {"section", "p", "strong", "img", "h4", "h5", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "small", "em",
        "br", "pre", "ul", "ol", "li", "code", "a", "hr", "blockquote", "s", "span"}  # fmt: skip
"""Tags that GitHub leaves in a notebook."""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path) as opened:
        yield opened


def fan(count: int, prompt: str) -> str:
    nodes = "".join(f"- {{label: W{n}, type: person_job, person: A, default_prompt: {prompt!r}}}\n" for n in range(count))
    arrows = "".join(f"- {{from: S, to: W{n}}}\n- {{from: W{n}, to: E}}\n" for n in range(count))
    return (
        "version: light\nname: Fan\npersons:\n  A: {service: echo, system_prompt: You are A.}\nnodes:\n- {label: S, type: start}\n"
        f"{nodes}- {{label: E, type: endpoint}}\nconnections:\n{arrows}"
    )


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**bold** and `x`", "<p><strong>bold</strong> and <code>x</code></p>"),
        ("# Head", "<h5>Head</h5>"),
        ("<script>x</script>", "<p>&lt;script&gt;x&lt;/script&gt;</p>"),
        ("![a](https://x.org/a.png)", "<p>![a](https://x.org/a.png)</p>"),
        ("[a](https://x.org/)", "<p>[a](https://x.org/)</p>"),
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>"),
        ("[a](data:text/html,x)", "<p>[a](data:text/html,x)</p>"),
        ("```\na\n\nb\n```", "<pre><code>a&#10;&#10;b&#10;</code></pre>"),
    ],
)
def test_markdown_of_a_model_is_harmless_html(text: str, html: str) -> None:
    """HTML is text, links and images are text with their addresses, and no empty line ends the HTML of a Markdown cell."""
    assert markdown_html(text) == html


def test_a_table_is_one() -> None:
    assert "<td>1</td>" in markdown_html("| a |\n|---|\n| 1 |")


def test_every_node_is_a_fold_with_its_prompt_and_answer(session: Session) -> None:
    run = session.start(fan(1, "Say **yes** <b>"), view=False)
    run.result()
    html = run._repr_mimebundle_()["text/html"]
    assert set(re.findall(r"<([a-z0-9]+)", html)) <= KEPT
    assert "\n\n" not in html
    assert "You are A." in html
    assert "<strong>yes</strong>" in html
    assert "<b>" not in html
    assert re.search(r"<summary [^>]*>✓ <strong>W0</strong>: completed, [^<]*tokens", html)


def test_a_turn_says_what_the_person_remembered(session: Session) -> None:
    """By whom and what, between the system prompt and what was asked."""
    again = "- {label: W1, type: person_job, person: A, default_prompt: And now?}\n- {label: E,"
    run = session.start(
        fan(1, "First")
        .replace("- {label: E,", again)
        .replace("- {from: W0, to: E}", "- {from: W0, to: W1}\n- {from: W1, to: E}")
    )
    run.result()
    turn = run._repr_mimebundle_()["text/html"].split("<strong>W1</strong>")[1]
    order = ["system", "You are A.", "memory, 2 messages", "<strong>A</strong>: [A] First", "user", "And now?"]
    assert [turn.index(part) for part in order] == sorted(turn.index(part) for part in order)


def test_outputs_have_their_markdown_and_their_line_breaks(tmp_path: Path) -> None:
    """Texts are rendered; of other values every blank counts, also where styles are removed."""
    code = "return {'deep': {'er': [1]}}"
    diagram = fan(1, "Speak").replace(
        "- {label: E, type: endpoint}",
        f"- {{label: E, type: endpoint}}\n- {{label: C, type: code_job, language: python, code: {code!r}}}\n- {{label: Data, type: endpoint}}",
    )
    diagram += "- {from: S, to: C}\n- {from: C, to: Data, content_type: object}\n"
    with Session(tmp_path, llm=scripted({"W0": "Say **yes**\nand\n\n* no"})) as session:
        result = session.run(diagram, view=False, trust=True)
    for html in (result.run._repr_mimebundle_()["text/html"], result._repr_html_()):
        outputs = html.partition("endpoint")[2].partition("</table>")[0]
        assert "Say <strong>yes</strong><br /> and</p>" in outputs
        assert "<li>no</li>" in outputs
        assert re.search(r"<pre [^>]*><code>\{&#10;  &quot;deep&quot;: \{&#10;    &quot;er&quot;", outputs)


def test_events_are_a_table_in_which_a_text_is_one_row(tmp_path: Path) -> None:
    with Session(tmp_path, llm=SlowClient("one two three four", delay=0.1)) as session:  # longer than until the next commit
        run = session.start(fan(1, "Count."), view=False)
        run.result()
    pieces = [e for e in run.events if e.payload.get("is_partial")]
    assert len(pieces) > 3
    rows = run.events._repr_html_().split("<tr>")[2:]
    (text,) = [row for row in rows if "is_partial" in row]
    assert f">{pieces[0].seq}–{pieces[-1].seq}<" in text
    assert "one two three four" in text
    assert len(rows) == len(run.events) - len(pieces) + 1
    assert f"{pieces[0].seq}–{pieces[-1].seq}" in repr(run.events)


def test_a_text_of_which_several_pieces_are_an_event_is_one_row() -> None:
    counts = ({"pieces": 3}, {}, {"pieces": 2})
    parts = [{"kind": "text", "text": "ab ", "is_partial": True, "run": 1, **count} for count in counts]
    events = Events(Event(n, EventType.NODE_OUTPUT, "r", 0.0, "node_1", part) for n, part in enumerate(parts, 1))
    (row,) = events._repr_html_().split("<tr>")[2:]
    assert ">1–3<" in row
    assert "ab ab ab " in row
    assert "&#x27;pieces&#x27;: 6" in row


def test_twenty_nodes_stay_small(session: Session) -> None:
    """120 KB, picture and all, whatever was said."""
    run = session.start(fan(18, "Write about **cats**. " * 500), view=False)
    run.result()
    data = run._repr_mimebundle_()
    assert sum(map(len, data.values())) < 120_000
    assert "more characters: run.node" in data["text/html"]


def test_a_failed_node_says_what_it_was_sent(session: Session) -> None:
    diagram = fan(1, "Hello").replace(
        "W0, type: person_job, person: A, default_prompt: 'Hello'",
        "W0, type: code_job, language: python, code: 'raise ValueError(1)'",
    )
    with pytest.raises(RunError) as caught:
        session.run(diagram, view=False)
    html = session.open_run(str(caught.value.run_id))._repr_mimebundle_()["text/html"]  # type: ignore[attr-defined]
    assert "✗ <strong>W0</strong>: failed" in html


def story(*steps: tuple[float, EventType, str | None, dict[str, object]]) -> list[Event]:
    return [Event(seq, kind, "r", 100 + at, node, payload) for seq, (at, kind, node, payload) in enumerate(steps, 1)]


T = EventType
STORY = story(
    (0, T.EXECUTION_STARTED, None, {"labels": {"a": "A <b>", "b": "B"}}),
    (0, T.NODE_STARTED, "a", {}),
    (0, T.NODE_WAITING, "b", {}),
    (1, T.NODE_OUTPUT, "a", {"kind": "prompt"}),
    (2, T.NODE_OUTPUT, "a", {"kind": "text"}),
    (3, T.EXECUTION_LOG, "a", {"extra_fields": {"retry": 1}}),
    (4, T.NODE_OUTPUT, "a", {"kind": "text"}),
    (5, T.NODE_COMPLETED, "a", {}),
    (5, T.NODE_STARTED, "b", {}),
    (6, T.INTERACTIVE_PROMPT, "b", {}),
    (8, T.INTERACTIVE_RESPONSE, "b", {}),
    (9, T.EXECUTION_ERROR, None, {}),
    (1000, T.RUN_NOTE, None, {}),
    (5000, T.EXECUTION_STARTED, None, {"resumed": 13}),
    (5000, T.NODE_STARTED, "b", {}),
    (5001, T.NODE_ERROR, "b", {}),
)


def test_a_timeline_tells_what_a_node_did_when() -> None:
    """Seconds of live time: that in which the run lay cut off is left out, and notes are none of it."""
    found = timeline(STORY)
    assert found.seconds == 10
    assert {lane.label: lane.parts for lane in found.lanes} == {
        "A <b>": [("work", 0, 1), ("thinking", 1, 2), ("work", 2, 3), ("retry", 3, 4), ("work", 4, 5)],
        "B": [("place", 0, 5), ("work", 5, 6), ("person", 6, 8), ("work", 8, 9), ("work", 9, 10), ("failed", 10, 10)],
    }


def test_its_picture_names_every_kind() -> None:
    svg = timeline_svg(timeline(STORY), "Two <nodes>")
    root = ElementTree.fromstring(svg)
    text = " ".join(root.itertext())
    for words in ("waiting for a place", "before the first word", "trying again", "waiting for a person", "failed"):
        assert text.count(words) >= 2, words
    assert "A <b>" in text
    assert timeline_svg(timeline(STORY[:1]), "x") == ""


def test_the_timeline_is_in_the_output(session: Session) -> None:
    run = session.start(fan(1, "Hello").replace("default_prompt", "retries: 0, default_prompt"), view=False)
    run.result()
    pictures = re.findall(
        r'<img src="data:image/svg\+xml;base64,([^"]+)"', static_view.html(run.state, run._diagram, timeline(STORY))
    )
    assert "Timeline of" in base64.b64decode(pictures[1]).decode()
