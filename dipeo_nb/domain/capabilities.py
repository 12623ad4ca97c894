"""What a diagram may do when it runs: single uses, sets of them, and the uses that a node's fields say it has.

A use is known before a run. Names that are made while it goes on stand in it as patterns: `data/{{x}}.csv` is `data/*.csv`, and
an address whose host is not written out is any server.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

from dipeo_nb.common.addresses import origin_of
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
    JsonSchemaValidatorNode,
    NodeSpec,
    PersonJobNode,
    StartNode,
    SubDiagramNode,
    TemplateJobNode,
    TypescriptAstNode,
)
from dipeo_nb.domain.plan import Plan, PlanNode
from dipeo_nb.domain.request_options import beyond_wording

Kind = Literal["code", "process", "read", "write", "net", "service", "model", "diagram", "function", "event", "brings"]
"""What a use is of. `brings` is a file that comes with the diagram: it is part of what was shown and needs no grant."""

ANY = "*"
"""Any server."""
ANYWHERE = "**"
"""Any file below the base directory."""
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
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.expandtabs(4))


# Patterns.


def as_pattern(template: str) -> str:
    """A path with `*` in place of what templates and single braces fill in."""
    parts: list[str] = []
    place = 0
    while (begin := template.find("{", place)) >= 0:
        parts.append(template[place:begin])
        end = template.find("}", begin)
        if end < 0:  # no tag; the rest may hold none either
            place = begin
            break
        while end + 1 < len(template) and template[end + 1] == "}":
            end += 1
        parts.append("*")
        place = end + 1
    parts.append(template[place:])
    text = "".join(parts).strip()
    return ANYWHERE if text.strip("*/. ") == "" and "*" in text else text


def path_fits(path: str, pattern: str) -> bool:
    """Whether a path is one that a pattern means; `*` stays within a component, `**` does not."""
    if pattern == ANYWHERE:
        return True
    have, want = posixpath.normpath(path).split("/"), posixpath.normpath(pattern).split("/")
    if want[-1] == ANYWHERE:
        want = want[:-1]
        have = have[: len(want)] if len(have) > len(want) else []
    return len(have) == len(want) and all(fnmatchcase(h, w.replace("[", "[[]")) for h, w in zip(have, want, strict=True))


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
    """As `origin`, of an address that is filled in while the run goes on: certain only when its host is written out and over."""
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
    """What a node says it may do; files that it names are not looked at."""
    spec = node.spec
    if node.type not in set(NodeType):
        yield Use("function", f"the node type '{node.type}'", node.label, "with values that the diagram chooses")
        return
    by_field = _by_field(node, spec)
    match spec:
        case StartNode() if spec.trigger_mode is HookTriggerMode.HOOK:
            yield Use("event", str(spec.hook_event or ""), node.label)
        case EndpointNode():
            if spec.save_to_file:
                name = spec.file_name or f"output_{node.id}.json"
                yield Use("write", as_pattern(name), node.label)
        case PersonJobNode():
            yield from by_field
            yield from _of_person(plan, spec.person, node.label)
            yield from _of_tools(spec.tools, node.label)
        case ConditionNode():
            if spec.condition_type == "llm_decision":
                yield from by_field
                yield from _of_person(plan, spec.person, node.label)
        case CodeJobNode():
            yield from _of_code(node, spec)
        case ApiJobNode():
            arrives = any((plan.edges[e].label or "").strip() == "url" for e in node.incoming)
            yield Use("net", ANY if arrives else origin_of_template(spec.url), node.label)
        case DbNode():
            yield from _of_db(node, spec)
        case HookNode():
            yield from _of_hook(node, spec)
        case TemplateJobNode():
            yield from by_field
            if spec.preprocessor:
                yield Use("code", "a Python function", node.label, _one_line(spec.preprocessor))
        case SubDiagramNode():
            name = (spec.diagram_name or "").strip()
            if not spec.diagram_data and "{" in name:
                yield Use("diagram", ANY_DIAGRAM, node.label, name)
        case IntegratedApiNode():
            key = f"with the key {spec.api_key_id}" if spec.api_key_id else ""
            yield Use("service", f"{spec.provider}.{spec.operation}", node.label, key)
        case DiffPatchNode():
            yield from by_field
            if spec.backup and spec.target_path:
                folder = spec.backup_dir or posixpath.dirname(spec.target_path)
                name = posixpath.join(folder, f"{posixpath.basename(spec.target_path)}.backup.*")
                yield Use("write", as_pattern(name), node.label)
        case JsonSchemaValidatorNode() | TypescriptAstNode():
            yield from by_field
        case _:
            yield from by_field


def _by_field(node: PlanNode, spec: NodeSpec) -> list[Use]:
    """The uses that the fields' `effect` names: paths that are read, written or both."""
    found: list[Use] = []
    for f in fields(spec):
        value = getattr(spec, f.name)
        for effect in str(f.metadata.get("effect", "")).split():
            if effect in ("read", "write") and value:
                found += [Use(cast(Kind, effect), as_pattern(str(v)), node.label) for v in _listed(value)]
    return found


