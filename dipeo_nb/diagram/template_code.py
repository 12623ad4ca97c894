"""Python code of templates: as Jinja2 makes it, but for calls of our own functions."""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame


class TemplateCode(CodeGenerator):
    """Calls of what tags and `Counted` put into templates are plain calls, as no code of the author's runs there; all others go
    through the sandbox."""

    environment: Any
    """A `SandboxEnvironment`."""

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:
        called = node.node
        own = isinstance(called, nodes.EnvironmentAttribute) or (
            isinstance(called, nodes.Name) and called.ctx == "load" and called.name in self.environment.called_by_tags
        )
        if not own or forward_caller or node.kwargs or node.dyn_args or node.dyn_kwargs:
            super().visit_Call(node, frame, forward_caller=forward_caller)
            return
        self.visit(called, frame)
        self.write("(")
        for argument in node.args:
            self.visit(argument, frame)
            self.write(", ")
        self.write(")")

    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:
        if node.name not in ("defined", "undefined") or node.args or node.kwargs or node.dyn_args or node.dyn_kwargs:
            super().visit_Test(node, frame)
            return
        self.write("(not isinstance(" if node.name == "defined" else "(isinstance(")
        self.visit(node.node, frame)
        self.write(", Undefined))")

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        if not self._gives_text(node):
            super()._output_child_pre(node, frame, finalize)

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> None:
        if not self._gives_text(node):
            super()._output_child_post(node, frame, finalize)

    def _gives_text(self, node: nodes.Expr) -> bool:
        """Whether it is a tag of a prompt, whose text is not made again."""
        called = node.node if isinstance(node, nodes.Call) else None
        return isinstance(called, nodes.Name) and called.name in ("_out", "_named") and bool(self.environment.called_by_tags)
