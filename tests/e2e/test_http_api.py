"""A day over HTTP: asking, deciding, following, reading and taking back, by a program that knows nothing else."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from harness.http_front import PREFIX, PROJECT, HttpFront, http_front
from harness.resident import write_project

RUNS = f"{PREFIX}/runs"


def _unknown(front: HttpFront, script: str) -> dict[str, Any]:
    """An ask for a command that nobody knows: a person decides."""
    path = front.resident.folder / f"script-{uuid4().hex[:8]}"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return {"action": "command.exec", "args": {"argv": [str(path)]}, "confirmed": True}


@pytest.fixture(scope="module")
def front(postgres_endpoint: Any) -> Iterator[HttpFront]:
    with http_front(postgres_endpoint) as made:
        yield made
        assert "http.bug" not in made.resident.log
        assert "request.bug" not in made.resident.log
        assert "Traceback" not in made.resident.log


@pytest.fixture
def alice(front: HttpFront) -> Iterator[httpx.Client]:
    with front.client() as client:
        yield client


@pytest.fixture
def bob(front: HttpFront) -> Iterator[httpx.Client]:
    with front.client("person:bob") as client:
        yield client


@pytest.fixture
def claude(front: HttpFront) -> Iterator[httpx.Client]:
    with front.client("agent:claude") as client:
        yield client


def _events(lines: Iterator[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """`(id, event, data)` of a stream of server-sent events."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])
            fields = {}


def test_what_is_not_confirmed_is_shown_and_what_is_confirmed_is_done(front: HttpFront, alice: httpx.Client) -> None:
    shown = front.write(alice, "shown-first", "hello\n", confirmed=False)
    assert shown.status_code == 202
    digest = shown.json()["proposal"]["digest"]
    assert not (front.resident.data / "shown-first").exists()
    done = front.write(alice, "shown-first", "hello\n", digest=digest)
    assert done.status_code == 200
    assert done.json()["run"]["state"] == "succeeded"
    assert (front.resident.data / "shown-first").read_text() == "hello\n"
    where = done.headers["location"]
    assert alice.get(where).json()["run"]["digest"] == digest


def test_a_proposal_records_nothing(front: HttpFront, alice: httpx.Client) -> None:
    before = alice.get(RUNS, params={"limit": 1}).json()
    args = {"path": str(front.resident.data / "never"), "content": "x"}
    answer = alice.post(f"{PREFIX}/proposals", json={"action": "file.write", "args": args})
    assert answer.status_code == 200
    assert answer.json()["proposal"]["decision"]["outcome"] in {"permit", "needs_approval"}
    assert alice.get(RUNS, params={"limit": 1}).json() == before


def test_an_undo_takes_it_back_and_what_went_well_is_not_retried(front: HttpFront, alice: httpx.Client) -> None:
    number = front.write(alice, "undone", "x\n").json()["run"]["number"]
    undo = alice.post(f"{RUNS}/{number}/undo", json={"confirmed": True, "wait": 20})
    assert undo.json()["run"]["undo_of"] == number
    assert not (front.resident.data / "undone").exists()
    retry = alice.post(f"{RUNS}/{number}/retry", json={"confirmed": True, "wait": 20})
    assert retry.json()["code"] == "run.not_retriable", "it went well"


def test_a_run_waits_for_somebody_else_and_its_asker_never_approves(
    front: HttpFront, claude: httpx.Client, bob: httpx.Client
) -> None:
    asked = claude.post(RUNS, json={**_unknown(front, "echo one; sleep 0.3; echo two"), "reason": "to see"})
    assert asked.status_code == 202, asked.text
    run = asked.json()["run"]
    assert run["state"] == "waiting"
    number = run["number"]
    assert number in [each["number"] for each in bob.get(f"{PREFIX}/pending").json()["data"]["runs"]]
    body = {"verdict": "approve", "wait": 20}
    assert claude.post(f"{RUNS}/{number}/decision", json=body).status_code == 403
    done = bob.post(f"{RUNS}/{number}/decision", json=body)
    assert done.status_code == 200, done.text
    assert done.json()["run"]["state"] == "succeeded"
    assert bob.get(f"{RUNS}/{number}/output").text == "one\ntwo\n"


