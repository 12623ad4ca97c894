"""What is wrong with the options of a run is found before anything runs: by every function, the command line and the server."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dipeo_nb as dp
from dipeo_nb.cli import main
from dipeo_nb.common.calls import nearest_option
from dipeo_nb.domain.chat import parse_model
from dipeo_nb.errors import ConfigurationError, UnknownModelError, UnknownNodeError, UserError, ValidationError
from dipeo_nb.execution.used_names import UsedNames
from dipeo_nb.notebook.calls import UnusedInputWarning
from dipeo_nb.notebook.session import Session

ASKING = """
version: light
metadata: {name: Asking}
persons:
  Clerk: {service: openai, model: gpt-5-nano}
nodes:
- {label: Start, type: start, custom_data: {topic: shoes}}
- {label: Approve, type: user_response, prompt: "Praise {{topic}}?", timeout: 60}
- {label: Reply, type: person_job, person: Clerk, default_prompt: "Praise {{topic}} in {{language}}."}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Approve}
- {from: Approve, to: Reply, label: said}
- {from: Reply, to: End}
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "asking.light.yaml").write_text(ASKING)
    with Session(tmp_path) as opened:
        yield opened


# Options.

WRONG = [
    ({"model": 5}, ValidationError, "not by int"),
    ({"model": ""}, ConfigurationError, "no name"),
    ({"model": "ecco"}, UnknownModelError, "Did you mean 'echo'"),
    ({"model": "opnai:gpt-5"}, UnknownModelError, "Did you mean 'openai:gpt-5'"),
    ({"model": "nope"}, UnknownModelError, "ollama:nope or openai:nope"),
    ({"budget": 0.1}, ValidationError, r"dp\.Budget\(usd=0\.1\)"),
    ({"budget": "little"}, ValidationError, "is not a budget"),
    ({"timeout": "5"}, ValidationError, "not a number of seconds"),
    ({"timeout": -1}, ValidationError, "not a number of seconds"),
    ({"timeout": 0}, ValidationError, "not a number of seconds"),
    ({"timeout": True}, ValidationError, "not a number of seconds"),
    ({"timeout": float("nan")}, ValidationError, "not a number of seconds"),
    ({"max_iterations": "x"}, ValidationError, "not a whole number"),
    ({"max_iterations": 0}, ValidationError, "not a whole number"),
    ({"max_iterations": 2.5}, ValidationError, "not a whole number"),
    ({"inputs": [1]}, ValidationError, "inputs= takes a mapping, not list"),
    ({"inputs": {1: 2}}, ValidationError, "has the key 1"),
    ({"answers": "yes"}, ValidationError, "answers= takes a mapping, not str"),
    ({"answers": {"Approve": 3}}, ValidationError, "The answer of 'Approve' is 3"),
    ({"answers": {"Approve": []}}, ValidationError, r"The answer of 'Approve' is \[\]"),
    ({"answers": {"Aprove": "yes"}}, UserError, "Did you mean 'Approve'"),
    ({"view": "no"}, ValidationError, "neither True nor False"),
    ({"modell": "echo"}, ValidationError, "Did you mean model=.*inputs="),
    ({"modle": "echo"}, ValidationError, "Did you mean model="),
    ({"Model": "echo"}, ValidationError, "Did you mean model="),
    ({"answer": {}}, ValidationError, "Did you mean answers="),
    ({"time_out": 3}, ValidationError, "Did you mean timeout="),
    ({"max_iter": 3}, ValidationError, "Did you mean max_iterations="),
    ({"input": {}}, ValidationError, "Did you mean inputs="),
    ({"trust": 5}, ValidationError, "neither True nor False, nor a code"),
    ({"allow": 5}, ValidationError, "allow= takes a mapping, not 5"),
    ({"allow": "read=x"}, ValidationError, "allow= takes a mapping"),
    ({"allow": {"read": 5}}, ValidationError, "'read': 5, which names nothing"),
    ({"allow": {5: "x"}}, ValidationError, "allow= has 5"),
    ({"alow": {}}, ValidationError, "Did you mean allow="),
]


@pytest.mark.parametrize(("options", "kind", "words"), WRONG, ids=[str(w[0]) for w in WRONG])
def test_wrong_options_of_a_run_are_refused_before_it(session: Session, options: Any, kind: type[UserError], words: str):
    """Each is one error with the next action, from `start`, `run` and `arun` alike, and nothing is recorded."""
    for call in (session.start, session.run, lambda *a, **o: asyncio.run(session.arun(*a, **o))):
        with pytest.raises(kind, match=words):
            call("asking.light.yaml", **options)
    assert not session.runs()


