"""Rows appended to CSV files: as the file has it, or refused; whatever stood in the file stands there afterwards."""

from __future__ import annotations

import asyncio
import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.errors import StorageError, ValidationError
from dipeo_nb.storage.csv_text import appended
from dipeo_nb.storage.in_memory import InMemoryFileSystem
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.local import LocalFileSystemAdapter
from tests.support.examples import examples


def append(before: bytes, row: Any) -> bytes:
    """The bytes of a file after an append."""
    files = InMemoryFileSystem({"x.csv": before})
    asyncio.run(DBOperationsDomainService(files).execute_operation("x.csv", "append", row))
    return files.read_bytes("x.csv")


@pytest.mark.parametrize(
    ("before", "row", "line"),
    [
        ("a,b\n1,2\n", [3, 4], "3,4\n"),
        ("a,b\n", {"a": 1}, "1,\n"),
        ("a,b\n", {"b": 1}, ",1\n"),
        ("a,b", {"a": 1}, "\n1,\n"),
        ("a,b\n1,2,3\n", {"a": "9", "b": "9"}, "9,9\n"),
        ("a,a\n1,2\n", ["3", "4"], "3,4\n"),
        ("a;b\n1;2\n", {"a": 3, "b": 4}, "3;4\n"),
        ("a;b\n1,5;2,5\n", {"b": "x;y", "a": 4}, '4;"x;y"\n'),
        ("a\tb\n", {"b": "x,y", "a": 4}, "4\tx,y\n"),
        ("a|b\n1|2\n", [None, "x"], "|x\n"),
        ("a,b\r\n1,2\r\n", {"a": 3, "b": 4}, "3,4\r\n"),
        ("a,b\r1,2\r", {"a": 3, "b": 4}, "3,4\r"),
        ("a,b\n\n1,2\n\n", {"a": 3, "b": 4}, "3,4\n"),
        ('"a","b"\n"1","2"\n', {"a": 3, "b": "y"}, '"3","y"\n'),
        ('"a","b"\n1,"x"\n', {"a": 3, "b": "y"}, '3,"y"\n'),
        ('a,b\n"x",2\n', {"a": "y", "b": 4}, "y,4\n"),
        ("a, b\n1, 2\n", {"a": 3, "b": 4}, "3, 4\n"),
        ("\ufeffa,b\n1,2\n", {"a": "ü"}, "ü,\n"),
        ("a\n1\n", "x", "x\n"),
        ("a\n1\n", "x,y", '"x,y"\n'),
        ("a\n1\n", "", '""\n'),
        ("a,b\n", "3,4", "3,4\n"),
        ("a,b\n", [[1, 2], [3, 4]], "1,2\n3,4\n"),
        ("a,b\n", [{"a": 1}, {"b": 2}], "1,\n,2\n"),
        ("a,b\n", {"a": [1, "x"], "b": {"k": None}}, '"[1, ""x""]","{""k"": null}"\n'),
        ('a,b\n"x\ny",2\n', {"a": "p\rq", "b": 'say "hi"'}, '"p\rq","say ""hi"""\n'),
        ("a,b\n" + "x" * 200_000 + ",2\n", {"a": 1, "b": 2}, "1,2\n"),
    ],
)
def test_a_row_is_a_line_in_the_manner_of_the_file(before: str, row: Any, line: str):
    """Delimiter, quoting, order of columns, line ends and the byte order mark are the file's; all else is untouched."""
    assert append(before.encode(), row).decode() == before + line


