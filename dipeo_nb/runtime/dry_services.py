"""Services of a dry run: each notes what it was asked to do, does nothing, and gives a placeholder.

Files are read as they are; what is written is kept in memory, so that a later node reads what an earlier one wrote.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from dipeo_nb.common.redaction import redactor, scrubbed
from dipeo_nb.common.values import json_text
from dipeo_nb.domain.chat import LLMRequest, LLMResponse, StreamEvent, TokenUsage
from dipeo_nb.domain.enums import ExecutionPhase
from dipeo_nb.domain.nodes import CodeJobNode, HookNode
from dipeo_nb.domain.ports import (
    CodeResult,
    FileInfo,
    FileSystemPort,
    HTTPResponse,
    IntegrationPort,
    LLMServicePort,
    OfferedTool,
    Question,
)
from dipeo_nb.errors import StorageError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.handlers import code_job, hook
from dipeo_nb.execution.inputs import Output, plain
from dipeo_nb.execution.log_capture import node_at_work
from dipeo_nb.llm.providers.echo import EchoClient
from dipeo_nb.storage.json_db import DBOperationsDomainService
from dipeo_nb.storage.opening import open_file

SHOWN = 20_000
"""Characters of what an effect shows of a prompt, a body or a file."""
ROUNDS = 5
"""Effects of a node with the same target that are shown each for itself; further ones of a loop or a batch are counted with the last."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Something that a run would do."""

    node: str
    """Label of the node."""
    kind: str
    """`model`, `net`, `service`, `write`, `read`, `code`, `process`, `function`, `event`, `question` …, as in a listing of what a
    diagram wants."""
    what: str
    """The model, the address, the operation, the file, the program."""
    detail: str = ""
    """The prompt, the request, the content, the code. Keys are hidden."""
    reached: bool = True
    """Whether the dry run came to it; what it did not come to is listed as the diagram says it, with its templates."""


@dataclass
class Noted:
    """The effects so far, each once."""

    effects: dict[Effect, int] = field(default_factory=dict[Effect, int])
    """With the number of times."""
    _last: dict[tuple[str, str, str], tuple[int, Effect]] = field(
        default_factory=dict[tuple[str, str, str], tuple[int, Effect]]
    )
    """Node, kind and target → how many there are, and the last one."""

    def note(self, kind: str, what: str, detail: str = "", *, node: str | None = None) -> None:
        """Note an effect of the node at work."""
        if node is None:
            at_work = node_at_work()
            node = at_work.label if at_work is not None else ""
        cut = detail if len(detail) <= SHOWN else f"{detail[:SHOWN]}… ({len(detail)} characters)"
        effect = Effect(node, kind, redactor.text(what), redactor.text(cut))
        if effect not in self.effects:
            known, last = self._last.get((node, kind, what), (0, effect))
            if known >= ROUNDS:
                effect = last
            self._last[node, kind, what] = (known + 1, effect)
        self.effects[effect] = self.effects.get(effect, 0) + 1


def placeholder(what: str) -> str:
    """What stands for a value that only a run gives."""
    return f"‹{what}›"


class DryModels:
    """`LLMServicePort` that asks nobody: a text is a placeholder, a structure and a decision are made up by `echo`."""

    def __init__(self, noted: Noted, models: LLMServicePort, default: str) -> None:
        self._noted = noted
        self._models = models
        self._default = default

    @property
    def services(self) -> Sequence[str]:
        return self._models.services

    def __getattr__(self, name: str) -> Any:
        if name in ("batch", "check_server"):
            raise AttributeError(name)
        return getattr(self._models, name)

    async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
        name = str(request.context.get("node") or request.context.get("person") or "")
        model = f"{request.service}:{request.model}" if request.model else request.service or self._default
        self._noted.note("model", model, _asked(request), node=name or None)
        if request.response_format is not None or request.phase not in (
            ExecutionPhase.DEFAULT,
            ExecutionPhase.DIRECT_EXECUTION,
        ):
            made = replace(
                request, service="echo", model="", tools=(), base_url=None, api_key_id=None, extra={}, output_mode=None
            )
            async for event in EchoClient().stream(made):
                yield event
            return
        text = placeholder(f"answer of {request.context.get('person') or model}")
        yield StreamEvent("text", text)
        usage = TokenUsage(input=0, output=0, raw={"estimated": True})
        yield StreamEvent("end", response=LLMResponse(text, request.service, request.model, usage, cost_usd=0.0))

    async def complete(self, request: LLMRequest) -> LLMResponse:
        async for event in self.stream(request):
            if event.response is not None:
                return event.response
        raise AssertionError("a stream ends with a response")


