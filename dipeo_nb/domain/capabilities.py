"""Capabilities of a diagram when it runs: single uses, sets of them, and the uses that a node's fields declare.

A use is known before a run. Names that are computed during the run appear in it as patterns: `data/{{x}}.csv` is `data/*.csv`, and
an address whose host is not written out is any server.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

from dipeo_nb.common.addresses import origin_of
from dipeo_nb.common.text import printable
from dipeo_nb.domain.chat import DEFAULT_MODEL_SERVICE
from dipeo_nb.domain.enums import DBOperation, HookTriggerMode, HookType, NodeType, SupportedLanguage
from dipeo_nb.domain.nodes import (
    ApiJobNode,
    CodeJobNode,
    ConditionNode,
    DbNode,
    DiffPatchNode,
    EndpointNode,
    HookNode,
    IntegratedApiNode,
    PersonJobNode,
    StartNode,
    SubDiagramNode,
    TemplateJobNode,
    provider_tool,
)
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.request_options import beyond_wording

Kind = Literal["code", "process", "read", "write", "net", "service", "model", "diagram", "function", "event", "brings"]
"""The kind of a use. `brings` is a file that comes with the diagram: it is part of what was shown and needs no grant."""

ANY = "*"
"""Any server."""
ANYWHERE = "**"
"""Any file below the base directory."""
DEFAULT_MODEL_USE = "the default model"
"""The model of a person that names none."""
STREAM_OPERATIONS = ("start_stream", "append_stream", "stop_stream")
"""Operations of a provider to which answers can be streamed."""
ANY_DIAGRAM = "a diagram that is chosen or made while it runs"


@dataclass(frozen=True, slots=True)
class Use:
    """One thing that a run may do."""

    kind: Kind
    what: str
    """A path or pattern below the base directory, an origin (`https://host:443`), `service:model`, the code's first line …"""
    node: str = ""
    """Label of the node."""
    detail: str = ""
    """The whole of it: the code, the arguments and variables of a command."""
    of_model: bool = False
    """It comes with a person's model, so it is none when the user chooses another model for the run."""

    @property
    def line(self) -> str:
        """The use in words."""
        match self.kind:
            case "net":
                return "any server" if self.what == ANY else self.what
            case "read" | "write":
                return "any file below the base directory" if self.what == ANYWHERE else self.what
            case _:
                return self.what


_TITLES: dict[Kind, str] = {
    "code": "runs code", "process": "runs programs", "write": "writes", "read": "reads", "net": "calls",
    "service": "uses", "function": "calls functions", "diagram": "runs diagrams", "event": "waits for",
    "model": "asks models", "brings": "brings",
}  # fmt: skip
"""Kinds in the order of a listing; what can do most comes first."""


class Capabilities(frozenset[Use]):
    """Uses, as a set: what a diagram wants, or what it was granted."""

    def of(self, *kinds: Kind) -> list[Use]:
        """The uses of these kinds, in a stable order."""
        return sorted((u for u in self if u.kind in kinds), key=lambda u: (u.node, u.what, u.detail))

    def covers(self, kind: Kind, what: str) -> bool:
        """Whether something that is about to happen is among them.

        Args:
            what: an exact path, origin or name.
        """
        if kind in ("read", "write"):
            return any(u.kind == kind and path_fits(what, u.what) for u in self)
        if kind == "net":
            return any(u.kind == kind and (u.what in (ANY, what) or _host_fits(what, u.what)) for u in self)
        if kind == "service" and any(u.kind == kind and u.what.endswith(".*") and what.startswith(u.what[:-1]) for u in self):
            return True
        return any(u.kind == kind and u.what in (ANY, what) for u in self)

    def includes(self, use: Use) -> bool:
        """Whether another set's use, of whatever node, is one of these: the same, or all that it may be."""
        if any((u.kind, u.what, u.detail) == (use.kind, use.what, use.detail) for u in self):
            return True
        if use.kind in ("code", "process"):
            return any(u.kind == use.kind and u.what == ANY for u in self)
        if use.kind in ("read", "write"):
            return any(u.kind == use.kind and _pattern_fits(use.what, u.what) for u in self)
        return self.covers(use.kind, use.what)

    def listing(self) -> list[str]:
        """The lines that a person reads before saying yes; what a screen does not show is written out."""
        lines: list[str] = []
        for kind, title in _TITLES.items():
            for number, use in enumerate(self.of(kind)):
                place = f"'{use.node}'  " if use.node else ""
                lines.append(shown(f"  {title if not number else '':<16}{place}{use.line}"))
                lines += [shown(f"      {line}") for line in use.detail.splitlines()]
        return lines

    def report(self) -> list[dict[str, str]]:
        """The uses as JSON values."""
        order = list(_TITLES)
        return [
            {"kind": u.kind, "what": u.what, "node": u.node, **({"detail": u.detail} if u.detail else {})}
            for u in sorted(self, key=lambda u: (order.index(u.kind), u.node, u.what, u.detail))
        ]


