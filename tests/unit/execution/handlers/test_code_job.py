"""Python code jobs of real runs: what each sees, whatever is faster, fails, is repeated, resumed or forked."""

from __future__ import annotations

import ast
import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from dipeo_nb import cli
from dipeo_nb.domain.enums import EventType
from dipeo_nb.domain.nodes import CodeJobNode
from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.errors import CodeError, DipeoError
from dipeo_nb.execution import code_state
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted


def diagram(*arrows: str, start: dict[str, Any] | None = None, **codes: str | dict[str, Any]) -> dict[str, Any]:
    """Code jobs between `Start` and `End`; an arrow is written `A > B`, `A > B as label`, or `A[condtrue] > B`."""
    nodes: list[dict[str, Any]] = [{"label": "Start", "type": "start", "props": {"custom_data": start or {}}}]
    for label, code in codes.items():
        props = {"code": code} if isinstance(code, str) else dict(code)
        nodes.append({"label": label, "type": props.pop("type", "code_job"), "props": props})
    nodes.append({"label": "End", "type": "endpoint"})
    connections: list[dict[str, Any]] = []
    for arrow in arrows:
        ends, _, label = arrow.partition(" as ")
        places = ends.split(" > ")
        for source, target in itertools.pairwise(places):
            connections.append({"from": source, "to": target, "content_type": "generic"} | ({"label": label} if label else {}))
    return {"version": "light", "nodes": nodes, "connections": connections}


def result(base: Path, *arrows: str, **codes: Any) -> Any:
    with Session(base, llm=scripted()) as dp:
        return dp.run(diagram(*arrows, **codes), view=False).output


DELAYS = [(0, 0.15), (0.15, 0)]


@pytest.mark.parametrize(("first", "second"), DELAYS)
def test_who_only_receives_a_variable_does_not_reset_it(tmp_path: Path, first: float, second: float):
    """Whichever of two branches is faster: what one assigns is there behind both, and nowhere else."""
    given = result(
        tmp_path,
        "Start > Add > Report > End",
        "Start > Other > Report",
        start={"total": 0, "items": []},
        Add=f"time.sleep({first})\ntotal = total + 5\nitems.append('added')",
        Other=f"time.sleep({second})\nseen = [total, list(items)]\nmine = total + 1",
        Report="return [total, items, seen, mine]",
    )
    assert given == [5, ["added"], [0, []], 1]


@pytest.mark.parametrize(("first", "second"), DELAYS)
def test_two_branches_that_assign_the_same_name(tmp_path: Path, first: float, second: float):
    """The order in the file decides, not the clock; in templates and conditions, too."""
    given = result(
        tmp_path,
        "Start > A > Join > Ask",
        "Start > B > Join",
        "Ask[condtrue] > Say > End",
        A=f"time.sleep({first})\nwho = 'a'",
        B=f"time.sleep({second})\nwho = 'b'",
        Join="return who",
        Ask={"type": "condition", "expression": "who == 'b'"},
        Say={"type": "template_job", "template_content": "{{ who }}!"},
    )
    assert given == "b!"


@pytest.mark.parametrize(("first", "second"), DELAYS)
def test_a_name_of_another_branch_is_not_seen_by_chance(tmp_path: Path, first: float, second: float):
    """No arrows lead from the one to the other: the error says which are missing, whoever was first."""
    with pytest.raises(CodeError, match="'found' is not defined") as caught:
        result(
            tmp_path,
            "Start > Set > Wait > End",
            "Start > Slow > Use > End",
            Set=f"time.sleep({first})\nfound = 1",
            Wait="time.sleep(0.5)",
            Slow=f"time.sleep({second} + 0.3)",
            Use="return found",
        )
    assert "'Set' sets 'found'" in str(caught.value.hint)
    assert "connect them" in str(caught.value.hint)


