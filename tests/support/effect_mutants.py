"""What is lost when a part of what says, or guards, the effects of diagrams is taken away: a small diagram for each part whose effect
is then not shown, not refused, or not to be had any more. See `observed_effects`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.support.observed_effects import World, light, node, observed


class Witness(NamedTuple):
    """A diagram, and what a run of it does when everything is as it should be."""

    nodes: tuple[dict[str, Any], ...]
    does: tuple[str, str] | None
    """(kind, end) of the effect after a yes; None: it is refused while it runs."""
    inputs: Mapping[str, Any] = MappingProxyType({})
    guest: bool = False
    """Whether a guest may do it, in a folder of its own or with files that the diagram brings."""
    first: Mapping[str, Any] = MappingProxyType({})
    """Properties of the start node."""
    real: bool = False
    """Whether its code is run in a process, which is watched, too."""


def one(
    kind: str, does: tuple[str, str] | None, *, inputs: Mapping[str, Any] | None = None, guest: bool = False, **props: Any
) -> Witness:
    return Witness((node(kind, "N", **props),), does, inputs or {}, guest)


TALK: dict[str, Any] = {"person": "A", "default_prompt": "Hi"}
DIFF = "--- a\n+++ b\n@@ -1 +1 @@\n-c\n+d\n"


def fields(server: str) -> dict[tuple[str, str], Witness]:
    """(node type, field) → a witness of what its `effect` says."""
    write = node("template_job", "W", template_content="x")
    return {
        ("endpoint", "file_name"): one("endpoint", ("write", "made.txt"), guest=True, save_to_file=True, file_name="made.txt"),
        ("person_job", "first_prompt_file"): one("person_job", ("read", "prompts/p.txt"), guest=True, first_prompt_file="p.txt", **TALK),
        ("person_job", "prompt_file"): one("person_job", ("read", "prompts/p.txt"), guest=True, person="A", prompt_file="p.txt"),
        ("person_job", "text_format_file"): one("person_job", ("read", "/s.json"), guest=True, text_format_file="s.json", **TALK),
        ("condition", "judge_by_file"): one(
            "condition", ("read", "prompts/p.txt"), guest=True, condition_type="llm_decision", person="A", judge_by_file="p.txt"
        ),
        ("code_job", "code"): one("code_job", ("code", "<N>"), code="return 1"),
        ("code_job", "file_path"): one("code_job", ("code", "work.py"), file_path="work.py"),
        ("api_job", "url"): one("api_job", ("net", server.partition("://")[2]), url=f"{server}/x"),
        ("db", "file"): one("db", ("read", "/notes.json"), operation="read", file="notes.json"),
        ("hook", "command"): one("hook", ("process", "true"), hook_type="shell", command="true"),
        ("hook", "url"): one("hook", ("net", server.partition("://")[2]), hook_type="http", url=f"{server}/x"),
        ("hook", "config"): one("hook", ("process", "true"), hook_type="shell", config={"command": "true"}),
        ("template_job", "template_path"): one("template_job", ("read", "/part.j2"), guest=True, template_path="part.j2"),
        ("template_job", "output_path"): one("template_job", ("write", "made.txt"), guest=True, template_content="x", output_path="made.txt"),
        ("template_job", "preprocessor"): one(
            "template_job", ("code", "<preprocessor of N>"), template_content="x", preprocessor="mod.prepare"
        ),
        ("json_schema_validator", "schema_path"): one("json_schema_validator", ("read", "/s.json"), guest=True, schema_path="s.json"),
        ("json_schema_validator", "data_path"): one("json_schema_validator", ("read", "/notes.json"), json_schema=True, data_path="notes.json"),
        ("typescript_ast", "file"): one("typescript_ast", ("read", "sub/c.txt"), file="sub/c.txt"),
        ("sub_diagram", "diagram_name"): one("sub_diagram", ("model", "openai:gpt-5-nano"), diagram_name="{which}", inputs={"which": "talk"}),
        ("sub_diagram", "diagram_data"): one(
            "sub_diagram", ("model", "openai:gpt-5-nano"), guest=True, diagram_data=light([node("person_job", "T", **TALK)])
        ),
        ("ir_builder", "config_path"): one("ir_builder", ("read", "data/b.json"), config_path="data/b.json"),
        ("diff_patch", "target_path"): one("diff_patch", ("write", "sub/c.txt"), target_path="sub/c.txt", diff=DIFF, backup=False),
        ("diff_patch", "backup_dir"): one("diff_patch", ("write", "kept/c.txt.backup."), target_path="sub/c.txt", diff=DIFF, backup_dir="kept"),
        ("diff_patch", "reject_file"): Witness(
            (write, node("diff_patch", "N", target_path="sub/c.txt", reject_file="rejected.txt", diff=DIFF.replace("-c", "-z"))),
            ("write", "rejected.txt"),
        ),
    }  # fmt: skip


def rules(server: str) -> dict[tuple[str, str], Witness]:
    """(node type, name of a rule) → a witness of the uses that no field says."""
    return {
        ("start", "_of_start"): Witness((), ("event", "go"), first={"trigger_mode": "hook", "hook_event": "go"}, guest=True),
        ("person_job", "_of_person"): one("person_job", ("net", "127.0.0.1:9"), person="C", default_prompt="Hi"),
        ("person_job", "_of_tools"): one("person_job", ("tool", "web_search"), tools="websearch", **TALK),
        ("person_job", "_of_stream"): one(
            "person_job", ("service", "slack.start_stream"), stream_to={"provider": "slack", "channel": "C1", "thread_ts": "1"}, **TALK
        ),
        ("condition", "_of_decision"): one(
            "condition", ("net", "127.0.0.1:9"), condition_type="llm_decision", person="C", judge_by="Is it?"
        ),
        ("integrated_api", "_of_operation"): one("integrated_api", ("service", "notion.read"), provider="notion", operation="read"),
    }  # fmt: skip


def wrappers(server: str) -> dict[str, tuple[Witness, ...]]:
    """Service → diagrams that want of it what was not shown: a name that leads elsewhere, a redirect, a function of the user's."""
    outside = {"which": "../secret"}

    def of_the_user(value: str) -> Witness:
        return one("of_the_user", ("function", "of_the_user"), value=value)

    return {
        "files": (
            one("endpoint", None, inputs=outside, save_to_file=True, file_name="data/{which}.json"),
            of_the_user("files"),
        ),
        "db": (one("db", None, inputs=outside, operation="read", file="data/{which}.json"), of_the_user("db")),
        "http": (one("api_job", ("net", server.partition("://")[2]), url=f"{server}/redirect"), of_the_user("http")),
        "llm": (of_the_user("models"),),
        "code": (of_the_user("code"),),
        "integrations": (of_the_user("integrations"),),
        "ir": (of_the_user("ir"),),
    }


