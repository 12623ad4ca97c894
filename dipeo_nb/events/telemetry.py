"""Runs as OpenTelemetry traces (extra `otel`, off by default; the one module that imports opentelemetry).

A run is a span, each run of a node a child span, a run of a sub-diagram a child of its node. Prompts, answers and other contents
are never exported; names, times, states, models, tokens and costs are. Attributes of models follow the semantic conventions for
generative AI (https://opentelemetry.io/docs/specs/semconv/gen-ai/), the others begin with `dipeo.`.

The destination is configured by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME …), unless the
program has set up a tracer provider, which is then used.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from dipeo_nb.domain.enums import EventType, Status
from dipeo_nb.domain.events import FINAL_EVENTS, Event
from dipeo_nb.domain.llm_providers import facts_of, normalize_service
from dipeo_nb.domain.payloads import (
    ExecutionCompleted,
    ExecutionError,
    ExecutionStarted,
    NodeCompleted,
    NodeError,
    NodeMeta,
    NodeStarted,
    RunOutput,
)
from dipeo_nb.errors import MissingDependencyError

FLUSH_MS = 5000
"""Milliseconds that closing waits for the collector."""


class Telemetry:
    """Event handler that creates spans of watched runs, and of what runs inside them.

    Args:
        provider: an OpenTelemetry `TracerProvider`; default: the program's, else one that sends by OTLP over HTTP.

    Raises:
        MissingDependencyError: OpenTelemetry is not installed.
    """

    def __init__(self, provider: Any = None) -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise MissingDependencyError.for_extra("opentelemetry-sdk", extra="otel") from error
        self._trace = trace
        self._own: Any = None
        if provider is None:
            provider = trace.get_tracer_provider()
            if isinstance(provider, trace.ProxyTracerProvider):  # none has been set up
                provider = self._own = _exporting()
        self._tracer = provider.get_tracer("dipeo_nb")
        self._watched: set[str] = set()
        self._runs: dict[str, Any] = {}
        self._nodes: dict[str, dict[str, Any]] = {}
        """Run → node → span of its current run."""
        self._parents: dict[str, Any] = {}

    def watch(self, run_id: str) -> None:
        """Create spans of this run: a bus may bring events of runs of other processes, which have their own telemetry.

        The span of the program that is active now is the parent of the run's.
        """
        self._watched.add(run_id)
        active = self._trace.get_current_span()
        if active.get_span_context().is_valid:
            self._parents.setdefault(run_id, active)

    async def close(self) -> None:
        """Send unsent spans. A provider of the program is left alone."""
        if self._own is not None:
            await asyncio.to_thread(self._own.force_flush, FLUSH_MS)
            await asyncio.to_thread(self._own.shutdown)

    def __call__(self, event: Event) -> None:
        if event.run_id not in self._watched:
            return
        match event.type:
            case EventType.EXECUTION_STARTED:
                self._run_started(event)
            case EventType.NODE_STARTED:
                self._node_started(event)
            case EventType.NODE_COMPLETED | EventType.NODE_ERROR:
                self._node_ended(event)
            case EventType.NODE_OUTPUT if event.output_kind == "run":
                child = cast(RunOutput, event.payload)["data"]["run_id"]
                self._watched.add(child)
                self._parents[child] = self._nodes.get(event.run_id, {}).get(event.node_id or "")
            case kind if kind in FINAL_EVENTS:
                self._run_ended(event)
            case _:
                pass

    def _run_started(self, event: Event) -> None:
        p = cast(ExecutionStarted, event.payload)
        self._nodes[event.run_id] = {}  # an earlier part of the run may have left some open
        attributes = {
            "dipeo.run.id": event.run_id,
            "dipeo.diagram": p.get("diagram") or "",
            "dipeo.run.resumed": "resumed" in p,
        }
        self._runs[event.run_id] = self._tracer.start_span(
            f"run {p.get('diagram') or 'diagram'}",
            context=self._within(self._parents.pop(event.run_id, None)),
            start_time=_ns(event),
            attributes=attributes,
        )

    def _node_started(self, event: Event) -> None:
        p, node = cast(NodeStarted, event.payload), event.node_id or ""
        if (run := self._runs.get(event.run_id)) is None:
            return
        attributes = {
            "dipeo.run.id": event.run_id,
            "dipeo.node.id": node,
            "dipeo.node.label": p.get("label", node),
            "dipeo.node.type": p.get("node_type", ""),
            "dipeo.node.run": p.get("run", 1),
        }
        self._nodes[event.run_id][node] = self._tracer.start_span(
            f"{p.get('node_type', 'node')} {p.get('label', node)}",
            context=self._within(run),
            start_time=_ns(event),
            attributes=attributes,
        )

    def _node_ended(self, event: Event) -> None:
        span = self._nodes.get(event.run_id, {}).pop(event.node_id or "", None)
        if span is None:
            return  # nothing ran: the last output was passed on
        p = cast("NodeCompleted | NodeError", event.payload)
        span.set_attributes(_of_model(p.get("meta", {})))
        if "error" in p:
            self._failed(span, p["error"].get("type", "error"))
        span.end(_ns(event))

    def _run_ended(self, event: Event) -> None:
        span = self._runs.pop(event.run_id, None)
        self._watched.discard(event.run_id)
        if span is None:
            return
        for left in self._nodes.pop(event.run_id, {}).values():
            self._failed(left, Status.ABORTED)
            left.end(_ns(event))
        p = cast("ExecutionCompleted | ExecutionError", event.payload)
        span.set_attribute("dipeo.run.status", str(p.get("status", Status.COMPLETED)))
        if "error" in p:
            self._failed(span, p["error"].get("type", "error"))
        span.end(_ns(event))

    def _failed(self, span: Any, error_type: str) -> None:
        # The message is ours or a service's, with secrets taken out; it may quote what a node was given, so it stays here.
        span.set_attribute("error.type", error_type)
        span.set_status(self._trace.StatusCode.ERROR)

    def _within(self, span: Any) -> Any:
        """Return the context of a span; without one an empty context rather than the caller's."""
        from opentelemetry.context import Context

        return Context() if span is None else self._trace.set_span_in_context(span, Context())


def _of_model(meta: NodeMeta) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if "retries" in meta:
        attributes["dipeo.node.retries"] = meta["retries"]
    if (usage := meta.get("usage")) is None:
        return attributes
    attributes["gen_ai.operation.name"] = "invoke_agent"
    if provider := meta.get("provider"):
        attributes["gen_ai.provider.name"] = facts_of(normalize_service(provider)).telemetry_name or provider
    if model := meta.get("model"):
        attributes["gen_ai.request.model"] = meta.get("requested_model", model)
        attributes["gen_ai.response.model"] = model
    if person := meta.get("person"):
        attributes["gen_ai.agent.name"] = person
    # Ours are disjoint; the conventions count cached tokens and reasoning in.
    attributes["gen_ai.usage.input_tokens"] = sum(usage.get(k) or 0 for k in ("input", "cache_read", "cache_write"))
    attributes["gen_ai.usage.output_tokens"] = sum(usage.get(k) or 0 for k in ("output", "reasoning"))
    if (cost := meta.get("cost_usd")) is not None:
        attributes["dipeo.cost_usd"] = cost
    return attributes


def _exporting() -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingDependencyError.for_extra("opentelemetry-exporter-otlp-proto-http", extra="otel") from error
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):  # it has no name
        resource = resource.merge(Resource({"service.name": "dipeo_nb"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _ns(event: Event) -> int:
    return int(event.occurred_at * 1e9)