def shown(text: str) -> str:
    """A line with everything written out that a screen would not show, or would act on."""
    return printable(text.expandtabs(4))


# Patterns.


def as_pattern(template: str) -> str:
    """A path with `*` in place of what templates and single braces fill in."""
    parts: list[str] = []
    place = 0
    while (begin := template.find("{", place)) >= 0:
        parts += [template[place:begin]] if begin > place else []
        end = template.find("}", begin)
        if end < 0:  # no tag; the rest may hold none either
            place = begin
            break
        while end + 1 < len(template) and template[end + 1] == "}":
            end += 1
        if not parts or not parts[-1].endswith("*"):  # two in a row are one: `**` would be any number of folders
            parts.append("*")
        place = end + 1
    parts.append(template[place:])
    text = "".join(parts).strip()
    return ANYWHERE if text.strip("*/. ") == "" and "*" in text else text


def path_fits(path: str, pattern: str) -> bool:
    """Whether a path is one that a pattern means: `*` stays within a component, `**` is any number of folders, or all below at the end."""
    have, parts = posixpath.normpath(path).split("/"), posixpath.normpath(pattern).split("/")
    if pattern == ANYWHERE or any(have.count(up) != parts.count(up) for up in ("", "..")):  # no star means these
        return pattern == ANYWHERE
    want = [part for at, part in enumerate(parts) if part != ANYWHERE or parts[at - 1 : at] != [ANYWHERE]]
    want += ["*"] if want[-1] == ANYWHERE else []
    reached = {0}
    for name in have:
        reached |= {at + 1 for at in reached if want[at : at + 1] == [ANYWHERE]}  # which may be no folder at all
        stay = {at for at in reached if want[at : at + 1] == [ANYWHERE]}
        reached = stay | {at + 1 for at in reached - stay - {len(want)} if fnmatchcase(name, want[at].replace("[", "[[]"))}
    return len(want) in reached


def _pattern_fits(inner: str, outer: str) -> bool:
    return outer == ANYWHERE or (ANYWHERE not in inner and path_fits(inner, outer))


def origin(url: str) -> str:
    """Scheme, host and port of an address (`origin_of`); `*` when it names none that is certain."""
    text = url.strip()
    if "\\" in text or any(c.isspace() or not c.isprintable() for c in text):
        return ANY
    try:
        return origin_of(text)
    except ValueError:
        return ANY


def origin_of_template(template: str) -> str:
    """As `origin`, of an address that is filled in during the run: certain only when its host is written out and over."""
    text = template.strip()
    begin = text.find("{")
    if begin < 0:
        return origin(text)
    fixed = text[:begin]
    head, slashes, rest = fixed.partition("://")
    end = re.search(r"[/?#]", rest)
    if not slashes or end is None:
        return ANY
    return origin(f"{head}://{rest[: end.start()]}/")


def _host_fits(what: str, wanted: str) -> bool:
    """`--allow net=api.x.org` is that host by HTTPS."""
    return "://" not in wanted and what == origin(f"https://{wanted}/")


# Uses of a node.