def unsound(world: World, witness: Witness) -> list[str]:
    """What is wrong with a witness: effects that were not shown or are not a guest's, or its own one is not to be had."""
    world.real_code = witness.real
    data = light(witness.nodes)
    data["nodes"][0]["props"] |= witness.first
    world.names = {"talk"}
    found: list[str] = []
    for trust in (True, False):
        outcome = observed(world, data, inputs=witness.inputs, trust=trust)
        found += outcome.problems
        wanted = witness.does is not None and (trust or witness.guest)
        if wanted and not any(e.kind == witness.does[0] and witness.does[1] in e.what for e in outcome.seen):  # type: ignore[index]
            found.append(f"{'trusted' if trust else 'guest'}: it does not {witness.does}")
        if not trust and not witness.guest and not outcome.refused and witness.does is not None:
            found.append("guest: it is not asked about")
        if any(e.kind == "write" and ".dipeo" not in e.what for e in outcome.seen):
            world.reset()
    return found


@contextmanager
def without_effect(kind: str, name: str, effect: str | None) -> Iterator[None]:
    """A field without its effect, or without one of them."""
    from dipeo_nb.domain.nodes import NODE_SPECS

    f = next(f for f in dataclasses.fields(NODE_SPECS[kind]) if f.name == name)
    kept = " ".join(e for e in str(f.metadata["effect"]).split() if effect is not None and e != effect)
    before, f.metadata = f.metadata, MappingProxyType({**f.metadata, "effect": kept})
    try:
        yield
    finally:
        f.metadata = before