def test_a_denial_is_a_problem_with_its_run(front: HttpFront, claude: httpx.Client, bob: httpx.Client) -> None:
    ask = _unknown(front, "echo denied")
    number = claude.post(RUNS, json=ask).json()["run"]["number"]
    answer = bob.post(f"{RUNS}/{number}/decision", json={"verdict": "deny", "reason": "not today", "wait": 5})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["run"]["state"] == "denied"
    again = claude.post(RUNS, json=ask)
    assert again.json()["code"] == "run.denied_before"
    assert bob.get(f"{RUNS}/{number}/why").json()["data"]["state"] == "denied"


def test_a_waiting_run_can_be_cancelled_without_a_body(front: HttpFront, claude: httpx.Client) -> None:
    number = claude.post(RUNS, json=_unknown(front, "echo c")).json()["run"]["number"]
    assert claude.post(f"{RUNS}/{number}/cancel").json()["run"]["state"] == "cancelled"


def test_acting_as_an_agent_makes_a_person_less(alice: httpx.Client) -> None:
    as_claude = {"Interlock-As": "claude"}
    you = alice.get(f"{PREFIX}/views/people", headers=as_claude).json()["data"]["you"]
    assert (you["kind"], you["on_behalf_of"]) == ("agent", "person:alice")
    assert alice.get(f"{PREFIX}/views/people", headers={"Interlock-As": "bob"}).status_code == 403


def test_the_same_key_is_the_same_run(front: HttpFront, alice: httpx.Client, bob: httpx.Client) -> None:
    key = {"Idempotency-Key": "deploy-1"}
    first = front.write(alice, "keyed", "x\n", headers=key).json()["run"]["number"]
    assert front.write(alice, "keyed", "x\n", headers=key).json()["run"]["number"] == first
    assert front.write(alice, "keyed", "other\n", headers=key).status_code == 409
    assert front.write(bob, "keyed2", "x\n", headers=key).json()["run"]["number"] != first, "a key is its asker's own"


def test_pages_follow_each_other_without_a_gap(front: HttpFront, alice: httpx.Client) -> None:
    for number in range(5):
        front.write(alice, f"page-{number}", "x\n")
    whole = [run["number"] for run in alice.get(RUNS, params={"limit": 500}).json()["runs"]]
    seen: list[int] = []
    url: str | None = f"{RUNS}?limit=2"
    while url is not None:
        answer = alice.get(url)
        seen += [run["number"] for run in answer.json()["runs"]]
        if len(seen) == 2:
            front.write(alice, "newer", "x\n")  # comes before the first page, and moves none
        url = answer.links["next"]["url"] if "next" in answer.links else None
    assert seen == whole
    assert all(run["state"] == "succeeded" for run in alice.get(RUNS, params={"state": "succeeded"}).json()["runs"])


def test_output_comes_whole_by_its_end_and_by_ranges(front: HttpFront, claude: httpx.Client, bob: httpx.Client) -> None:
    text = "".join(f"line {number} äöü 漢字\n" for number in range(200))
    (front.resident.data / "lines").write_text(text)
    ask = {"action": "command.exec", "args": {"argv": ["cat", str(front.resident.data / "lines")]}, "wait": 20}
    run = bob.post(RUNS, json=ask).json()["run"]
    assert run["state"] == "succeeded", run
    where, raw = f"{RUNS}/{run['number']}/output", text.encode()
    assert bob.get(where).content == raw
    assert raw.endswith(bob.get(where, params={"tail": 100}).content)
    for wanted, part in (("0-9", raw[:10]), ("100-", raw[100:]), ("-7", raw[-7:]), ("0-99999999", raw)):
        answer = bob.get(where, headers={"Range": f"bytes={wanted}"})
        assert answer.status_code == 206
        assert answer.content == part
        assert answer.headers["content-range"].endswith(f"/{len(raw)}")
    assert bob.get(where, headers={"Range": f"bytes={len(raw)}-"}).status_code == 416
    assert bob.get(where, headers={"Range": "lines=1-2"}).content == raw


