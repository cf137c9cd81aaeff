"""What Argo Rollouts and Flagger are told by the real front about real counters, and what is remembered."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from harness.argo_analysis import Analysis
from harness.fake_prometheus import Cluster, cluster
from harness.http_front import ME, PREFIX, HttpFront, http_front
from harness.resident import Resident
from interlock.core.token import make_token

HOWTO = Path(__file__).parents[2] / "docs/howto/judge-for-argo-and-flagger.md"
PATIENCE_SECONDS = 40.0
SELECTORS = {
    "requests": 'http_requests_total{app="checkout"}',
    "errors": 'http_requests_total{app="checkout",code=~"5.."}',
    "latency": "http_request_duration_seconds",
}
RATES = (400_000.0, 80_000.0)
"""Requests a second: so many that a verdict takes seconds."""
AWAY = ("too many", "hang")


@pytest.fixture(scope="module")
def world() -> Iterator[Cluster]:
    with cluster() as made:
        for number, rate in enumerate((RATES[0] * 0.75, RATES[0] * 0.25)):
            made.add("old", rate, offset_seconds=0.4 * number)
        made.add("good", RATES[1], offset_seconds=0.7)
        made.add("bad", RATES[1], errors=0.05)
        made.add("slow", RATES[1], slowness=1.8)
        made.add("unused", 0.0)
        yield made


@pytest.fixture(scope="module")
def front(postgres_endpoint: Any, world: Cluster) -> Iterator[HttpFront]:
    timing = {"every_seconds": 1, "scrape_seconds": 1}
    destination = {"url": world.server.url, "private": True, "response_bytes_max": 4_000_000, "timeout_seconds": 2}
    own = {arm: {"destination": "own", "path": f"/{arm}/metrics"} for arm in ("old", "good", "bad")}
    candidate = {"prometheus": "prometheus", "candidate": {"where": 'hash="{session}"'}, **SELECTORS, **timing}
    judges = {
        "checkout": {**candidate, "stable": {"where": 'hash="{stable}"'}},
        "flagged": {**candidate, "stable": {"where": 'hash="old"'}},
        "direct": {"stable": own["old"], "candidate": own["good"], **SELECTORS, **timing},
        "directly-bad": {"stable": own["old"], "candidate": own["bad"], **SELECTORS, **timing},
    }
    with http_front(
        postgres_endpoint,
        people={"alice": {"user": ME, "roles": ["operator"]}},
        services={"rollouts": {"roles": ["judged"]}, "others": {"roles": ["elsewhere"]}},
        roles={"judged": {"codes": ["view:judge.checkout"]}, "elsewhere": {"codes": ["view:judge.direct"]}},
        http_destinations={
            "prometheus": {**destination, "paths": ["/api/v1/query"]},
            "own": {**destination, "paths": ["/*/metrics"]},
        },
        judges=json.loads(json.dumps(judges)),  # each written out: aliases are not read
    ) as made:
        yield made
        for log in (made.resident.log, _front_log(made)):
            assert "bug" not in log
            assert "Traceback" not in log
            assert not any(token in log or token.split("_", 2)[2] in log for token in made.tokens.values())


def _front_log(front: HttpFront) -> str:
    return "".join(path.read_text(errors="replace") for path in front.resident.state_folder.rglob("*.log"))


def _template(front: HttpFront, session: str, **changes: Any) -> Analysis:
    """The AnalysisTemplate of the howto, as it stands there."""
    found = re.search(
        r"^```yml\n(apiVersion.*?)^```", HOWTO.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    assert found is not None
    template = yaml.safe_load(found[1])
    assert {each["name"] for each in template["spec"]["args"]} == {"session", "stable", "token"}
    args = {"session": session, "stable": "old", "token": front.bearer("service:rollouts")}
    return Analysis({**template["spec"]["metrics"][0], **changes}, args, front.url)


def _rolled(analysis: Analysis) -> str:
    """Measure until the analysis ends."""
    end = time.monotonic() + PATIENCE_SECONDS
    while (ended := analysis.ended()) is None:
        assert time.monotonic() < end, analysis.values
        analysis.measure()
        _pause(0.2)
    return ended


def _pause(seconds: float) -> None:
    """Between two polls of somebody else's program."""
    time.sleep(seconds)


