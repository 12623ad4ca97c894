"""The light format: every spelling that is read, and what is written."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dipeo_nb.diagram import from_model, load, load_text
from dipeo_nb.diagram.document import Diagram
from dipeo_nb.diagram.formats import FORMATS
from dipeo_nb.domain.diagram import (
    DiagramMetadata,
    DomainArrow,
    DomainDiagram,
    DomainNode,
    DomainPerson,
    LLMConfig,
    Vec2,
)
from dipeo_nb.domain.enums import ContentType
from dipeo_nb.domain.nodes import NODE_SPECS
from tests.support.examples import examples

SAMPLES = Path(__file__).parents[4] / "shared" / "diagrams"
SUFFIXES = (".yaml", ".json")


def light(nodes: list[Any], connections: list[Any] | None = None, **more: Any) -> Diagram:
    return load_text(
        yaml.safe_dump({"version": "light", "nodes": nodes, "connections": connections or [], **more}, sort_keys=False)
    )


def data(**fields: Any) -> dict[str, Any]:
    return dict(light([{"label": "X", **fields}]).nodes[0].data)


def codes(diagram: Diagram) -> list[str]:
    return [d.code for d in diagram.diagnostics]


THREE = [{"label": "Start", "type": "start"}, {"label": "My Check", "type": "condition"}, {"label": "A", "type": "person_job"}]


def test_short_form_wins_over_props() -> None:
    """A property given both ways takes the short form; the others of `props` are taken as well."""
    assert data(type="code_job", props={"code": "1", "timeout": 5}, code="2") == {"code": "2", "timeout": 5}


def test_props_may_hold_label_type_and_position() -> None:
    """Where upstream dies, label, type and position in `props` count when the short form has none."""
    node = light([{"props": {"label": "L", "type": "START", "position": {"x": 1, "y": 2.5}}}]).nodes[0]
    assert (node.label, node.type, node.position) == ("L", "start", Vec2(1, 2.5))


def test_dotted_keys_make_nested_mappings() -> None:
    """`custom_data.a.b` goes into the mapping of that name, beside what is there."""
    assert data(type="start", **{"custom_data.a.b": 1, "custom_data.c": 2, "custom_data": {"a": {"d": 3}}}) == {
        "custom_data": {"a": {"b": 1, "d": 3}, "c": 2}
    }


def test_upper_case_types_are_lowered_before_aliases() -> None:
    """`ENDPOINT` with `file_path` becomes `endpoint` with `file_name`."""
    node = light([{"label": "E", "type": "ENDPOINT", "file_path": "x.txt"}]).nodes[0]
    assert (node.type, dict(node.data)) == ("endpoint", {"file_name": "x.txt"})


@pytest.mark.parametrize(
    ("node_type", "alias", "name"),
    [
        (t, alias, name)
        for t, cls in NODE_SPECS.items()
        for alias, name in cls.META.aliases.items()
        if alias != "memory_profile"
    ],
)
def test_every_alias_becomes_canonical(node_type: str, alias: str, name: str) -> None:
    """Each alias of each node type is read as its canonical name, silently, and loses against it."""
    diagram = light([{"label": "X", "type": node_type, alias: "v"}, {"label": "Y", "type": node_type, alias: "v", name: "w"}])
    assert [dict(n.data) for n in diagram.nodes] == [{name: "v"}, {name: "w"}]
    assert codes(diagram) == []


@pytest.mark.parametrize(
    ("profile", "memory"),
    [
        ("FULL", "ALL_MESSAGES"),
        ("FOCUSED", "CONVERSATION_PAIRS"),
        ("minimal", "SYSTEM_AND_ME"),
        ("GOLDFISH", "GOLDFISH"),
        ("ONLY_ME", "SENT_TO_ME"),
        ("ONLY_I_SENT", "SENT_BY_ME"),
        ("what matters", "what matters"),
    ],
)
def test_memory_profiles_are_translated(profile: str, memory: str) -> None:
    """The legacy table applies; memory_config and memory_settings are dropped without a word."""
    assert data(type="person_job", memory_profile=profile, memory_config={}, memory_settings={"view": "x"}) == {
        "memorize_to": memory
    }


def test_doc_only_spellings_are_accepted() -> None:
    """Spellings that only upstream's documentation has are no unknown properties."""
    nodes = [
        {"label": "a", "type": "json_schema_validator", "schema": {}},
        {"label": "b", "type": "typescript_ast", "source_file": "x.ts", "extract": ["interfaces"]},
        {"label": "c", "type": "hook", "hook_type": "webhook", "config": {"url": "http://x"}},
        {"label": "d", "type": "condition", "condition_type": "nodes_executed"},
        {"label": "e", "type": "start", "trigger_mode": "automatic"},
        {"label": "f", "type": "sub_diagram", "passInputData": True, "ignoreIfSub": True},
        {"label": "g", "type": "integrated_api", "api_key_id": "K"},
        {"label": "h", "type": "user_response", "default_value": "x"},
        {"label": "i", "type": "code_job", "filePath": "a.py", "functionName": "f", "code_type": "python"},
        {"label": "j", "type": "db", "subType": "file", "serializeJson": True, "source_details": "f"},
    ]
    assert codes(light(nodes)) == []


