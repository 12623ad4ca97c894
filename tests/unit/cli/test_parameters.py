"""Parameters that are taken as they are given have the values that typer makes of them."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import typer
from typer.core import TyperCommand

from dipeo_nb.cli.parameters import Command


def values(arguments: list[str], kind: type[TyperCommand]) -> Any:
    """What a command with parameters of all kinds that there are gets, or the message of the error."""
    got: dict[str, Any] = {}
    app = typer.Typer()

    @app.command(cls=kind)
    def command(  # pyright: ignore[reportUnusedFunction]
        file: str,
        more: Annotated[list[str] | None, typer.Argument()] = None,
        name: Annotated[list[str] | None, typer.Option("--name", "-n")] = None,
        limit: Annotated[int, typer.Option(min=1)] = 20,
        seconds: Annotated[float | None, typer.Option()] = None,
        title: Annotated[str, typer.Option(parser=str.upper)] = "Mine",
        flag: bool = False,
    ) -> None:
        got.update(locals())

    try:
        app(arguments, standalone_mode=False)
    except typer.TyperException as error:
        return type(error), error.format_message()
    del got["got"]
    return {name: (type(value), value) for name, value in got.items()}


@pytest.mark.parametrize(
    "arguments",
    [
        ["a"],
        ["a", "b", "c"],
        ["", "--name", "x", "-n", ""],
        ["a", "--limit", "3", "--seconds", "1"],
        ["a", "--title", "yours", "--flag"],
        ["a", "--limit", "0"],
        ["a", "--limit", "x"],
        ["a", "--name"],
        [],
    ],
    ids=" ".join,
)
def test_values_are_those_of_typer(arguments: list[str]) -> None:
    assert values(arguments, Command) == values(arguments, TyperCommand)
