"""The worker process of code_job: real processes, real code."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.diagram.python_code import code_problem
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
        values = Inputs.named(dict(inputs or {}), options.pop("spread", {}), frozenset(options.pop("stale", ())))
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


def test_definitions_are_quiet_the_second_time(code: Session):
    """Making them again prints and logs nothing."""
    code("import logging\nclass A:\n    print('once')\n    logging.getLogger('x').info('once')\n    n = 1")
    assert code.printed == "once\n"
    run_sync(code.runner.cleanup())
    assert code("return A.n") == 1
    assert code.printed == ""


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
    with pytest.raises(NodeTimeoutError):
        code("while True: pass", timeout=0.5)
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
    """Variables that are not known to be harmless are not handed to the code."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234567890")
    monkeypatch.setenv("LC_MESSAGES", "C")
    assert code("import os\nreturn [os.environ.get('OPENAI_API_KEY'), os.environ['LC_MESSAGES']]") == [None, "C"]


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

    run_sync(go())  # its own limit would end it with another error


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations\nx: Missing = 1\nreturn x",
        "\"\"\"A docstring.\"\"\"\nfrom __future__ import annotations\nreturn 1",
        "from math import *\nreturn floor(pi) - 2",
        "if True:\n    from math import floor as down\nreturn down(1.5)",
        "global y\ny = 1\nreturn y",
        "y: int\ny: int = 1\nreturn y",
        "import asyncio\nasync def one():\n    return 1\nresult = await one()",
        "import asyncio\nasync def some():\n    yield 1\nreturn [n async for n in some()][0]",
        "def main(inputs):\n    yield 1",
        "return (n for n in [1])",
        "async def main():\n    yield 1",
        "async def main():\n    return 1",
        "class A:\n    n = 1\n    def get(self):\n        return made.n\nmade = A()\nreturn made.get()",
        "def outer():\n    n = 0\n    def inner():\n        nonlocal n\n        n += 1\n        return n\n    return inner\nreturn outer()()",
        "import sys\nsys.stdout.buffer.write(b'1')\nsys.stderr.write('2')\nreturn sys.stdout.fileno()",
        "globals()['y'] = 1\nreturn y",
        "return len([name for name in globals() if name == '__name__'])",
        "import inspect\ndef f():\n    return 1\nreturn len(inspect.getsource(f).splitlines()) - 1",
        "exec('y = 1')\nresult = y",
        "import pickle\nclass A:\n    v = 1\nreturn pickle.loads(pickle.dumps(A())).v",
        "import typing\nclass B: pass\nclass A:\n    b: 'B'\nreturn int(typing.get_type_hints(A)['b'] is B)",
        "from dataclasses import dataclass, field\n@dataclass\nclass A:\n    n: int = field(default=1)\nreturn A().n",
        ("from pydantic import BaseModel\nclass Item(BaseModel):\n    n: int\nclass Order(BaseModel):\n    items: list[Item]\n"
        "return Order(items=[{'n': 1}]).items[0].n"),
        "return int(datetime.now() > datetime.datetime(2000, 1, 1) and json.loads('1') and re.match('a', 'a') and os and math and 1)",
        "datetime = 1\nreturn datetime",
        "import os\npid = os.fork()\nif pid == 0:\n    return 'child'\nos.waitpid(pid, 0)\nreturn 1",
        ("from concurrent.futures import ProcessPoolExecutor\ndef half(n):\n    print('child')\n    return n // 2\n"
        "with ProcessPoolExecutor(1) as pool:\n    return list(pool.map(half, [2]))[0]"),
    ],
)  # fmt: skip
def test_ordinary_python(code: Session, source: str):
    """What a module may hold, with and without `return`; each of these gives 1, and the check of diagrams agrees."""
    assert code_problem(source) is None
    assert code(source) in (1, [1])
    assert code("return 'the worker lives'") == "the worker lives"


