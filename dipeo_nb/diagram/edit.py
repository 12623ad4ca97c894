"""Changing one value of a diagram's text while everything else, comments included, stays as it is.

An edit is tried three ways, and each result is read back and compared with the intended value:
replacing just the characters of the value; through ruamel.yaml, which keeps comments and order but may rewrap lines;
writing the document afresh.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dipeo_nb.common.text import did_you_mean, shorten
from dipeo_nb.diagram import connections, formats, node_fields, person_fields
from dipeo_nb.diagram.formats.yaml_text import dump, dump_flow
from dipeo_nb.diagram.parsed import ParsedDiagram
from dipeo_nb.diagram.source import parse
from dipeo_nb.diagram.source_map import SourceMap
from dipeo_nb.diagram.spans import DocumentPath, SourceSpan
from dipeo_nb.diagram.vocabulary import vocabulary
from dipeo_nb.domain.diagram import DomainArrow, DomainDiagram, DomainNode, DomainPerson
from dipeo_nb.domain.nodes import NODE_SPECS
from dipeo_nb.errors import DiagramFormatError, ValidationError

_T = TypeVar("_T", DomainNode, DomainPerson, DomainArrow)

SECTIONS = ("nodes", "persons", "arrows", "connections", "name", "description")
ARROW_FIELDS = {
    "light": ("label", "content_type", "execution_priority", "data", "from", "to"),
    "native": ("label", "content_type", "execution_priority", "data", "source", "target"),
    "readable": ("label", "content_type", "execution_priority", "data"),
    "executable": ("label", "content_type", "execution_priority", "data"),
}
WIRE = ("native", "executable")
"""Formats whose nodes keep their properties in `data` and name persons by id."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a document."""

    path: DocumentPath
    value: Any
    """The new value; None removes the key."""
    rename: str | None = None
    """The new name of the key at *path*, whose value stays."""


