"""Files as a small database: what is read, written, appended, updated; and that nothing is ever lost."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dipeo_nb.domain.ports import DBOperationsPort
from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.storage.in_memory import InMemoryFileSystem
from dipeo_nb.storage.json_db import DBOperationsDomainService, DBRequest
from dipeo_nb.storage.local import LocalFileSystemAdapter
from dipeo_nb.workers import WORKERS
from tests.support.kills import kills
from tests.support.wire_openai import run


@pytest.fixture
def db(tmp_path: Path) -> DBOperationsDomainService:
    return DBOperationsDomainService(LocalFileSystemAdapter(tmp_path))


def do(db: DBOperationsDomainService, *args: Any, **options: Any) -> Any:
    return run(db.execute_operation(*args, **options))["value"]


def facts(db: DBOperationsDomainService, *args: Any, **options: Any) -> Any:
    return run(db.execute_operation(*args, **options))["metadata"]


def test_it_is_the_port(db: DBOperationsDomainService):
    """Every method of the port is there."""
    assert isinstance(db, DBOperationsPort)


# Reading.


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("a.json", '{"a": [1, 2.5, "ü", null]}', {"a": [1, 2.5, "ü", None]}),
        ("big.json", '{"n": 123456789012345678901234567890}', {"n": 123456789012345678901234567890}),
        ("a.yaml", "a: [1, x]\nb: 2026-01-01\n", {"a": [1, "x"], "b": "2026-01-01"}),
        ("a.csv", "n,t\n1,x\n2,y\n", [{"n": "1", "t": "x"}, {"n": "2", "t": "y"}]),
        ("a.txt", "plain\n", "plain\n"),
        ("a.txt", '{"looks": "like"}', {"looks": "like"}),
        ("a.md", "{not json", "{not json"),
        ("noext/x", "text", "text"),
    ],
)
def test_content_is_read_by_its_format(db: DBOperationsDomainService, name: str, text: str, value: Any):
    """JSON, YAML and CSV become values, text stays text, by suffix or by looks."""
    db.file_system.write_text(name, text)
    assert do(db, name, "read") == value
    assert facts(db, name, "read")["size"] == len(text.encode())


def test_what_is_missing_or_broken_is_told(db: DBOperationsDomainService):
    """A missing file is not an empty one; broken JSON says where."""
    with pytest.raises(StorageError) as missing:
        do(db, "nothing", "read")
    assert missing.value.facts["cause"] == "not_found"
    db.file_system.write_text("a.json", '{"a": \n oops}')
    with pytest.raises(ValidationError, match="line 2"):
        do(db, "a.json", "read")


KILLS = kills(20)
BODY = {"users": [{"name": "Ada", "tags": ["x", "y"]}, {"name": "Bob"}], "n": 0, "a": {"b": {"c": 3}}}


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("n", 0),
        ("a.b.c", 3),
        ("a.b", {"c": 3}),
        ("users[0].name", "Ada"),
        ("users[-1].name", "Bob"),
        ("users.1.name", "Bob"),
        ("users[0].tags[1]", "y"),
        ("nothing", None),
        ("users[9]", None),
        ("a.b.c.d", None),
        ("n, a.b.c", {"n": 0, "a.b.c": 3}),
        (["n", "nothing"], {"n": 0, "nothing": None}),
    ],
)
def test_keys_select(db: DBOperationsDomainService, keys: Any, value: Any):
    """One key gives the bare value, several a mapping; absent ones are None."""
    do(db, "d", "write", BODY)
    assert do(db, "d", "read", keys=keys) == value


TEXT = "".join(f"line {n}\n" for n in range(1, 11))


@pytest.mark.parametrize(
    ("lines", "numbers"),
    [
        (5, [5]),
        (5.0, [5]),
        ("5", [5]),
        ("3:5", [3, 4, 5]),
        (":3", [1, 2, 3]),
        ("9:", [9, 10]),
        ("1,3:4", [1, 3, 4]),
        ((2, 4), [2, 3, 4]),
        ([2, 4], [2, 4]),
        ([2, (4, 5), "7:8"], [2, 4, 5, 7, 8]),
        ({"start": 2, "end": 3}, [2, 3]),
        ({"from": 9}, [9, 10]),
        ([{"start": 1, "end": 2}, "2:3"], [1, 2, 3]),
        ({"start": None, "end": 2}, [1, 2]),
        ({"end": 1}, [1]),
        ("8:2000", [8, 9, 10]),
        (11, []),
        ("11:", []),
        ({"start": 11}, []),
    ],
)
def test_lines_select(db: DBOperationsDomainService, lines: Any, numbers: list[int]):
    """Ranges are 1-based and inclusive, in every accepted spelling; the metadata says what was meant."""
    db.file_system.write_text("t.txt", TEXT)
    done = run(db.execute_operation("t.txt", "read", lines=lines))
    assert done["value"] == "".join(f"line {n}\n" for n in numbers)
    assert done["metadata"]["partial_content"] is True
    assert done["metadata"]["total_lines"] == 10
    assert done["metadata"]["line_ranges"]["requested"] == lines


@pytest.mark.parametrize("lines", [":", {"start": 1}, {"end": 3}, "3:", 1])
def test_an_empty_file_has_no_lines(db: DBOperationsDomainService, lines: Any):
    """Every range of a file without lines is empty, however it is written."""
    db.file_system.write_text("t.txt", "")
    assert do(db, "t.txt", "read", lines=lines) == ""


@pytest.mark.parametrize(
    "lines",
    [
        0, "5:3", "a", 1.5, True, "1:x", "1:0", float("inf"), float("nan"), "1e999", {"start": 0}, {"end": 0}, {"start": 3, "end": 0},
        {"from": -1}, {"start": ""}, {}, {"begin": 3}, {"start": 1, "stop": 3},
    ],
    ids=str,
)  # fmt: skip
def test_bad_lines_are_refused(db: DBOperationsDomainService, lines: Any):
    """What is no range is refused with how one looks."""
    db.file_system.write_text("t.txt", TEXT)
    with pytest.raises(ValidationError, match="not a line range"):
        do(db, "t.txt", "read", lines=lines)


def test_no_lines_named_is_all_of_them(db: DBOperationsDomainService):
    """`None` reads the whole file."""
    db.file_system.write_text("t.txt", TEXT)
    assert do(db, "t.txt", "read", lines=None) == TEXT


# Writing.


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("d", {"a": "ü"}, '{\n  "a": "ü"\n}\n'),
        ("x.py", "print(1)\n", "print(1)\n"),
        ("x.yaml", {"a": [1]}, "a:\n- 1\n"),
        ("x.yaml", "a: 1 # kept\n", "a: 1 # kept\n"),
        ("x.csv", [{"a": 1, "b": "x,y"}, {"a": 2}], 'a,b\n1,"x,y"\n2,\n'),
        ("x.txt", {"a": 1}, '{\n  "a": 1\n}'),
        ("x.json", "text", '"text"\n'),
    ],
)
def test_values_are_written_by_the_format(db: DBOperationsDomainService, tmp_path: Path, name: str, value: Any, text: str):
    """Structure as JSON, YAML or CSV; strings verbatim where the format is text; the size is in bytes."""
    done = facts(db, name, "write", value)
    assert (tmp_path / done["file_path"]).read_text() == text
    assert done["size"] == len(text.encode())


def test_appending(db: DBOperationsDomainService):
    """Lists grow, other values become lists, absent and empty ones begin one; text gets a line; the count is right."""
    assert facts(db, "l", "append", 1)["items_count"] == 1
    assert facts(db, "l", "append", {"a": [1, 2]})["items_count"] == 2
    assert facts(db, "l", "append", "x\ny")["items_count"] == 3
    assert do(db, "l", "read") == [1, {"a": [1, 2]}, "x\ny"]
    do(db, "o", "write", {"a": 1})
    do(db, "o", "append", 2)
    assert do(db, "o", "read") == [{"a": 1}, 2]
    do(db, "e", "write", {})
    do(db, "e", "append", 1)
    assert do(db, "e", "read") == [1]
    do(db, "t.txt", "append", "a")
    do(db, "t.txt", "append", "b")
    assert do(db, "t.txt", "read") == "a\nb"
    do(db, "t.csv", "append", {"n": 1})
    do(db, "t.csv", "append", {"n": 2, "m": "x"})
    assert do(db, "t.csv", "read") == [{"n": "1", "m": ""}, {"n": "2", "m": "x"}]


def test_a_list_changed_by_somebody_else_is_read_again(db: DBOperationsDomainService, tmp_path: Path):
    """The quick way to append is left when the file is not as this process wrote it."""
    do(db, "l", "append", 1)
    do(db, "l", "append", 2)
    (tmp_path / "dbs/l.json").write_text("[7]")
    do(db, "l", "append", 3)
    assert do(db, "l", "read") == [7, 3]
    (tmp_path / "dbs/l.json").write_text("[7, oops")
    with pytest.raises(ValidationError, match="not JSON"):
        do(db, "l", "append", 4)
    assert (tmp_path / "dbs/l.json").read_text() == "[7, oops"


@pytest.mark.parametrize(
    ("keys", "value", "result"),
    [
        ("a", 1, {"a": 1, "l": [1, {"x": 1}]}),
        ("b.c.d", 1, {"b": {"c": {"d": 1}}, "l": [1, {"x": 1}]}),
        ("l[1].x", 2, {"l": [1, {"x": 2}]}),
        ("l.0", 5, {"l": [5, {"x": 1}]}),
        ("a,b.c", {"a": 1, "c": 2}, {"a": 1, "b": {"c": 2}, "l": [1, {"x": 1}]}),
    ],
)
def test_updating(db: DBOperationsDomainService, keys: str, value: Any, result: Any):
    """One or many dotted paths, list items, and what lies between is made; write with keys is the same."""
    for operation in ("update", "write"):
        do(db, operation, "write", {"l": [1, {"x": 1}]})
        do(db, operation, operation, value, keys)
        assert do(db, operation, "read") == result


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("d", "update", 1), "needs `keys`"),
        (("d", "update", 1, "l[7]"), "an item of the list"),
        (("d", "update", 1, "n.x"), "leads through 3"),
        (("d", "update", 1, "a,b"), "mapping of values"),
        (("d", "update", {"a": 1}, "a,b"), "no value for 'b'"),
        (("t.txt", "update", 1, "a"), "does not hold a mapping"),
        (("d", "merge", 1), "no operation 'merge'.*append, prompt, read, update, write"),
        (("", "read"), "no name"),
        (("d", "write", 1, None, 3), "read only"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(db: DBOperationsDomainService, call: Any, said: str):
    """One clear error; the file stays as it is."""
    do(db, "d", "write", {"l": [1], "n": 3})
    db.file_system.write_text("t.txt", "text")
    with pytest.raises(ValidationError, match=said):
        do(db, *call)
    assert do(db, "d", "read") == {"l": [1], "n": 3}


def test_prompt_gives_the_name_back(db: DBOperationsDomainService):
    """The `prompt` operation echoes the path."""
    assert run(db.execute_operation("users", "prompt")) == {
        "value": "dbs/users.json",
        "metadata": {"operation": "prompt", "file_path": "dbs/users.json"},
    }


@pytest.mark.parametrize("name", ["../x.json", "/etc/x.json", "a/../../x.json", "C:\\x.json", "x\0.json", "~/x.json"])
def test_names_cannot_leave_the_folder(db: DBOperationsDomainService, name: str):
    """Every operation is confined."""
    for operation in ("read", "write", "append", "update"):
        with pytest.raises(StorageError) as caught:
            do(db, name, operation, 1, None if operation == "read" else "k" if operation == "update" else None)
        assert caught.value.facts["cause"] == "refused"


def test_a_subclass_adds_operations():
    """The seed's recipe: a new operation is a method; it appears among the choices."""

    class Merging(DBOperationsDomainService):
        CHANGING = DBOperationsDomainService.CHANGING | {"merge"}

        def op_merge(self, request: DBRequest) -> tuple[Any, dict[str, Any]]:
            merged = {**(self._existing(request) or {}), **request.value}
            return merged, self._save(request, merged)

    db = Merging(InMemoryFileSystem(), validation_service=None)
    do(db, "d", "write", {"a": 1})
    assert do(db, "d", "merge", {"b": 2}) == {"a": 1, "b": 2}
    assert "merge" in db.allowed_operations