def test_a_counter_beside_another_job(tmp_path: Path):
    """A loop counts each round once, whatever stands beside it."""
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.run(
            diagram(
                "Start > Count > Enough",
                "Enough[condfalse] > Count",
                "Enough[condtrue] > End",
                "Start > Beside",
                start={"n": 0},
                Count="n += 1\nreturn n",
                Beside="time.sleep(0.02)\nreturn n",
                Enough={"type": "condition", "expression": "n >= 5"},
            ),
            view=False,
        )
        assert run.output == 5
        assert sum(e.type is EventType.NODE_COMPLETED and e.payload["label"] == "Count" for e in run.events) == 5


@pytest.mark.parametrize("how", ["uninterrupted", "resume"])
def test_behind_a_node_at_its_limit(tmp_path: Path, how: str):
    """A person that passes its last answer on hides nothing of what the code before it has assigned since."""
    made = diagram(
        "Start > Count > Say > Enough",
        "Enough[condfalse] > Count",
        "Enough[condtrue] > End",
        start={"n": 0},
        Count="n += 1\nassert n < 3 or os.path.exists('open')",
        Say={"type": "person_job", "person": "P", "default_prompt": "{{ n }}", "max_iteration": 1},
        Enough={"type": "condition", "expression": "n >= 4"},
    )
    made["persons"] = {"P": {"service": "openai", "model": "m"}}
    with Session(tmp_path, llm=scripted("fine")) as dp:
        if how == "resume":
            run = dp.start(made, view=False)
            with pytest.raises(CodeError):
                run.result()
            (tmp_path / "open").touch()
            run = dp.resume(run.id, view=False)
        else:
            (tmp_path / "open").touch()
            run = dp.start(made, view=False)
        run.result()
        counted = [
            e.payload["meta"]["variables"]
            for e in run.events
            if e.payload.get("node_type") == "code_job" and "meta" in e.payload
        ]
    assert counted == [{"n": n} for n in (1, 2, 3, 4)]


def test_inputs_are_visible_to_their_job_only(tmp_path: Path):
    """A later job that no arrow brings the value finds no name; what the code itself bound stays."""
    nodes = {"A": "return {'user': 'ann'}", "B": "kept = record['user']\nrecord['user'] = 'changed'\nreturn 1"}
    assert result(tmp_path, "Start > A", "A > B as record", "B > C > End", **nodes, C="return kept") == "ann"
    with pytest.raises(CodeError, match="'record' is not defined"):
        result(tmp_path, "Start > A", "A > B as record", "B > C > End", **nodes, C="return record")


MEET = """
import pathlib
pathlib.Path({mine!r}).touch()
while not pathlib.Path({other!r}).exists():
    time.sleep(0.01)
"""


def test_two_jobs_run_at_the_same_time(tmp_path: Path):
    """Each waits for the other; both use what an earlier job defined, and the one behind them sees both."""
    given = result(
        tmp_path,
        "Start > Setup > A > Join > End",
        "Setup > B > Join",
        Setup="import math\nclass Box:\n    def __init__(self, v): self.v = v\ndef area(r): return math.floor(r * unit)\nunit = 3",
        A=MEET.format(mine="a", other="b") + "left = Box(area(2))\nprint('A prints')",
        B=MEET.format(mine="b", other="a") + "right = Box(area(3))\nprint('B prints')",
        Join="return [left.v, right.v, type(left) is type(right) is Box]",
    )
    assert given == [6, 9, True]


def test_a_timeout_of_one_job_leaves_the_other_alone(tmp_path: Path):
    """Its process is killed; the other's work and everything that was defined before stay."""
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.run(
            diagram(
                "Start > Setup > Late > Join > End",
                "Setup > Fine > Join",
                Setup="def double(x): return 2 * x\ntags = {'x'}",
                Late={
                    "code": MEET.format(mine="a", other="b") + "time.sleep(60)",
                    "timeout": 1,
                    "on_error": "continue",
                },
                Fine=MEET.format(mine="b", other="a") + "time.sleep(1.5)\nvalue = double(4)\nreturn 1",
                Join="return [value, double(1), sorted(tags)]",
            ),
            view=False,
        )
        assert run.output == [8, 2, ["x"]]
        assert [e.payload["label"] for e in run.events if e.type is EventType.NODE_ERROR] == ["Late"]


