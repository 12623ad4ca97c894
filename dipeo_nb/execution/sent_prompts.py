"""What a model is sent when a turn of a person begins, for the log: the prompt, where its parts come from, and what goes with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dipeo_nb.common.redaction import redactor
from dipeo_nb.diagram.printed_values import printed_values
from dipeo_nb.diagram.templates import SimpleTemplateProcessor
from dipeo_nb.domain.diagram import DomainPerson
from dipeo_nb.domain.nodes import StartNode
from dipeo_nb.domain.payloads import PromptData, PromptVariable
from dipeo_nb.execution.context import NodeContext
from dipeo_nb.execution.inputs import Inputs

_OF_RUN = frozenset({"inputs", "globals", "local", "global_conversation", "global_message_count"})
"""Names that every node has."""


def show_prompt(
    context: NodeContext,
    person: DomainPerson,
    prompt: str,
    memory: Mapping[str, Any],
    *,
    template: str = "",
    names: Mapping[str, Any] | None = None,
    index: int | None = None,
) -> None:
    """Show that a turn begins, and what the model gets.

    Args:
        memory: what of the conversation the person is shown; see `handlers.person_job.Remembered.facts`.
        template: from which the prompt was made, with *names*.
        index: of the item of a batch.
    """
    model = person.llm.model
    data: PromptData = {
        "person_id": person.id,
        "model": f"{person.llm.service}:{model}" if model else person.llm.service,
        "memory": memory,
    }
    system = person.llm.system_prompt
    if system and context.execution.journal.state.systems.get(person.id) != redactor(system):
        data["system"] = system
    if "{" in template:
        data["template"] = template
        data["variables"] = _variables(context, template, context.names if names is None else names, prompt)
    if index is not None:
        data["index"] = index
    shown = prompt, data
    if context.prompts.get(index) != shown:  # a retry sends the same once more
        context.prompts[index] = shown
        context.show({"kind": "prompt", "text": prompt, "run": context.run, "data": data})


def _variables(context: NodeContext, template: str, names: Mapping[str, Any], prompt: str) -> Sequence[PromptVariable]:
    if type(context.services.templates) is not SimpleTemplateProcessor:  # one of the user's own has its own tags
        return []
    hidden = redactor(prompt) is not prompt  # what is recorded has other places
    found: list[PromptVariable] = []
    for tag, name, start, end in printed_values(template, names, prompt):
        variable: PromptVariable = {"tag": tag, "name": name}
        if not hidden:
            variable["start"], variable["end"] = start, end
        if (origin := _origin(context, names, name)) is not None:
            variable.update(origin)
        found.append(variable)
    return found


def _origin(context: NodeContext, names: Mapping[str, Any], name: str) -> Any:
    """Where a name comes from, by the precedence that `context.names` has; None: from nowhere outside the template."""
    if name not in names:
        return None
    if names is not context.names and context.names.get(name) is not names[name]:
        return {"origin": "item"}
    inputs, execution = context.inputs, context.execution
    given = execution.options.variables
    if inputs.variables_arrive and name in given and (name in inputs.spread or name in inputs.passed):
        return {"origin": "input"}
    if (source := _source(inputs, name)) is not None:
        return {"origin": "node", "node": source[0], "run": source[1]}
    if (change := context.assigned.names.get(name)) is not None:
        return {"origin": "code", "node": execution.plan.nodes[change.order[1]].id, "run": change.order[2]}
    if name in given:
        return {"origin": "input"}
    if name in _OF_RUN and name not in execution.progress.variables:
        return {"origin": "run"}
    nodes = execution.plan.nodes
    setting = [nodes[i].id for i in execution.plan.roots if isinstance(s := nodes[i].spec, StartNode) and _sets(s, name)]
    return {"origin": "variable", **({"node": setting[-1]} if setting else {})}


def _sets(start: StartNode, name: str) -> bool:
    return isinstance(start.custom_data, Mapping) and name in start.custom_data


def _source(inputs: Inputs, name: str) -> tuple[str, int] | None:
    """The node, and its run, whose output a name is or is a part of."""
    arrived = inputs.arrived
    if name in inputs.values or name in inputs.passed:
        label = "default" if name in inputs.passed else name
        named = [
            a for a in arrived if (a.edge.label or "default") == label or (not a.edge.label and a.edge.target_handle == label)
        ]
    elif name in inputs.spread:
        value = inputs.spread[name]
        named = [a for a in arrived if a.source_label == name and not a.edge.label] or [
            a for a in arrived if isinstance(body := a.output.body, Mapping) and name in body and body[name] is value
        ]
        named = (
            named or [a for a in arrived if isinstance(body := a.output.body, Mapping) and name in body] or list(arrived[-1:])
        )
    else:
        return None
    named = [a for a in named if a.fresh] or named
    return (named[-1].source_id, named[-1].run) if named else None
