"""condition: chooses a branch and passes its input through unchanged."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import Any, cast

from dipeo_nb.diagram import graph
from dipeo_nb.diagram.expressions import parse
from dipeo_nb.domain.chat import ChatMessage
from dipeo_nb.domain.decision import DECISION_SCHEMA, DEFAULT_DECISION, decided, decision_prompt
from dipeo_nb.domain.enums import ConditionType, ExecutionPhase
from dipeo_nb.domain.nodes import ConditionNode
from dipeo_nb.errors import ExpressionError, NodeExecutionError
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.evaluation import holds
from dipeo_nb.execution.handlers.person_job import remembered
from dipeo_nb.execution.inputs import VARIABLES, Arrived, Output, as_text, plain
from dipeo_nb.execution.sent_prompts import show_prompt

DETECT_MAX_ITERATIONS, CHECK_NODES_EXECUTED = ConditionType.DETECT_MAX_ITERATIONS, ConditionType.CHECK_NODES_EXECUTED
LLM_DECISION = ConditionType.LLM_DECISION
_TRUE, _FALSE = ("condtrue",), ("condfalse",)
"""What an output leaves on."""
PURE = True


def execute(context: NodeContext) -> Output | Coroutine[Any, Any, Output]:
    spec = cast(ConditionNode, context.node.spec)
    if spec.expose_index_as:
        context.publish(spec.expose_index_as, context.run - 1)
    kind = spec.condition_type
    if kind == DETECT_MAX_ITERATIONS:
        return _branched(context, _all_at_limit(context))
    if kind == CHECK_NODES_EXECUTED:
        return _branched(context, _all_executed(context, spec))
    if kind == LLM_DECISION:
        return _decide(context, spec)
    answer = _holds(context, spec.expression or "")
    return _branched(context, answer) if isinstance(answer, bool) else _awaited(context, answer)


def _branched(context: NodeContext, decision: bool, **meta: Any) -> Output:
    """What came in leaves on the chosen branch: the same value, text and conversation, no level deeper."""
    handles = _TRUE if decision else _FALSE
    meta["branch"] = branch = handles[0]
    context.publish(f"branch[{context.node.id}]", branch)
    arrived = context.inputs.arrived
    one = arrived[0] if len(arrived) == 1 else _only_fresh(arrived)
    if one is None:
        return Output(plain(context.inputs.body), handles=handles, meta=meta)
    output = one[5]
    if not VARIABLES.isdisjoint(output[3]):
        meta["variables_of_run"] = True
    return Output(output[0], output[1], handles, meta, output[4], output[5])


def _only_fresh(arrived: Sequence[Arrived]) -> Arrived | None:
    """The only input that is fresh, if there is just one and it has no label."""
    fresh = [item for item in arrived if item.fresh]
    return fresh[0] if len(fresh) == 1 and not fresh[0].edge.label else None


def _all_at_limit(context: NodeContext) -> bool:
    """Every person_job that the condition judges and that has run has reached its limit (and at least one has run)."""
    execution = context.execution
    judged = graph.judged_by(execution.plan.nodes, execution.plan.edges, context.node)
    started = [n for n in judged if execution.progress.completed_runs(n)]
    return bool(started) and all(execution.progress.completed_runs(n) >= (n.max_runs or 1) for n in started)


def _all_executed(context: NodeContext, spec: ConditionNode) -> bool:
    execution = context.execution
    try:
        nodes = [execution.plan.node(reference) for reference in spec.node_indices]
    except KeyError as error:
        raise NodeExecutionError(
            f"node_indices names {error}, which is not a node.",
            hint=f"Nodes: {', '.join(n.label for n in execution.plan.nodes)}.",
        ) from None
    return all(execution.progress.completed_runs(n) for n in nodes)


async def _awaited(context: NodeContext, answer: Awaitable[bool]) -> Output:
    return _branched(context, await answer)


def _holds(context: NodeContext, expression: str) -> bool | Awaitable[bool]:
    for name in parse(expression).names if context.assigned.names else ():
        # An unknown name is None; what code has set to something else must not count as that.
        if name not in context.names and (why := context.assigned.unshown(name)):
            raise NodeExecutionError(
                f"The expression names what it cannot see: {why}.",
                hint="Set a further variable in the code: a number, text, list or mapping made of it.",
            )

    # A label may hide a variable of the same name that the expression means: the sample simple_iter_code labels
    # the edge `a` with a text and asks `a > 10` of the variable `a`. Variables win in upstream.
    def hidden() -> Mapping[str, Any] | None:
        variables = context.variables
        return variables if any(name in variables for name in context.inputs.names({})) else None

    try:
        answer = holds(expression, context.names_as_read, hidden)
    except ExpressionError as error:
        raise _explained(context, expression, error) from error.__cause__
    return answer if isinstance(answer, bool) else _explaining(context, expression, answer)


async def _explaining(context: NodeContext, expression: str, answer: Awaitable[bool]) -> bool:
    try:
        return await answer
    except ExpressionError as error:
        raise _explained(context, expression, error) from error.__cause__


def _explained(context: NodeContext, expression: str, error: ExpressionError) -> ExpressionError:
    """The error, with a hint when a name was to come by an arrow that has brought nothing yet: conditions wait for no arrow."""
    plan, names = context.execution.plan, context.names
    for edge in (plan.edges[i] for i in context.node.incoming):
        if edge.label and edge.label not in names and edge.label in parse(expression).names:
            error.hint = (
                f"A condition runs for each value that reaches it: '{edge.label}' had not come from '{plan.nodes[edge.source].label}' yet. "
                "Let one node before the condition take all that it compares."
            )
            break
    return error


async def _decide(context: NodeContext, spec: ConditionNode) -> Output:
    """The branch that a person chooses. An answer in words is read; one that says neither yes nor no takes condfalse."""
    if not spec.person or not spec.judge_by:
        raise NodeExecutionError("An llm_decision needs a `person` and a `judge_by` prompt.", hint="Add them to the condition.")
    person = context.execution.person(spec.person)
    names = context.names
    content = names.get("default", names.get("generated_output"))
    if content is None:
        content = dict(context.inputs.values)
    question = await context.rendered(spec.judge_by)
    prompt = decision_prompt(question, as_text(content))
    messages = [ChatMessage("system", person.llm.system_prompt)] if person.llm.system_prompt else []
    memory = await remembered(context, person, spec.memorize_to, spec.at_most, None, prompt)
    messages += [*memory.messages, ChatMessage("user", prompt)]
    show_prompt(context, person, prompt, memory.facts)
    response = await context.complete(
        person.asked(
            messages,
            max_tokens=person.llm.max_tokens,
            response_format=DECISION_SCHEMA,
            allow_prose=True,
            phase=ExecutionPhase.DECISION_EVALUATION,
            stop=(),  # it could cut the decision
            context={"person": person.label, "node": context.node.label, "run": context.run},
        )
    )
    decision = decided(response.structured, response.text, question)
    facts = {"person_id": person.id, "prompt": prompt, "answer": response.text, "memory": memory.facts}
    if decision is None:
        decision, facts["decided_by"] = DEFAULT_DECISION, "default"
        context.log(
            "WARNING",
            f"The answer is neither yes nor no, so condfalse is taken: {' '.join(response.text.split())[:200]!r}. "
            "Ask for a yes or a no in judge_by, or use a model that can answer in JSON.",
        )
    return _branched(context, decision, **facts, **context.spent())