STEPS = [
    "x = {n}",
    "x += {n}",
    "items.append({n})",
    "items = [*items, {n}]",
    "other = items",
    "other.append(-{n})",
    "def add(a): return a + x + {n}",
    "y = add({n})",
    "del y",
    "for n in range({n}): x += n",
]


@pytest.mark.parametrize("seed", range(4))
def test_no_result_depends_on_who_is_faster(tmp_path: Path, seed: int):
    """Random diagrams of code jobs, each run with different pauses: every job sees the same."""
    chance = random.Random(seed)
    names = [f"N{n}" for n in range(7)]
    arrows = [f"Start > {names[0]}"]
    for n in range(1, len(names)):
        arrows += [f"{source} > {names[n]}" for source in chance.sample(names[:n], min(n, chance.randint(1, 2)))]
    arrows += [f"{name} > End as {name}" for name in names]
    steps = {name: chance.choice(STEPS).format(n=chance.randint(1, 9)) for name in names}
    see = "result = repr([eval(n) if n in globals() else None for n in ('x', 'y', 'items', 'other')])"

    def run(pauses: random.Random) -> Any:
        codes = {
            name: f"time.sleep({pauses.choice([0, 0, 0.03, 0.1])})\ntry:\n    {step}\nexcept NameError:\n    pass\n{see}"
            for name, step in steps.items()
        }
        return result(tmp_path, *arrows, start={"items": [], "x": 0}, **codes)

    expected = run(random.Random(1))
    assert all(run(random.Random(again)) == expected for again in (2, 3))


OPEN_CONNECTION = "import sqlite3\ncon = sqlite3.connect(':memory:')\ncon.execute('create table t (n)')"


def test_what_lives_in_one_process_is_shared_in_turns(tmp_path: Path):
    """An open connection cannot be in two processes: jobs that can see it take turns, and all of them have it."""
    given = result(
        tmp_path,
        "Start > Setup > A > Join > End",
        "Setup > B > Join",
        Setup=OPEN_CONNECTION,
        A="time.sleep(0.2)\ncon.execute('insert into t values (1)')",
        B="time.sleep(0.2)\ncon.execute('insert into t values (2)')",
        Join="return con.execute('select sum(n) from t').fetchone()[0]",
    )
    assert given == 3


def test_what_cannot_be_made_again_is_named(tmp_path: Path):
    """After its process was killed: which name, who set it, and where to fork."""
    late = {"code": "time.sleep(9)", "timeout": 0.3, "on_error": "continue"}
    with pytest.raises(CodeError, match=r"'con', which 'Setup' set, could not be made again .*Connection") as caught:
        result(tmp_path, "Start > Setup > Late > Use > End", Setup=OPEN_CONNECTION, Late=late, Use="return con")
    assert "Fork the run at 'Setup'" in str(caught.value.hint)
    fine = result(tmp_path, "Start > Setup > Late > Use > End", Setup=OPEN_CONNECTION, Late=late, Use="return 'not used'")
    assert fine == "not used"


FLAKY = """
total = total + 1
items.append(total)
Counter.made += 1
extra = 'left behind'
if not os.path.exists('open'):
    FAIL
return [total, items, Counter.made]
"""
SETUP = "total = 0; items = []\nclass Counter:\n    made = 0\nreturn 1"


