"""Code jobs against Python itself: the same statements in one module give the same, also when processes die between them."""

from __future__ import annotations

import json
import random
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.common.loop import run_sync
from dipeo_nb.domain.nodes import CodeJobNode
from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.errors import CodeError
from dipeo_nb.execution.code_runner import ProcessCodeRunner
from dipeo_nb.execution.code_state import EMPTY, after
from dipeo_nb.execution.inputs import Inputs

STATEMENTS = r"""
x = {n}
x += {n}
y = x * 2
items = [{n}]
items.append({n})
items += [x]
items = [*items, {n}][-4:]
other = items
held = {{'inner': items, 'n': {n}}}
held['inner'].append(x)
held['more'] = held.get('more', 0) + 1
del x
del items
pair = (x, items)
tags = {{'a', x}}
tags.add({n})
import math
from collections import Counter, deque, OrderedDict
from fractions import Fraction
part = Fraction(1, {n} + 1)
counts = Counter([1, 1, {n}])
counts['k'] += {n}
queue = deque([x], maxlen=3); queue.append({n})
y = math.floor(2.5) + {n}
def area(r, more={n}): return r * more
def scaled(r, by=x): return r * by
y = area({n})
y = scaled(2)
def bump():\n    global x\n    x += 1\n    return x
y = bump() + bump()
twice = lambda v: 2 * v + {n}
y = twice(x)
from dataclasses import dataclass
@dataclass\nclass Point:\n    x: int\n    y: int = {n}\n    def sum(self): return self.x + self.y + x
@dataclass\nclass Tall(Point):\n    z: float = 1.5
point = Point(x)
point = Tall({n}, 2)
point.x += 1
y = point.sum()
points = [point, point]
points[0].y = {n}
from typing import NamedTuple\nclass Named(NamedTuple):\n    a: int\n    b: list
named = Named({n}, items)
named.b.append('via named')
import enum\nclass Colour(enum.Enum):\n    RED = 1\n    BLUE = 'b'
colour = Colour.RED
y = colour.name if colour is Colour.RED else 'no colour'
import datetime\nday = datetime.date(2024, 1, {n} + 1)
y = str(day + datetime.timedelta(days={n}))
loop = []; loop.append(loop)
y = loop[0] is loop
big = 10 ** 30 + {n}
y = big % 7
nothing = float('nan'), float('inf'), None, True, b'\\xff', 1j
for i in range(3): x = i
total = sum(i for i in range({n}))
total = sum([total for total in range({n})])
if x > 3:\n    extra = 'set'\nelse:\n    extra = None
try:\n    unknown_name\nexcept NameError as error:\n    y = str(error)
import re\npattern = re.compile('a+')
y = pattern.sub('b', 'caat')
import itertools\nnumbers = itertools.count({n})
y = next(numbers)
import random\nchance = random.Random({n})
y = chance.randint(1, 10 ** 6)
class Base:\n    made = {n}\n    def __init__(self): self.items = items
class Derived(Base): pass
thing = Derived()
thing.items.append('thing')
thing.me = thing
y = thing.me.made
import functools\nadd = functools.partial(area, more=3)
y = add({n})
with open('seen.txt', 'a') as file: file.write('')
file = None
_private = {n}
_private = [_private]; _private.append({n})
y = (lambda: _private)()
match {n}:\n    case 1: y = 'one'\n    case other_number: y = other_number
raise ValueError('no')
items.append('lost'); x = 100; raise ValueError('no')
"""
POOL = [line.encode().decode("unicode_escape") for line in STATEMENTS.strip().splitlines()]
SHOW = """
def _show(value):
    if callable(value): return getattr(value, '__name__', type(value).__name__)
    if type(value).__name__ in ('module', 'Random', 'set', 'TextIOWrapper', 'count'): return type(value).__name__ + (repr(sorted(map(str, value))) if isinstance(value, set) else '')
    if type(value).__name__ in ('Derived',): return [type(value).__name__, value.items, sorted(vars(value))]
    return repr(value)
"""
NAMES = re.findall(
    r"\w+",
    """x y items other held pair tags part counts queue point points named colour day loop big nothing i total extra pattern thing
    _private area scaled twice Point Tall bump number""",
)
RETURN = (
    SHOW
    + "_shown = {}\nfor _name in "
    + repr(NAMES)
    + ":\n    try: _shown[_name] = _show(eval(_name))\n    except NameError: pass\ndel _show, _name\n"
)


