"""The process that runs a diagram's Python code. Standard library only, since it is started by path; what the
package needs, too, it imports from here. Of the package it loads one file, which imports nothing else of it: what values become.

Frames in both directions: four bytes of length (big-endian), then JSON. Requests come on stdin; answers leave on what was
stdout at the start. What the code prints is sent as `{"out": text}` frames, what it logs as `{"log": {…}}` frames. When
stdin ends the process ends, whatever it is doing, so no worker outlives its run.

How code is read (diagram-spec §3.5 "Do"): it is compiled as it stands, never re-indented. `return` at the top level and
`result = …` both give the result; without either, the function named by the node is called by its signature.
Assignments live in one namespace per run.
"""

# One visitor method serves several kinds of node here, and values come from code nobody typed.
# pyright: reportAssignmentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
from __future__ import annotations

import ast
import asyncio
import inspect
import io
import json
import logging
import os
import queue
import struct
import sys
import threading
import traceback

if __package__:
    from dipeo_nb.common.values import UnsupportedValueError, is_plain, parse_structured, plain_value
else:  # the package may be shadowed by files of the diagram, and is not needed
    from importlib.util import module_from_spec, spec_from_file_location

    _spec = spec_from_file_location("_dipeo_values", os.path.join(os.path.dirname(__file__), "..", "common", "values.py"))
    assert _spec is not None
    sys.modules[_spec.name] = _values = module_from_spec(_spec)
    _spec.loader.exec_module(_values)
    UnsupportedValueError, is_plain = _values.UnsupportedValueError, _values.is_plain
    parse_structured, plain_value = _values.parse_structured, _values.plain_value

OUTPUT_LIMIT = 1_000_000  # characters of printed text kept per piece of code
LOG_LIMIT = 20_000  # characters of one message
LOG_RECORDS = 10_000  # of one piece of code


class Inputs(dict):
    """The node's inputs; a missing key is looked up among the keys of its mappings."""

    def __init__(self, values, spread):
        super().__init__(values)
        self._spread = spread

    def __missing__(self, key):
        return self._spread[key]

    def get(self, key, default=None):
        return self[key] if key in self or key in self._spread else default


class Printed(io.TextIOBase):
    """Sends what is printed to the parent."""

    def __init__(self, send):
        self.send = send
        self.left = OUTPUT_LIMIT

    def writable(self):
        return True

    def write(self, text):
        if self.left > 0:
            self.send({"out": text[: self.left]})
            self.left -= len(text)
            if self.left <= 0:
                self.send({"out": "\n[output cut here]\n"})
        return len(text)


LOG_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def log_payload(record, as_json):
    """A record as the payload of an `execution_log` event; *as_json* makes a JSON value of an extra field."""
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit; a logging call does not raise for that
        message = f"{record.msg} {record.args!r}"
    if len(message) > LOG_LIMIT:
        message = f"{message[:LOG_LIMIT]}… ({len(message):,} characters)"
    extra = {name: as_json(value) for name, value in vars(record).items() if name not in LOG_STANDARD}
    if record.exc_info and record.exc_info[1] is not None:
        extra["exception"] = "".join(traceback.format_exception(record.exc_info[1]))[-LOG_LIMIT:]
    return {"level": record.levelname, "message": message, "logger_name": record.name, "extra_fields": extra}


class Logged:
    """Sends what is logged while code is at work, from any thread, to the parent; what is set up by `logging.basicConfig` works as
    ever."""

    def __init__(self, send):
        self.send = send
        self.at_work = False
        self.left = 0
        original = logging.Logger.callHandlers

        def call_handlers(logger, record):
            if self.at_work and self.left > 0:
                self.left -= 1
                self.tell(record)
            original(logger, record)

        # A handler would make a `basicConfig` of the code do nothing. This process is ours.
        logging.Logger.callHandlers = call_handlers
        logging.lastResort = logging.NullHandler()
        logging.getLogger().setLevel(logging.INFO)

    def begin(self):
        self.at_work, self.left = True, LOG_RECORDS

    def tell(self, record):
        payload = log_payload(record, lambda value: value if is_plain(value) else repr(value)[:LOG_LIMIT])
        self.send({"log": payload})
        if not self.left:
            self.send({"log": payload | {"message": "The log is cut here.", "extra_fields": {"limit": LOG_RECORDS}}})


