"""What the parser gives: plain values, as JSON has them."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from dipeo_nb.codegen.typescript.comments import Tag
from dipeo_nb.codegen.typescript.grammar import Diagnostic, Position


class TypeParameter(TypedDict):
    name: str
    constraint: str | None
    default: str | None


class Parameter(TypedDict):
    name: str
    """The pattern as it stands when it is taken apart: `{a, b}`."""
    type: str | None
    optional: bool
    """With `?`, a default value or `...`."""
    defaultValue: str | None
    rest: bool
    visibility: NotRequired[str]
    """Of a parameter that is a property of its class, as `readonly`."""
    readonly: NotRequired[bool]


class Documented(TypedDict):
    """What can have a JSDoc comment."""

    jsDoc: NotRequired[str]
    """The text before the tags; with `include_jsdoc`, where there is one."""
    jsDocTags: NotRequired[list[Tag]]
    position: Position


class Property(Documented):
    name: str
    type: str | None
    optional: bool
    readonly: bool


class Method(Documented):
    name: str
    kind: str
    """method, get or set; of a class, constructor, too."""
    parameters: list[Parameter]
    returnType: str | None
    optional: bool
    isAsync: bool
    isGenerator: bool
    typeParameters: list[TypeParameter]


class Signature(Documented):
    """Of an interface that can be called, or constructed with `new`."""

    kind: str
    """call or construct."""
    parameters: list[Parameter]
    returnType: str | None
    typeParameters: list[TypeParameter]


class IndexSignature(Documented):
    """`[key: string]: unknown`."""

    keyName: str
    keyType: str
    type: str | None
    readonly: bool


class Declaration(Documented):
    name: str
    isExported: bool
    isDefault: NotRequired[bool]
    """True: the default export."""
    namespace: NotRequired[str]
    """Where it is nested: `A.B`, or the name of a module that is declared."""


class Interface(Declaration):
    properties: list[Property]
    methods: list[Method]
    indexSignatures: list[IndexSignature]
    signatures: list[Signature]
    extends: list[str]
    typeParameters: list[TypeParameter]


class TypeAlias(Declaration):
    type: str
    typeParameters: list[TypeParameter]


class EnumMember(TypedDict):
    name: str
    value: Any
    """Text or number; `{"$expr": text}` when it was not evaluated."""
    jsDoc: NotRequired[str]
    jsDocTags: NotRequired[list[Tag]]


class Enum(Declaration):
    members: list[EnumMember]
    isConst: bool


class ClassProperty(Property):
    visibility: str
    """public, protected or private (also with `#`)."""
    isStatic: bool
    isAbstract: bool
    defaultValue: str | None
    """The text of the initial value."""


class ClassMethod(Method):
    visibility: str
    isStatic: bool
    isAbstract: bool


class Class(Declaration):
    properties: list[ClassProperty]
    methods: list[ClassMethod]
    """With accessors; without the constructor."""
    constructors: list[ClassMethod]
    indexSignatures: list[IndexSignature]
    extends: str | None
    implements: list[str]
    isAbstract: bool
    typeParameters: list[TypeParameter]


class Function(Declaration):
    parameters: list[Parameter]
    returnType: str | None
    isAsync: bool
    isGenerator: bool
    typeParameters: list[TypeParameter]


class Constant(Declaration):
    type: str | None
    """As written; None: inferred by the compiler."""
    value: Any
    """What it evaluates to; `{"$expr": text}` stands for what does not."""


class Namespace(Declaration):
    kind: str
    """namespace, module or global."""


class Export(TypedDict):
    """One name that is exported by `export {…}`, `export * from`, `export default` or `export =`."""

    name: str
    """The exported name; `*`: all of `source`."""
    local: str | None
    """Its name here, or in `source`."""
    source: str | None
    isType: bool
    position: Position


class Import(TypedDict):
    name: str
    """Here."""
    imported: str
    """There; `default`, or `*` for the whole module."""
    source: str
    isType: bool


class Ast(TypedDict, total=False):
    """The collections that were asked for."""

    interfaces: list[Interface]
    types: list[TypeAlias]
    enums: list[Enum]
    classes: list[Class]
    functions: list[Function]
    constants: list[Constant]
    exports: list[Export]
    imports: list[Import]
    namespaces: list[Namespace]


class Metadata(TypedDict):
    success: bool
    """False: nothing was read; `error` says why."""
    extractedPatterns: list[str]
    astSummary: dict[str, Any]
    """kind, childCount, and for each collection whether it has something: hasInterfaces …"""
    diagnostics: list[Diagnostic]
    error: NotRequired[str]


class Parsed(TypedDict):
    """What was read of one source."""

    ast: Ast
    metadata: Metadata
