"""What the Python code of a run has assigned, as each run of a node can know it. Pure data, worked out from the record.

A run of a code job leaves a `Change`: only what it bound, changed in place or deleted. A run of a node sees the changes of all runs
from which arrows have led to it, and of its own earlier runs. Of two runs that did not know of each other and changed the same name
the later in this order wins: the longer chain of changes, then the position in the file, then the number of the run. So what code
sees never depends on which of two branches was faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from dipeo_nb.domain.enums import SupportedLanguage
from dipeo_nb.domain.nodes import CodeJobNode
from dipeo_nb.domain.plan import Plan, PlanNode


class Change(NamedTuple):
    """What one run of a code job did to the variables."""

    order: tuple[int, int, int]
    """(changes in the chain, index of the node, run)."""
    label: str
    """Of the node."""
    variables: Mapping[str, Any]
    """Names with JSON values. The identity of this mapping is that of the change."""
    code: Mapping[str, Any]
    """What else is needed to make the names again: `objects`, `definitions`, `needs`; and `deleted`, `lost`. `shown`: what
    templates and conditions see of objects that are not JSON values, which code never gets."""

    def of(self, name: str) -> Any:
        """All that is recorded of a name."""
        return [self.variables.get(name), *(self.code.get(part, {}).get(name) for part in ("objects", "definitions"))]

    def shared_with(self, name: str) -> Iterable[str]:
        """Names that hold objects which *name* holds, too."""
        objects = self.code.get("objects", {})
        form = objects.get(name)
        if isinstance(form, list) and form[0] == "with":
            form = objects[form[1]]
        return form[1] if isinstance(form, list) and form[0] == "group" else ()

    @property
    def live(self) -> Mapping[str, str]:
        """Names that exist only in the process that made them, and why."""
        return self.code.get("lost", {})


class View(NamedTuple):
    """The variables that a run of a node sees: the change that each name comes from."""

    clock: int = 0
    names: Mapping[str, Change] = {}

    def variables(self) -> dict[str, Any]:
        """Their JSON values, for templates and expressions; a name whose object has no such form is left out."""
        found: dict[str, Any] = {}
        for name, change in self.names.items():
            if name in change.variables:
                found[name] = change.variables[name]
            elif name in (shown := change.code.get("shown", {})):
                found[name] = shown[name]
        return found

    def unshown(self, name: str) -> str:
        """Why templates and expressions cannot see *name*, which code has set; empty for any other name."""
        change = self.names.get(name)
        if change is None or name in change.code.get("deleted", ()):
            return ""
        if name in change.variables or name in change.code.get("shown", {}):
            return ""
        if name.startswith("_"):
            why = "names that begin with an underscore stay within code"
        elif name in change.live:
            why = f"templates and expressions cannot see it: {change.live[name]}"
        else:
            why = "its object has no form that templates and expressions can see"
        return f"'{name}' is set by the code of '{change.label}', but {why}"


EMPTY = View()


def merged(views: Iterable[View]) -> View:
    """Everything that several views show."""
    found = EMPTY
    for view in views:
        if view is found or view is EMPTY:
            continue
        if found is EMPTY:
            found = view
            continue
        names = dict(found.names)
        for name, change in view.names.items():
            if name not in names or names[name].order < change.order:
                names[name] = change
        found = View(max(found.clock, view.clock), names)
    return found


def shares(node: PlanNode) -> bool:
    """Whether it is a code job whose assignments others see."""
    spec = node.spec
    return isinstance(spec, CodeJobNode) and spec.language is SupportedLanguage.PYTHON and not spec.isolated


def any_shares(plan: Plan) -> bool:
    return any(map(shares, plan.nodes))


def after(view: View, node: PlanNode, run: int, meta: Mapping[str, Any]) -> View:
    """What is seen behind a finished run of *node* that saw *view*, by the `meta` of its output."""
    if not shares(node) or "variables" not in meta:
        return view
    variables: Mapping[str, Any] = meta["variables"]
    code: Mapping[str, Any] = meta.get("code", {})
    changed = [*variables, *(name for part in _PARTS for name in code.get(part, ()))]
    if not changed:
        return view
    change = Change((view.clock + 1, node.index, run), node.label, variables, code)
    return View(view.clock + 1, {**view.names, **dict.fromkeys(changed, change)})


_PARTS = ("objects", "definitions", "deleted", "lost")


class _Made(Protocol):
    """An output, as far as it matters here."""

    @property
    def assigned(self) -> View: ...

    def _replace(self, *, assigned: View) -> Any: ...


class _Arrived(Protocol):
    @property
    def output(self) -> _Made: ...


def before(latest: Mapping[int, View], node: PlanNode, arrived: Iterable[_Arrived]) -> View:
    """What a run of *node* sees: all that what arrived had seen, and its own earlier runs.

    Args:
        latest: what was seen when each node last finished.
    """
    return merged([*(item.output.assigned for item in arrived), latest.get(node.index, EMPTY)])


def pass_on(plan: Plan, latest: dict[int, View], outputs: Mapping[int, dict[int, Any]], index: int, run: int) -> None:
    """Note that a node at its limit passed on the output of an earlier run: what follows knows what had led to that."""
    sources = {plan.edges[e].source for e in plan.nodes[index].incoming}
    view = merged([latest.get(index, EMPTY), *(latest.get(source, EMPTY) for source in sorted(sources))])
    latest[index] = view
    if (kept := outputs.get(index, {})).get(run) is not None:
        kept[run] = kept[run]._replace(assigned=view)
