"""Intermediate representations: what builders make of parsed sources, the pipeline with its cache, and the two nodes."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ConfigDict, create_model
from pydantic import ValidationError as Invalid

from dipeo_nb.codegen.ir import registry as registry_module
from dipeo_nb.codegen.ir.cache import IRCache
from dipeo_nb.codegen.ir.model import BackendIR, FrontendIR, StrawberryIR, plain
from dipeo_nb.codegen.ir.pipeline import Pipeline, Step
from dipeo_nb.codegen.ir.registry import IRBuilderRegistry
from dipeo_nb.codegen.ir.service import IRBuilderService
from dipeo_nb.codegen.templates import CodegenTemplateService
from dipeo_nb.codegen.typescript.parser import parse_batch
from dipeo_nb.domain.ports import IRBuilderPort
from dipeo_nb.errors import CodeError, ConfigurationError, NodeExecutionError, ValidationError
from dipeo_nb.notebook.session import Session
from tests.support.examples import examples

PATTERNS = ("interface", "type", "enum", "const")
SOURCES = {
    "enums.ts": "export enum Kind { Ship = 'ship', Boat = 'boat' }\nexport enum Op { Q = 'query', M = 'mutation' }",
    "models.ts": """
        export type ShipID = string & { readonly __brand: 'ShipID' };
        export type Mood = 'calm' | 'rough';
        /** Has a name. */
        export interface Named { name: string; since?: number | null }
        export interface Ship extends Named { id: ShipID; name: 'Ada'; crew: readonly string[]; [key: string]: unknown }
        export interface ShipResult { success: boolean; ship?: Ship; by: ShipID | 'crew'; of: ShipID | Ship }
        export type Loaded = z.infer<typeof schema>;
        export interface Page<T> { items: T[]; next: Page<T> | null }
        export type ShipInput = { id: Scalars['ID']['input']; name?: InputMaybe<Scalars['String']['input']>; kind: Kind };
    """,
    "nodes/move.ts": """
        import { Kind } from '../enums';
        export const moveSpec = { nodeType: 'move_ship', displayName: 'Move', category: 'sea', icon: '>', color: '#00f', description: 'Moves.',
          fields: [{ name: 'shipId', type: 'ShipID', required: true }, { name: 'kind', type: 'enum', defaultValue: Kind.Boat },
            { name: 'most', type: 'number' }, { name: 'share', type: 'number', defaultValue: 0.5 }] };
    """,
    "queries.ts": """
        import { Op } from './enums';
        export const shipQueries = { entity: 'Ship', queries: [
          { name: 'GetShip', type: Op.Q, variables: [{ name: 'id', type: 'ID', required: true }],
            fields: [{ name: 'ship', args: [{ name: 'id', value: 'id', isVariable: true }], fields: [{ name: 'name' }] }] },
          { name: 'MoveShip', type: Op.M, variables: [{ name: 'input', type: 'ShipInput!' }, { name: 'as', type: 'KindGraphQL' }],
            fields: [{ name: 'moveShip', args: [{ name: 'input', value: 'input', isVariable: true }] }] },
        ] };
    """,
}


def parsed(**changes: str) -> dict[str, Any]:
    sources = {**SOURCES, **{name.replace("__", "/") + ".ts": text for name, text in changes.items()}}
    return parse_batch(sources, PATTERNS, include_jsdoc=True)  # pyright: ignore[reportReturnType]


def built(kind: str, source: Any = None, **options: Any) -> dict[str, Any]:
    return asyncio.run(IRBuilderService().build(source or parsed(), {"builder_type": kind, **options}))


def test_backend() -> None:
    """Models with inherited fields, branded types, aliases, enums, node specifications, a factory, indexes, counts."""
    made = IRBuilderService().build_ir(parsed(), {"builder_type": "backend"})
    data = made.data
    assert isinstance(data, BackendIR)
    assert [(e.name, [(v.name, v.value) for v in e.values]) for e in data.enums] == [
        ("Kind", [("Ship", "ship"), ("Boat", "boat")]), ("Op", [("Q", "query"), ("M", "mutation")]),
    ]  # fmt: skip
    models = {model.name: model for model in data.types}
    assert models["Named"].description == "Has a name."
    assert [(f.name, f.python_type, f.optional, f.literal_value) for f in models["Ship"].fields] == [
        ("since", "float", True, None), ("id", "ShipID", False, None), ("name", 'Literal["Ada"]', False, '"Ada"'),
        ("crew", "List[str]", False, None),
    ]  # fmt: skip
    assert (models["Ship"].open, models["Named"].open, models["Ship"].extends) == (True, False, ("Named",))
    assert [f.python_type for f in models["Page"].fields] == ["List[Any]", "Optional[Page]"]
    assert [(n.name, n.base) for n in data.domain_models["newtypes"]] == [("ShipID", "str")]
    assert data.type_aliases["Mood"].literals == ("calm", "rough")
    assert data.type_aliases["Loaded"].type == "Any"
    (spec,) = data.node_specs
    assert (spec.node_type, spec.node_name, spec.spec_name, spec.display_name) == ("move_ship", "MoveShip", "moveSpec", "Move")
    assert spec.fields[1]["default"] == "boat"
    assert data.node_factory["factory_cases"][0]["field_mappings"][0] == {
        "node_field": "ship_id",
        "getter_expression": "data.get('shipId', None)",
    }
    assert data.conversions == {"node_type_map": {"move_ship": "MOVE_SHIP"}, "type_mappings": {}, "field_mappings": {}}
    assert data.typescript_indexes["enums.ts"] == ("Kind", "Op")
    assert data.metadata["model_count"] == 4
    assert (made.metadata.builder_type, made.metadata.source_files, made.metadata.sources[0]) == ("backend", 4, "enums.ts")


def test_a_required_field_without_a_default_stays_without() -> None:
    """A factory that a template makes of it hands on None, which the class of a node refuses, instead of an empty text."""
    source = "export const s = { nodeType: 'x', fields: [{ name: 'a', type: 'string', required: true }, { name: 'b', defaultValue: '' }] };"
    made = IRBuilderService().build_ir(parse_batch({"x.ts": source}, PATTERNS), {"builder_type": "backend"})
    template = "{% for f in node_specs[0].fields %}{{ f.name }}={{ f | python_default }} {% endfor %}"
    assert CodegenTemplateService().render_string(template, plain(made.data)) == 'a=None b="" '


def test_tables_of_conversions_by_the_names_of_their_constants() -> None:
    """Types are `type_mappings`: under another name, DiPeO's template maps a kind of node to a text that is not a NodeType."""
    source = "export const PY = { string: 'str' }; export const UI = { string: 'text' }; export interface A { a: string }"
    options = {"type_conversions": "PY", "field_mappings": "UI"}
    made = built("backend", parse_batch({"x.ts": source}, PATTERNS), config=options)
    assert made["data"]["conversions"] == {
        "node_type_map": {}, "type_mappings": {"string": "str"}, "field_mappings": {"string": "text"},
    }  # fmt: skip


