"""hook: runs a command, calls a web server, calls a Python function, writes a file, or waits for an event.

Both shapes are understood: the fields `command` and `url`, and the long one with everything in `config`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, cast

from dipeo_nb.common import stepwise_yaml
from dipeo_nb.common.cancellable import in_thread
from dipeo_nb.common.redaction import place_of, redactor
from dipeo_nb.common.values import json_text, parse_json
from dipeo_nb.config import missing_variable
from dipeo_nb.domain.enums import HookType
from dipeo_nb.domain.nodes import HookNode
from dipeo_nb.errors import (
    CodeError,
    IntegrationError,
    NodeExecutionError,
    NodeTimeoutError,
    ServiceError,
    ValidationError,
)
from dipeo_nb.execution.child_process import base_dir, run_command, tail
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.handlers.api_job import answer_of, beginning, in_a_line
from dipeo_nb.execution.inputs import Inputs, Output, as_text, plain
from dipeo_nb.execution.shell_text import ShellText, runs_code
from dipeo_nb.execution.shown_scripts import as_shown

HOOK_TIMEOUT = 60.0
"""Seconds when the node names none (DiPeO's default); for an event, how long it is waited for."""
TIMEOUT = None  # every kind has its own
RETRY_PAUSE = 1.0
"""Seconds before a hook is tried again (`retry_count`)."""


async def execute(context: NodeContext) -> Output:
    spec = cast(HookNode, context.node.spec)
    for attempt in range(spec.retry_count + 1):
        try:
            return await _hook(context, spec)
        except (CodeError, ServiceError) as error:
            if attempt == spec.retry_count:
                raise
            context.log("WARNING", f"{error.message} It is tried again.")
            await asyncio.sleep(RETRY_PAUSE)
    raise AssertionError("the last attempt returns or raises")


async def _hook(context: NodeContext, spec: HookNode) -> Output:
    match spec.hook_type:
        case HookType.SHELL:
            return await _shell(context, spec)
        case HookType.HTTP if spec.config.get("subscribe_to"):
            return await _event(context, spec)
        case HookType.HTTP:
            return await _http(context, spec)
        case HookType.PYTHON:
            return await _python(context, spec)
        case _:
            return await _file(context, spec)


async def _shell(context: NodeContext, spec: HookNode) -> Output:
    """Inputs are variables of the environment: `DIPEO_INPUT_<NAME>` as JSON, and what templates in the command name (`shell_text`).

    With `args` no shell is asked: the arguments are rendered and handed to the program one by one.
    """
    command = spec.command or spec.config.get("command")
    if not isinstance(command, str) or not command.strip():
        raise NodeExecutionError("The hook has no command.", hint="Set `command`.")
    given = spec.config.get("args")
    args = [given] if isinstance(given, str) else list(given or ())
    files = context.services.files
    cwd = str(spec.config.get("cwd") or "")
    inputs = {f"DIPEO_INPUT_{k.upper()}": json_text(v) for k, v in _inputs(context).items() if k.isidentifier()}
    own = {name: context.render(str(value)) for name, value in _mapping(spec, "env").items()}
    folder = files.resolve(context.render(cwd)) if cwd else files.base_path
    with as_shown(context.execution.gate, files.base_path, folder) as scripts:
        if args:
            words = words_of(context, [command, *map(str, args)])
            if scripts is not None:
                words = await asyncio.to_thread(scripts.words, words, env=own)
        else:
            text = context.render_shell(command) if _is_template(command) else ShellText(command, {})
            line = text.command if scripts is None else await asyncio.to_thread(scripts.text, text.command, env=own)
            words, inputs = ["sh", "-c", line], {**inputs, **text.environment}
        done = await run_command(
            words,
            cwd=folder,
            timeout=_limit(spec),
            env={**base_dir(files), **inputs, **own},
            pass_env=context.execution.options.pass_env,
            on_output=context.show_printed,
        )
    if done.status:
        raise CodeError(
            f"The command ended with exit status {done.status}: {tail(done.stderr) or 'it said nothing on stderr'}",
            hint=missing_variable(command, tail(done.stderr), context.execution.options.pass_env)
            or "Correct the command of the hook.",
            traceback=tail(done.stderr),
        )
    return Output(_value(done.stdout.strip()), meta={"status": done.status})


def _is_template(text: str) -> bool:
    """`${#name}` alone is the shell's, and no comment of a template."""
    return "{{" in text or "{%" in text


def words_of(context: NodeContext, given: list[str]) -> list[str]:
    """The program and its arguments, their templates rendered.

    Raises:
        NodeExecutionError: a value would be run as code, as in `sh -c "…{{x}}…"`.
    """
    words: list[str] = []
    for text in given:
        if not _is_template(text):
            words.append(text)
            continue
        if runs_code(words) and not context.holds_numbers(text):
            raise NodeExecutionError(
                f"An argument of '{words[0]}' is code and has a value in it; only whole numbers can stand there.",
                hint="Let that code read the variable of the environment DIPEO_INPUT_<NAME>, which holds the input as JSON.",
            )
        words.append(context.render(text))
    return words


async def _http(context: NodeContext, spec: HookNode) -> Output:
    url = context.render(str(spec.url or spec.config.get("url") or "")).strip()
    if not url:
        raise NodeExecutionError("The hook has no url.", hint="Set `url`.")
    method = str(spec.config.get("method") or "POST").upper()
    if method not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        raise NodeExecutionError(f"'{method}' is not an HTTP method.", hint="Use GET, POST, PUT, PATCH or DELETE.")
    headers = {"Idempotency-Key": context.idempotency_key}
    headers |= {name: in_a_line(context.render_within(value)) for name, value in _mapping(spec, "headers").items()}
    facts = {"inputs": _inputs(context), "hook_type": str(spec.hook_type), "node_id": context.node.id}
    body = context.render_within(spec.config["body"]) if spec.config.get("body") is not None else facts
    sent: dict[str, Any] = {"content": body} if isinstance(body, str) else {"json": body}
    redactor.add_named(headers)
    redactor.add_found(url)
    limit = _limit(spec)
    try:
        async with asyncio.timeout(limit):  # the request's own is for each piece of the answer
            response = await context.services.http.request(
                method, url, headers=headers, **({} if method == "GET" else sent), timeout=limit, max_retries=0
            )
    except TimeoutError:
        raise NodeTimeoutError(
            f"{method} {place_of(url)} took longer than the hook's limit of {limit:g} s.",
            hint="Give the node a larger `timeout` (seconds).",
        ) from None
    if not 200 <= response.status < 300:
        raise IntegrationError(
            f"{method} {response.url} answers {response.status}: {beginning(response.text)}",
            hint="Check the address and what it wants.",
            status=response.status,
        )
    return Output(answer_of(response), meta={"status": response.status, "url": response.url})


async def _event(context: NodeContext, spec: HookNode) -> Output:
    wanted = spec.config["subscribe_to"]
    if not isinstance(wanted, Mapping) or not wanted.get("event_name"):
        raise NodeExecutionError(
            "subscribe_to names no event.", hint="Write subscribe_to: {event_name: …, filters: {…}, timeout: 60}."
        )
    wanted = cast(Mapping[str, Any], wanted)
    name = f"{wanted['provider']}.{wanted['event_name']}" if wanted.get("provider") else str(wanted["event_name"])
    filters = context.render_within(wanted.get("filters") or {})
    try:
        timeout = float(wanted.get("timeout") or _limit(spec))
    except (TypeError, ValueError):
        raise NodeExecutionError(
            f"The timeout {wanted['timeout']!r} of subscribe_to is not a number.", hint="Write seconds."
        ) from None
    return Output(await context.execution.wait_for(context.node, name, filters, timeout), meta={"event": name})


async def _python(context: NodeContext, spec: HookNode) -> Output:
    script = str(spec.config.get("script") or spec.command or "")
    if not script:
        raise NodeExecutionError("The hook has no script.", hint="Set config.script to a Python file.")
    files = context.services.files
    code = await asyncio.to_thread(context.program, script, code=True)
    arguments = context.render_within(_mapping(spec, "args"))
    inputs = context.inputs
    if arguments:
        inputs = Inputs.named({**inputs.values, **arguments}, inputs.spread, inputs.stale)
    result = await context.execution.code.run_python(
        code,
        filename=script,
        inputs=inputs,
        variables=context.execution.progress.variables,
        node_id=context.node.id,
        function_name=str(spec.config.get("function") or "hook"),
        timeout=_limit(spec),
        shared=False,
        file=files.resolve(script),
    )
    return Output(result.value, meta={"stdout": result.stdout} if result.stdout else {})


async def _file(context: NodeContext, spec: HookNode) -> Output:
    path = context.file_name(context.render(str(spec.config.get("file_path") or spec.command or ""))).strip()
    if not path:
        raise NodeExecutionError("The hook names no file.", hint="Set config.file_path.")
    suffixes = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}
    form = str(spec.config.get("format") or suffixes.get(PurePosixPath(path).suffix.lower(), "text")).lower()
    value = _inputs(context)

    def write() -> int:
        match form:
            case "json":
                text = json_text(value, indent=2) + "\n"
            case "yaml" | "yml":
                text = stepwise_yaml.dumps(value)
            case "text" | "txt":
                text = as_text(plain(context.inputs.body))
            case _:
                raise NodeExecutionError(f"'{form}' is not a file hook format.", hint="Use json, yaml or text.")
        return context.services.files.write_text(path, text)

    size = await in_thread(write)
    return Output({"path": path, "bytes": size}, f"Wrote {path} ({size} bytes)", meta={"path": path})


def _inputs(context: NodeContext) -> dict[str, Any]:
    return {name: plain(value) for name, value in context.inputs.names({}).items()}


def _mapping(spec: HookNode, name: str) -> Mapping[str, Any]:
    value = spec.config.get(name) or {}
    if not isinstance(value, Mapping):
        raise ValidationError(f"config.{name} is not a mapping.", hint=f"Write {name} as `name: value` lines.")
    return cast(Mapping[str, Any], value)


def _limit(spec: HookNode) -> float:
    if spec.timeout is not None:
        return spec.timeout
    given = spec.config.get("timeout")
    return float(given) if isinstance(given, (int, float)) and given > 0 else HOOK_TIMEOUT


def _value(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text