# Nothing is lost.

APPEND = """
import asyncio, sys
from pathlib import Path
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalFileSystemAdapter
db = DBOperationsDomainService(LocalFileSystemAdapter(Path(sys.argv[1])))
async def go():
    for n in range(int(sys.argv[3])):
        await db.execute_operation("all", "append", {"by": sys.argv[2], "n": n})
        print(n, flush=True)
asyncio.run(go())
"""


def appender(folder: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPEND, str(folder), name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_eight_processes_lose_nothing(tmp_path: Path, db: DBOperationsDomainService):
    """8 processes × 200 appends are 1,600 items, each once, those of one process in order."""
    writers = [appender(tmp_path, str(n), 200) for n in range(8)]
    for writer in writers:
        assert writer.stdout is not None
        assert len(writer.stdout.readlines()) == 200
        writer.stdout.close()
        assert writer.wait(60) == 0
    items = do(db, "all", "read")
    assert len(items) == 1600
    for n in range(8):
        assert [i["n"] for i in items if i["by"] == str(n)] == list(range(200))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="not here: no SIGKILL")
def test_killed_writers_lose_nothing_acknowledged(tmp_path: Path, db: DBOperationsDomainService):
    """kill -9 in the middle of appends: the file is whole, and what was acknowledged is in it."""
    acknowledged: dict[str, int] = {}
    chance = random.Random(7)
    pending = {str(n): appender(tmp_path, str(n), 10_000) for n in range(4)}
    killed = 0
    while killed < KILLS:
        for name, writer in list(pending.items()):
            assert writer.stdout is not None
            writer.stdout.readline()  # it is at work
            time.sleep(chance.random() * 0.02)
            writer.kill()
            rest = writer.stdout.read().split()
            writer.stdout.close()
            writer.wait(10)
            acknowledged[name] = int(rest[-1]) if rest and rest[-1].isdigit() else 0
            killed += 1
            del pending[name]
            if killed + len(pending) < KILLS:
                pending[str(killed + 3)] = appender(tmp_path, str(killed + 3), 10_000)
    items = do(db, "all", "read")
    seen: dict[str, list[int]] = {}
    for item in items:
        seen.setdefault(item["by"], []).append(item["n"])
    for name, last in acknowledged.items():
        assert seen[name][: last + 1] == list(range(last + 1))
        assert len(seen[name]) <= last + 2  # one more may be written and not yet acknowledged
    written = (tmp_path / "dbs/all.json").stat().st_mtime
    old = [p for p in (tmp_path / "dbs").iterdir() if written - p.stat().st_mtime > 120]
    assert old == []
    json.loads((tmp_path / "dbs/all.json").read_text())


