"""The builders: backend, frontend and strawberry, as pipelines of steps."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from dipeo_nb.codegen.filters.frontend import get_branded_type_imports, ui_field_type
from dipeo_nb.codegen.filters.python import pythonize_name
from dipeo_nb.codegen.filters.types import GRAPHQL
from dipeo_nb.codegen.ir import extract
from dipeo_nb.codegen.ir.graphql_types import model_type, node_type
from dipeo_nb.codegen.ir.model import (
    VERSION,
    BackendIR,
    Field,
    FrontendIR,
    Model,
    NodeSpecIR,
    Operation,
    StrawberryIR,
)
from dipeo_nb.codegen.ir.pipeline import Pipeline, Sources, Step
from dipeo_nb.errors import ValidationError

T = TypeVar("T")
Results = Mapping[str, Any]
Options = Mapping[str, Any]
OPTIONS = ("model_files", "skipped_models", "input_files", "type_conversions", "field_mappings")
"""Options of the builders: what `dipeo.toml` says of DiPeO's models."""


@cache
def _dipeo() -> Mapping[str, Any]:
    return tomllib.loads(resources.files("dipeo_nb.codegen.ir").joinpath("dipeo.toml").read_text(encoding="utf-8"))


def options_for(sources: Sources, given: Options) -> dict[str, Any]:
    """The options of a build: those given, else, for DiPeO's own models, theirs."""
    known = _dipeo()
    ours = all(any(name == end or name.endswith(f"/{end}") for name in sources) for end in known["known"])
    return {name: given[name] if name in given else known[name] for name in OPTIONS if name in given or ours}


def _extraction(name: str, run: Callable[..., Any], *options: str) -> Step:
    return Step(f"extract_{name}", "extract", run, options=options)


ENUMS = _extraction("enums", extract.enums)
MODELS = _extraction("models", extract.models, "model_files", "skipped_models")
INPUTS = _extraction("inputs", extract.inputs, "input_files")
NEWTYPES = _extraction("newtypes", extract.newtypes)
ALIASES = _extraction("aliases", extract.aliases, "model_files")
NODE_SPECS = _extraction("node_specs", extract.node_specs)
OPERATIONS = _extraction("operations", extract.operations)
TABLES = _extraction("tables", extract.tables, "type_conversions", "field_mappings")
INTEGRATIONS = _extraction("integrations", extract.integrations)
INDEXES = _extraction("indexes", extract.indexes)


def _first(items: Iterable[T], name: Callable[[T], str]) -> tuple[T, ...]:
    """Each name once: the first of it."""
    found: dict[str, T] = {}
    for item in items:
        found.setdefault(name(item), item)
    return tuple(found.values())


def _named(items: Iterable[Any]) -> tuple[Any, ...]:
    return _first(items, lambda item: str(item.name))


def _inherit(results: Results, _: Options) -> tuple[Model, ...]:
    """Models with the properties of their bases, as far as those are models; one that is named again takes the place of the base's."""
    models: dict[str, Model] = {model.name: model for model in reversed(results["extract_models"])}

    def fields(model: Model, above: tuple[str, ...]) -> dict[str, Field]:
        found: dict[str, Field] = {}
        for base in model.extends:
            if base in models and base not in above:
                found |= fields(models[base], (*above, base))
        for field in model.fields:
            found.pop(field.name, None)
            found[field.name] = field
        return found

    return tuple(
        Model(
            model.name, extract.distinct(fields(model, (model.name,)).values()), model.extends, model.description, model.source,
            model.open or any(models[base].open for base in model.extends if base in models),
        )
        for model in _named(results["extract_models"])
    )  # fmt: skip


INHERIT = Step("inherit", "transform", _inherit, ("extract_models",))


def _node_factory(results: Results, _: Options) -> dict[str, Any]:
    """What a factory of nodes imports and calls."""
    specs = _node_specs(results)
    return {
        "imports": [{"module": f"unified_nodes.{s.node_type}_node", "class": f"{s.node_name}Node", "alias": ""} for s in specs],
        "factory_cases": [
            {
                "node_type": f"NodeType.{s.node_type.upper()}",
                "class_name": f"{s.node_name}Node",
                "field_mappings": [
                    {
                        "node_field": pythonize_name(f["name"]),
                        "getter_expression": f"data.get({f['name']!r}, {f.get('default')!r})",
                    }
                    for f in s.fields
                ],
            }
            for s in specs
        ],
        "categories": sorted({s.category for s in specs}),
    }