def test_a_missing_type_is_inferred_with_a_warning() -> None:
    """A node without type is read by its properties; the first one without evidence is the start."""
    diagram = light(
        [
            {"label": "a"},
            {"label": "b", "code": "1"},
            {"label": "c"},
            {"label": "d", "type": "job", "url": "u", "method": "GET"},
        ]
    )
    assert [n.type for n in diagram.nodes] == ["start", "code_job", "person_job", "api_job"]
    assert codes(diagram) == ["missing-type"] * 4


def test_a_missing_label_is_the_id() -> None:
    """Connections may use the generated or given id of any node."""
    diagram = light(
        [{"type": "start"}, {"type": "db", "id": "mine"}, {"label": "C", "type": "endpoint"}],
        [{"from": "node_0", "to": "mine"}, {"from": "mine", "to": "node_2"}],
    )
    assert [(n.id, n.label) for n in diagram.nodes] == [("node_0", "node_0"), ("mine", "mine"), ("node_2", "C")]
    assert [(a.source, a.target) for a in diagram.arrows] == [("node_0", "mine"), ("mine", "node_2")]


def test_stray_items_take_no_number() -> None:
    """A stray null in a list is ignored with a warning that names its line, and node numbers go on."""
    diagram = load_text(
        "version: light\nnodes:\n- label: A\n  type: start\n-\n- label: B\n  type: endpoint\nconnections:\n-\n- from: A\n  to: B\n"
    )
    assert [n.id for n in diagram.nodes] == ["node_0", "node_1"]
    assert [(d.code, d.line) for d in diagram.diagnostics] == [("stray-item", 5), ("stray-item", 9)]


def test_duplicate_labels_are_numbered_from_the_second() -> None:
    """The first keeps the bare name, `X~1` addresses the second, and a literal `X~1` keeps its name."""
    nodes = [{"label": label, "type": "db"} for label in ("X", "X", "X~1", "X")]
    diagram = light(nodes, [{"from": "X", "to": "X~2"}, {"from": "X~1", "to": "X~3"}])
    assert [n.label for n in diagram.nodes] == ["X", "X~2", "X~1", "X~3"]
    assert [(a.source, a.target) for a in diagram.arrows] == [("node_0", "node_1"), ("node_2", "node_3")]
    assert codes(diagram) == ["duplicate-label"] * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My Check[condtrue]", ("node_1", "condtrue", False)),
        ("  My Check [ condfalse ] ", ("node_1", "condfalse", False)),
        ("My Check_condtrue", ("node_1", "condtrue", False)),
        ("My_Check_condfalse", ("node_1", "condfalse", False)),
        ("My_Check", ("node_1", "default", False)),
        ("My Check", ("node_1", "default", False)),
        ("My Check_success", ("node_1", "success", False)),
        ("node_1_condtrue", ("node_1", "condtrue", False)),
        ("x_first", ("node_3", "default", False)),
        ("odd[name]", ("node_4", "default", False)),
    ],
)
def test_source_references(text: str, expected: tuple[str, str, bool]) -> None:
    """Brackets, underscores, blanks as underscores, ids; a text that is a label as a whole is that label."""
    diagram = light(
        [*THREE, {"label": "x_first", "type": "db"}, {"label": "odd[name]", "type": "db"}], [{"from": text, "to": "A"}]
    )
    arrow = diagram.arrows[0]
    assert (arrow.source, arrow.source_handle, "requires_first_execution" in arrow.data) == expected
    assert codes(diagram) == []


