"""`dipeo-nb keys`: list, store, delete and test API keys."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dipeo_nb.cli import completion
from dipeo_nb.cli.arguments import settings_for
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.group import COMMANDS
from dipeo_nb.cli.options import AsJson
from dipeo_nb.cli.prompts import ask_hidden, interactive
from dipeo_nb.common import lazy
from dipeo_nb.common.calls import nearest_option
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.text import visible_json
from dipeo_nb.common.values import json_text
from dipeo_nb.errors import DipeoError, ValidationError
from dipeo_nb.security.environment import variables_of_services
from dipeo_nb.security.keys import APIKeyChain, APIKeyService, EnvironmentAPIKeyService, checked_name, overview
from dipeo_nb.terminal import new_console, new_table, safe, say

if TYPE_CHECKING:
    from dipeo_nb.llm import providers
    from dipeo_nb.llm import service as llm_service
    from dipeo_nb.llm.service import LLMService
else:  # for `keys test` only
    providers = lazy.module("dipeo_nb.llm.providers")
    llm_service = lazy.module("dipeo_nb.llm.service")

app: typer.Typer = typer.Typer()
keys: typer.Typer = typer.Typer(help=COMMANDS["keys"].help, no_args_is_help=False)
app.add_typer(keys, name="keys")


KeyName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", autocompletion=completion.services, help="A service (openai, github …) or the id of a key (APIKEY_…)."
    ),
]


@keys.callback(invoke_without_command=True)
def _keys(context: typer.Context, as_json: AsJson = False) -> int | None:
    return keys_list(as_json) if context.invoked_subcommand is None else None


@keys.command("list")
def keys_list(as_json: AsJson = False) -> int:
    """List the keys, masked: of each service, the first is used."""
    rows = run_sync(overview(APIKeyChain.of(settings_for(None))))
    if as_json:
        print(visible_json(json_text({"keys": rows})))
        return ExitCode.DONE
    table = new_table(*rows[0])
    for row in rows:
        table.add_row(*(safe(cell, 40) for cell in row.values()))
    new_console(stderr=False).print(table)
    return ExitCode.DONE


@keys.command("set")
def keys_set(
    name: KeyName,
    extra: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    service: Annotated[str | None, typer.Option("--service", help="Of a key that is named by its id.")] = None,
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Encrypt the file of keys; asks for a new passphrase.")] = False,
) -> int:
    """Store a key. It is asked for, or read from stdin: `dipeo-nb keys set openai < FILE`."""
    if extra:
        raise ValidationError(
            "A key is not given on the command line, where the history and other users see it.",
            hint="Remove it from the history of your shell; then run `dipeo-nb keys set SERVICE` and paste it when asked.",
        )
    settings, name = settings_for(None), checked_name(name)
    stored = APIKeyService(settings=settings)
    _unlock(stored)
    if encrypt:
        run_sync(stored.protect(_new_passphrase()))
    key = ask_hidden(f"Key of {name}: ") if interactive() else sys.stdin.read()
    run_sync(stored.set_api_key(name, key, service=service))
    row = next(r for r in run_sync(stored.list_api_keys()) if name in (r["id"], r["service"]))
    print(f"Stored in the {row['source']}: {row['id']} {row['service']} {row['key']}")
    known = variables_of_services()
    if row["service"] not in known and (near := nearest_option(str(row["service"]), known)):
        say(
            f"No service of language models is called '{row['service']}'. If you mean '{near}': dipeo-nb keys delete {row['id']}, then set {near}."
        )
    for other in run_sync(EnvironmentAPIKeyService(settings).list_api_keys()):
        if other["service"] == name:
            say(f"{other['label']} is set, too, and goes first.")
    return ExitCode.DONE


@keys.command("delete")
def keys_delete(name: KeyName) -> int:
    """Delete a stored key."""
    chain = APIKeyChain.of(settings_for(None))
    _unlock(chain)
    run_sync(chain.delete_api_key(name))
    print(f"Deleted: {safe(name)}")
    return ExitCode.DONE


@keys.command("test")
def keys_test(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Services or ids of keys. Default: all that can be tested."),
    ] = None,
) -> int:
    """Ask the providers whether they accept the keys; that costs nothing. The exit code is 1 when one does not."""
    asked = [checked_name(name) for name in names or ()]
    settings = settings_for(None)
    chain = APIKeyChain.of(settings)
    _unlock(chain)
    rows = run_sync(chain.list_api_keys())

    async def ask() -> list[bool]:
        llm = llm_service.LLMService(settings, chain)
        try:
            return [await _takes(llm, name, rows) for name in asked or _testable(rows)]
        finally:
            await llm.cleanup()

    good = run_sync(ask())
    if not good:
        say("There is no key to test.", "hint: dipeo-nb keys set SERVICE stores one.")
    return ExitCode.DONE if good and all(good) else ExitCode.FAILED


async def _takes(llm: LLMService, name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Test a key with its provider, and print the result, or why it could not be tested."""
    row = next((r for r in rows if r["id"] == name), None)
    try:
        if row is None:
            fine = await llm.validate_api_key(name)
        else:
            fine = await llm.validate_api_key(row["service"], api_key_id=row["id"])
    except DipeoError as error:
        print(f"{safe(name)}: not tested. {safe(str(error))}")
        return False
    print(f"{safe(name)}: {'accepted' if fine else 'refused by the provider'}")
    return fine


def _testable(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys that their services can test: by service where that identifies the key, else by id."""
    names: list[str] = []
    for row in rows:
        service = str(row["service"])
        if service in providers.services() and hasattr(providers.client_class(service), "check_key"):
            names.append(str(row["id"]) if service in names else service)
    return names


def _unlock(stored: APIKeyService | APIKeyChain) -> None:
    """Ask for the passphrase of encrypted keys when a user is present; otherwise DIPEO_KEYS_PASSPHRASE is required."""
    if stored.locked and interactive():
        stored.unlock(ask_hidden("Passphrase of the stored keys: "))


def _new_passphrase() -> str:
    if not interactive():
        raise ValidationError(
            "There is no terminal to ask for a passphrase.", hint="Set DIPEO_KEYS_PASSPHRASE instead of --encrypt."
        )
    passphrase = ask_hidden("New passphrase of the stored keys: ")
    if ask_hidden("Again: ") != passphrase:
        raise ValidationError("The two passphrases differ.", hint="Try again; nothing was stored.")
    return passphrase
