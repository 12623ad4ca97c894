"""The process that runs a diagram's Python code. Standard library only, since it is started by path; what the
package needs, too, it imports from here. Of the package it loads one file, which imports nothing else of it: what values become.

Frames in both directions: four bytes of length (big-endian), then JSON. Requests come on stdin; answers leave on what was
stdout at the start. What the code prints is sent as `{"out": text}` frames, what it logs as `{"log": {…}}` frames. When
stdin ends the process ends with all it started, whatever it is doing, so no worker outlives its run.

How code is read: it is compiled as it stands, never re-indented. `return` at the top level and `result = …` both give the
result; without either, the function named by the node is called by its signature. The code is the body of a real module
(`__dipeo__`), whose names are what earlier code of the run has assigned. Inputs are not in it: they are found where Python
looks last, among the built-in names, so that the module holds what the code itself has bound, and nothing else.
"""

# One visitor method serves several kinds of node here, and values come from code nobody typed.
# pyright: reportAssignmentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
from __future__ import annotations
import __future__

import ast
import builtins
import codecs
import importlib
import inspect
import io
import itertools
import json
import linecache
import logging
import os
import queue
import signal
import struct
import sys
import threading
import traceback
import types
import weakref

if __name__ != "_dipeo_code_worker":
    from dipeo_nb.common.values import (
        MAX_ITERATED,
        UnsupportedValueError,
        error_text,
        is_plain,
        parse_structured,
        plain_value,
    )
    from dipeo_nb.execution import code_modules, code_objects, code_processes
else:  # started by its path: files of the diagram may hide the package, and are not to be imported here
    from importlib.util import module_from_spec, spec_from_file_location

    def _by_path(name, *path):
        spec = spec_from_file_location(name, os.path.join(os.path.dirname(__file__), *path))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    _values = _by_path("_dipeo_values", "..", "common", "values.py")
    code_modules = _by_path("_dipeo_code_modules", "code_modules.py")
    code_objects = _by_path("_dipeo_code_objects", "code_objects.py")
    code_processes = _by_path("_dipeo_code_processes", "code_processes.py")
    UnsupportedValueError, error_text, MAX_ITERATED = (
        _values.UnsupportedValueError,
        _values.error_text,
        _values.MAX_ITERATED,
    )
    is_plain, parse_structured, plain_value = _values.is_plain, _values.parse_structured, _values.plain_value

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


class Variables(dict):
    """The run's variables under the name `globals`; called, they are the names of the module, as in any other module."""

    def __init__(self, values, names):
        super().__init__(values)
        self._names = names

    def __call__(self):
        return self._names


class Datetime(types.ModuleType):
    """`datetime` without an import: both the module and its class of that name."""

    def __getattr__(self, name):
        return getattr(self.datetime, name)

    def __call__(self, *arguments, **named):
        return self.datetime(*arguments, **named)

    def __instancecheck__(self, value):
        return isinstance(value, self.datetime)


READY = ("json", "os", "time", "datetime", "math", "re", "random")
"""Modules that code can name without importing them."""


def ready(name):
    module = importlib.import_module(name)
    if name != "datetime":
        return module
    both = Datetime("datetime")
    vars(both).update(vars(module))
    return both


class RunVariables(dict):
    """What a start node hands on. Code that reads `inputs["default"]["default"]`, as a diagram does that is run for the items of a
    batch, finds the variables themselves there when none of them is called so."""

    def __missing__(self, key):
        if key == "default":
            return self
        raise KeyError(key)

    def __reduce__(self):
        return dict, (dict(self),)  # when code keeps it


