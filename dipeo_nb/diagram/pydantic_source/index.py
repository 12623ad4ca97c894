"""Definitions and imports of one source, and errors that name its lines."""

from __future__ import annotations

import ast
import enum
from typing import Any, NoReturn, cast

from pydantic import BaseModel

from dipeo_nb.diagram.pydantic_source.syntax import construct, last_name, source_of
from dipeo_nb.diagram.pydantic_source.words import ENUMS, KNOWN_PACKAGES, MAX_DEPTH, MAX_TYPES, PLAIN_BASES, TypeNames
from dipeo_nb.errors import ValidationError


class SourceIndex:
    """Classes, aliases and imports of one source; which classes are models, enumerations, dataclasses."""

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.classes: dict[str, ast.ClassDef] = {}
        self.aliases: dict[str, ast.expr] = {}
        self.renamed: dict[str, str] = {}
        """Name that an import gives to a known thing → its name."""
        self.foreign: dict[str, str] = {}
        """Name → the module it is imported from, none of those that are known."""
        self.enums: dict[str, type[enum.Enum]] = {}
        self.models: dict[str, type[BaseModel]] = {}
        self.places: dict[str, ast.ClassDef] = {}
        """Class of each model, specialised generic ones included."""
        self.waiting: dict[str, tuple[ast.ClassDef, TypeNames]] = {}
        """Models that are named and not made yet."""
        self.budget: int = MAX_TYPES
        self.skipped: list[tuple[int, str]] = []

    def top(self, node: ast.stmt) -> None:
        """Register a top-level statement of the source."""
        match node:
            case ast.ClassDef():
                self.classes.pop(node.name, None)  # the later one counts, and its place
                self.classes[node.name] = node
                for inner in ast.iter_child_nodes(node):
                    if isinstance(inner, ast.ClassDef) and inner.name != "Config":
                        self.classes.setdefault(inner.name, inner)
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.partition(".")[0] not in KNOWN_PACKAGES:
                        self.foreign[alias.asname or alias.name.partition(".")[0]] = alias.name
            case ast.ImportFrom(module=module, names=names, level=level):
                for alias in names:
                    if level or (module or "").partition(".")[0] not in KNOWN_PACKAGES:
                        self.foreign[alias.asname or alias.name] = "." * level + (module or "")
                    elif alias.asname:
                        self.renamed[alias.asname] = alias.name
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                pass
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.aliases[name] = value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                self.aliases[name] = value
            case _ if type(node).__name__ == "TypeAlias":  # Python 3.12: type X = …
                self.aliases[cast(Any, node).name.id] = cast(Any, node).value
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.skip(node, f"the function '{node.name}'")
            case ast.If(test=test):
                self.skip(node, f"`if {source_of(test)}:`")
            case ast.Try():
                for inner in node.body:  # such as an import with an older way below
                    self.top(inner)
            case _:
                self.skip(node, construct(node))

    def skip(self, node: ast.AST, what: str) -> None:
        """Note a part of the source that is ignored."""
        line = getattr(node, "lineno", 0)
        self.skipped.append((line, f"{what} (line {line})"))

    def name(self, node: ast.expr) -> str:
        """The last word of a dotted name, as its module calls it; empty for everything else."""
        name = last_name(node) or ""
        return self.renamed.get(name, name)

    def base_name(self, node: ast.expr) -> str:
        """The name of a base class, without its type arguments."""
        return self.name(node.value if isinstance(node, ast.Subscript) else node)

    def is_enum(self, node: ast.ClassDef, seen: tuple[str, ...] = ()) -> bool:
        """Whether a class is an enumeration."""
        for base in node.bases:
            name = self.base_name(base)
            if name in self.classes and name not in (*seen, node.name):
                if self.is_enum(self.classes[name], (*seen, node.name)):
                    return True
            elif name in ENUMS:
                return True
        return False

    def is_model(self, node: ast.ClassDef, seen: tuple[str, ...] = ()) -> bool:
        """Whether a class is a model, or derives from what may be one."""
        if self.is_enum(node):
            return False
        for base in node.bases:
            name = self.base_name(base)
            if name in self.classes and name != node.name:
                if name not in seen and self.is_model(self.classes[name], (*seen, node.name)):
                    return True
            elif name not in PLAIN_BASES:
                return True
        return self.is_dataclass(node)

    def is_dataclass(self, node: ast.ClassDef) -> bool:
        """Whether a class is a dataclass."""
        return any(self.name(d.func if isinstance(d, ast.Call) else d) == "dataclass" for d in node.decorator_list)

    def type_variables(self, node: ast.ClassDef) -> list[str]:
        """The type variables of a generic class, in order."""
        found = [p.name for p in getattr(node, "type_params", ())]
        for base in node.bases:
            if isinstance(base, ast.Subscript) and self.name(base.value) in ("Generic", "Protocol"):
                found += [n.id for n in ast.walk(base.slice) if isinstance(n, ast.Name)]
        return found

    def spend(self, node: ast.AST, depth: int) -> None:
        """Charge one part of an annotation or a value; refuses sources that are too large or too deep."""
        self.budget -= 1
        if depth > MAX_DEPTH:
            self.refuse(node, "so deeply nested a type or value")
        if self.budget < 0:
            self.refuse(node, "so large a type or value")

    def foreign_name(self, node: ast.AST, name: str, what: str | None = None) -> NoReturn:
        """Refuse a name of another module."""
        module = self.foreign[name]
        dipeo = module.partition(".")[0] == "dipeo"
        owner = "one of DiPeO's own classes, which are not part of dipeo_nb" if dipeo else "which is not read"
        self.refuse(
            node,
            f"{what or 'the name'} '{name}', imported from '{module}', {owner},",
            hint="Write the classes that are needed into this text, or give a JSON schema.",
        )

    def error(self, node: ast.AST, what: str, where: str = "", hint: str | None = None) -> ValidationError:
        """The error for a part of the source, with its line."""
        line = getattr(node, "lineno", None)
        inside = f" in {where}" if where else ""
        at = f"Line {line} of the text_format" if line else "The text_format"
        return ValidationError(
            f"{at}: {what}{inside} cannot be used in a shape.",
            hint=hint or "A shape has classes of BaseModel or Enum with typed fields, and nothing that runs.",
            line=line,
        )

    def refuse(self, node: ast.AST, what: str, where: str = "", hint: str | None = None) -> NoReturn:
        """Raise the error for a part of the source."""
        raise self.error(node, what, where, hint)