@pytest.mark.parametrize("init", ["job", "start"])
@pytest.mark.parametrize("how", ["retries", "timeout", "crash", "resume", "fork"])
def test_a_failed_try_leaves_nothing(tmp_path: Path, how: str, init: str):
    """However the job is repeated, it finds everything as it was before the first try."""
    fail = {"timeout": "open('open', 'w'); time.sleep(30)", "crash": "open('open', 'w'); os._exit(3)"}.get(
        how,
        "raise ValueError('not yet')" if how in ("resume", "fork") else "open('open', 'w'); raise ValueError('not yet')",
    )
    setup = SETUP if init == "job" else SETUP.replace("total = 0; items = []\n", "")
    work = {"code": FLAKY.replace("FAIL", fail)} | ({"timeout": 1} if how == "timeout" else {})
    if how not in ("resume", "fork"):
        work |= {"retries": 1, "retry_delay": 0.01}
    made = diagram("Start > Init > Work > End", start={} if init == "job" else {"total": 0, "items": []}, Init=setup, Work=work)
    with Session(tmp_path, llm=scripted()) as dp:
        if how in ("resume", "fork"):
            run = dp.start(made, view=False)
            with pytest.raises(CodeError):
                run.result()
            (tmp_path / "open").touch()
            run = dp.resume(run.id, view=False) if how == "resume" else dp.fork(run.id, at="Work", view=False)
            assert run.result().outputs == {"End": [1, [1], 1]}
        else:
            assert dp.run(made, view=False).output == [1, [1], 1]


DEFINES = """
from __future__ import annotations
import math
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum
import helper
Pair = namedtuple('Pair', 'a b')
class Colour(Enum):
    RED = 1
@dataclass
class Item:
    name: str
    cost: float = 1.5
    def double(self) -> float: return 2 * self.cost
LIMIT = 2
def area(r, limit=LIMIT): return round(math.pi * r * limit, 2)
LIMIT = 99
short = lambda text: text[:limit]
limit = 3
tags = {'x', 'y'}
items = [Item('a'), Item('b', 2)]
best = items[1]
pair = Pair(1, (2, 3))
when = datetime.datetime(2024, 1, 2)
return 'ready'
"""
USES = """
best.cost += 1
return [area(2), sorted(tags), items[1].double(), pair.b[1], pair == Pair(1, (2, 3)), short('abcdef'), str(when.date()),
        Colour.RED is Colour(1), isinstance(best, Item), helper.VALUE, area.__module__, LIMIT]
"""
EXPECTED = [12.57, ["x", "y"], 6.0, 3, True, "abc", "2024-01-02", True, True, 7, "__dipeo__", 99]


@pytest.mark.parametrize("how", ["resume", "fork"])
def test_what_was_defined_is_there_again(tmp_path: Path, how: str):
    """Functions, classes, imports, objects that share parts: the same after a resume and in a fork."""
    (tmp_path / "helper.py").write_text("VALUE = 7\n")
    made = diagram("Start > Setup > Gate > Use > End", Setup=DEFINES, Gate="assert os.path.exists('open')", Use=USES)
    with Session(tmp_path, llm=scripted()) as dp:
        if how != "resume":
            (tmp_path / "open").touch()
        run = dp.start(made, view=False)
        if how == "resume":
            with pytest.raises(DipeoError):
                run.result()
            (tmp_path / "open").touch()
        else:
            assert run.result().outputs == {"End": EXPECTED}
    with Session(tmp_path, llm=scripted()) as dp:  # as another process would
        run = dp.resume(run.id, view=False) if how == "resume" else dp.fork(run.id, at="Use", view=False)
        assert run.result().outputs == {"End": EXPECTED}