@pytest.mark.parametrize(
    ("text", "handle", "strict"),
    [("A[first]", "first", False), ("A_first", "first", False), ("A__first", "first", True), ("A_default", "default", False)],
)
def test_target_references(text: str, handle: str, strict: bool) -> None:
    """`X__first` is the first handle and asks for a first execution; `X_first` is only the handle."""
    arrow = light(THREE, [{"from": "Start", "to": text}]).arrows[0]
    assert (arrow.target, arrow.target_handle, arrow.data.get("requires_first_execution", False)) == ("node_2", handle, strict)


def test_an_unknown_handle_in_brackets_is_an_error_and_after_an_underscore_a_warning() -> None:
    """Brackets are strict and say what is allowed; the underscore form falls back to the default handle."""
    diagram = light(THREE, [{"from": "My Check[condtru]", "to": "A"}, {"from": "Start", "to": "A_fist"}])
    assert [(d.severity.value, d.code, d.hint) for d in diagram.diagnostics] == [
        ("error", "unknown-handle", "Did you mean 'condtrue'?"),
        ("warning", "unknown-handle", "Did you mean 'first'?"),
    ]


def test_an_arrow_to_nowhere_names_the_nearest_label() -> None:
    """The connection is left out, with an error that shows where it stands."""
    diagram = load_text(
        "version: light\nnodes:\n- {label: Start, type: start}\n- {label: Judge, type: endpoint}\nconnections:\n- {from: Start, to: Judg}\n"
    )
    (found,) = diagram.diagnostics
    assert (found.severity.value, found.code, found.line, found.column) == ("error", "unknown-node", 6, 17)
    assert "Did you mean 'Judge'?" in str(found)
    assert diagram.arrows == ()


def test_content_type_defaults_and_aliases() -> None:
    """Left out means raw_text, null means none, `type` is the other spelling, `json` is object."""
    ends = {"from": "Start", "to": "A"}
    diagram = light(
        THREE,
        [
            ends,
            {**ends, "content_type": None},
            {**ends, "type": "object"},
            {**ends, "content_type": "", "type": "json"},
            {**ends, "content_type": "binary", "type": "object"},
            {**ends, "content_type": "RAW_TEXT"},
        ],
    )
    assert [a.content_type for a in diagram.arrows] == ["raw_text", None, "object", "object", "binary", "raw_text"]
    assert codes(diagram) == []


def test_conditions_hand_the_shared_content_type_on_only_where_none_is_written() -> None:
    """Branches without a content type take the one that all arrows into exactly that condition share."""
    nodes = [{"label": f"n{i}", "type": "condition" if i in (1, 10) else "db"} for i in range(12)]
    diagram = light(nodes, [
        {"from": "n0", "to": "n1", "content_type": "object"},
        {"from": "n0", "to": "n10", "content_type": "variable"},
        {"from": "n1[condtrue]", "to": "n2"},
        {"from": "n1[condfalse]", "to": "n3", "content_type": "raw_text"},
        {"from": "n10[condtrue]", "to": "n4"},
        {"from": "n10[condfalse]", "to": "n5", "content_type": None},
    ])  # fmt: skip
    assert [a.content_type for a in diagram.arrows] == ["object", "variable", "object", "raw_text", "variable", None]