def test_there_are_as_many_wrong_options_as_were_thought_of():
    """The table above is whole."""
    assert len(WRONG) == 35


def test_wrong_options_of_other_functions(session: Session):
    """The same rules hold for every function, and names of options that are not there are answered with the nearest."""
    done = session.run("asking.light.yaml", model="echo", answers={"Approve": "yes"}, language="French")
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: session.runs(limit="a"), "limit='a' is not a whole number"),  # type: ignore[arg-type]
        (lambda: session.runs(0), "limit=0"),
        (lambda: session.runs(limitt=3), r"runs\(\) has no option 'limitt'. Did you mean limit="),  # type: ignore[call-arg]
        (lambda: session.runs(status="complete"), "Did you mean 'completed'"),
        (lambda: session.replay(5), "run=5 is not a name"),  # type: ignore[arg-type]
        (lambda: session.replay(done, sped=2), "Did you mean speed="),  # type: ignore[call-arg]
        (lambda: session.diff("", done.id), "run='' is not a name"),
        (lambda: session.diff("nope", done.id), "There is no run 'nope'"),
        (lambda: session.open_run(None), "run=None is not a name"),  # type: ignore[arg-type]
        (lambda: session.fork(done, at=5), "at=5 is not a name"),  # type: ignore[arg-type]
        (lambda: session.fork(done, at="Replay"), "Did you mean 'Reply'"),
        (lambda: session.fork(done, of=0, at="Reply"), "of=0"),
        (lambda: session.fork(done, set=[1]), "set= takes a mapping"),  # type: ignore[arg-type]
        (lambda: session.fork(done, sett={}), "Did you mean set="),  # type: ignore[call-arg]
        (lambda: session.fork(done, at="Reply", model="ecco"), "Did you mean 'echo'"),
        (lambda: session.fork(done, at="Reply", timeout="1"), "not a number of seconds"),  # type: ignore[arg-type]
        (lambda: session.load("asking", frmat="light"), "Did you mean format="),  # type: ignore[call-arg]
        (lambda: session.load(5), "not from int"),  # type: ignore[arg-type]
        (lambda: session.llm(5), "not by int"),  # type: ignore[arg-type]
        (lambda: session.llm("opnai:gpt-5"), "openai:gpt-5"),
        (lambda: session.chat("Hi", model="echo", fallbacks=["nope"], display=False), "ollama:nope"),
        (lambda: session.chat("Hi", model="echo", budget=5), "budget"),  # type: ignore[arg-type]
        (lambda: session.chat(5, model="echo"), "prompt|message"),  # type: ignore[arg-type]
        (lambda: session.chat("Hi", model="echo", display="no"), "display='no' is neither"),  # type: ignore[arg-type]
        (lambda: session.chat("Hi", model="echo", phase="x"), "no phase 'x'"),
        (lambda: session.chat("Hi", model="echo", temperature="x"), "temperature='x'"),
        (lambda: session.chat("Hi", model="echo", max_tokens=0), "max_tokens=0"),
        (lambda: session.chat("Hi", model="echo", timeout=-1), "timeout=-1"),
        (lambda: session.chat("Hi", model="echo", system=5), "system= takes a text"),  # type: ignore[arg-type]
        (lambda: session.llm("echo").batch("Hello"), "list of prompts, not str"),
        (lambda: session.llm("echo").batch(5), "list of prompts, not int"),  # type: ignore[arg-type]
        (lambda: done.run.result(timeout="x"), "not a number from 0 on"),  # type: ignore[arg-type]
        (lambda: done.run.wait("x"), "not a number from 0 on"),  # type: ignore[arg-type]
        (lambda: session.load("asking").set(5, 1), "5 is not a path"),  # type: ignore[arg-type]
        (lambda: session.load("asking").save(5), "5 is not a path"),  # type: ignore[arg-type]
        (lambda: session.load("asking").svg(theem="dark"), "Did you mean 'theme'"),
        (lambda: session.load("asking").png(width="wide"), "width='wide'"),  # type: ignore[arg-type]
        (lambda: dp.tool(5), "5 is not a function"),  # type: ignore[arg-type]
        (lambda: dp.recording(5), "5 is not a folder"),  # type: ignore[arg-type]
        (lambda: dp.override_settings(default_llm_modle="echo").__enter__(), "Did you mean 'default_llm_model'"),
        (lambda: dp.Budget(usd="much"), "usd='much'"),  # type: ignore[arg-type]
        (lambda: dp.Budget(calls=-1), "calls=-1"),
        (lambda: Session(5), "base_dir=5"),  # type: ignore[arg-type]
        (lambda: Session(base_dri="."), r"Session\(\) has no option 'base_dri'. Did you mean base_dir="),
        (lambda: Session(lm=None), "Did you mean llm="),
        (lambda: Session(settings={}), "settings= takes Settings, not dict"),  # type: ignore[arg-type]
        (lambda: session.runs(nested="no"), "nested='no' is neither"),  # type: ignore[arg-type]
        (lambda: session.trust(5), "5 is not a path"),  # type: ignore[arg-type]
        (lambda: session.trust(".", forgt=True), "Did you mean forget="),  # type: ignore[call-arg]
        (lambda: session.runs().delete("all"), r"delete\(\): too many positional"),  # type: ignore[call-arg]
        (lambda: session.chat("Hi", model="echo", temprature=1), "Did you mean temperature="),
        (lambda: session.llm("echo", sytem="x"), "Did you mean system="),
        (lambda: session.llm("echo").batch(["Hi"], fallback=["local"]), "Did you mean fallbacks="),
        (lambda: session.llm("echo").conversation(max_token=3), "Did you mean max_tokens="),
        (lambda: session.chat("Hi", model="echo", tools=["websaerch"]), "Did you mean 'websearch'"),
        (lambda: done.run.fork(modle="echo"), "Did you mean model="),  # type: ignore[call-arg]
        (lambda: done.run.fork(at="Reply", trust=5), "trust=5"),  # type: ignore[arg-type]
        (lambda: done.run.resume(anwers={}), "Did you mean answers="),
        (lambda: done.run.result(timeot=3), "Did you mean timeout="),  # type: ignore[call-arg]
        (lambda: done.run.wait(time=3), "Did you mean timeout="),  # type: ignore[call-arg]
        (lambda: done.run.answer(), "missing a required argument: 'text'"),  # type: ignore[call-arg]
        (lambda: done.outputs["Ende"], "Did you mean 'End'"),
        (lambda: session.load("asking").save(fromat="light"), "Did you mean format="),  # type: ignore[call-arg]
        (lambda: session.load("asking").to_text(fmt="light"), "Did you mean format="),  # type: ignore[call-arg]
        (lambda: session.load("asking").set("nodes.Reply"), "missing a required argument: 'value'"),  # type: ignore[call-arg]
        (lambda: session.load("asking").png(widht=3), "Did you mean width="),  # type: ignore[call-arg]
        (lambda: dp.tool(nam="x"), "Did you mean name="),  # type: ignore[call-arg]
        (lambda: dp.node(timout=3), "Did you mean timeout="),  # type: ignore[call-overload]
        (lambda: dp.recording("r", mod="replay"), "Did you mean mode="),  # type: ignore[call-arg]
        (lambda: dp.Budget(us=1), r"Budget\(\) has no option 'us'. Did you mean usd="),  # type: ignore[call-arg]
    ]
    for call, words in calls:
        with pytest.raises(UserError, match=words):
            call()
    assert len(calls) == 70
    assert len(session.runs()) == 1