def _listed(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else [value]


def _of_person(plan: Plan, reference: str | None, label: str) -> Iterator[Use]:
    if reference is None:
        return
    people = plan.persons
    person = people.get(reference) or next(
        (p for p in people.values() if reference in (p.label, f"person_{p.label}")), None
    )
    if person is None:
        return
    llm = person.llm
    if llm.service == "claude-code":
        yield Use("process", "Claude Code", label, of_model=True)
    if llm.service == "local" and llm.model and ("/" in llm.model or "\\" in llm.model or llm.model.endswith(".gguf")):
        yield Use("read", llm.model, label, "as a model", of_model=True)
    if llm.base_url:
        yield Use("net", origin(llm.base_url), label, "as a model's server", of_model=True)
    for path, value in beyond_wording(llm.passthrough):
        yield Use("service", model_field(llm.service, path), label, value, of_model=True)
    if llm.api_key_id:
        yield Use("model", f"{llm.service}:{llm.model or 'default'}", label, f"with the key {llm.api_key_id}", of_model=True)
    else:
        yield Use("model", f"{llm.service}:{llm.model or 'default'}", label, of_model=True)


def model_field(service: str, path: str) -> str:
    """A field of a model's request that does more than shape the words of an answer, as it stands in a listing."""
    return f"{service}.{path}"


def _of_tools(tools: Any, label: str) -> Iterator[Use]:
    for tool in _listed(tools) if tools else ():
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


def _of_code(node: PlanNode, spec: CodeJobNode) -> Iterator[Use]:
    text = spec.code or f"the file {spec.file_path}, function {spec.function_name}"
    if spec.code and spec.file_path:
        text += f"\n(file_path: {spec.file_path})"
    what = f"{spec.language}, {len(text.splitlines())} lines" if spec.code else f"{spec.language}: {spec.file_path}"
    yield Use("code", what, node.label, f"{text}" if spec.language is SupportedLanguage.PYTHON else f"[{spec.language}]\n{text}")


def _of_db(node: PlanNode, spec: DbNode) -> Iterator[Use]:
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


def _of_hook(node: PlanNode, spec: HookNode) -> Iterator[Use]:
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
        case HookType.HTTP:
            wanted = config.get("subscribe_to")
            if wanted:
                yield Use("event", _one_line(wanted), node.label)
            else:
                yield Use("net", origin_of_template(str(spec.url or config.get("url") or "")), node.label)
        case HookType.PYTHON:
            script = str(config.get("script") or spec.command or "")
            yield Use("code", f"python: {script}", node.label, f"function {config.get('function') or 'hook'}")
        case _:
            yield Use("write", as_pattern(str(config.get("file_path") or spec.command or "")), node.label)


def _one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)


def granted_by(allowed: Mapping[str, Any] | Iterable[str]) -> Capabilities:
    """The uses that somebody allows by name: `{"read": ["data/*.csv"], "net": "api.x.org", "code": True}`, or as texts
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
        pairs = [(kind.strip(), value.strip() if equals else True) for text in allowed for kind, equals, value in [text.partition("=")]]
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
