"""Prompt templates: Handlebars-like tags on Jinja2's sandbox (diagram-spec §5.6 "Do").

    {{a.b[0]}} {{a[i].b}} {{a[-1]}} {{a[:5]}}      paths, through mappings and lists; missing and None print nothing
    {{name | upper}} {{price * 2}}                 any Jinja2 expression and filter
    {{name.upper()}} {{order.items}}               methods are called with (); without, a name is a key or it is missing
    {{#if p}}…{{else if q}}…{{else}}…{{/if}}       {{#unless p}}…{{/unless}}
    {{#each p}}…{{else}}…{{/each}}                 over lists (this) and mappings (this, @key); @index @first @last
    {{{raw}}} {{! comment }} {{!-- comment --}}    nothing is ever escaped, so triple braces are the same as double ones
    {% for x in xs %}…{% endfor %} {# comment #}   Jinja2's own statements

What is no tag of ours stays as it is: `{{person:name}}`, a lone `{{`, `{% 50 %}`. Values are printed, never expanded
again. A template is translated once: recognised tags get delimiters that cannot occur in text, all else is literal.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple, NoReturn

from jinja2 import ChainableUndefined, Environment, Template, TemplateSyntaxError, Undefined, UndefinedError, nodes
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables

from dipeo_nb.common.text import known_names, nearest
from dipeo_nb.diagram.metering import Meter, NotQuickError, metered
from dipeo_nb.diagram.template_sandbox import (
    CLOSE,
    ENVIRONMENT,
    FILENAME,
    OPEN,
    OURS,
    RECORD,
    Counted,
    Missing,
    check_refused,
    gathered,
)
from dipeo_nb.diagram.template_tags import Tag, tags
from dipeo_nb.diagram.values import as_text, is_true, plain
from dipeo_nb.domain.ports import TemplateProcessorPort, TemplateResult
from dipeo_nb.errors import TemplateError

MAX_LENGTH = 1_000_000
"""Characters of a template."""
CACHED_TEMPLATES = 500
"""Translated templates kept, the least recently used leave."""


class SimpleTemplateProcessor(TemplateProcessorPort):
    """Renders templates. Stateless but for a cache of translations; safe to share between runs and threads.

    Args:
        keep_missing: leave the tag of a missing name in the text instead of printing nothing.
    """

    def __init__(self, *, keep_missing: bool = False) -> None:
        self.keep_missing = keep_missing

    def process(self, template: str, context: Mapping[str, Any]) -> TemplateResult:
        """Render *template* with the names of *context*.

        Returns:
            The text; `missing_keys`, paths that are not there or None; `used_keys`, top-level names that are;
            `errors`, sentences about tags that could not do what they ask (an #each over a number).

        Raises:
            TemplateError: bad syntax, or a tag that fails; facts: line (1-based), tag.
        """
        return self._rendered(template, context, None)[0]

    def process_value(self, template: str, context: Mapping[str, Any]) -> tuple[Any, TemplateResult]:
        """The value of a field: of a template that is one tag (`{{x}}`, `{{x.y | length}}`) what the tag names, else the text.

        A missing name gives the empty text, None is None. Errors as `process`.
        """
        result, record = self._rendered(template, context, None)
        if record is None or not record.lone or record.value is _NOTHING:
            return result.content, result
        return record.value, result._replace(missing_keys=()) if record.value is None else result

    def process_placed(self, template: str, context: Mapping[str, Any], place: Callable[[str], str]) -> TemplateResult:
        """Render for a language of its own, such as a shell's: *place* gives what stands for the text of each value.

        What the template says itself stays as it is. Errors as `process`.
        """
        return self._rendered(template, context, place)[0]

    def _rendered(
        self, template: str, context: Mapping[str, Any], place: Callable[[str], str] | None
    ) -> tuple[TemplateResult, _Record | None]:
        if "{" not in template:
            return TemplateResult(template), None
        program = translate(template)
        record = _Record(program, context, self.keep_missing, place)
        content = program.render(context, record)
        used = tuple(name for name in program.variables if name in context)
        return TemplateResult(content, tuple(record.missing), used, tuple(record.errors)), record

    def process_simple(self, template: str, context: Mapping[str, Any]) -> str:
        """The rendered text alone; same errors."""
        return self.process(template, context).content

    def process_single_brace(self, template: str, context: Mapping[str, Any]) -> str:
        """Replace `{a.b[0]}` and `{{a.b[0]}}` in a file name, in one pass; only scalars have a place in one.

        Unknown names, None, lists and mappings leave the braces as they are.
        """

        def replaced(match: re.Match[str]) -> str:
            value = resolve(match[1] or match[2], context, None)
            value = getattr(value, "__dipeo_text__", value)
            if isinstance(value, (str, int, float, datetime.date, datetime.time)):
                return as_text(value)
            return match[0]

        return _BRACED_PATH.sub(replaced, template)

    def extract_variables(self, template: str) -> tuple[str, ...]:
        """Top-level names the template asks for, in order of appearance.

        Raises:
            TemplateError: bad syntax.
        """
        return translate(template).variables if "{" in template else ()


def resolve(path: str, context: Mapping[str, Any], default: Any = None) -> Any:
    """The value at a path such as `a.b[0]`, `a[i].b`, `a[-1]` or `a["k"]`; *default* when there is none."""
    steps = _STEPS.findall(path)
    value: Any = context
    for number, (name, index, key) in enumerate(steps):
        at: Any = name or key
        if index:
            # A number, or the value of another path.
            at = int(index) if re.fullmatch(r"-?\d+", index) else plain(resolve(index, context))
        value = plain(value) if number else value
        if isinstance(value, (list, tuple)) and isinstance(at, str) and at.isdecimal():
            at = int(at)
        try:
            value = value[at]  # type: ignore[index] — a wrong kind of index is caught below
        except (LookupError, TypeError):
            return default
    return value if steps else default


def unfilled(template: str, name: str) -> tuple[str, ...]:
    """The braces of a file name's template that are still in the name made of it."""
    return tuple(dict.fromkeys(m[0] for m in _BRACED_PATH.finditer(template) if m[0] in name)) if "{" in name else ()


def braced_names(template: str) -> frozenset[str]:
    """Top-level names in the braces of a file name's template."""
    found = (m[1] or m[2] for m in _BRACED_PATH.finditer(template))
    return frozenset(re.split(r"[.\[]", path, maxsplit=1)[0] for path in found)


class Names(NamedTuple):
    """Names of a template, as far as they can be known without running it."""

    all: tuple[str, ...]
    """Every top-level name, in order."""
    needed: frozenset[str]
    """Those whose absence would leave a hole: not only tested, nor found in the items of an #each."""


def check(template: str) -> Names:
    """The names a template uses, without compiling it.

    Raises:
        TemplateError: bad syntax.
    """
    if "{" not in template:
        return _NO_NAMES
    if not _needs_parser(template):
        found = dict.fromkeys(m[1] for m in _SIMPLE_TAG.finditer(template))
        found.pop("this", None)
        return Names(tuple(found), frozenset(found))
    source, _ = _Translator(template).run()
    tree = _parsed(source, template)
    check_filters(ENVIRONMENT, tree, template)
    return names_of(tree, template)


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
_SIMPLE_TAG = re.compile(r"\{\{\s*([^\W\d]\w*)(?:\.[^\W\d]\w*|\[-?\d+\])*\s*\}\}")
_AT_WORD = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|@(index|first|last|key)\b""")
_AS = re.compile(r"(?<!\s)\s++as\s+\|")
_ALIASES = re.compile(r"\s*+(\w++)(?:\s++(\w++))?\s*+\|")
_BRACED_PATH = re.compile(
    r"\{\{\s*([^\W\d]\w*(?:\.\w+|\[[^\[\]{}]+\])*)\s*\}\}|\{([^\W\d]\w*(?:\.\w+|\[[^\[\]{}]+\])*)\}"
)
_STEPS = re.compile(r"""(?:^|\.)(\w+)|\[(-?\w[\w.]*)\]|\[["']([^"'\]]*)["']\]""")
_NO_NAMES = Names((), frozenset())
_NOTHING: Any = object()
_RESERVED = frozenset(["and", "or", "not", "is", "in", "if", "else", "true", "false", "none", "True", "False", "None"])
_LOOP_NAMES = {"index": "_at_index", "first": "_at_first", "last": "_at_last", "key": "_at_key"}


class _Piece(NamedTuple):
    """A tag that prints something."""

    text: str
    """As written, braces included."""
    path: str
    """What to call it in `missing_keys`."""
    line: int


class _Block(NamedTuple):
    kind: str
    line: int
    text: str


class _Translator:
    """Turns a template into Jinja2 source with private delimiters."""

    def __init__(self, template: str) -> None:
        if len(template) > MAX_LENGTH:
            raise TemplateError(
                f"The template has {len(template):,} characters; {MAX_LENGTH:,} are allowed.",
                hint="Shorten it, or bring the text in as a value.",
            )
        self.template = template.replace(OPEN, "\ufffd").replace(CLOSE, "\ufffd")
        self.pieces: list[_Piece] = []
        self.lone = False
        """Whether the template is one tag and nothing else."""
        self.blocks: list[_Block] = []
        self.line = 1

    def run(self) -> tuple[str, tuple[_Piece, ...]]:
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
        self.lone = len(self.pieces) == 1 and len(made) == 3 and not made[0].strip() and not made[2].strip()
        return "".join(made), tuple(self.pieces)

    def tag(self, found: Tag, text: str) -> str:
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
                    f"{text} closes nothing"
                    if not opened
                    else f"{text} does not close {opened.text} of line {opened.line}",
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
            self.fail(f"{text} stands outside of a block", "Remove it, or open the block before.", self.line, text)
        if not rest:
            return statement("else")
        condition = re.fullmatch(r"if\s+(.+)", rest, re.DOTALL)
        if not condition or self.blocks[-1].kind not in ("if", "unless"):
            self.fail(f"{text} is not understood", "Write {{else}} or, inside #if, {{else if name}}.", self.line, text)
        return statement(f"elif _true({self.expression(condition[1], text)})")

    def each(self, rest: str, text: str) -> str:
        path, item, key = _aliased(rest)
        number = self.piece(text, path)
        code = f"for this, _at_index, _at_key, _at_first, _at_last in _each({self.expression(path, text)}, {number})"
        if not item:
            return code
        # {{#each items as |item key|}}
        return code + f" {CLOSE}_ALIAS {item} {key}"

    def statement(self, inner: str, text: str) -> str:
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
                what = (
                    f"{text} does not close {self.blocks[-1].text}{opened}" if self.blocks else f"{text} closes nothing"
                )
                self.fail(what, "Close the inner block first, or remove it.", self.line, text)
            self.blocks.pop()
        elif name in ("if", "for", "macro", "call", "filter", "with") or (name == "set" and "=" not in body):
            self.blocks.append(_Block("%" + name, self.line, text))
        inner = _AT_WORD.sub(_at_word, inner)
        return f"{OPEN}%{inner}%{CLOSE}"

    def output(self, word: str, body: str, text: str, left: str, right: str) -> str:
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
        elif (
            self.inside_each()
            and (path := _PATH.fullmatch(word))
            and path[0].split(".")[0].split("[")[0] not in _RESERVED
        ):
            # As in Handlebars, a bare name inside #each is also looked for in the item.
            name = re.match(r"\w+", word)
            first = name[0] if name else word
            if first != "this":
                code = f"({first} if {first} is defined else _field(this, {first!r})){word[len(first) :]}"
        number = self.piece(text, _spoken(word))
        return f"{OPEN}{{{left} _out(({code}{newlines}), {number}) {right}}}{CLOSE}"

    def inside_each(self) -> bool:
        return any(block.kind == "each" for block in self.blocks)

    def expression(self, code: str, text: str) -> str:
        code = _AT_WORD.sub(_at_word, code.strip())
        if not _is_expression(code):
            self.fail(
                f"{text} is not understood: '{code}' is no path",
                "Write a name, such as user.name or items[0].",
                self.line,
                text,
            )
        return code

    def piece(self, text: str, path: str) -> int:
        self.pieces.append(_Piece(text, path, self.line))
        return len(self.pieces) - 1

    def fail(self, message: str, hint: str, line: int, tag: str) -> NoReturn:
        raise TemplateError(f"Line {line} of the template: {_short(message)}.", hint=hint, line=line, tag=tag)


def _aliased(rest: str) -> tuple[str, str, str]:
    """(path, item, key) of `path as |item key|`; without aliases, item and key are empty."""
    for found in _AS.finditer(rest, 1):
        if names := _ALIASES.fullmatch(rest, found.end()):
            return rest[: found.start()], names[1], names[2] or ""
    return rest, "", ""


def _at_word(match: re.Match[str]) -> str:
    return match[1] if match[1] is not None else _LOOP_NAMES[match[2]]


def _spoken(word: str) -> str:
    path = _PATH.match(word)
    if path is None or re.match(r"\s*[(+*/~<>=]", word[path.end() :]):
        return word
    rest = _SUBSCRIPTS.match(word, path.end())
    return path[0] + (rest[0] if rest else "")


def _short(text: str) -> str:
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


def _needs_parser(template: str) -> bool:
    """Whether there is more in a template than text and simple paths."""
    if "{%" in template or "{#" in template:
        return True
    return template.count("{{") != len(_SIMPLE_TAG.findall(template)) or "{{{" in template


# --- running -----------------------------------------------------------------------------------------------------


class Program:
    """A translated template."""

    def __init__(self, template: str) -> None:
        translator = _Translator(template)
        source, self.pieces = translator.run()
        self.lone = translator.lone
        tree = _parsed(source, template)
        self.names = names_of(tree, template)
        self.variables = self.names.all
        with _syntax_errors(template):
            code: CodeType = ENVIRONMENT.compile(Counted().visit(tree), filename=FILENAME)
        self._template = Template.from_code(ENVIRONMENT, code, ENVIRONMENT.make_globals(None))

    def render(self, context: Mapping[str, Any], record: _Record) -> str:
        """The text; notes what is missing in *record*. Raises TemplateError."""
        names = {
            **context,
            "_out": record.out,
            "_each": record.each,
            "_named": record.named,
            "_has": context.__contains__,
            "_given": context.__getitem__,
            "_field": _field,
            "_true": is_true,
        }
        token = RECORD.set(record)
        try:
            with metered() as record.account:
                return self._template.render(names)
        except (TemplateError, NotQuickError):
            raise
        except Exception as error:
            raise self._failure(error, context) from error
        finally:
            RECORD.reset(token)

    def _failure(self, error: Exception, context: Mapping[str, Any]) -> TemplateError:
        line = _line_of(error)
        tags = {p.text for p in self.pieces if p.line == line}
        tag = tags.pop() if len(tags) == 1 else ""
        where = f"Line {line} of the template" if line else "The template"
        shown = f" in {_short(tag)}" if tag else ""
        hint = "Correct the tag, or what the arrows bring."
        if isinstance(error, SecurityError):
            hint = "Templates may read values only."
        elif isinstance(error, UndefinedError):
            hint = f"Known names: {known_names(context)}."
        cause = str(error) or type(error).__name__
        return TemplateError(f"{where}: {cause.rstrip('.')}{shown}.", hint=hint, line=line, tag=tag)


@lru_cache(maxsize=CACHED_TEMPLATES)
def translate(template: str) -> Program:
    """The program of a template, from the cache when it is there. Raises TemplateError."""
    return Program(template)


class _Record:
    """What one rendering meets."""

    __slots__ = ("account", "context", "errors", "keep", "lone", "missing", "pieces", "place", "touched", "value")

    def __init__(
        self, program: Program, context: Mapping[str, Any], keep: bool, place: Callable[[str], str] | None
    ) -> None:
        self.account = Meter()
        self.pieces = program.pieces
        self.lone = program.lone
        self.place = place
        self.value: Any = _NOTHING
        """The value of the last tag that had one."""
        self.context = context
        self.keep = keep
        self.missing: dict[str, None] = {}
        self.errors: dict[str, None] = {}
        self.touched = False
        """Whether a missing value was printed or walked since the last tag."""

    def out(self, value: Any, number: int) -> str:
        touched, self.touched = self.touched, False
        if callable(value) and not isinstance(value, Undefined):  # a macro that is named and not called
            value = Missing(name=self.pieces[number].path)
        value = gathered(value)
        self.account.weigh(value)
        self.value = _NOTHING if isinstance(value, Undefined) else plain(value)
        if value is None or isinstance(value, ChainableUndefined):
            piece = self.pieces[number]
            if isinstance(value, ChainableUndefined):
                check_refused(value)
            self.missing[piece.path] = None
            text = piece.text if self.keep else ""
        else:
            text = self.pieces[number].text if touched and self.keep else as_text(value)
        return text if self.place is None else self.place(text)

    def each(self, value: Any, number: int) -> Iterator[tuple[Any, int, Any, bool, bool]]:
        value = plain(value)
        piece = self.pieces[number]
        if value is None or isinstance(value, ChainableUndefined):
            self.missing[piece.path] = None
            return
        if isinstance(value, Mapping):
            pairs: list[tuple[Any, Any]] = list(value.items())
        elif isinstance(value := gathered(value), (list, tuple, set, frozenset)):
            pairs = list(enumerate(value))
        else:
            kind = "text" if isinstance(value, str) else type(value).__name__
            self.errors[f"Line {piece.line}: {piece.text} goes through nothing, as '{piece.path}' is {kind}."] = None
            return
        last = len(pairs) - 1
        for index, (key, item) in enumerate(pairs):
            yield item, index, key, index == 0, index == last

    def named(self, name: str, number: int) -> str:
        """A tag that is no expression: an input of exactly that name, else the text itself."""
        if name in self.context:
            return self.out(self.context[name], number)
        return self.pieces[number].text


OURS.add(_Record)


def _field(item: Any, name: str) -> Any:
    """A field of the item of an #each."""
    value = plain(item)
    if isinstance(value, Mapping) and name in value:
        return value[name]
    return Missing(name=name)


def _parsed(source: str, template: str) -> nodes.Template:
    with _syntax_errors(template):
        tree = ENVIRONMENT.parse(_ALIAS.sub(_alias, source))
        _refuse_reserved(tree, template)
    return tree


@contextmanager
def _syntax_errors(template: str) -> Iterator[None]:
    """Jinja2's syntax errors as ours."""
    try:
        yield
    except TemplateSyntaxError as error:
        line = error.lineno
        text = template.split("\n")[line - 1].strip() if line <= template.count("\n") + 1 else ""
        message = str(error.message or error).replace(OPEN, "{").replace(CLOSE, "}")
        raise TemplateError(
            f"Line {line} of the template: {_short(message).rstrip('.')} in '{_short(text)}'.",
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


_INTERNAL = frozenset(
    ["_out", "_each", "_named", "_has", "_given", "_field", "_true", "range", *_LOOP_NAMES.values()]
)


_RESERVED_NAMES = frozenset(["_out", "_each", "_named", "_has", "_given", "_field", "_true"])
"""What translated tags call."""


def _refuse_reserved(tree: nodes.Template, template: str) -> None:
    """A template cannot give names of its own to what its tags call."""
    named = [(n.name, n.lineno) for n in tree.find_all(nodes.Name) if isinstance(n, nodes.Name) and n.ctx != "load"]
    named += [(n.name, n.lineno) for n in tree.find_all(nodes.Macro) if isinstance(n, nodes.Macro)]
    for name, line in named:
        if name in _RESERVED_NAMES:
            text = template.split("\n")[line - 1].strip() if line <= template.count("\n") + 1 else ""
            raise TemplateError(
                f"Line {line} of the template: '{name}' cannot be set: it is a name of the template language.",
                hint="Use another name.",
                line=line,
                tag=text,
            )


def names_of(tree: nodes.Template, template: str) -> Names:
    """The names that a parsed template needs from outside."""
    with _syntax_errors(template):
        free = find_undeclared_variables(tree) - _INTERNAL
    order: dict[str, None] = {}
    needed: set[str] = set()

    def walk(node: nodes.Node, lenient: bool) -> None:
        if isinstance(node, nodes.Name):
            if node.ctx == "load" and node.name in free:
                order[node.name] = None
                needed.update(() if lenient else (node.name,))
            return
        if isinstance(node, nodes.CondExpr):
            # `(name if name is defined else …)` of a bare name inside #each, or the author's own test.
            for child in node.iter_child_nodes():
                walk(child, True)
            return
        if isinstance(node, nodes.If):
            walk(node.test, True)
            inside = _tested_names(node.test)
            for child in (*node.body, *node.elif_, *node.else_):
                walk_guarded(child, lenient, inside)
            return
        if isinstance(node, (nodes.Test, nodes.Compare)) or (
            isinstance(node, nodes.Filter) and node.name in ("default", "d")
        ):
            lenient = True
        for child in node.iter_child_nodes():
            walk(child, lenient)

    def walk_guarded(node: nodes.Node, lenient: bool, inside: set[str]) -> None:
        before = set(needed)
        walk(node, lenient)
        needed.difference_update((inside - before) & needed)

    walk(tree, False)
    order.pop("this", None)
    return Names(tuple(order), frozenset(needed - {"this"}))


def _tested_names(test: nodes.Node) -> set[str]:
    return {n.name for n in test.find_all(nodes.Name)} | ({test.name} if isinstance(test, nodes.Name) else set())


def check_filters(environment: Environment, tree: nodes.Template, template: str) -> None:
    """See to it that all filters and tests of a parsed template are there.

    Raises:
        TemplateError: one is not.
    """
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        assert isinstance(node, (nodes.Filter, nodes.Test))
        is_filter = isinstance(node, nodes.Filter)
        known = environment.filters if is_filter else environment.tests
        if node.name in known:
            continue
        close = nearest(node.name, known)
        kind = "filter" if is_filter else "test"
        line = template.split("\n")[node.lineno - 1].strip() if node.lineno <= template.count("\n") + 1 else ""
        raise TemplateError(
            f"Line {node.lineno} of the template: there is no {kind} '{_short(node.name)}'.",
            hint=f"Did you mean '{close}'?" if close else f"Remove it, or use another {kind} of Jinja2.",
            line=node.lineno,
            tag=line,
        )


def _line_of(error: BaseException) -> int | None:
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILENAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