def test_calls_that_do_not_fit_are_short_errors():
    """A missing or superfluous argument is an error of ours, without our frames."""
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: dp.load(), r"load\(\): missing a required argument: 'source'"),  # type: ignore[call-arg]
        (lambda: dp.run(), "missing a required argument: 'diagram'"),  # type: ignore[call-arg]
        (lambda: dp.runs(1, 2), "too many positional arguments"),  # type: ignore[call-arg]
        (lambda: dp.open_run(), "missing a required argument: 'run_id'"),  # type: ignore[call-arg]
        (lambda: dp.start("x", "local"), "too many positional arguments"),  # type: ignore[call-arg]
        (lambda: dp.diff("x"), "missing a required argument: 'after'"),  # type: ignore[call-arg]
    ]
    for call, words in calls:
        with pytest.raises(ValidationError, match=words):
            call()
    assert len(calls) == 6


def test_what_errors_quote_steers_no_terminal():
    """An escape sequence in a message, a hint or a traceback is written out."""
    error = dp.RunError("It said \x1b[31mred.\n", hint="\x1b]0;title\x07 Go on.")
    shown = "\n".join(error._render_traceback_())
    assert shown.count("\x1b") == 2, "our own colour"
    assert "\\x1b]0;title\\x07" in shown
    assert str(error).endswith("red.\n\x1b]0;title\x07 Go on."), "no stray blank before the hint"