@pytest.mark.parametrize(
    ("before", "row"),
    [
        ("a,b\n1,2\n", [3]),
        ("a,b\n1,2\n", [3, 4, 5]),
        ("a,b\n1,2\n", 7),
        ("a,b\n1,2\n", "3"),
        ("a,b\n1,2\n", "3,4\n5"),
        ("a,b\n1,2\n", {}),
        ("a,b\n1,2\n", []),
        ("a,b\n1,2\n", {"c": 1}),
        ("a,b\n1,2,3\n", {"a": 1, "c": 1}),
        ("a,a\n1,2\n", {"a": "3"}),
        ("1,2\n3,4\n", {"a": 5, "b": 6}),
        ("a;b\n1;2;3\n", {"a": 3, "b": 4}),
        ('a,b\n"1,2\n', {"a": 1}),
        ('a,b\n"x\\"y",2\n', {"a": 1}),
        ("sep=;\na;b\n", {"a": 1}),
        ("a, b\n1, 2\n", {"a": 3, "b": "x,y"}),
        ("a,b;c\n1,2;3\n", ["x", "y"]),
        ("a,b;a\n1,2;3\n", {"a": 1, "z": 2}),
    ],
)
def test_a_row_that_does_not_fit_is_refused(before: str, row: Any):
    """Nothing is guessed, and the file stays as it is."""
    files = InMemoryFileSystem({"x.csv": before})
    with pytest.raises(ValidationError) as caught:
        asyncio.run(DBOperationsDomainService(files).execute_operation("x.csv", "append", row))
    assert caught.value.hint
    assert files.read_bytes("x.csv").decode() == before


@pytest.mark.parametrize("value", [b"x", object(), {"k": object()}, [float("nan")], {1, 2}])
def test_a_cell_holds_no_objects(value: Any):
    """Bytes, objects and what JSON cannot hold are refused, not turned into their repr."""
    for before in ("a,b\n", ""):
        with pytest.raises(StorageError) as caught:
            appended(before, {"a": value, "b": 1}, "x.csv")
        assert caught.value.facts["cause"] == "not_csv"


def test_new_names_add_columns_and_lose_nothing():
    """Every line gets empty cells, in the file's own manner."""
    before = 'id;note\r\n1;"a;b"\r\n\r\n2;x'
    after = append(before.encode(), {"id": 3, "tag": "y;z", "more": 1}).decode()
    assert after == 'id;note;tag;more\r\n1;"a;b";;\r\n\r\n2;x;;\r\n3;;"y;z";1\r\n'


def test_files_of_other_encodings_are_refused(tmp_path: Path):
    """Their bytes are left alone."""
    for data in ("a;b\nü;1\n".encode("latin-1"), "a,b\n1,2\n".encode("utf-16")):
        (tmp_path / "x.csv").write_bytes(data)
        db = DBOperationsDomainService(LocalFileSystemAdapter(tmp_path))
        with pytest.raises(StorageError) as caught:
            asyncio.run(db.execute_operation("x.csv", "append", {"a": 1}))
        assert caught.value.facts["cause"] == "encoding"
        assert (tmp_path / "x.csv").read_bytes() == data


TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6)
NAMES = st.text(st.sampled_from("abcXYZ ,;\t|\"'ü1.-"), min_size=1, max_size=5).map(str.strip).filter(bool)
"""Names without blanks around them: a blank after each delimiter is a manner of its own, with tests of its own."""
MANNERS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(",;\t|"),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
        "lineterminator": st.sampled_from(["\n", "\r\n", "\r"]),
    }
)


def written(rows: list[list[str]], manner: dict[str, Any]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, **manner).writerows(rows)
    return out.getvalue()


def read(text: str, delimiter: str) -> list[list[str]]:
    return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]


@examples(300)
@given(st.data())
def test_what_is_appended_is_read_back_by_the_csv_module(data: st.DataObject):
    """Against Python's own writer and reader in the same manner: the old rows, then the new one; or refused, unchanged."""
    manner: dict[str, Any] = data.draw(MANNERS)
    header = data.draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    if len(header) == 1:
        manner["delimiter"] = ","  # no other one can be seen in the file
    row = st.lists(TEXTS, min_size=len(header), max_size=len(header))
    rows = [header, *data.draw(st.lists(row, max_size=4))]
    text = written(rows, manner)
    before = read(text, manner["delimiter"])
    if before != rows:  # e.g. a line end within a cell that this writer does not quote
        return
    if data.draw(st.booleans()):
        text = text.removesuffix(manner["lineterminator"])
    cells = data.draw(row)
    value: Any = dict(zip(header, cells, strict=True)) if data.draw(st.booleans()) else cells
    try:
        after, count = appended(text, value, "x.csv")
    except ValidationError:
        simple = all(c not in cell for c in ' ,;\t|"\r\n' for line in [*rows, cells] for cell in line)
        assert not simple, "a plain table was refused"
        return
    assert after.startswith(text)
    assert read(after, manner["delimiter"]) == [*before, cells]
    assert count == len(rows)
