"""PromptBuilder."""

import collections
import datetime
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram.prompts import CACHE_LIMIT, MissingValueWarning, PromptBuilder
from dipeo_nb.diagram.templates import SimpleTemplateProcessor
from dipeo_nb.domain.ports import TemplateResult
from dipeo_nb.errors import TemplateError
from dipeo_nb.execution.inputs import ConversationView, TextView
from tests.support.examples import examples


class CountingProcessor(SimpleTemplateProcessor):
    """The real one, counting its work."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def process(self, template: str, context: Mapping[str, Any]) -> TemplateResult:
        self.count += 1
        return super().process(template, context)


@dataclass
class Point:
    x: int


class Opaque:
    """Its content cannot be known from outside."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1

    def __str__(self) -> str:
        return self.text


@pytest.mark.parametrize(("count", "expected"), [(0, "default Ada"), (1, "first Ada"), (2, "default Ada")])
def test_first_only_prompt(count: int, expected: str) -> None:
    """The first-only prompt serves run 1 and no other."""
    builder = PromptBuilder()
    assert builder.build("default {{n}}", {"n": "Ada"}, "first {{n}}", count) == expected
    assert builder.build_result("default {{n}}", {"n": "Ada"}, "first {{n}}", count).content == expected
    assert builder.build_with_context("default {{n}}", {"n": "Ada"}, "first {{n}}", count) == expected


def test_should_use_first_only_prompt() -> None:
    """Only on run 1, and only when there is one."""
    builder = PromptBuilder()
    assert builder.should_use_first_only_prompt("x", 1)
    assert not builder.should_use_first_only_prompt("x", 2)
    assert not builder.should_use_first_only_prompt("", 1)
    assert not builder.should_use_first_only_prompt(None, 1)


def test_same_prompt_and_values_are_rendered_once() -> None:
    """An equal pair hits, also when its values are other objects with the same content."""
    processor = CountingProcessor()
    builder = PromptBuilder(processor)
    for _ in range(3):
        assert builder.build("{{a}}{{b}}", {"a": "x" * 3, "b": [1, {"c": 2}]}) == 'xxx[\n  1,\n  {\n    "c": 2\n  }\n]'
    assert processor.count == 1
    assert builder.cache_info == (2, 1, 0, 1)
    builder.clear_cache()
    assert builder.cache_info == (0, 0, 0, 0)


ADVERSARIES: list[Any] = [
    1, True, 1.0, "1", "True", None, "None", "", 0, False, 0.0, -0.0, "0", float("nan"), 10**30,
    [1], [True], ["1"], [1.0], (1,), [[1]], [], {}, (), {"a": 1}, {"a": True}, {"a": "1"}, {"a": [1]}, {"b": 1},
    {1: "a"}, {"1": "a"}, {"a": 1, "b": 2}, {"b": 2, "a": 1}, {1}, frozenset({1}), {True}, b"1", Point(1), Point(2),
    datetime.date(2025, 1, 1), "2025-01-01", datetime.datetime.fromisoformat("2025-01-01"), datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
    TextView("1", 1), TextView("1", {"x": 1}), ConversationView(a=1), enum.Enum("E", ["a"])(1), enum.IntEnum("I", ["a"])(1),
]  # fmt: skip


def test_different_values_never_collide() -> None:
    """Each of many look-alikes gets its own rendering, and each is found again."""
    builder = PromptBuilder()
    template = "{{v}}|{{v.x}}|{{v | string}}"
    plain = SimpleTemplateProcessor()
    for _ in range(2):
        for value in ADVERSARIES:
            assert builder.build(template, {"v": value}) == plain.process(template, {"v": value}).content
    hits, misses, bypassed, size = builder.cache_info
    assert (hits, misses, bypassed, size) == (len(ADVERSARIES), len(ADVERSARIES), 0, len(ADVERSARIES))


def test_names_count() -> None:
    """The same values under other names are another prompt."""
    builder = PromptBuilder()
    assert builder.build("{{a}}{{b}}", {"a": "1", "b": "2"}) == "12"
    assert builder.build("{{a}}{{b}}", {"b": "1", "a": "2"}) == "21"