def _asked(request: LLMRequest) -> str:
    lines = [f"{m.role}: {m.content}" for m in request.messages]
    if request.tools:
        lines.append(f"tools: {', '.join(str(t.name or t.type) for t in request.tools)}")
    if request.base_url:
        lines.append(f"server: {request.base_url}")
    if request.api_key_id:
        lines.append(f"key: {request.api_key_id}")
    return "\n".join(lines)


class DryHTTP:
    """`HTTPPort` that sends nothing."""

    def __init__(self, noted: Noted) -> None:
        self._noted = noted

    async def request(self, method: str, url: str, **options: Any) -> HTTPResponse:
        shown = url.partition("?")[0]
        self._noted.note("net", f"{method} {shown}", _request_text(url, options))
        body = placeholder(f"answer of {method} {redactor.text(shown)}").encode()
        return HTTPResponse(200, {"content-type": "text/plain; charset=utf-8"}, body, "utf-8", shown, 1)


def _request_text(url: str, options: Mapping[str, Any]) -> str:
    lines = [f"url: {scrubbed(url)}"]
    lines += [f"{name}: {value}" for name, value in scrubbed(dict(options.get("headers") or {})).items()]
    if options.get("params"):
        lines.append(f"query: {json_text(scrubbed(plain(options['params'])))}")
    body = options.get("content") if options.get("content") is not None else options.get("json")
    if body is not None:
        lines.append(f"body: {body if isinstance(body, str) else json_text(scrubbed(plain(body)))}")
    return "\n".join(lines)


class DryIntegrations:
    """`IntegrationPort` that calls nothing, and starts no server of tools."""

    def __init__(self, noted: Noted, integrations: IntegrationPort) -> None:
        self._noted = noted
        self._integrations = integrations

    def __getattr__(self, name: str) -> Any:
        return getattr(self._integrations, name)

    def operations(self) -> Mapping[str, Sequence[str]]:
        return self._integrations.operations()

    async def offered(self, name: str) -> Sequence[OfferedTool]:
        if name.startswith("mcp_"):
            self._noted.note("service", name, "a server of tools, which is started; the model may call them")
            return ()
        return await cast(Any, self._integrations).offered(name)

    async def execute(self, provider: str, operation: str, **options: Any) -> Any:
        config, resource_id = options.get("config") or {}, options.get("resource_id")
        preview = None if provider.startswith("mcp_") else getattr(self._integrations, "preview", None)
        shown = {"parameters": dict(config)} if preview is None else preview(provider, operation, config, resource_id)
        shown = {name: value for name, value in shown.items() if name != "operation"}
        pages = {name: options[name] for name in ("all", "limit") if options.get(name)}
        name = f"{provider}.{operation}"
        self._noted.note("service", name, json_text(scrubbed(plain({**shown, **pages})), indent=2))
        return placeholder(f"result of {name}")


class DryFiles:
    """`FileSystemPort` over real files that writes into memory."""

    def __init__(self, noted: Noted, files: FileSystemPort) -> None:
        self._noted = noted
        self._files = files
        self._written: dict[Path, bytes | None] = {}
        """By their whole paths; None: removed."""

    @property
    def base_path(self) -> Path:
        return self._files.base_path

    def resolve(self, path: str | Path) -> Path:
        return self._files.resolve(path)

    def read_bytes(self, path: str | Path) -> bytes:
        data = self._content(path)
        self._noted.note("read", str(path))
        return self._files.read_bytes(path) if data is None else data

    def read_text(self, path: str | Path) -> str:
        if self._content(path) is None:
            self._noted.note("read", str(path))
            return self._files.read_text(path)
        return self.read_bytes(path).decode("utf-8-sig")

    def write_bytes(self, path: str | Path, data: bytes, *, create_only: bool = False) -> int:
        if create_only and self.exists(path):
            raise StorageError(
                f"Cannot write '{path}': there is a file of that name already.",
                hint="Choose another name.",
                operation="write",
                path=str(path),
                cause="exists",
            )
        self._noted.note("write", str(path), data.decode("utf-8", "replace"))
        self._written[self.resolve(path)] = bytes(data)
        return len(data)

    def write_text(self, path: str | Path, text: str, *, create_only: bool = False) -> int:
        return self.write_bytes(path, text.encode("utf-8", "backslashreplace"), create_only=create_only)

    def exists(self, path: str | Path) -> bool:
        place = self.resolve(path)
        return self._written[place] is not None if place in self._written else self._files.exists(path)

    def stat(self, path: str | Path) -> FileInfo:
        data = self._content(path)
        return self._files.stat(path) if data is None else FileInfo(self.resolve(path), len(data), 0.0)

    def size(self, path: str | Path) -> int:
        return self.stat(path).size

    def glob(self, pattern: str) -> list[Path]:
        return self._files.glob(pattern)

    def listdir(self, path: str | Path = ".") -> list[Path]:
        return self._files.listdir(path)

    def open(self, path: str | Path, mode: str = "r", encoding: str = "utf-8") -> Any:
        return open_file(self, path, mode, encoding)

    def remove(self, path: str | Path) -> None:
        self.stat(path)
        self._noted.note("write", str(path), "is removed")
        self._written[self.resolve(path)] = None

    def mkdir(self, path: str | Path, parents: bool = True, exist_ok: bool = True) -> None:
        self._noted.note("write", str(path), "a folder")

    def rename(self, source: str | Path, target: str | Path) -> None:
        self.copy(source, target)
        self.remove(source)

    def rmdir(self, path: str | Path, recursive: bool = False) -> None:
        self._noted.note("write", str(path), "a folder is removed")

    def copy(self, source: str | Path, target: str | Path) -> None:
        self.write_bytes(target, self.read_bytes(source))

    def _content(self, path: str | Path) -> bytes | None:
        """What was written; None: nothing. Raises StorageError when it was removed."""
        place = self.resolve(path)
        if place in self._written and self._written[place] is None:
            raise StorageError(
                f"Cannot read '{path}': there is no such file.", hint="Check the name.", operation="read", path=str(path),
                cause="not_found",
            )  # fmt: skip
        return self._written.get(place)