@pytest.mark.parametrize(
    ("first", "second", "use", "expected"),
    [
        ("def f(): return 'old'\ng = f", "def f(): return 'new'", "f() + g()", "newold"),
        ("def f(): return 'old'", "g = f\ndef f(): return g() + 'new'", "f()", "oldnew"),
        ("class P: v = 'old'\ng = P()", "class P: v = 'new'", "P.v + g.v", "newold"),
        ("class P: v = 'old'\ng = [P()]", "class P: v = 'new'\ng.append(P())", "g[0].v + g[1].v", "oldnew"),
        ("class P: v = 'old'\nclass g(P): pass", "class P: v = 'new'", "P.v + g.v", "newold"),
        ("class P: v = 'same'\ng = P()", "class P: v = 'same'", "P.v + g.v", "samesame"),
    ],
    ids=["alias", "wrapper", "object", "objects of both", "base class", "same words"],
)
def test_what_was_defined_anew_does_not_take_the_place_of_the_old(
    tmp_path: Path, first: str, second: str, use: str, expected: str
):
    """A record refers to functions and classes by name, so it cannot tell two of one name apart: the old one is not made again."""
    made = diagram("Start > A > B > Use > End", A=first, B=second, Use=f"return {use}")
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.start(made, view=False)
        assert run.result().outputs == {"End": expected}
    with Session(tmp_path, llm=scripted()) as dp:
        forked = dp.fork(run.id, at="Use", view=False)
        if expected == "samesame":
            assert forked.result().outputs == {"End": expected}
        else:
            with pytest.raises(CodeError, match="'g', which 'B' set, could not be made again"):
                forked.result()
        assert dp.fork(run.id, at="B", view=False).result().outputs == {"End": expected}


@pytest.mark.parametrize(
    ("make", "use", "expected"),
    [
        (
            "v = {'kids': []}\nv['kids'] += [{'n': n, 'parent': v} for n in range(3)]",
            "v['kids'][0]['n'] = 7\nreturn [v['kids'][2]['parent'] is v, v['kids'][0]['n']]",
            [True, 7],
        ),
        ("v = [1]\nfor _ in range(60): v = [v, v]", "return [v[0] is v[1], len(v)]", [True, 2]),
    ],
    ids=["links to parents", "shared parts"],
)
def test_variables_with_parts_in_many_places(tmp_path: Path, make: str, use: str, expected: list[Any]):
    """Looking for changes in them takes no longer than they are large; what templates see of them, no longer than the most values
    that they may have, which is seconds of work on an idle machine."""
    made = diagram("Start > Make > Use > End", Make={"code": make, "timeout": 120}, Use={"code": use, "timeout": 120})
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.start(made, view=False)
        assert run.result().outputs == {"End": expected}
    with Session(tmp_path, llm=scripted()) as dp:
        assert dp.fork(run.id, at="Use", view=False).result().outputs == {"End": expected}


OBJECTS = {
    "{3, 1}": "[1, 3]",
    "(1, (2,))": "[1, [2]]",
    "{1: 'one'}": "{'1': 'one'}",
    "datetime.date(2026, 1, 2)": "'2026-01-02'",
    "decimal.Decimal('1.50')": "'1.50'",
    "Colour.RED": "'red'",
    "Item('a')": "{'name': 'a', 'cost': 1.5}",
    "b'hi'": "{'base64': 'aGk='}",
    "[{'x': {1}}]": "[{'x': [1]}]",
    "float('inf')": "inf",
}
"""What code assigns → what templates and conditions see of it, as Python writes it."""
MAKES = """
import decimal, enum, pathlib
from dataclasses import dataclass
class Colour(enum.Enum):
    RED = 'red'
@dataclass
class Item:
    name: str
    cost: float = 1.5
"""