@pytest.mark.parametrize(
    "source",
    ["yield 1", "yield 1\nreturn 2", "x = 1\nfrom __future__ import annotations\nreturn x", "def f():\n    await g()", "return (", "nonlocal x"],
)  # fmt: skip
def test_what_is_no_python_is_none_in_both_places(code: Session, source: str):
    """The check of diagrams and the run agree; the message names the line once."""
    assert code_problem(source) is not None
    with pytest.raises(CodeError, match=r"^SyntaxError: ") as caught:
        code(source)
    assert caught.value.message.count("line") <= 1
    assert "code_worker" not in caught.value.traceback


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def f(n): return f(n + 1)\nf(0)", "RecursionError"),
        ("import ctypes\nctypes.string_at(0)", "ended by itself"),
        ("import os\nos._exit(0)", "ended by itself"),
        ("import os\nos.closerange(3, 100)", "ended by itself"),
        ("class E(Exception):\n    def __str__(self): raise ValueError('x')\nraise E", "its text cannot be read"),
        ("print('\\ud83d')\nraise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import sys\nsys.exit('bye')", "the code called exit"),
        ("import sys, io\nsys.stdout = io.StringIO()\nraise ValueError('here')", "ValueError: here"),
        ("import os\nos.close(1); os.close(2)\nraise ValueError('here')", "ValueError: here"),
        ("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass", "took longer"),
        ("del kept\nraise ValueError('here')", "ValueError: here"),
    ],
)  # fmt: skip
def test_hard_failures_keep_what_was_there(code: Session, source: str, words: str):
    """One clear error; names, functions and classes of earlier code are as before, in this process or a new one."""
    code("class Box:\n    made = 1\nkept = [1]\nbox = Box()\nbox.kept = kept\ndef first(): return kept[0]")
    with pytest.raises((CodeError, NodeTimeoutError), match=words):
        code("kept.append(2); Box.made = 5; box.more = 1\n" + source, timeout=1)
    code("print('seen')")
    assert code.printed == "seen\n"
    assert code("return kept, first(), Box.made, isinstance(box, Box), sorted(vars(box)), box.kept is kept") == [
        [1], 1, 1, True, ["kept"], True,
    ]  # fmt: skip


def test_numbers_and_texts_of_any_size(code: Session):
    """Also what has no decimal digits in JSON survives, and a new process."""
    code("huge = 10 ** 5000\nodd = {1: 'a', (2, 3): b'\\xff', 'n': float('nan')}")
    run_sync(code.runner.cleanup())
    assert code("return huge % 7, sorted(map(str, odd)), odd[2, 3] == b'\\xff', math.isnan(odd['n'])") == [
        10**5000 % 7, ["(2, 3)", "1", "n"], True, True,
    ]  # fmt: skip


def test_run_variables(code: Session):
    """An augmented assignment makes one the code's own; so does a change in place; reading it does not."""
    given = {"total": 1, "items": [0], "other": 3}
    assert code("total = total + 5\nitems.append(1)\nreturn other", variables=given) == 3
    assert code.assigned == {"total": 6, "items": [0, 1]}
    assert code("return total, items, globals['total']", variables=given) == [6, [0, 1], 1]
    assert code("return total", {"total": 9}, variables=given) == 9, "an input of that name is seen by its job"
    assert code("return total", variables=given) == 6
    assert code("if False:\n    total = 1\nreturn total", {"total": 9}, variables=given) == 9
    assert code("return total", variables=given) == 6, "not carried out, not assigned"
    assert code("def add():\n    global total\n    total += 1\nadd()", {"total": 9}, variables=given) is None
    assert code.assigned["total"] == 10
    with pytest.raises(CodeError, match="'gone' is not defined"):
        code("del gone\nreturn gone", {"gone": 1})


def test_large_arrays_are_not_recorded(code: Session):
    """They live in their process; small ones are recorded, and changes in place of them."""
    code("import array\nlarge = array.array('d', bytes(8_000_000))\nsmall = array.array('d', [1.0])")
    code("large[0] = 2.0\nsmall[0] = 2.0")
    assert code("return large[0], small[0]") == [2.0, 2.0]
    run_sync(code.runner.cleanup())
    assert code("return small[0]") == 2.0
    with pytest.raises(CodeError, match="'large', which 'test' set, could not be made again in a new process: array, larger"):
        code("return large[0]")


def test_late_threads_do_not_write_into_the_next_job(code: Session):
    """A thread left behind goes on; what it prints does not break the protocol."""
    code(
        "import threading\ndef late():\n    time.sleep(0.1)\n    print('late')\nthreading.Thread(target=late, daemon=True).start()"
    )
    assert code("time.sleep(0.3)\nreturn 'fine'") == "fine"