def test_a_node_that_is_not_there_is_answered_with_the_nearest(session: Session):
    """`run.node("Repli")` names 'Reply'; who caught a KeyError still does."""
    done = session.run("asking.light.yaml", model="echo", answers={"Approve": "yes"}, language="French")
    with pytest.raises(UnknownNodeError, match="Did you mean 'Reply'") as caught:
        done.node("Repli")
    assert isinstance(caught.value, KeyError)
    assert not str(caught.value).startswith("'")


def test_runs_are_named_by_themselves_their_results_and_their_rows(session: Session):
    """Whatever names a run in a notebook is taken wherever a run is meant."""
    done = session.run("asking.light.yaml", model="echo", answers={"Approve": "yes"}, language="French")
    names = [done, done.run, session.runs()[0], done.id, done.id[:12]]
    assert {session.open_run(name).id for name in names} == {done.id}
    assert not session.diff(names[0], names[2]).changed


# Inputs.


def test_inputs_that_nothing_names_are_warned_about(session: Session):
    """A keyword that no template, expression, code or start node names is said, with the nearest; `inputs=` takes any name."""
    with pytest.warns(UnusedInputWarning, match=r"does not use the input 'tpic'\. Did you mean 'topic'") as caught:
        session.run("asking.light.yaml", model="echo", answers={"Approve": "y"}, tpic="hats", language="Dutch")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.run("asking.light.yaml", model="echo", answers={"Approve": "y"}, topic="hats", language="Dutch")
        given = session.run("asking.light.yaml", model="echo", answers={"Approve": "y"}, inputs={"modell": 1})
    assert given.run.state.variables == {"modell": 1}


def test_an_input_that_the_diagram_names_may_be_called_like_an_option(session: Session):
    """`mode` is nearly `model`, but this diagram asks for it."""
    diagram = ASKING.replace("{{language}}", "{{mode}}")
    done = session.run(diagram, model="echo", answers={"Approve": "y"}, mode="slang")
    assert "in slang" in str(done.output)


NAMED = [
    ('code_job, code: "return topic"', False),
    ("code_job, code: \"return inputs.get('topic')\"", False),
    ('code_job, code: "return sorted(inputs)"', True),
    ("code_job, code: \"return globals()['topic']\"", True),
    ("code_job, code: job.py", True),
    ("condition, condition_type: custom, expression: \"topic == 'x'\"", False),
    ('person_job, person: A, default_prompt: "{{#if topic}}yes{{/if}}"', False),
    ('person_job, person: A, default_prompt: "{{inputs.topic}}"', False),
    ('person_job, person: A, default_prompt: "{{inputs}}"', True),
    ('db, operation: read, file: "notes of {topic}.txt"', True),
    ('user_response, prompt: "{{topic | upper}}"', False),
    ("hook, hook_type: shell, command: env", True),
    ('template_job, template_content: "{{topic}}"', False),
    ("template_job, template_path: x.j2", True),
    ('api_job, url: "http://localhost/{{topic}}"', False),
    ("endpoint, save_to_file: false", True),
]


@pytest.mark.parametrize(("node", "everything"), NAMED)
def test_what_a_diagram_names(node: str, everything: bool, tmp_path: Path):
    """Every type of node that says `topic` counts; what takes all inputs is never warned about."""
    text = f"version: light\npersons: {{A: {{service: echo}}}}\nnodes:\n- {{label: S, type: start}}\n- {{label: N, type: {node}}}\n"
    text += (
        "connections:\n- {from: S, to: N}\n"
        if "condition" not in node
        else ('- {label: E, type: code_job, code: "return 1"}\nconnections:\n- {from: S, to: N}\n- {from: N_condtrue, to: E}\n')
    )
    (tmp_path / "job.py").write_text("return 1")
    used = UsedNames(dp.load(text).compile(base_dir=tmp_path), tmp_path)
    assert used.everything is everything
    assert used.unknown(["topic", "tpic"]) == ([] if everything else ["tpic"])


def test_names_of_sub_diagrams_count(tmp_path: Path):
    """What only a sub-diagram names is named; its file is read for that."""
    (tmp_path / "inner.light.yaml").write_text(ASKING)
    outer = dp.load(
        "version: light\nnodes:\n- {label: S, type: start}\n- {label: N, type: sub_diagram, diagram_name: inner}\n"
        "connections:\n- {from: S, to: N}\n"
    )
    used = UsedNames(outer.compile(base_dir=tmp_path), tmp_path)
    assert used.unknown(["language", "lnguage"]) == ["lnguage"]


