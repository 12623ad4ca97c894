"""The worker process of code_job: real processes, real code."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.nodes import CodeJobNode
from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.errors import CodeError, NodeTimeoutError
from dipeo_nb.execution.code_runner import ProcessCodeRunner
from dipeo_nb.execution.code_state import EMPTY, after
from dipeo_nb.execution.inputs import Inputs

NODE = PlanNode(0, "node_1", "code_job", "test", CodeJobNode())


class Session:
    """One run's code jobs, one after the other, as the engine would run them."""

    def __init__(self, base: Path) -> None:
        self.runner = ProcessCodeRunner(base)
        self.view = EMPTY
        self.printed = ""

    @property
    def assigned(self) -> dict[str, Any]:
        return self.view.variables()

    def __call__(self, code: str, inputs: dict[str, Any] | None = None, **options: Any) -> Any:
        values = Inputs(
            dict(inputs or {}),
            options.pop("spread", {}),
            frozenset(options.pop("stale", ())),
        )
        arguments = {
            "variables": {},
            "node_id": "node_1",
            "function_name": "main",
            "timeout": 20,
            "shared": True,
            **options,
        }
        result = run_sync(self.runner.run_python(code, filename="<test>", inputs=values, view=self.view, **arguments))
        if arguments["shared"]:
            self.view = after(self.view, NODE, 1, {"variables": result.variables, "code": result.code})
        self.printed = result.stdout
        return result.value


@pytest.fixture
def code(tmp_path: Path):
    session = Session(tmp_path)
    yield session
    run_sync(session.runner.cleanup())


def test_return_and_result(code: Session):
    """`return` at the top level and `result = …` both give the result; without either there is none."""
    assert code("return 1 + 1") == 2
    assert code("result = [1, 2]") == [1, 2]
    assert code("x = 3") is None


def test_values_stay_what_they_are(code: Session):
    """Numbers, booleans and None are not turned into text; dates and sets become JSON."""
    assert code("return (1, 2.5, True, None, {'a': {3}})") == [1, 2.5, True, None, {"a": [3]}]
    assert code("import datetime\nreturn datetime.date(2025, 1, 11)") == "2025-01-11"


def test_variables_survive(code: Session):
    """Assignments live on in the run's next code job, and are recorded."""
    code("a = 1")
    assert code("a += 1\nresult = f'a={a}'") == "a=2"
    assert code.assigned == {"a": 2}
    assert code("return a") == 2


def test_a_new_worker_gets_the_recorded_variables(code: Session):
    """After the worker died the recorded variables are still there."""
    code("a = 41")
    run_sync(code.runner.cleanup())
    assert code("return a + 1") == 42


def test_isolated_code_shares_nothing(code: Session):
    """An isolated job neither sees nor leaves variables."""
    code("a = 1")
    assert code("b = 5\nreturn b", shared=False) == 5
    with pytest.raises(CodeError, match="NameError"):
        code("return b")


def test_code_is_not_reindented(code: Session):
    """Multi-line strings and blank lines reach the code as they are written, with `return` too."""
    assert code('text = """a\n\n  b"""\nreturn text') == "a\n\n  b"


def test_inputs_by_name_and_as_mapping(code: Session):
    """Inputs are variables, and `inputs` is the whole mapping, which falls back to the keys of its mappings."""
    assert code("return x + inputs['x']", {"x": 2}) == 4
    assert code("return inputs['total'], inputs.get('no', 0)", {"p": {"total": 7}}, spread={"total": 7}) == [7, 0]
    assert code("return data['a']", {"data": '{"a": 1}'}) == 1, "JSON text arrives parsed"


def test_names_that_are_no_identifiers(code: Session):
    """An input with a strange name breaks nothing."""
    assert code("return inputs['my key!']", {"my key!": 5}) == 5


def test_a_stale_input_does_not_undo_an_assignment(code: Session):
    """A value already seen does not overwrite what the code made of it; a fresh one does."""
    assert code("n += 1\nreturn n", {"n": 1}) == 2
    assert code("n += 1\nreturn n", {"n": 1}, stale=["n"]) == 3
    assert code("n += 1\nreturn n", {"n": 10}) == 11