class Printed(io.TextIOBase):
    """Sends what one piece of code prints to the parent; later, and in processes that the code forks, it goes the way of what
    programs print."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, send):
        self.send = send
        self.left = OUTPUT_LIMIT
        self.process = os.getpid()
        self.buffer = PrintedBytes(self)

    def writable(self):
        return True

    def fileno(self):
        return 1

    def reconfigure(self, **options):
        """Nothing to be set up."""

    def write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self.process != os.getpid():
            os.write(2, text.encode("utf-8", "backslashreplace"))
        elif self.left > 0:
            shown = text[: self.left]
            self.send({"out": shown if shown.isascii() else shown.encode("utf-8", "backslashreplace").decode()})
            self.left -= len(text)
            if self.left <= 0:
                self.send({"out": "\n[output cut here]\n"})
        return len(text)


class PrintedBytes(io.BufferedIOBase):
    """`sys.stdout.buffer`."""

    def __init__(self, text):
        self.text = text
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self):
        return True

    def fileno(self):
        return 1

    def write(self, data):
        data = bytes(data)
        self.text.write(self.decoder.decode(data))
        return len(data)


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

    def __init__(self, filename):
        self.filename = filename
        self.names = set()
        self.returns = False
        self.awaits = False
        self.deleted = set()

    def visit_Name(self, node):
        if isinstance(node.ctx, (ast.Store, ast.Del)):
            self.names.add(node.id)
        if isinstance(node.ctx, ast.Del):
            self.deleted.add(node.id)

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
        self.names.update((alias.asname or alias.name).split(".")[0] for alias in node.names if alias.name != "*")

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
            elif isinstance(inner, ast.Await) or (isinstance(inner, ast.comprehension) and inner.is_async):
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

    def visit_Yield(self, node):
        raise SyntaxError("'yield' outside function", (self.filename, node.lineno, node.col_offset + 1, None))

    visit_YieldFrom = visit_Yield


class AsBody(ast.NodeTransformer):
    """Statements that only a module can hold, for the body of a function whose names are global: annotations (`x: int = 1`), `global`,
    and `from … import *`."""

    def visit_Global(self, node):
        return ast.copy_location(ast.Pass(), node)

    def visit_ImportFrom(self, node):
        if node.names[0].name != "*":
            return node
        source = ast.Constant(f"from {'.' * node.level}{node.module or ''} import *")
        call = ast.Call(ast.Name("__dipeo_import_all__", ast.Load()), [source], [])
        return ast.fix_missing_locations(ast.copy_location(ast.Expr(call), node))

    def visit_FunctionDef(self, node):
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_Lambda = visit_FunctionDef

    def visit_AnnAssign(self, node):
        if not isinstance(node.target, ast.Name):
            return node
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)


class InFile(ast.NodeTransformer):
    """`__file__` as the text that it stands for: functions of a file may be called when another file's code is at work."""

    def __init__(self, path):
        self.path = path

    def visit_Name(self, node):
        if node.id == "__file__" and isinstance(node.ctx, ast.Load):
            return ast.copy_location(ast.Constant(self.path), node)
        return node


