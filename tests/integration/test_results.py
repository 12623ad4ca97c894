"""Results are values: they are copied, leave their process, become JSON and tables; and what shows them is of bounded size."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas
import pytest
from IPython.lib.pretty import pretty

import dipeo_nb as dp
from dipeo_nb.cli import main
from dipeo_nb.execution.run_list import ago
from dipeo_nb.notebook import static_view
from dipeo_nb.notebook.run import Run, RunResult
from dipeo_nb.notebook.session import Session
from dipeo_nb.notebook.tables import Outputs, Table, text_table
from dipeo_nb.notebook.transcript import Transcript
from dipeo_nb.testing import scripted
from tests.support.row_diagrams import BROKEN_CODE, LETTER


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


COPIES: list[Callable[[Any], Any]] = [through_pickle, copy.deepcopy, copy.copy]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    with Session(tmp_path, llm=scripted("Dear cats")) as opened:
        yield opened


# Copies.


@pytest.mark.parametrize("copied", COPIES)
def test_the_package_is_the_same_wherever_it_is_named(copied: Callable[[Any], Any]):
    """Functions that say `dp` go to other processes with it by name, as picklers of functions ask it to."""
    assert copied(dp) is dp
    assert copied(dp.llm) is dp.llm
    assert copied({"dp": dp})["dp"] is dp
    assert copied(dp.run) is dp.run


@pytest.mark.parametrize("copied", COPIES)
def test_results_are_copied_whole(session: Session, copied: Callable[[Any], Any]):
    """What a result and a run have to say, a copy says, without the store."""
    result = session.run(LETTER)
    for one in (copied(result), copied(result.run)):
        assert isinstance(one, (RunResult, Run))
        assert repr(one) == repr(result if isinstance(one, RunResult) else result.run)
        assert one.to_dict() == result.to_dict()
        assert one.events == result.events
        assert one.conversation == result.conversation
        assert one.nodes == result.nodes
        assert one.explain().text == result.explain().text
        assert one.node("Writer").output == "Dear cats"
    assert copied(result).run._repr_mimebundle_() == result.run._repr_mimebundle_()
    assert copied(result.run).result().output == "Dear cats"


def test_a_copy_of_a_failed_run_raises_its_error(session: Session):
    """Where the result is asked for, as the run does."""
    with pytest.raises(dp.RunError) as caught:
        session.run(BROKEN_CODE)
    with pytest.raises(dp.RunError, match="division"):
        through_pickle(caught.value.run).result()  # type: ignore[attr-defined]


def test_a_copy_of_a_run_that_goes_on_is_what_it_is_now(tmp_path: Path):
    """The run itself goes on where it began."""
    waiting = BROKEN_CODE.replace("1 / 0", "__import__('time').sleep(20)")
    with Session(tmp_path) as session:
        run = session.start(waiting)
        while run.node("Work").status != "running":
            run.wait(0.02)
        copied = through_pickle(run)
        assert copied.status == "running"
        assert copied.finished
        with pytest.raises(dp.RunError, match="another process"):
            copied.result()
        run.stop()


def test_events_of_a_copy_can_be_gone_through(session: Session):
    """`async for` gives every event of a run that came from elsewhere."""
    result = session.run(LETTER)

    async def collected() -> list[Any]:
        return [event async for event in through_pickle(result.run)]

    assert asyncio.run(collected()) == list(result.events)


def test_a_copied_run_can_be_forked_where_its_record_is(tmp_path: Path):
    """A run that comes back from a worker belongs to the default session, which may have the record."""
    with dp.override_settings(base_dir=tmp_path):
        came = through_pickle(dp.run(LETTER, model="echo", view=False).run)
        assert came.fork(set={"nodes.Writer.default_prompt": "Hello"}, view=False).result().output == "[Anna] Hello"


@pytest.mark.parametrize("copied", COPIES)
def test_models_and_conversations_are_copied(copied: Callable[[Any], Any]):
    """With their options; a conversation with what was said."""
    model = dp.llm("echo", temperature=0.2, system="Be brief.")
    assert repr(copied(model)) == repr(model)
    talk = model.conversation()
    talk("Hi", display=False)
    other = copied(talk)
    assert repr(other) == repr(talk)
    assert other("And now?", display=False).text


def test_a_model_with_services_of_its_own_stays_in_its_process(session: Session):
    """In another process another service, which costs money, would answer; a copy here shares the service."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(session.llm("openai:m"))
    assert copy.deepcopy(session.llm("openai:m")).chat("Hi", display=False).text == "Dear cats"