OPTIONS = ("model", "answers", "inputs", "timeout", "max_iterations", "budget", "trust", "view")


@pytest.mark.parametrize(
    "word", ["topic", "review", "persona", "text", "items", "name", "question", "code", "limit", "trusted_by"]
)
def test_words_of_their_own_are_no_slips_of_the_pen(word: str):
    """Names that users give to inputs are not taken for options."""
    assert nearest_option(word, OPTIONS) is None


def test_resume_takes_only_what_is_not_recorded(session: Session):
    """An input that the run has already, or never had, is refused with the way to change it."""
    run = session.start("asking.light.yaml", model="echo", topic="hats", language="Dutch")
    run.stop()
    run.wait(10)
    for name in ("topic", "tpic"):
        with pytest.raises(ValidationError, match="fork"):
            session.resume(run, inputs={name: "caps"})
    with pytest.raises(ValidationError, match="Did you mean answers="):
        session.resume(run, answer={"Approve": "yes"})
    assert session.resume(run, answers={"Approve": "yes"}).result().status == "completed"


# Models.

MODELS = {
    "gpt-4": ("openai", "gpt-4"),
    "o3-mini": ("openai", "o3-mini"),
    "chatgpt-4o-latest": ("openai", "chatgpt-4o-latest"),
    "gpt-oss:20b": ("ollama", "gpt-oss:20b"),
    "llama2:7b": ("ollama", "llama2:7b"),
    "codellama:7b": ("ollama", "codellama:7b"),
    "openchat:7b": ("ollama", "openchat:7b"),
    "deepseek-r1:8b": ("ollama", "deepseek-r1:8b"),
    "echo:7": ("echo", "7"),
    "anthropic : claude-x": ("anthropic", "claude-x"),
}
REFUSED = [
    "opnai:latest",
    "opnai:4o",
    "eco:7",
    "olama:3b",
    "gemni:2.5-flash",
    "locla:1b",
    "gogle:2.5",
    "nope",
    "llama2",
    "qwen3:instruct",
]


@pytest.mark.parametrize("name", MODELS)
def test_names_that_say_who_is_meant(name: str):
    """Services, families of models, and names with a tag as Ollama writes them."""
    assert parse_model(name) == MODELS[name]


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_say_it_not(name: str):
    """A slip of the pen in the name of a service is never a model of Ollama or OpenAI; the error says how to name one."""
    with pytest.raises(UnknownModelError, match="service:model"):
        parse_model(name)
    assert len(REFUSED) == 10


def test_the_service_of_a_person_is_looked_at_before_the_run(session: Session):
    """A diagram whose person names no service is refused, unless the run moves the person."""
    diagram = ASKING.replace("service: openai", "service: opnai")
    with pytest.raises(UnknownModelError, match=r"Person 'Clerk'.*Did you mean 'openai"):
        session.run(diagram, answers={"Approve": "y"})
    assert not session.runs()
    assert session.run(diagram, model="echo", answers={"Approve": "y"}, language="Dutch").status == "completed"


def test_a_person_without_a_model_has_the_default_of_the_settings(tmp_path: Path):
    """Also when that is of another service, which is then asked instead of OpenAI."""
    diagram = ASKING.replace("service: openai, model: gpt-5-nano", "system_prompt: Be brief.")
    with Session(
        tmp_path, settings=dp.get_settings().model_copy(update={"default_llm_model": "echo", "base_dir": tmp_path})
    ) as session:
        assert session.run(diagram, answers={"Approve": "y"}, language="Dutch").node("Reply").meta["provider"] == "echo"
        assert session.llm("openai").name == "openai:gpt-5-nano-2025-08-07"


@pytest.mark.parametrize("name", ["nope", "opnai:gpt-5", "ecco"])
def test_the_command_line_resolves_models_alike(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Exit code 2: nothing was run."""
    (tmp_path / "asking.light.yaml").write_text(ASKING)
    assert main(["run", "asking.light.yaml", "--model", name, "--base-dir", str(tmp_path)]) == 2
    assert "service:model" in capsys.readouterr().err


def test_the_command_line_warns_of_inputs_that_nothing_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`--input tpic=…` is not swallowed."""
    (tmp_path / "asking.light.yaml").write_text(ASKING)
    arguments = ["asking", "--model", "echo", "--answer", "Approve=y", "--input", "tpic=hats", "--base-dir", str(tmp_path)]
    assert main(["run", *arguments]) == 0
    assert "does not use the input 'tpic'. Did you mean 'topic'?" in capsys.readouterr().err
