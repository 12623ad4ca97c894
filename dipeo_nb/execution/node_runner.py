"""Does the work of a node: begins its handler, within its time limit, again as its `retries` say; or takes the result over from
another run. No scheduling and no store: what comes of it is for the engine to record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, cast

from dipeo_nb.common import user_code
from dipeo_nb.common.redaction import redactor
from dipeo_nb.domain.events import Event
from dipeo_nb.domain.payloads import NodeCompleted, Turn
from dipeo_nb.domain.plan import PlanNode
from dipeo_nb.errors import BudgetExceededError, NodeTimeoutError
from dipeo_nb.execution import handlers, log_capture
from dipeo_nb.execution.context import NodeContext, RunScope
from dipeo_nb.execution.conversation import as_record
from dipeo_nb.execution.evaluation import SlowEvaluationError
from dipeo_nb.execution.handlers import Handler
from dipeo_nb.execution.inputs import Output
from dipeo_nb.execution.record import message_of, output_of, published
from dipeo_nb.execution.run_errors import as_run_error, describe

enter, leave = log_capture.enter, log_capture.leave
_new = tuple.__new__
"""Makes a named tuple in half the time."""
LONGEST_RETRY_S = 60.0
"""Seconds between two attempts at most."""


class NodeRunner:
    """Of one run."""

    def __init__(self, scope: RunScope) -> None:
        self._scope = scope
        self._gate, self._plan, self._hear = scope.gate, scope.plan, scope.hear
        self._reuse = scope.options.reuse
        self._places: dict[int, log_capture.Place] = {}
        """Where the work of a node logs to."""
        self._handlers: dict[str, Handler] = {}
        """What does the work of a type of node."""
        self._renamed: dict[str, str] = {}
        """Ids of messages that were taken over from the log of another run → theirs here."""

    def begin(self, context: NodeContext) -> Output | Coroutine[Any, Any, Output]:
        """Begin the work of a run of a node: its output at once, or what `finish` is to await.

        Raises:
            Exception: whatever it is, the node has failed.
        """
        node = context.node
        if self._reuse and (event := self._reuse.get((node.index, context.run))) is not None:
            return self._taken_over(context, event)
        self._gate.check(node, self._plan)
        execute = self._handlers.get(node.type) or self._handler_of(context)
        token = enter(self._places.get(node.index) or self._place_of(node))
        try:
            return self._repeated(context) if node.spec.retries else execute(context)
        except SlowEvaluationError as slow:
            return handlers.go_on(context, slow)
        except BaseException as error:
            if (failure := user_code.as_failure(error)) is error:
                raise
            raise failure from error
        finally:
            leave(token)

    def _handler_of(self, context: NodeContext) -> Handler:
        found = self._handlers[context.node.type] = handlers.handler_of(context)
        return found

    def _place_of(self, node: PlanNode) -> log_capture.Place:
        found = self._places[node.index] = _new(log_capture.Place, (self._hear, node))
        return found

    async def finish(self, context: NodeContext, work: Awaitable[Output]) -> Output:
        """What was begun, to its end. For a task that does nothing else.

        Raises:
            Exception: as `begin`.
        """
        log_capture.enter(self._places[context.node.index])
        return await (work if context.node.spec.retries else self._in_time(context, work))

    async def _in_time(self, context: NodeContext, work: Awaitable[Output]) -> Output:
        node = context.node
        limit = handlers.time_limit(node, self._scope.options.node_timeout)
        scope = asyncio.timeout(limit)
        try:
            async with scope:
                return await user_code.awaited(handlers.complete(context, work))
        except TimeoutError as error:
            if not scope.expired():
                raise
            notes = getattr(error.__cause__, "__notes__", ())
            raise NodeTimeoutError(
                f"'{node.label}' took longer than its limit of {limit:g} s.",
                hint=" ".join(notes) or "Give the node a larger `timeout`, or raise DIPEO_NODE_TIMEOUT.",
                node=node.label,
            ) from error

    async def _repeated(self, context: NodeContext) -> Output:
        """The node's work, tried again as its `retries` say; each try has the node's whole time."""
        node = context.node
        for retry in range(node.spec.retries + 1):
            context.last_try = retry == node.spec.retries
            try:
                with user_code.contained():
                    result = handlers.begin(context, self._handlers[node.type])
                output = result if isinstance(result, Output) else await self._in_time(context, result)
            except BudgetExceededError:
                raise
            except Exception as error:
                if context.last_try:
                    raise
                await self._pause(context, error, retry)
            else:
                return output._replace(meta={**output.meta, "retries": retry}) if retry else output
        raise AssertionError("unreachable: the last try returns or raises")

    async def _pause(self, context: NodeContext, error: Exception, retry: int) -> None:
        """Say that it is tried again, and wait."""
        node: PlanNode = context.node
        ours = as_run_error(error, node)
        redactor.error(ours)
        wait = min(node.spec.retry_delay * 2**retry, LONGEST_RETRY_S)
        context.log(
            "WARNING",
            f"{ours.message} Trying again in {wait:g} s ({retry + 1} of {node.spec.retries}).",
            retry=retry + 1,
            error=describe(ours, node.label),
        )
        await asyncio.sleep(wait)
        context.attempt += 1

    # Results of another run.

    def _taken_over(self, context: NodeContext, event: Event) -> Output:
        """A finished run of the node from another run's log; it costs nothing again."""
        completed = cast(NodeCompleted, event.payload)
        log = self._scope.progress.log
        facts = completed.get("meta", {}).items()
        meta: dict[str, Any] = {k: v for k, v in facts if k not in ("usage", "cost_usd", "calls")}
        renamed = {
            record["id"]: log.add(m.from_person_id, m.to_person_id, m.content, timestamp=m.timestamp, node_id=m.node_id)
            for record in meta.get("messages", ())
            for m in (message_of(record),)
        }
        if renamed:
            meta["messages"] = [as_record(m) for m in renamed.values()]
            self._renamed.update({old: m.id for old, m in renamed.items()})
        if "memory" in meta:
            meta["memory"] = self._memory_here(meta["memory"])
        if "turns" in meta:  # of the items of a batch
            meta["turns"] = [self._turn_here(turn) for turn in meta["turns"]]
        meta["reused"] = {"run_id": event.run_id, "seq": event.seq}
        point = completed.get("conversation")
        if point is not None:
            point = {**point, "upto": len(log.messages)}
        for name, value in published(context.node, completed).items():
            context.publish(name, value)
        return output_of(cast(NodeCompleted, {**completed, "meta": meta, "conversation": point}), log)

    def _turn_here(self, turn: Turn) -> Mapping[str, Any]:
        log = self._scope.progress.log
        now = {old: as_record(m) for old, new in self._renamed.items() if (m := log.get(new)) is not None}
        return {
            **turn,
            **({"memory": self._memory_here(turn["memory"])} if "memory" in turn else {}),
            "messages": [now.get(m["id"], m) for m in turn.get("messages", ())],
        }

    def _memory_here(self, memory: Any) -> Any:
        """What a person brought along to a turn of another run, with the ids that its messages have here."""
        if not isinstance(memory, Mapping):
            return memory
        ids = {k: [self._renamed.get(i, i) for i in memory[k]] for k in ("ids", "brought") if k in memory}
        return {**memory, **ids}