def test_a_session_says_why_it_is_not_copied(session: Session):
    """A function that names one goes to no other process; the error says what to do."""
    with pytest.raises(TypeError, match=r"Create one in the other process: dp\.Session"):
        pickle.dumps(session)


def test_a_run_of_another_process_is_not_stopped_in_silence(tmp_path: Path):
    """Stopping it here would change nothing, which is said."""
    waiting = BROKEN_CODE.replace("1 / 0", "__import__('time').sleep(20)")
    with Session(tmp_path) as session, Session(tmp_path) as other:
        run = session.start(waiting)
        while not other.runs():
            run.wait(0.02)
        with pytest.raises(dp.RunError, match="another process"):
            other.open_run(run.id).stop()
        assert run.status == "running"
        run.stop()
        run.wait(10)
        other.open_run(run.id).stop()


# JSON and tables.


def test_the_id_of_a_run_has_the_same_name_everywhere(session: Session):
    """`run_id`, as in events, rows of the history, errors and JSON; `id` is the short form of old."""
    result = session.run(LETTER, view=False)
    row, event = session.runs(1)[0], result.events[0]
    assert result.run_id == result.run.run_id == row.run_id == event.run_id == result.to_dict()["run_id"]
    assert (result.id, result.run.id) == (result.run_id, result.run_id)
    failed = session.start(BROKEN_CODE, view=False)
    with pytest.raises(dp.RunError) as error:
        failed.result()
    assert error.value.run_id == failed.run_id


