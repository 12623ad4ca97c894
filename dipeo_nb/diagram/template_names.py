"""Names that a template uses, known without running it."""

from __future__ import annotations

import re
from typing import NamedTuple

from jinja2 import Environment, nodes
from jinja2.meta import find_undeclared_variables

from dipeo_nb.common.text import nearest
from dipeo_nb.diagram.template_sandbox import ENVIRONMENT
from dipeo_nb.diagram.template_translator import LOOP_NAMES, Translator, parsed, short, syntax_errors
from dipeo_nb.errors import TemplateError


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
    if not needs_parser(template):
        found = dict.fromkeys(m[1] for m in SIMPLE_TAG.finditer(template))
        found.pop("this", None)
        return Names(tuple(found), frozenset(found))
    source, _ = Translator(template).run()
    tree = parsed(source, template)
    check_filters(ENVIRONMENT, tree, template)
    return names_of(tree, template)


SIMPLE_TAG = re.compile(r"\{\{\s*([^\W\d]\w*)(?:\.[^\W\d]\w*|\[-?\d+\])*\s*\}\}")
_NO_NAMES = Names((), frozenset())


def needs_parser(template: str) -> bool:
    """Whether there is more in a template than text and simple paths."""
    if "{%" in template or "{#" in template:
        return True
    return template.count("{{") != len(SIMPLE_TAG.findall(template)) or "{{{" in template


_INTERNAL = frozenset(["_out", "_each", "_named", "_has", "_given", "_field", "_true", "range", *LOOP_NAMES.values()])


def names_of(tree: nodes.Template, template: str) -> Names:
    """The names that a parsed template needs from outside."""
    with syntax_errors(template):
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
        if isinstance(node, (nodes.Test, nodes.Compare)) or (isinstance(node, nodes.Filter) and node.name in ("default", "d")):
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
            f"Line {node.lineno} of the template: there is no {kind} '{short(node.name)}'.",
            hint=f"Did you mean '{close}'?" if close else f"Remove it, or use another {kind} of Jinja2.",
            line=node.lineno,
            tag=line,
        )