def test_a_failed_write_keeps_the_old_file(db: DBOperationsDomainService, tmp_path: Path):
    """A folder that cannot be written to: one clear error, the old data whole."""
    if os.geteuid() == 0:
        pytest.skip("not here: root writes everywhere")
    do(db, "d", "write", {"a": 1})
    (tmp_path / "dbs").chmod(0o500)
    try:
        with pytest.raises(StorageError) as caught:
            do(db, "d", "append", 2)
        assert caught.value.facts["cause"] == "permission"
        assert do(db, "d", "read") == {"a": 1}
    finally:
        (tmp_path / "dbs").chmod(0o700)


def test_a_long_yaml_file_is_read_where_it_can_be_stopped(tmp_path: Path) -> None:
    """Its value is the same as that of a short one, `keys` too; a mistake in it is the same error."""
    (tmp_path / "long.yaml").write_text("".join(f"- {{n: {n}, day: 2025-01-01}}\n" for n in range(20_000)))
    (tmp_path / "bad.yaml").write_text("- {\n" + "# filling\n" * 40_000)
    db = DBOperationsDomainService(LocalFileSystemAdapter(tmp_path))
    read = asyncio.run(db.execute_operation("long.yaml", "read"))
    assert read["value"][19_999] == {"n": 19_999, "day": "2025-01-01"}
    assert read["metadata"]["items_count"] == 20_000
    with pytest.raises(ValidationError, match="is not YAML"):
        asyncio.run(db.execute_operation("bad.yaml", "read"))