@contextmanager
def changed(holder: Any, name: Any, value: Any) -> Iterator[None]:
    """An attribute, or an entry of a mapping, of another value."""
    mapping = isinstance(holder, dict)
    before = holder[name] if mapping else getattr(holder, name)
    holder.__setitem__(name, value) if mapping else setattr(holder, name, value)
    try:
        yield
    finally:
        holder.__setitem__(name, before) if mapping else setattr(holder, name, before)


@contextmanager
def without_wrapper(name: str) -> Iterator[None]:
    """A gate that hands a service on as it is."""
    from dipeo_nb.security.gate import Gate

    wrap = Gate._checked
    with changed(
        Gate, "_checked", lambda gate, services: dataclasses.replace(wrap(gate, services), **{name: getattr(services, name)})
    ):
        yield


def mutants(server: str) -> Iterator[tuple[str, Callable[[], Any], tuple[Witness, ...]]]:
    """(name, what takes the part away, witnesses of it) of each part there is; a part without a witness is an error."""
    from dipeo_nb.domain import capabilities
    from dipeo_nb.domain.enums import NodeType
    from dipeo_nb.domain.nodes import NODE_SPECS
    from dipeo_nb.security.gate import Gate

    known = fields(server)
    for kind, spec in NODE_SPECS.items():
        if kind not in set(NodeType):
            continue
        for f in dataclasses.fields(spec):
            effects = capabilities.effects_of(f)
            single = (kind, f.name) in capabilities._BY_FIELD or len(effects) < 2
            for effect in [None] if single else effects:
                if effects:
                    label = f"effect of {kind}.{f.name}{f': {effect}' if effect else ''}"
                    yield label, lambda k=kind, n=f.name, e=effect: without_effect(k, n, e), (known[kind, f.name],)
    for kind, name in capabilities._BY_FIELD:
        yield (
            f"rule of {kind}.{name}",
            lambda k=(kind, name): changed(capabilities._BY_FIELD, k, _nothing),
            (known[kind, name],),
        )
    for kind, several in capabilities._BY_TYPE.items():
        for rule in several:
            kept = tuple(other for other in several if other is not rule)
            witness = rules(server)[kind, rule.__name__]
            yield f"rule {rule.__name__} of {kind}", lambda k=kind, r=kept: changed(capabilities._BY_TYPE, k, r), (witness,)
    imports = Witness((node("code_job", "N", code="import helper\nreturn helper.x"),), ("code", "<N>"), real=True)
    yield "modules as they were shown", lambda: changed(Gate, "sources", property(lambda gate: None)), (imports,)
    for name, witnesses in wrappers(server).items():
        yield f"wrapper of {name}", lambda n=name: without_wrapper(n), witnesses


def _nothing(node: Any, plan: Any) -> Iterator[Any]:
    return iter(())


def outcomes(world: World) -> dict[str, Any]:
    """For each mutant: what is wrong with its witnesses as things are, and when the part is taken away."""
    found: dict[str, Any] = {}
    for name, taken_away, witnesses in mutants(world.server.url):
        intact = [problem for witness in witnesses for problem in unsound(world, witness)]
        with taken_away():
            mutated = [unsound(world, witness) for witness in witnesses]
        found[name] = {"intact": intact, "mutated": mutated}
    return found
