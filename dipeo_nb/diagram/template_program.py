"""Translated templates, and how they are rendered: what is printed, what is missing, what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import CodeType
from typing import Any

from jinja2 import ChainableUndefined, Template, Undefined, UndefinedError
from jinja2.exceptions import SecurityError

from dipeo_nb.common.text import known_names
from dipeo_nb.diagram.metering import Meter, NotQuickError, metered
from dipeo_nb.diagram.template_names import Names, names_of
from dipeo_nb.diagram.template_sandbox import ENVIRONMENT, FILENAME, RECORD, Counted, Missing, check_refused, gathered
from dipeo_nb.diagram.template_translator import Piece, Translator, parsed, short, syntax_errors
from dipeo_nb.diagram.values import FALSE_WORDS, as_text, is_true, plain
from dipeo_nb.errors import TemplateError

CACHED_TEMPLATES = 500
"""Translated templates kept, the least recently used leave."""
NOTHING: Any = object()


_NUMBERS = frozenset([int, float, bool])


# --- running -----------------------------------------------------------------------------------------------------


class Program:
    """A translated template."""

    def __init__(self, template: str) -> None:
        translator = Translator(template)
        self.pieces: tuple[Piece, ...]
        source, self.pieces = translator.run()
        self.lone: bool = translator.lone
        tree = parsed(source, template)
        self.names: Names = names_of(tree, template)
        self.variables: tuple[str, ...] = self.names.all
        with syntax_errors(template):
            code: CodeType = ENVIRONMENT.compile(Counted().visit(tree), filename=FILENAME)
        self._template = Template.from_code(ENVIRONMENT, code, ENVIRONMENT.make_globals(None))

    def render(self, context: Mapping[str, Any], record: Record) -> str:
        """The text; notes what is missing in *record*. Raises TemplateError."""
        names = {
            **context,
            "_out": record.out,
            "_each": record.each,
            "_named": record.named,
            "_has": context.__contains__,
            "_given": context.__getitem__,
            "_field": _field,
            "_true": record.true,
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
        shown = f" in {short(tag)}" if tag else ""
        hint = "Fix the tag, or what the arrows provide."
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


class Record:
    """Records missing names, errors and values of one rendering."""

    __slots__ = ("account", "context", "errors", "keep", "lone", "missing", "pieces", "place", "printing", "touched", "value")

    def __init__(self, program: Program, context: Mapping[str, Any], keep: bool, place: Callable[[str], str] | None) -> None:
        self.account: Meter = Meter()
        self.pieces: tuple[Piece, ...] = program.pieces
        self.lone: bool = program.lone
        self.place: Callable[[str], str] | None = place
        self.printing: str = ""
        """The tag whose text *place* gets."""
        self.value: Any = NOTHING
        """The value of the last tag that had one."""
        self.context: Mapping[str, Any] = context
        self.keep: bool = keep
        self.missing: dict[str, None] = {}
        self.errors: dict[str, None] = {}
        self.touched: bool = False
        """Whether a missing value was printed or walked since the last tag."""

    def out(self, value: Any, number: int) -> str:
        """The text of a printed value; notes it when it is missing."""
        kind = type(value)
        if not self.touched and self.place is None and (kind is str or kind in _NUMBERS):  # as nearly all are
            self.value = value
            if kind is not str:
                return str(value)
            account = self.account
            account.size -= len(value)
            if account.size < 0:
                account.spend(0)
            return value
        touched, self.touched = self.touched, False
        if callable(value) and not isinstance(value, Undefined):  # a macro that is named and not called
            value = Missing(name=self.pieces[number].path)
        value = gathered(value)
        self.account.weigh(value)
        self.value = NOTHING if isinstance(value, Undefined) else plain(value)
        if value is None or isinstance(value, ChainableUndefined):
            piece = self.pieces[number]
            if isinstance(value, ChainableUndefined):
                check_refused(value)
            self.missing[piece.path] = None
            text = piece.text if self.keep else ""
        else:
            text = self.pieces[number].text if touched and self.keep else as_text(value)
        if self.place is None:
            return text
        self.printing = self.pieces[number].path
        return self.place(text)

    def true(self, value: Any) -> bool:
        """Truth for #if and #unless; the text of a value is looked at."""
        account = self.account
        account.turn()
        if isinstance(value, str):
            account.spend(len(value))
            if type(value) is str:
                return value.strip().lower() not in FALSE_WORDS
        return is_true(value)

    def each(self, value: Any, number: int) -> Iterator[tuple[Any, int, Any, bool, bool]]:
        """The items of an `#each`, as (item, index, key, first, last)."""
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
            self.errors[f"Line {piece.line}: {piece.text} iterates over nothing, because '{piece.path}' is {kind}."] = None
            return
        last = len(pairs) - 1
        for index, (key, item) in enumerate(pairs):
            yield item, index, key, index == 0, index == last

    def named(self, name: str, number: int) -> str:
        """A tag that is not an expression: an input of exactly that name, else the text itself."""
        if name in self.context:
            return self.out(self.context[name], number)
        return self.pieces[number].text


def _field(item: Any, name: str) -> Any:
    """A field of the item of an #each."""
    value = plain(item)
    if isinstance(value, Mapping) and name in value:
        return value[name]
    return Missing(name=name)


def _line_of(error: BaseException) -> int | None:
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILENAME:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