NODE_FACTORY = Step("node_factory", "transform", _node_factory, ("extract_node_specs",))


def _conversions(results: Results, _: Options) -> dict[str, Any]:
    """Tables by purpose. Types are `type_mappings`, as in DiPeO's IR: its template has a branch for another name, in which a kind of
    node becomes a text that is not a NodeType."""
    made: dict[str, Any] = {"node_type_map": {}, "type_mappings": {}, "field_mappings": {}}
    for table in results["extract_tables"]:
        made[table["purpose"]] |= table["value"]
    made["node_type_map"] = {spec.node_type: spec.node_type.upper() for spec in _node_specs(results)}
    return made


CONVERSIONS = Step("conversions", "transform", _conversions, ("extract_tables", "extract_node_specs"))


def _node_specs(results: Results) -> tuple[NodeSpecIR, ...]:
    return _first(results["extract_node_specs"], lambda spec: spec.node_type)


def _backend(results: Results, _: Options) -> BackendIR:
    specs, enums, models = _node_specs(results), _named(results["extract_enums"]), results["inherit"]
    newtypes, aliases = _named(results["extract_newtypes"]), _named(results["extract_aliases"])
    integrations = tuple(results["extract_integrations"])
    return BackendIR(
        version=VERSION,
        node_specs=specs,
        enums=enums,
        domain_models={"models": models, "aliases": aliases, "newtypes": newtypes},
        types=models,
        type_aliases={alias.name: alias for alias in aliases},
        node_factory=results["node_factory"],
        integrations=integrations,
        conversions=results["conversions"],
        typescript_indexes={each["source"]: tuple(each["names"]) for each in results["extract_indexes"]},
        metadata={
            "node_count": len(specs), "enum_count": len(enums), "model_count": len(models), "alias_count": len(aliases),
            "newtype_count": len(newtypes), "integration_count": len(integrations),
        },
    )  # fmt: skip


def _field_config(field: Mapping[str, Any]) -> dict[str, Any]:
    """A field as a form shows it: what the specification says of its control comes first."""
    ui = field.get("uiConfig")
    shown: Mapping[str, Any] = ui if isinstance(ui, Mapping) else {}
    control = str(shown.get("inputType") or ui_field_type(field))
    label = str(field["name"]).replace("_", " ").capitalize()
    return {
        **field,
        "uiType": control,
        "label": field.get("label") or label,
        **{k: v for k, v in shown.items() if k != "inputType"},
    }


def _node_configs(results: Results, _: Options) -> list[dict[str, Any]]:
    return [
        {
            "node_type": spec.node_type, "node_name": spec.node_name, "nodeType": spec.node_type, "displayName": spec.display_name,
            "label": spec.display_name, "category": spec.category, "icon": spec.icon, "color": spec.color, "description": spec.description,
            "primaryDisplayField": spec.raw_data.get("primaryDisplayField"), "handles": spec.raw_data.get("handles") or {},
            "fields": [_field_config(field) for field in spec.fields], "imports": get_branded_type_imports(spec.fields),
        }
        for spec in _node_specs(results)
    ]  # fmt: skip


NODE_CONFIGS = Step("node_configs", "transform", _node_configs, ("extract_node_specs",))


def _of(operations: Iterable[Operation], kind: str) -> tuple[Operation, ...]:
    return tuple(operation for operation in operations if operation.type == kind)


def _groups(operations: Iterable[Operation]) -> dict[str, tuple[str, ...]]:
    made: dict[str, tuple[str, ...]] = {}
    for operation in operations:
        made[operation.entity] = (*made.get(operation.entity, ()), operation.name)
    return made


def _frontend(results: Results, _: Options) -> FrontendIR:
    specs, operations = _node_specs(results), _named(results["extract_operations"])
    configs = tuple(results["node_configs"])
    registry = {spec.node_type: spec.spec_name for spec in specs}
    return FrontendIR(
        version=VERSION,
        node_specs=specs,
        node_configs=configs,
        node_registry=registry,
        registry_data={"imports": [{"name": s.spec_name, "source": s.source} for s in specs], "entries": registry},
        field_configs=tuple({"node_type": config["node_type"], "fields": config["fields"]} for config in configs),
        typescript_models=results["inherit"],
        graphql_queries=operations,
        queries=_of(operations, "query"),
        mutations=_of(operations, "mutation"),
        subscriptions=_of(operations, "subscription"),
        grouped_queries=_groups(operations),
        enums=_named(results["extract_enums"]),
        metadata={"node_count": len(specs), "operation_count": len(operations)},
    )


