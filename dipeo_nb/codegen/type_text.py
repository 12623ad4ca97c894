"""TypeScript's types as text, read into a small tree, and written as Python's annotations. Needs no grammar package."""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

MAX_DEPTH = 60
"""Types within each other; what is deeper is `Any`."""
MAX_LENGTH = 20_000
"""Characters of a type; a longer one is `Any`."""


@dataclass(frozen=True, slots=True)
class Type:
    """A type.

    Kinds: name (`text`, with `parts` as arguments), literal (`text` as written), union, intersection, array (one part), tuple, object,
    function (the last part is what it returns), rest (`...T[]` in a tuple), unknown (what has no annotation of its own).
    """

    kind: str
    text: str = ""
    parts: tuple[Type, ...] = ()


UNKNOWN = Type("unknown")
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<comment>//[^\n]*|/\*.*?\*/)
      | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`)
      | (?P<number>-?\d[\w.]*)
      | (?P<name>[A-Za-z_$][\w$]*)
      | (?P<sign>=>|\.\.\.|[\[\](){}<>|&,:;?.=*+-])
    )""",
    re.VERBOSE | re.DOTALL,
)
_OPENING = {"(": ")", "[": "]", "{": "}", "<": ">"}


class _NotReadError(Exception):
    """It is not a type that is understood."""


@lru_cache(maxsize=2048)
def read_type(text: str) -> Type:
    """The tree of a type; `UNKNOWN` for what is not understood."""
    if len(text) > MAX_LENGTH:
        return UNKNOWN
    try:
        reader = _Reader(_tokens(text))
        made = reader.type(0)
        return made if reader.at == len(reader.tokens) else UNKNOWN
    except _NotReadError:
        return UNKNOWN


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise _NotReadError
        at = match.end()
        if match.lastgroup != "comment":
            found.append((match.lastgroup or "", match[match.lastgroup or 0]))
    return found


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.at = 0

    def _next(self, ahead: int = 0) -> str:
        at = self.at + ahead
        kind, text = self.tokens[at] if at < len(self.tokens) else ("", "")
        return text if kind in ("sign", "name") else ""

    def _take(self, sign: str) -> bool:
        if self._next() == sign:
            self.at += 1
            return True
        return False

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            raise _NotReadError

    def _skip(self) -> None:
        """Step over a bracket and all within it."""
        depth = 0
        while self.at < len(self.tokens):
            sign = self._next()
            depth += (sign in _OPENING) - (sign in _OPENING.values())
            self.at += 1
            if depth == 0:
                return
        raise _NotReadError

    def type(self, depth: int) -> Type:
        if depth > MAX_DEPTH:
            raise _NotReadError
        if self._next() == "asserts" or (self._next(1) == "is" and self._next() not in ("|", "&", "")):
            self.at = len(self.tokens)  # what a guard returns
            return Type("name", "boolean")
        if self._is_function():
            return self._function(depth)
        made = self._union(depth)
        if self._next() == "extends":  # a conditional type: what it is depends
            self.at = self._end_of_conditional()
            return UNKNOWN
        return made

    def _end_of_conditional(self) -> int:
        depth = 0
        for at in range(self.at, len(self.tokens)):
            text = self.tokens[at][1]
            if depth == 0 and (text in _OPENING.values() or text in (",", ";")):
                return at
            depth += (text in _OPENING) - (text in _OPENING.values())
        return len(self.tokens)

    def _is_function(self) -> bool:
        if self._next() in ("new", "<") or (self._next() == "abstract" and self._next(1) == "new"):
            return True
        if self._next() != "(":
            return False
        mark = self.at
        try:
            self._skip()
            return self._next() == "=>"
        finally:
            self.at = mark

    def _function(self, depth: int) -> Type:
        while self._next() in ("new", "abstract"):
            self.at += 1
        if self._next() == "<":
            self._skip()
        self._need("(")
        parts: list[Type] = []
        variable = False
        while not self._take(")"):
            variable = self._take("...") or variable
            if self._next() in ("{", "["):
                self._skip()
            else:
                self.at += 1
            self._take("?")
            parts.append(self.type(depth + 1) if self._take(":") else UNKNOWN)
            if not self._take(","):
                self._need(")")
                break
        self._need("=>")
        returned = self.type(depth + 1)
        return Type("function", "..." if variable else "", (*parts, returned))

    def _union(self, depth: int) -> Type:
        return self._joined("union", "|", self._intersection, depth)

    def _intersection(self, depth: int) -> Type:
        return self._joined("intersection", "&", self._suffixed, depth)

    def _joined(self, kind: str, sign: str, part: Callable[[int], Type], depth: int) -> Type:
        """Parts between signs, of which one may stand before the first."""
        self._take(sign)
        parts = [part(depth)]
        while self._take(sign):
            parts.append(part(depth))
        return parts[0] if len(parts) == 1 else Type(kind, "", tuple(parts))

    def _suffixed(self, depth: int) -> Type:
        if self._next() in ("keyof", "unique", "typeof", "infer", "readonly"):
            word = self._next()
            self.at += 1
            made = self._suffixed(depth + 1) if depth < MAX_DEPTH else UNKNOWN
            return made if word == "readonly" else Type("name", "string") if word == "keyof" else UNKNOWN
        made = self._atom(depth)
        while self._take("["):
            if self._take("]"):
                made = Type("array", "", (made,))
                continue
            key = self.type(depth + 1)
            self._need("]")
            made = Type("indexed", "", (made, key))
        return made

    def _atom(self, depth: int) -> Type:
        if self.at >= len(self.tokens):
            raise _NotReadError
        kind, text = self.tokens[self.at]
        if kind in ("text", "number"):
            self.at += 1
            return Type("literal", text)
        if text == "(":
            self.at += 1
            made = self.type(depth + 1)
            self._need(")")
            return made
        if text == "{":
            return self._object(depth)
        if text == "[":
            return self._tuple(depth)
        if kind != "name":
            raise _NotReadError
        return self._name(depth)

    def _object(self, depth: int) -> Type:
        """A type in braces; with nothing but an index signature, it is a record: `{ [key: string]: T }`."""
        start = self.at
        self._skip()
        end = self.at
        inner = self.tokens[start + 1 : start + 5]
        if (
            len(inner) == 4
            and inner[0][1] == "["
            and inner[1][0] == "name"
            and inner[2][1] == ":"
            and inner[3][1] in ("string", "number")
        ):
            self.at = start + 5
            if self._take("]") and self._take(":"):
                value = self.type(depth + 1)
                self.at += self._next() in (";", ",")
                if self.at == end - 1:
                    self.at = end
                    return Type("name", "Record", (Type("name", "string"), value))
            self.at = end
        return Type("object")

    def _tuple(self, depth: int) -> Type:
        self._need("[")
        parts: list[Type] = []
        while not self._take("]"):
            rest = self._take("...")
            if self._next(1) == ":" or (self._next(1) == "?" and self._next(2) == ":"):  # [name: T]
                self.at += 3 if self._next(1) == "?" else 2
            part = self.type(depth + 1)
            self._take("?")
            parts.append(Type("rest", "", (part,)) if rest else part)
            if not self._take(","):
                self._need("]")
                break
        return Type("tuple", "", tuple(parts))

    def _name(self, depth: int) -> Type:
        name = self.tokens[self.at][1]
        self.at += 1
        if name == "import" and self._next() == "(":
            self._skip()
            name = "import"
        while self._next() == "." and self._next(1):
            name += f".{self._next(1)}"
            self.at += 2
        parts: list[Type] = []
        if self._take("<"):
            while True:
                parts.append(self.type(depth + 1))
                if not self._take(","):
                    break
            self._need(">")
        return Type("name", name, tuple(parts))


# Python.

PRIMITIVES: Mapping[str, str] = {
    "string": "str", "number": "float", "boolean": "bool", "bigint": "int", "symbol": "str", "any": "Any", "unknown": "Any", "void": "None",
    "null": "None", "undefined": "None", "never": "Never", "object": "Dict[str, Any]", "Object": "Dict[str, Any]", "Function": "Callable[..., Any]",
    "String": "str", "Number": "float", "Boolean": "bool", "true": "Literal[True]", "false": "Literal[False]", "Date": "datetime", "this": "Any",
    "RegExp": "str", "URL": "str",
}  # fmt: skip
_CONTAINERS: Mapping[str, str] = {
    "Array": "List", "ReadonlyArray": "List", "Set": "Set", "ReadonlySet": "Set", "Iterable": "List", "Map": "Dict", "ReadonlyMap": "Dict",
    "Record": "Dict",
}  # fmt: skip
_SAME = ("Readonly", "Required", "Promise", "PromiseLike", "Awaited", "InputMaybe", "Maybe")
_PARTS = ("Partial", "Pick", "Omit")
"""Make types that have no name: mappings, in Python."""
_NAME = re.compile(r"[A-Za-z_]\w*")
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]{2,}")
"""A member of an enum; shorter ones are types of a namespace: `React.FC`."""


def to_python(made: Type, names: Mapping[str, str] | None = None, number: str = "float", unknown: Collection[str] = ()) -> str:
    """The annotation of a type, valid in Python.

    Args:
        names: what further types are called in Python.
        number: what `number` is.
        unknown: names that mean nothing in Python, such as type parameters.
    """
    writer = _Python(names or {}, number, unknown)
    return writer.write(made)


class _Python:
    def __init__(self, names: Mapping[str, str], number: str, unknown: Collection[str]) -> None:
        self._names = names
        self._number = number
        self._unknown = unknown

    def write(self, made: Type) -> str:
        match made.kind:
            case "name":
                return self._name(made)
            case "literal":
                return self._union([made])
            case "union":
                return self._union(_flat(made))
            case "array":
                return f"List[{self.write(made.parts[0])}]"
            case "tuple":
                return self._tuple(made)
            case "object":
                return "Dict[str, Any]"
            case "function":
                *given, returned = (self.write(part) for part in made.parts)
                return f"Callable[{'...' if made.text else '[' + ', '.join(given) + ']'}, {returned}]"
            case "intersection":
                return self._intersection(made)
            case _:
                return "Any"

    def _name(self, made: Type) -> str:
        name, parts = made.text, made.parts
        if name in self._names:
            return self._names[name]
        if name in self._unknown:
            return "Any"
        if name == "number" and not parts:
            return self._number
        if not parts and name in PRIMITIVES:
            return PRIMITIVES[name]
        if name in _CONTAINERS:
            kind = _CONTAINERS[name]
            wanted = 2 if kind == "Dict" else 1
            given = [self.write(part) for part in parts[:wanted]]
            given += ["str" if kind == "Dict" and not given else "Any"] * (wanted - len(given))
            return f"{kind}[{', '.join(given)}]"
        if name in _SAME and parts:
            inner = self.write(parts[0])
            return _optional(inner) if name in ("InputMaybe", "Maybe") else inner
        if name == "NonNullable" and parts:
            return self._union([part for part in _flat(parts[0]) if not _is_nothing(part)])
        if name in _PARTS:
            return "Dict[str, Any]"
        if name in ("Exclude", "Extract", "ReturnType", "Parameters", "InstanceType", "import"):
            return "Any"
        if name.startswith("import."):
            return "Any"
        if "." in name:
            enum, _, member = name.rpartition(".")
            if _CONSTANT.fullmatch(member) and _NAME.fullmatch(enum):
                return f"Literal[{name}]"
            if member[:1].islower():
                return "Any"  # a function of types: `z.infer<typeof schema>`
            name = member
        name = self._names.get(name, name)
        return name if _NAME.fullmatch(name) and not keyword.iskeyword(name) else "Any"

    def _union(self, parts: list[Type]) -> str:
        """None makes it optional; literals stand together; each type stands once."""
        nothing = any(_is_nothing(part) for part in parts)
        literals: list[str] = []
        others: list[str] = []
        first = 0
        """Where the literals stand: at the first one's place."""
        for part in parts:
            if _is_nothing(part):
                continue
            text = _literal(part) or self.write_other(part)
            if text.startswith("Literal["):
                first = first if literals else len(others)
                literals += [each for each in [text[8:-1]] if each not in literals]
            elif text not in others:
                others.append(text)
        if literals:
            others.insert(first, f"Literal[{', '.join(literals)}]")
        if "Any" in others:
            return "Any"
        made = "None" if not others else others[0] if len(others) == 1 else f"Union[{', '.join(others)}]"
        return _optional(made) if nothing and others else made

    def write_other(self, part: Type) -> str:
        return "Any" if part.kind == "literal" else self.write(part)

    def _tuple(self, made: Type) -> str:
        if not made.parts:
            return "Tuple[()]"
        if any(part.kind == "rest" for part in made.parts):
            if len(made.parts) == 1:
                inner = made.parts[0].parts[0]
                return f"Tuple[{self.write(inner.parts[0])}, ...]" if inner.kind == "array" else "Tuple[Any, ...]"
            return "Tuple[Any, ...]"
        return f"Tuple[{', '.join(self.write(part) for part in made.parts)}]"

    def _intersection(self, made: Type) -> str:
        """A branded primitive is the primitive; objects are mappings; a combination of names has no annotation."""
        written = [self.write(part) for part in made.parts]
        plain = [text for text in written if text in ("str", "float", "int", "bool") or text == self._number]
        if plain:
            return plain[0]
        return "Dict[str, Any]" if all(text == "Dict[str, Any]" for text in written) else "Any"


def _optional(text: str) -> str:
    return text if text in ("Any", "None") or text.startswith("Optional[") else f"Optional[{text}]"


def _is_nothing(part: Type) -> bool:
    return part.kind == "name" and part.text in ("null", "undefined", "void") and not part.parts


def _flat(made: Type) -> list[Type]:
    """The members of a union, those of unions within it included."""
    if made.kind != "union":
        return [made]
    return [member for part in made.parts for member in _flat(part)]


def _literal(part: Type) -> str:
    """`Literal[…]` of a literal type that Python has: texts and whole numbers; else empty."""
    if part.kind != "literal":
        return ""
    text = part.text
    if text[0] in "\"'`":
        if text[0] == "`" and "${" in text:
            return "str"
        inner = re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t", "r": "\r"}.get(m[1], m[1]), text[1:-1])
        return f"Literal[{python_text(inner)}]"
    return f"Literal[{int(text)}]" if re.fullmatch(r"-?\d+", text) else "float"


def python_text(text: str) -> str:
    """A text as a Python literal, in double quotes."""
    escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\x00"}
    return '"' + "".join(escapes.get(c) or (c if c.isprintable() else f"\\U{ord(c):08x}") for c in text) + '"'
