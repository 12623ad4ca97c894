"""Python objects as JSON, so that what code assigned can be recorded and made again in another process. Standard library only: the
worker of code jobs loads this file by its path.

It works like pickle (`__reduce_ex__`, references to what can be imported, objects that several names share stay shared), but the
texts in an object stay readable, so that secrets in it are found before anything is written.

Scalars of JSON are themselves; everything else is a list that begins with what it is: `["tuple", [1, 2]]`.
"""

# Objects that nobody typed.
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownParameterType=false, reportMissingParameterType=false
from __future__ import annotations

import copyreg
import enum
import importlib
import marshal
import math
import sys
import types

SIZE_LIMIT = 1_000_000
"""Characters of text and number of parts of an object that is recorded."""
PRINT_LIMIT = 16 * 1024 * 1024
"""Bytes of an object that is looked at for having changed."""
_SCALARS = (str, bool, type(None))
_LARGEST = 10**18
"""Integers beyond it are written in hexadecimal: decimal digits have a limit, and take quadratic time."""


class NotRecordableError(Exception):
    """The object lives in this process only."""


class Encoder:
    """Encodes objects that may share parts.

    Args:
        module: name of the module whose definitions are referred to by name.
        namespace: its names.
        origins: functions and classes of it → the statement that defined them. One that was defined again in the same words is
            taken for the new one.
        itself: the name that is being encoded, which cannot refer to itself.
    """

    def __init__(self, module: str, namespace, origins, itself: str = "") -> None:
        self.module, self.namespace, self.origins, self.itself = module, namespace, origins, itself
        self.seen = {}
        self.references = []
        """Functions and classes that were met."""
        self.alive = []  # ids stay those of these objects
        self.size = 0

    def encode(self, value):
        kind = type(value)
        self.count(len(value) if kind in (str, bytes, bytearray) else 1)
        if kind in _SCALARS:
            return value
        if kind is int:
            return value if -_LARGEST < value < _LARGEST else ["int", hex(value)]
        if kind is float:
            return value if math.isfinite(value) else ["float", repr(value)]
        if kind is complex:
            return ["complex", repr(value.real), repr(value.imag)]
        if kind is bytes:
            return ["bytes", value.decode("latin-1")]
        if kind is tuple:
            return ["tuple", [self.encode(item) for item in value]]
        if id(value) in self.seen:
            return ["same", self.seen[id(value)]]
        if kind is types.ModuleType:
            if sys.modules.get(value.__name__) is not value:
                raise NotRecordableError("a module that cannot be imported")
            return ["module", value.__name__]
        if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
            self.references.append(value)
            return self.reference(value, value.__qualname__)
        number = self.seen[id(value)] = len(self.seen)
        self.alive.append(value)
        if kind is list:
            return ["list", number, [self.encode(item) for item in value]]
        if kind is dict:
            return ["dict", number, [[self.encode(k), self.encode(v)] for k, v in value.items()]]
        if kind in (set, frozenset):
            return [kind.__name__, number, [self.encode(item) for item in value]]
        return self.reduced(value, number)

    def count(self, size):
        self.size += size
        if self.size > SIZE_LIMIT:
            raise NotRecordableError(f"larger than {SIZE_LIMIT:,} characters")

    def reference(self, value, name):
        """By module and name, as pickle refers to functions and classes."""
        where = getattr(value, "__module__", None)
        if where == self.module:
            top = name.partition(".")[0]
            known = self.namespace.get(top)
            if top == self.itself or not (_is(known, name, value) or (top == name and self.again(value, known))):
                raise NotRecordableError(f"{name} is not defined at the top level")
            return ["own", name]
        if where is None:  # a method of an object, or of a class
            owner = getattr(value, "__self__", None)
            if owner is None or isinstance(owner, types.ModuleType):
                raise NotRecordableError(f"{name} cannot be imported")
            return ["attribute", self.encode(owner), value.__name__]
        module = sys.modules.get(where)
        top = name.partition(".")[0]
        if where == "__main__" or module is None or not _is(getattr(module, top, None), name, value):
            raise NotRecordableError(f"{name} cannot be imported from {where}")
        return ["import", where, name]

    def again(self, old, new):
        """Whether both were defined by the same words."""
        kinds = (type, types.FunctionType)
        return (
            isinstance(old, kinds)
            and isinstance(new, kinds)
            and old in self.origins
            and self.origins[old] == self.origins.get(new)
        )

    def reduced(self, value, number):
        kind = type(value)
        if kind is types.MethodType:
            return ["attribute", self.encode(value.__self__), value.__name__]
        self.count(buffer_size(value))  # before it is copied
        try:
            reduce = copyreg.dispatch_table.get(kind)
            parts = reduce(value) if reduce else value.__reduce_ex__(4)
        except RecursionError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever an object's own method raises
            raise NotRecordableError(str(error) or kind.__name__) from None
        if isinstance(parts, str):
            del self.seen[id(value)]
            return self.reference(value, parts)
        if not isinstance(parts, tuple) or len(parts) > 5:
            raise NotRecordableError(f"{kind.__name__} is set up in a way of its own")
        function, arguments, state, items, pairs = [*parts, *[None] * (5 - len(parts))]
        return [
            "made",
            number,
            self.encode(function),
            [self.encode(argument) for argument in arguments],
            self.encode(state),
            [self.encode(item) for item in items or ()],
            [[self.encode(k), self.encode(v)] for k, v in pairs or ()],
        ]