def test_a_stream_tells_output_and_states_and_goes_on_where_it_broke_off(
    front: HttpFront, claude: httpx.Client, bob: httpx.Client
) -> None:
    ask = _unknown(front, "for n in 1 2 3 4 5; do echo $n; sleep 0.3; done")
    number = claude.post(RUNS, json=ask).json()["run"]["number"]
    approval = threading.Timer(
        0.3, lambda: bob.post(f"{RUNS}/{number}/decision", json={"verdict": "approve"}).raise_for_status()
    )
    approval.start()
    text, states, last, breaks = "", [], "", 0
    with httpx.Client(base_url=claude.base_url, headers=bob.headers, timeout=30) as reader:
        while "succeeded" not in states:
            with reader.stream(
                "GET", f"{RUNS}/{number}/events", headers={"Last-Event-ID": last} if last else {}
            ) as seen:
                assert seen.headers["content-type"].startswith("text/event-stream")
                for last, kind, data in _events(seen.iter_lines()):  # noqa: B007 - where the next one goes on
                    if kind == "output":
                        text += data["text"]
                        breaks += 1
                        break
                    states.append(data["state"])
        assert text == "1\n2\n3\n4\n5\n"
        assert states[0] == "waiting"
        assert states[-1] == "succeeded"
        assert breaks >= 2
        done = reader.get(f"{RUNS}/{number}/events", headers={"Last-Event-ID": last})
        assert done.status_code == 204, "nothing comes any more"
        assert reader.get(f"{RUNS}/{number}/events", headers={"Last-Event-ID": "x"}).status_code == 422
        assert reader.get(f"{RUNS}/4000/events").status_code == 404
    approval.join()


def test_a_receipt_and_an_export_verify_without_us(front: HttpFront, alice: httpx.Client, tmp_path: Any) -> None:
    number = front.write(alice, "sealed", "x\n").json()["run"]["number"]
    receipt = alice.get(f"{RUNS}/{number}/receipt").json()["receipt"]
    assert receipt["run"] == number
    archive = tmp_path / "evidence.tar.gz"
    with alice.stream("GET", f"{PREFIX}/audit/export") as answer:
        assert answer.headers["content-type"] == "application/gzip"
        archive.write_bytes(b"".join(answer.iter_bytes()))
    with tarfile.open(archive) as members:
        assert any(name.endswith(("verify_bundle.py", "verify.py")) for name in members.getnames())
    assert alice.get(f"{PREFIX}/audit/export", params={"run": number}).status_code == 200


def test_a_token_that_ended_is_refused_and_one_of_somebody_else_is_somebody_else(front: HttpFront) -> None:
    ended = front.token("person:alice", life=timedelta(seconds=-1))
    with front.client(None, headers={"Authorization": f"Bearer {ended}"}) as client:
        assert client.get(f"{PREFIX}/status").status_code == 401
    with front.client("person:bob") as client:
        assert client.get(f"{PREFIX}/views/people").json()["data"]["you"]["name"] == "bob"


def test_agents_find_their_protocol_at_its_own_path(claude: httpx.Client, front: HttpFront) -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    accept = {"Accept": "application/json, text/event-stream"}
    answer = claude.post("/mcp", json=hello, headers=accept)
    assert answer.status_code == 200, answer.text
    assert answer.json()["result"]["serverInfo"]["name"]
    with front.client(None) as nobody:
        assert nobody.post("/mcp", json=hello, headers=accept).status_code == 401


def test_a_narrow_token_may_wait_for_what_it_asked_and_read_nothing_else(front: HttpFront) -> None:
    narrow = front.token("person:alice", scopes=["run:command.exec"])
    ask = {"action": "command.exec", "args": {"argv": ["uptime"]}, "wait": 20}
    with front.client(None, headers={"Authorization": f"Bearer {narrow}"}) as client:
        answer = client.post(RUNS, json=ask)
        assert answer.status_code == 200, answer.text
        assert answer.json()["run"]["state"] == "succeeded"
        assert client.get(f"{RUNS}/{answer.json()['run']['number']}/events").status_code == 200
        assert client.get(RUNS).status_code == 403
        assert front.write(client, "narrow", "x").status_code == 403