def _until(client: httpx.Client, wanted: Callable[[dict[str, Any]], bool], judge: str, **query: str) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE_SECONDS
    while not wanted(told := client.get(f"/judge/{judge}", params=query).raise_for_status().json()):
        assert time.monotonic() < end, told
        _pause(0.1)
    return told  # type: ignore[no-any-return]


# Argo Rollouts


@pytest.mark.parametrize(("session", "ends"), [("good", "Successful"), ("bad", "Failed"), ("slow", "Failed")])
def test_an_analysis_of_argo_ends_as_the_version_deserves(front: HttpFront, session: str, ends: str) -> None:
    analysis = _template(front, session)
    assert _rolled(analysis) == ends
    assert analysis.values[0] == "inconclusive", "nothing is known at the first question"
    assert analysis.seen["Error"] == 0


@pytest.mark.parametrize("argo", ["1.7", "1.9"])
def test_silence_is_never_success_and_never_failure(front: HttpFront, argo: str) -> None:
    analysis = _template(front, "unused", count=8, inconclusiveLimit=7)
    while (ended := analysis.ended(before_1_8=argo == "1.7")) is None:
        analysis.measure()
        _pause(0.15)
    assert ended == "Inconclusive"
    assert set(analysis.values) == {"inconclusive"}


def test_the_answer_says_why_and_how_long_it_takes(front: HttpFront) -> None:
    with front.client("service:rollouts") as client:
        told = _until(client, lambda each: each["status"] == "failure", "checkout", session="bad", stable="old")
        errors = told["measures"][0]
        assert (told["verdict"], errors["name"], errors["verdict"]) == ("no_go", "errors", "no_go")
        assert 4 < errors["ratio"] < 6
        assert errors["evidence_against"] >= errors["needed_against"]
        assert "errors" in told["summary"]
        api = client.get(f"{PREFIX}/judge/checkout", params={"session": "bad", "stable": "old"}).json()
        assert api["session"] == told["session"]
        assert api["begun_at"] == told["begun_at"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/judge/nobody?session=a", 403, "view.denied"),
        ("/judge/direct?session=a", 403, "view.denied"),
        ("/judge/checkout", 422, "args.invalid"),
        ("/judge/checkout?session=a", 422, "judge.stable"),
        ('/judge/checkout?session=a"}&stable=old', 422, "args.invalid"),
        ("/judge/checkout?session=a.b&stable=old", 422, "args.invalid"),
        ("/judge/checkout?session=a&stable=%7Bsession%7D", 422, "args.invalid"),
        (f"/judge/checkout?session={'a' * 64}&stable=old", 422, "args.invalid"),
        ("/judge/release/1", 403, "view.denied"),
        ("/judge/release/0", 422, "args.invalid"),
    ],
)
def test_what_is_not_to_be_asked_is_refused(front: HttpFront, path: str, status: int, code: str) -> None:
    with front.client("service:rollouts") as client:
        answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_a_judge_and_a_release_that_are_none_are_not_found(front: HttpFront) -> None:
    with front.client() as client:
        assert client.get("/judge/nobody", params={"session": "a"}).json()["code"] == "judge.unknown"
        assert client.get("/judge/release/4000").json()["code"] == "release.unknown"


# Flagger


def _payload(checksum: str, token: str | None, phase: str = "Progressing") -> dict[str, Any]:
    """As Flagger's documents and its own type have it."""
    metadata = {} if token is None else {"metadata": {"token": token, "some": "data"}}
    return {"name": "checkout", "namespace": "shop", "phase": phase, "checksum": checksum, **metadata}


def _hook(front: HttpFront, hook: str, checksum: str, *, token: str | None = None) -> httpx.Response:
    token = token if token is not None else front.bearer("person:alice")
    return httpx.post(f"{front.url}/judge/flagged/{hook}", json=_payload(checksum, token), timeout=10)