def test_frontend_and_strawberry() -> None:
    """Controls of fields and operations; inputs, results, scalars; the texts of operations."""
    frontend = IRBuilderService().build_ir(parsed(), {"builder_type": "frontend"}).data
    assert isinstance(frontend, FrontendIR)
    assert [(f["name"], f["uiType"]) for f in frontend.field_configs[0]["fields"]] == [
        ("shipId", "text"), ("kind", "select"), ("most", "number"), ("share", "number"),
    ]  # fmt: skip
    assert frontend.node_registry == {"move_ship": "moveSpec"}
    assert frontend.grouped_queries == {"Ship": ("GetShip", "MoveShip")}
    strawberry = IRBuilderService().build_ir(parsed(), {"builder_type": "strawberry"}).data
    assert isinstance(strawberry, StrawberryIR)
    assert [(i.name, [(f.name, f.graphql_type, f.optional) for f in i.fields]) for i in strawberry.inputs] == [
        ("ShipInput", [("id", "ID", False), ("name", "String", True), ("kind", "Kind", False)])
    ]
    assert [r.name for r in strawberry.results] == ["ShipResult"]
    assert [s.name for s in strawberry.scalars] == ["ShipID"]
    assert strawberry.imports == {"strawberry": (), "domain": ("KindGraphQL", "ShipInput")}
    assert [o.query_string for o in strawberry.operations] == [
        "query GetShip($id: ID!) {\n  ship(id: $id) {\n    name\n  }\n}",
        "mutation MoveShip($input: ShipInput!, $as: KindGraphQL) {\n  moveShip(input: $input)\n}",
    ]
    assert [(v.python_type, v.required) for o in strawberry.operations for v in o.variables] == [
        ("str", True),
        ("ShipInput", True),
        ("KindGraphQL", False),
    ]
    (spec,) = strawberry.node_specs
    assert (spec["spec"]["description"], spec["spec"]["displayName"]) == ("Moves.", "Move")
    assert [(f["name"], f["python_type"], f["graphql_type"]) for f in spec["spec"]["fields"][2:]] == [
        ("most", "int", "Int"), ("share", "float", "Float"),
    ]  # fmt: skip
    resolved = {t["name"]: {f["name"]: f["strawberry_type"] for f in t["resolved_fields"]} for t in strawberry.types}
    assert resolved["ShipResult"] == {"success": "bool", "ship": "Optional[ShipType]", "by": "str", "of": "JSONScalar"}