class Bound(ast.NodeVisitor):
    """Names that a piece of code binds at its top level."""

    def __init__(self):
        self.names = set()
        self.returns = False
        self.awaits = False

    def visit_Name(self, node):
        if isinstance(node.ctx, (ast.Store, ast.Del)):
            self.names.add(node.id)

    def visit_FunctionDef(self, node):
        self.names.add(node.name)
        for part in [*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)]:
            self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node):
        self.names.add(node.name)

    def visit_Lambda(self, node):
        for part in [*node.args.defaults, *(d for d in node.args.kw_defaults if d)]:
            self.visit(part)

    def visit_Import(self, node):
        for alias in node.names:
            self.names.add((alias.asname or alias.name).split(".")[0])

    visit_ImportFrom = visit_Import

    def visit_ExceptHandler(self, node):
        if node.name:
            self.names.add(node.name)
        self.generic_visit(node)

    def visit_MatchAs(self, node):
        if node.name:
            self.names.add(node.name)
        self.generic_visit(node)

    def visit_MatchStar(self, node):
        if node.name:
            self.names.add(node.name)

    def visit_MatchMapping(self, node):
        if node.rest:
            self.names.add(node.rest)
        self.generic_visit(node)

    def comprehension(self, node):
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                self.names.add(inner.target.id)
            elif isinstance(inner, ast.Await):
                self.awaits = True

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def visit_Return(self, node):
        self.returns = True
        self.generic_visit(node)

    def visit_Await(self, node):
        self.awaits = True
        self.generic_visit(node)

    def visit_AsyncFor(self, node):
        self.awaits = True
        self.generic_visit(node)

    visit_AsyncWith = visit_AsyncFor


class PlainAnnotations(ast.NodeTransformer):
    """`x: int = 1` → `x = 1` at the top level: an annotated name cannot be declared global."""

    def visit_FunctionDef(self, node):
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef

    def visit_AnnAssign(self, node):
        if not isinstance(node.target, ast.Name):
            return node
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def execute(request, namespace, inputs, names):
    """Run one request in *namespace*; (the value it gave, the names it bound)."""
    filename = request["filename"]
    tree = ast.parse(request["code"], filename)
    bound = Bound()
    bound.visit(tree)
    namespace.pop("result", None)
    namespace["__name__"] = "__dipeo__"
    if bound.returns or bound.awaits:
        value, returned = run_wrapped(tree, bound, filename, namespace)
        if returned:
            return value, bound.names
    else:
        exec(compile(tree, filename, "exec"), namespace)  # the purpose of this process
    if "result" in bound.names:
        return namespace.get("result"), bound.names
    function = namespace.get(request["function"]) if request["function"] in bound.names else None
    return (call(function, inputs, names) if callable(function) else None), bound.names


NOTHING = object()


def run_wrapped(tree, bound, filename, namespace):
    """The code as the body of a function whose names are all global: `return` and `await` work, names survive."""
    body = PlainAnnotations().visit(tree).body
    names = sorted(bound.names)
    kind = ast.AsyncFunctionDef if bound.awaits else ast.FunctionDef
    last = ast.Return(ast.Name("__dipeo_nothing__", ast.Load()))
    arguments = ast.arguments(
        posonlyargs=[], args=[], vararg=None, kwonlyargs=[], kw_defaults=[], kwarg=None, defaults=[]
    )
    fields = {"name": "__dipeo_main__", "args": arguments, "decorator_list": [], "returns": None}
    function = kind(**fields, body=[*([ast.Global(names)] if names else []), *body, last])
    if sys.version_info >= (3, 12):
        function.type_params = []
    module = ast.fix_missing_locations(ast.Module([function], []))
    namespace["__dipeo_nothing__"] = NOTHING
    exec(compile(module, filename, "exec"), namespace)
    value = namespace.pop("__dipeo_main__")()
    if inspect.isawaitable(value):
        value = asyncio.run(settle(value))
    del namespace["__dipeo_nothing__"]
    return value, value is not NOTHING


async def settle(awaitable):
    return await awaitable


