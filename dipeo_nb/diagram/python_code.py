"""Python code of code jobs, looked at and never run."""

from __future__ import annotations

import ast
import warnings
from functools import lru_cache
from typing import NamedTuple

from dipeo_nb.common.text import shorten


class CodeProblem(NamedTuple):
    """Why code does not parse, and where in it (1-based)."""

    message: str
    line: int
    column: int


@lru_cache(maxsize=1024)
def code_problem(code: str) -> CodeProblem | None:
    """The problem of the Python code of a code_job; None when it compiles. It is not run.

    `return` and `await` outside of functions are allowed, as the code becomes the body of one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
            if "return" in code:
                tree = _TopReturns().visit(tree)
            compile(tree, "<code>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        return CodeProblem(error.msg, error.lineno or 1, max(error.offset or 1, 1))
    except (ValueError, MemoryError, RecursionError) as error:
        return CodeProblem(str(error) or "it is nested too deeply", 1, 1)
    return None


class _TopReturns(ast.NodeTransformer):
    """Turns `return x` outside of functions into `x`, so that the rest can be compiled as a module."""

    def visit_Return(self, node: ast.Return) -> ast.stmt:
        value = node.value or ast.copy_location(ast.Constant(None), node)
        return ast.copy_location(ast.Expr(value), node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        return node

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AsyncFunctionDef:
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        return node


def code_hint(code: str, problem: CodeProblem) -> str:
    """A hint for code that does not compile."""
    lines = code.split("\n")
    line = lines[problem.line - 1].strip() if problem.line <= len(lines) else ""
    if '\\"' in line or "\\'" in line:
        return 'The quotes in the code are escaped: write " instead of \\".'
    return f"Correct the line `{shorten(line, 80)}`." if line else "Correct the code."


def module_names(code: str) -> frozenset[str] | None:
    """Names that a module's top level binds; None when it may bind any (`import *`, `if`, `try`) or returns a value itself."""
    names: set[str] = set()
    for statement in ast.parse(code).body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                if any(alias.name == "*" for alias in aliases):
                    return None
                names.update((alias.asname or alias.name).split(".")[0] for alias in aliases)
            case ast.Assign(targets=targets):
                names.update(n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While() | ast.Return():
                return None
            case _:
                pass
    return frozenset(names)