def test_arrow_extras_are_kept() -> None:
    """Ids (also in `data`), labels, data and priorities survive reading and writing."""
    diagram = light(THREE, [
        {"from": "Start", "to": "A", "data": {"id": "mine", "k": [1]}, "label": 5, "execution_priority": 2},
        {"from": "My Check[condtrue]", "to": "A__first", "id": "other"},
    ])  # fmt: skip
    first, second = diagram.arrows
    assert (first.id, first.data, first.label, first.execution_priority) == ("mine", {"k": [1]}, "5", 2)
    assert (second.id, second.data) == ("other", {"requires_first_execution": True})
    assert load_text(from_model(diagram.model).text).arrows == diagram.arrows


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        ({"from": ["Start"], "to": "A"}, "'from' of a connection is one label"),
        ({"from": {"a": 1}, "to": "A"}, "'from' of a connection is one label"),
        ({"to": "A"}, "has no 'from'"),
        ({"from": "Start"}, "has no 'to'"),
        ({"from": "Start", "to": "A", "label": ["x"]}, "label of an arrow is text"),
        ({"from": "Start", "to": "A", "data": "x"}, "'data' of an arrow is a mapping"),
        ({"from": "Start", "to": "A", "content_type": "txt"}, "'txt' is not a content type"),
        ({"from": "Start", "to": "A", "content_type": ["raw_text"]}, "is not a content type"),
        ({"from": "Start", "to": "A", "execution_priority": "high"}, "'execution_priority' is a number"),
    ],
)
def test_wrong_types_in_a_connection_are_one_error_each(connection: dict[str, Any], message: str) -> None:
    """Each mistake is one error with a place and a next action, and the rest of the diagram loads."""
    diagram = light(THREE, [connection])
    (found,) = diagram.diagnostics
    assert found.severity.value == "error"
    assert message in found.message
    assert found.hint
    assert found.line
    assert len(diagram.nodes) == 3


def test_unknown_words_are_kept_and_reported() -> None:
    """Unknown types, properties and top-level keys are warnings with the nearest spelling, and survive writing."""
    diagram = light(
        [{"label": "X", "type": "person_jb", "foo": 1}, {"label": "Y", "type": "db", "opration": "read"}], conections=[]
    )
    assert [(d.severity.value, d.code, d.hint) for d in diagram.diagnostics] == [
        ("warning", "unknown-type", "Did you mean 'person_job'?"),
        ("warning", "unknown-property", "Did you mean 'operation'?"),
        ("warning", "unknown-key", "Did you mean 'connections'?"),
    ]
    again = load_text(from_model(diagram.model).text)
    assert again.nodes == diagram.nodes
    assert again.model.metadata
    assert again.model.metadata.extra == {"conections": []}


def test_scalars_are_read_as_written_where_text_is_meant() -> None:
    """A label `No`, `007` or `1.0` is that text; dates and line ranges stay text; keys are text."""
    diagram = load_text(
        "nodes:\n- label: No\n  type: start\n  custom_data: {when: 2025-01-11, at: 2025-01-11 10:00:00, on: 1, 2: x, y: 1:20}\n"
        "- {label: 007, type: endpoint}\nconnections:\n- {from: No, to: 007}\n"
    )
    assert [n.label for n in diagram.nodes] == ["No", "007"]
    assert diagram.nodes[0].data["custom_data"] == {
        "when": "2025-01-11",
        "at": "2025-01-11 10:00:00",
        "on": 1,
        "2": "x",
        "y": "1:20",
    }
    assert len(diagram.arrows) == 1


def test_positions() -> None:
    """Fractions and pairs are read; anything else is a warning and leaves the placing to the layout."""
    positions = [
        {"x": 1.5, "y": -2},
        [3, 4],
        None,
        "here",
        {"x": "1", "y": 2},
        {"x": float("nan"), "y": 1},
        {"x": 10**400, "y": 1},
    ]
    diagram = light([{"label": str(i), "type": "db", "position": p} for i, p in enumerate(positions)])
    assert [n.position for n in diagram.nodes] == [Vec2(1.5, -2), Vec2(3, 4), None, None, None, None, None]
    assert codes(diagram) == ["bad-position"] * 4