def uses_of(node: PlanNode, plan: Plan) -> Iterator[Use]:
    """The declared uses of a node; files that it names are not looked at.

    What a field makes the node do is declared by its `effect` (see `domain.nodes.spec`), and what that means for its value by `_BY_FIELD`,
    where it is not a path or address by itself. `_BY_TYPE` has what no single field declares.
    """
    if node.type not in set(NodeType):
        yield Use("function", f"the node type '{node.type}'", node.label, "with values that the diagram chooses")
        return
    spec = node.spec
    for f in fields(spec):
        effects = effects_of(f)
        if not effects:
            continue
        if (special := _BY_FIELD.get((node.type, f.name))) is not None:
            yield from special(node, plan)
            continue
        value = getattr(spec, f.name)
        for effect in effects if value else ():
            if effect in ("read", "write"):
                yield from (Use(cast(Kind, effect), as_pattern(str(v)), node.label) for v in _listed(value))
    for rule in _BY_TYPE.get(node.type, ()):
        yield from rule(node, plan)


def effects_of(f: Field[Any]) -> tuple[str, ...]:
    """The effects of a field on its node: `read`, `write`, `net`, `code`, `process`, `diagram`, `brings`."""
    return tuple(str(f.metadata.get("effect", "")).split())


def _listed(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else [value]


def _of_start(node: PlanNode, plan: Plan) -> Iterator[Use]:
    spec = cast(StartNode, node.spec)
    if spec.trigger_mode is HookTriggerMode.HOOK:
        yield Use("event", str(spec.hook_event or ""), node.label)


def _of_endpoint(node: PlanNode, plan: Plan) -> Iterator[Use]:
    spec = cast(EndpointNode, node.spec)
    if spec.save_to_file:
        yield Use("write", as_pattern(spec.file_name or f"output_{node.id}.json"), node.label)


def _of_person(node: PlanNode, plan: Plan) -> Iterator[Use]:
    label, reference = node.label, cast(PersonJobNode | ConditionNode, node.spec).person
    if reference is None:
        return
    people = plan.persons
    person = people.get(reference) or next((p for p in people.values() if reference in (p.label, f"person_{p.label}")), None)
    if person is None:
        return
    llm = person.llm
    model = DEFAULT_MODEL_USE if llm.follows_default else f"{llm.service or DEFAULT_MODEL_SERVICE}:{llm.model or 'default'}"
    if llm.service == "claude-code":
        yield Use("process", "Claude Code", label, of_model=True)
    if llm.service == "local" and llm.model and ("/" in llm.model or "\\" in llm.model or llm.model.endswith(".gguf")):
        yield Use("read", llm.model, label, "as a model", of_model=True)
    if llm.base_url:
        yield Use("net", origin(llm.base_url), label, "as a model's server", of_model=True)
    for path, value in beyond_wording(llm.passthrough):
        yield Use("service", model_field(llm.service, path), label, value, of_model=True)
    if llm.api_key_id:
        yield Use("model", model, label, f"with the key {llm.api_key_id}", of_model=True)
    else:
        yield Use("model", model, label, of_model=True)


def _of_decision(node: PlanNode, plan: Plan) -> Iterator[Use]:
    if cast(ConditionNode, node.spec).condition_type == "llm_decision":
        yield from _of_person(node, plan)


def model_field(service: str, path: str) -> str:
    """A field of a model's request that does more than shape the words of an answer, as it appears in a listing."""
    return f"{service}.{path}"


def _of_tools(node: PlanNode, plan: Plan) -> Iterator[Use]:
    label, tools = node.label, cast(PersonJobNode, node.spec).tools
    for tool in _listed(tools) if tools else ():
        if (operation := provider_tool(tool)) is not None:
            yield Use("service", operation, label, "whenever the model calls it")
            continue
        given = cast(Mapping[str, Any], tool) if isinstance(tool, Mapping) else {"type": str(tool)}
        kind = str(given.get("type", "none"))
        if kind == "none" or given.get("enabled") is False:
            continue
        if kind in ("image", "image_generation"):
            yield Use("service", "images (paid)", label)
        elif "web" in kind:
            yield Use("service", "web search", label, "any page, through the provider")
        else:
            yield Use("function", f"the tool '{given.get('name') or kind}'", label, _one_line(given))


def _of_stream(node: PlanNode, plan: Plan) -> Iterator[Use]:
    target = cast(PersonJobNode, node.spec).stream_to
    for operation in STREAM_OPERATIONS if target else ():
        yield Use(
            "service", f"{target.get('provider')}.{operation}", node.label, f"with the answer, to {_one_line(dict(target))}"
        )


def _of_code(node: PlanNode, plan: Plan) -> Iterator[Use]:
    spec = cast(CodeJobNode, node.spec)
    if spec.code:
        text = spec.code + (f"\n(file_path: {spec.file_path})" if spec.file_path else "")
        count = len(text.splitlines())
        yield Use(
            "code", f"{spec.language}, {count} line{'' if count == 1 else 's'}", node.label, _in_language(spec.language, text)
        )


def _of_code_file(node: PlanNode, plan: Plan) -> Iterator[Use]:
    spec = cast(CodeJobNode, node.spec)
    if spec.file_path and not spec.code:
        text = f"the file {spec.file_path}, function {spec.function_name}"
        yield Use("code", f"{spec.language}: {spec.file_path}", node.label, _in_language(spec.language, text))


def _in_language(language: SupportedLanguage, text: str) -> str:
    return text if language is SupportedLanguage.PYTHON else f"[{language}]\n{text}"


def _of_url(node: PlanNode, plan: Plan) -> Iterator[Use]:
    arrives = any((plan.edges[e].label or "").strip() == "url" for e in node.incoming)
    yield Use("net", ANY if arrives else origin_of_template(cast(ApiJobNode, node.spec).url), node.label)


def _of_db(node: PlanNode, plan: Plan) -> Iterator[Use]:
    spec = cast(DbNode, node.spec)
    if spec.operation is DBOperation.PROMPT:
        return
    for given in _listed(spec.file or ""):
        name = str(given).strip()
        if not name:
            continue
        names = [as_pattern(name)]
        if "." not in posixpath.basename(name):  # a bare name is that of a file in `dbs`
            names += [f"{names[0]}.*", f"dbs/{names[0]}.*"] if names[0] != ANYWHERE else []
        kinds: list[Kind] = ["read"] if spec.operation is DBOperation.READ else ["write"]
        if spec.operation in (DBOperation.APPEND, DBOperation.UPDATE):
            kinds = ["read", "write"]
        yield from (Use(kind, pattern, node.label) for kind in kinds for pattern in names)


def _of_command(node: PlanNode, plan: Plan) -> Iterator[Use]:
    if not _config_decides(cast(HookNode, node.spec)):
        yield from _of_hook(node)


def _of_config(node: PlanNode, plan: Plan) -> Iterator[Use]:
    if _config_decides(cast(HookNode, node.spec)):
        yield from _of_hook(node)


def _config_decides(spec: HookNode) -> bool:
    """Whether the program, script or file of a hook is named in its config, and not by `command`."""
    name = {HookType.PYTHON: "script", HookType.FILE: "file_path"}.get(spec.hook_type)
    return not spec.command if name is None else bool(spec.config.get(name)) or not spec.command


def _of_hook(node: PlanNode) -> Iterator[Use]:
    """The program or script that it runs, or the file that it writes."""
    spec = cast(HookNode, node.spec)
    config = spec.config
    match spec.hook_type:
        case HookType.SHELL:
            command = spec.command or config.get("command") or ""
            args = _listed(config["args"]) if config.get("args") else []
            words = [str(command), *map(str, args)]
            detail: dict[str, Any] = {"command": words if args else str(command)}
            detail |= {name: config[name] for name in ("cwd", "env") if config.get(name)}
            yield Use("process", " ".join(words)[:60].splitlines()[0] if "".join(words) else "", node.label, _one_line(detail))
            if config.get("cwd"):
                yield Use("read", as_pattern(str(config["cwd"])), node.label)
        case HookType.PYTHON:
            script = str(config.get("script") or spec.command or "")
            yield Use("code", f"python: {script}", node.label, f"function {config.get('function') or 'hook'}")
        case HookType.HTTP:
            pass  # its url determines it
        case _:
            yield Use("write", as_pattern(str(config.get("file_path") or spec.command or "")), node.label)


def _of_web_hook(node: PlanNode, plan: Plan) -> Iterator[Use]:
    spec = cast(HookNode, node.spec)
    if spec.hook_type is not HookType.HTTP:
        return
    if wanted := spec.config.get("subscribe_to"):
        yield Use("event", _one_line(wanted), node.label)
    else:
        yield Use("net", origin_of_template(str(spec.url or spec.config.get("url") or "")), node.label)


def _of_preprocessor(node: PlanNode, plan: Plan) -> Iterator[Use]:
    if given := cast(TemplateJobNode, node.spec).preprocessor:
        yield Use("code", "a Python function", node.label, _one_line(given))


def _of_sub_diagram(node: PlanNode, plan: Plan) -> Iterator[Use]:
    spec = cast(SubDiagramNode, node.spec)
    name = (spec.diagram_name or "").strip()
    if not spec.diagram_data and "{" in name:
        yield Use("diagram", ANY_DIAGRAM, node.label, name)


def _of_operation(node: PlanNode, plan: Plan) -> Iterator[Use]:
    spec = cast(IntegratedApiNode, node.spec)
    key = f"with the key {spec.api_key_id}" if spec.api_key_id else ""
    yield Use("service", f"{spec.provider}.{spec.operation}", node.label, key)


def _of_backup(node: PlanNode, plan: Plan) -> Iterator[Use]:
    spec = cast(DiffPatchNode, node.spec)
    if spec.backup and spec.target_path:
        folder = spec.backup_dir or posixpath.dirname(spec.target_path)
        name = posixpath.join(folder, f"{posixpath.basename(spec.target_path)}.backup.*")
        yield Use("write", as_pattern(name), node.label)


_Rule = Callable[[PlanNode, Plan], Iterator[Use]]
_BY_FIELD: dict[tuple[str, str], _Rule] = {
    ("endpoint", "file_name"): _of_endpoint,
    ("code_job", "code"): _of_code,
    ("code_job", "file_path"): _of_code_file,
    ("api_job", "url"): _of_url,
    ("db", "file"): _of_db,
    ("hook", "url"): _of_web_hook,
    ("hook", "command"): _of_command,
    ("hook", "config"): _of_config,
    ("template_job", "preprocessor"): _of_preprocessor,
    ("sub_diagram", "diagram_name"): _of_sub_diagram,
    ("diff_patch", "backup_dir"): _of_backup,
}
"""(node type, field with an `effect`) → the uses of it and of the fields that go with it."""
_BY_TYPE: dict[str, tuple[_Rule, ...]] = {
    "start": (_of_start,),
    "person_job": (_of_person, _of_tools, _of_stream),
    "condition": (_of_decision,),
    "integrated_api": (_of_operation,),
}
"""Node type → the uses that no field with an `effect` declares."""


def _one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)