def test_to_dict_is_what_the_command_line_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The same keys and values; JSON can hold all of it, whatever the run gave."""
    (tmp_path / "letter.light.yaml").write_text(LETTER)
    assert main(["run", "letter", "--model", "echo", "--json", "--base-dir", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    with Session(tmp_path) as session:
        assert session.open_run(printed["run_id"]).to_dict() == printed
        odd = session.run(BROKEN_CODE.replace("result = 1 / 0", "return {'n': float('nan'), 's': {1}}"))
        assert json.loads(json.dumps(odd.to_dict(), allow_nan=False)) == odd.to_dict()


def test_columns_have_the_same_types_in_every_frame(session: Session):
    """Also where nothing was spent, so frames of several runs can be put together and summed."""
    frames = [session.run(LETTER).to_dataframe(), session.run(BROKEN_CODE.replace("1 / 0", "1")).to_dataframe()]
    assert [list(map(str, frame.dtypes)) for frame in frames] == [
        ["string", "string", "Int64", "Float64", "Int64", "Float64", "object"]
    ] * 2
    both = pandas.concat(frames)
    assert both["tokens"].sum() == frames[0]["tokens"].sum()
    runs = session.runs()
    assert len(runs.to_dataframe()) == 2
    assert str(runs.to_dataframe()["started_at"].dtype).startswith("datetime64[")
    assert str(runs.to_dataframe()["tokens"].dtype) == "Int64"
    said = session.open_run(runs[1]).conversation
    assert list(said.to_dataframe()["content"]) == ["About cats.", "Dear cats"]
    assert list(said.turns.to_dataframe()["saw"]) == [0]
    assert session.open_run(runs[0]).conversation.to_dataframe().empty


def test_slices_are_tables(session: Session):
    """`r.nodes[:2]` and `dp.runs()[:3]` are shown as the whole is."""
    result = session.run(LETTER)
    assert "<table>" in result.nodes[:2]._repr_html_()
    assert result.nodes[:2].to_dataframe().shape == (2, 7)
    assert repr(result.events[:2]).count("\n") == 2
    assert "<table>" in session.runs()[:1]._repr_html_()


# Size.


def test_every_repr_is_bounded(session: Session):
    """A run with values of 500 KB, and names of 50 KB, takes little room in a notebook, in every form."""
    big, long = "x" * 500_000, "N" * 50_000
    diagram = dp.load(LETTER).set("nodes.Writer.label", long).set("persons.Anna.system_prompt", big).set("name", long)
    with Session(session.settings.base_dir, llm=scripted(big)) as other:
        result = other.run(diagram, topic=big)
        shown = [
            result, result.run, result.nodes, result.nodes[0], result.conversation, result.conversation.turns, result.events,
            result.events[0], list(result.events)[-1], result.metrics, result.explain(), result.outputs, result.run.state,
            result.node(long), other.runs(), list(other.runs()), other.diff(result, result), diagram, diagram.nodes,
            diagram.persons, diagram.arrows, result.run.persons, other.llm("openai:m"), other.chat(big, display=False),
            other.llm("openai:m").batch([big, big]), result.conversation[-1], result.conversation[-2:], result.conversation.turns[0],
            result.conversation.turns[:1],
        ]  # fmt: skip
        for one in shown:
            assert len(repr(one)) < 40_000, type(one)
            assert len(pretty(one)) < 40_000, type(one)
            html = getattr(one, "_repr_html_", None)
            assert html is None or len(html()) < 100_000, type(one)
        assert len(shown) == 29
        assert result.conversation[-1]["content"] == big, "what is shown is cut, not what is there"
        assert isinstance(result.conversation[:1], Transcript)
        assert dict(result.nodes[0])["node"] == result.nodes[0]["node"]


def test_text_tables_are_aligned():
    """Numbers to the right, wide letters counted as two, long values and many rows cut."""
    rows = [["日本", 5, 1.5], ["a\nb", 1234, None], ["y" * 100, None, 0.25]]
    lines = text_table(("name", "n", "share"), rows).splitlines()
    assert lines[0].split() == ["name", "n", "share"]
    assert lines[1].startswith("日本  ")
    assert lines[2].startswith("a b ")
    assert lines[3].startswith("y" * 59 + "…")
    assert [line[62:].rstrip() for line in lines[2:]] == ["1234", "       0.25"]
    many = Table({"a": i} for i in range(100))
    assert repr(many).endswith("… and 60 more rows")


# Text stays text.


EVIL = "# Head\n\n![p](http://t/x.png) costs $5 and $10\n\n- a\n<b>x</b> \x1b[31mred\x1b[0m"


def test_tables_stay_on_one_line_and_are_no_mathematics(session: Session):
    """In an export to Markdown an empty line would end the HTML, and what follows would be live; front ends leave dollars alone."""
    with Session(session.settings.base_dir, llm=scripted(EVIL)) as other:
        result = other.run(LETTER)
        again = other.run(LETTER, topic="dogs")
        outputs = result.outputs
        assert isinstance(outputs, Outputs)
        forms = [
            result._repr_html_(), result.run._repr_mimebundle_()["text/html"], result.nodes._repr_html_(), outputs._repr_html_(),
            result.conversation._repr_html_(), result.conversation.turns._repr_html_(), result.explain()._repr_html_(),
            result.events._repr_html_(), other.runs()._repr_html_(), other.diff(result, again)._repr_html_(),
            static_view.failure({"type": "E", "message": EVIL, "hint": EVIL, "traceback": EVIL}),
            other.llm("openai:m")._repr_html_(), other.llm("openai:m").batch(["x"])._repr_html_(),
        ]  # fmt: skip
        assert len(forms) == 13
        for form in forms:
            assert "\n" not in form
            assert "\x1b" not in form
            assert "<b>" not in form
            assert form.partition(">")[0].endswith('class="mathjax_ignore tex2jax_ignore"')
        texts = [repr(result.nodes), repr(result.conversation), result.run._repr_mimebundle_()["text/plain"], repr(result)]
        assert not any("\x1b" in text for text in texts)


def test_numbers_are_aligned_to_the_right():
    """Columns of numbers, and of gaps between them; texts are not."""
    html = static_view.table(("node", "runs", "took"), [("A", 1, static_view.Figure("2.1 s")), ("B", None, None)])
    assert html.count("text-align:right") == 2 + 4
    assert "overflow-wrap" not in html
    assert "overflow-wrap:anywhere" in static_view.table(("a",), [("x" * 50,)])


# History.


def test_the_history_can_be_read(session: Session):
    """Short ids with the whole one at hand, a sign for the status, times as people say them, models, tokens and cost."""
    done = session.run(LETTER)
    with pytest.raises(dp.RunError):
        session.run(BROKEN_CODE)
    html, text = session.runs()._repr_html_(), repr(session.runs())
    short = done.id.removeprefix("exec_")[:8]
    assert f'title="{done.id}">{short}</span>' in html
    assert "✓ completed" in html
    assert "✗ failed" in text
    assert "just now" in text
    assert session.open_run(short).id == done.id
    assert " m " in text
    assert done.id in text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "just now"),
        (30, "30 s ago"),
        (300, "5 min ago"),
        (7200, "2 h ago"),
        (3 * 86_400, "3 days ago"),
        (90 * 86_400, "2026-"),
    ],
)
def test_times_are_told_as_people_do(seconds: float, expected: str):
    """Up to a week by their distance, then by their date."""
    now = 1_795_000_000.0  # in November 2026
    assert ago(now - seconds, now).startswith(expected)