def test_persons_flat_nested_and_listed() -> None:
    """A mapping or a list, flat or under llm_config, with service aliases; nodes name them by id or label."""
    config = {
        "service": "Claude_Code",
        "model": "m",
        "api_key_id": "K",
        "system_prompt": "Be.\n",
        "temperature": 0.5,
        "max_tokens": 9,
    }
    for people in (
        {"P": config},
        {"P": {"llm_config": config}},
        [{"P": config}],
        [{"label": "P", **config}],
        [{"name": "P", "llm_config": config}],
    ):
        diagram = light([{"label": "X", "type": "person_job", "person": "person_P"}], persons=people)
        assert diagram.persons == (
            DomainPerson("P", "P", LLMConfig("claude-code", "m", "K", "Be.\n", temperature=0.5, max_tokens=9)),
        )
        assert diagram.nodes[0].data["person"] == "P"
        assert codes(diagram) == []


def test_a_person_keeps_its_id() -> None:
    """An explicit id is kept, and a node that uses the label gets it."""
    diagram = light([{"label": "X", "type": "person_job", "person": "P"}], persons={"P": {"id": "person_7", "service": "gpt"}})
    assert (diagram.persons[0].id, diagram.persons[0].llm.service, diagram.nodes[0].data["person"]) == (
        "person_7",
        "openai",
        "person_7",
    )
    again = load_text(from_model(diagram.model).text)
    assert (again.persons, again.nodes) == (diagram.persons, diagram.nodes)


def test_stray_persons_are_ignored() -> None:
    """An entry that is no mapping is a warning; a name alone is a person with defaults."""
    diagram = light([], persons={"P": None, "api_key_id": "K"})
    assert [p.label for p in diagram.persons] == ["P"]
    assert codes(diagram) == ["stray-entry"]


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"modle": "x"}, "unknown-property"),
        ({"temperature": "hot"}, "wrong-type"),
        ({"model": ["x"]}, "wrong-type"),
        ({"service": "opnai"}, "unknown-service"),
    ],
)
def test_mistakes_in_persons_are_reported(config: dict[str, Any], code: str) -> None:
    """Unknown settings and services, and settings of a wrong type, are found."""
    assert codes(light([], persons={"P": config})) == [code]


def test_api_keys_are_dropped() -> None:
    """Keys do not belong in a diagram: they are not kept, and the warning does not repeat them."""
    diagram = light([], api_keys={"K": {"key": "sk-secret"}})
    assert codes(diagram) == ["api-keys"]
    assert "secret" not in str(diagram.diagnostics) + repr(diagram.model)


def test_metadata_and_names() -> None:
    """Name and description beside the nodes and `metadata` with or without its required keys are read."""
    diagram = light([], name="N", description="D", metadata={"author": "Ada", "tags": ["a"], "x": 1, "version": 2})
    assert diagram.model.metadata == DiagramMetadata(
        name="N", description="D", author="Ada", tags=("a",), version="2", extra={"x": 1}
    )
    assert diagram.name == "N"
    assert load_text(from_model(diagram.model).text).model.metadata == diagram.model.metadata


def test_explicit_handles_extend_those_of_the_type() -> None:
    """A handle that the file lists may be used in brackets."""
    diagram = light(
        THREE, [{"from": "Start[extra]", "to": "A"}], handles=[{"node_id": "node_0", "label": "extra", "direction": "output"}]
    )
    assert diagram.arrows[0].source_handle == "extra"
    assert codes(diagram) == []
    again = load_text(from_model(diagram.model).text)
    assert (again.arrows, again.model.handles) == (diagram.arrows, diagram.model.handles)


