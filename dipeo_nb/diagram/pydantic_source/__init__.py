"""Pydantic source as a model class, read and never executed.

The syntax tree is walked from the chosen class on: the classes it needs, their annotations, constants and `Field(…)`.
Everything else is skipped, and what was skipped is said. The classes are made by pydantic's `create_model` and `enum`'s
functional form.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, RootModel, create_model

from dipeo_nb.diagram.pydantic_source.annotations import AnnotationReader
from dipeo_nb.diagram.pydantic_source.syntax import construct, reason, source_of
from dipeo_nb.diagram.pydantic_source.words import PLAIN_BASES, TypeNames
from dipeo_nb.errors import ValidationError


class ModelBuilder(AnnotationReader):
    """Makes the classes of one source that the chosen one needs."""

    def build_chosen(self) -> tuple[type[BaseModel], tuple[str, ...]]:
        """The chosen model, and what was skipped.

        Raises:
            ValidationError: there is none, or it needs what is not a shape.
        """
        for statement in self.tree.body:
            self.top(statement)
        chosen = self.chosen()
        self.build(chosen, ())
        while self.waiting:
            name, (node, names) = self.waiting.popitem()
            if name not in self.models:
                self.build(node, (), name, names)
        self.finish()
        parts = dict.fromkeys(text for _, text in sorted(self.skipped, key=lambda pair: pair[0]))
        return self.models[chosen.name], tuple(parts)

    def chosen(self) -> ast.ClassDef:
        """`Response`, else the last whose name ends so, else the last model."""
        names = [n for n, node in self.classes.items() if self.is_model(node)]
        if not names:
            others = [node for node in self.classes.values() if not self.is_enum(node)]
            if others:
                self.build(others[-1], ())  # says what is wrong with it
            raise ValidationError(
                "The text_format defines no pydantic class.",
                hint="Write, for example, `class Response(BaseModel):` with fields under it.",
                line=None,
            )
        name = next((n for n in names if n == "Response"), None)
        return self.classes[name or next((n for n in reversed(names) if n.endswith("Response")), names[-1])]

    def build(
        self, node: ast.ClassDef, path: tuple[str, ...], name: str | None = None, names: TypeNames | None = None
    ) -> type[BaseModel]:
        """The model of a class; *name* and *names* of a generic class for one set of types."""
        name = name or node.name
        if name in self.models:
            return self.models[name]
        if node.name in path:
            self.refuse(node, f"class '{node.name}', which derives from itself,")
        bases: list[Any] = []
        root: ast.expr | None = None
        plain = not self.is_dataclass(node)
        for base in node.bases:
            word = self.base_name(base)
            if word in self.classes:
                of = self.classes[word]
                if self.is_enum(of):
                    self.refuse(base, f"the base '{word}' of class '{node.name}'", hint="Derive from BaseModel.")
                if not self.is_model(of):
                    self.skip(base, f"the base '{word}' of {node.name}")
                    continue
                plain = False
                if isinstance(base, ast.Subscript):
                    inner, given = self.specialised(of, base.slice, names or {})
                    bases.append(self.build(of, (*path, node.name), inner, given))
                else:
                    bases.append(self.build(of, (*path, node.name)))
            elif word == "BaseModel":
                plain = False
            elif word == "RootModel":
                plain, bases = False, [*bases, RootModel]
                root = base.slice if isinstance(base, ast.Subscript) else None
            elif word in self.foreign:
                self.foreign_name(base, word, f"the base of class '{node.name}'")
            elif word not in PLAIN_BASES:
                self.refuse(
                    base,
                    f"the base '{ast.unparse(base)}' of class '{node.name}'",
                    hint="Derive from BaseModel, Enum or a class of this text.",
                )
        if plain:
            self.refuse(node, f"class '{node.name}', which derives from nothing,", hint="Write `(BaseModel)` after its name.")
        for decorator in node.decorator_list:
            if not self.is_dataclass(node):
                self.skip(decorator, f"the decorator `{source_of(decorator)}` of {node.name}")
        names = names or dict.fromkeys(self.type_variables(node), ast.Name("Any"))
        fields, config = self.fields(node, names)
        if root is not None and "root" not in fields:
            fields["root"] = (self.annotation(root, names), ...)
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg == "metaclass":
                self.refuse(node, f"the class arguments of '{node.name}'")
            config |= self.setting(keyword.arg, keyword.value)
        # Names such as `model_name` and `copy` are good fields of an answer.
        config = ConfigDict(protected_namespaces=(), **config)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                made = create_model(
                    name,
                    __base__=tuple(bases) or BaseModel,
                    __doc__=ast.get_docstring(node),
                    __module__=__name__,
                    **fields,
                )
            except Exception as error:
                # pydantic and pydantic-core refuse patterns, limits and names with errors of many classes.
                raise self.error(node, f"class '{node.name}' ({reason(error)})") from error
        made.model_config = cast(ConfigDict, {**made.model_config, **config})  # takes effect in `finish`
        self.models[name] = made
        self.places[name] = node
        return made

    def finish(self) -> None:
        """Resolve references between the classes."""
        names: dict[str, Any] = {**self.models, **self.enums}
        for name, made in self.models.items():
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made.model_rebuild(force=True, _types_namespace=names)
            except Exception as error:
                raise self.error(self.places[name], f"class '{self.places[name].name}' ({reason(error)})") from error

    def fields(self, node: ast.ClassDef, names: TypeNames) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields and the config of a model class."""
        found: dict[str, Any] = {}
        config: dict[str, Any] = {}
        where = f"class {node.name}"
        for statement in node.body:
            match statement:
                case ast.AnnAssign(annotation=annotation) if self.base_name(annotation) in ("ClassVar", "InitVar"):
                    pass
                case ast.AnnAssign(target=ast.Name(id="model_config"), value=ast.expr() as value):
                    config = self.config(value)
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
                    if name.startswith("_"):
                        self.skip(statement, f"the private field '{name}' of {node.name}")
                        continue
                    kind = self.annotation(annotation, {**names, "Self": ast.Name(node.name)})
                    found[name] = (kind, ... if value is None else self.default(value))
                case ast.Assign(targets=[ast.Name(id="model_config")], value=value):
                    config = self.config(value)
                case ast.Expr(value=ast.Constant()) | ast.Pass():
                    pass
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    kinds = {self.name(d.func if isinstance(d, ast.Call) else d) for d in statement.decorator_list}
                    kind = "the validator" if any("valid" in k for k in kinds) else "the method"
                    self.skip(statement, f"{kind} '{statement.name}' of {node.name}")
                case ast.ClassDef():
                    if statement.name == "Config":
                        self.skip(statement, f"Config of {node.name}")
                case ast.Assign(targets=[ast.Name(id=name)]) if name.startswith("_"):
                    self.skip(statement, f"'{name}' of {node.name}")
                case ast.Assign(targets=[ast.Name(id=name)]):
                    self.refuse(statement, f"'{name}' without a type", where, hint=f"Write `{name}: str = …`.")
                case _:
                    self.skip(statement, f"{construct(statement)} in class {node.name}")
        return found, config
