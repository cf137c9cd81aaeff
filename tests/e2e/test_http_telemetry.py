"""Metrics, readiness and traces as they are met from outside: by Prometheus, a load balancer, and whoever traces."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.http_front import PREFIX, HttpFront, http_front
from harness.mcp_agents import HttpAgent, StdioAgent

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.fixture(scope="module")
def front(postgres_endpoint: Any) -> Iterator[HttpFront]:
    with http_front(postgres_endpoint, services={"prometheus": {"roles": ["viewer"]}}) as made:
        yield made
        assert "bug" not in made.resident.log


def test_prometheus_scrapes_with_a_token_that_may_do_nothing_else(front: HttpFront) -> None:
    scrape = front.token(scopes=["view:metrics"])
    with front.client(None, headers={"Authorization": f"Bearer {scrape}"}) as client:
        answer = client.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        found = {family.name: family for family in text_string_to_metric_families(answer.text)}
        assert found["interlock_http_front_up"].samples[0].value == 1
        assert found["interlock_database_up"].samples[0].value == 1
        assert client.get(f"{PREFIX}/status").status_code == 403
        assert client.get("/metrics?a=b").status_code == 200
    reader = front.token(scopes=["view:runs"])
    with front.client(None, headers={"Authorization": f"Bearer {reader}"}) as client:
        assert client.get("/metrics").status_code == 403
    with front.client(None) as client:
        assert client.get("/metrics").status_code == 401


def test_readiness_tells_components_to_who_may_read_health(front: HttpFront) -> None:
    with front.client(None, headers={"Authorization": f"Bearer {front.token(scopes=['view:health'])}"}) as client:
        front.resident.until(lambda: client.get("/readyz").json()["components"]["resident"].get("status") == "ok")
        answer = client.get("/readyz")
        components = answer.json()["components"]["resident"]["components"]
        assert {"database", "disk", "keys", "policies", "sealer", "workers"} <= set(components)
        assert answer.headers["cache-control"] == "private, max-age=30"
    with front.client(None, headers={"Authorization": f"Bearer {front.token(scopes=['view:runs'])}"}) as client:
        assert client.get("/readyz").json() == {"ready": True}


def test_the_trace_of_a_request_is_that_of_its_run_in_every_answer(front: HttpFront) -> None:
    with front.client(headers={"traceparent": TRACEPARENT}) as client:
        run = front.write(client, "traced", "x").json()["run"]
        assert run["trace_id"] == TRACE_ID
        number = run["number"]
        assert client.get(f"{PREFIX}/runs/{number}").json()["run"]["trace_id"] == TRACE_ID
        events = client.get(f"{PREFIX}/runs/{number}/events").text
        states = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: ")]
        assert states[-1]["trace_id"] == TRACE_ID
        assert states[-1]["final"] is True
    shown = front.resident.run("show", str(number)).stdout
    assert TRACE_ID in shown
    line = next(
        each for each in front.resident.log.splitlines() if f'"run_id": {number}' in each and "run.left" in each
    )
    assert json.loads(line)["trace_id"] == TRACE_ID


def test_a_header_that_is_no_traceparent_begins_a_trace(front: HttpFront) -> None:
    for given in ("", "x", "00-0-0-0", "\xff" * 55, "0" * 4000):
        with front.client(headers={"traceparent": given.encode("latin-1")}) as client:  # type: ignore[dict-item]
            run = front.write(client, "odd", "x").json()["run"]
            assert re.fullmatch("[0-9a-f]{32}", run["trace_id"])
            assert run["trace_id"] != TRACE_ID


def _trace_of(front: HttpFront, answer: dict[str, Any]) -> str:
    number = int(re.search(r'"(?:number|run)": (\d+)', json.dumps(answer))[1])  # type: ignore[index]
    trace_id: str = front.resident.view("run", run=number)["trace_id"]
    return trace_id


def test_an_agents_call_belongs_to_the_trace_that_it_names(front: HttpFront) -> None:
    path = str(front.resident.data / "by-agent")

    def asked(key: str) -> dict[str, Any]:
        return {"action": "file.write", "args": {"path": path, "content": key}, "key": key, "wait_seconds": 0}

    named = {"traceparent": TRACEPARENT}
    with StdioAgent(front.resident) as agent:
        answer = agent.ask("tools/call", name="run", arguments=asked("by-stdio"), _meta=named)
        assert _trace_of(front, answer) == TRACE_ID
    other = TRACE_ID[::-1]
    with HttpAgent(front.url, front.bearer("agent:claude"), traceparent=f"00-{other}-{SPAN_ID}-01") as agent:
        answer = agent.ask("tools/call", name="run", arguments=asked("by-header"))
        assert _trace_of(front, answer) == other
        answer = agent.ask("tools/call", name="run", arguments=asked("by-meta"), _meta=named)
        assert _trace_of(front, answer) == TRACE_ID


def test_every_command_of_the_how_to_works(front: HttpFront) -> None:
    text = (Path(__file__).parents[2] / "docs/howto/monitor.md").read_text(encoding="utf-8")
    commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    token = ""
    for command in commands:
        if command.startswith("curl"):
            shown = command.replace("http://127.0.0.1:7410", front.url).replace("curl ", "curl --fail-with-body ")
            environment = {"TOKEN": token, "PATH": "/usr/bin:/bin"}
            ran = subprocess.run(
                ["/bin/sh", "-c", shown], env=environment, capture_output=True, text=True, timeout=30, check=False
            )
        else:
            words = command.split()[1:]
            ran = front.resident.run(*words, *(["--confirm", "--output", "json"] if "tokens" in words else []))
            token = json.loads(ran.stdout)["data"]["token"] if "tokens" in words else token
        assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
    assert len(commands) == 4
    assert token