def call(function, inputs, names):
    """Call by signature: one parameter takes the mapping of inputs, several are filled by name."""
    parameters = [
        p for p in inspect.signature(function).parameters.values() if p.kind is not inspect.Parameter.VAR_POSITIONAL
    ]
    plain = [p for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    if len(plain) == 1 and len(parameters) == 1 and plain[0].name not in inputs:
        value = function(inputs)
    else:
        given, missing = {}, []
        for p in plain:
            if p.name in names:
                given[p.name] = names[p.name]
            elif p.name == "inputs":
                given["inputs"] = inputs
            elif p.default is inspect.Parameter.empty:
                missing.append(p.name)
        if missing:
            raise TypeError(
                f"{function.__name__}() needs {', '.join(missing)}, which no input provides; "
                f"the inputs are {', '.join(map(str, inputs)) or 'none'}"
            )
        if len(parameters) > len(plain):
            given = {**{k: v for k, v in inputs.items() if str(k).isidentifier()}, **given}
        positional = [
            given.pop(p.name) for p in plain if p.kind is inspect.Parameter.POSITIONAL_ONLY and p.name in given
        ]
        value = function(*positional, **given)
    return asyncio.run(settle(value)) if inspect.isawaitable(value) else value


class Worker:
    """The namespace of one run, and the names that its code has assigned."""

    def __init__(self, send):
        self.send = send
        self.logged = Logged(send)
        self.namespace = {"__builtins__": __builtins__}
        self.assigned = set()

    def handle(self, request):
        names = {k: parse_structured(v) for k, v in request["names"].items()}
        whole = {**names, **{k: parse_structured(v) for k, v in request["whole"].items()}}
        inputs = Inputs({k: whole[k] for k in request["labels"]}, names)
        shared = request["shared"]
        space = self.namespace if shared else {"__builtins__": __builtins__}
        assigned = self.assigned if shared else set()
        for name, value in request["variables"].items():
            assigned.add(name)
            space.setdefault(name, value)
        for name, value in {**request["globals"], **names}.items():
            # A value that an earlier run has seen must not undo what the code has made of it since.
            if (name in names and name not in request["stale"]) or name not in assigned:
                space[name] = value
        space.update(inputs=inputs, node_id=request["node_id"], globals=request["globals"])
        for folder in request["path"]:
            if folder not in sys.path:
                sys.path.insert(0, folder)
        sys.stdout = sys.stderr = Printed(self.send)
        self.logged.begin()
        try:
            value, bound = execute(request, space, inputs, {**request["globals"], **names})
            assigned |= bound - {"result", "inputs", "globals", "node_id"}
            kept = {k: space[k] for k in assigned if k in space and not k.startswith("_") and is_plain(space[k])}
            answer = {"value": plain_value(value, "result"), "variables": kept}
        except UnsupportedValueError as error:
            answer = {"error": "", "message": error.message, "hint": error.hint, "traceback": "", "line": None}
        except SystemExit as error:
            answer = {
                "error": "SystemExit",
                "message": f"the code called exit({error.code})",
                "traceback": "",
                "line": None,
            }
        except BaseException as error:  # noqa: BLE001 - whatever the code raises is reported, and the worker lives on
            frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename != __file__]
            text = "".join(traceback.format_list(frames)) + "".join(traceback.format_exception_only(error))
            own = (f.lineno for f in reversed(frames) if f.filename == request["filename"])
            line = next(own, getattr(error, "lineno", None))
            answer = {"error": type(error).__name__, "message": str(error), "traceback": text, "line": line}
        finally:
            self.logged.at_work = False
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        self.send(answer)


def main():
    protocol = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what child processes of the code print must not break the protocol
    source = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # input() in the code ends at once instead of eating the protocol
    lock = threading.Lock()

    def send(frame):
        data = json.dumps(frame).encode()
        with lock:
            protocol.write(struct.pack(">I", len(data)) + data)
            protocol.flush()

    requests = queue.SimpleQueue()

    def read():
        while True:
            head = source.read(4)
            if len(head) < 4:
                os._exit(0)
            data = source.read(struct.unpack(">I", head)[0])
            requests.put(json.loads(data))

    threading.Thread(target=read, daemon=True).start()
    worker = Worker(send)
    while True:
        worker.handle(requests.get())


if __name__ == "__main__":
    main()
