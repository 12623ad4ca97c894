"""Runs as OpenTelemetry traces: the real exporter, sending to a collector of its protocol on the loopback."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import dipeo_nb as dp
from dipeo_nb.config import Settings, get_settings
from dipeo_nb.domain.enums import EventType as T
from dipeo_nb.domain.events import Event
from dipeo_nb.events.telemetry import Telemetry
from dipeo_nb.testing import scripted

WRITE = """
version: light
metadata: {name: Letters}
persons:
  Ada: {service: openai, model: gpt-5-nano, system_prompt: You write.}
nodes:
- {label: Start, type: start}
- {label: Write, type: person_job, person: Ada, default_prompt: "A secret recipe for {{dish}}"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Write}
- {from: Write, to: End}
"""
PLAIN = """
version: light
nodes:
- {label: S, type: start}
- {label: E, type: endpoint}
connections:
- {from: S, to: E}
"""
NESTED = """
version: light
metadata: {name: Outer}
nodes:
- {label: Start, type: start}
- {label: Inside, type: sub_diagram, diagram_name: inner}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Inside}
- {from: Inside, to: End}
"""
FAILS = """
version: light
metadata: {name: Fails}
nodes:
- {label: Start, type: start}
- {label: Break, type: code_job, language: python, code: "raise ValueError('private words')"}
- {label: End, type: endpoint}
connections:
- {from: Start, to: Break}
- {from: Break, to: End}
"""


class Collector:
    """Takes OTLP over HTTP and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.bodies = b""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, body: bytes) -> None:
        self.bodies += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    yield made
    made.close()


def traced(**options: Any) -> Settings:
    return get_settings().model_copy(update={"otel": True, **options})


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_a_run_arrives_at_a_collector(collector: Collector):
    """One trace: the run, its nodes in it, with model, tokens, cost and times; and no word of what was said."""
    session = dp.Session(settings=traced(), llm=scripted(["Take two eggs."]))
    with session.runtime:
        run = session.run(WRITE, dish="soup")
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"run Letters", "start Start", "person_job Write", "endpoint End"}
    root, write = spans["run Letters"], spans["person_job Write"]
    assert len({span.trace_id for span in spans.values()}) == 1
    assert not root.parent_span_id
    assert all(span.parent_span_id == root.span_id for name, span in spans.items() if span is not root)
    assert attributes(root) == {
        "dipeo.run.id": run.id, "dipeo.diagram": "Letters", "dipeo.run.resumed": False, "dipeo.run.status": "completed",
    }  # fmt: skip
    of_model = attributes(write)
    assert of_model["dipeo.node.label"] == "Write"
    assert of_model["gen_ai.agent.name"] == "Ada"
    assert of_model["gen_ai.operation.name"] == "invoke_agent"
    assert of_model["gen_ai.usage.output_tokens"] == run.usage.output
    events = {one.node_id: one for one in run.events if one.type == T.NODE_STARTED}
    assert write.start_time_unix_nano == pytest.approx(events[of_model["dipeo.node.id"]].occurred_at * 1e9, abs=1000)
    assert root.start_time_unix_nano <= write.start_time_unix_nano <= write.end_time_unix_nano <= root.end_time_unix_nano
    assert collector.services == {"dipeo_nb"}
    for private in (b"secret recipe", b"soup", b"two eggs", b"You write"):
        assert private not in collector.bodies


def test_what_fails(collector: Collector):
    """Node and run say so, with the kind of error and not its words."""
    session = dp.Session(settings=traced())
    with session.runtime, pytest.raises(dp.RunError):
        session.run(FAILS, trust=True)
    spans = {span.name: span for span in collector.spans}
    for name in ("code_job Break", "run Fails"):
        assert spans[name].status.code == 2, "an error"
        assert attributes(spans[name])["error.type"]
    assert attributes(spans["run Fails"])["dipeo.run.status"] == "failed"
    assert b"private words" not in collector.bodies


def test_the_programs_span_is_the_parent(collector: Collector):
    """A run begun within a span of the program belongs to its trace."""
    tracer = TracerProvider().get_tracer("program")
    session = dp.Session(settings=traced(), llm=scripted(["x"]))
    with session.runtime:
        with tracer.start_as_current_span("work") as own:
            session.run(WRITE, dish="soup")
        session.run(PLAIN)
    spans = {span.name: span for span in collector.spans}
    context = own.get_span_context()
    run = spans["run Letters"]
    assert int.from_bytes(run.parent_span_id) == context.span_id
    assert {int.from_bytes(span.trace_id) for span in (run, spans["person_job Write"])} == {context.trace_id}
    assert not spans["run diagram"].parent_span_id


