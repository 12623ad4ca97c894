"""What every database of files promises."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from dipeo_nb.domain.ports import DBOperationsPort
from dipeo_nb.errors import ValidationError
from dipeo_nb.testing.contracts.promises import Contract, promise, refusal, same

BODY = {"users": [{"name": "Ada", "tags": ["x", "y"]}, {"name": "Bob"}], "n": 0, "a": {"b": {"c": 3}}}
KEYS: dict[str, tuple[Any, Any]] = {
    "top": ("n", 0),
    "deep": ("a.b.c", 3),
    "branch": ("a.b", {"c": 3}),
    "item": ("users[0].name", "Ada"),
    "last item": ("users[-1].name", "Bob"),
    "dotted index": ("users.1.name", "Bob"),
    "item of an item": ("users[0].tags[1]", "y"),
    "absent": ("nothing", None),
    "absent item": ("users[9]", None),
    "through a value": ("a.b.c.d", None),
    "several": ("n, a.b.c", {"n": 0, "a.b.c": 3}),
    "a list": (["n", "nothing"], {"n": 0, "nothing": None}),
}
"""Name → (keys, what they select of BODY)."""
LINES: dict[str, tuple[Any, list[int]]] = {
    "one": (5, [5]),
    "text": ("5", [5]),
    "range": ("3:5", [3, 4, 5]),
    "from the start": (":3", [1, 2, 3]),
    "to the end": ("9:", [9, 10]),
    "several": ("1,3:4", [1, 3, 4]),
    "list": ([2, (4, 5), "7:8"], [2, 4, 5, 7, 8]),
    "mapping": ({"start": 2, "end": 3}, [2, 3]),
    "beyond": ("8:2000", [8, 9, 10]),
}
"""Name → (lines, their numbers among ten)."""
VALUES: dict[str, tuple[str, Any]] = {
    "json": ("a.json", {"a": [1, 2.5, "ü", None]}),
    "name": ("users", [{"n": 1}]),
    "yaml": ("a.yaml", {"a": [1, "x"], "b": None}),
    "csv": ("a.csv", [{"n": "1", "t": "x,y"}, {"n": "2", "t": ""}]),
    "text": ("notes.txt", "plain\nGrüße\n"),
    "large number": ("big.json", {"n": 123456789012345678901234567890}),
}
"""Name → (database, value)."""
NOT_FITTING: dict[str, tuple[tuple[Any, ...], str]] = {
    "update without keys": (("d", "update", 1), "keys"),
    "no such item": (("d", "update", 1, "l[7]"), "l[7]"),
    "through a value": (("d", "update", 1, "n.x"), "n.x"),
    "too few values": (("d", "update", {"a": 1}, "a,b"), "b"),
    "no operation": (("d", "explode", 1), "read"),
    "no name": (("", "read"), "name"),
    "lines of a write": (("d", "write", 1, None, 3), "lines"),
}
"""Name → (arguments, what the error says)."""


class DBOperationsContract(Contract):
    """The promises of `DBOperationsPort`."""

    port: ClassVar[type] = DBOperationsPort

    @promise(cases=VALUES)
    async def test_what_is_written_is_read(self, db: DBOperationsPort, case: tuple[str, Any]) -> None:
        """By the format of the name's suffix; the metadata has operation, path, format and size in bytes."""
        name, value = case
        written = (await db.execute_operation(name, "write", value))["metadata"]
        read = await db.execute_operation(name, "read")
        same(read["value"], value, f"the value of {name}")
        same(written["operation"], "write", "metadata['operation']")
        for fact in ("file_path", "format", "size"):
            same(written[fact], read["metadata"][fact], f"metadata[{fact!r}] of write and read")

    @promise
    async def test_what_is_missing_is_told(self, db: DBOperationsPort) -> None:
        """A missing file is not an empty one."""
        with refusal("reading a database that is not there", cause="not_found"):
            await value(db, "nothing", "read")

    @promise(cases=KEYS)
    async def test_keys_select(self, db: DBOperationsPort, case: tuple[Any, Any]) -> None:
        """One key gives the bare value, several a mapping; absent ones are None."""
        keys, promised = case
        await value(db, "d", "write", BODY)
        same(await value(db, "d", "read", keys=keys), promised, f"the value of the keys {keys!r}")

    @promise(cases=LINES)
    async def test_lines_select(self, db: DBOperationsPort, case: tuple[Any, list[int]]) -> None:
        """Ranges are 1-based and inclusive, in every accepted spelling."""
        lines, numbers = case
        await value(db, "t.txt", "write", "".join(f"line {n}\n" for n in range(1, 11)))
        found = await value(db, "t.txt", "read", lines=lines)
        same(found, "".join(f"line {n}\n" for n in numbers), f"the lines {lines!r}")

    @promise
    async def test_appending(self, db: DBOperationsPort) -> None:
        """Lists grow, other values become lists, absent and empty ones begin one; text gets a line."""
        for item in (1, {"a": [1, 2]}, "x\ny"):
            await value(db, "l", "append", item)
        same(await value(db, "l", "read"), [1, {"a": [1, 2]}, "x\ny"], "a list after three appends to nothing")
        await value(db, "o", "write", {"a": 1})
        await value(db, "o", "append", 2)
        same(await value(db, "o", "read"), [{"a": 1}, 2], "a mapping after an append")
        await value(db, "e", "write", {})
        await value(db, "e", "append", 1)
        same(await value(db, "e", "read"), [1], "an empty mapping after an append")
        for text in ("a", "b"):
            await value(db, "t.txt", "append", text)
        same(await value(db, "t.txt", "read"), "a\nb", "a text after two appends")

    @promise
    async def test_updating(self, db: DBOperationsPort) -> None:
        """One or many dotted paths, list items, and what lies between is made; write with keys is the same."""
        for operation in ("update", "write"):
            for keys, new, promised in (
                ("a", 1, {"a": 1, "l": [1, {"x": 1}]}),
                ("b.c.d", 1, {"b": {"c": {"d": 1}}, "l": [1, {"x": 1}]}),
                ("l[1].x", 2, {"l": [1, {"x": 2}]}),
                ("a,b.c", {"a": 1, "c": 2}, {"a": 1, "b": {"c": 2}, "l": [1, {"x": 1}]}),
            ):
                await value(db, "d", "write", {"l": [1, {"x": 1}]})
                await value(db, "d", operation, new, keys)
                same(await value(db, "d", "read"), promised, f"the value after {operation} of the keys {keys!r}")

    @promise(cases=NOT_FITTING)
    async def test_what_does_not_fit_is_refused_and_changes_nothing(self, db: DBOperationsPort, case: Any) -> None:
        """One clear error; the file stays as it is."""
        arguments, says = case
        await value(db, "d", "write", {"l": [1], "n": 3})
        with refusal(f"execute_operation{arguments!r}", ValidationError, says=says):
            await value(db, *arguments)
        same(await value(db, "d", "read"), {"l": [1], "n": 3}, "the value after an operation that was refused")

    @promise
    async def test_prompt_gives_the_name_back(self, db: DBOperationsPort) -> None:
        """The `prompt` operation echoes the path."""
        done = await db.execute_operation("users", "prompt")
        same(done["value"], done["metadata"]["file_path"], "what `prompt` gives")

    @promise
    async def test_names_cannot_leave_the_folder(self, db: DBOperationsPort) -> None:
        """Every operation is confined."""
        for name in ("../x.json", "/etc/x.json", "a/../../x.json", "C:\\x.json", "x\0.json", "~/x.json"):
            for operation, keys in {"read": None, "write": None, "append": None, "update": "k"}.items():
                with refusal(f"{operation} of {name!a}", cause="refused"):
                    await value(db, name, operation, 1, keys)

    @promise
    async def test_appends_at_the_same_time_all_arrive(self, db: DBOperationsPort) -> None:
        """Fifty appends at once are fifty items."""
        await asyncio.gather(*(value(db, "all", "append", n) for n in range(50)))
        same(sorted(await value(db, "all", "read")), list(range(50)), "the items after fifty appends at once")

    @promise
    async def test_a_database_outlives_the_object(self, db: DBOperationsPort) -> None:
        """A service that is made again reads what was written, and appends to it."""
        await value(db, "d", "append", 1)
        async with self.opened(lambda: self.reopen(db)) as again:
            await value(again, "d", "append", 2)
            same(await value(again, "d", "read"), [1, 2], "the items of before and after a restart")


async def value(db: DBOperationsPort, *arguments: Any, **options: Any) -> Any:
    """The value of an operation."""
    return (await db.execute_operation(*arguments, **options))["value"]
