"""Runs the functions that constants are made with: declarations, conditions, loops and changes of what they have made themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dipeo_nb.codegen.typescript import operators
from dipeo_nb.codegen.typescript.expressions import MAX_STEPS, Expressions, entries, names_of
from dipeo_nb.codegen.typescript.values import UNDEFINED, Closure, NotEvaluatedError, Scope, same, truthy

if TYPE_CHECKING:
    from tree_sitter import Node

NEXT, BREAK, CONTINUE = object(), object(), object()
"""How a statement ends, other than by returning a value."""


class Statements(Expressions):
    """Runs functions."""

    def run(self, callee: Closure, args: list[Any]) -> Any:
        node, scope = callee.node, callee.scope.within()
        if any(child.type in ("async", "*") for child in node.children):
            raise NotEvaluatedError(node, "it is async, or a generator")
        self._bind_parameters(node, args, scope)
        body = node.child_by_field_name("body")
        if body is None:
            raise NotEvaluatedError(node, "the function has no body")
        if body.type != "statement_block":
            return self.value(body, scope)
        ended = self._block(body, scope)
        return ended[0] if isinstance(ended, tuple) else UNDEFINED

    def _bind_parameters(self, node: Node, args: list[Any], scope: Scope) -> None:
        single = node.child_by_field_name("parameter")
        if single is not None:
            scope.names[scope.outline.source.text(single)] = args[0] if args else UNDEFINED
            return
        given = node.child_by_field_name("parameters")
        patterns = [] if given is None else [n for n in given.named_children if n.type.endswith("_parameter")]
        for at, parameter in enumerate(patterns):
            pattern, default = parameter.child_by_field_name("pattern"), parameter.child_by_field_name("value")
            if pattern is None or pattern.type == "this":
                raise NotEvaluatedError(parameter, "such a parameter is not evaluated")
            if pattern.type == "rest_pattern":
                self.bind(pattern.named_children[0], self.made(args[at:]), scope)
                return
            value = args[at] if at < len(args) else UNDEFINED
            if value is UNDEFINED and default is not None:
                value = self.value(default, scope)
            self.bind(pattern, value, scope)

    def bind(self, pattern: Node, value: Any, scope: Scope) -> None:
        """Give the names of a pattern their values."""
        match pattern.type:
            case "identifier" | "shorthand_property_identifier_pattern":
                scope.names[scope.outline.source.text(pattern)] = value
            case "object_assignment_pattern" | "assignment_pattern":
                left, right = pattern.child_by_field_name("left"), pattern.child_by_field_name("right")
                assert left is not None
                assert right is not None
                self.bind(left, self.value(right, scope) if value is UNDEFINED else value, scope)
            case "object_pattern":
                self._bind_object(pattern, value, scope)
            case "array_pattern":
                items = entries(value)
                for at, part in enumerate(_slots(pattern)):
                    if part is not None and part.type == "rest_pattern":
                        self.bind(part.named_children[0], self.made(items[at:]), scope)
                    elif part is not None:
                        self.bind(part, items[at] if at < len(items) else UNDEFINED, scope)
            case _:
                raise NotEvaluatedError(pattern, f"a {pattern.type.replace('_', ' ')} is not evaluated")

    def _bind_object(self, pattern: Node, value: Any, scope: Scope) -> None:
        if not isinstance(value, dict):
            raise NotEvaluatedError(pattern, "it takes apart a value other than an object")
        named: dict[str, Any] = value
        if "$expr" in named:
            raise NotEvaluatedError(pattern, "it takes apart what is not evaluated")
        taken: set[str] = set()
        for part in pattern.named_children:
            match part.type:
                case "shorthand_property_identifier_pattern":
                    key, target = scope.outline.source.text(part), part
                case "object_assignment_pattern":
                    left = part.child_by_field_name("left")
                    assert left is not None
                    key, target = scope.outline.source.text(left), part
                case "pair_pattern":
                    target = part.child_by_field_name("value")
                    assert target is not None
                    key = self._key(part, "key", scope)
                case "rest_pattern":
                    rest = {k: v for k, v in named.items() if k not in taken}
                    self.bind(part.named_children[0], self.made(rest), scope)
                    continue
                case "comment":
                    continue
                case _:
                    raise NotEvaluatedError(part, "such a pattern is not evaluated")
            taken.add(key)
            self.bind(target, named.get(key, UNDEFINED), scope)

    def _block(self, block: Node, scope: Scope) -> Any:
        """A tuple of the returned value; else NEXT, BREAK or CONTINUE."""
        for node in block.named_children:  # functions are known before the statements
            if node.type == "function_declaration":
                name = node.child_by_field_name("name")
                assert name is not None
                scope.names[scope.outline.source.text(name)] = Closure(node, scope)
        for node in block.named_children:
            ended = self._statement(node, scope)
            if ended is not NEXT:
                return ended
        return NEXT

    def _statement(self, node: Node, scope: Scope) -> Any:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise NotEvaluatedError(node, f"it takes more than {MAX_STEPS:,} steps")
        match node.type:
            case "comment" | "empty_statement" | "function_declaration" | "type_alias_declaration" | "interface_declaration":
                return NEXT
            case "return_statement":
                value = [child for child in node.named_children if child.type != "comment"]
                return (self.value(value[0], scope) if value else UNDEFINED,)
            case "lexical_declaration" | "variable_declaration":
                for each in node.named_children:
                    name, value = each.child_by_field_name("name"), each.child_by_field_name("value")
                    if name is not None:
                        self.bind(name, UNDEFINED if value is None else self.value(value, scope), scope)
                return NEXT
            case "if_statement":
                condition = node.child_by_field_name("condition")
                assert condition is not None
                chosen = node.child_by_field_name("consequence" if truthy(self.value(condition, scope)) else "alternative")
                if chosen is not None and chosen.type == "else_clause":
                    chosen = chosen.named_children[-1]
                return NEXT if chosen is None else self._statement(chosen, scope)
            case "statement_block":
                return self._nested(node, scope)
            case "expression_statement":
                self._effect(node.named_children[0], scope)
                return NEXT
            case "for_in_statement":
                return self._loop(node, scope)
            case "switch_statement":
                return self._switch(node, scope)
            case "break_statement":
                return BREAK
            case "continue_statement":
                return CONTINUE
            case _:
                raise NotEvaluatedError(node, f"a {node.type.replace('_', ' ')} is not evaluated")

    def _nested(self, node: Node, scope: Scope) -> Any:
        self._depth += 1
        try:
            if self._depth > 100:
                raise NotEvaluatedError(node, "it is nested too deeply")
            return self._block(node, scope.within())
        finally:
            self._depth -= 1

    def _loop(self, node: Node, scope: Scope) -> Any:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        body, sign = node.child_by_field_name("body"), node.child_by_field_name("operator")
        if left is None or right is None or body is None or sign is None or any(c.type == "await" for c in node.children):
            raise NotEvaluatedError(node, "such a loop is not evaluated")
        value = self.value(right, scope)
        for item in entries(value) if sign.type == "of" else names_of(value):
            inner = scope.within()
            self.bind(left, item, inner)
            ended = self._statement(body, inner)
            if ended is BREAK:
                break
            if isinstance(ended, tuple):
                return ended  # pyright: ignore[reportUnknownVariableType]
        return NEXT

    def _switch(self, node: Node, scope: Scope) -> Any:
        value, body = node.child_by_field_name("value"), node.child_by_field_name("body")
        assert value is not None
        assert body is not None
        wanted, inner = self.value(value, scope), scope.within()
        cases = [child for child in body.named_children if child.type in ("switch_case", "switch_default")]
        chosen = next((at for at, c in enumerate(cases) if c.type == "switch_case" and self._fits(c, wanted, inner)), None)
        if chosen is None:
            chosen = next((at for at, c in enumerate(cases) if c.type == "switch_default"), len(cases))
        for case in cases[chosen:]:
            for statement in case.children_by_field_name("body"):
                ended = self._statement(statement, inner)
                if ended is not NEXT:
                    return NEXT if ended is BREAK else ended
        return NEXT

    def _fits(self, case: Node, wanted: Any, scope: Scope) -> bool:
        value = case.child_by_field_name("value")
        return value is not None and same(self.value(value, scope), wanted)

    def _effect(self, node: Node, scope: Scope) -> None:
        match node.type:
            case "assignment_expression":
                left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
                assert left is not None
                assert right is not None
                self._assign(left, self.value(right, scope), scope)
            case "augmented_assignment_expression":
                left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
                sign = node.child_by_field_name("operator")
                assert left is not None
                assert right is not None
                assert sign is not None
                old = self.value(left, scope)
                match operator := sign.type[:-1]:
                    case "??" | "||" | "&&":
                        keep = (
                            (old is not None and old is not UNDEFINED)
                            if operator == "??"
                            else truthy(old) == (operator == "||")
                        )
                        if not keep:
                            self._assign(left, self.value(right, scope), scope)
                    case _:
                        self._assign(left, self._computed(node, operator, old, self.value(right, scope)), scope)
            case "update_expression":
                argument, sign = node.child_by_field_name("argument"), node.child_by_field_name("operator")
                assert argument is not None
                assert sign is not None
                self._assign(argument, self._computed(node, sign.type[0], self.value(argument, scope), 1), scope)
            case _:
                self.value(node, scope)

    def _computed(self, node: Node, operator: str, left: Any, right: Any) -> Any:
        try:
            return operators.binary(operator, left, right)
        except ValueError as error:
            raise NotEvaluatedError(node, str(error)) from error

    def _assign(self, target: Node, value: Any, scope: Scope) -> None:
        if target.type == "identifier":
            name, at = scope.outline.source.text(target), scope
            while at is not None:
                if name in at.names:
                    at.names[name] = value
                    return
                at = at.around
            raise NotEvaluatedError(target, "it changes a value of the module")
        if target.type not in ("member_expression", "subscript_expression"):
            raise NotEvaluatedError(target, "such an assignment is not evaluated")
        owner = target.child_by_field_name("object")
        assert owner is not None
        changed, key = self.value(owner, scope), self._member_name(target, scope)
        self.changeable(changed, target)
        if isinstance(changed, dict):
            changed[key] = value
        elif isinstance(changed, list) and key.isdecimal() and int(key) < len(changed):  # pyright: ignore[reportUnknownArgumentType]
            changed[int(key)] = value
        else:
            raise NotEvaluatedError(target, "such an assignment is not evaluated")


def _slots(pattern: Node) -> list[Node | None]:
    """The elements of an array pattern; None: one that is left out."""
    slots: list[Node | None] = [None]
    for child in pattern.children:
        if child.type == ",":
            slots.append(None)
        elif child.is_named and child.type != "comment":
            slots[-1] = child
    return slots