def parsed(text, filename, path, flags=0):
    """The tree of a piece of code, which stands in the file *path* if that is not None."""
    tree = compile(text, filename, "exec", flags=flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    return InFile(path).visit(tree) if path is not None and "__file__" in text else tree


def execute(tree, bound, request, namespace, inputs, names):
    """Run one parsed request in *namespace*; the value it gave."""
    filename = request["filename"]
    if bound.returns or bound.awaits:
        value, returned = run_wrapped(tree, bound, filename, namespace)
        if returned:
            return whole(value)
    else:
        exec(compile(tree, filename, "exec", dont_inherit=True), namespace)  # the purpose of this process
    if "result" in namespace:
        return whole(namespace["result"])
    function = namespace.get(request["function"]) if request["function"] in bound.names else None
    return whole(call(function, inputs, names)) if callable(function) else None


NOTHING = object()


def is_future(statement):
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"


def run_wrapped(tree, bound, filename, namespace):
    """The code as the body of a function whose names are all global: `return` and `await` work, names survive."""
    docstring = ast.get_docstring(tree, clean=False) is not None
    futures = list(itertools.takewhile(is_future, tree.body[docstring:]))
    tree.body = tree.body[docstring + len(futures) :]
    body = AsBody().visit(tree).body
    names = sorted(bound.names)
    kind = ast.AsyncFunctionDef if bound.awaits else ast.FunctionDef
    last = ast.Return(ast.Name("__dipeo_nothing__", ast.Load()))
    arguments = ast.arguments(posonlyargs=[], args=[], vararg=None, kwonlyargs=[], kw_defaults=[], kwarg=None, defaults=[])
    fields = {"name": "__dipeo_main__", "args": arguments, "decorator_list": [], "returns": None}
    function = kind(**fields, body=[*([ast.Global(names)] if names else []), *body, last])
    if sys.version_info >= (3, 12):
        function.type_params = []
    module = ast.fix_missing_locations(ast.Module([*futures, function], []))
    helpers = {"__dipeo_nothing__": NOTHING, "__dipeo_import_all__": lambda source: exec(source, namespace)}
    try:
        namespace.update(helpers)
        exec(compile(module, filename, "exec", dont_inherit=True), namespace)
        value = namespace["__dipeo_main__"]()
        if inspect.isawaitable(value):
            value = finished(value)
    finally:
        for name in ("__dipeo_main__", *helpers):
            namespace.pop(name, None)
    return value, value is not NOTHING


def whole(value):
    """A value that comes piece by piece from asynchronous code as the list of its pieces; other iterators are read later."""
    return finished(gathered(value)) if inspect.isasyncgen(value) else value


async def gathered(pieces):
    found = []
    async for piece in pieces:
        found.append(piece)
        if len(found) > MAX_ITERATED:  # maybe without end: let the conversion refuse it
            return iter(found)
    return found


def finished(awaitable):
    """What an awaitable gives."""
    import asyncio  # a third of the time that the process would take to start

    return asyncio.run(settle(awaitable))


async def settle(awaitable):
    return await awaitable


def call(function, inputs, names):
    """Call by signature: one parameter takes the mapping of inputs, several are filled by name."""
    parameters = [p for p in inspect.signature(function).parameters.values() if p.kind is not inspect.Parameter.VAR_POSITIONAL]
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
        positional = [given.pop(p.name) for p in plain if p.kind is inspect.Parameter.POSITIONAL_ONLY and p.name in given]
        value = function(*positional, **given)
    return finished(value) if inspect.isawaitable(value) else value


MODULE = "__dipeo__"
"""`__name__` of shared code."""
ISOLATED = "__dipeo_isolated__"
"""`__name__` of code that shares nothing."""
INTERNAL = frozenset(vars(types.ModuleType(""))) | {"__builtins__", "__file__", "__annotations__"}
SPECIAL = frozenset({"result", "inputs", "globals", "node_id"})
"""Names that belong to one job, whatever it makes of them."""
FACTORIES = frozenset(
    [
        "namedtuple",
        "NamedTuple",
        "TypedDict",
        "TypeVar",
        "ParamSpec",
        "NewType",
        "Enum",
        "IntEnum",
        "StrEnum",
        "Flag",
        "IntFlag",
        "make_dataclass",
        "create_model",
        "lru_cache",
        "cache",
        "singledispatch",
    ]
)
"""Calls that define something, and do nothing else."""


def definitions(body):
    """Statements that define functions and classes at the top level, by name; also `f = lambda …` and `P = namedtuple(…)`."""
    found = {}
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found[statement.name] = statement
            case ast.Assign([ast.Name(name)], ast.Lambda()):
                found[name] = statement
            case ast.Assign([ast.Name(name)], ast.Call(ast.Name(factory) | ast.Attribute(_, factory))):
                if factory in FACTORIES:
                    found[name] = statement
            case _:
                for part in ast.iter_child_nodes(statement):
                    if isinstance(part, (ast.stmt, ast.excepthandler, ast.match_case)):
                        found |= definitions([part])
    return found


def source_of(statement, code):
    """(the text of a statement with its decorators, its first line)."""
    if isinstance(statement, ast.Assign):
        return ast.get_source_segment(code, statement), statement.lineno
    first = min([statement.lineno, *(d.lineno for d in statement.decorator_list)])
    lines = code.splitlines(keepends=True)
    return "".join(lines[first - 1 : statement.end_lineno]).rstrip(), first


def named_by(statement):
    """Names that a definition looks up when it is carried out, and a few more."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        arguments = statement.args
        defaults = [*arguments.defaults, *(d for d in arguments.kw_defaults if d)]
        notes = [a.annotation for a in ast.walk(arguments) if isinstance(a, ast.arg) and a.annotation]
        looked_at = [*statement.decorator_list, *defaults, *notes, *([statement.returns] if statement.returns else [])]
    else:
        looked_at = [statement]
    return {n.id for part in looked_at for n in ast.walk(part) if isinstance(n, ast.Name)}


def future_flags(tree):
    names = {alias.name for statement in tree.body if is_future(statement) for alias in statement.names}
    return sum(getattr(__future__, name).compiler_flag for name in names if hasattr(__future__, name))


class Namespace:
    """A module that pieces of code run in, one after the other, and what they have bound in it."""

    def __init__(self, name):
        self.module = sys.modules[name] = types.ModuleType(name)
        self.names = vars(self.module)
        self.outer = dict(vars(builtins))
        """The built-in names of the code, the inputs of the job among them."""
        self.names["__builtins__"] = self.outer
        self.ready = {}
        self.prints = {}
        """Fingerprints, by name, of what can be changed in place."""
        self.parts = {}
        self.defined = {}
        """Functions and classes by name → how they are defined again."""
        self.origins = weakref.WeakKeyDictionary()
        """Functions and classes → the statement that defined them."""
        self.lost = {}
        """Names that cannot be had here → why."""

    def user_names(self):
        return {n: v for n, v in self.names.items() if n not in INTERNAL and n not in SPECIAL}

    def forget(self, names):
        for name in names:
            self.names.pop(name, None)
            self.prints.pop(name, None)
            self.parts.pop(name, None)
            self.defined.pop(name, None)
            self.lost.pop(name, None)

    # What other processes have made.

    def restore(self, changes):
        """Make names again; the ones that cannot be made are `lost`."""
        waiting = []
        for change in changes:
            wanted = set(change["names"])
            self.names.update({n: v for n, v in change["variables"].items() if n in wanted})
            objects, found = change.get("objects", {}), change.get("definitions", {})
            groups = {form[1] if form_kind(form) == "with" else name: None for name, form in objects.items() if name in wanted}
            waiting += [(change, wanted, name, objects[name], None) for name in groups]
            waiting += [(change, wanted, name, None, found[name]) for name in found if name in wanted]
        while waiting:
            failed = []
            for item in waiting:
                change, wanted, name = item[:3]
                try:
                    self.make(*item)
                except Exception as error:  # noqa: BLE001 - it may need what comes later; else it is lost, and said to be
                    failed.append(item)
                    self.lost[name] = change["label"], f"{type(error).__name__}: {error}"
                else:
                    self.lost.pop(name, None)
            if len(failed) == len(waiting):
                break
            waiting = failed

    def make(self, change, wanted, name, form, definition):
        if definition is not None:
            self.define(name, definition)
        elif form_kind(form) == "group":
            decoder = code_objects.Decoder(self.names)
            made = dict(zip(form[1], decoder.all(form[2]), strict=True))
            self.names.update({n: v for n, v in made.items() if n in wanted})
        else:
            self.names[name] = code_objects.Decoder(self.names).decode(form)

    def define(self, name, form):
        """Carry a definition out once more, with what it named then."""
        source, line, filename = form["source"], form["line"], form["file"]
        self.add_ready(source)
        indented = source[:1] in " \t"
        text = "\n" * (line - 1 - indented) + ("if True:\n" if indented else "") + source
        if filename not in linecache.cache:
            remember_source(filename, text)
        tree = parsed(text, filename, form.get("path"), form["flags"])
        code = compile(tree, filename, "exec", flags=form["flags"], dont_inherit=True)
        needs = {n: code_objects.Decoder(self.names).decode(v) for n, v in form["needs"].items()}
        hidden = {n: self.names[n] for n in needs if n in self.names}
        self.names.update(needs)
        try:
            exec(code, self.names)
        finally:
            for n in needs.keys() - {name}:
                del self.names[n]
            self.names.update({n: v for n, v in hidden.items() if n != name})
        value = self.names[name]
        if "defaults" in form and isinstance(value, types.FunctionType):
            value.__defaults__, value.__kwdefaults__ = code_objects.Decoder(self.names).decode(form["defaults"])
        code_objects.set_state(value, code_objects.Decoder(self.names).decode(form.get("state", ["dict", 0, []])))
        self.note(name, form)

    # One job.

    def add_ready(self, code):
        for name in READY:
            if name not in self.ready and name in code:
                self.ready[name] = self.outer[name] = ready(name)

    def begin(self, code, layer, variables, deleted, file):
        """Lay the inputs over the names.

        Args:
            layer: the inputs.
            variables: further names that are not inputs: changed in place they count as assigned.
            deleted: names that the code deletes.
        """
        self.outer.clear()
        self.outer.update(vars(builtins))
        self.outer.update(self.ready)
        self.add_ready(code)
        self.outer.update(variables)
        self.placed = {name: layer[name] for name in deleted if name in layer and name not in SPECIAL}
        self.outer.update({name: value for name, value in layer.items() if name not in self.placed})
        self.before = self.user_names()
        for name, value in self.before.items():
            if name not in self.prints:
                self.prints[name] = self.fingerprint(value)
        self.states = {name: code_objects.state_of(self.before[name]) for name in self.defined if name in self.before}
        self.variables = {name: (value, self.fingerprint(value)) for name, value in variables.items()}
        self.held = {name: self.names.pop(name) for name in layer if name in self.before}
        self.names.update(self.placed)
        for name in (*SPECIAL, "__annotations__", "__file__"):
            self.names.pop(name, None)
        self.names["__name__"] = self.module.__name__
        if file is not None:
            self.names["__file__"] = file

    def settle(self):
        """Take the inputs away again."""
        for name, value in self.placed.items():
            if self.names.get(name) is value:
                del self.names[name]
        for name in SPECIAL:
            self.names.pop(name, None)
        for name, value in self.held.items():
            self.names.setdefault(name, value)
        self.outer.clear()
        self.outer.update(vars(builtins))
        self.outer.update(self.ready)

    def encoder(self, itself=""):
        return code_objects.Encoder(self.module.__name__, self.names, self.origins, itself)

    def fingerprint(self, value):
        return code_objects.fingerprint(value, self.encoder())

    def changed_in_place(self, name, value):
        before = self.prints.get(name)
        return before is not None and self.fingerprint(value) != before

    def undo(self):
        """Everything as it was before the job, which failed; names of what is not, since it was changed in place."""
        self.settle()
        for name, state in self.states.items():
            code_objects.set_state(self.before[name], state)
        spoilt = [name for name, value in self.before.items() if self.changed_in_place(name, value)]
        self.forget([name for name in self.user_names() if name not in self.before])
        self.names.update(self.before)
        self.forget(spoilt)
        return spoilt

    def keep(self, tree, request):
        """What the job changed, ready to be recorded."""
        self.settle()
        for name, (value, before) in self.variables.items():
            if name not in self.names and before is not None and self.fingerprint(value) != before:
                self.names[name] = value
        now = self.user_names()
        before = self.before
        changed = {n for n, v in now.items() if n not in before or before[n] is not v or self.changed_in_place(n, v)}
        deleted = [n for n in before if n not in now]
        self.forget(deleted)
        groups = self.groups(now, changed)
        found = {"variables": {}, "objects": {}, "definitions": {}, "deleted": deleted, "lost": {}}
        statements = definitions(tree.body)
        for name in changed & statements.keys():
            if isinstance(now[name], (type, types.FunctionType)):
                self.origins[now[name]] = source_of(statements[name], request["code"])[0]
        outdated = self.outdated(now, changed)
        groups += [[name] for name in outdated]
        for group in groups:
            self.record(group, now, found, statements, request)
            for name in group:
                self.prints[name] = self.fingerprint(now[name])
        for name in outdated & found["definitions"].keys():  # carried out again, it would name what is new
            del found["definitions"][name]
            found["lost"][name] = f"{type(now[name]).__name__}, it derives from a class that was defined again"
        found["shown"] = shown_forms({n: now[n] for n in found["objects"] if n not in found["variables"]})
        return {part: value for part, value in found.items() if value or part == "variables"}

    def whole(self, request):
        """All names as one change, while the job is at work; what cannot be made again is left out."""
        now = self.user_names()
        found = {"variables": {}, "objects": {}, "definitions": {}, "lost": {}}
        statements = definitions(request["tree"].body)
        noted = dict(self.defined)
        for name in now:
            self.record([name], now, found, statements, request)
        self.defined = noted  # the job may yet fail
        inputs = {name: value for name, value in request["layer"].items() if name not in now and is_plain(value)}
        found["variables"] |= inputs
        return {**found, "label": "", "names": [*now, *inputs]}

    def outdated(self, now, changed):
        """Unchanged names that hold a function or class which the job has defined again, in other words.

        Their record refers to it by its name, which from now on means the new one.
        """
        encoder = self.encoder()
        old = {
            value
            for name, value in self.before.items()
            if name in changed and isinstance(value, (type, types.FunctionType)) and value in self.origins
            if not encoder.again(value, now.get(name))
        }
        return {name for name, value in now.items() if old and name not in changed and self.names_one_of(old, value)}

    def names_one_of(self, old, value):
        if isinstance(value, type):
            return not old.isdisjoint(value.__mro__)
        encoder = self.encoder()
        try:
            encoder.encode(value)
        except (code_objects.NotRecordableError, RecursionError):
            return not old.isdisjoint(encoder.references)
        return False

    def groups(self, now, changed):
        """Changed names, those together that share something, with unchanged ones that share it, too."""
        sharing = {name for name in changed if not code_objects.unchanging(now[name])}
        if not sharing:
            return [[name] for name in now if name in changed]
        owners = {}
        for name, value in now.items():
            if code_objects.unchanging(value):
                continue
            if name in changed or name not in self.parts:
                self.parts[name] = code_objects.parts(value)
            for part in self.parts[name]:
                owners.setdefault(part, []).append(name)
        linked = {}
        for names in owners.values():
            if len(names) > 1:
                for name in names:
                    linked.setdefault(name, set()).update(names)
        groups, done = [], set()
        for name in now:
            if name not in changed or name in done:
                continue
            group, waiting = {name}, [name]
            while waiting:
                new = linked.get(waiting.pop(), set()) - group
                group |= new
                waiting += new
            done |= group
            groups.append([n for n in now if n in group])
        return groups

    def record(self, group, now, found, statements, request):
        plain = {n: now[n] for n in group if not n.startswith("_") and is_plain(now[n]) and has_digits(now[n])}
        found["variables"].update(plain)
        if len(group) == 1 and plain:
            return
        if len(group) > 1:
            encoder = self.encoder()
            try:
                forms = [encoder.encode(now[n]) for n in group]
            except (code_objects.NotRecordableError, RecursionError):
                pass  # each by itself, then
            else:
                found["objects"].update({n: ["with", group[0]] for n in group[1:]})
                found["objects"][group[0]] = ["group", group, forms]
                return
        for name in group:
            if name in plain:
                continue
            try:
                found["objects"][name] = self.encoder(name).encode(now[name])
            except (code_objects.NotRecordableError, RecursionError) as error:
                if name in statements or (name in self.defined and self.before.get(name) is now[name]):
                    found["definitions"][name] = form = self.definition(name, statements.get(name), request)
                    self.note(name, form)
                else:
                    found["lost"][name] = f"{type(now[name]).__name__}, {error}"

    def definition(self, name, statement, request):
        """How to define *name* again: the statement, and what it needs besides."""
        if statement is None:
            form = self.defined[name]
        else:
            source, line = source_of(statement, request["code"])
            form = {"source": source, "line": line, "file": request["filename"], "flags": request["flags"]}
            if source and request["file"] is not None and "__file__" in source:
                form["path"] = request["file"]
            known = {**self.names, **request["layer"]}
            needs = {n: known[n] for n in named_by(statement) if n in known and type(known[n]) in code_objects.CONSTANT}
            needs |= {n: v for n, v in request["layer"].items() if n in named_by(statement) and is_plain(v)}
            form["needs"] = {n: self.encoder().encode(v) for n, v in needs.items()}
        value = self.names[name]
        if isinstance(value, types.FunctionType):
            defaults = [value.__defaults__, value.__kwdefaults__]
            if all(type(v) in code_objects.CONSTANT for v in (*(defaults[0] or ()), *(defaults[1] or {}).values())):
                form = form | {"defaults": self.encoder().encode(defaults)}
        if state := code_objects.state_of(value):
            form = form | {"state": self.encoder().encode(state)}
        return form

    def note(self, name, form):
        self.defined[name] = form
        if isinstance(self.names[name], (type, types.FunctionType)):
            self.origins[self.names[name]] = form["source"]


def has_digits(value):
    """Whether JSON can write a number: Python refuses to write very long ones."""
    return type(value) is not int or value.bit_length() < 14_000


def shown_forms(objects):
    """What templates and conditions see of objects by name; those without a form as a JSON value are left out."""
    shown = {}
    for name, value in objects.items():
        if name.startswith("_") or isinstance(value, (type, types.FunctionType, types.ModuleType)):
            continue
        try:
            shown[name] = plain_value(value, name, iterators=False)
        except UnsupportedValueError:
            pass  # a template or condition that names it says so
    return shown


def form_kind(form):
    return form[0] if isinstance(form, list) else ""


SOURCES = set()
"""Names of the code that was run here."""


def remember_source(filename, text):
    """Tracebacks and `inspect.getsource` show these lines."""
    SOURCES.add(filename)
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)


def restored(name, made):
    """A finder of the module *name*, which makes it again when it is asked for. For processes that code starts.

    Args:
        made: see `Worker.changes`.
    """
    changes, shown = json.loads(made)
    if shown is not None:
        base, files, roots = shown
        modules = code_modules.ShownModules(base, files)
        modules.roots = roots
        modules.install()
    return code_processes.ByName(name, lambda name: Namespace(name).restore(changes))


class Worker:
    """Carries out requests, in the namespace that the code of a run shares or in a fresh one."""

    def __init__(self, send):
        self.send = send
        self.process = os.getpid()
        self.logged = Logged(send)
        self.namespace = Namespace(MODULE)
        self.folders = []
        self.shown = None
        """The modules that may be imported of the folders of the code; None: all that lie there."""
        self.at_work = self.namespace, {}
        """(names, request) of the code that is carried out."""
        self.by_value = code_processes.ByValue(MODULE, ISOLATED)
        handed = {
            "cloudpickle.cloudpickle": self.by_value.patch,
            "multiprocessing.spawn": code_processes.handed_on(__file__, self.changes),
        }
        sys.meta_path.insert(0, code_processes.Patched(handed))

    def handle(self, request):
        shared = request["shared"]
        space = self.namespace if shared else Namespace(ISOLATED)
        space.forget(request["forget"])
        if "modules" in request:
            self.shown = code_modules.ShownModules(*request["modules"], on_load=self.by_value.add)
            self.shown.install()
        self.search_in(request["path"])
        begun = False
        printed = Printed(self.send)
        try:
            sys.stdout = sys.stderr = io.StringIO()  # what definitions print was printed the first time
            space.restore(request["restore"])
            sys.stdout = sys.stderr = printed
            self.logged.begin()
            remember_source(request["filename"], request["code"])
            tree = parsed(request["code"], request["filename"], request["file"])
            bound = Bound(request["filename"])
            bound.visit(tree)
            names = {k: parse_structured(v) for k, v in request["names"].items()}
            whole = {**names, **{k: parse_structured(v) for k, v in request["whole"].items()}}
            inputs = Inputs({k: whole[k] for k in request["labels"]}, names)
            if request["variables_arrive"] and type(inputs.get("default")) is dict:
                inputs["default"] = RunVariables(inputs["default"])
            layer, variables = self.layers(space, request, names)
            given = {
                **request["globals"],
                **{k: space.names[k] for k in request["globals"] if k in space.names},
                **layer,
            }
            special = {
                "inputs": inputs,
                "node_id": request["node_id"],
                "globals": Variables(request["globals"], space.names),
            }
            request |= {"layer": {**variables, **layer}, "flags": future_flags(tree), "tree": tree}
            self.at_work = space, request
            space.begin(request["code"], {**layer, **special}, variables, bound.deleted, request["file"])
            begun = True
            value = plain_value(execute(tree, bound, request, space.names, inputs, given), "result")
            answer = {"value": value, "variables": {}}
            if shared:
                answer |= space.keep(tree, request)
            answer = encoded(answer)
        except UnsupportedValueError as error:
            answer = failure("", error.message, hint=error.hint)
        except SystemExit as error:
            answer = failure("SystemExit", f"the code called exit({error.code})")
        except BaseException as error:  # noqa: BLE001 - whatever the code raises is reported, and the worker lives on
            answer = described(error, request, {**space.lost, **request["lost"]})
        finally:
            self.logged.at_work = False
            printed.process = 0  # what threads of the code print from now on belongs to no job
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        if os.getpid() != self.process:  # the code has forked, and this is not the process that is waited for
            os._exit(1 if isinstance(answer, dict) else 0)
        if isinstance(answer, dict):
            answer = encoded(answer | {"spoilt": space.undo() if begun and shared else []})
        self.send(answer)

    def changes(self):
        """(name of the module, what makes it and its imports again) for a process that the code starts."""
        space, request = self.at_work
        shown = None if self.shown is None else self.shown.as_values()
        return space.module.__name__, json.dumps([[space.whole(request)], shown])

    def layers(self, space, request, names):
        """(inputs, variables of the run) by name, without those that code has assigned since."""
        given, labels = request["globals"], set(request["labels"])
        layer = {}
        for name, value in names.items():
            itself = name not in labels and name in given and given[name] == request["names"][name]
            # A value that an earlier run has seen must not undo what the code has made of it since.
            if not itself and not (name in request["stale"] and name in space.names):
                layer[name] = value
        return layer, {n: v for n, v in given.items() if n not in layer and n not in space.names}

    def search_in(self, folders):
        """Imports look into *folders*, and into those of earlier code, after everything that is installed."""
        ours = [*folders, *(f for f in self.folders if f not in folders)]
        if self.shown is not None:
            self.shown.roots = self.folders = ours
        elif ours != self.folders or not all(f in sys.path for f in ours):
            sys.path[:] = [*(f for f in sys.path if f not in self.folders), *ours]
            self.folders = ours


def failure(kind, message, text="", line=None, **more):
    return {"error": kind, "message": message, "traceback": text, "line": line, **more}


def described(error, request, lost):
    """An exception of the code as an answer, with the frames of the code only."""
    shown = traceback.TracebackException.from_exception(error)
    frames = []
    one, seen = shown, set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        # Before the first line of the code there is only what carries it out.
        kept = list(itertools.dropwhile(lambda f: f.filename not in SOURCES, one.stack))
        frames = frames or kept
        one.stack = traceback.StackSummary.from_list(kept)
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    text = "".join(shown.format()).removeprefix("Traceback (most recent call last):\n")
    own = (f.lineno for f in reversed(frames) if f.filename == request["filename"])
    line = next(own, getattr(error, "lineno", None))
    message = error.msg if isinstance(error, SyntaxError) else error_text(error).partition(": ")[2]
    more = {}
    if code_modules.HINT in getattr(error, "__notes__", ()):
        more["hint"] = code_modules.HINT
    if isinstance(error, NameError) and error.name:
        more["name"] = error.name
        if error.name in lost:
            more["lost"] = lost[error.name]
    return failure(type(error).__name__, message, text, line, **more)


def encoded(answer):
    return json.dumps(answer).encode()


def main():
    protocol = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what child processes of the code print must not break the protocol
    source = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # input() in the code ends at once instead of eating the protocol
    spare = os.dup(2)
    lock = threading.Lock()
    process = os.getpid()

    def send(frame):
        if os.getpid() != process:
            return
        data = frame if isinstance(frame, bytes) else encoded(frame)
        with lock:
            protocol.write(struct.pack(">I", len(data)) + data)
            protocol.flush()

    requests = queue.SimpleQueue()

    def read():
        while True:
            head = source.read(4)
            if len(head) < 4:
                end()
            data = source.read(struct.unpack(">I", head)[0])
            requests.put(data)

    def end():
        if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)  # with what the code has started
        os._exit(0)

    send({"ready": True})
    threading.Thread(target=read, daemon=True).start()
    worker = Worker(send)
    while True:
        request = json.loads(requests.get())
        for number in (1, 2):  # the code may have closed them
            try:
                os.fstat(number)
            except OSError:
                os.dup2(spare, number)
        worker.handle(request)