@pytest.mark.parametrize("kind", ["backend", "frontend", "strawberry"])
def test_the_same_sources_give_the_same_bytes(kind: str) -> None:
    """In any order, with a cache or without, in plain JSON; there is no time in it."""
    one = IRBuilderService().build_ir(parsed(), {"builder_type": kind}).to_bytes()
    service = IRBuilderService()
    for source in (parsed(), dict(reversed(parsed().items())), {f"temp/{name}.json": p["ast"] for name, p in parsed().items()}):
        assert service.build_ir(source, {"builder_type": kind}).to_bytes() == one
        assert service.build_ir(source, {"builder_type": kind, "cache_enabled": False}).to_bytes() == one
    assert json.loads(one)["metadata"]["source_files"] == 4
    assert b"generated_at" not in one


def test_only_what_depends_on_a_change_is_built_again() -> None:
    """And only that differs."""
    service = IRBuilderService()
    before, _ = service.run(parsed(), {"builder_type": "backend"})
    same, again = service.run(parsed(), {"builder_type": "backend"})
    assert (again.built, same.to_bytes()) == ([], before.to_bytes())
    after, build = service.run(
        parsed(nodes__move=SOURCES["nodes/move.ts"].replace("'Moves.'", "'Moves a ship.'")), {"builder_type": "backend"}
    )
    steps = {name for name in build.built if ":" not in name}
    assert steps == {"node_factory", "conversions", "backend", "validate"}
    assert {name.partition(":")[2] for name in build.built if ":" in name} == {"nodes/move.ts"}
    one, two = before.to_dict()["data"], after.to_dict()["data"]
    assert {key for key in one if one[key] != two[key]} == {"node_specs"}


def test_declarations_of_one_name_are_one() -> None:
    """Interfaces and enums of a source merge, as in TypeScript; of two sources, the first by name counts."""
    source = (
        "/** One. */ export interface A extends B { x: string; z: 1 }\nexport interface A extends C { y?: number; z: 2; [k: string]: any }\n"
        "export enum E { P = 'p' }\nexport enum E { Q = 'q' }"
    )
    data = built(
        "backend", parse_batch({"a.ts": source, "b.ts": "export interface A { w: string }"}, PATTERNS, include_jsdoc=True)
    )
    (model,) = data["types"]
    assert [(f["name"], f["type"], f["optional"]) for f in model["fields"]] == [
        ("x", "string", False), ("z", "2", False), ("y", "number", True),
    ]  # fmt: skip
    assert (model["extends"], model["open"], model["description"], model["source"]) == (["B", "C"], True, "One.", "a.ts")
    assert [(e["name"], [v["value"] for v in e["values"]]) for e in data["enums"]] == [("E", ["p", "q"])]


def test_no_field_takes_the_name_of_another_one() -> None:
    """Names that would be one in Python stay apart, those of bases and of inputs too."""
    source = (
        "export interface Base { user_id: string; größe: number }\nexport interface A extends Base { userId: number; 'user-id'?: 1; '': 2 }\n"
        "export interface AInput { aB: string; a_b: string }"
    )
    data = built("strawberry", parse_batch({"a.ts": source}, PATTERNS), config={"input_files": ["a.ts"]})
    named = {m["name"]: [(f["name"], f["python_name"]) for f in m["fields"]] for m in [*data["domain"], *data["inputs"]]}
    assert named == {
        "Base": [("user_id", "user_id"), ("größe", "größe")],
        "A": [("user_id", "user_id"), ("größe", "größe"), ("userId", "user_id_2"), ("user-id", "user_id_3"), ("", "_")],
        "AInput": [("aB", "a_b"), ("a_b", "a_b_2")],
    }