def _is(found, name, value):
    for part in name.split(".")[1:]:
        found = getattr(found, part, None)
    return found is value


class Decoder:
    """Makes the objects again.

    Args:
        namespace: names of the module whose definitions are referred to; a missing one is a NameError.
    """

    def __init__(self, namespace) -> None:
        self.namespace = namespace
        self.made = {}

    def decode(self, form):
        if not isinstance(form, list):
            return form
        kind, *rest = form
        return getattr(self, f"_{kind}")(*rest)

    def all(self, forms):
        return [self.decode(form) for form in forms]

    def _int(self, text):
        return int(text, 16)

    def _float(self, text):
        return float(text)

    def _complex(self, real, imaginary):
        return complex(float(real), float(imaginary))

    def _bytes(self, text):
        return text.encode("latin-1")

    def _tuple(self, forms):
        return tuple(self.all(forms))

    def _same(self, number):
        return self.made[number]

    def _module(self, name):
        return importlib.import_module(name)

    def _import(self, module, name):
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def _own(self, name):
        top, *parts = name.split(".")
        if top not in self.namespace:
            raise NameError(f"name {top!r} is not defined", name=top)
        found = self.namespace[top]
        for part in parts:
            found = getattr(found, part)
        return found

    def _attribute(self, owner, name):
        return getattr(self.decode(owner), name)

    def _list(self, number, forms):
        value = self.made[number] = []
        value.extend(self.all(forms))
        return value

    def _dict(self, number, pairs):
        value = self.made[number] = {}
        for k, v in pairs:
            value[self.decode(k)] = self.decode(v)
        return value

    def _set(self, number, forms):
        value = self.made[number] = set()
        value.update(self.all(forms))
        return value

    def _frozenset(self, number, forms):
        value = self.made[number] = frozenset(self.all(forms))
        return value

    def _made(self, number, function, arguments, state, items, pairs):
        value = self.made[number] = self.decode(function)(*self.all(arguments))
        for item in items:
            value.append(self.decode(item))
        for k, v in pairs:
            value[self.decode(k)] = self.decode(v)
        state = self.decode(state)
        if state is None:
            return value
        if hasattr(value, "__setstate__"):
            value.__setstate__(state)
            return value
        slots = None
        if isinstance(state, tuple) and len(state) == 2:
            state, slots = state
        if state:
            vars(value).update(state)
        for name, item in (slots or {}).items():
            setattr(value, name, item)
        return value