def granted_by(allowed: Mapping[str, Any] | Iterable[str]) -> Capabilities:
    """The uses that a user allows by name: `{"read": ["data/*.csv"], "net": "api.x.org", "code": True}`, or as texts
    `read=data/*.csv`, `code`.

    Raises:
        ValueError: a kind that there is not.
    """
    found: set[Use] = set()
    pairs: list[tuple[str, Any]]
    if isinstance(allowed, Mapping):
        items = cast(Mapping[str, Any], allowed).items()
        pairs = [(str(kind), value) for kind, given in items for value in _listed(given)]
    else:
        pairs = [
            (kind.strip(), value.strip() if equals else True)
            for text in allowed
            for kind, equals, value in [text.partition("=")]
        ]
    for kind, value in pairs:
        if kind not in _TITLES or kind == "brings":
            raise ValueError(kind)
        if value is False or value is None:
            continue
        whole = value is True or value == ""
        if kind in ("read", "write"):
            text = ANYWHERE if whole else f"{value}**" if str(value).endswith("/") else str(value)
        elif kind == "net":
            text = ANY if whole else origin(str(value)) if "://" in str(value) else str(value)
        else:
            text = ANY if whole else str(value)
        found.add(Use(cast(Kind, kind), text))
    return Capabilities(found)
