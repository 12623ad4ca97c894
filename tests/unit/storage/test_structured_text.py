"""JSON and YAML files of databases: values are held as they are or refused; what stands in a file stays; work is bounded."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.storage.in_memory import InMemoryFileSystem
from dipeo_nb.storage.json_db import DBOperationsDomainService, lines_of
from tests.support.examples import examples


def database(**files: str | bytes) -> DBOperationsDomainService:
    """A database in memory; `x_json=` is the file `x.json`."""
    return DBOperationsDomainService(InMemoryFileSystem({name.replace("_", "."): text for name, text in files.items()}))


def do(db: DBOperationsDomainService, *arguments: Any, **options: Any) -> Any:
    return asyncio.run(db.execute_operation(*arguments, **options))["value"]


def text(db: DBOperationsDomainService, name: str) -> str:
    return db.file_system.read_bytes(name).decode()


class Color(Enum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


@dataclass
class Point:
    x: float
    tags: list[str]


class Model(BaseModel):
    name: str


class Text(str):
    __slots__ = ()


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def circular() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


def doubled(times: int) -> Any:
    value: Any = ["x"]
    for _ in range(times):
        value = [value, value]
    return value


NOT_JSON: dict[str, tuple[Any, str]] = {
    "NaN": ({"a": [1, float("nan")]}, "nan at $.a[1]"),
    "infinity": (float("-inf"), "-inf at $"),
    "bytes": ({"a": b"x"}, "bytes at $.a"),
    "set": ([{1, 2}], "set at $[0]"),
    "object": ({"a": {"b": object()}}, "object at $.a.b"),
    "class": ([object], "type at $[0]"),
    "complex": (1j, "complex"),
    "number as a name": ({"a": {1: "x"}}, "the name 1"),
    "pair as a name": ({(1, 2): "x"}, "the name (1, 2)"),
    "surrogate": ({"a": "x\ud800"}, "half a character (a lone surrogate) at $.a"),
    "surrogate in a name": ({"x\ud800": 1}, "half a character"),
    "circular": (circular(), "contains itself"),
    "deep": (deep(3000), "more than 200 levels"),
    "doubled, with an object": ([doubled(40), object()], "more than 10,000,000 values"),
    "doubled": (doubled(40), "more than 10,000,000 values"),
}
"""Name → (value, what the error says)."""


@pytest.mark.parametrize(("value", "said"), NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize("operation", ["write", "append", "update"])
def test_what_json_cannot_hold_is_refused(operation: str, value: Any, said: str):
    """By every operation, with the place in the value; the file stays as it is."""
    for name in ("x.json", "x.txt"):
        if name == "x.txt" and (operation == "update" or isinstance(value, str)):
            continue
        db = database(x_json="[1]", x_txt="one")
        with pytest.raises(StorageError) as caught:
            do(db, name, operation, value, "[0]" if operation == "update" else None)
        assert caught.value.facts["cause"] == "not_json"
        assert (said.replace("$", "$[0]") if operation == "update" else said) in str(caught.value)
        assert text(db, name) == ("[1]" if name == "x.json" else "one")


def test_what_has_a_form_in_json_is_written_in_it():
    """Dates, enumerations, paths, dataclasses, models and subclasses of plain types."""
    value = {
        "day": date(2026, 1, 2), "color": Color.RED, "number": Number.ONE, "path": PurePosixPath("a/b"),
        "point": Point(0.5, ["t"]), "model": Model(name="ü"), "text": Text("x"), "pair": (1, None),
    }  # fmt: skip
    db = database()
    do(db, "x.json", "write", value)
    assert json.loads(text(db, "x.json")) == {
        "day": "2026-01-02", "color": "red", "number": 1, "path": "a/b",
        "point": {"x": 0.5, "tags": ["t"]}, "model": {"name": "ü"}, "text": "x", "pair": [1, None],
    }  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def strict(text: str) -> Any:
    """Another parser, which knows no NaN."""

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@examples(200)
@given(JSON, JSON)
def test_json_values_come_back(value: Any, item: Any):
    """Through another parser; an append makes one item of what is no list."""
    db = database()
    do(db, "x.json", "write", value)
    assert strict(text(db, "x.json")) == value
    assert do(db, "x.json", "read") == value
    db = database(x_json=text(db, "x.json"))  # not known to be a list: the way through the text
    do(db, "x.json", "append", item)
    before = value if isinstance(value, list) else [] if value in (None, {}) and value is not False else [value]
    assert strict(text(db, "x.json")) == [*before, item]


@examples(200)
@given(st.lists(JSON, max_size=4), JSON, st.sampled_from([None, 1, 2, 4, "\t"]), st.sampled_from(["", "\n", "\r\n \n"]))
def test_a_list_is_appended_to_as_it_stands(items: list[Any], item: Any, indent: Any, end: str):
    """Every character of what was there is still there, whatever wrote it."""
    before = json.dumps(items, indent=indent, ensure_ascii=False) + end
    db = database(x_json=before)
    do(db, "x.json", "append", item)
    after = text(db, "x.json")
    assert strict(after) == [*items, item]
    assert after.startswith(before[: before.rindex("]")].rstrip())
    assert after.endswith("]" + end)


@pytest.mark.parametrize(
    ("before", "value", "after"),
    [
        ("", 7, "[\n  7\n]\n"),
        (" \n", 7, "[\n  7\n]\n"),
        ("null", 7, "[\n  7\n]\n"),
        ("{}", 7, "[\n  7\n]\n"),
        ('"str"', 7, '[\n  "str",\n  7\n]\n'),
        ("5", 7, "[\n  5,\n  7\n]\n"),
        ("[]", 7, "[\n  7\n]"),
        ("[1e400, 1.10, 1]", {"a": [2]}, '[1e400, 1.10, 1, { "a": [ 2 ] }]'),
        ('[\r\n    {"a": 1, "a": 2}\r\n]\r\n', {"b": 3}, '[\r\n    {"a": 1, "a": 2},\r\n    {\r\n      "b": 3\r\n    }\r\n]\r\n'),
        ("\ufeff[1]", 2, "\ufeff[1, 2]"),
    ],
)  # fmt: skip
def test_appending_to_json(before: str, value: Any, after: str):
    """What is no list becomes the first item, nothing begins one; numbers, names given twice and marks stay as written."""
    db = database(x_json=before)
    do(db, "x.json", "append", value)
    assert text(db, "x.json") == after


def test_a_number_beyond_floats_is_not_changed():
    """A file with 1e400 can be appended to, and is refused where it would be written anew."""
    db = database(x_json='{"a": 1e400}')
    with pytest.raises(StorageError, match=r"inf at \$\.a"):
        do(db, "x.json", "update", 1, "b")
    assert text(db, "x.json") == '{"a": 1e400}'


DEEP = 100_000
BOMBS = {
    "json depth": ("x.json", "[" * DEEP),
    "json depth, closed": ("x.json", "[" * DEEP + "]" * DEEP),
    "yaml depth": ("x.yaml", "[" * DEEP),
    "yaml depth of blocks": ("x.yaml", "- " * DEEP + "x"),
    "yaml aliases": ("x.yaml", "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 10)}]\n" for n in range(9))),
    "yaml text": ("x.yaml", f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]\n"),
    "yaml merges": ("x.yaml", "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{p: *a{n - 1}, q: *a{n - 1}}}\n" for n in range(1, 40))),
    "yaml cycle": ("x.yaml", "a: &a [*a]\n"),
    "yaml date": ("x.yaml", "a: 2026-99-99\n"),
    "yaml structure as a name": ("x.yaml", "{a: 1}: 2\n"),
    "yaml pair as a name": ("x.yaml", "? !!python/tuple [a]\n: 2\n"),
    "yaml object": ("x.yaml", "!!python/object/apply:os.system [exit]\n"),
    "csv quotes": ("x.csv", 'a,b\n"' + "x" * 300_000),
}  # fmt: skip
"""Name → (file, content)."""


@pytest.mark.parametrize(("name", "content"), BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize("operation", ["read", "append", "update"])
def test_hostile_files_are_typed_errors(operation: str, name: str, content: str):
    """Whatever is done with them, in bounded time and memory; they stay as they are."""
    db = database(**{name.replace(".", "_"): content})
    if (operation, name) == ("read", "x.csv"):
        do(db, name, operation)  # it is read as far as it goes
        return
    with pytest.raises((StorageError, ValidationError)) as caught:
        do(db, name, operation, {"a": 1}, "b" if operation == "update" else None)
    assert caught.value.hint
    assert text(db, name) == content


def test_aliases_within_bounds_are_read():
    """They stand for what they name."""
    db = database(x_yaml="base: &b {x: 1}\nuse: [*b, *b]\nmore: {<<: *b, y: 2}\n")
    assert do(db, "x.yaml", "read") == {"base": {"x": 1}, "use": [{"x": 1}, {"x": 1}], "more": {"x": 1, "y": 2}}


YAML = "# head\nname: old  # why\n7: seven\nday: 2026-01-02\nlist:\n  - a\n  - {b: 1} # last\n"


@pytest.mark.parametrize(
    ("keys", "value", "old", "new"),
    [
        ("name", "new", "name: old", "name: new"),
        ("name", "a: # b", "name: old", "name: 'a: # b'"),
        ("7", 8, "7: seven", "7: 8"),
        ("day", "x", "day: 2026-01-02", "day: x"),
        ("list[0]", None, "- a", "- null"),
        ("list[1].b", 2.5, "{b: 1}", "{b: 2.5}"),
    ],
)
def test_a_yaml_value_is_replaced_where_it_stands(keys: str, value: Any, old: str, new: str):
    """Comments, dates, names that are numbers: all else keeps its characters."""
    db = database(x_yaml=YAML)
    do(db, "x.yaml", "update", value, keys)
    assert text(db, "x.yaml") == YAML.replace(old, new)
    assert do(db, "x.yaml", "read", keys=keys) == value


def test_a_yaml_change_that_would_lose_comments_is_refused():
    """Without comments it is made, and types that YAML has and JSON has not stay."""
    db = database(x_yaml=YAML)
    for operation, keys in (("update", "more.deep"), ("append", None)):
        with pytest.raises(ValidationError, match="comments"):
            do(db, "x.yaml", operation, 1, keys)
    assert text(db, "x.yaml") == YAML
    db = database(x_yaml="7: a\nday: 2026-01-02\ntext: 'a # b'\n")
    do(db, "x.yaml", "update", 1, "more.deep")
    assert yaml.safe_load(text(db, "x.yaml")) == {7: "a", "day": date(2026, 1, 2), "text": "a # b", "more": {"deep": 1}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("- 1 # one\n- a: 2\n", "- 1 # one\n- a: 2\n- k:\n  - x\n"),
        ("- 1\n# end", "- 1\n# end\n- k:\n  - x\n"),
        ("  - 1\n", "  - 1\n  - k:\n    - x\n"),
        ("[1, 2]\n", "- 1\n- 2\n- k:\n  - x\n"),
        ("[2026-01-02]\n", "- 2026-01-02\n- k:\n  - x\n"),
        ("", "- k:\n  - x\n"),
        ("a: 1\n", "- a: 1\n- k:\n  - x\n"),
    ],
)
def test_appending_to_yaml(before: str, after: str):
    """A list of lines gets further lines; what is no list becomes its first item."""
    db = database(x_yaml=before)
    do(db, "x.yaml", "append", {"k": ["x"]})
    assert text(db, "x.yaml") == after


def test_yaml_holds_what_it_can():
    """Dates, bytes, infinities, subclasses; objects and what contains itself are refused."""
    db = database()
    value = {
        "d": date(2026, 1, 2),
        "t": datetime(2026, 1, 2, 3, tzinfo=UTC),
        "b": b"x",
        "i": float("inf"),
        1: Color.RED,
        "s": Text("x"),
    }
    do(db, "x.yaml", "write", value)
    assert yaml.safe_load(text(db, "x.yaml")) == {**value, 1: "red"}
    for bad in (object(), circular(), {"a": {1, 2}}, {(1, 2): 3}):
        with pytest.raises(StorageError) as caught:
            do(db, "x.yaml", "write", bad)
        assert caught.value.facts["cause"] == "not_json"


@pytest.mark.parametrize("keys", [5, 5.5, {"k": 1}, b"k"])
def test_keys_that_are_none_are_refused(keys: Any):
    """They are paths, one or several."""
    for operation in ("read", "update"):
        with pytest.raises(ValidationError, match="`keys`"):
            do(database(x_json="{}"), "x.json", operation, 1, keys)


LINES = {
    "a\u2028b\nc\x0bd\ne\x85f\n": ["a\u2028b\n", "c\x0bd\n", "e\x85f\n"],
    "a\r\nb\rc\nd": ["a\r\n", "b\r", "c\n", "d"],
    "\n\n": ["\n", "\n"],
    "": [],
    "a\x0cb\x1cc\x1dd\x1ee": ["a\x0cb\x1cc\x1dd\x1ee"],
}


@pytest.mark.parametrize(("content", "lines"), LINES.items())
def test_lines_are_those_of_editors(content: str, lines: list[str]):
    """Only \\n, \\r\\n and \\r end one."""
    assert lines_of(content) == lines
    db = database(x_txt=content)
    done = asyncio.run(db.execute_operation("x.txt", "read", lines="1:99"))
    assert (done["value"], done["metadata"]["total_lines"]) == (content, len(lines))
    for number, line in enumerate(lines, 1):
        assert do(db, "x.txt", "read", lines=number) == line


@pytest.mark.parametrize(
    ("before", "after"),
    [("a\r\nb", "a\r\nb\r\nnew"), ("a\r\n", "a\r\nnew"), ("\ufeffa", "\ufeffa\nnew"), ("", "new"), ("\ufeff", "\ufeffnew"), ("a\rb", "a\rb\rnew")],
)  # fmt: skip
def test_a_line_of_text_is_appended_under_its_own_line_ends(before: str, after: str):
    """And the byte order mark stays."""
    db = database(x_txt=before)
    do(db, "x.txt", "append", "new")
    assert text(db, "x.txt") == after


def test_the_size_is_that_of_the_file():
    """In bytes, its mark included."""
    db = database(x_json="\ufeff[1]")
    assert asyncio.run(db.execute_operation("x.json", "read"))["metadata"]["size"] == 6


def test_an_update_of_csv_loses_nothing():
    """Tables that mappings can hold are written anew; others are refused."""
    db = database(x_csv="a,b\n1,2\n3,4\n")
    do(db, "x.csv", "update", 9, "[1].b")
    assert text(db, "x.csv") == "a,b\n1,2\n3,9\n"
    for before in ("a,b\n1,2,3\n", "a,a\n1,2\n", "a,b\n1\n"):
        db = database(x_csv=before)
        with pytest.raises(ValidationError, match="would lose"):
            do(db, "x.csv", "update", 9, "[0].a")
        assert text(db, "x.csv") == before