def test_options_choose_files_and_leave_models_out() -> None:
    data = built("backend", config={"model_files": ["models.ts"], "skipped_models": ["Page", "ShipResult"]})["data"]
    assert [m["name"] for m in data["types"]] == ["Named", "Ship"]
    elsewhere = built("backend", config={"model_files": ["enums.ts"]})["data"]
    assert (elsewhere["types"], elsewhere["type_aliases"], elsewhere["domain_models"]["aliases"]) == ([], {}, [])


def test_the_form_of_the_result() -> None:
    """The keys of the data stand beside it, as templates name them; `python`: data and metadata only."""
    made = built("backend")
    assert {"data", "metadata", "node_specs", "enums", "domain_models"} <= made.keys()
    assert made["enums"] == made["data"]["enums"]
    assert (made["metadata"]["model_count"], made["metadata"]["builder_type"]) == (4, "backend")
    assert built("backend", output_format="python").keys() == {"data", "metadata"}
    assert isinstance(IRBuilderService(), IRBuilderPort)
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("text", {}, "got str"),
        ({"a.ts": 1}, {}, "got 'a.ts', which is int"),
        ({"a.ts": {"ast": {"interfaces": 1}}}, {}, "without collections"),
        ({"a.ts": {"x": []}}, {}, "without collections"),
        ({}, {}, "nothing to build"),
        (parse_batch({"a.ts": "// nothing"}), {}, "nothing to build"),
        ({"a.ts": {"interfaces": [{"properties": []}]}}, {}, "cannot use its input: KeyError"),
        ({"a.ts": {"interfaces": [1]}}, {}, "cannot use its input"),
        (parse_batch({"a.ts": "interface A {}\nenum A {}"}), {}, "'A' is an interface and an enum"),
        (parse_batch({"a.ts": "const s = {nodeType: 'x', fields: [{name: 'a'}, {name: 'a'}]}"}, PATTERNS), {}, "two fields 'a'"),
        (parse_batch({"a.ts": SOURCES["queries.ts"].replace("name: 'id', type", "name: 'x', type").replace("Op.Q", "'query'")}, PATTERNS),
         {"builder_type": "frontend"}, r"GetShip uses \$id"),
        (None, {"builder_type": "backed"}, "no builder 'backed'"),
        (None, {"builder_type": "custom"}, "0 custom builders"),
    ],
)  # fmt: skip
def test_bad_sources(source: Any, options: Mapping[str, Any], message: str) -> None:
    """One clear error each, whatever the source."""
    with pytest.raises(ValidationError, match=message) as caught:
        IRBuilderService().build_ir(parsed() if source is None else source, {"builder_type": "backend", **options})
    assert caught.value.hint


def test_validation_can_be_left_out() -> None:
    source = parse_batch({"a.ts": "interface A {}\nenum A {}"})
    assert IRBuilderService().build_ir(source, {"validate_output": False}).data.metadata["enum_count"] == 1


def count(results: Mapping[str, Any], _: Mapping[str, Any]) -> dict[str, Any]:
    return {"count": len(results["names"])}


def names(source: str, ast: Mapping[str, Any], _: Mapping[str, Any]) -> list[str]:
    return [f"{source}:{each['name']}" for each in ast.get("interfaces", [])]


def fails(*_: Any) -> Any:
    raise ValidationError("It does not work.", hint="Try another.")


CUSTOM = Pipeline([Step("names", "extract", names), Step("count", "assemble", count, ("names",))])


class Point:
    """An entry point of an installed package."""

    name, value, dist = "counts", "package:CUSTOM", None

    def __init__(self, made: Any) -> None:
        self.made = made

    def load(self) -> Any:
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


@pytest.fixture
def no_packages() -> Iterator[None]:
    yield
    registry_module._installed.cache_clear()


