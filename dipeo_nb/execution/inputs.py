"""From tokens to names: the one mechanism by which a node sees its inputs.

    token's output ──content type of the edge──▶ view ──label or handle──▶ name

* The name is the edge's label; without one it is `default` (and also `first` for that handle). Of several unlabelled
  inputs `default` is the freshest, and each is also named by its source's label when that is an identifier.
* A mapping under `default` is spread: its keys are names too. So are the keys of labelled mappings, where exactly one of
  them has the key (shipped samples read `inputs["statistics"]` through an edge labelled `processed`).
* What a start node hands on are the variables of the run. When one of them is called `default` (what a sub-diagram was given
  by an unlabelled arrow, or the item of a batch), the name means that one; `inputs["default"]` is all of them.
* Precedence: label > spread > variables of the run (code jobs' variables > run inputs > the start node's custom_data).
* A raw_text view is text that still lets `{{x.field}}` reach the object it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from dipeo_nb.common.values import MAX_DEPTH, UnsupportedValueError, is_plain, json_text, parse_json, plain_value
from dipeo_nb.diagram.values import plain as unviewed
from dipeo_nb.domain.enums import ContentType
from dipeo_nb.domain.plan import PlanEdge
from dipeo_nb.errors import ValidationError
from dipeo_nb.execution.code_state import EMPTY, View

DEFAULT_HANDLES: tuple[str, ...] = ("default", "success", "results")
"""Handles on which a successful output leaves."""


ABSENT: Any = object()
"""Stands for a name that there is not."""
_ATOMS = frozenset({str, int, float, bool, type(None)})
_WRAPPED = MAX_DEPTH + 20
"""Levels of an output: of the values that came from outside, and of what nodes put around them."""
VARIABLES = frozenset(["trigger_mode", "variables_of_run"])
"""Facts in the `meta` of an output that is the variables of the run: of a start node, and of what passes them on."""


class Output(NamedTuple):
    """What one run of a node gave."""

    body: Any = None
    """A plain value (see `common.values`); the engine makes it one."""
    text: str | None = None
    """Its text form, when that is not simply the body (a CSV file: the body is rows, the text is the file)."""
    handles: tuple[str, ...] = DEFAULT_HANDLES
    meta: Mapping[str, Any] = {}
    conversation: Mapping[str, Any] | None = None
    """messages, last_message, person_id, model: what a conversation_state edge delivers."""
    assigned: View = EMPTY
    """What code had assigned when it was made, as far as the run of the node could know; kept by the engine."""


class TextView(str):
    """Text that remembers the value it was made from: templates print the text and reach the value's fields, expressions and
    code get the value.

    Args:
        own: the text is more than the value written out, as that of a CSV file whose value is its rows. Then code gets it, too.
    """

    __dipeo_value__: Any
    own: bool

    def __new__(cls, text: str, value: Any, *, own: bool = False) -> TextView:
        self = super().__new__(cls, text)
        self.__dipeo_value__ = value
        self.own = own and isinstance(value, (Mapping, list))
        return self

    def __getnewargs__(self) -> tuple[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # For worker processes; `own` comes with the attributes.
        return str(self), self.__dipeo_value__


class ConversationView(dict[str, Any]):
    """A conversation as a mapping that reads as its last message."""

    def __str__(self) -> str:
        last = self.get("last_message")
        return str(last.get("content", "")) if isinstance(last, Mapping) else ""

    @property
    def __dipeo_text__(self) -> str:
        return str(self)


class Arrived(NamedTuple):
    """One edge's contribution, with its value."""

    edge: PlanEdge
    source_id: str
    source_label: str
    run: int
    fresh: bool
    output: Output


