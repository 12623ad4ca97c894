"""What values become in a run: one table, from which docs/values.md is made (`python -m tests.support.value_kinds`) and tested."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import importlib.util
import json
import math
import pathlib
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from dipeo_nb.diagram.expressions import evaluate
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.function_nodes import node
from dipeo_nb.notebook.session import Session
from dipeo_nb.testing import scripted

DOCUMENT = Path(__file__).parents[2] / "docs" / "values.md"


class Color(enum.Enum):
    RED = "red"


class Order(BaseModel):
    id: int = 7
    due: dt.date = dt.date(2026, 1, 2)


@dataclasses.dataclass
class Pair:
    left: int
    right: tuple[int, ...]


class Point(NamedTuple):
    x: int
    y: int


class Node:
    """Nothing that a run knows."""


class Kind(NamedTuple):
    """One row."""

    given: str
    """As the table shows it, and as Python reads it here."""
    needs: str | None = None
    """The library that the row needs."""

    @property
    def there(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None

    def make(self) -> Any:
        names = {**globals(), "cycle": _cycle, "deep": _deep, "Decimal": decimal.Decimal, "Fraction": fractions.Fraction,
                 "UUID": uuid.UUID, "Path": pathlib.Path, "deque": collections.deque, "ChainMap": collections.ChainMap,
                 "nan": math.nan, "inf": math.inf, **vars(dt)}  # fmt: skip
        if self.needs is not None and self.there:
            names |= {"np": importlib.import_module("numpy"), "pd": importlib.import_module("pandas")}
        return eval(self.given, names)


def _cycle() -> dict[str, Any]:
    menu: dict[str, Any] = {"children": [{"name": "a"}]}
    menu["children"][0]["parent"] = menu
    return menu


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


FORMS = [
    Kind("30"), Kind("2**70"), Kind("1.5"), Kind("True"), Kind("None"), Kind("'text'"), Kind("[1, 'a']"), Kind("{'a': 1}"),
    Kind("nan"), Kind("-inf"),
    Kind("(1, 2)"), Kind("Point(1, 2)"), Kind("range(3)"), Kind("deque([1, 2])"), Kind("iter([1, 2])"),
    Kind("(n * n for n in [1, 2])"), Kind("{10, 9, 1}"), Kind("frozenset('ba')"),
    Kind("ChainMap({'a': 1}, {'b': 2})"), Kind("{1: 'a', None: 'b', 2.5: 'c'}"), Kind("{('x', 1): 'a'}"),
    Kind("Pair(1, (2, 3))"), Kind("Order()"), Kind("Color.RED"),
    Kind("datetime(2026, 1, 2, 3, 4)"), Kind("date(2026, 1, 2)"), Kind("time(3, 4)"), Kind("timedelta(hours=1.5)"),
    Kind("Decimal('1.50')"), Kind("Fraction(1, 3)"), Kind("1 + 2j"), Kind("UUID(int=1)"), Kind("Path('a/b')"),
    Kind("b'hi'"), Kind("memoryview(b'hi')"),
    Kind(r"'half \ud83d'"), Kind(r"'\ud83d\ude00'"), Kind(r"'caf\udce9.txt'"),
    Kind("np.int64(3)", "pandas"), Kind("np.array([[1, 2], [3, 4]])", "pandas"), Kind("np.array([1.5, nan])", "pandas"),
    Kind("np.datetime64('2026-01-02T03:04', 'ns')", "pandas"), Kind("np.timedelta64(90, 's')", "pandas"),
    Kind("pd.Timestamp('2026-01-02', tz='UTC')", "pandas"), Kind("[pd.NaT, pd.NA]", "pandas"),
    Kind("pd.Series([1, 2])", "pandas"), Kind("pd.Series([1, 2], index=['a', 'b'])", "pandas"),
    Kind("pd.DataFrame({'a': [1.5, nan], 'b': ['x', None]})", "pandas"),
    Kind("pd.DataFrame({'k': ['x', 'y'], 'v': [1, 2]}).groupby('k').sum()", "pandas"),
    Kind("pd.DataFrame({'a': [1, 2]}).query('a > 1')", "pandas"),
]  # fmt: skip
"""What has a form."""
REFUSED = [
    Kind("{1: 'a', '1': 'b'}"), Kind("10**5000"), Kind("cycle()"), Kind("deep(201)"), Kind("range(10**9)"),
    Kind("{'rows': [Node()]}"), Kind("Node"), Kind("print"),
    Kind("pd.Series([1, 2], index=['a', 'a'])", "pandas"), Kind("pd.DataFrame([[1, 2]], columns=['a', 'a'])", "pandas"),
]  # fmt: skip
"""What has none."""

_DIAGRAM = """
version: light
nodes:
- {label: Start, type: start}
- {label: Code, type: code_job, code: "return {k: repr(v) for k, v in default.items()}"}
- {label: Template, type: template_job, template_content: "%s"}
- {label: Expression, type: table_expressions}
- {label: Gate, type: table_gate}
- {label: Again, type: code_job, code: "return {k: repr(v) for k, v in default.items()}"}
- {label: C, type: endpoint}
- {label: T, type: endpoint}
- {label: E, type: endpoint}
- {label: A, type: endpoint}
connections:
- {from: Start, to: Code, content_type: generic}
- {from: Start, to: Template, content_type: generic}
- {from: Start, to: Expression, content_type: generic}
- {from: Code, to: C, content_type: generic}
- {from: Template, to: T, content_type: generic}
- {from: Expression, to: E, content_type: generic}
- {from: Start, to: Gate, content_type: generic}
- {from: Gate, to: Again, content_type: generic}
- {from: Again, to: A, content_type: generic}
"""


class Row(NamedTuple):
    """How a value was seen."""

    given: str
    code: str
    template: str
    expression: str
    recorded: str
    resumed: str


def rows() -> Iterator[Row]:
    """Every kind that is there, seen in one run that fails and is resumed."""
    kinds = [kind for kind in FORMS if kind.there]
    names = [f"v{i}" for i in range(len(kinds))]
    failed: list[bool] = []

    @node
    def table_expressions(context: NodeContext) -> dict[str, str]:
        return {name: repr(evaluate(name, context.names)) for name in names}

    @node
    def table_gate(default: Any = None) -> Any:
        if not failed:
            failed.append(True)
            raise RuntimeError("the first time")
        return default

    with tempfile.TemporaryDirectory() as folder, Session(folder, llm=scripted()) as session:
        template = "|||".join(f"{{{{ {name} }}}}" for name in names)
        inputs = {name: kind.make() for name, kind in zip(names, kinds, strict=True)}
        run = session.start(_DIAGRAM % template, view=False, inputs=inputs)
        assert run.wait(60)
        assert failed, run.error
        run = session.resume(run.id, view=False)
        out = run.result().outputs
        with sqlite3.connect(next(Path(folder).rglob("runs.db"))) as store:
            (text,) = store.execute("SELECT payload FROM events WHERE run_id = ? AND seq = 1", (run.id,)).fetchone()
        store.close()
    recorded = json.loads(text, parse_constant=_no_constant)["variables"]
    texts = out["T"].split("|||")
    for name, kind, shown in zip(names, kinds, texts, strict=True):
        stored = json.dumps(recorded[name], ensure_ascii=False)
        yield Row(kind.given, out["C"][name], shown, out["E"][name], stored, out["A"][name])


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def refusal(make: Callable[[], Any]) -> tuple[str, str]:
    """(message, hint) of the error of a run that is given such a value."""
    from dipeo_nb.errors import ValidationError
    from dipeo_nb.execution.inputs import run_inputs

    try:
        run_inputs({"x": make()})
    except ValidationError as error:
        return error.message, error.hint or ""
    raise AssertionError("it has a form")


def cell(text: str) -> str:
    """Code in a table of Markdown."""
    text = " ".join(text.split()).replace("|", "\\|")
    return f"`` {text} ``" if text else ""


def line(row: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(cell, row)) + " |"


def document() -> str:
    """The tables, between the words of the file that stay."""
    forms = [line(row) for row in rows()]
    refused = [
        f"| {cell(kind.given)} | {message} {hint} |" for kind in REFUSED if kind.there for message, hint in [refusal(kind.make)]
    ]
    words = DOCUMENT.read_text(encoding="utf-8")
    for mark, lines in (("forms", forms), ("refused", refused)):
        before, rest = words.split(f"<!-- {mark} -->\n", 1)
        head = "".join(rest.splitlines(keepends=True)[:2])
        after = rest.split(f"<!-- end of {mark} -->", 1)[1]
        words = f"{before}<!-- {mark} -->\n{head}" + "\n".join(lines) + f"\n<!-- end of {mark} -->{after}"
    return words


if __name__ == "__main__":
    missing = [kind.needs for kind in (*FORMS, *REFUSED) if not kind.there]
    if missing:
        raise SystemExit(f"The table needs {missing[0]}: pip install {missing[0]}")
    DOCUMENT.write_text(document(), encoding="utf-8")