def test_what_is_written() -> None:
    """Aliases are reversed, empty values left out, false and 0 kept, positions and connections on one line, text in blocks."""
    model = DomainDiagram(
        nodes=(
            DomainNode("node_0", "start", "S", Vec2(1.4, 2.6), {"custom_data": {}, "hook_event": None}),
            DomainNode(
                "x", "code_job", "C", None, {"language": "python", "code": "a\nb\n", "flipped": [True, False], "timeout": 0}
            ),
            DomainNode("node_2", "endpoint", "E[1]", None, {"save_to_file": False, "file_name": "f"}),
            DomainNode("node_3", "db", "D", None, {"file": "g", "default": ""}),
            DomainNode("node_4", "json_schema_validator", "J", None, {"strict_mode": True}),
        ),
        arrows=(
            DomainArrow("arrow_0", "node_0", "x", content_type=None),
            DomainArrow("arrow_1", "x", "node_2", label="v", content_type="raw_text"),
        ),
    )
    assert from_model(model).text == (
        "version: light\nnodes:\n- label: S\n  type: start\n  position: {x: 1, y: 3}\n"
        "- label: C\n  type: code_job\n  id: x\n  code_type: python\n  code: |\n    a\n    b\n  flipped: [true, false]\n  timeout: 0\n"
        "- label: E[1]\n  type: endpoint\n  save_to_file: false\n  file_path: f\n"
        "- label: D\n  type: db\n  source_details: g\n  default: ''\n"
        "- label: J\n  type: json_schema_validator\n  strict: true\n"
        "connections:\n- {from: S, to: C, content_type: null}\n- {from: C, to: 'E[1]', label: v, content_type: raw_text}\n"
    )


def test_a_label_with_quotes_of_the_language_is_just_text() -> None:
    """Markup, paths, right-to-left and 10,000 characters are labels like any other."""
    labels = ["<script>alert(1)</script>", "../../x", "שלום \u202e abc", "x" * 10_000, "a: b # c", "- [first]", "*a", "- x"]
    nodes = [{"label": label, "type": "db"} for label in labels]
    diagram = light(nodes, [{"from": a, "to": b} for a, b in pairwise(labels)])
    assert codes(diagram) == []
    for name in FORMATS:
        again = load_text(from_model(diagram.model, format=name).text)
        assert [n.label for n in again.nodes] == labels
        assert [(a.source, a.target) for a in again.arrows] == [(a.source, a.target) for a in diagram.arrows]


# ------------------------------------------------------------------------------------------------- round trips


def shape(diagram: Diagram) -> object:
    """What must survive a conversion: nodes, arrows with their ends by label, persons."""
    labels = {n.id: n.label for n in diagram.nodes}
    return (
        [(n.label, n.type) for n in diagram.nodes],
        [
            (labels[a.source], a.source_handle, labels[a.target], a.target_handle, a.label, a.content_type)
            for a in diagram.arrows
        ],
        [(p.label, p.llm.service, p.llm.model) for p in diagram.persons],
    )


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="not here: the real diagrams are not beside the repository")
@pytest.mark.parametrize(
    "path", sorted(p for p in SAMPLES.glob("*") if p.suffix in SUFFIXES) if SAMPLES.is_dir() else [], ids=lambda p: p.name
)
def test_real_diagrams_survive_every_format(path: Path) -> None:
    """Each real diagram loads without errors, and comes back from each format with its shape and properties."""
    diagram = load(path)
    assert not [d for d in diagram.diagnostics if d.severity.value == "error"]
    for name in FORMATS:
        there = load_text(from_model(diagram.model, format=name).text, format=name)
        assert shape(there) == shape(diagram)
        assert there.diagnostics == ()
        straight, back = (load_text(from_model(d.model, format="native").text) for d in (diagram, there))
        assert shape(back) == shape(straight)