def test_every_command_of_the_how_to_works(front: HttpFront) -> None:
    """With curl, as it is written there, against this server."""
    text = (Path(__file__).parents[2] / "docs/howto/http-api.md").read_text(encoding="utf-8")
    commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ curl")]
    assert len(commands) >= 5
    with front.client("agent:claude") as claude:
        number = claude.post(RUNS, json=_unknown(front, "true")).json()["run"]["number"]
    for command in commands:
        shown = command.replace("/srv/site", str(front.resident.data)).replace("/runs/1/", f"/runs/{number}/")
        shown = shown.replace(" --json ", " --fail-with-body -H 'Content-Type: application/json' --data ")
        environment = {"TOKEN": front.bearer("person:bob"), "DOOR": front.url + PREFIX, "PATH": "/usr/bin:/bin"}
        ran = subprocess.run(
            ["/bin/sh", "-c", shown], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert ran.returncode == 0, (shown, ran.stdout, ran.stderr)
        assert '"status":4' not in ran.stdout, (shown, ran.stdout)


@pytest.fixture(scope="module")
def strict(postgres_endpoint: Any, tmp_path_factory: Any) -> Iterator[tuple[HttpFront, ssl.SSLContext]]:
    """One with TLS and few requests a second."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "chain.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = {"certificate": str(certificate), "key": str(key)}
    http = {"tls": tls, "limits": {"requests_per_second": 5}}
    with http_front(postgres_endpoint, http=http, start=False) as front:
        front.resident.start()
        yield front, ssl.create_default_context(cafile=certificate)


def test_tls_is_spoken_where_there_is_a_certificate(strict: tuple[HttpFront, ssl.SSLContext]) -> None:
    front, context = strict
    token = {"Authorization": f"Bearer {front.bearer('person:alice')}"}
    answer = httpx.get(f"https://localhost:{front.port}{PREFIX}/status", verify=context, headers=token, timeout=20)
    assert answer.status_code == 200
    assert answer.headers["strict-transport-security"]
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://localhost:{front.port}/livez", timeout=20)


def test_a_certificate_that_is_broken_changes_nothing_and_never_means_plain_text(
    strict: tuple[HttpFront, ssl.SSLContext],
) -> None:
    front, context = strict
    text = (front.resident.folder / "project" / "interlock.yaml").read_text(encoding="utf-8")
    key = Path(yaml.safe_load(text)["http"]["tls"]["key"])
    sound = key.read_bytes()
    key.write_bytes(b"nonsense")
    front.resident.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    front.resident.until(lambda: "serve.not_reloaded" in front.resident.log)
    key.write_bytes(sound)
    assert httpx.get(f"https://localhost:{front.port}/livez", verify=context, timeout=20).status_code == 200
    front.resident.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    front.resident.until(lambda: "serve.reloaded" in front.resident.log)
    assert httpx.get(f"https://localhost:{front.port}/livez", verify=context, timeout=20).status_code == 200


def test_rates_are_of_a_token_and_say_when_to_come_again(strict: tuple[HttpFront, ssl.SSLContext]) -> None:
    front, context = strict
    url = f"https://localhost:{front.port}"
    with httpx.Client(base_url=url, verify=context, timeout=20) as client:
        alice, bob = ({"Authorization": f"Bearer {front.bearer(who)}"} for who in ("person:alice", "person:bob"))
        refused = [client.get(f"{PREFIX}/freezes", headers=alice) for _ in range(40)][-1]
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["code"] == "api.rate"
        assert client.get(f"{PREFIX}/freezes", headers=bob).status_code == 200
        assert client.get("/livez").status_code == 200


@pytest.fixture(scope="module")
def unserved(postgres_endpoint: Any) -> Iterator[HttpFront]:
    """A project that nobody serves yet."""
    with http_front(postgres_endpoint, start=False) as made:
        yield made


def test_a_port_that_is_taken_is_said_with_the_way_out(front: HttpFront, unserved: HttpFront) -> None:
    said = unserved.resident.run("serve", "--listen", f"127.0.0.1:{front.port}")
    assert said.returncode == 5, said.stderr
    assert "--listen" in said.stderr


def test_what_others_can_reach_needs_tls(unserved: HttpFront) -> None:
    said = unserved.resident.run("serve", "--listen", "0.0.0.0:7410")
    assert said.returncode == 2, said.stderr
    assert "TLS" in said.stderr


def test_a_process_that_was_started_on_demand_listens_only_where_it_was_told_to(unserved: HttpFront) -> None:
    assert unserved.resident.run("status").returncode == 0
    assert unserved.front_pids() == []
    assert unserved.resident.run("stop").returncode == 0
    listening = {"listen": f"127.0.0.1:{unserved.port}"}
    write_project(unserved.resident, "small-team", {**PROJECT, "http": listening})
    assert unserved.resident.run("status").returncode == 0
    assert unserved.ready()
    assert unserved.resident.run("stop").returncode == 0
    assert unserved.front_pids() == []
