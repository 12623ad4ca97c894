"""The result for one source, of its outline."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

from dipeo_nb.codegen.typescript.evaluator import Evaluator
from dipeo_nb.codegen.typescript.members import Members
from dipeo_nb.codegen.typescript.outline import Item, Outline
from dipeo_nb.codegen.typescript.shapes import (
    Ast,
    Class,
    Constant,
    Enum,
    EnumMember,
    Function,
    Interface,
    Metadata,
    Namespace,
    Parsed,
    TypeAlias,
)

if TYPE_CHECKING:
    from tree_sitter import Node

COLLECTIONS = {
    "interface": "interfaces", "type": "types", "enum": "enums", "class": "classes", "function": "functions", "const": "constants",
    "export": "exports",
}  # fmt: skip
"""Pattern → the collection of the result that holds what it asks for."""


def extracted(outline: Outline, patterns: Collection[str], evaluator: Evaluator, *, jsdoc: bool) -> Parsed:
    """The declarations that *patterns* ask for, and namespaces, which have no pattern of their own."""
    made = _Extraction(outline, evaluator, jsdoc=jsdoc)
    ast: dict[str, list[Any]] = {}
    for pattern in patterns:
        if pattern == "export":
            ast |= {"exports": outline.exports, "imports": list(outline.imports.values())}
        else:
            ast[COLLECTIONS[pattern]] = [made.declaration(item) for item in outline.items if item.kind == pattern]
    if "const" in patterns and outline.default is not None and outline.default.type != "identifier":
        ast["constants"].append(made.default())
    spaces = [made.declaration(item) for item in outline.items if item.kind == "namespace"]
    if spaces:
        ast["namespaces"] = spaces
    summary: dict[str, Any] = {"kind": "SourceFile", "childCount": outline.source.root.named_child_count}
    summary |= {f"has{name[:1].upper()}{name[1:]}": bool(ast.get(name)) for name in COLLECTIONS.values()}
    diagnostics = sorted(outline.source.diagnostics, key=lambda d: (d["line"], d["column"]))
    metadata = Metadata(success=True, extractedPatterns=list(patterns), astSummary=summary, diagnostics=diagnostics)
    return Parsed(ast=cast(Ast, ast), metadata=metadata)


class _Extraction:
    def __init__(self, outline: Outline, evaluator: Evaluator, *, jsdoc: bool) -> None:
        self._outline = outline
        self._evaluator = evaluator
        self._members = Members(outline.source, jsdoc=jsdoc)

    def declaration(self, item: Item) -> Any:
        head: dict[str, Any] = {"name": item.name, "isExported": item.exported}
        if item.default:
            head["isDefault"] = True
        if item.namespace:
            head["namespace"] = item.namespace
        made: Any = {**head, **getattr(self, f"_{item.kind}")(item)}
        made["position"] = self._outline.source.position(item.node)
        self._members.document(made, item.comment)
        return made

    def default(self) -> Constant:
        node = self._outline.default
        assert node is not None
        return Constant(
            name="default", isExported=True, isDefault=True, type=None, value=self._evaluator.default(self._outline),
            position=self._outline.source.position(node),
        )  # fmt: skip

    def _interface(self, item: Item) -> Interface:
        members = self._members.interface(item.node.child_by_field_name("body"))
        return cast(
            Interface,
            {
                **members,
                "extends": self._bases(item.node, "extends_type_clause"),
                "typeParameters": self._members.type_parameters(item.node),
            },
        )

    def _bases(self, node: Node, clause: str) -> list[str]:
        found = [child for child in node.named_children if child.type == clause]
        return [self._outline.source.text(base) for each in found for base in each.named_children if base.type != "comment"]

    def _type(self, item: Item) -> TypeAlias:
        value = item.node.child_by_field_name("value")
        text = "" if value is None else self._outline.source.text(value)
        return cast(TypeAlias, {"type": text, "typeParameters": self._members.type_parameters(item.node)})

    def _enum(self, item: Item) -> Enum:
        members: list[EnumMember] = []
        for node, name, value in self._evaluator.enum(self._outline, item):
            member = EnumMember(name=name, value=value)
            before = node.prev_named_sibling
            if before is not None and before.type == "comment" and before.end_point[0] <= node.start_point[0]:
                self._members.document(member, before)
            members.append(member)
        return cast(Enum, {"members": members, "isConst": item.node.children[0].type == "const"})

    def _class(self, item: Item) -> Class:
        node, source = item.node, self._outline.source
        members = self._members.class_body(node.child_by_field_name("body"))
        extends: str | None = None
        implements: list[str] = []
        for heritage in (child for child in node.named_children if child.type == "class_heritage"):
            for clause in heritage.named_children:
                if clause.type == "extends_clause":
                    extends = source.text(clause).removeprefix("extends").strip()
                elif clause.type == "implements_clause":
                    implements = [source.text(each) for each in clause.named_children]
        return cast(
            Class,
            {
                **members,
                "extends": extends,
                "implements": implements,
                "isAbstract": node.type == "abstract_class_declaration",
                "typeParameters": self._members.type_parameters(node),
            },
        )

    def _function(self, item: Item) -> Function:
        node, members = item.node, self._members
        words = {child.type for child in node.children}
        return cast(
            Function,
            {
                "parameters": members.parameters(node),
                "returnType": members.annotated(node, "return_type"),
                "isAsync": "async" in words,
                "isGenerator": "*" in words,
                "typeParameters": members.type_parameters(node),
            },
        )

    def _const(self, item: Item) -> Constant:
        declared = None if item.pattern else self._members.annotated(item.node)
        return cast(Constant, {"type": declared, "value": self._evaluator.constant(self._outline, item)})

    def _namespace(self, item: Item) -> Namespace:
        kind = {"internal_module": "namespace", "module": "module"}.get(item.node.type, "global")
        return cast(Namespace, {"kind": kind})
