"""What runs of diagrams really do, seen by audit hooks, against the list that is shown before them. Run as a program of its own
(`python -m tests.support.observed_effects`), since an audit hook stays in its process for ever.

Diagrams are made at random from the fields of all node types, hostile values among them. Each is run after a yes, as a guest, and as a
guest with something allowed. Whatever the process does meanwhile (files by name or by the handle of their folder, servers, programs,
services) must be on the list of the diagram, and for a guest among what guests may do.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import random
import sys
import tempfile
import threading
import types
import typing
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

BUILT_INTO = (
    *{os.path.realpath(place) for place in (sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), Path(__file__).parents[2] / "dipeo_nb")},
    "/dev/null", "/dev/urandom", "/proc/", "/etc/", "/usr/", "/lib", "/sys/",
)  # fmt: skip
"""Places of the interpreter and the system."""
DIAGRAM_ENDINGS = (".yaml", ".yml", ".json")


class Effect(NamedTuple):
    """One thing that the process did."""

    kind: str
    """read, write, list, net, name (an address looked up), host (a name that a server was called by), process, load; and what the services of the harness were asked for:
    code, service, function, model."""
    what: str


class Recorder:
    """Notes effects while it is on."""

    def __init__(self) -> None:
        self.found: set[Effect] = set()
        self.on = False
        self._folder = threading.local()
        self._wrap_open()
        sys.addaudithook(self._hook)

    @contextmanager
    def recording(self) -> Iterator[set[Effect]]:
        self.found, self.on = set(), True
        try:
            yield self.found
        finally:
            self.on = False

    def note(self, kind: str, what: str) -> None:
        if self.on:
            self.found.add(Effect(kind, what))

    def _wrap_open(self) -> None:
        """Audit events of `os.open` do not tell the folder that a name is relative to."""
        original = os.open

        def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if dir_fd is None:
                return original(path, flags, mode)
            self._folder.fd = dir_fd
            try:
                return original(path, flags, mode, dir_fd=dir_fd)
            finally:
                self._folder.fd = None

        os.open = opened

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        try:
            self._see(event, args)
        except Exception as error:
            self.found.add(Effect("error", f"{event} {args!r:.200}: {error!r}"))

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        match event:
            case "open":
                path, _, flags = args
                if isinstance(path, int):
                    return
                flags = flags or 0
                if flags & getattr(os, "O_DIRECTORY", 0) or flags & getattr(os, "O_PATH", 0):
                    return  # on the way to something
                writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
                self.note("write" if writing else "read", self._place(path, getattr(self._folder, "fd", None)))
            case "os.remove" | "os.rmdir":
                self.note("write", self._place(args[0], args[1]))
            case "os.mkdir" | "os.chmod":
                self.note("write", self._place(args[0], args[2]))
            case "os.chown" | "os.utime":
                self.note("write", self._place(args[0], args[3]))
            case "os.truncate" | "os.setxattr" | "os.removexattr" | "sqlite3.connect":
                self.note("write", self._place(args[0], -1))
            case "os.rename" | "os.link":
                self.note("write", self._place(args[0], args[2]))
                self.note("write", self._place(args[1], args[3]))
            case "os.symlink":
                self.note("write", self._place(args[1], args[2]))
            case "os.listdir" | "os.scandir":
                self.note("list", self._place(args[0] if args[0] is not None else ".", -1))
            case "socket.connect":
                address = args[1]
                host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
                self.note("net", f"{host}:{address[1]}" if isinstance(address, tuple) else f"unix:{address}")
            case "socket.sendto" | "socket.bind":
                self.note("net", repr(args[1]))
            case "socket.getaddrinfo" | "socket.gethostbyname":
                self.note("name", args[0].decode() if isinstance(args[0], bytes) else str(args[0]))
            case "subprocess.Popen":
                self.note("process", " ".join(map(os.fsdecode, args[1])) if not isinstance(args[1], str) else args[1])
            case (
                "os.exec"
                | "os.posix_spawn"
                | "os.spawn"
                | "os.system"
                | "os.fork"
                | "os.forkpty"
                | "pty.spawn"
                | "os.startfile"
            ):
                self.note("process", f"{event} {args!r:.100}")
            case "ctypes.dlopen":
                self.note("load", str(args[0]))
            case "import" if args[1] is not None:
                self.note("load", str(args[1]))
            case _:
                pass

    def _place(self, path: Any, folder: int | None) -> str:
        if isinstance(path, int):
            return os.path.realpath(f"/proc/self/fd/{path}")
        text = os.fsdecode(path)
        if folder is not None and folder >= 0 and not os.path.isabs(text):
            text = os.path.join(os.path.realpath(f"/proc/self/fd/{folder}"), text)
        head, tail = os.path.split(os.path.abspath(text))
        return os.path.join(os.path.realpath(head), tail)


class Server:
    """A server of this machine; `/redirect` leads to *other*. *note* is called with the names in its requests."""

    def __init__(self, other: str = "", note: Callable[[str, str], None] = lambda kind, what: None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                note("host", str(self.headers.get("host")))
                self.rfile.read(int(self.headers.get("content-length") or 0))
                moved = other and self.path.startswith("/redirect")
                self.send_response(307 if moved else 200)
                if moved:
                    self.send_header("location", other)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


_WATCHED = """
import os, sys
def _watch(event, args, opened=os.open({opened!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), write=os.write):
    if event == "open" and isinstance(args[0], str) and args[0].startswith({base!r}) and args[0].endswith((".py", ".pyc", ".so")):
        write(opened, (args[0] + chr(10)).encode())
sys.addaudithook(_watch)
del _watch
"""
"""What the process of code does first."""


class World:
    """A folder that nobody has trusted, with what is in it and beside it, and a runtime whose services note what they are asked."""

    def __init__(self, folder: Path) -> None:
        from dipeo_nb.execution import code_runner

        self.base = folder / "clone"
        self.recorder = Recorder()
        self.other = Server(note=self.recorder.note)
        self.server = Server(f"{self.other.url}/moved", self.recorder.note)
        os.environ |= {
            "DIPEO_BASE_DIR": str(self.base),
            "DIPEO_DATA_DIR": str(folder / "data"),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        os.environ.pop("DIPEO_TRUST", None)
        self.base.mkdir(parents=True)
        os.chdir(self.base)
        self.opened = folder / "opened.txt"
        """Files of modules below the base directory that processes of code have opened; all of them are to be had as they were shown."""
        code_runner._LAUNCH = _WATCHED.format(base=str(self.base), opened=str(self.opened)) + code_runner._LAUNCH
        self.files = {
            "data/a.csv": "x,y\n1,2\n", "data/b.json": '{"k": 1}', "notes.json": '{"a": 1}', "secret.json": '{"s": 1}', "sub/c.txt": "c",
            ".env": "X=1", "dipeo.toml": "", ".git/config": "", "t.j2": "{% include 'part.j2' %}", "part.j2": "p {{default}}",
            "prompts/p.txt": "Say", "s.json": '{"type": "object"}', "work.py": "import helper\ndef main(inputs):\n    return helper.x\n",
            "helper.py": "x = 1\n", "unshown.py": "raise SystemError\n", "yaml.py": "raise SystemError\n", "../outside.txt": "o",
            "../evil.light.yaml": json.dumps(light([])), "mod.py": "def prepare(names):\n    return {}\ndef hook(inputs):\n    return 1\n",
            "talk.light.yaml": json.dumps(light([node("person_job", "T", person="A", default_prompt="Hi")])),
            "code.light.yaml": json.dumps(light([node("code_job", "C", code="return 1")])),
            "filed.light.yaml": json.dumps(light([node("code_job", "C", file_path="work.py"), node("template_job", "W", template_path="t.j2")])),
            "work.sh": "true\n",
            "writer.light.yaml": json.dumps(light([node("template_job", "W", template_content="w", output_path="from_child.txt")])),
        }  # fmt: skip
        self.reset()
        self.runtime = self._runtime()

    def reset(self) -> None:
        """Everything as it was; what runs have written is gone."""
        import shutil

        for entry in self.base.iterdir():
            if entry.name not in (".dipeo",):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        for name, text in self.files.items():
            path = self.base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.base / "link.txt").symlink_to("../outside.txt")
        (self.base / "linked").symlink_to("..")
        (self.base / "inner.json").symlink_to("secret.json")

    def _runtime(self) -> Any:
        from dipeo_nb.config import reset_settings
        from dipeo_nb.domain.chat import LLMRequest, StreamEvent
        from dipeo_nb.domain.enums import NodeCategory
        from dipeo_nb.domain.nodes import NODE_SPECS, NodeMeta, NodeSpec, register_node_spec, spec
        from dipeo_nb.domain.ports import CodeResult
        from dipeo_nb.execution import handlers
        from dipeo_nb.execution.code_runner import ProcessCodeRunner
        from dipeo_nb.execution.inputs import Output
        from dipeo_nb.execution.state.in_memory import InMemoryRunStore
        from dipeo_nb.runtime import Runtime
        from dipeo_nb.testing import ScriptedClient

        reset_settings()
        note, base = self.recorder.note, self.base
        world = self

        @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
        class OfTheUser(NodeSpec):
            META: typing.ClassVar = NodeMeta("of_the_user", NodeCategory.UTILITY, "A function of the user's own")
            value: str = spec("")

        async def work(context: Any) -> Any:
            """A function of the user's own; what it is asked for may be more than the diagram was allowed."""
            note("function", "of_the_user")
            services = context.services
            match context.node.spec.value:
                case "models":
                    request = LLMRequest("openai", "m", (), base_url="http://127.0.0.1:9/v1")
                    await services.llm.complete(request)
                case "integrations":
                    await services.integrations.execute("notion", "write")
                case "ir":
                    await services.ir.build({}, {"config_path": "secret.json"})
                case "code":
                    await context.execution.code.run_python("1", filename="<own>")
                case "files":
                    services.files.read_bytes("secret.json")
                case "db":
                    await services.db.execute_operation("secret.json", "read")
                case "http":
                    await services.http.request("GET", world.other.url)
                case _:
                    pass
            return Output(1)

        if "of_the_user" not in NODE_SPECS:
            register_node_spec(OfTheUser)
            handlers.register("of_the_user", work)

        class Models(ScriptedClient):
            async def stream(self, request: LLMRequest) -> AsyncIterator[StreamEvent]:
                note("model", f"{request.service}:{request.model or 'default'}")
                if request.base_url:
                    note("net", request.base_url.partition("://")[2].partition("/")[0])
                for tool in request.tools or ():
                    note("tool", str(tool))
                async for event in super().stream(request):
                    yield event

        class Runner:
            """Notes that code would run; real code of some diagrams does."""

            def __init__(self) -> None:
                self.real = ProcessCodeRunner(base) if world.real_code else None

            async def run_python(self, code: str, **options: Any) -> Any:
                note("code", options["filename"])
                if self.real is not None:
                    return await self.real.run_python(code, **options)
                return CodeResult(1, {}, "")

            async def cleanup(self) -> None:
                if self.real is not None:
                    await self.real.cleanup()

        from dipeo_nb.execution.external_events import Signals

        async def wait(self: Any, name: str, filters: Any) -> Any:
            note("event", name)
            return types.SimpleNamespace(payload={})

        Signals.wait = wait  # type: ignore[method-assign]

        class Integrations:
            def operations(self) -> Mapping[str, Sequence[str]]:
                return {"notion": ("read", "write")}

            async def execute(self, provider: str, operation: str, **options: Any) -> Any:
                note("service", f"{provider}.{operation}")
                return {}

        class Parser:
            async def parse(self, sources: Mapping[str, str], options: Mapping[str, Any]) -> Mapping[str, Any]:
                return {name: {} for name in sources}

        class Builder:
            async def build(self, source: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
                if path := options.get("config_path"):
                    note("read", os.path.abspath(os.path.join(base, path)))
                return {"data": {}, "metadata": {}}

        self.real_code = False
        """Whether code is run; else it is only noted."""
        self.names: set[str] = set()
        """First words of the names of diagrams in the one that runs."""
        self.unusable: set[str] = set()
        return Runtime(
            llm=Models("notes"),
            store=InMemoryRunStore(),
            code=lambda: Runner(),
            integrations=Integrations(),
            typescript=Parser(),
            ir=Builder(),
        )


def node(kind: str, label: str, **props: Any) -> dict[str, Any]:
    return {"label": label, "type": kind, "props": props}


def light(nodes: Sequence[Mapping[str, Any]], **inputs: Any) -> dict[str, Any]:
    """A chain of nodes as a light diagram."""
    chain = [
        {"label": "Start", "type": "start", "props": {"custom_data": inputs}},
        *nodes,
        {"label": "End", "type": "endpoint"},
    ]
    arrows: list[dict[str, str]] = []
    last = chain[0]
    for one in chain[1:]:
        arrows.append({"from": last["label"] + ("_condtrue" if last["type"] == "condition" else ""), "to": one["label"]})
        last = last if one["type"] == "endpoint" else one
    persons = {
        "A": {"service": "openai", "model": "gpt-5-nano"},
        "B": {"service": "echo", "model": "echo"},
        "C": {"service": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"},
    }
    return {"version": "light", "persons": persons, "nodes": chain, "connections": arrows}


# Diagrams at random.

NAMES = (
    "notes.json", "data/a.csv", "data/{which}.csv", "data/{{which}}.json", "data/*.csv", "*.json", "sub/c.txt", "sub/../secret.json",
    "secret.json", "inner.json", "link.txt", "linked/outside.txt", "../outside.txt", "../{which}", ".env", "dipeo.toml", ".git/config", "{path}",
    "{{path}}", "/etc/passwd", "BASE/notes.json", "NOTES.JSON", "made.json", "made.txt", "made.py", "made.light.yaml", "{which}/{which}",
    "nowhere/x.txt", "bare", "s.json", "helper.py", "work.py", "{which}.json", "~/x", "http://127.0.0.1:9/x", "a\u0000b", "  notes.json ",
)  # fmt: skip
DIAGRAMS = (
    "talk",
    "filed",
    "code",
    "writer",
    "talk.light.yaml",
    "{which}",
    "../evil",
    "linked/evil",
    "nowhere",
    "code.light.yaml",
    "made",
    "{path}",
)
TEXTS = (
    "Hi {{which}}", "{{default}}", "{% include 'part.j2' %}", "{% include path %}", "{% import 't.j2' as t %}", "{% extends '../outside.txt' %}",
    "{% include ['nowhere', 'secret.json'] %}", "{{ cycler.__init__.__globals__ }}", "text",
)  # fmt: skip
INPUTS = {
    "which": ("a", "b", "../secret", "../../outside", ".env", "*", "code", "filed", "talk", "secret", "data"),
    "path": (
        "notes.json",
        "../outside.txt",
        ".env",
        "/etc/passwd",
        "secret.json",
        "link.txt",
        "part.j2",
        "helper.py",
        "code.light.yaml",
    ),
    "host": ("127.0.0.1", "localhost"),
}
ALLOWED: tuple[dict[str, Any], ...] = (
    {"read": "data/*"}, {"read": True}, {"write": "made.json"}, {"write": True}, {"net": True}, {"code": True}, {"process": True},
    {"read": "notes.json", "write": "sub/"}, {"service": True}, {"function": True}, {"diagram": True}, {"read": True, "write": True, "net": True},
    {"diagram": "filed", "code": True}, {"diagram": "talk"},
    {"code": True, "read": True, "write": True, "net": True, "process": True, "service": True, "function": True, "diagram": True},
)  # fmt: skip


GENTLE = ("person_job", "template_job", "endpoint", "condition", "user_response", "json_schema_validator", "sub_diagram", "db")


class Maker:
    """Makes diagrams from the fields of node types."""

    def __init__(self, chance: random.Random, world: World) -> None:
        self.chance, self.world = chance, world
        self.count = 0
        self.gentle = chance.random() < 0.5
        """Whether it is to be what guests may run: models, templates, files of its own."""

    def urls(self) -> Sequence[str]:
        server, other = self.world.server.url, self.world.other.url
        port = server.rpartition(":")[2]
        return (
            f"{server}/x", f"{server}/{{{{which}}}}", f"{server}/redirect", other, "{{url}}", f"http://{{{{host}}}}:{port}/x",
            f"http://localhost:{port}/", f"{server}{{{{which}}}}", f"http://127.0.0.1:{port}@127.0.0.1:9/", "file:///etc/passwd", "http://[::1]:9/",
        )  # fmt: skip

    def value(self, kind: str, f: Any, annotation: Any) -> Any:
        """A value of a field, by its metadata and type."""
        pick, meta = self.chance.choice, f.metadata
        if kind == "sub_diagram" and f.name == "diagram_name":
            return pick(DIAGRAMS)
        if f.name == "url" or "net" in str(meta.get("effect", "")):
            return pick(self.urls())
        if meta.get("prompt_file"):
            return pick(("p.txt", "prompts/p.txt", "sub/c.txt", "notes.json"))
        if f.name == "text_format_file":
            return "s.json"
        if meta.get("path"):
            return pick(NAMES)
        if meta.get("choices"):
            return pick(meta["choices"])
        kinds = [a for a in (typing.get_args(annotation) or (annotation,)) if a is not types.NoneType]
        one = pick(kinds)
        if isinstance(one, type) and issubclass(one, enum.Enum):
            return str(pick(list(one)))
        if one is bool:
            return pick((True, False))
        if one in (int, float):
            return pick((0, 1, 2))
        if one is str:
            return pick(TEXTS)
        return f.default if f.default is not dataclasses.MISSING else None

    def fields(self, kind: str) -> dict[str, Any]:
        from dipeo_nb.domain.nodes import NODE_SPECS, NodeSpec

        spec = NODE_SPECS[kind]
        hints = typing.get_type_hints(spec)
        common = {f.name for f in dataclasses.fields(NodeSpec)}
        found = {}
        for f in dataclasses.fields(spec):
            if f.name not in common and self.chance.random() < (0.75 if f.metadata.get("effect") else 0.25):
                value = self.value(kind, f, hints[f.name])
                if value is not None:
                    found[f.name] = value
        return found

    def node(self, depth: int = 0) -> dict[str, Any]:
        from dipeo_nb.domain.nodes import NODE_SPECS

        pick = self.chance.choice
        self.count += 1
        label = f"N{self.count}"
        kind = pick(GENTLE if self.gentle else [k for k in NODE_SPECS if k != "start"])
        props = self.fields(kind)
        match kind:
            case "person_job":
                props |= {
                    "person": pick("AABC"),
                    "default_prompt": pick(TEXTS),
                    "max_iteration": 1,
                    "batch": False,
                    "text_format": None,
                }
                props["tools"] = pick((None, None, "websearch", "image", [{"type": "custom", "name": "f"}]))
                if self.gentle:
                    props |= {"person": pick("AB"), "tools": None}
            case "condition":
                props = {"condition_type": "custom", "expression": "True"}
                if self.chance.random() < 0.2:
                    props = {"condition_type": "llm_decision", "person": pick("AC"), "judge_by": "Is it? YES"}
            case "code_job":
                language = pick(("python", "python", "python", "bash", "shell"))
                code = {
                    "python": pick(("return 1", "import helper\nreturn helper.x", "x = 1", "work.py")),
                    "bash": "echo 1",
                    "shell": "echo 1",
                }[language]
                props = (
                    {"language": language, "code": code}
                    if self.chance.random() < 0.7
                    else {"file_path": pick(("work.py", "helper.py", *NAMES))}
                )
            case "api_job":
                props = {"url": pick(self.urls()), "method": pick(("GET", "POST")), "timeout": 1}
                if self.chance.random() < 0.3:
                    props["headers"] = {pick(("Host", "host")): pick(("elsewhere.example.org", "{{host}}"))}
            case "db":
                props |= {"data": {"v": 1}, "collection": None, "query": None}
                if self.gentle:
                    props |= {
                        "operation": pick(("write", "write", "read")),
                        "file": pick(("made.json", "made.txt", "made.py", *NAMES)),
                    }
                if self.chance.random() < 0.2:
                    props["file"] = [pick(NAMES), pick(NAMES)]
            case "user_response":
                props = {"prompt": "?", "default": "yes", "timeout": 0.01}
            case "hook":
                props = self.hook()
            case "template_job":
                props["preprocessor"] = None if self.gentle else pick((None, None, None, "mod.prepare"))
                props["variables"] = {}
                if self.chance.random() < 0.6:
                    props["template_content"] = pick(TEXTS)
            case "json_schema_validator":
                props["json_schema"] = pick((None, True, {"type": "object"}))
                if self.gentle:
                    props.pop("data_path", None)
            case "sub_diagram":
                props = {
                    k: v
                    for k, v in props.items()
                    if k in ("diagram_name", "wait_for_completion", "isolate_conversation", "ignore_if_sub")
                }
                if depth < 3 and self.chance.random() < 0.6:
                    props |= {"diagram_data": self.diagram(depth + 1)}
            case "integrated_api":
                props = {"provider": "notion", "operation": pick(("read", "write"))}
            case "diff_patch":
                props |= {"diff": "--- a\n+++ b\n@@ -1 +1 @@\n-c\n+d\n", "apply_mode": pick(("normal", "force", "dry_run"))}
                props.setdefault("target_path", pick(NAMES))
            case "typescript_ast":
                props = {"file": pick(NAMES)} if self.chance.random() < 0.8 else {"source": "type A = 1"}
            case "ir_builder":
                props = (
                    {"config_path": pick(("notes.json", "secret.json", "data/b.json"))} if self.chance.random() < 0.8 else {}
                )
            case _:
                pass
        return node(kind, label, on_error="continue", **{k: self.placed(v) for k, v in props.items() if v is not None})

    def placed(self, value: Any) -> Any:
        return value.replace("BASE", str(self.world.base)) if isinstance(value, str) else value

    def hook(self) -> dict[str, Any]:
        pick = self.chance.choice
        kind = pick(("shell", "http", "python", "file"))
        match kind:
            case "shell":
                config = pick(
                    (
                        {"command": "true"},
                        {"command": "echo", "args": ["{{which}}"]},
                        {"command": "true", "cwd": pick(("sub", "..", ".git"))},
                        {
                            "command": pick(("sh work.sh", "./work.sh", ". ./work.sh", "sh made.txt", "python3 work.py")),
                            "env": {"BASH_ENV": "work.sh"},
                        },
                    )
                )
            case "http":
                config = pick(
                    ({"url": pick(self.urls()), "timeout": 1}, {"url": pick(self.urls()), "method": "GET", "timeout": 1})
                )
            case "python":
                config = {"script": pick(("mod.py", *NAMES))}
            case _:
                config = {"file_path": pick(NAMES)}
        return {"hook_type": kind, "config": config}

    def diagram(self, depth: int = 0) -> dict[str, Any]:
        return light([self.node(depth) for _ in range(self.chance.randint(1, 3))])

    def inputs(self) -> dict[str, Any]:
        found = {name: self.chance.choice(values) for name, values in INPUTS.items()}
        return {
            **found,
            "url": self.chance.choice(
                (f"{self.world.server.url}/x", f"{self.world.server.url}/redirect", self.world.other.url)
            ),
        }


# Running them, and what is right.


class Outcome(NamedTuple):
    """What a run did that was not shown, and what it did."""

    problems: list[str]
    seen: set[Effect]
    refused: bool
    """Whether it was asked about, so that nothing ran."""


def observed(
    world: World,
    data: Mapping[str, Any],
    *,
    inputs: Mapping[str, Any],
    trust: bool | None,
    allow: Mapping[str, Any] | None = None,
) -> Outcome:
    """Run a diagram of a file as it is."""
    from dipeo_nb.common.loop import run_sync
    from dipeo_nb.domain.capabilities import granted_by
    from dipeo_nb.errors import TrustError

    path = world.base / "d.light.yaml"
    path.write_text(json.dumps(data))
    with world.recorder.recording() as read:
        try:
            prepared = world.runtime.prepare(path, trust=trust, allow=allow)
        except TrustError:
            prepared = None
    if prepared is None:  # a refusal says which settings of the folder wait for a yes, too
        read -= {Effect("read", os.path.join(world.base, name)) for name in (".env", "dipeo.toml")}
        read -= {Effect("read", os.path.join(os.path.dirname(world.base), "config/dipeo-nb/config.toml"))}
    problems = [f"while it was looked at: {effect}" for effect in sorted(read) if not may_look(world, effect)]
    if prepared is None:
        return Outcome(problems, read, True)
    with world.recorder.recording() as seen:
        execution = world.runtime.execution(prepared, variables=inputs, timeout=20)
        run_sync(world.runtime.run(execution))
    if world.opened.exists() and (opened := set(world.opened.read_text().split("\n")[:-1])):
        problems.append(f"code has imported from the disk: {opened}")
        world.opened.unlink()
    level = "trusted" if trust else "guest"
    world.unusable = _prompts(world, data)
    shown = prepared.gate.closure
    problems += [
        f"not in the list: {effect}"
        for effect in sorted(read)
        if effect.kind == "read" and not _may_touch(world, *effect, shown, shown.uses, guest=False, code=False)
    ]
    granted = granted_by(allow or {})
    problems += [
        f"{level}: {effect}" for effect in sorted(seen) if not may(world, effect, shown, guest=not trust, granted=granted)
    ]
    return Outcome(problems, read | seen, False)


def may_look(world: World, effect: Effect) -> bool:
    """Whether an effect is one of reading and checking a diagram: files below the base directory that are not protected."""
    kind, what = effect
    name = os.path.relpath(what, world.base)
    if kind in ("read", "list") and not name.startswith("..") and name != "dipeo.toml":
        return not any(part.startswith(".") and part != "." for part in name.split("/"))
    return kind in ("read", "list", "write", "load") and _is_own(world, kind, what)


def _is_own(world: World, kind: str, what: str) -> bool:
    """Whether a file is of the interpreter, or the user's record of trust."""
    data = os.path.join(os.path.dirname(world.base), "data")
    if what == data or what.startswith(f"{data}/"):
        return True
    if what.startswith(BUILT_INTO) and "/__pycache__/" in what:  # modules that are imported when they are first used
        return True
    return (
        kind != "write"
        and (what.startswith(BUILT_INTO) or (kind == "load" and "/" not in what))
        and not what.endswith(("/passwd", "/shadow", "/environ"))
    )


def _prompts(world: World, data: Any) -> set[str]:
    """Files that the compiler has read of diagrams that then cannot run, so that nothing becomes of them."""
    from dipeo_nb.diagram.document import load
    from dipeo_nb.errors import DipeoError

    found: set[str] = set()
    for item in data.get("nodes", ()):
        props = item.get("props", {})
        if inner := props.get("diagram_data"):
            found |= _prompts(world, inner)
            try:
                load(inner, base_dir=world.base).compile(base_dir=world.base)
            except DipeoError:
                given = [pair for n in inner["nodes"] for pair in n.get("props", {}).items()]
                found |= {
                    value
                    for name, value in given
                    if name.endswith(("_file", "_path")) and isinstance(value, str) and "\0" not in value
                }
    found |= {f"prompts/{name}" for name in found}
    return found | {os.path.relpath(os.path.realpath(world.base / name), world.base) for name in found}


def may(world: World, effect: Effect, found: Any, *, guest: bool, granted: Any) -> bool:
    """Whether an effect is one that was shown, and one that the level may have."""
    from dipeo_nb.domain.capabilities import ANY, ANY_DIAGRAM

    kind, what = effect
    uses = granted if guest else found.uses
    code = any(use.kind in ("code", "process") for use in uses)
    if kind in ("read", "write", "list"):
        return _may_touch(world, kind, what, found, uses, guest=guest, code=code)
    if kind in ("net", "name", "host"):
        if what.startswith("unix:"):
            return False
        hosts = [u.what.replace("localhost", "127.0.0.1") for u in uses if u.kind == "net"]
        wanted = what.replace("localhost", "127.0.0.1")
        named = [host.partition("://")[2] for host in hosts]
        return ANY in hosts or (
            wanted in named if kind != "name" else any(wanted == host.rpartition(":")[0].strip("[]") for host in named)
        )
    if kind == "process":
        return "dipeo_nb.workers.child" in what or what.endswith("--version") or code
    if kind == "load":
        return _is_own(world, kind, what)
    if kind == "code":
        return any(use.kind == "code" for use in uses)
    if kind == "function":
        return any(use.kind == "function" for use in uses)
    if kind == "tool":
        return any(use.kind in ("service", "function") for use in uses)
    if kind == "event":  # of its own run
        return found.uses.covers("event", what)
    if kind == "model":
        return any(use.kind == "model" and use.what == what for use in found.uses) or _opens(uses, ANY_DIAGRAM)
    return uses.covers(kind, what)


def _opens(uses: Any, what: str) -> bool:
    return uses.covers("diagram", what)


def _may_touch(world: World, kind: str, what: str, found: Any, uses: Any, *, guest: bool, code: bool) -> bool:
    from dipeo_nb.domain.capabilities import ANY_DIAGRAM, ANYWHERE

    base = str(world.base)
    if _is_own(world, kind, what):
        return True
    if what != base and not what.startswith(f"{base}/"):
        return code and what.startswith(os.path.join(tempfile.gettempdir(), "dipeo-"))
    name = os.path.relpath(what, base)
    if name in (".dipeo", ".dipeo/locks") or name.startswith(".dipeo/locks/"):
        return True
    if name == ".dipeo/drafts" or name.startswith(".dipeo/drafts/"):
        return guest
    if kind == "read" and os.path.isdir(what):
        return True  # opened to be flushed, or walked through
    if kind == "write":
        return uses.covers("write", _target(name)) or any(u.kind == "write" and u.what.startswith(f"{name}/") for u in uses)
    opens = [u for u in found.uses if u.kind == "diagram"]
    if (
        kind == "read"
        and found.uses.covers("diagram", ANY_DIAGRAM)
        and not any(part.startswith(".") for part in name.split("/"))
    ):
        return True
    if name.endswith(DIAGRAM_ENDINGS):
        # Looked for by its name: a diagram that the list names, or any where it says that it is chosen while it runs.
        stems = {place.name.partition(".")[0] for place in found.places} | world.names
        if os.path.basename(name).partition(".")[0] in stems or opens or uses.covers("diagram", ANY_DIAGRAM):
            return True
    if kind == "list":
        parts = [] if name == "." else name.split("/")
        patterns = [u.what for u in (*uses, *found.uses) if u.kind in ("read", "write")]
        return (
            any(p == ANYWHERE or p.split("/")[: len(parts)] == parts or "*" in p for p in patterns)
            or name == "."
            or bool(world.names)
        )
    brought = {os.path.realpath(os.path.join(base, file)) for file in found.files}
    return (
        what in brought
        or any(name == u.what for u in found.uses if u.kind == "brings")
        or uses.covers("read", name)
        or uses.covers("write", name)
        or name in world.unusable
    )


def _target(name: str) -> str:
    """The file that a temporary one becomes."""
    head, tail = os.path.split(name)
    if tail.startswith(".") and tail.endswith(".tmp"):
        return os.path.join(head, tail[1:].rsplit(".", 2)[0])
    return name


def at_random(world: World, count: int, seed: int) -> dict[str, Any]:
    """Run that many diagrams in three ways each."""
    from dipeo_nb.errors import DipeoError

    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    problems: list[str] = []
    for number in range(count):
        chance = random.Random(f"{seed}-{number}")
        maker = Maker(chance, world)
        data, inputs, allow = maker.diagram(), maker.inputs(), chance.choice(ALLOWED)
        world.names = _names(data)
        world.real_code = chance.random() < 0.1
        for trust, allowed in ((True, None), (False, None), (None, allow)):
            try:
                outcome = observed(world, data, inputs=inputs, trust=trust, allow=allowed)
            except DipeoError as error:
                counts[f"no diagram: {type(error).__name__}"] += 1
                break
            counts["refused" if outcome.refused else "trusted" if trust else "guest" if trust is False else "allowed"] += 1
            kinds.update(effect.kind for effect in outcome.seen)
            problems += [
                f"{seed}-{number} {allowed}: {problem}\n{json.dumps(data)[:3000]} {inputs}" for problem in outcome.problems
            ]
            if any(e.kind == "write" and e.what.startswith(str(world.base)) and "/.dipeo" not in e.what for e in outcome.seen):
                world.reset()
            if len(problems) > 20:
                return {"counts": counts, "kinds": kinds, "problems": problems}
    return {"counts": counts, "kinds": kinds, "problems": problems}


def _names(data: Any) -> set[str]:
    """First words of the names of diagrams that are written in a diagram."""
    if isinstance(data, Mapping):
        own = {os.path.basename(str(data["diagram_name"])).partition(".")[0]} if "diagram_name" in data else set()
        return own.union(*(_names(v) for v in data.values()))
    return set[str]().union(*map(_names, data)) if isinstance(data, list) else set()


def main(*arguments: str) -> None:
    mode, *rest = arguments
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="effects-")))
    world = World(folder)
    try:
        with world.runtime:
            if mode == "random":
                result = at_random(world, int(rest[0]), int(rest[1]))
            else:
                from tests.support import effect_mutants

                result = effect_mutants.outcomes(world)
        print(json.dumps(result))
    finally:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