class Reference:
    """The statements in one module; a job that fails is as if it had never been."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.module = self.fresh([])

    def fresh(self, codes: list[str]) -> types.ModuleType:
        sys.modules["reference"] = module = types.ModuleType("reference")
        for code in ["import datetime, json, math, os, random, re, time", *codes]:
            exec(compile(code, "<reference>", "exec", dont_inherit=True), vars(module))
        return module

    def job(self, code: str) -> Any:
        try:
            exec(compile(code + RETURN, "<reference>", "exec", dont_inherit=True), vars(self.module))
        except Exception as error:
            self.module = self.fresh(self.done)
            return type(error).__name__
        self.done.append(code)
        return vars(self.module)["_shown"]


class Jobs:
    """The same as code jobs of a run; `cut` leaves only what is recorded."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.runner = ProcessCodeRunner(base)
        self.records: list[dict[str, Any]] = []
        self.view = EMPTY

    def job(self, code: str) -> Any:
        node = PlanNode(0, "node", "code_job", "Job", CodeJobNode())
        work = self.runner.run_python(
            code + RETURN + "result = dict(_shown)\ndel _shown",
            filename="<Job>", inputs=Inputs(), variables={}, node_id="node", function_name="main", timeout=30, view=self.view,
        )  # fmt: skip
        try:
            result = run_sync(work)
        except CodeError as error:
            return "CodeError" if "could not be made again" in error.message else error.message.partition(":")[0]
        meta = {"variables": result.variables, "code": result.code}
        self.records.append(meta)
        self.view = after(self.view, node, len(self.records), meta)
        return result.value

    def lost(self) -> set[str]:
        return {name for name, change in self.view.names.items() if name in change.live}

    def cut(self) -> None:
        """As after a kill and a resume: another process, from the record."""
        run_sync(self.runner.cleanup())
        self.runner = ProcessCodeRunner(self.base)
        self.records = json.loads(json.dumps(self.records))
        self.view = EMPTY
        node = PlanNode(0, "node", "code_job", "Job", CodeJobNode())
        for run, meta in enumerate(self.records, 1):
            self.view = after(self.view, node, run, meta)


@pytest.mark.parametrize("seed", range(6))
def test_jobs_are_one_module(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch):
    """Random jobs, each of a few statements: what every name holds after each of them, uninterrupted and cut at random."""
    monkeypatch.chdir(tmp_path)
    chance = random.Random(seed)
    reference, whole, cut = Reference(), Jobs(tmp_path), Jobs(tmp_path)
    codes: list[str] = []
    try:
        for _ in range(20):
            place = chance.randrange(len(POOL))
            lines = [POOL[place : place + chance.randint(1, 5)], [chance.choice(POOL)]][chance.random() < 0.4]
            code = "\n".join(line.format(n=chance.randint(0, 9)) for line in lines) + "\n"
            if not codes:
                code = "x = 1\nitems = [0]\nother = items\n"
            codes.append(code)
            if chance.random() < 0.3:
                cut.cut()
            expected = reference.job(code)
            story = f"seed {seed}:\n" + "\n---\n".join(codes)
            assert whole.job(code) == expected, story
            given = cut.job(code)
            if given == "CodeError":  # it needed what could not be kept, and said so
                break
            if isinstance(given, dict):
                expected = {name: value for name, value in expected.items() if name not in cut.lost()}
            assert given == expected, story
    finally:
        run_sync(whole.runner.cleanup())
        run_sync(cut.runner.cleanup())