def test_objects_that_merely_look_equal_are_not_cached() -> None:
    """Values whose content cannot be known are rendered each time."""
    builder = PromptBuilder()
    assert builder.build("{{o}}", {"o": Opaque("a")}) == "a"
    assert builder.build("{{o}}", {"o": Opaque("b")}) == "b"
    assert builder.build("{{o}}", {"o": [Opaque("c")]}) == '[\n  "c"\n]'
    assert builder.cache_info == (0, 0, 3, 0)


def test_mutable_values_are_keyed_by_content() -> None:
    """Changing a list after a hit gives the new text."""
    builder = PromptBuilder()
    items = ["a"]
    assert "b" not in builder.build("{{items}}", {"items": items})
    items.append("b")
    assert "b" in builder.build("{{items}}", {"items": items})


def test_cyclic_values_do_not_hang() -> None:
    """A value that contains itself is refused by JSON, not by the cache."""
    items: list[Any] = []
    items.append(items)
    with pytest.raises((TemplateError, ValueError)):
        PromptBuilder().build("{{items}}", {"items": items})


def test_cache_never_exceeds_its_limit() -> None:
    """Five thousand distinct prompts never leave more than a thousand entries."""
    builder = PromptBuilder()
    for i in range(3 * CACHE_LIMIT):
        builder.build("{{i}}", {"i": i})
        assert builder.cache_info.size == min(i + 1, CACHE_LIMIT)


def test_least_recently_used_leaves() -> None:
    """What was used again stays, what was not goes first."""
    processor = CountingProcessor()
    builder = PromptBuilder(processor, cache_limit=3)
    for name in ("a", "b", "c", "a", "d", "a", "c"):
        builder.build("{{n}}", {"n": name})
    assert processor.count == 4
    builder.build("{{n}}", {"n": "b"})
    assert processor.count == 5


def test_cache_can_be_off() -> None:
    """A limit of 0 keeps nothing."""
    builder = PromptBuilder(cache_limit=0)
    assert builder.build("{{n}}", {"n": 1}) == builder.build("{{n}}", {"n": 1}) == "1"
    assert builder.cache_info.size == 0


def test_missing_names_are_told_on_hits_too() -> None:
    """A rendering from the cache still knows what was missing."""
    builder = PromptBuilder()
    assert [builder.build_result("{{x}}", {}).missing_keys for _ in range(2)] == [("x",), ("x",)]
    assert builder.cache_info.hits == 1
    with pytest.warns(MissingValueWarning, match="names 'x'"):
        assert builder.build_with_context("{{x}}", {}) == ""


def test_prepare_template_values() -> None:
    """`default` and `first` are spread, lists of mappings and objects stay, labels win over spread keys."""
    point = Point(3)
    values = PromptBuilder.prepare_template_values(
        {"default": {"default": {"a": 1, "label": "spread"}}, "label": "own", "rows": [{"x": 1}], "p": point}
    )
    assert values["a"] == 1
    assert values["label"] == "own"
    assert values["rows"] == [{"x": 1}]
    assert values["p"] is point
    assert PromptBuilder().build("{{a}} {{rows[0].x}} {{p.x}}", values) == "1 1 3"
    assert PromptBuilder.prepare_template_values({"default": "text", "first": {"z": 1}}) == {
        "default": "text", "first": {"z": 1}, "z": 1,
    }  # fmt: skip
    assert PromptBuilder.prepare_template_values({"default": TextView("{}", {"q": 1})})["q"] == 1


def test_prepare_conversations() -> None:
    """A conversation also gives its messages and its last message."""
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    values = PromptBuilder.prepare_template_values({"talk": {"messages": messages}, "default": {"messages": messages}})
    assert values["talk_messages"] == messages
    assert values["talk_last_message"] == "hello"
    assert "messages" not in values


def test_prepend_conversation() -> None:
    """The last messages are told first, as many as the setting says, and once."""
    messages = [{"role": "user", "content": f"m{i}"} for i in range(12)]
    builder = PromptBuilder(conversation_limit=2)
    told = builder.prepend_conversation_if_needed("Go on.", {"messages": messages})
    assert told == "[Previous conversation, 10 earlier messages left out]\nuser: m10\nuser: m11\n\nGo on."
    assert builder.prepend_conversation_if_needed(told, messages) == told
    assert builder.prepend_conversation_if_needed("x", []) == "x"
    assert builder.prepend_conversation_if_needed("x", "text") == "x"
    assert PromptBuilder().prepend_conversation_if_needed("x", messages[:1]) == "[Previous conversation]\nuser: m0\n\nx"