class Inputs:
    """A node's inputs under their names; worked out from what arrived when somebody asks."""

    _values: Mapping[str, Any] | None = None
    _spread: Mapping[str, Any] | None = None
    _stale: frozenset[str] = frozenset()

    def __init__(self, arrived: tuple[Arrived, ...] = ()) -> None:
        self.arrived: tuple[Arrived, ...] = arrived

    @classmethod
    def named(cls, values: Mapping[str, Any], spread: Mapping[str, Any], stale: frozenset[str] = frozenset()) -> Inputs:
        """Inputs that have their names already."""
        made = cls()
        made._values, made._spread, made._stale = values, spread, stale
        return made

    @property
    def values(self) -> Mapping[str, Any]:
        """By label or handle."""
        if self._values is None:
            self._name()
        return self._values  # pyright: ignore[reportReturnType]

    @property
    def spread(self) -> Mapping[str, Any]:
        """Keys of mappings, where they do not clash with `values`."""
        if self._spread is None:
            self._name()
        return self._spread  # pyright: ignore[reportReturnType]

    @property
    def stale(self) -> frozenset[str]:
        """Names that an earlier run has already consumed."""
        if self._values is None:
            self._name()
        return self._stale

    def find(self, name: str) -> Any:
        """What `names` has under a name that comes from the inputs, or ABSENT; without working all of them out when a single
        unlabelled one arrived."""
        if self._values is None and len(self.arrived) == 1:
            item = self.arrived[0]
            if not item.edge.label and item.edge.target_handle != "first":
                value = view(item.output, item.edge.content_type)
                if name != "default":
                    inner = _unwrapped(value)
                    return ABSENT if inner is None else inner.get(name, ABSENT)
                inner = None if VARIABLES.isdisjoint(item.output.meta) else _fields(value)
                return value if inner is None else inner.get("default", value)
        for names in (self.passed, self.values, self.spread):
            if name in names:
                return names[name]
        return ABSENT

    def names(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Everything a template, an expression or code can name, by precedence."""
        return {**variables, **self.spread, **self.values, **self.passed}

    @property
    def passed(self) -> Mapping[str, Any]:
        """`default`, where the variables of the run arrive under it and one of them has that name: then it is what the
        diagram was given."""
        inner = _fields(self.values.get("default")) if self.variables_arrive else None
        return {"default": inner["default"]} if inner is not None and "default" in inner else {}

    @property
    def variables_arrive(self) -> bool:
        """Whether what arrives under `default` is what a start node hands on, also by way of conditions."""
        named = [item.output.meta for item in self.arrived if (item.edge.label or "default") == "default"]
        return bool(named) and not VARIABLES.isdisjoint(named[-1])

    @property
    def body(self) -> Any:
        """The inputs as one value: the only unlabelled one itself, else the mapping."""
        values = {k: v for k, v in self.values.items() if k != "first"}
        return values["default"] if len(values) == 1 and "default" in values else dict(self.values)

    def _name(self) -> None:
        """Name what arrived; stale contributions come first so that fresh ones win `default`."""
        values: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        stale: set[str] = set()
        unlabelled = sum(1 for item in self.arrived if not item.edge.label)
        for item in self.arrived:
            value = view(item.output, item.edge.content_type)
            name = item.edge.label or "default"
            if not item.edge.label:
                if item.edge.target_handle == "first":
                    values["first"] = value
                if unlabelled > 1 and item.source_label.isidentifier():
                    extra[item.source_label] = value
            values[name] = value
            (stale.discard if item.fresh else stale.add)(name)
        spread = _spread(values)
        spread.update((k, v) for k, v in extra.items() if k not in values)
        self._values, self._spread, self._stale = values, spread, frozenset(stale)


class NamesAsRead(Mapping[str, Any]):
    """What can be named, of which no more is worked out than is read.

    Args:
        inputs, variables: what most names come from, by precedence.
        whole: gives all of it.
    """

    __slots__ = ("_inputs", "_variables", "_whole")

    def __init__(self, inputs: Inputs, variables: Mapping[str, Any], whole: Callable[[], Mapping[str, Any]]) -> None:
        self._inputs, self._variables, self._whole = inputs, variables, whole

    def __getitem__(self, name: str) -> Any:
        if (value := self._inputs.find(name)) is not ABSENT:
            return value
        return self._variables[name] if name in self._variables else self._whole()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())


def resolve(arrived: Iterable[Arrived]) -> Inputs:
    """The inputs that these contributions make."""
    return Inputs(tuple(arrived))


def view(output: Output, content_type: str | None) -> Any:
    """An output as an edge of that content type delivers it."""
    body = output.body
    if content_type is None:
        return body
    match content_type:
        case ContentType.RAW_TEXT:
            text = as_text(body) if output.text is None else output.text
            return text if isinstance(body, str) else TextView(text, body, own=output.text is not None)
        case ContentType.OBJECT:
            if not isinstance(body, str):
                return body
            try:
                return parse_json(body)
            except ValueError:
                return body
        case ContentType.CONVERSATION_STATE:
            if output.conversation is not None:
                return ConversationView(output.conversation)
            if isinstance(body, Mapping):
                return body
            message = {"role": "assistant", "content": as_text(body) if output.text is None else output.text}
            return ConversationView(messages=[message], last_message=message)
        case ContentType.EMPTY:
            return None
        case _:
            return body


def as_text(value: Any) -> str:
    """The text form of a JSON value: text as it is, None empty, everything structured as indented JSON."""
    if isinstance(value, str):
        return str(value)
    if value is None:
        return ""
    if isinstance(value, ConversationView):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float) or type(value) is int:
        return str(value)
    if value == {}:  # what a start without inputs gives: many nodes of a diagram get it
        return "{}"
    return json_text(value, indent=2)


def plain(value: Any) -> Any:
    """What code and sub-diagrams get of an input: the plain value behind its views, not shared with other nodes."""
    kind = type(value)
    if kind in _ATOMS:  # nearly all values of a large one; asking the abstract classes takes ten times as long
        return value
    if isinstance(value, TextView):
        return str(value) if value.own else plain(value.__dipeo_value__)
    if kind is dict or isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def settled(output: Output) -> Output:
    """An output as it is recorded, so that nodes see the same before and after a resume.

    Raises:
        UnsupportedValueError: its body has no form.
    """
    body, text, _, meta, _, _ = output
    if text is None and (not meta or is_plain(meta, _WRAPPED)) and is_plain(body, _WRAPPED):
        return output  # as most are
    if not is_plain(body, _WRAPPED):
        body = plain_value(body, "result", levels=_WRAPPED)
    if text is not None and not is_plain(text):
        text = plain_value(text)
    if meta and not is_plain(meta, _WRAPPED):
        meta = plain_value(meta, lossy=True, levels=_WRAPPED)
    changed = body is not output.body or text is not output.text or meta is not output.meta
    return output._replace(body=body, text=text, meta=meta) if changed else output


def run_inputs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs of a run as plain values.

    Raises:
        ValidationError: one has no form; nothing was run.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        try:
            found[plain_value(str(name))] = plain_value(value, str(name))
        except UnsupportedValueError as error:
            raise ValidationError(f"The input {error.message}", hint=error.hint, place=error.place) from error
    return found


def unparsed(inputs: Inputs) -> list[str]:
    """Names of inputs that code gets as the text of a file, though lists or mappings are behind it."""
    return [name for name, value in inputs.values.items() if isinstance(value, TextView) and value.own]


def _unwrapped(value: Any) -> Mapping[str, Any] | None:
    """The mapping behind a value; levels that hold nothing but a mapping under `default` are left out."""
    inner = _fields(value)
    while inner is not None and len(inner) == 1 and "default" in inner and isinstance(inner["default"], Mapping):
        inner = inner["default"]
    return inner


def _fields(value: Any) -> Mapping[str, Any] | None:
    if type(value) is dict:
        return value
    value = unviewed(value)
    return value if isinstance(value, Mapping) and not isinstance(value, ConversationView) else None


def _spread(values: Mapping[str, Any]) -> dict[str, Any]:
    counts: dict[str, int] = {}
    labelled: dict[str, Any] = {}
    for name, value in values.items():
        if name in ("default", "first") or (inner := _fields(value)) is None:
            continue
        for key, item in inner.items():
            counts[key] = counts.get(key, 0) + 1
            labelled[key] = item
    spread = {k: v for k, v in labelled.items() if counts[k] == 1}
    for name in ("first", "default"):
        inner = _unwrapped(values.get(name))
        if inner:
            spread.update(inner)
    return {k: v for k, v in spread.items() if isinstance(k, str) and k not in values}
