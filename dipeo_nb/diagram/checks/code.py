"""Checks of code_job nodes. Code is parsed, never executed."""

from __future__ import annotations

import dataclasses
from typing import cast

from dipeo_nb.common.text import nearest, shorten
from dipeo_nb.diagram.checks.state import CheckState
from dipeo_nb.diagram.name_analysis import CODE_FILE
from dipeo_nb.diagram.python_code import code_hint, code_problem, module_names
from dipeo_nb.domain.diagram import DomainNode
from dipeo_nb.domain.enums import Severity, SupportedLanguage
from dipeo_nb.domain.nodes import CodeJobNode, NodeSpec

_WRITERS = frozenset(["code_job", "db", "diff_patch", "hook", "sub_diagram", "template_job"])


def check_code_job(state: CheckState, node: DomainNode, spec: NodeSpec) -> NodeSpec:
    """Check the code of a code_job; the spec has its file below the base directory."""
    spec = cast(CodeJobNode, spec)
    code = spec.code or ""
    if not code.strip():
        if not (spec.file_path or "").strip():
            state.error("missing-code", "This code_job has no code.", "Add `code` with `|`, or `file_path`.", node=node)
            return spec
        return _check_code_file(state, node, spec)
    if spec.file_path:
        state.warn(
            "code-and-file",
            "This code_job has both code and file_path; the code is used.",
            "Remove one of them.",
            node=node,
            field="file_path",
        )
    if spec.language is not SupportedLanguage.PYTHON or (
        CODE_FILE.fullmatch(code.strip()) and state.files.below_base(code.strip())
    ):
        return spec
    if problem := code_problem(code):
        state.error(
            "bad-code",
            f"The code does not parse: {problem.message}.",
            code_hint(code, problem),
            node=node,
            field="code",
            place=state.inside(node, "code", problem.line, problem.column),
        )
    return spec


def _check_code_file(state: CheckState, node: DomainNode, spec: CodeJobNode) -> CodeJobNode:
    name = (spec.file_path or "").strip()
    text, problem = state.files.read(name, base_first=True)
    where = {"node": node, "field": "file_path"}
    if text is None:
        # Code that an earlier node writes cannot be there yet.
        made = any(n.id != node.id and n.type in _WRITERS for n in state.model.nodes)
        severity = Severity.WARNING if made and problem.code == "file-not-found" else Severity.ERROR
        state.report(severity, problem.code, problem.message, problem.hint, **where)
        return spec
    inside = state.files.relative(name)
    if inside is None:
        state.error(
            "file-outside",
            f"'{shorten(name)}' is beside the diagram, but outside the base directory {state.files.base}.",
            "Set the base directory (--base-dir, DIPEO_BASE_DIR) to a folder above it.",
            **where,
        )
        return spec
    if spec.language is SupportedLanguage.PYTHON:
        _check_module(state, node, spec, name, text)
    return dataclasses.replace(spec, file_path=inside) if inside != spec.file_path else spec


def _check_module(state: CheckState, node: DomainNode, spec: CodeJobNode, name: str, text: str) -> None:
    if problem := code_problem(text):
        message = f"{name}:{problem.line}:{problem.column}: the code does not parse: {problem.message}."
        state.error("bad-code", message, code_hint(text, problem), node=node, field="file_path")
        return
    names = module_names(text)
    if names is not None and spec.function_name not in names and "result" not in names:
        named = "function_name" in node.data
        close = nearest(spec.function_name, names)
        state.report(
            Severity.ERROR if named else Severity.WARNING,  # a file may be there for what it defines
            "unknown-function",
            f"'{shorten(name)}' has no function '{shorten(spec.function_name)}'"
            + ("." if named else " and sets no `result`, so the node has no output."),
            f"Did you mean '{close}'?" if close else f"Add it, or set `function_name` ({', '.join(sorted(names)[:10])}).",
            node=node,
            field="function_name" if named else "file_path",
        )