def test_nodes_that_are_cut_off():
    """Their spans end with the run's, as errors."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(provider)
    telemetry.watch("r")
    telemetry(Event(1, T.EXECUTION_STARTED, "r", 1.0, None, {"diagram": "d"}))
    telemetry(Event(2, T.NODE_STARTED, "r", 2.0, "n", {"label": "N", "node_type": "hook", "run": 1}))
    telemetry(Event(3, T.NODE_STARTED, "r", 2.0, "m", {"label": "M", "node_type": "person_job", "run": 1}))
    meta = {"usage": {"input": 1}, "model": "gpt-5-nano-2025-08-07", "requested_model": "gpt-5-nano"}
    telemetry(Event(4, T.NODE_COMPLETED, "r", 2.5, "m", {"meta": meta}))
    telemetry(Event(5, T.EXECUTION_ERROR, "r", 3.0, None, {"status": "aborted"}))
    done, cut_off, _ = exporter.get_finished_spans()
    assert (done.attributes or {})["gen_ai.request.model"] == "gpt-5-nano"
    assert (done.attributes or {})["gen_ai.response.model"] == "gpt-5-nano-2025-08-07"
    assert (cut_off.name, cut_off.status.status_code.name, cut_off.end_time) == ("hook N", "ERROR", 3_000_000_000)
    assert (cut_off.attributes or {})["error.type"] == "aborted"


def test_sub_diagrams_stand_in_their_node(collector: Collector):
    settings = traced()
    (settings.base_dir / "inner.light.yaml").write_text(
        "version: light\nmetadata: {name: Inner}\nnodes:\n- {label: Start, type: start}\n- {label: End, type: endpoint}\n"
        "connections:\n- {from: Start, to: End}\n"
    )
    session = dp.Session(settings=settings)
    with session.runtime:
        session.run(NESTED)
    spans = {span.name: span for span in collector.spans}
    assert spans["run Inner"].parent_span_id == spans["sub_diagram Inside"].span_id
    assert len({span.trace_id for span in spans.values()}) == 1


def test_off_unless_asked_for(collector: Collector):
    """Nothing is sent, and nothing is imported."""
    code = (
        "import sys, dipeo_nb as dp; dp.run(sys.argv[1]); "
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code, PLAIN], check=True, timeout=60)
    assert collector.spans == []


def test_a_program_that_just_ends(collector: Collector):
    """The setting is all it takes; what was not sent when the program ends is sent then."""
    import os

    environment = os.environ | {"DIPEO_OTEL": "1", "OTEL_SERVICE_NAME": "mine"}
    code = "import sys, dipeo_nb as dp; dp.run(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, PLAIN], check=True, timeout=60, env=environment)
    assert {span.name for span in collector.spans} == {"run diagram", "start S", "endpoint E"}
    assert collector.services == {"mine"}


def test_a_collector_that_is_not_there(monkeypatch: pytest.MonkeyPatch):
    """Costs the run nothing."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    session = dp.Session(settings=traced(), llm=scripted(["x"]))
    with session.runtime:
        assert session.run(WRITE, dish="soup").status == "completed"


def test_the_programs_own_provider_and_runs_of_others():
    """It is used when given; runs that nobody asked to watch (another process's, on a shared bus) make no spans; a run that was cut
    off and is gone on with gets a span of its own."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = Telemetry(provider)
    telemetry.watch("mine")

    def tell(run: str, *kinds: tuple[T, dict[str, Any]]) -> None:
        for n, (kind, payload) in enumerate(kinds, 1):
            telemetry(Event(n, kind, run, 1000.0 + n, "n" if kind.name.startswith("NODE") else None, payload))

    started = (T.EXECUTION_STARTED, {"diagram": "d"})
    node = (T.NODE_STARTED, {"label": "N", "node_type": "start", "run": 1})
    tell("theirs", started, node, (T.EXECUTION_COMPLETED, {"status": "completed"}))
    assert exporter.get_finished_spans() == ()
    tell("mine", started, node, (T.EXECUTION_STARTED, {"diagram": "d", "resumed": 2}), node,
         (T.NODE_COMPLETED, {"meta": {}}), (T.EXECUTION_COMPLETED, {"status": "completed"}))  # fmt: skip
    assert [span.name for span in exporter.get_finished_spans()] == ["start N", "run d"]
    assert exporter.get_finished_spans()[1].attributes["dipeo.run.resumed"] is True  # pyright: ignore[reportOptionalSubscript]