def set_value(diagram: ParsedDiagram, path: str, value: Any) -> str:
    """The text of *diagram* with the value at *path* changed; paths as for `Diagram.set`.

    Raises:
        ValidationError: there is nothing at that path, or the field does not exist.
    """
    if not isinstance(path, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValidationError(f"{path!r:.80} is not a path into a diagram.", hint="Write e.g. 'nodes.Judge.default_prompt'.")
    section, _, rest = path.partition(".")
    if section in ("name", "description") and not rest:
        return _apply(diagram, [Edit(_metadata_path(diagram, section), value)])
    if section == "nodes":
        node, field = _split(rest, diagram.nodes, path)
        return _edited_node(diagram, node, field, value)
    if section == "persons":
        one, field = _split(rest, diagram.persons, path)
        return _edited_person(diagram, one, field, value)
    if section in ("arrows", "connections"):
        arrow, field = _split(rest, diagram.arrows, path)
        return _edited_arrow(diagram, arrow, field, value)
    raise ValidationError(
        f"'{shorten(path)}' is not a path into a diagram.",
        hint=did_you_mean(section, SECTIONS, "Write e.g. 'nodes.Judge.default_prompt' or 'persons.Judge.model'."),
    )


def person_of(diagram: ParsedDiagram, path: str) -> tuple[DomainPerson, str] | None:
    """The person that a path of `Diagram.set` is about, and the field of it; None when it is about something else.

    Raises:
        ValidationError: there is no such person.
    """
    section, _, rest = path.partition(".")
    return _split(rest, diagram.persons, path) if section == "persons" and rest else None


def _split(rest: str, things: Sequence[_T], path: str) -> tuple[_T, str]:
    """`Judge Panel.default_prompt` → (that one, `default_prompt`); names may hold dots, the longest one fits."""
    labels = [label for thing in things if (label := getattr(thing, "label", None)) and not isinstance(thing, DomainArrow)]
    table: dict[str, list[_T]] = {}
    for thing in things:
        for name in {thing.id} if isinstance(thing, DomainArrow) else {thing.id, thing.label}:
            table.setdefault(name, []).append(thing)
    cut = rest.rfind(".")
    what = path.partition(".")[0]
    while cut > 0:
        found = table.get(rest[:cut], [])
        if len(found) == 1:
            return found[0], rest[cut + 1 :]
        if found:
            ids = ", ".join(f"'{shorten(thing.id, 30)}'" for thing in found[:10])
            raise ValidationError(
                f"'{shorten(rest[:cut])}' may mean {len(found)} of the {what}: those with the ids {ids}.",
                hint="Name one by an id or a label that no other has.",
            )
        cut = rest.rfind(".", 0, cut)
    name = rest.rpartition(".")[0] or rest
    known = ", ".join(f"'{shorten(t, 30)}'" for t in (labels or list(table))[:10]) or "none"
    if rest in table:
        raise ValidationError(f"'{shorten(path)}' names no field.", hint=f"Write '{shorten(path)}.<field>'.")
    raise ValidationError(
        f"There is no '{shorten(name)}' among the {what}.", hint=did_you_mean(name, labels or table, f"There are: {known}.")
    )


# ------------------------------------------------------------------------------------------------ what changes


def _metadata_path(diagram: ParsedDiagram, key: str) -> DocumentPath:
    inside = diagram.format in WIRE or diagram.source.span("metadata", key) is not None
    return ("metadata", key) if inside and not diagram.source.span(key) else (key,)


def _edited_node(diagram: ParsedDiagram, node: DomainNode, field: str, value: Any) -> str:
    if field == "label":
        return _relabelled_node(diagram, node, value)
    cls = NODE_SPECS.get(node.type)
    top = field.partition(".")[0]
    base = diagram.source.nodes[node.id]
    canonical = top
    if cls and top not in ("type", "position", "id"):
        words = vocabulary(cls)
        canonical = words.aliases.get(top, top)
        if canonical not in words.known and canonical not in node.data:
            raise ValidationError(
                f"A {node.type} has no property '{shorten(top)}'.",
                hint=did_you_mean(top, words.words, f"It takes {', '.join(sorted(words.known))}."),
            )
    inside = ("data",) if diagram.format in WIRE and top not in ("type", "position", "id") else ()
    if diagram.format == "readable" and top == "position":
        place = node_fields.position(value, formats.silent_reading(), (), node.label)
        return _rewritten(diagram, nodes={node.id: replace(node, position=place)})
    written = cls.META.write_aliases.get(canonical, canonical) if cls and diagram.format == "light" else canonical
    deeper = field[len(top) :]
    return _apply(diagram, [Edit(_field_path(diagram.source, base, canonical, written, deeper, inside), value)])


def _field_path(
    source: SourceMap, base: DocumentPath, field: str, written: str, deeper: str, inside: DocumentPath
) -> DocumentPath:
    """Path of a field, or of where it will be added: in the spelling the text has, dotted keys included."""
    if deeper:
        for inner in ((), ("props",), ("data",)):
            if source.span(*base, *inner, field + deeper):
                return (*base, *inner, field + deeper)
    found = source.field_path(base, field)
    if found is None:
        return (*base, *inside, written, *deeper.split(".")[1:])
    if "." in str(found[-1]):  # other parts of the field are written with dots
        return (*found[:-1], field + deeper)
    return (*found, *deeper.split(".")[1:])


def _relabelled_node(diagram: ParsedDiagram, node: DomainNode, value: Any) -> str:
    """A new label, also in the connections and conditions that use it."""
    label = _new_label(value, (name for n in diagram.nodes if n is not node for name in (n.label, n.id)))
    if diagram.format == "readable":
        return _rewritten(diagram, nodes={node.id: replace(node, label=label)})
    base = diagram.source.nodes[node.id]
    inside = ("data",) if diagram.format in WIRE else ()
    edits = [Edit(diagram.source.field_path(base, "label") or (*base, *inside, "label"), label)]
    if diagram.format == "light":
        nodes = [replace(n, label=label) if n is node else n for n in diagram.nodes]
        references = connections.References(nodes)
        for arrow in diagram.arrows:
            for end, handle, key in (
                (arrow.source, arrow.source_handle, "from"),
                (arrow.target, arrow.target_handle, "to"),
            ):
                if end == node.id:
                    path = (*diagram.source.arrows[arrow.id], key)
                    strict = (diagram.source.written(*path) or "").endswith("__first")
                    text = f"{label}__first" if strict else references.text(references.by_id[end], handle)
                    edits.append(Edit(path, text))
    for other in diagram.nodes:
        indices = other.data.get("node_indices")
        if isinstance(indices, list) and node.label in indices:
            path = diagram.source.field_path(diagram.source.nodes[other.id], "node_indices")
            if path:
                edits.append(Edit(path, [label if i == node.label else i for i in indices]))
    return _apply(diagram, edits)


def _new_label(value: Any, others: Any) -> str:
    label = value.strip() if isinstance(value, str) else ""
    if not label:
        raise ValidationError("A label is text that is not empty.", hint="Provide a text.")
    if label in set(others):
        raise ValidationError(f"'{shorten(label)}' is already the label or id of another one.", hint="Use another label.")
    return label


def _edited_person(diagram: ParsedDiagram, person: DomainPerson, field: str, value: Any) -> str:
    base = diagram.source.persons[person.id]
    if field == "label":
        label = _new_label(value, (name for p in diagram.persons if p is not person for name in (p.label, p.id)))
        path = diagram.source.field_path(base, "label")
        edits = [Edit(path, label)] if path else [Edit(base, None, rename=label)]
        if diagram.format not in WIRE:
            for node in diagram.nodes:
                if node.data.get("person") == person.id:
                    node_path = diagram.source.field_path(diagram.source.nodes[node.id], "person")
                    if node_path:
                        edits.append(Edit(node_path, label))
        return _apply(diagram, edits)
    words = (*person_fields.PERSON_TEXTS, *person_fields.PERSON_NUMBERS, *person_fields.PERSON_OPTIONS, "service")
    if field not in words and field not in person.llm.extra:
        raise ValidationError(
            f"A person has no property '{shorten(field)}'.",
            hint=did_you_mean(field, words, f"It takes {', '.join(words)}."),
        )
    nested = ("llm_config",) if diagram.source.span(*base, "llm_config") else ()
    return _apply(diagram, [Edit(diagram.source.field_path(base, field) or (*base, *nested, field), value)])


def _edited_arrow(diagram: ParsedDiagram, arrow: DomainArrow, field: str, value: Any) -> str:
    top = field.partition(".")[0]
    words = ARROW_FIELDS[diagram.format]
    if top not in words:
        raise ValidationError(
            f"An arrow has no field '{shorten(top)}'.", hint=did_you_mean(top, words, f"It takes {', '.join(words)}.")
        )
    if diagram.format in ("readable", "executable"):
        if "." in field:
            data = _with_value({"data": dict(arrow.data)}, tuple(field.split(".")), value)["data"]
            changed = replace(arrow, data=data)
        else:
            empty = {"execution_priority": 0, "data": {}}.get(field)
            changed = replace(arrow, **{field: empty if value is None else value})
        return _rewritten(diagram, arrows={arrow.id: changed})
    base = diagram.source.arrows[arrow.id]
    if top == "content_type" and diagram.format == "light":
        # Without the key an arrow has raw_text, so "none" is written out.
        key = "type" if not diagram.source.span(*base, top) and diagram.source.span(*base, "type") else top
        return _apply(diagram, [Edit((*base, key), _NULL if value is None else value)])
    return _apply(diagram, [Edit((*base, *field.split(".")), value)])


class _Null:
    """Stands for a null that is to be written, where None removes."""


_NULL = _Null()


def _rewritten(
    diagram: ParsedDiagram, *, nodes: dict[str, DomainNode] | None = None, arrows: dict[str, DomainArrow] | None = None
) -> str:
    """The text, rewritten from the model: where names are parts of sentences (readable) or derived (executable), pieces cannot be replaced safely."""
    model: DomainDiagram = replace(
        diagram.model,
        nodes=tuple((nodes or {}).get(n.id, n) for n in diagram.nodes),
        arrows=tuple((arrows or {}).get(a.id, a) for a in diagram.arrows),
    )
    return formats.write(model, diagram.format)


# -------------------------------------------------------------------------------------------- how it is changed


def _apply(diagram: ParsedDiagram, edits: Sequence[Edit]) -> str:
    text = diagram.text
    document = parse(text, diagram.source.file)
    wanted = document.value
    for edit in edits:
        wanted = _renamed(wanted, edit) if edit.rename is not None else _with_value(wanted, edit.path, edit.value)

    if wanted == document.value:
        return text

    def says_it(candidate: str | None) -> bool:
        if candidate is None:
            return False
        try:
            return bool(parse(candidate, diagram.source.file).value == wanted)
        except DiagramFormatError:
            return False

    attempts: list[Callable[[], str | None]] = [lambda: _replaced(diagram.source, edits)]
    if not document.json:
        attempts.append(lambda: _through_ruamel(text, edits))
    for attempt in attempts:
        candidate = attempt()
        if says_it(candidate):
            assert candidate is not None
            return candidate
    return json.dumps(wanted, ensure_ascii=False, indent=2) + "\n" if document.json else dump(wanted)


def _with_value(document: Any, path: DocumentPath, value: Any) -> Any:
    """A copy of the document along *path* with the value changed; None removes, missing mappings are made."""
    head, *rest = path
    if isinstance(document, list):
        changed: Any = list(document)
        changed[head] = _with_value(changed[head], tuple(rest), value) if rest else value
        return changed
    changed = dict(document) if isinstance(document, dict) else {}
    if rest:
        changed[head] = _with_value(changed.get(head), tuple(rest), value)
    elif value is None:
        changed.pop(head, None)
    else:
        changed[head] = None if value is _NULL else value
    return changed


def _renamed(document: Any, edit: Edit) -> Any:
    parent: Any = document
    for step in edit.path[:-1]:
        parent = parent[step]
    old = edit.path[-1]
    made = {(edit.rename if key == old else key): value for key, value in parent.items()}
    return _with_value(document, edit.path[:-1], made)


def _replaced(source: SourceMap, edits: Sequence[Edit]) -> str | None:
    """The text with only the edited characters replaced; None where that is not possible."""
    pieces: list[tuple[int, int, str]] = []
    for edit in edits:
        piece = _piece(source, _to_what_is_there(source, edit))
        if piece is None:
            return None
        pieces.append(piece)
    text = source.text
    for start, end, new in sorted(pieces, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _to_what_is_there(source: SourceMap, edit: Edit) -> Edit:
    """The same edit at the deepest mapping that exists: `custom_data.topic` may have to bring `custom_data` along."""
    while len(edit.path) > 1 and edit.value is not None and source.span(*edit.path[:-1]) is None:
        edit = Edit(edit.path[:-1], {edit.path[-1]: edit.value})
    return edit


def _piece(source: SourceMap, edit: Edit) -> tuple[int, int, str] | None:
    *above, key = edit.path
    parent = source.span(*above)
    if parent is None or not isinstance(parent[1].items, dict) or not isinstance(key, str):
        return None
    text = source.text
    flow = source.json or any(
        (above_it := source.span(*edit.path[:n])) is not None and _opens_flow(text, above_it[1]) for n in range(len(edit.path))
    )
    pair = parent[1].items.get(key)
    if edit.rename is not None:
        return (pair[0].start, pair[0].end, _on_one_line(edit.rename, source.json)) if pair else None
    if pair is None:
        return None if edit.value is None else _inserted(source, parent[1], key, edit.value, flow)
    if edit.value is None:
        return None if flow else _removed(text, *pair)
    span = pair[1]
    value = None if edit.value is _NULL else edit.value
    if flow or (_opens_flow(text, span) and isinstance(value, (dict, list))):
        return span.start, span.end, _on_one_line(value, source.json)
    new = _block(value, pair[0].column - 1)
    if span.items is not None and not _opens_flow(text, span):
        return pair[0].end, _end(span), f":{'' if new.startswith(chr(10)) else ' '}{new}"
    if text[span.start : span.start + 1] in ("|", ">"):
        # Blank lines after a block belong to it; they stay.
        comment = _COMMENT.search(text[span.start : text.find("\n", span.start) + 1])
        return span.start, span.start + len(text[span.start : span.end].rstrip()), _with_comment(new, comment)
    if "\n" in new and new[:1] in ("|", ">") and (comment := _COMMENT.match(text, span.end)):
        return span.start, comment.end(), _with_comment(new, comment)
    return span.start, span.end, f" {new}" if span.start == span.end else new


def _with_comment(value: str, comment: re.Match[str] | None) -> str:
    """A value with a comment on its first line, as the text before it had: a block's comment comes after the key."""
    if comment is None or (value[:1] not in ("|", ">") and "\n" in value):
        return value
    head, line_break, body = value.partition("\n")
    return f"{head}{comment[0]}{line_break}{body}"


_COMMENT = re.compile(r"(?<![ \t])[ \t]++#[^\r\n]*+(?=\r?\n|\Z)")
"""A comment at the end of a line."""


def _opens_flow(text: str, span: SourceSpan) -> bool:
    return span.items is not None and text[span.start : span.start + 1] in ("{", "[")


def _end(span: SourceSpan) -> int:
    """Offset at which a value's text ends; the parser ends block collections only at what follows."""
    while span.items:
        span = span.items[-1] if isinstance(span.items, list) else list(span.items.values())[-1][1]
    return span.end


def _on_one_line(value: Any, is_json: bool) -> str:
    return json.dumps(value, ensure_ascii=False) if is_json else dump_flow(value)


def _block(value: Any, column: int) -> str:
    """A value after `key: ` in block style, further lines indented below *column*."""
    first, *rest = _one_pair(value).split("\n")
    indent = " " * column
    return "\n".join([first.removeprefix("k:").removeprefix(" "), *(indent + line if line else "" for line in rest)])


def _one_pair(value: Any) -> str:
    text = dump({"k": value}, width=10**9)
    keeps_end = text.startswith("k: |+")
    return text if keeps_end else text.removesuffix("\n")


def _inserted(source: SourceMap, parent: SourceSpan, key: str, value: Any, flow: bool) -> tuple[int, int, str] | None:
    text = source.text
    value = None if value is _NULL else value
    name = _on_one_line(key, source.json)
    if flow:
        at = parent.end - 1
        if text[at : at + 1] != "}" or not parent.items:
            return None
        before = len(text[:at].rstrip())
        lines = "\n" in text[parent.start : parent.end]
        last = list(parent.items.values())[-1][0] if isinstance(parent.items, dict) else parent
        joint = ",\n" + " " * (last.column - 1) if lines and source.json else ", "
        return before, before, f"{joint}{name}: {_on_one_line(value, source.json)}"
    # After the last line that holds one whole entry, so that the end is sure.
    assert isinstance(parent.items, dict)
    for known, span in reversed(list(parent.items.values())):
        if span.text is None or "\n" in text[span.start : span.end] or text[span.start : span.start + 1] in ("|", ">"):
            continue
        end = text.find("\n", span.end)
        end = len(text) if end < 0 else end - (text[end - 1] == "\r")
        break_ = "\r\n" if text[end : end + 1] == "\r" else "\n"
        column = known.column - 1
        body = _block(value, column).removesuffix("\n")
        return end, end, f"{break_}{' ' * column}{name}:{'' if body.startswith(chr(10)) else ' '}{body}"
    return None


def _removed(text: str, key: SourceSpan, value: SourceSpan) -> tuple[int, int, str] | None:
    """The lines of an entry; not the first entry of a list item, which shares its line with the dash."""
    line_start = text.rfind("\n", 0, key.start) + 1
    if text[line_start : key.start].strip() or value.text is None:
        return None
    block = text[value.start : value.start + 1] in ("|", ">")
    end = value.end if block else text.find("\n", value.end) + 1
    return (line_start, end, "") if end > 0 else (line_start, len(text), "")


def _through_ruamel(text: str, edits: Sequence[Edit]) -> str | None:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 10**6  # pyright: ignore[reportAttributeAccessIssue]
    dash = next((line for line in text.splitlines() if line.lstrip().startswith("- ")), "- ")
    offset = len(dash) - len(dash.lstrip())
    editor.indent(mapping=2, sequence=offset + 2, offset=offset)
    try:
        document = editor.load(text)
        for edit in edits:
            *above, key = edit.path
            parent = document
            for step in above:
                if isinstance(parent, dict) and parent.get(step) is None:
                    parent[step] = {}
                parent = parent[step]
            if edit.rename is not None:
                position = list(parent).index(key)
                parent.insert(position, edit.rename, parent.pop(key))
            elif edit.value is None:
                parent.pop(key, None)
            else:
                parent[key] = None if edit.value is _NULL else _ruamel_value(edit.value)
        out = io.StringIO()
        editor.dump(document, out)
    except (YAMLError, KeyError, IndexError, TypeError, AttributeError, ValueError):
        # ruamel reads YAML 1.2 and refuses some texts that are fine here; the caller then writes the document afresh.
        return None
    return out.getvalue()


def _ruamel_value(value: Any) -> Any:
    from ruamel.yaml.scalarstring import LiteralScalarString

    return LiteralScalarString(value) if isinstance(value, str) and "\n" in value else value