def test_custom_builders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an installed package, or of this process; under a name that is not one of ours."""
    monkeypatch.setattr(registry_module, "_installed", lambda: {"counts": Point(lambda: CUSTOM)})
    service = IRBuilderService()
    assert service.registry.list_builders() == ["backend", "counts", "frontend", "strawberry"]
    assert asyncio.run(service.build(parsed(), {"builder_type": "custom"}))["count"] == 4
    service.registry.register_builder("mine", CUSTOM)
    with pytest.raises(ValidationError, match="2 custom builders: counts, mine"):
        service.build_ir(parsed(), {"builder_type": "custom"})
    assert service.build_ir(parsed(), {"builder_type": "custom", "builder_name": "mine"}).data == {"count": 4}
    for wrong in (1, lambda: 1, Pipeline([Step("names", "extract", names)])):
        with pytest.raises(ConfigurationError, match="not a builder"):
            service.registry.register_builder("other", wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match="built in"):
        service.registry.register_builder("backend", CUSTOM)
    monkeypatch.setattr(registry_module, "_installed", lambda: {"counts": Point(ImportError("no module"))})
    with pytest.raises(ConfigurationError, match="cannot be loaded: no module"):
        IRBuilderRegistry().get_builder("counts")


def test_pipelines() -> None:
    """Steps run after what they need; a required one raises, another leaves a note; bad pipelines are refused at once."""
    last = Step("last", "assemble", count, ("names",))
    done = Pipeline([last, Step("maybe", "transform", fails, ("names",), required=False), Step("names", "extract", names)])
    assert done.order == ["names", "maybe", "last"]
    build = done.build({"b": {"interfaces": [{"name": "B"}]}, "a": {"interfaces": [{"name": "A"}]}}, {})
    assert build.results["names"] == ["a:A", "b:B"]
    assert (build.results["maybe"], build.notes) == (None, ["maybe: It does not work."])
    with pytest.raises(ValidationError, match="does not work"):
        Pipeline([Step("must", "transform", fails)]).build({}, {})
    for steps, message in (
        ([last], "needs 'names'"),
        ([Step("a", "transform", count, ("b",)), Step("b", "transform", count, ("a",))], "need each other"),
        ([Step("a", "extract", names), Step("a", "extract", names)], "one name"),
        ([Step("a", "guess", names)], "kind 'guess'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Pipeline(steps)


def test_cache() -> None:
    """Entries have an end and an owner each; the least used one goes when there is no room; counts."""
    clock = [0.0]
    cache = IRCache(ttl=10, max_bytes=400, now=lambda: clock[0])
    value = {"a": [1]}
    cache.set("one", value)
    value["a"].append(2)
    cache.get("one")["a"].append(3)
    assert cache.get("one") == {"a": [1]}
    cache.set("short", 1, ttl=1)
    clock[0] = 1.0
    assert cache.get("short") is None
    clock[0] = 10.0
    assert cache.clear_expired() == 1
    assert (cache.get_stats().entries, cache.get_stats().size, cache.get_stats().expired) == (0, 0, 2)
    cache.clear()
    for number in range(3):
        cache.set(str(number), "x" * 150)
    assert cache.get("0") is None
    assert cache.get("2") == "x" * 150
    cache.set("large", "x" * 500)
    assert cache.get("large") is None
    cache.invalidate("2")
    stats = cache.get_stats()
    assert (stats.entries, stats.hits, stats.misses) == (1, 1, 2)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=5), "number": st.integers(-9, 9) | st.floats(-9, 9), "boolean": st.booleans(), "'a' | 'b'": st.sampled_from("ab"),
    "1 | 2": st.sampled_from([1, 2]), "null": st.none(),
}  # fmt: skip
TYPES = st.recursive(
    st.sampled_from(sorted(VALUES)).map(lambda text: (text, VALUES[text])),
    lambda inner: st.one_of(
        inner.map(lambda t: (f"({t[0]})[]", st.lists(t[1], max_size=3))),
        inner.map(lambda t: (f"Record<string, {t[0]}>", st.dictionaries(st.text(max_size=3), t[1], max_size=3))),
        inner.map(lambda t: (f"{t[0]} | null", st.none() | t[1])),
        st.tuples(inner, inner).map(lambda t: (f"{t[0][0]} | {t[1][0]}", t[0][1] | t[1][1])),
        st.tuples(inner, inner).map(lambda t: (f"[{t[0][0]}, {t[1][0]}]", st.tuples(t[0][1], t[1][1]).map(list))),
    ),
    max_leaves=5,
)


def accepts(text: str, value: Any) -> bool:
    """Whether TypeScript would accept a value: the types above, read on their own."""
    from dipeo_nb.codegen.type_text import read_type

    def fits(made: Any, value: Any) -> bool:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        match made.kind:
            case "union":
                return any(fits(part, value) for part in made.parts)
            case "array":
                return isinstance(value, list) and all(fits(made.parts[0], v) for v in value)
            case "tuple":
                return isinstance(value, list) and len(value) == len(made.parts) and all(map(fits, made.parts, value))
            case "literal":
                return value == (made.text[1:-1] if made.text[0] == "'" else int(made.text))  # Pydantic takes True for 1
            case _:
                if made.text == "Record":
                    return isinstance(value, dict) and all(fits(made.parts[1], v) for v in value.values())
                return {
                    "string": isinstance(value, str),
                    "number": number,
                    "boolean": isinstance(value, bool),
                    "null": value is None,
                }[made.text]

    return fits(read_type(text), value)


@given(st.data(), st.lists(st.tuples(TYPES, st.booleans()), min_size=1, max_size=4))
@examples(40)
def test_models_accept_what_their_interfaces_accept(data: st.DataObject, fields: list[tuple[Any, bool]]) -> None:
    """Random interfaces → IR → Pydantic: the same values are accepted and refused."""
    text = "; ".join(f"f{n}{'?' if optional else ''}: {kind[0]}" for n, (kind, optional) in enumerate(fields))
    ir = IRBuilderService().build_ir(parse_batch({"a.ts": f"export interface A {{ {text} }}"}), {}).data.types[0]
    scope: dict[str, Any] = {}
    exec("from typing import *", scope)
    made: dict[str, Any] = {}
    for field in ir.fields:
        annotation = eval(field.python_type, scope)
        made[field.python_name] = (annotation and annotation | None, None) if field.optional else (annotation, ...)
    model = create_model("A", __config__=ConfigDict(strict=True, extra="forbid"), **made)

    def accepted(values: Mapping[str, Any]) -> bool:
        try:
            model.model_validate_json(json.dumps(values))
        except Invalid:
            return False
        return True

    good = {
        f"f{n}": data.draw(kind[1]) for n, (kind, optional) in enumerate(fields) if not (optional and data.draw(st.booleans()))
    }
    assert accepted(good)
    name = data.draw(st.sampled_from(sorted(f"f{n}" for n in range(len(fields)))))
    other = data.draw(st.one_of(*VALUES.values(), st.just([]), st.just({}), st.just(["a", 1])))
    (kind, _), optional = fields[int(name[1:])]
    assert accepted({**good, name: other}) == (accepts(kind, other) or (optional and other is None))


def diagram(*nodes: Mapping[str, Any]) -> dict[str, Any]:
    labels = ["Start", *(str(node["label"]) for node in nodes), "End"]
    return {
        "version": "light",
        "nodes": [{"label": "Start", "type": "start"}, *nodes, {"label": "End", "type": "endpoint"}],
        "connections": [{"from": a, "to": b, "content_type": "object"} for a, b in itertools.pairwise(labels)],
    }


def run(base: Path, *nodes: Mapping[str, Any], **inputs: Any) -> Any:
    with Session(base) as dp:
        return dp.run(diagram(*nodes), view=False, inputs=inputs)


PARSE = {
    "label": "Parse",
    "type": "typescript_ast",
    "batch": True,
    "extract_patterns": list(PATTERNS),
    "output_format": "for_codegen",
}
BUILD = {"label": "Build", "type": "ir_builder"}


def test_from_sources_to_files(tmp_path: Path) -> None:
    """Parse, build, render with the filters: in one run, with its progress among the events."""
    template = (
        "{% for m in types %}class {{ m.name }}:\n{% for f in m.fields %}    {{ f.python_name }}: {{ f.python_type | ensure_optional "
        "if f.optional else f.python_type }}\n{% endfor %}{% endfor %}"
    )
    (tmp_path / "ir.yaml").write_text("model_files: [models.ts]\nskipped_models: [Page, ShipResult]")
    write = {"label": "Write", "type": "template_job", "template_content": template, "output_path": "out/models.py"}
    result = run(tmp_path, PARSE, {**BUILD, "config_path": "ir.yaml"}, write, sources=SOURCES)
    assert result.status == "completed"
    assert (tmp_path / "out/models.py").read_text() == (
        "class Named:\n    name: str\n    since: Optional[float]\n"
        'class Ship:\n    since: Optional[float]\n    id: ShipID\n    name: Literal["Ada"]\n    crew: List[str]\n'
    )
    shown = [e.payload["text"] for e in result.events if e.payload.get("kind") == "progress"]
    assert {"Parsing enums.ts", "Building backend", "Building validate"} <= set(shown)


def test_a_source_that_cannot_be_read(tmp_path: Path) -> None:
    """Of a batch, the others are read; alone, the node fails and says where."""
    sources = {"a.ts": "interface A {}", "b.ts": "a\0b"}
    found = run(tmp_path, PARSE, sources=sources).output
    assert found["a.ts"]["ast"]["interfaces"][0]["name"] == "A"
    assert found["b.ts"]["metadata"]["error"] == "1:2: The source is binary: it holds the character U+0000."
    with pytest.raises(CodeError, match=r"source:1:2: The source is binary"):
        run(tmp_path, {"label": "Parse", "type": "typescript_ast", "source": "a\0b"})


def test_files_are_confined(tmp_path: Path) -> None:
    (tmp_path.parent / "outside.ts").write_text("export interface Secret {}")
    for path in ("../outside.ts", str(tmp_path.parent / "outside.ts")):
        for node in ({"label": "Parse", "type": "typescript_ast", "file": path}, {**BUILD, "config_path": path}):
            with pytest.raises(Exception, match=r"outside|not allowed|leads out") as caught:
                run(tmp_path, node)
            assert "Secret" not in str(caught.value)


def test_configurations(tmp_path: Path) -> None:
    """One that is not there is a warning, as DiPeO's diagrams name some that are not; one that is no mapping is an error."""
    assert run(tmp_path, PARSE, {**BUILD, "config_path": "none.yaml"}, sources=SOURCES).output["metadata"]["source_files"] == 4
    (tmp_path / "bad.yaml").write_text("- 1")
    with pytest.raises(NodeExecutionError, match="does not hold a mapping"):
        run(tmp_path, PARSE, {**BUILD, "config_path": "bad.yaml"}, sources=SOURCES)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"transform_enums": True}, {"Kind": {"Ship": "ship", "Boat": "boat"}, "Op": {"Q": "query", "M": "mutation"}}),
        ({"flatten_output": True}, [("enum", "Kind"), ("enum", "Op")]),
        ({"output_format": "for_analysis"}, {"enums": 2}),
    ],
)
def test_other_forms_of_results(tmp_path: Path, options: dict[str, Any], found: Any) -> None:
    node = {"label": "Parse", "type": "typescript_ast", "source": SOURCES["enums.ts"], "extract_patterns": ["enum"], **options}
    made = run(tmp_path, node).output
    if "transform_enums" in options:
        assert {enum["name"]: enum["members"] for enum in made["ast"]["enums"]} == found
    elif "flatten_output" in options:
        assert [(d["kind"], d["name"]) for d in made["ast"]["declarations"]] == found
    else:
        assert made["metadata"]["counts"] == found