# Long YAML.


def _long_yaml() -> str:
    """A list of more characters than are worked out in a thread."""
    return "# of mine\n" + "".join(f"- {{n: {n}, pad: {'x' * 60}}}\n" for n in range(3_000))


def test_long_yaml_is_changed_in_a_process_that_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appending and updating give what they give for a short one; a value that YAML cannot hold is refused as there."""
    called: list[str] = []
    original = WORKERS.call

    async def call(function: str, *arguments: Any) -> Any:
        called.append(function.rpartition(":")[2])
        return await original(function, *arguments)

    monkeypatch.setattr(WORKERS, "call", call)
    (tmp_path / "l.yaml").write_text(_long_yaml())
    db = DBOperationsDomainService(LocalFileSystemAdapter(tmp_path))
    done = run(db.execute_operation("l.yaml", "append", {"n": "new"}))
    assert done["metadata"]["items_count"] == 3_001
    text = (tmp_path / "l.yaml").read_text()
    assert text.startswith(_long_yaml())
    assert text.endswith("- n: new\n")
    run(db.execute_operation("l.yaml", "update", 7, keys="[0].n"))
    assert (tmp_path / "l.yaml").read_text() == text.replace("{n: 0,", "{n: 7,", 1)
    assert called == ["with_appended_yaml", "with_updated_yaml"]
    with pytest.raises(StorageError):
        run(db.execute_operation("l.yaml", "append", object()))


def test_long_yaml_that_others_change_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of theirs is lost; when it changes all the time, the error says so."""
    path = tmp_path / "l.yaml"
    path.write_text(_long_yaml())
    original, rounds = WORKERS.call, 0

    async def call(function: str, *arguments: Any) -> Any:
        nonlocal rounds
        answer = await original(function, *arguments)
        if rounds:
            rounds -= 1
            path.write_text(path.read_text() + f"- {{theirs: {rounds}}}\n")
        return answer

    monkeypatch.setattr(WORKERS, "call", call)
    db = DBOperationsDomainService(LocalFileSystemAdapter(tmp_path))
    rounds = 1
    run(db.execute_operation("l.yaml", "append", {"n": "new"}))
    assert path.read_text().endswith("- {theirs: 0}\n- n: new\n")
    rounds = 100
    with pytest.raises(StorageError, match="changes faster"):
        run(db.execute_operation("l.yaml", "append", {"n": "never"}))
    assert "never" not in path.read_text()