def _passed(answer: httpx.Response) -> bool:
    """What Flagger takes for a yes."""
    assert answer.status_code < 500, answer.text
    return answer.status_code <= 202


GOES_ON = ("confirm-rollout", "pre-rollout", "rollout", "confirm-traffic-increase")


def test_flagger_promotes_a_good_version(front: HttpFront) -> None:
    for hook in GOES_ON:
        assert _passed(_hook(front, hook, "good"))
    first = _hook(front, "confirm-promotion", "good")
    assert (first.status_code, first.json()["code"]) == (409, "judge.not_yet")
    end = time.monotonic() + PATIENCE_SECONDS
    while not _passed(_hook(front, "confirm-promotion", "good")):
        assert _passed(_hook(front, "rollout", "good"))
        assert not _passed(_hook(front, "rollback", "good"))
        assert time.monotonic() < end
        _pause(0.3)
    assert not _passed(_hook(front, "rollback", "good"))
    assert _passed(_hook(front, "event", "good"))
    with front.client() as client:
        query = {"judge": "flagged", "session": "good", "purpose": "look"}
        assert client.get(f"{PREFIX}/views/judge", params=query).json()["data"]["ended_at"] is None
        assert _passed(_hook(front, "post-rollout", "good"))
        assert client.get(f"{PREFIX}/views/judge", params=query).json()["data"]["ended_at"] is not None
    assert _passed(_hook(front, "post-rollout", "good")), "said twice it is still over"


def test_flagger_rolls_a_bad_version_back_and_never_promotes_it(front: HttpFront) -> None:
    assert not _passed(_hook(front, "rollback", "bad")), "nothing is known yet"
    end = time.monotonic() + PATIENCE_SECONDS
    while not _passed(_hook(front, "rollback", "bad")):
        assert not _passed(_hook(front, "confirm-promotion", "bad"))
        assert time.monotonic() < end
        _pause(0.2)
    for hook in (*GOES_ON, "confirm-promotion"):
        answer = _hook(front, hook, "bad")
        assert (answer.status_code, answer.json()["code"]) == (409, "judge.no_go")
        assert "errors" in answer.json()["detail"], "Flagger shows it in its events"
    assert _passed(_hook(front, "post-rollout", "bad"))


def test_an_event_begins_nothing(front: HttpFront) -> None:
    assert _passed(_hook(front, "event", "never"))
    with front.client() as client:
        query = {"judge": "flagged", "session": "never", "purpose": "look"}
        assert client.get(f"{PREFIX}/views/judge", params=query).json()["code"] == "judge.session_unknown"


def test_a_hook_without_a_good_token_is_refused(front: HttpFront) -> None:
    for hook in ("rollback", "confirm-promotion", "rollout", "event", "post-rollout"):
        for token, status in (("", 401), ("ilk_x", 401), (make_token(os.urandom(40)).text, 401)):
            answer = _hook(front, hook, "good", token=token)
            assert answer.status_code in {status, 429}, answer.text
            assert not token or token not in answer.text
        assert _hook(front, hook, "good", token=front.bearer("service:rollouts")).status_code == 403
    url, token = f"{front.url}/judge/flagged", front.bearer("person:alice")
    for path in ("", "/", "/unheard-of", "/rollback/x"):
        assert httpx.post(f"{url}{path}", json=_payload("good", token)).status_code in {401, 404, 405, 422}
    large = _payload("good", token) | {"more": "x" * 100_000}
    assert httpx.post(f"{url}/rollback", json=large).status_code == 413
    for body in (b"", b"{", b"[]", b'{"metadata": []}', b'{"metadata": {"token": 7}}'):
        headers = {"Content-Type": "application/json"}
        assert httpx.post(f"{url}/rollback", content=body, headers=headers).status_code in {401, 422}
    with front.client() as client:
        answer = client.post("/judge/flagged/rollback", json=_payload("never-seen", None))
        assert answer.status_code == 409, "a token in the header counts as well"


# What goes wrong