@dataclass
class WithState:
    """Has more than its fields."""

    name: str

    def __post_init__(self) -> None:
        self.extra = "first"


@dataclass
class WithProperty:
    name: str

    @property
    def loud(self) -> str:
        return self.name + OUTSIDE[0]


@dataclass
class WithText:
    name: str

    def __repr__(self) -> str:
        return self.name + OUTSIDE[0]


class Inherited(Point):
    def twice(self) -> str:
        return OUTSIDE[0]


class Level(enum.Enum):
    LOW = 1

    @property
    def shown(self) -> str:
        return OUTSIDE[0]


class Zone(datetime.tzinfo):
    def utcoffset(self, moment: datetime.datetime | None) -> datetime.timedelta:
        return datetime.timedelta(hours=len(OUTSIDE[0]))

    def __repr__(self) -> str:
        return "Zone()"


OUTSIDE = ["!"]
KINDS: list[Any] = [type(f"My{base.__name__}", (base,), {}) for base in (int, float, str, dict, list, tuple, bytes, set)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_subclasses_with_attributes_never_collide(kind: Any) -> None:
    """Equal content, other attributes."""
    builder = PromptBuilder()
    for tag in ("one", "two"):
        value = kind()
        value.tag = tag
        assert builder.build("{{v.tag}}", {"v": value}) == tag
        assert tag in builder.build("{{rows[0].tag}}", {"rows": [value]})
    assert builder.cache_info.size == 0


@pytest.mark.parametrize(
    ("template", "make"),
    [
        ("{{v.loud}}", lambda: WithProperty("a")),
        ("{{v.twice()}}", lambda: Inherited(1)),
        ("{{v.shown}}", lambda: Level.LOW),
        ("{{v}}", lambda: WithText("a")),
        ("{{v.isoformat()}}", lambda: datetime.datetime(2026, 1, 1, tzinfo=Zone())),
        ("{{v.n}}", lambda: collections.defaultdict(lambda: OUTSIDE[0])),
    ],
)
def test_what_depends_on_something_else_is_not_cached(template: str, make: Any) -> None:
    """Properties, methods and texts may look at anything: the second rendering sees the change."""
    builder, plain = PromptBuilder(), SimpleTemplateProcessor()
    for outside in ("!", "??"):
        OUTSIDE[0] = outside
        assert builder.build(template, {"v": make()}) == plain.process(template, {"v": make()}).content
    assert builder.cache_info.size == 0


def test_state_beside_the_fields_is_seen() -> None:
    """Two equal dataclasses with other attributes are two values."""
    builder = PromptBuilder()
    one, two = WithState("a"), WithState("a")
    two.extra = "second"
    assert [builder.build("{{v.extra}}", {"v": value}) for value in (one, two)] == ["first", "second"]


def test_a_value_that_looks_like_a_key_is_another_value() -> None:
    """The two kinds of keys never meet."""
    builder, plain = PromptBuilder(), SimpleTemplateProcessor()
    for value in ((1,), (tuple, ((int, 1),)), [1], (list, ((int, 1),))):
        assert builder.build("{{v}}", {"v": value}) == plain.process("{{v}}", {"v": value}).content


def test_chance_is_not_cached() -> None:
    """A template that draws lots draws them each time."""
    builder = PromptBuilder()
    values = {"v": list(range(1000))}
    assert len({builder.build("{{ v | random }}", values) for _ in range(20)}) > 1
    assert builder.cache_info.size == 0


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, -0.0, 1.0, "", "1", "True", b"1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.sampled_from(["a", "b", 1, True]), inner, max_size=2)
    ),
    max_leaves=5,
)


@examples(300)
@given(st.lists(JSON_LIKE, min_size=2, max_size=6))
def test_the_cache_never_changes_a_text(values: list[Any]) -> None:
    """Against the processor alone, for values that are often equal to one another."""
    builder, plain = PromptBuilder(), SimpleTemplateProcessor()
    for value in values * 2:
        assert builder.build("{{v}}|{{v.a}}", {"v": value}) == plain.process("{{v}}|{{v.a}}", {"v": value}).content