JSON_LINES: list[tuple[bytes, Any, bytes]] = [
    (b'{"a":1}\n', {"b": [1, {"c": 2}]}, b'{"a":1}\n{"b":[1,{"c":2}]}\n'),
    (b'{"a":1}', {"b": 2}, b'{"a":1}\n{"b":2}\n'),
    (b'{"a":1}\r\n', {"b": "1\n2"}, b'{"a":1}\r\n{"b":"1\\n2"}\r\n'),
    (b'\xef\xbb\xbf{"a":1}\n', {"b": "\u00e9\u2028"}, '\ufeff{"a":1}\n{"b":"\u00e9\u2028"}\n'.encode()),
    (b"", {"b": 2}, b'{"b":2}\n'),
    (b"\xef\xbb\xbf", {"b": 2}, b'\xef\xbb\xbf{"b":2}\n'),
    (b"[1]\n[2]\n", [3], b"[1]\n[2]\n[3]\n"),
    (b"1\n", None, b"1\nnull\n"),
    (b"1\n", "two\nlines", b'1\n"two\\nlines"\n'),
    (b"1\n", "5", b'1\n"5"\n'),
    (b'{"a": 1}\n', '{"a": 2}', b'{"a": 1}\n{"a": 2}\n'),
    (b'{"a": 1}\r\n', '{"a": 2}\n{"a": 3}\n', b'{"a": 1}\r\n{"a": 2}\r\n{"a": 3}\r\n'),
    (b"{\n", [], b"{\n[]\n"),
]


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "X.JSONL"])
@pytest.mark.parametrize("format", [None, "json"])
@pytest.mark.parametrize(("before", "value", "after"), JSON_LINES)
def test_json_lines_get_a_line(
    db: DBOperationsDomainService, tmp_path: Path, name: str, format: str | None, before: bytes, value: Any, after: bytes
):
    """A value is one line of JSON, with its end, in the manner of the file."""
    assert len(JSON_LINES) == 13
    (tmp_path / name).write_bytes(before)
    do(db, name, "append", value, format=format)
    assert (tmp_path / name).read_bytes() == after


