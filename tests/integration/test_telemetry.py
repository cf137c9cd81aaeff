"""Metrics, health, logs and traces of a real resident process, with a collector that fails like a real one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from harness.resident import Resident, resident
from interlock.core.errors import Denied, InterlockError
from interlock.engine.metrics import METRICS
from interlock.interfaces.local.client import Connection

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


class Collector:
    """Takes OTLP over HTTP. `answer` is the status that it gives; `hang` keeps it from answering at all."""

    def __init__(self) -> None:
        self.answer = 200
        self.asked = 0
        self.hang = threading.Event()
        self.requests: list[ExportTraceServiceRequest] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.asked += 1
                if collector.hang.is_set():
                    collector.released.wait()
                if collector.answer == 200 and self.path == "/v1/traces":
                    collector.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: object) -> None:
                """Nothing."""

        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()


@pytest.fixture(scope="module")
def served(postgres_endpoint: Any) -> Iterator[tuple[Resident, Collector]]:
    """A resident process that sends its traces to a collector."""
    with ExitStack() as stack:
        collector = stack.enter_context(collecting())
        telemetry = {"otlp_endpoint": collector.endpoint, "service_name": "door"}
        made = stack.enter_context(resident(postgres_endpoint, "permissive", telemetry=telemetry))
        yield made.start(), collector


def samples(made: Resident) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = made.view("metrics")["text"]
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(made: Resident, name: str, **labels: str) -> float:
    return samples(made)[name, frozenset(labels.items())]


def ask_within(made: Resident, traceparent: object, **params: Any) -> dict[str, Any]:
    """Submit under a traceparent, by a frame of our own making."""
    with Connection(made.door, trusted_uids=frozenset({0})) as connection:
        connection._send({"id": 1, "method": "submit", "params": params, "traceparent": traceparent})  # type: ignore[dict-item]
        while "progress" in (answer := connection._receive()):
            pass
        return answer["result"]["run"]  # type: ignore[index, no-any-return]


def write_of(made: Resident, name: str, content: str) -> dict[str, Any]:
    args = {"path": str(made.data / name), "content": content}
    return {"ask": {"action": "file.write", "args": args, "confirmed": True}, "wait_seconds": 20}


def teller(made: Resident) -> str:
    """A program that tells the trace that it was given."""
    program = made.folder / "teller"
    program.write_text('#!/bin/sh\necho "told ${TRACEPARENT:-nothing}"\n', encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def test_every_metric_is_told_from_the_start(served: tuple[Resident, Collector]) -> None:
    found = {name for name, _ in samples(served[0])}
    for metric in METRICS:
        assert (f"{metric.name}_bucket" if metric.kind == "histogram" else metric.name) in found


def test_an_ask_is_counted_from_its_decision_to_its_evidence(served: tuple[Resident, Collector]) -> None:
    made, _ = served
    before = samples(made)
    assert made.write("counted", "x")["state"] == "succeeded"
    made.ask("propose", ask={"action": "file.write", "args": {"path": str(made.data / "p"), "content": "y"}})
    with pytest.raises(Exception, match="there is no action"):
        made.submit("no.such.action")
    after = samples(made)

    def more(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after[key] - before[key]

    assert more("interlock_asks_total", action="file.write", outcome="running") == 1
    assert more("interlock_asks_total", action="other", outcome="not_found") == 1
    assert more("interlock_runs_closed_total", action="file.write", state="succeeded") == 1
    assert more("interlock_run_seconds_count", action="file.write") == 1
    assert more("interlock_steps_total", action="file.write", direction="do", result="ok") == 1
    assert more("interlock_step_seconds_count", action="file.write") == 1
    assert more("interlock_decisions_total", outcome="permit") == 1
    assert after["interlock_decisions_by_policy_total", frozenset({("policy", "everything"), ("outcome", "permit")})]
    assert more("interlock_evidence_rows_total") >= 5
    assert more("interlock_requests_total", method="submit", outcome="ok") == 1
    assert more("interlock_requests_total", method="submit", outcome="not_found") == 1
    assert after["interlock_database_up", frozenset()] == 1
    assert after["interlock_database_pool_connections", frozenset()] >= 2
    assert after["interlock_reconciler_runs_total", frozenset({("work", "seal")})] >= 1


def test_health_names_every_component_and_all_are_sound(served: tuple[Resident, Collector]) -> None:
    made, _ = served
    made.until(lambda: made.ask("health")["status"] == "ok")
    told = made.view("health")
    assert set(told["components"]) == {
        "database", "disk", "keys", "listener", "policies", "reconcilers", "sealer", "workers",
    }  # fmt: skip
    assert {each["status"] for each in told["components"].values()} == {"ok"}
    assert value(made, "interlock_component_healthy", component="database") == 1


def test_a_trace_follows_its_run_everywhere(served: tuple[Resident, Collector]) -> None:
    made, collector = served
    run = ask_within(made, TRACEPARENT, **write_of(made, "traced", "x"))
    number = run["number"]
    assert run["trace_id"] == TRACE_ID
    assert made.view("run", run=number)["trace_id"] == TRACE_ID
    asked = made.view("evidence", run=number)["rows"][0]["line"]["data"]
    assert asked["traceparent"].startswith(f"00-{TRACE_ID}-")

    def spans() -> dict[str, Any]:
        return {span.name: span for span in collector.spans if span.trace_id.hex() == TRACE_ID}

    wanted = {"ask", "plan", "decide", "record", "queue", "step", "check", "close"}
    made.until(lambda: wanted <= set(spans()))
    found = spans()
    assert found["ask"].parent_span_id.hex() == SPAN_ID
    assert asked["traceparent"].split("-")[2] == found["ask"].span_id.hex()
    for name in ("plan", "decide", "record", "queue", "step", "close"):
        assert found[name].parent_span_id == found["ask"].span_id, name
    assert found["check"].parent_span_id == found["step"].span_id
    of_step = {each.key: each.value for each in found["step"].attributes}
    assert of_step["run"].int_value == number
    assert of_step["action"].string_value == "file.write"
    resource = {
        each.key: each.value.string_value for each in collector.requests[0].resource_spans[0].resource.attributes
    }
    assert resource["service.name"] == "door"


def test_a_line_of_the_log_names_the_run_once_and_for_all(served: tuple[Resident, Collector]) -> None:
    made, _ = served
    run = ask_within(made, TRACEPARENT, **write_of(made, "logged", "x"))

    def line() -> dict[str, Any]:
        lines = [json.loads(each) for each in made.log.splitlines() if each.startswith("{")]
        return next((each for each in lines if each["event"] == "run.left" and each["run_id"] == run["number"]), {})

    made.until(line)
    told = line()
    assert told["trace_id"] == TRACE_ID
    assert told["action"] == "file.write"
    assert told["status"] == "succeeded"
    assert 0 < told["latency"] < 20
    assert told["error_code"] is None
    assert told["module"] == "interlock.engine.runner"
    assert told["actor"].startswith("person:")


def test_programs_are_told_the_trace_they_belong_to(served: tuple[Resident, Collector]) -> None:
    made, _ = served
    answer = made.ask(
        "submit", ask={"action": "command.exec", "args": {"argv": [teller(made)]}, "confirmed": True}, wait_seconds=20
    )["run"]
    assert answer["state"] == "succeeded", answer["state_reason"]
    output = made.run("output", str(answer["number"])).stdout
    assert f"told 00-{answer['trace_id']}-" in output


@pytest.mark.parametrize("given", ["nonsense", "00-0-0-0", 7, None, {"a": 1}])
def test_what_is_no_traceparent_hinders_nobody(served: tuple[Resident, Collector], given: object) -> None:
    run = ask_within(served[0], given, **write_of(served[0], "odd", "x"))
    assert run["state"] == "succeeded"
    assert len(run["trace_id"]) == 32
    assert run["trace_id"] != TRACE_ID


def test_the_command_line_takes_the_trace_of_its_environment(served: tuple[Resident, Collector]) -> None:
    made, _ = served
    words = ("do", "file.write", "--arg", f"path={made.data / 'cli'}", "--arg", "content=x", "--confirm")
    answered = made.run(*words, "--output", "json", TRACEPARENT=TRACEPARENT)
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["data"]["run"]["trace_id"] == TRACE_ID
    other = TRACE_ID[::-1]
    both = {"TRACEPARENT": TRACEPARENT, "INTERLOCK_TRACEPARENT": f"00-{other}-{SPAN_ID}-01"}
    answered = made.run(*words, "--output", "json", **both)
    assert json.loads(answered.stdout)["data"]["run"]["trace_id"] == other


def test_a_collector_that_fails_or_hangs_fails_and_holds_up_no_run(served: tuple[Resident, Collector]) -> None:
    made, collector = served
    failed = value(made, "interlock_trace_spans_total", end="failed")
    collector.answer = 400
    assert made.write("refused", "x")["state"] == "succeeded"
    made.until(lambda: value(made, "interlock_trace_spans_total", end="failed") > failed)
    collector.answer = 200
    asked = collector.asked
    collector.hang.set()
    assert made.write("hanging", "x")["state"] == "succeeded"
    made.until(lambda: collector.asked > asked)
    took = made.until(lambda: made.write("hanging", "y")["state"] == "succeeded")
    assert took < 4  # less than the exporter waits
    collector.hang.clear()
    collector.released.set()
    sent = value(made, "interlock_trace_spans_total", end="sent")
    made.write("again", "x")
    made.until(lambda: value(made, "interlock_trace_spans_total", end="sent") > sent)
    assert "opentelemetry" not in made.log


def test_who_may_not_read_metrics_is_denied(postgres_endpoint: Any) -> None:
    body = {"agents": {"claude": {"roles": ["reader"]}}, "roles": {"reader": {"codes": ["view:runs"]}}}
    with resident(postgres_endpoint, "permissive", **body) as made:
        made.start()
        for method, params in (("view", {"name": "metrics"}), ("view", {"name": "health"}), ("health", {})):
            with pytest.raises(Denied):
                made.ask(method, "claude", **params)


def test_without_a_collector_a_run_has_a_trace_and_programs_are_told_nothing(postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint, "permissive") as made:
        made.start()
        run = made.submit("command.exec", argv=[teller(made)])
        assert run["state"] == "succeeded", run["state_reason"]
        assert len(run["trace_id"]) == 32
        assert "told nothing" in made.run("output", str(run["number"])).stdout
        assert value(made, "interlock_trace_spans_total", end="sent") == 0


@contextmanager
def _away(postgres_endpoint: Any, made: Resident) -> Iterator[None]:
    """Its database answers nobody, as if its server had gone."""
    name = str(psycopg.conninfo.conninfo_to_dict(made.environment["INTERLOCK_DATABASE_URL"])["dbname"])
    allow = psycopg.sql.SQL("alter database {} with allow_connections {}")
    end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and usename = current_user"
    with (
        psycopg.connect(postgres_endpoint.owner_conninfo, autocommit=True) as owner,
        psycopg.connect(postgres_endpoint.app_conninfo, autocommit=True) as app,
    ):
        owner.execute(allow.format(psycopg.sql.Identifier(name), psycopg.sql.SQL("false")))
        try:
            app.execute(end, (name,))
            yield
        finally:
            owner.execute(allow.format(psycopg.sql.Identifier(name), psycopg.sql.SQL("true")))


def test_without_its_database_it_is_not_sound_and_metrics_are_told_all_the_same(postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint, "permissive") as made:
        made.start()
        with _away(postgres_endpoint, made):
            made.until(lambda: made.ask("health")["status"] == "fail")
            told = made.ask("health")["components"]
            assert told["database"]["status"] == "fail"
            assert told["keys"]["status"] == told["policies"]["status"] == "ok"
            made.until(lambda: value(made, "interlock_database_up") == 0)
        made.until(lambda: made.ask("health")["status"] == "ok")
        made.until(lambda: value(made, "interlock_database_up") == 1)
        assert "Traceback" not in made.log


def test_what_is_broken_is_named_with_what_mends_it(postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint, "permissive") as made:
        made.start()
        keys = made.state_folder / "keys"
        keys.rename(keys.with_name("elsewhere"))
        told = made.ask("health")
        assert told["status"] == "fail"
        assert "gone" in told["components"]["keys"]["message"]
        assert "backup" in told["components"]["keys"]["fix"]
        keys.with_name("elsewhere").rename(keys)
        policy = made.folder / "project" / "policies" / "test.cedar"
        policy.write_text(policy.read_text(encoding="utf-8") + "nonsense", encoding="utf-8")
        with pytest.raises(InterlockError):
            made.ask("reload")
        made.until(lambda: made.ask("health")["components"]["policies"]["status"] == "warn")
        assert made.ask("health")["status"] == "warn"


def test_an_address_for_traces_without_the_packages_is_said_before_anything_runs(postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint, "permissive", telemetry={"otlp_endpoint": "http://127.0.0.1:1"}) as made:
        bare = made.folder / "bare"
        bare.mkdir()
        missing = "import sys\n" + "".join(f"sys.modules['{name}'] = None\n" for name in ("opentelemetry",))
        (bare / "sitecustomize.py").write_text(missing, encoding="utf-8")
        made.environment["PYTHONPATH"] = str(bare)
        process = made.spawn()
        assert process.wait(60) != 0
        assert "interlock[telemetry]" in made.log
        assert "Traceback" not in made.log


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://x", "http://user:password@x", "http://a b"])
def test_an_address_that_is_none_is_refused_by_its_place(endpoint: str, postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint, "permissive", telemetry={"otlp_endpoint": endpoint}) as made:
        process = made.spawn()
        assert process.wait(60) != 0
        assert "telemetry.otlp_endpoint" in made.log