def test_functions_by_signature(code: Session):
    """One parameter takes the mapping, several are filled by name, async ones are awaited."""
    inputs = {"a": 2, "b": 3}
    assert code("def main(inputs):\n    return inputs['a']", inputs) == 2
    assert code("def main(a, b, c=4):\n    return a * b * c", inputs) == 24
    assert code("def main(**kw):\n    return sorted(kw)", inputs) == ["a", "b"]
    assert code("def main():\n    return 'none'", inputs) == "none"
    assert code("async def main(a):\n    return a", inputs) == 2
    assert code("def go(x):\n    return x['b']", inputs, function_name="go") == 3
    with pytest.raises(CodeError, match="needs z, which no input provides; the inputs are a, b"):
        code("def main(a, z):\n    return a", inputs)


def test_module_level_use_of_inputs_beside_the_function(code: Session):
    """A module that calls its own function gives that result (sample simple_data_processing)."""
    assert code("def f(d):\n    return d['x']\nresult = f(inputs)", {"x": 1}, function_name="f") == 1


def test_top_level_await(code: Session):
    """`await` works at the top level and variables survive it."""
    assert code("import asyncio\nq = 5\nawait asyncio.sleep(0)\nreturn q") == 5
    assert code("return q") == 5


def test_printed_text_is_captured(code: Session):
    """print, stderr and output of child processes are captured, not shown."""
    code("import subprocess, sys\nprint('one')\nprint('two', file=sys.stderr)\nreturn 1")
    assert code.printed == "one\ntwo\n"


def test_errors_show_the_users_frames_only(code: Session):
    """The traceback names the line of the code and nothing of ours."""
    with pytest.raises(CodeError) as caught:
        code("x = 1\ndef f():\n    return 1 / 0\nf()")
    assert "ZeroDivisionError" in caught.value.message
    assert "(line 3)" in caught.value.message
    assert "code_worker" not in caught.value.traceback


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("x = ", "SyntaxError"),
        ("import sys; sys.exit(3)", "exit"),
        ("input('?')", "EOFError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_bad_code_is_an_error_and_the_worker_lives_on(code: Session, source: str, error: str):
    """Whatever the code raises is a CodeError; the next job still runs."""
    with pytest.raises(CodeError, match=error):
        code(source)
    assert code("return 1") == 1


def test_a_crashed_worker_is_reported(code: Session):
    """Code that kills its process gives one clear error, and the next job gets a new worker."""
    with pytest.raises(CodeError, match="ended by itself"):
        code("import os; os._exit(7)")
    assert code("return 1") == 1


def test_timeout_kills_the_worker(code: Session):
    """A loop without end is stopped at the limit, and its process is gone."""
    code("import os\npid = os.getpid()")
    begin = time.monotonic()
    with pytest.raises(NodeTimeoutError):
        code("while True: pass", timeout=0.5)
    assert time.monotonic() - begin < 5
    with pytest.raises(ProcessLookupError):
        os.kill(code.assigned["pid"], 0)


def test_cleanup_leaves_no_child_behind(code: Session):
    """Children that the code started die with the worker."""
    child = code("import subprocess\np = subprocess.Popen(['sleep', '60'])\nreturn p.pid")
    run_sync(code.runner.cleanup())
    for _ in range(50):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child is still there")


def test_no_secrets_in_the_environment(code: Session, monkeypatch: pytest.MonkeyPatch):
    """Variables that look like secrets are not handed to the code."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234567890")
    monkeypatch.setenv("DIPEO_HARMLESS", "yes")
    assert code("import os\nreturn [os.environ.get('OPENAI_API_KEY'), os.environ['DIPEO_HARMLESS']]") == [None, "yes"]


def test_large_results_pass(code: Session):
    """Ten megabytes pass in both directions."""
    big = "x" * 10_000_000
    assert code("return len(t), t", {"t": big}) == [10_000_000, big]


def test_cancellation_stops_the_code(code: Session):
    """Cancelling the wait kills the worker at once."""

    async def go() -> None:
        task = asyncio.create_task(
            code.runner.run_python(
                "while True: pass", filename="x", inputs=Inputs(), variables={}, node_id="n",
                function_name="main", timeout=60,
            )
        )  # fmt: skip
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    begin = time.monotonic()
    run_sync(go())
    assert time.monotonic() - begin < 5