@pytest.mark.parametrize("how", ["live", "resume", "fork"])
def test_templates_and_conditions_see_objects_of_code(tmp_path: Path, how: str):
    """In the form that they would have behind an arrow; code itself has them as they are."""
    names = {f"v{i}": (given, json.loads(json.dumps(ast.literal_eval(seen)) if seen != "inf" else "Infinity"))
             for i, (given, seen) in enumerate(OBJECTS.items())}  # fmt: skip
    make = MAKES + "".join(f"{name} = {given}\n" for name, (given, _) in names.items())
    code = ", ".join(f"{name} == {given}" for name, (given, _) in names.items())
    holds = " and ".join(f"{name} == {seen!r}" for name, (_, seen) in names.items() if seen != float("inf"))
    text = "|".join(f"{{{{ {name} }}}}" for name in names)
    uses: dict[str, Any] = {
        "Gate": "assert os.path.exists('open')",
        "Seen": {"type": "template_job", "template_content": text},
        "Check": {"type": "condition", "expression": holds},
        "Use": f"return [[{code}], type(v0).__name__]",
    }
    made = diagram("Start > Make > Gate > Seen > Check", "Check[condtrue] > Use > End", "Seen > Text", Make=make, **uses)
    made["nodes"].append({"label": "Text", "type": "endpoint"})
    with Session(tmp_path, llm=scripted()) as dp:
        if how != "resume":
            (tmp_path / "open").touch()
        run = dp.start(made, view=False)
        run.wait(60)
    if how in ("resume", "fork"):
        (tmp_path / "open").touch()
        with Session(tmp_path, llm=scripted()) as dp:
            run = dp.resume(run.id, view=False) if how == "resume" else dp.fork(run.id, at="Seen", view=False)
            outputs = run.result().outputs
    else:
        outputs = run.result().outputs
    assert outputs["End"] == [[True] * len(OBJECTS), "set"]
    assert outputs["Text"] == "|".join(str(seen) for _, seen in names.values())  # lists print as Jinja2 prints them


@pytest.mark.parametrize(
    ("make", "why"),
    [
        ("class P: pass\np = P()", "its object has no form"),
        ("p = open('here', 'w')", "TextIOWrapper"),
        ("p = (n for n in [1, 2])", "generator"),
        ("p = iter([1, 2])", "its object has no form"),
        ("def p(): return 1", "its object has no form"),
        ("import math as p", "its object has no form"),
        ("p = set(range(1_100_000))", "larger than 1,000,000"),
    ],
)
def test_what_has_no_form_is_named(tmp_path: Path, make: str, why: str):
    """A condition fails instead of taking it for nothing, a template warns; what code sees of it is not used up by looking."""
    check = {"type": "condition", "expression": "bool(p)"}
    template = {"type": "template_job", "template_content": "<{{ p }}>", "engine": "internal"}
    strict = {"type": "template_job", "template_content": "<{{ p }}>", "engine": "jinja2"}
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.start(diagram("Start > Make > Check", "Check[condtrue] > End", Make=make, Check=check), view=False)
        with pytest.raises(DipeoError, match="'p' is set by the code of 'Make'") as caught:
            run.result()
        assert why in caught.value.message
        run = dp.run(diagram("Start > Make > Text > End", Make=make, Text=template), view=False)
        assert run.output == "<>"
        warned = [e.payload["message"] for e in run.events if e.type is EventType.EXECUTION_LOG]
        assert any("'p' is set by the code of 'Make'" in message for message in warned)
        with pytest.raises(DipeoError) as strictly:
            dp.run(diagram("Start > Make > Text > End", Make=make, Text=strict), view=False)
        assert "'p' is set by the code of 'Make'" in (strictly.value.hint or "")
        if "iter" in make or "(n for" in make:
            assert dp.run(diagram("Start > Make > Use > End", Make=make, Use="return list(p)"), view=False).output == [1, 2]


def test_functions_of_a_file_know_their_file(tmp_path: Path):
    """Also when other code calls them, in the same process or after a fork."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.py").write_text(
            f"import pathlib\ndef {name}(): return pathlib.Path(__file__).parent.name\nHERE = __file__\n"
            f"class C{name}:\n    where = __file__\n    def at(self): return __file__\nresult = {name}()"
        )
    made = diagram(
        "Start > One > Two > Use > End",
        One={"filePath": "one/job.py"},
        Two={"filePath": "two/job.py"},
        Use="return [one(), two(), Cone().at() == Cone.where, Ctwo().at().endswith('job.py'), '__file__' in globals()]",
    )
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.start(made, view=False)
        assert run.result().outputs == {"End": ["one", "two", True, True, False]}
    with Session(tmp_path, llm=scripted()) as dp:
        assert dp.fork(run.id, at="Use", view=False).result().outputs == {"End": ["one", "two", True, True, False]}


POOLS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import helper
class Shift:
    def __init__(self, by): self.by = by
    def __call__(self, n): return scaled(n) + self.by
def scaled(n): return n * factor * SCALE * helper.VALUE
SCALE = 2
context = multiprocessing.get_context({how!r})
with context.Pool(2) as pool:
    found = pool.map(scaled, [1, 2])
with ProcessPoolExecutor(1, mp_context=context) as pool:
    found += pool.map(Shift(1), [3])
with ProcessPoolExecutor(1, mp_context=context) as pool:
    found += pool.map(earlier, [4])
del context, pool
return found
"""