class DryDb(DBOperationsDomainService):
    """`DBOperationsPort` over `DryFiles`: no lock is taken, as that is a file."""

    @contextmanager
    def locked(self, path: str) -> Iterator[None]:
        yield


class DryCode:
    """`CodeRunner` that runs nothing: code in hooks."""

    def __init__(self, noted: Noted) -> None:
        self._noted = noted

    async def run_python(self, code: str, *, filename: str, **options: Any) -> CodeResult:
        self._noted.note("code", f"python: {filename}", code)
        return CodeResult(placeholder(f"result of {filename}"), {}, "")

    async def cleanup(self) -> None:
        """Nothing to end."""


class DryAnswers:
    """`InteractionPort` of what nobody has answered beforehand."""

    def __init__(self, noted: Noted) -> None:
        self._noted = noted

    async def ask(self, question: Question) -> tuple[str, str]:
        self._noted.note("question", question.prompt, node=question.label)
        answer = placeholder(f"answer to {question.label}") if question.default is None else question.default
        return answer, "dry run"


class DryNodes:
    """The work of nodes that reach the world without a service: programs, and functions of the user's."""

    def __init__(self, noted: Noted, built_in: frozenset[str]) -> None:
        self._noted = noted
        self._built_in = built_in

    def instead(self, node_type: str) -> Callable[[NodeContext], Any] | None:
        """See `RunOptions.instead`."""
        if node_type not in self._built_in:
            return self._function
        return {"code_job": self._code, "hook": self._hook}.get(node_type)

    async def _code(self, context: NodeContext) -> Output:
        spec = cast(CodeJobNode, context.node.spec)
        code, name, _ = await asyncio.to_thread(code_job.source, context, spec)
        self._noted.note("code", f"{spec.language}: {name}", code)
        return Output(placeholder(f"result of {context.node.label}"))

    async def _hook(self, context: NodeContext) -> Output:
        spec = cast(HookNode, context.node.spec)
        command, given = spec.command or spec.config.get("command"), spec.config.get("args")
        if spec.config.get("subscribe_to"):
            self._noted.note("event", json_text(context.render_within(spec.config["subscribe_to"])))
        elif spec.hook_type == "shell" and isinstance(command, str) and command.strip():
            if given:
                words = hook.words_of(context, [command, *([given] if isinstance(given, str) else map(str, given))])
                self._noted.note("process", words[0], json_text(words))
            else:
                text = context.render_shell(command)
                values = "".join(f"\n{name}={value}" for name, value in sorted(text.environment.items()))
                self._noted.note("process", "sh", f"{text.command}{values}")
        else:
            return await hook.execute(context)
        return Output(placeholder(f"result of {context.node.label}"))

    async def _function(self, context: NodeContext) -> Output:
        given = {name: plain(value) for name, value in context.inputs.values.items()}
        self._noted.note("function", context.node.type, json_text(given))
        return Output(placeholder(f"result of {context.node.label}"))