def test_json_lines_are_written_and_refused(db: DBOperationsDomainService, tmp_path: Path):
    do(db, "x.jsonl", "write", [{"a": 1}, [2, 3], "x"])
    text = '{"a":1}\n[2,3]\n"x"\n'
    assert (tmp_path / "x.jsonl").read_text() == text
    assert do(db, "x.jsonl", "read") == text
    assert do(db, "x.jsonl", "read", lines="2") == "[2,3]\n"
    with pytest.raises(StorageError, match="nan"):
        do(db, "x.jsonl", "append", float("nan"))
    assert (tmp_path / "x.jsonl").read_text() == text


@pytest.mark.parametrize(("before", "value", "after"), [
    (b"- a: 1\r\n- a: 2\r\n", {"a": 3, "b": 4}, b"- a: 1\r\n- a: 2\r\n- a: 3\r\n  b: 4\r\n"),
    (b"  - 1\r\n  - 2", "x", b"  - 1\r\n  - 2\r\n  - x\r\n"),
    (b"# c\r\n- 1 # d\r\n", 2, b"# c\r\n- 1 # d\r\n- 2\r\n"),
    (b"- 1\n", "a\nb", b"- 1\n- 'a\n\n  b'\n"),
])  # fmt: skip
def test_yaml_gets_an_item_with_its_own_line_ends(
    db: DBOperationsDomainService, tmp_path: Path, before: bytes, value: Any, after: bytes
):
    (tmp_path / "x.yaml").write_bytes(before)
    do(db, "x.yaml", "append", value)
    assert (tmp_path / "x.yaml").read_bytes() == after
    assert do(db, "x.yaml", "read")[-1] == value


def test_ranges_and_keys_in_any_number_are_quick(db: DBOperationsDomainService, tmp_path: Path):
    """Lines that are named many times, and names that are not there, are not looked for again and again."""
    total = 20_000
    (tmp_path / "x.txt").write_text("".join(f"{n}\n" for n in range(1, total + 1)))
    lines = [f"{n}:" for n in range(total, 0, -1)]
    assert do(db, "x.txt", "read", lines=["3", *lines]) == "3\n" + "".join(f"{n}\n" for n in range(total, 0, -1) if n != 3)
    keys = [f"k{n}" for n in range(total)]
    do(db, "x.json", "write", {f"old{n}": n for n in range(total)})
    do(db, "x.json", "update", dict.fromkeys(keys, 1), keys=keys)
    assert len(do(db, "x.json", "read")) == 2 * total


@pytest.mark.parametrize("lines", [f"{'9' * 5000}:1", "x" * 9_000, [[["a"] * 900] * 900]])
def test_errors_of_lines_are_short(db: DBOperationsDomainService, tmp_path: Path, lines: Any):
    (tmp_path / "x.txt").write_text("a\n")
    with pytest.raises(ValidationError) as caught:
        do(db, "x.txt", "read", lines=lines)
    assert len(str(caught.value)) < 1_500


@pytest.mark.parametrize("key", [f"l[{'9' * 5000}]", "a." * 5000 + "b", "[0]" * 5000, "s.x", "l.x"])
@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_absurd_keys_are_refused(db: DBOperationsDomainService, tmp_path: Path, key: str, suffix: str):
    """The error is short, and the file is the old one."""
    do(db, f"x{suffix}", "write", {"s": "long " * 5000, "l": list(range(5000))})
    before = (tmp_path / f"x{suffix}").read_bytes()
    assert do(db, f"x{suffix}", "read", keys=key) is None
    with pytest.raises((ValidationError, StorageError)) as caught:
        do(db, f"x{suffix}", "update", 1, keys=key)
    assert len(str(caught.value)) < 1_500
    assert (tmp_path / f"x{suffix}").read_bytes() == before


def test_a_short_yaml_that_stands_for_much_is_refused(db: DBOperationsDomainService, tmp_path: Path):
    """Aliases of aliases; what is used a few times is read."""
    nine = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 7)]
    (tmp_path / "x.yaml").write_text("\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *nine]))
    with pytest.raises(StorageError, match="aliases"):
        do(db, "x.yaml", "read")
    (tmp_path / "x.yaml").write_text("\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]", *nine[:2]]))
    assert len(do(db, "x.yaml", "read")["a2"]) == 9