def _strawberry(results: Results, options: Options) -> StrawberryIR:
    operations, models = _named(results["extract_operations"]), results["inherit"]
    inputs, scalars, enums = (_named(results[f"extract_{name}"]) for name in ("inputs", "newtypes", "enums"))
    names = {model.name for model in inputs}
    objects = tuple(model for model in models if model.name not in names)
    domain = tuple(model for model in objects if not model.name.endswith("Result"))
    queries, mutations, subscriptions = (_of(operations, kind) for kind in ("query", "mutation", "subscription"))
    used = {variable.graphql_type.strip("[]!") for operation in operations for variable in operation.variables}
    counts = {
        "total_operations": len(operations), "total_queries": len(queries), "total_mutations": len(mutations),
        "total_subscriptions": len(subscriptions), "type_count": len(domain), "input_count": len(inputs),
    }  # fmt: skip
    return StrawberryIR(
        version=VERSION,
        operations=operations,
        queries=queries,
        mutations=mutations,
        subscriptions=subscriptions,
        types=tuple(
            model_type(model, {m.name for m in objects}, {s.name for s in scalars}, {e.name for e in enums})
            for model in objects
        ),
        domain=domain,
        interfaces=domain,
        inputs=inputs,
        results=tuple(model for model in models if model.name.endswith("Result")),
        enums=enums,
        scalars=scalars,
        node_specs=tuple(map(node_type, _node_specs(results))),
        imports={"strawberry": tuple(sorted(used & {"Upload"})), "domain": tuple(sorted(used - GRAPHQL.keys()))},
        config=dict(options),
        metadata=counts,
    )


def _validated(results: Results, _: Options) -> list[str]:
    """Raise ValidationError for an IR that no template can use: an empty one, or one in which a name stands for two things."""
    specs, enums, models = _node_specs(results), _named(results["extract_enums"]), _named(results["inherit"])
    operations: tuple[Operation, ...] = _named(results.get("extract_operations", ()))
    if not (specs or enums or models or operations):
        raise ValidationError(
            "There is nothing to build: the sources have no interfaces, enums, node specifications or operations.",
            hint="Give the result of a typescript_ast node with `batch: true` and the patterns interface, type, enum and const.",
        )
    problems: list[str] = []
    for spec in specs:
        names = [str(field["name"]) for field in spec.fields]
        problems += [f"{spec.node_type} has two fields '{name}'" for name in sorted({n for n in names if names.count(n) > 1})]
    both = {model.name for model in models} & {enum.name for enum in enums}
    problems += [f"'{name}' is an interface and an enum" for name in sorted(both)]
    for operation in operations:
        unknown = sorted(_used_variables(operation.fields) - {variable.name for variable in operation.variables})
        problems += [f"{operation.name} uses ${name}, which it does not declare" for name in unknown]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValidationError(
            f"The IR is not valid: {'; '.join(problems[:3])}{more}.", hint="Correct the sources, or set validate_output: false."
        )
    return problems


def _used_variables(fields: Iterable[Mapping[str, Any]]) -> set[str]:
    found: set[str] = set()
    waiting = list(fields)
    while waiting:
        field = waiting.pop()
        found |= {str(arg["value"]) for arg in field.get("args") or () if arg.get("isVariable")}
        waiting += field.get("fields") or ()
    return found


def _pipeline(name: str, assemble: Callable[..., Any], steps: Iterable[Step], options: tuple[str, ...] = ()) -> Pipeline:
    needed = list(steps)
    checked = [step.name for step in needed if step in (NODE_SPECS, ENUMS, INHERIT, OPERATIONS)]
    last = Step(name, "assemble", assemble, tuple(step.name for step in needed), options=options)
    return Pipeline([*needed, last, Step("validate", "validate", _validated, (*checked, name))])


BACKEND = _pipeline(
    "backend", _backend,
    (NODE_SPECS, ENUMS, MODELS, NEWTYPES, ALIASES, TABLES, INTEGRATIONS, INDEXES, INHERIT, NODE_FACTORY, CONVERSIONS),
)  # fmt: skip
FRONTEND = _pipeline("frontend", _frontend, (NODE_SPECS, ENUMS, MODELS, OPERATIONS, INHERIT, NODE_CONFIGS))
STRAWBERRY = _pipeline("strawberry", _strawberry, (NODE_SPECS, ENUMS, MODELS, INPUTS, NEWTYPES, OPERATIONS, INHERIT), OPTIONS)