@pytest.mark.parametrize("how", multiprocessing.get_all_start_methods())
def test_process_pools_of_all_kinds(tmp_path: Path, how: str):
    """Functions and classes of this job and of earlier ones, with what they name: globals, inputs, modules beside the diagram."""
    (tmp_path / "helper.py").write_text("VALUE = 5\n")
    made = diagram(
        "Start > Before > Pools > End",
        start={"factor": 10},
        Before="def earlier(n): return -n - offset\noffset = 1\nreturn {'factor': 10}",
        Pools={"code": POOLS.replace("{how!r}", repr(how)), "timeout": 60},
    )
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.start(made, view=False)
        assert run.result().outputs == {"End": [100, 200, 301, -5]}
    with Session(tmp_path, llm=scripted()) as dp:
        assert dp.fork(run.id, at="Pools", view=False).result().outputs == {"End": [100, 200, 301, -5]}


def test_each_job_records_what_it_changed(tmp_path: Path):
    """A large text is recorded once, however many jobs follow; what they do change is."""
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.run(
            diagram(
                "Start > Load > Step > Done",
                "Done[condfalse] > Step",
                "Done[condtrue] > End",
                Load="corpus = 'x' * 200_000; n = 0; index = {'a': list(range(1000))}\nreturn 'loaded'",
                Step="n += 1\nassert len(corpus) == 200_000 and index['a'][5] == 5\nreturn n",
                Done={"type": "condition", "expression": "n >= 20"},
            ),
            view=False,
        )
        finished = [e.payload for e in run.events if e.type is EventType.NODE_COMPLETED]
    assert run.output == 20
    assert [p["meta"]["variables"] for p in finished if p["label"] == "Step"] == [{"n": n} for n in range(1, 21)]
    assert sum(len(json.dumps(p["meta"])) for p in finished) < 250_000


def test_records_of_earlier_versions_are_read():
    """They held all variables after each job: the last one wins."""
    node = PlanNode(0, "n", "code_job", "Job", CodeJobNode())
    view = code_state.EMPTY
    for run, variables in enumerate(({"a": 1}, {"a": 1, "b": [2]}, {"a": 3, "b": [2]}), 1):
        view = code_state.after(view, node, run, {"variables": variables, "stdout": "x"})
    assert view.variables() == {"a": 3, "b": [2]}


