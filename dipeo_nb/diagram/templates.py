"""Prompt templates: Handlebars-like tags on Jinja2's sandbox.

    {{a.b[0]}} {{a[i].b}} {{a[-1]}} {{a[:5]}}      paths, through mappings and lists; missing and None print nothing
    {{name | upper}} {{price * 2}}                 any Jinja2 expression and filter
    {{name.upper()}} {{order.items}}               methods are called with (); without, a name is a key or it is missing
    {{#if p}}…{{else if q}}…{{else}}…{{/if}}       {{#unless p}}…{{/unless}}
    {{#each p}}…{{else}}…{{/each}}                 over lists (this) and mappings (this, @key); @index @first @last
    {{{raw}}} {{! comment }} {{!-- comment --}}    nothing is ever escaped, so triple braces are the same as double ones
    {% for x in xs %}…{% endfor %} {# comment #}   Jinja2's own statements

What is not a tag of ours stays as it is: `{{person:name}}`, a lone `{{`, `{% 50 %}`. Values are printed, never expanded
again. A template is translated once: recognised tags get delimiters that cannot occur in text, all else is literal.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dipeo_nb.common.moved import moved_names
from dipeo_nb.diagram.template_program import NOTHING, Record, translate
from dipeo_nb.diagram.template_sandbox import OURS
from dipeo_nb.diagram.values import as_text, plain
from dipeo_nb.domain.ports import TemplateProcessorPort, TemplateResult


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
        if record is None or not record.lone or record.value is NOTHING:
            return result.content, result
        return record.value, result._replace(missing_keys=()) if record.value is None else result

    def process_placed(self, template: str, context: Mapping[str, Any], place: Callable[[str], str]) -> TemplateResult:
        """Render for a language of its own, such as a shell's: *place* returns the replacement for the text of each value.

        The template's own text stays as it is. Raises as `process` does.
        """
        return self._rendered(template, context, place)[0]

    def _rendered(
        self, template: str, context: Mapping[str, Any], place: Callable[[str], str] | None
    ) -> tuple[TemplateResult, Record | None]:
        if "{" not in template:
            return TemplateResult(template), None
        program = translate(template)
        record = Record(program, context, self.keep_missing, place)
        content = program.render(context, record)
        used = tuple(filter(context.__contains__, program.variables))
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


_BRACED_PATH = re.compile(r"\{\{\s*([^\W\d]\w*(?:\.\w+|\[[^\[\]{}]+\])*)\s*\}\}|\{([^\W\d]\w*(?:\.\w+|\[[^\[\]{}]+\])*)\}")
_STEPS = re.compile(r"""(?:^|\.)(\w+)|\[(-?\w[\w.]*)\]|\[["']([^"'\]]*)["']\]""")


OURS.add(Record)

if not TYPE_CHECKING:  # until 0.2
    __getattr__ = moved_names(
        __name__,
        {
            "CACHED_TEMPLATES": "dipeo_nb.diagram.template_program",
            "Names": "dipeo_nb.diagram.template_names",
            "Program": "dipeo_nb.diagram.template_program",
            "check": "dipeo_nb.diagram.template_names",
            "check_filters": "dipeo_nb.diagram.template_names",
            "names_of": "dipeo_nb.diagram.template_names",
        },
    )