@pytest.mark.parametrize("count", [1, 700])
def test_a_diagram_from_elsewhere_may_generate(tmp_path: Path, count: int) -> None:
    """It needs no permission to parse, build and render; long templates are rendered in a worker, with the same filters and macros."""
    template = (
        "{% from 'macros' import ts_property %}"
        + "{{ types[0].name | snake_case }}{{ ts_property('a', 'b') }}{{ macros.ts_property('c', 'd') }}" * count
    )
    render = {"label": "Render", "type": "template_job", "template_content": template}
    source = {"label": "Parse", "type": "typescript_ast", "source": "export interface ShipLog {}"}
    (tmp_path / "d.light.yaml").write_text(json.dumps(diagram(source, BUILD, render)))
    with Session(tmp_path) as session:
        assert session.load("d").capabilities().uses == frozenset()
        assert session.run("d", view=False, trust=False).output == "ship_loga: b;c: d;" * count


def test_templates_get_the_ir(tmp_path: Path) -> None:
    """The service of templates renders an IR, typed or plain."""
    data = built("strawberry")
    text = CodegenTemplateService().render_string(
        "{% for s in scalars %}{{ s.name }}{% endfor %}{{ operations | length }} {{ imports.domain }}", data
    )
    assert text == "ShipID2 ['KindGraphQL', 'ShipInput']"