def test_a_secret_in_what_code_made_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Objects are recorded so that texts in them are found; the run itself has the real ones."""
    key = "sk-ant-api03-" + "k" * 40
    (tmp_path / "key.txt").write_text(key)
    code = f"class Client:\n    pass\nclient = Client()\nclient.key = open('key.txt').read()\nkeys = {{client.key}}, b'{key}'"
    with Session(tmp_path, llm=scripted()) as dp:
        run = dp.run(diagram("Start > A > B > End", A=code, B="return len(client.key), len(keys[0])"), view=False)
        assert run.output == [len(key), 1]
        assert key not in json.dumps([e.to_wire() for e in run.events])


def test_files_beside_the_diagram_do_not_hide_modules(tmp_path: Path):
    """json.py, yaml.py, random.py, asyncio.py of the user: the code, and the start of its process, get the real ones."""
    for name in ("json", "yaml", "random", "asyncio", "code_objects", "struct"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    (tmp_path / "own_helper.py").write_text("VALUE = 7\n")
    code = "import asyncio, json, random, struct, yaml\nimport own_helper\nreturn [yaml.safe_load('[1]'), own_helper.VALUE]"
    assert result(tmp_path, "Start > A > End", A=code) == [[1], 7]


def test_file_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file has `__file__`, its folder's modules, and the base directory in the environment; the block for its own start is left out."""
    monkeypatch.delenv("DIPEO_BASE_DIR")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/data.txt").write_text("data")
    (tmp_path / "tools/near.py").write_text("WORD = 'near'\n")
    (tmp_path / "tools/job.py").write_text(
        textwrap.dedent(
            """
            from __future__ import annotations
            import os
            from pathlib import Path
            import near
            HERE = Path(__file__).parent

            def main(inputs):
                return [(HERE / "data.txt").read_text(), near.WORD, os.environ["DIPEO_BASE_DIR"], __name__]

            if __name__ == "__main__":
                raise SystemExit("not here")
            """
        )
    )
    expected = ["data", "near", str(tmp_path.resolve()), "__dipeo__"]
    assert result(tmp_path, "Start > A > End", A={"file_path": "tools/job.py"}) == expected
    bash = {"language": "bash", "code": 'echo "$DIPEO_BASE_DIR"'}
    assert result(tmp_path, "Start > A > End", A=bash) == str(tmp_path.resolve())


def test_hook_arguments(tmp_path: Path):
    """`config.args` are rendered, and the function gets them by name."""
    (tmp_path / "h.py").write_text("def process(data, times=1):\n    return [data, times]\n")
    hook: dict[str, Any] = {"type": "hook", "hook_type": "python"}
    hook["config"] = {"script": "h.py", "function": "process", "args": {"data": "{{ rows }}", "times": 3}}
    given = result(tmp_path, "Start > A", "A > H as rows", "H > End", A="return [1, 2]", H=hook)
    assert given == [[1, 2], 3]


def test_the_terminal_shows_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The end of the traceback of the code stands under the error."""
    monkeypatch.chdir(tmp_path)
    code = "def share(n):\n    return 100 / n\nresult = share(0)"
    (tmp_path / "d.light.json").write_text(json.dumps(diagram("Start > A > End", A=code)))
    assert cli.main(["run", "d.light.json"]) == 1
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in shown
    assert "return 100 / n" in shown
    assert 'File "<A>", line 2, in share' in shown


KILLED = """
import sys
from pathlib import Path
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted
import itertools
import json
with Session(Path(sys.argv[1]), llm=scripted()) as dp:
    run = dp.start(json.loads(sys.argv[2]), view=False)
    print(run.id, flush=True)
    run.wait(120)
"""


@pytest.mark.skipif(os.name != "posix", reason="not here: no process groups")
def test_kill_9_leaves_no_process_and_the_run_goes_on(tmp_path: Path):
    """A code job with a child of its own and a shell script with one, too: all end with the process that ran them."""
    made = diagram(
        "Start > Setup > Hold > Use > End",
        "Setup > Shell > Use",
        Setup=DEFINES.replace("import helper\n", ""),
        Hold="import subprocess\nif not os.path.exists('open'):\n    subprocess.Popen(['sleep', '117'])\n    open('held', 'w')\n    time.sleep(117)",
        Shell={"language": "bash", "code": "[ -e open ] || { sleep 118 & touch shelled; sleep 119; }"},
        Use=USES.replace("helper.VALUE", "7"),
    )
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), json.dumps(made)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[4],
    )  # fmt: skip
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    wait_for(lambda: (tmp_path / "held").exists() and (tmp_path / "shelled").exists())
    started = psutil.Process(process.pid).children(recursive=True)
    assert len(started) >= 5
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wait_for(lambda: not alive(started))
    (tmp_path / "open").touch()
    with Session(tmp_path, llm=scripted()) as dp:
        assert dp.resume(run_id, view=False).result().outputs == {"End": EXPECTED}


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