words = (
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=12)
    .map(str.strip)
    .filter(bool)
)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(words.filter(lambda k: not k.startswith("__")), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def models(draw: st.DrawFn) -> DomainDiagram:
    labels = draw(st.lists(words, min_size=1, max_size=5, unique=True))
    people = draw(st.lists(words, max_size=3, unique=True))
    nodes = tuple(
        DomainNode(
            draw(st.sampled_from([f"node_{i}", f"id {i}"])),
            draw(st.sampled_from(sorted(NODE_SPECS))),
            label,
            draw(st.none() | st.builds(Vec2, st.integers(-999, 999).map(float), st.integers(-999, 999).map(float))),
            {"metadata": {"k": draw(plain_values)}} if draw(st.booleans()) else {},
        )
        for i, label in enumerate(labels)
    )
    pick = st.sampled_from(nodes)
    arrows: list[DomainArrow] = []
    for i in range(draw(st.integers(0, 6))):
        source, target = draw(pick), draw(pick)
        meta, into = NODE_SPECS[source.type].META, NODE_SPECS[target.type].META
        arrows.append(
            DomainArrow(
                draw(st.sampled_from([f"arrow_{i}", f"a {i}"])),
                source.id,
                target.id,
                draw(st.sampled_from(meta.outputs or ("default",))),
                draw(st.sampled_from(into.inputs or ("default",))),
                draw(st.none() | words),
                draw(st.none() | st.sampled_from([c.value for c in ContentType])),
                draw(st.sampled_from([0, 1, -2.5])),
                draw(st.sampled_from([{}, {"k": [1, None]}])),
            )
        )
    return DomainDiagram(
        nodes,
        tuple(arrows),
        tuple(
            DomainPerson(name, name, LLMConfig(draw(st.sampled_from(["openai", "local"])), draw(st.none() | words)))
            for name in people
        ),
    )


@pytest.mark.parametrize("name", sorted(FORMATS))
@examples(60)
@given(model=models())
def test_any_diagram_survives_any_format(name: str, model: DomainDiagram) -> None:
    """Whatever the labels and values are, a diagram is the same after writing and reading."""
    diagram = from_model(model, format=name)
    again = diagram.model
    assert again.nodes == model.nodes
    assert again.arrows == model.arrows
    assert [(p.label, p.llm) for p in again.persons] == [(p.label, p.llm) for p in model.persons]
    assert diagram.diagnostics == ()


def test_old_connections_name_the_branch_beside_them() -> None:
    """`condition: true` and `branch: "false"` stand for the handle, quoted or not; a handle that is written wins."""
    nodes = [{"label": "C", "type": "condition", "expression": "1"}, {"label": "E", "type": "endpoint"}]
    said: list[tuple[dict[str, Any], str]] = [
        ({"condition": "true"}, "condtrue"),
        ({"condition": False}, "condfalse"),
        ({"branch": "false"}, "condfalse"),
        ({"data": {"branch": "true"}}, "condtrue"),
        ({"from": "C[condfalse]", "condition": "true"}, "condfalse"),
        ({"from": "C_true"}, "condtrue"),
        ({"from": "C[False]"}, "condfalse"),
    ]
    diagram = light(nodes, [{"from": "C", "to": "E", **more} for more, _ in said])
    assert [a.source_handle for a in diagram.arrows] == [handle for _, handle in said]
    assert codes(diagram) == []
    assert codes(light(nodes, [{"from": "E", "to": "C", "condition": "true"}])) == ["unknown-property"]


def test_a_misspelt_branch_is_quoted_with_the_nearest_one() -> None:
    """There is no default branch to fall back on, so it is an error, in every form."""
    nodes = [{"label": "C", "type": "condition", "expression": "1"}, {"label": "E", "type": "endpoint"}]
    for written, quoted in (("C_condtru", "condtru"), ("C[condtru]", "condtru"), ("C_yes", "yes")):
        (found,) = light(nodes, [{"from": written, "to": "E"}]).diagnostics
        assert (found.severity.value, found.code) == ("error", "unknown-handle")
        assert f"'{quoted}'" in found.message
        assert found.hint in ("Did you mean 'condtrue'?", "The handles are condtrue, condfalse.")


def test_settings_of_upstream_persons_that_mean_nothing_here() -> None:
    """`max_turns` is known, kept and said to have no effect; it is no warning."""
    diagram = light([], persons={"P": {"service": "claude-code", "max_turns": 1}})
    assert [(d.severity.value, d.code) for d in diagram.diagnostics] == [("info", "no-effect")]
    assert diagram.persons[0].llm.extra == {"max_turns": 1}
