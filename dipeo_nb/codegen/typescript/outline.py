"""The declarations of a source: what there is, under which name, and how it is exported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from dipeo_nb.codegen.typescript.grammar import Source
from dipeo_nb.codegen.typescript.shapes import Export, Import

if TYPE_CHECKING:
    from tree_sitter import Node

MAX_NAMESPACES = 100
"""Namespaces within each other."""
KINDS = {
    "interface_declaration": "interface",
    "type_alias_declaration": "type",
    "enum_declaration": "enum",
    "class_declaration": "class",
    "abstract_class_declaration": "class",
    "class": "class",
    "function_declaration": "function",
    "generator_function_declaration": "function",
    "function_signature": "function",
    "function_expression": "function",
    "generator_function": "function",
    "arrow_function": "function",
}
"""Type of a node → what it declares."""
_VARIABLES = ("lexical_declaration", "variable_declaration")
_MODULES = ("internal_module", "module")


@dataclass(slots=True)
class Item:
    """One declaration."""

    kind: str
    """interface, type, enum, class, function, const, variable or namespace."""
    name: str
    node: Node
    """Of a constant, its declarator: name, type and value."""
    exported: bool
    default: bool = False
    namespace: str = ""
    comment: Node | None = None
    """The JSDoc comment before it."""
    pattern: bool = False
    """Of a constant: it is one of the names that a pattern takes apart: `const {a, b} = …`."""


@dataclass(slots=True)
class Outline:
    """The declarations of a source, in the order of the text."""

    source: Source
    items: list[Item] = field(default_factory=list[Item])
    imports: dict[str, Import] = field(default_factory=dict[str, Import])
    """By their names here."""
    exports: list[Export] = field(default_factory=list[Export])
    names: dict[str, Item] = field(default_factory=dict[str, Item])
    """What expressions can name: constants, functions, enums and classes, with their namespaces: `A.B.c`."""
    default: Node | None = None
    """The expression of `export default`."""

    def exported(self, name: str) -> str | None:
        """The name here of what is exported under *name*; None: nothing, or it comes from another module."""
        for export in self.exports:
            if export["name"] == name and export["source"] is None:
                return export["local"]
        item = self.names.get(name)
        return name if item is not None and item.exported else None


class _Open(NamedTuple):
    """A statement that is still to be looked at."""

    node: Node
    comment: Node | None
    namespace: str
    depth: int
    exported: bool = False
    default: bool = False
    ambient: bool = False


def outline(source: Source) -> Outline:
    """The declarations of a source, those in namespaces included. What is not understood is stepped over."""
    made = Outline(source)
    waiting = list(_statements(source, source.root, "", 0, ambient=False))
    waiting.reverse()
    while waiting:
        inner = list(_look(made, waiting.pop()))
        waiting += reversed(inner)
    own = {export["local"] for export in made.exports if export["source"] is None}
    for item in made.items:
        if item.name in own and not item.namespace:
            item.exported = True
    return made


def _statements(source: Source, block: Node, namespace: str, depth: int, *, ambient: bool) -> Iterator[_Open]:
    comment: Node | None = None
    for node in block.named_children:
        if node.type == "comment":
            if source.data.startswith(b"/**", node.start_byte):
                comment = node
            continue
        yield _Open(node, comment, namespace, depth, ambient=ambient)
        comment = None


def _look(made: Outline, at: _Open) -> Iterator[_Open]:
    """Record what a statement declares; yields statements within it."""
    node, source = at.node, made.source
    kind = node.type
    if kind == "export_statement":
        yield from _export(made, at)
    elif kind == "import_statement":
        _import(made, node)
    elif kind in KINDS:
        named = node.child_by_field_name("name")
        name = source.text(named) if named is not None else "default"
        _add(made, Item(KINDS[kind], name, node, at.exported or at.ambient, at.default, at.namespace, at.comment))
    elif kind in _VARIABLES:
        constant = node.children[0].type == "const"
        for each in node.named_children:
            if each.type == "variable_declarator":
                _variable(made, at, each, "const" if constant else "variable")
    elif kind in _MODULES:
        yield from _namespace(made, at)
    elif kind == "ambient_declaration":
        inside = [child for child in node.named_children if child.type != "comment"]
        if inside and inside[0].type == "statement_block":  # declare global { … }
            _add(made, Item("namespace", "global", node, False, False, at.namespace, at.comment))
            yield from _statements(source, inside[0], _joined(at.namespace, "global"), at.depth + 1, ambient=True)
        elif inside:
            yield at._replace(node=inside[0], ambient=bool(at.namespace))
    elif kind in ("expression_statement", "ERROR"):
        # A namespace, or declarations around something that is not understood.
        for child in node.named_children:
            if child.type in _MODULES or (kind == "ERROR" and (child.type in KINDS or child.type in _VARIABLES)):
                yield at._replace(node=child)


def _add(made: Outline, item: Item) -> None:
    made.items.append(item)
    if item.kind not in ("interface", "type", "namespace"):
        made.names.setdefault(_joined(item.namespace, item.name), item)


def _joined(namespace: str, name: str) -> str:
    return f"{namespace}.{name}" if namespace else name


def _variable(made: Outline, at: _Open, declarator: Node, kind: str) -> None:
    name = declarator.child_by_field_name("name")
    if name is None:
        return
    if name.type == "identifier":
        _add(made, Item(kind, made.source.text(name), declarator, at.exported or at.ambient, False, at.namespace, at.comment))
        return
    for each in bound(made.source, name):
        _add(made, Item(kind, each, declarator, at.exported, False, at.namespace, at.comment, pattern=True))


def bound(source: Source, pattern: Node) -> list[str]:
    """The names that a pattern binds."""
    found: list[str] = []
    waiting = [pattern]
    while waiting:
        node = waiting.pop()
        if node.type in ("identifier", "shorthand_property_identifier_pattern"):
            found.append(source.text(node))
        elif node.type in ("object_assignment_pattern", "assignment_pattern"):
            left = node.child_by_field_name("left")
            waiting += [] if left is None else [left]
        elif node.type == "pair_pattern":
            value = node.child_by_field_name("value")
            waiting += [] if value is None else [value]
        else:
            waiting += reversed(node.named_children)
    return found


def _namespace(made: Outline, at: _Open) -> Iterator[_Open]:
    node, source = at.node, made.source
    named, body = node.child_by_field_name("name"), node.child_by_field_name("body")
    text = "" if named is None else source.text(named)
    name = text[1:-1] if named is not None and named.type == "string" else text
    if at.depth >= MAX_NAMESPACES:
        source.diagnose(node, f"More than {MAX_NAMESPACES} namespaces within each other: what is further inside is not read.")
        return
    _add(made, Item("namespace", name, node, at.exported or at.ambient, False, at.namespace, at.comment))
    if body is not None:
        declared = named is not None and named.type == "string"
        yield from _statements(source, body, _joined(at.namespace, name), at.depth + 1, ambient=declared)


def _export(made: Outline, at: _Open) -> Iterator[_Open]:
    node, source = at.node, made.source
    words = {child.type for child in node.children if not child.is_named}
    declaration, value = node.child_by_field_name("declaration"), node.child_by_field_name("value")
    origin = node.child_by_field_name("source")
    if declaration is not None:
        yield at._replace(node=declaration, exported=True, default="default" in words)
        if "default" in words:
            named = declaration.child_by_field_name("name")
            _record(made, node, "default", source.text(named) if named is not None else "default", None, "type" in words)
        return
    if value is not None and value.type in KINDS and "default" in words:
        yield at._replace(node=value, exported=True, default=True)
        _record(made, node, "default", "default", None, False)
        return
    if "default" in words or "=" in words:
        given = value or next((child for child in node.named_children if child.type != "comment"), None)
        local = source.text(given) if given is not None and given.type == "identifier" else None
        made.default = given
        _record(made, node, "default" if "default" in words else "=", local, None, False)
        return
    module = None if origin is None else source.text(origin)[1:-1]
    only_types = "type" in words or _TYPE in source.data[node.start_byte : node.start_byte + 20].split()
    for child in node.named_children:
        if child.type == "namespace_export":
            _record(made, node, source.text(child.named_children[-1]), "*", module, only_types)
            return
        if child.type == "export_clause":
            for each in child.named_children:
                if each.type != "export_specifier":
                    continue
                name, alias = each.child_by_field_name("name"), each.child_by_field_name("alias")
                local = "" if name is None else source.text(name)
                typed = only_types or any(part.type == "type" for part in each.children)
                _record(made, each, local if alias is None else source.text(alias), local, module, typed)
            return
    if module is not None:
        _record(made, node, "*", "*", module, only_types)


_TYPE = b"type"


def _record(made: Outline, node: Node, name: str, local: str | None, source: str | None, is_type: bool) -> None:
    made.exports.append(Export(name=name, local=local, source=source, isType=is_type, position=made.source.position(node)))


def _import(made: Outline, node: Node) -> None:
    source = made.source
    origin = node.child_by_field_name("source")
    if origin is None:
        return
    module = source.text(origin)[1:-1]
    only_types = any(child.type == "type" for child in node.children)

    def add(name: str, imported: str, is_type: bool) -> None:
        made.imports[name] = Import(name=name, imported=imported, source=module, isType=is_type)

    for clause in (child for child in node.named_children if child.type == "import_clause"):
        for child in clause.named_children:
            if child.type == "identifier":
                add(source.text(child), "default", only_types)
            elif child.type == "namespace_import":
                add(source.text(child.named_children[-1]), "*", only_types)
            for each in child.named_children if child.type == "named_imports" else []:
                if each.type != "import_specifier":
                    continue
                name, alias = each.child_by_field_name("name"), each.child_by_field_name("alias")
                imported = "" if name is None else source.text(name)
                typed = only_types or any(part.type == "type" for part in each.children)
                add(imported if alias is None else source.text(alias), imported, typed)