CONSTANT = (str, int, float, bool, complex, bytes, type(None))
UNCHANGING = (*CONSTANT, enum.Enum, type, types.FunctionType, types.ModuleType)


def unchanging(value) -> bool:
    """Whether a value cannot be changed in place, or is code, which is not looked into."""
    return isinstance(value, UNCHANGING)


def state_of(value) -> dict:
    """Attributes with constant values that code can have set of a function or class of its own."""
    if not isinstance(value, (type, types.FunctionType)):
        return {}
    return {n: v for n, v in vars(value).items() if type(v) in CONSTANT and not (n.startswith("__") and n.endswith("__"))}


def set_state(value, state) -> None:
    """Give a function or class these attributes, and no others with constant values."""
    now = state_of(value)
    for name in now.keys() - state.keys():
        delattr(value, name)
    for name, item in state.items():
        if name not in now or now[name] is not item:
            setattr(value, name, item)


def fingerprint(value, encoder: Encoder) -> bytes | None:
    """Fingerprint that shows whether a value was changed in place; None for one that cannot be, or for which it is unknown."""
    if unchanging(value):
        if getattr(value, "__module__", None) != encoder.module:
            return None
        value = state_of(value)
    try:
        # Without references, so that equal values give equal bytes: every part is written where it stands.
        data = marshal.dumps(value, 2) if is_tree(value) else None
    except ValueError:
        data = None
    if data is None:
        import pickle  # most code needs neither it nor hashes, and the process is to start at once

        digest = Digest()
        try:
            pickle.Pickler(digest, 5, buffer_callback=digest.write).dump(value)
        except Exception:  # noqa: BLE001 - whatever an object's own method raises: it is not looked into, then
            return None
        return digest.value.digest()
    if len(data) <= 64:
        return data
    digest = Digest(len(data))
    digest.write(data)
    return digest.value.digest()


_CONTAINERS = frozenset((list, dict, tuple, set, frozenset))


def is_tree(value) -> bool:
    """Whether no part of a value stands in it twice, nor within itself."""
    seen: set[int] = set()
    waiting = [value] if type(value) in _CONTAINERS else []
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            return False
        seen.add(id(one))
        for items in (one, one.values()) if type(one) is dict else (one,):
            if not _CONTAINERS.isdisjoint(map(type, items)):
                waiting += [item for item in items if type(item) in _CONTAINERS and item]
    return True


class Digest:
    """A file that keeps the hash of what is written."""

    def __init__(self, limit: int = PRINT_LIMIT) -> None:
        from hashlib import blake2b

        self.value = blake2b(digest_size=16)
        self.left = limit

    def write(self, data) -> None:
        """Takes buffers of arrays, too, which are not copied."""
        view = memoryview(data).cast("B") if isinstance(data, (bytes, bytearray)) else memoryview(data)
        self.left -= view.nbytes
        if self.left < 0:
            raise NotRecordableError(f"larger than {PRINT_LIMIT:,} bytes")
        self.value.update(view)


def buffer_size(value) -> int:
    """Bytes of an array."""
    try:
        return memoryview(value).nbytes
    except TypeError:
        return 0


PARTS_LIMIT = 20_000
"""Parts of one value that are looked at for being shared with another name."""


def parts(value) -> set[int]:
    """Ids of the objects in a value that can be changed in place."""
    found: set[int] = set()
    waiting = [value]
    while waiting and len(found) < PARTS_LIMIT:
        one = waiting.pop()
        if unchanging(one) or id(one) in found:
            continue
        if type(one) not in (tuple, frozenset):
            found.add(id(one))
        if isinstance(one, dict):
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple, set, frozenset)):
            waiting.extend(one)
        state = getattr(one, "__dict__", None)
        if isinstance(state, dict):
            waiting.extend(state.values())
    return found
