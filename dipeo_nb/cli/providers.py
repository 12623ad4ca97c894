"""`dipeo-nb providers`: list, show, call and authorize providers of web services."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any

import typer

from dipeo_nb.cli.arguments import parse_pairs, settings_for
from dipeo_nb.cli.exit_codes import ExitCode
from dipeo_nb.cli.group import COMMANDS
from dipeo_nb.cli.options import AsJson, BaseDir
from dipeo_nb.cli.prompts import interactive
from dipeo_nb.common.loop import run_sync
from dipeo_nb.common.paths import from_home
from dipeo_nb.common.text import visible_json
from dipeo_nb.common.values import json_text, parse_json
from dipeo_nb.container import build
from dipeo_nb.errors import ValidationError
from dipeo_nb.integrations.mcp_client import McpClients
from dipeo_nb.integrations.providers import IntegratedApiService
from dipeo_nb.integrations.registry import SUFFIXES
from dipeo_nb.terminal import new_console, new_table, safe, say

app: typer.Typer = typer.Typer()
providers: typer.Typer = typer.Typer(help=COMMANDS["providers"].help, no_args_is_help=False)
app.add_typer(providers, name="providers")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A provider, or the file of a manifest; see `dipeo-nb providers`.")]
Variables = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A variable of the provider, such as url, site or base_url."),
]


@providers.callback(invoke_without_command=True)
def _providers(context: typer.Context, base_dir: BaseDir = None, as_json: AsJson = False) -> None:
    if context.invoked_subcommand is None:
        _list(base_dir, as_json)


@providers.command("list")
def providers_list(base_dir: BaseDir = None, as_json: AsJson = False) -> int:
    """List the providers: what each lacks, its operations, and where it is from."""
    _list(base_dir, as_json)
    return ExitCode.DONE


@providers.command("show")
def providers_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A provider, the file of a manifest, or NAME.OPERATION.")],
    base_dir: BaseDir = None,
    as_json: AsJson = False,
) -> int:
    """Show the operations of a provider; with NAME.OPERATION its parameters."""
    service = _service(base_dir)
    provider, operation = _split(service, name)
    if operation is not None:
        found = service.find(provider)
        signature = found.signature(operation)
        if as_json:
            (tool,) = (tool for tool in run_sync(found.offered()) if tool.operation == name)
            effect = next(row["effect"] for row in found.rows() if row["operation"] == operation)
            shown = {"name": name, "effect": effect, "description": tool.description, "parameters": tool.schema}
            print(visible_json(json_text(shown)))
        else:
            print(safe(f"{provider}.{operation}{signature}", 2000))
            print(found.help(operation))
        return ExitCode.DONE
    rows = service.find(provider).rows()
    if as_json:
        print(visible_json(json_text({"provider": provider, "operations": rows})))
        return ExitCode.DONE
    table = new_table("operation", "effect", "parameters", "about")
    for row in rows:
        table.add_row(*(safe(str(cell), 200) for cell in row.values()))
    new_console(stderr=False).print(table)
    print(f"dipeo-nb providers show {provider}.OPERATION shows the parameters of one (* is required).")
    return ExitCode.DONE


@providers.command("call")
def providers_call(
    operation: Annotated[str, typer.Argument(metavar="NAME.OPERATION", help="What to call.")],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=VALUE", help="Parameters; JSON if it parses and the operation takes it, else text."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the request, with the key masked; nothing is sent.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help="All pages of a list.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Items of a list at most.")] = None,
    variables: Variables = None,
    base_dir: BaseDir = None,
) -> int:
    """Call an operation; the result goes to stdout as JSON."""
    service = _service(base_dir)
    provider, name = _split(service, operation)
    if name is None:
        raise ValidationError(
            f"'{operation:.80}' is not an operation.", hint=f"Write NAME.OPERATION; see dipeo-nb providers show {provider}."
        )
    if variables:
        service.configure(provider, **parse_pairs(variables))
    given = _typed(service, provider, name, parse_pairs(parameters or []))
    if dry_run:
        print(visible_json(json_text(service.preview(provider, name, given), indent=2)))
        return ExitCode.DONE

    async def called() -> Any:
        try:
            return await service.execute(provider, name, config=given, all=every, limit=limit)
        finally:
            await service.cleanup()

    print(visible_json(json_text(run_sync(called()), indent=2)))
    return ExitCode.DONE


@providers.command("authorize")
def providers_authorize(name: Name, variables: Variables = None, base_dir: BaseDir = None) -> int:
    """Allow the use of an account of yours (OAuth): open the address that is printed, then paste the one that it leads to."""
    service = _service(base_dir)
    provider, _ = _split(service, name)
    if variables:
        service.configure(provider, **parse_pairs(variables))
    if (clients := service.mcp_clients(provider)) is not None:
        run_sync(_authorized(clients, provider))
        say(f"{provider} may be used now.")
        return ExitCode.DONE
    found = service.manifest_provider(provider)
    if found.manifest.auth.kind != "oauth2_code":
        raise ValidationError(
            f"{provider} is not allowed by a browser.", hint=f"Store its key: dipeo-nb keys set {found.authorizer.service}."
        )
    consent = run_sync(found.authorizer.consent())
    run_sync(found.authorizer.complete(consent, _pasted(consent.url)))
    say(f"{provider} may be used now.")
    return ExitCode.DONE


def _pasted(address: str) -> str:
    """Ask the user to open an address; the one that it led to."""
    say(
        f"Open this address, and allow the use of your account:\n{address}",
        "Then paste the address that it leads to (a page that cannot be opened):",
    )
    return input() if interactive() else sys.stdin.readline()


async def _authorized(clients: McpClients, provider: str) -> None:
    async def paste(address: str) -> str:
        return await asyncio.to_thread(_pasted, address)

    try:
        await clients.authorize(provider, paste)
    finally:
        await clients.cleanup()


def _list(base_dir: str | None, as_json: bool) -> None:
    service = _service(base_dir)

    async def listed() -> list[dict[str, Any]]:
        return [await service.row(name) for name in service.names()]

    rows = run_sync(listed())
    if as_json:
        print(visible_json(json_text({"providers": rows})))
        return
    table = new_table("provider", "ready", "operations", "about", "from")
    for row in rows:
        table.add_row(*(safe(str(cell), 200) for cell in row.values()))
    new_console(stderr=False).print(table)
    print("dipeo-nb providers show NAME shows the operations of one.")


def _service(base_dir: str | None) -> IntegratedApiService:
    return build(settings_for(base_dir)).integrations  # type: ignore[return-value] - or what stands for it


def _split(service: IntegratedApiService, name: str) -> tuple[str, str | None]:
    """The provider and the operation that a name means; a manifest is registered."""
    path, _, operation = name.rpartition(".")
    for file, rest in ((name, None), (path, operation)):
        if file.endswith(SUFFIXES):
            return service.add(from_home(file).resolve()), rest
    provider, _, operation = name.partition(".")
    return provider, operation or None


def _typed(service: IntegratedApiService, provider: str, operation: str, given: dict[str, Any]) -> dict[str, Any]:
    """Texts of the command line as the types that the operation takes."""
    if service.provider_class(provider) is not None:
        return {name: _json(text) for name, text in given.items()}
    parameters = service.manifest_provider(provider).operation(operation).parameters
    return {
        name: text
        if name not in parameters or parameters[name].json_schema().get("type", "string") == "string"
        else _json(text)
        for name, text in given.items()
    }


def _json(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text
