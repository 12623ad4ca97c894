"""Renders templates of code generation: strict, in the sandbox of all templates, with their filters and macros."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dipeo_nb.common.root import Root
from dipeo_nb.diagram.file_templates import render_file
from dipeo_nb.errors import StorageError, TemplateError, ValidationError

MAX_TEMPLATE = 2_000_000
"""Bytes of a template."""


class CodegenTemplateService:
    """Renders templates from folders, and from texts.

    A template that is included, extended or imported is looked for in the folders, in their order; none can lead out of its folder.
    A name without a value is an error, and nothing changes the caller's names.

    Args:
        directories: folders of templates.
    """

    def __init__(self, directories: Sequence[str | Path] = ()) -> None:
        self._roots: list[Root] = []
        self._macros: dict[str, str] = {}
        self._texts: dict[str, str | None] = {}
        for directory in directories:
            self.add_template_directory(directory)

    def add_template_directory(self, directory: str | Path) -> None:
        """Look in a further folder, after the others. Raises ValidationError: it is not a folder."""
        if not Path(directory).is_dir():
            raise ValidationError(f"{directory} is not a folder.", hint="Name a folder that holds templates.")
        self._roots.append(Root(directory))
        self._texts.clear()

    def register_macro(self, name: str, template: str, params: Sequence[str] = ()) -> None:
        """Add a macro to those of `codegen.macros`, for templates that import or call it.

        Args:
            template: the body; or the whole, when it begins with `{% macro`.
            params: of the body: `name`, or `name=default`.

        Raises:
            ValidationError: the name is not one of Jinja2.
        """
        if not re.fullmatch(r"[A-Za-z]\w*", name):
            raise ValidationError(f"A macro cannot be called '{name}'.", hint="Use letters, digits and underscores.")
        whole = bool(re.match(r"\s*\{%-?\s*macro\b", template))
        self._macros[name] = template if whole else f"{{% macro {name}({', '.join(params)}) %}}{template}{{% endmacro %}}"

    def render_template(self, path: str, context: Mapping[str, Any] | None = None) -> str:
        """The text that a template of the folders gives, with the names of *context*.

        Raises:
            TemplateError: it is not there, or as `render_string`.
        """
        text = self._load(path)
        if text is None:
            raise TemplateError(f"There is no template '{path}'.", hint="Check its path, and the folders of the service.")
        return render_file(text, context or {}, load=self._load, what=f"template {path}", macros=self._macros)

    def render_string(self, text: str, context: Mapping[str, Any] | None = None) -> str:
        """The text that a template gives, with the names of *context*.

        Raises:
            TemplateError: bad syntax, a name without a value, something that templates may not do, or too much of it.
        """
        return render_file(text, context or {}, load=self._load, macros=self._macros)

    def clear_cache(self) -> None:
        """Read the files again."""
        self._texts.clear()

    def _load(self, name: str) -> str | None:
        if name not in self._texts:
            self._texts[name] = self._read(name)
        return self._texts[name]

    def _read(self, name: str) -> str | None:
        for root in self._roots:
            try:
                data = root.read(name, MAX_TEMPLATE)
            except OSError:
                continue  # not in this folder
            if len(data) > MAX_TEMPLATE:
                raise StorageError(f"The template {name} has more than {MAX_TEMPLATE:,} bytes.", hint="Divide it.")
            return data.decode("utf-8")
        return None
