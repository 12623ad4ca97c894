"""Translates prompt templates to Jinja2: recognised tags get delimiters that cannot occur in text, all else is literal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple, NoReturn

from jinja2 import TemplateSyntaxError, nodes

from dipeo_nb.common.text import nearest
from dipeo_nb.diagram.template_sandbox import CLOSE, ENVIRONMENT, OPEN
from dipeo_nb.diagram.template_tags import Tag, tags
from dipeo_nb.errors import TemplateError

MAX_LENGTH = 1_000_000
"""Characters of a template."""
# --- translation -------------------------------------------------------------------------------------------------

_STATEMENTS = frozenset(
    [
        "if", "elif", "else", "endif", "for", "endfor", "set", "endset", "macro", "endmacro", "call", "endcall",
        "filter", "endfilter", "with", "endwith",
    ]
)  # fmt: skip
_FORBIDDEN = frozenset(["include", "import", "from", "extends", "block", "endblock", "do", "trans", "autoescape"])
_PATH = re.compile(r"[^\W\d]\w*(?:\.\w+|\[(?:-?\d+|[^\W\d][\w.]*)\])*")
_SUBSCRIPTS = re.compile(r"""(?:\.\w+|\[(?:-?\d+|[^\W\d][\w.]*|"[^"]*"|'[^']*')\])*""")
"""The rest of a path as it is written, with keys in quotes."""
_LABEL = re.compile(r"\w[\w .:\-/]*")
_AT_WORD = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|@(index|first|last|key)\b""")
_AS = re.compile(r"(?<!\s)\s++as\s+\|")
_ALIASES = re.compile(r"\s*+(\w++)(?:\s++(\w++))?\s*+\|")
_RESERVED = frozenset(["and", "or", "not", "is", "in", "if", "else", "true", "false", "none", "True", "False", "None"])
LOOP_NAMES = {"index": "_at_index", "first": "_at_first", "last": "_at_last", "key": "_at_key"}


class Piece(NamedTuple):
    """A tag that prints something."""

    text: str
    """As written, braces included."""
    path: str
    """Its name in `missing_keys`."""
    line: int


class _Block(NamedTuple):
    kind: str
    line: int
    text: str


class Translator:
    """Turns a template into Jinja2 source with private delimiters."""

    def __init__(self, template: str) -> None:
        if len(template) > MAX_LENGTH:
            raise TemplateError(
                f"The template has {len(template):,} characters; {MAX_LENGTH:,} are allowed.",
                hint="Shorten it, or bring the text in as a value.",
            )
        self.template: str = template.replace(OPEN, "\ufffd").replace(CLOSE, "\ufffd")
        self.pieces: list[Piece] = []
        self.lone = False
        """Whether the template is one tag and nothing else."""
        self.blocks: list[_Block] = []
        self.line: int = 1

    def run(self) -> tuple[str, tuple[Piece, ...]]:
        """The Jinja2 source of the template, and its printing tags."""
        made: list[str] = []
        at = 0
        for found in tags(self.template):
            text = self.template[at : found.start]
            made.append(text)
            self.line += text.count("\n")
            text = self.template[found.start : found.end]
            made.append(self.tag(found, text))
            self.line += text.count("\n")
            at = found.end
        made.append(self.template[at:])
        if self.blocks:
            block = self.blocks[-1]
            closing = "{% end" + block.kind[1:] + " %}" if block.kind.startswith("%") else "{{/" + block.kind + "}}"
            self.fail(f"The block {block.text} is not closed", f"Add {closing}.", block.line, block.text)
        self.lone: bool = len(self.pieces) == 1 and len(made) == 3 and not made[0].strip() and not made[2].strip()
        return "".join(made), tuple(self.pieces)

    def tag(self, found: Tag, text: str) -> str:
        """Translate one tag."""
        inner = found.inner
        if found.kind == "comment":
            return "\n" * text.count("\n")
        if found.kind == "raw":
            return inner
        if found.kind == "statement":
            return self.statement(inner, text)
        left = "-" if inner[:1] in ("-", "~") else ""
        right = "-" if inner[-1:] in ("-", "~") and len(inner) > 1 else ""
        body = inner[len(left) : len(inner) - len(right)]
        word = body.strip()
        if word[:1] in ("#", "/", "^") or re.match(r"else\b", word):
            return self.block(word, text, left, right, body.count("\n"))
        return self.output(word, body, text, left, right)

    def block(self, word: str, text: str, left: str, right: str, newlines: int) -> str:
        """Translate a block tag, its end or its `else`."""

        def statement(code: str) -> str:
            # Line numbers of what follows must stay right.
            return f"{OPEN}%{left} {code}{chr(10) * newlines} {right}%{CLOSE}"

        if word[0] == "#" or (word[0] == "^" and len(word) > 1):
            kind, _, rest = word[1:].strip().partition(" ")
            kind, rest = kind.strip(), rest.strip()
            if word[0] == "^":
                kind, rest = "unless", word[1:].strip()
            if kind not in ("if", "unless", "each"):
                close = nearest(kind, ("if", "unless", "each"))
                self.fail(
                    f"There is no block {text}",
                    f"Did you mean {{{{#{close} …}}}}?" if close else "Blocks: #if, #unless, #each.",
                    self.line,
                    text,
                )
            if not rest:
                self.fail(f"{text} names nothing", f"Write, for example, {{{{#{kind} name}}}}.", self.line, text)
            self.blocks.append(_Block(kind, self.line, text))
            if kind == "each":
                return statement(self.each(rest, text))
            code = f"_true({self.expression(rest, text)})"
            return statement(f"if not {code}" if kind == "unless" else f"if {code}")
        if word[0] == "/":
            kind = word[1:].strip()
            if not self.blocks or self.blocks[-1].kind != kind:
                opened = self.blocks[-1] if self.blocks else None
                self.fail(
                    f"{text} closes nothing" if not opened else f"{text} does not close {opened.text} of line {opened.line}",
                    f"Write {{{{/{opened.kind}}}}}."
                    if opened and not opened.kind.startswith("%")
                    else "Remove it, or open the block before.",
                    self.line,
                    text,
                )
            self.blocks.pop()
            return statement("endfor" if kind == "each" else "endif")
        rest = "" if word == "^" else word[4:].strip()
        if not self.blocks:
            self.fail(f"{text} is outside a block", "Remove it, or open the block before.", self.line, text)
        if not rest:
            return statement("else")
        condition = re.fullmatch(r"if\s+(.+)", rest, re.DOTALL)
        if not condition or self.blocks[-1].kind not in ("if", "unless"):
            self.fail(f"{text} is not understood", "Write {{else}} or, inside #if, {{else if name}}.", self.line, text)
        return statement(f"elif _true({self.expression(condition[1], text)})")

    def each(self, rest: str, text: str) -> str:
        """Translate the beginning of an `#each`."""
        path, item, key = _aliased(rest)
        number = self.piece(text, path)
        code = f"for this, _at_index, _at_key, _at_first, _at_last in _each({self.expression(path, text)}, {number})"
        if not item:
            return code
        # {{#each items as |item key|}}
        return code + f" {CLOSE}_ALIAS {item} {key}"

    def statement(self, inner: str, text: str) -> str:
        """Check a statement of Jinja2, and pass it on."""
        body = inner.strip("+-").strip()
        word = re.match(r"\w*", body)
        name = word[0] if word else ""
        if name in _FORBIDDEN:
            self.fail(f"{text} is not available in prompts", "Write the text into this template.", self.line, text)
        if name not in _STATEMENTS:
            return text
        if name.startswith("end"):
            if not self.blocks or self.blocks[-1].kind != "%" + name[3:]:
                opened = f" of line {self.blocks[-1].line}" if self.blocks else ""
                what = f"{text} does not close {self.blocks[-1].text}{opened}" if self.blocks else f"{text} closes nothing"
                self.fail(what, "Close the inner block first, or remove it.", self.line, text)
            self.blocks.pop()
        elif name in ("if", "for", "macro", "call", "filter", "with") or (name == "set" and "=" not in body):
            self.blocks.append(_Block("%" + name, self.line, text))
        inner = _AT_WORD.sub(_at_word, inner)
        return f"{OPEN}%{inner}%{CLOSE}"

    def output(self, word: str, body: str, text: str, left: str, right: str) -> str:
        """Translate a tag that prints a value."""
        if not word:
            return text
        code = _AT_WORD.sub(_at_word, word)
        if not _is_expression(code):
            # A label with blanks or hyphens may still be the name of an input.
            if not _LABEL.fullmatch(word):
                return text
            code = f"_named({word!r}, {self.piece(text, word)})"
            return f"{OPEN}{{{left} {code} {right}}}{CLOSE}"
        newlines = "\n" * (body.count("\n") - code.count("\n"))
        if "-" in word and re.fullmatch(r"[\w.]+(?:-[\w.]+)+", word) and re.match(r"[^\W\d]", word):
            # Without blanks it may be the label `user-name`, or the subtraction a-b: the names of the run decide.
            code = f"(_given({word!r}) if _has({word!r}) else ({code}))"
        elif self.inside_each() and (path := _PATH.fullmatch(word)) and path[0].split(".")[0].split("[")[0] not in _RESERVED:
            # As in Handlebars, a bare name inside #each is also looked for in the item.
            name = re.match(r"\w+", word)
            first = name[0] if name else word
            if first != "this":
                code = f"({first} if {first} is defined else _field(this, {first!r})){word[len(first) :]}"
        number = self.piece(text, _spoken(word))
        return f"{OPEN}{{{left} _out(({code}{newlines}), {number}) {right}}}{CLOSE}"

    def inside_each(self) -> bool:
        """Whether an `#each` is open."""
        return any(block.kind == "each" for block in self.blocks)

    def expression(self, code: str, text: str) -> str:
        """A path or expression as Jinja2 understands it."""
        code = _AT_WORD.sub(_at_word, code.strip())
        if not _is_expression(code):
            self.fail(
                f"{text} is not understood: '{code}' is not a path",
                "Write a name, such as user.name or items[0].",
                self.line,
                text,
            )
        return code

    def piece(self, text: str, path: str) -> int:
        """Register a tag that prints something; its number."""
        self.pieces.append(Piece(text, path, self.line))
        return len(self.pieces) - 1

    def fail(self, message: str, hint: str, line: int, tag: str) -> NoReturn:
        """Raise TemplateError for a tag."""
        raise TemplateError(f"Line {line} of the template: {short(message)}.", hint=hint, line=line, tag=tag)


def _aliased(rest: str) -> tuple[str, str, str]:
    """(path, item, key) of `path as |item key|`; without aliases, item and key are empty."""
    for found in _AS.finditer(rest, 1):
        if names := _ALIASES.fullmatch(rest, found.end()):
            return rest[: found.start()], names[1], names[2] or ""
    return rest, "", ""


def _at_word(match: re.Match[str]) -> str:
    return match[1] if match[1] is not None else LOOP_NAMES[match[2]]


def _spoken(word: str) -> str:
    path = _PATH.match(word)
    if path is None or re.match(r"\s*[(+*/~<>=]", word[path.end() :]):
        return word
    rest = _SUBSCRIPTS.match(word, path.end())
    return path[0] + (rest[0] if rest else "")


def short(text: str) -> str:
    """Text on one line, at most 200 characters."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:199] + "…"


@lru_cache(maxsize=2_000)
def _is_expression(code: str) -> bool:
    if _PATH.fullmatch(code):
        return code not in ("else", "if", "in", "is", "and", "or", "not")
    if len(code) > 2_000:
        return False
    try:
        tree = ENVIRONMENT.parse(f"{OPEN}{{{code}}}{CLOSE}")
    except (TemplateSyntaxError, RecursionError):
        return False
    # A tuple (`a, b`) is prose rather than an expression.
    output = tree.body[0] if len(tree.body) == 1 else None
    return isinstance(output, nodes.Output) and len(output.nodes) == 1 and not isinstance(output.nodes[0], nodes.Tuple)


def parsed(source: str, template: str) -> nodes.Template:
    """The syntax tree of translated source. Raises TemplateError."""
    with syntax_errors(template):
        tree = ENVIRONMENT.parse(_ALIAS.sub(_alias, source))
        _refuse_reserved(tree, template)
    return tree


@contextmanager
def syntax_errors(template: str) -> Iterator[None]:
    """Jinja2's syntax errors as ours."""
    try:
        yield
    except TemplateSyntaxError as error:
        line = error.lineno
        text = template.split("\n")[line - 1].strip() if line <= template.count("\n") + 1 else ""
        message = str(error.message or error).replace(OPEN, "{").replace(CLOSE, "}")
        raise TemplateError(
            f"Line {line} of the template: {short(message).rstrip('.')} in '{short(text)}'.",
            hint="Correct the tag.",
            line=line,
            tag=text,
        ) from None
    except (RecursionError, SyntaxError):  # Jinja2's parser, or Python's of what it made
        raise TemplateError(
            "The template is nested too deeply.", hint="Use fewer blocks inside each other.", line=1, tag=""
        ) from None


# `{{#each items as |item key|}}`: the loop sets its own names from `this` and `@key` right after it starts.
_ALIAS = re.compile(f" {CLOSE}_ALIAS (\\w+) (\\w*)(\\s*-?%{CLOSE})")


def _alias(match: re.Match[str]) -> str:
    made = f"{match[3]}{OPEN}% set {match[1]} = this %{CLOSE}"
    return made + (f"{OPEN}% set {match[2]} = _at_key %{CLOSE}" if match[2] else "")


CALLED_BY_TAGS = frozenset(["_out", "_each", "_named", "_has", "_given", "_field", "_true"])
"""Names that translated tags call."""


def _refuse_reserved(tree: nodes.Template, template: str) -> None:
    """A template cannot give names of its own to what its tags call."""
    named = [(n.name, n.lineno) for n in tree.find_all(nodes.Name) if isinstance(n, nodes.Name) and n.ctx != "load"]
    named += [(n.name, n.lineno) for n in tree.find_all(nodes.Macro) if isinstance(n, nodes.Macro)]
    for name, line in named:
        if name in CALLED_BY_TAGS:
            text = template.split("\n")[line - 1].strip() if line <= template.count("\n") + 1 else ""
            raise TemplateError(
                f"Line {line} of the template: '{name}' cannot be set: it is a name of the template language.",
                hint="Use another name.",
                line=line,
                tag=text,
            )