@pytest.mark.parametrize("fault", AWAY)
def test_a_prometheus_that_does_not_answer_decides_nothing_and_is_told(
    front: HttpFront, world: Cluster, fault: str
) -> None:
    session = f"bad-{fault.replace(' ', '-')}"
    world.add(session, RATES[1], errors=0.05)
    world.fault = fault
    try:
        with front.client("service:rollouts") as client:
            query = {"session": session, "stable": "old"}
            told = _until(client, lambda each: each["trouble"] is not None, "checkout", **query)
            assert told["status"] == "inconclusive"
            world.fault = None
            _until(client, lambda each: each["status"] == "failure", "checkout", **query)
    finally:
        world.fault = None


@pytest.mark.parametrize(("judge", "status"), [("direct", "success"), ("directly-bad", "failure")])
def test_endpoints_of_both_versions_are_judged_too(front: HttpFront, judge: str, status: str) -> None:
    with front.client() as client:
        told = _until(client, lambda each: each["status"] != "inconclusive", judge, session="one")
        assert told["status"] == status, told["summary"]


def test_a_session_survives_kill_9(front: HttpFront, world: Cluster) -> None:
    world.add("lasting", RATES[1])
    query = {"session": "lasting", "stable": "old"}
    with front.client("service:rollouts") as client:
        before = _until(client, lambda each: each["status"] == "success", "checkout", **query)
    assert front.resident.process is not None
    os.kill(front.resident.pid, signal.SIGKILL)
    front.resident.process.wait()
    front.resident.start()
    front.resident.until(front.ready)
    with front.client("service:rollouts") as client:
        after = client.get("/judge/checkout", params=query).raise_for_status().json()
        assert after["begun_at"] == before["begun_at"]
        assert after["measures"][0]["candidate_seen"] >= before["measures"][0]["candidate_seen"]
        seen = before["measures"][0]["candidate_seen"]
        grown = _until(client, lambda each: each["measures"][0]["candidate_seen"] > seen, "checkout", **query)
        assert grown["status"] == "success", "what was certified still is"


# Command line


def test_the_command_line_shows_judges_and_begins_nothing(front: HttpFront) -> None:
    listed = front.resident.run("judge", "list", "--output", "json")
    data = json.loads(listed.stdout)["data"]
    assert {each["judge"] for each in data["judges"]} == {"checkout", "flagged", "direct", "directly-bad"}
    shown = front.resident.run("judge", "show", "checkout", "--session", "never", "-o", "json")
    assert (shown.returncode, json.loads(shown.stdout)["data"]["error"]["code"]) == (3, "judge.session_unknown")
    told = front.resident.run("judge", "show", "directly-bad")
    assert "NO-GO" in told.stdout
    assert front.resident.run("judge", "list").returncode == 0


def test_a_value_beyond_its_threshold_ends_the_watching_with_1(tmp_path: Path, world: Cluster) -> None:
    here = Resident(tmp_path, {**os.environ})
    file = tmp_path / "thresholds.yaml"
    url = f"{world.server.url}/good/metrics"
    words = ("--url", url, "--every", "0.5", "--for", "0.5", "-o", "json")
    for limit, code, status in (("max: 1", 1, "breach"), ("min: 1", 0, "ok")):
        file.write_text(f"'http_request_duration_seconds_bucket{{le=\"+Inf\"}}': {{{limit}}}\n")
        run = here.run("judge", "threshold", str(file), *words)
        assert (run.returncode, json.loads(run.stdout)["status"]) == (code, status), run.stderr
    file.write_text("missing_total: {max: 5}\n")
    run = here.run("judge", "threshold", str(file), *words)
    assert (run.returncode, json.loads(run.stdout)["data"]["missing"]) == (8, ["missing_total"])
    world.fault = "broken"
    try:
        run = here.run("judge", "threshold", str(file), *words)
        assert (run.returncode, json.loads(run.stdout)["status"]) == (8, "inconclusive")
    finally:
        world.fault = None
    assert here.run("judge", "threshold", str(file), "--url", "ftp://x", "--for", "0").returncode == 2
    assert here.run("judge", "threshold", str(tmp_path / "none"), "--url", url, "--for", "0").returncode == 3
