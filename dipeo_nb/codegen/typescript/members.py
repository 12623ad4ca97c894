"""What interfaces, classes and functions consist of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dipeo_nb.codegen.typescript.comments import description, is_jsdoc, tags
from dipeo_nb.codegen.typescript.grammar import Source
from dipeo_nb.codegen.typescript.shapes import (
    ClassMethod,
    ClassProperty,
    IndexSignature,
    Method,
    Parameter,
    Property,
    Signature,
    TypeParameter,
)

if TYPE_CHECKING:
    from tree_sitter import Node

_METHODS = {"method_definition", "method_signature", "abstract_method_signature"}
_ANNOTATIONS = ("type_annotation", "asserts_annotation", "type_predicate_annotation")


class Members:
    """Reads the parts of declarations of one source.

    Args:
        jsdoc: with JSDoc comments.
    """

    def __init__(self, source: Source, *, jsdoc: bool) -> None:
        self.source = source
        self.jsdoc = jsdoc

    def document(self, into: Any, comment: Node | None) -> None:
        """Add the JSDoc of the comment that stands before a declaration."""
        if not self.jsdoc or comment is None:
            return
        text = self.source.text(comment)
        if is_jsdoc(text):
            into["jsDoc"] = description(text)
            if found := tags(text):
                into["jsDocTags"] = found

    def annotated(self, node: Node, field: str = "type") -> str | None:
        """The type after the colon, as it is written."""
        found = node.child_by_field_name(field)
        if found is None:
            return None
        text = self.source.text(found)
        return text[1:].strip() if found.type in _ANNOTATIONS else text

    def type_parameters(self, node: Node) -> list[TypeParameter]:
        found = node.child_by_field_name("type_parameters")
        return [self._type_parameter(each) for each in _of(found, "type_parameter")]

    def _type_parameter(self, node: Node) -> TypeParameter:
        constraint, default = node.child_by_field_name("constraint"), node.child_by_field_name("value")
        return TypeParameter(
            name=self._named(node),
            constraint=None if constraint is None else self._after(constraint),
            default=None if default is None else self._after(default),
        )

    def _after(self, node: Node) -> str:
        """Without the word or sign at its front: `extends X`, `= X`."""
        return self.source.text(node.named_children[-1]) if node.named_children else ""

    def parameters(self, node: Node) -> list[Parameter]:
        found = node.child_by_field_name("parameters")
        if found is None:  # the single one of an arrow function: `x => …`
            single = node.child_by_field_name("parameter")
            return [] if single is None else [_parameter(self.source.text(single))]
        return [
            self._parameter(each) for each in found.named_children if each.type in ("required_parameter", "optional_parameter")
        ]

    def _parameter(self, node: Node) -> Parameter:
        pattern, value = node.child_by_field_name("pattern"), node.child_by_field_name("value")
        rest = pattern is not None and pattern.type == "rest_pattern"
        name = "" if pattern is None else self.source.text(pattern)
        made = Parameter(
            name=name.removeprefix("...").strip(),
            type=self.annotated(node),
            optional=node.type == "optional_parameter" or value is not None or rest,
            defaultValue=None if value is None else self.source.text(value),
            rest=rest,
        )
        words = {child.type for child in node.children}
        if "accessibility_modifier" in words or "readonly" in words:
            made["visibility"] = self._visibility(node, "")
            made["readonly"] = "readonly" in words
        return made

    def interface(self, body: Node | None) -> dict[str, Any]:
        """The members of an interface, or of a type in braces."""
        properties: list[Property] = []
        methods: list[Method] = []
        indexes: list[IndexSignature] = []
        signatures: list[Signature] = []
        for node, comment in _commented(body):
            made: Any = None
            match node.type:
                case "property_signature":
                    made = self._property(node)
                    properties.append(made)
                case "method_signature":
                    made = self._method(node)
                    methods.append(made)
                case "index_signature":
                    made = self._index(node)
                    if made:
                        indexes.append(made)
                case "call_signature" | "construct_signature":
                    made = self._signature(node)
                    signatures.append(made)
                case _:
                    pass
            if made:
                self.document(made, comment)
        return {"properties": properties, "methods": methods, "indexSignatures": indexes, "signatures": signatures}

    def _property(self, node: Node) -> Property:
        optional, readonly = _marks(node)
        return Property(
            name=self.name(node),
            type=self.annotated(node),
            optional=optional,
            readonly=readonly,
            position=self.source.position(node),
        )

    def _method(self, node: Node) -> Method:
        words = {child.type for child in node.children}
        return Method(
            name=self.name(node),
            kind="get" if "get" in words else "set" if "set" in words else "method",
            parameters=self.parameters(node),
            returnType=self.annotated(node, "return_type"),
            optional="?" in words,
            isAsync="async" in words,
            isGenerator="*" in words,
            typeParameters=self.type_parameters(node),
            position=self.source.position(node),
        )

    def _signature(self, node: Node) -> Signature:
        new = node.type == "construct_signature"
        return Signature(
            kind="construct" if new else "call",
            parameters=self.parameters(node),
            returnType=self.annotated(node, "type" if new else "return_type"),
            typeParameters=self.type_parameters(node),
            position=self.source.position(node),
        )

    def _index(self, node: Node) -> IndexSignature | None:
        name, kind = node.child_by_field_name("name"), node.child_by_field_name("index_type")
        if name is None or kind is None:  # the mapped type `[K in T]: …`
            return None
        return IndexSignature(
            keyName=self.source.text(name),
            keyType=self.source.text(kind),
            type=self.annotated(node),
            readonly=_marks(node)[1],
            position=self.source.position(node),
        )

    def class_body(self, body: Node | None) -> dict[str, Any]:
        properties: list[ClassProperty] = []
        methods: list[ClassMethod] = []
        constructors: list[ClassMethod] = []
        indexes: list[IndexSignature] = []
        for node, comment in _commented(body):
            made: Any = None
            if node.type == "public_field_definition":
                made = self._class_property(node)
                properties.append(made)
            elif node.type in _METHODS:
                made = self._class_method(node)
                (constructors if made["kind"] == "constructor" else methods).append(made)
            elif node.type == "index_signature":
                made = self._index(node)
                if made:
                    indexes.append(made)
            if made:
                self.document(made, comment)
        return {"properties": properties, "methods": methods, "constructors": constructors, "indexSignatures": indexes}

    def _class_property(self, node: Node) -> ClassProperty:
        words = {child.type for child in node.children}
        value = node.child_by_field_name("value")
        name = self.name(node)
        return ClassProperty(
            name=name,
            type=self.annotated(node),
            optional="?" in words,
            readonly="readonly" in words,
            visibility=self._visibility(node, name),
            isStatic="static" in words,
            isAbstract="abstract" in words,
            defaultValue=None if value is None else self.source.text(value),
            position=self.source.position(node),
        )

    def _class_method(self, node: Node) -> ClassMethod:
        words = {child.type for child in node.children}
        method = self._method(node)
        if method["name"] == "constructor" and "static" not in words:
            method["kind"] = "constructor"
        return ClassMethod(
            **method,
            visibility=self._visibility(node, method["name"]),
            isStatic="static" in words,
            isAbstract="abstract" in words,
        )

    def _visibility(self, node: Node, name: str) -> str:
        for child in node.children:
            if child.type == "accessibility_modifier":
                return self.source.text(child)
        return "private" if name.startswith("#") else "public"

    def name(self, node: Node) -> str:
        """The name of a member, without the quotes of `'a-b'`."""
        found = node.child_by_field_name("name")
        if found is None:
            return ""
        text = self.source.text(found)
        return text[1:-1] if found.type == "string" else text

    def _named(self, node: Node) -> str:
        found = node.child_by_field_name("name")
        return "" if found is None else self.source.text(found)


def _parameter(name: str) -> Parameter:
    return Parameter(name=name, type=None, optional=False, defaultValue=None, rest=False)


def _of(node: Node | None, kind: str) -> list[Node]:
    return [] if node is None else [child for child in node.named_children if child.type == kind]


def _commented(body: Node | None) -> Iterator[tuple[Node, Node | None]]:
    """The members of a body, each with the comment before it; decorators stand between the two."""
    comment: Node | None = None
    for node in [] if body is None else body.named_children:
        if node.type == "comment":
            comment = node
        elif node.type != "decorator":
            yield node, comment
            comment = None


def _marks(node: Node) -> tuple[bool, bool]:
    """(optional, readonly)."""
    optional = readonly = False
    for child in node.children:
        kind = child.type
        if kind == "?":
            optional = True
        elif kind == "readonly":
            readonly = True
    return optional, readonly
