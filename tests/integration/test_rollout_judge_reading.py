"""Reading both versions over real sockets: what is counted, what is refused, and what a broken Prometheus does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.fake_prometheus import FAULTS, Cluster, cluster
from interlock.adapters.secret_files import SecretFiles
from interlock.adapters.web import OutsideWeb
from interlock.core.errors import Denied, InterlockError, Invalid, NotFound, Permanent, Transient
from interlock.core.project import Project
from interlock.core.rollout_judge import RolloutJudge
from interlock.core.web import HttpDestination
from interlock.judges.growth import Growth
from interlock.judges.inspection import inspect_judges
from interlock.judges.reading import Names, Place, Reader
from interlock.lib.clock import SystemClock

NAMES = Names("new", "old")
COUNTERS = {
    "requests": 'http_requests_total{app="checkout"}',
    "errors": 'http_requests_total{app="checkout", code=~"5.."}',
    "latency": "http_request_duration_seconds",
}
SCRAPED: dict[str, Any] = {
    "prometheus": "there",
    "stable": {"where": 'hash="{stable}"'},
    "candidate": {"where": 'hash="{session}"'},
    **COUNTERS,
    "scrape_seconds": 1,
    "every_seconds": 1,
}
TOLD: dict[str, Any] = {
    "stable": {"destination": "there", "path": "/old/metrics"},
    "candidate": {"destination": "there", "path": "/new/metrics"},
    **COUNTERS,
}


@pytest.fixture(scope="module")
def world() -> Iterator[Cluster]:
    with cluster() as made:
        made.add("old", 300, offset_seconds=0.6)
        made.add("old", 600, offset_seconds=0.1)
        made.add("new", 100, errors=0.05)
        yield made


def _destination(world: Cluster, **changes: Any) -> HttpDestination:
    body = {"url": world.server.url, "private": True, "paths": ["/api/v1/query", "/*/metrics"], "timeout_seconds": 1}
    return HttpDestination.model_validate({**body, "response_bytes_max": 1_000_000, **changes})


def _reader(world: Cluster, body: dict[str, Any], tmp_path: Path, **changes: Any) -> Reader:
    web = OutsideWeb(SecretFiles(tmp_path))
    destinations = {"there": _destination(world, **changes)}
    return Reader(RolloutJudge.model_validate(body), destinations, web, SystemClock())


@pytest.mark.parametrize("body", [SCRAPED, TOLD], ids=["prometheus", "endpoints"])
def test_both_versions_are_counted_over_the_same_time(world: Cluster, body: dict[str, Any], tmp_path: Path) -> None:
    reader = _reader(world, body, tmp_path)
    growth, place = reader.read(NAMES, Place())
    assert growth is None, "what was counted before anybody asked is nobody's"
    begun, both = time.monotonic(), list[Growth]()
    while sum(each.seconds for each in both) < 2 and time.monotonic() < begun + 20:
        growth, place = reader.read(NAMES, Place.restored(place.state()))
        both += [growth] if growth is not None else []
    seconds = sum(each.seconds for each in both)
    stable, candidate = (sum(each.both[arm].requests for each in both) for arm in (0, 1))
    assert stable == pytest.approx(900 * seconds, rel=0.1)
    assert candidate == pytest.approx(100 * seconds, rel=0.1)
    assert sum(each.both.candidate.errors for each in both) == pytest.approx(5 * seconds, abs=3)
    assert sum(max(each.both.stable.buckets.values()) for each in both) == pytest.approx(stable, rel=0.02)


@pytest.mark.parametrize("body", [SCRAPED, TOLD], ids=["prometheus", "endpoints"])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_answer_is_an_error_that_is_named(
    world: Cluster, body: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    reader = _reader(world, body, tmp_path)
    world.fault = fault
    begun = time.monotonic()
    try:
        with pytest.raises(InterlockError) as caught:
            reader.read(NAMES, Place())
    finally:
        world.fault = None
    assert time.monotonic() - begun < 3
    assert "IGNORE ALL" not in caught.value.message
    assert caught.value.fix
    if fault == "too many":
        assert isinstance(caught.value, Transient)
        assert caught.value.retry_after_seconds == 1


def test_a_version_that_nobody_knows_is_said(world: Cluster, tmp_path: Path) -> None:
    with pytest.raises(Transient, match="knows nothing of the candidate version"):
        _reader(world, SCRAPED, tmp_path).read(Names("unheard-of", "old"), Place())


def test_only_what_is_declared_is_reached(world: Cluster, tmp_path: Path) -> None:
    before = len(world.server.seen)
    with pytest.raises(NotFound):
        _reader(world, {**SCRAPED, "prometheus": "elsewhere"}, tmp_path).read(NAMES, Place())
    with pytest.raises(Invalid, match="not open to GET"):
        _reader(world, SCRAPED, tmp_path, paths=["/metrics"]).read(NAMES, Place())
    closed = {"private": False, "url": f"https://127.0.0.1:{world.server.port}"}
    with pytest.raises(Denied):
        _reader(world, SCRAPED, tmp_path, **closed).read(NAMES, Place())
    assert len(world.server.seen) == before
    with pytest.raises(Permanent, match="bytes came"):
        _reader(world, SCRAPED, tmp_path, response_bytes_max=100).read(NAMES, Place())


def test_a_credential_goes_along_and_is_told_nowhere(world: Cluster, tmp_path: Path) -> None:
    secret = tmp_path / "prometheus"
    secret.write_text("s3cret-of-the-prometheus\n")
    secret.chmod(0o600)
    reader = _reader(world, SCRAPED, tmp_path, credential="credential:prometheus")
    read = reader.read(NAMES, Place())
    assert world.server.seen[-1].headers["authorization"] == "Bearer s3cret-of-the-prometheus"
    assert "s3cret" not in repr(read)


def test_a_process_that_went_and_one_that_came_leave_the_counts_right(tmp_path: Path) -> None:
    with cluster() as world:
        world.add("new", 100)
        gone = world.add("old", 500_000)
        world.add("old", 400)
        reader = _reader(world, SCRAPED, tmp_path)
        _, place = reader.read(NAMES, Place())
        world.processes.remove(gone)
        world.add("old", 400, begun_at=time.time())
        seen = seconds = 0.0
        end = time.monotonic() + 20
        while seconds < 2 and time.monotonic() < end:
            growth, place = reader.read(NAMES, place)
            seen += growth.both.stable.requests if growth is not None else 0
            seconds += growth.seconds if growth is not None else 0
        assert 300 * seconds < seen < 1200 * seconds


def test_check_names_what_a_judge_cannot_read(world: Cluster) -> None:
    def found(body: dict[str, Any], **changes: Any) -> list[str]:
        destinations = {"there": _destination(world, **changes)}
        judge = RolloutJudge.model_validate(body)
        project = Project(judges={"x": judge}, http_destinations=destinations)
        return [str(each["message"]) for each in inspect_judges(project)]

    assert found(SCRAPED) == found(TOLD) == []
    assert "no destination 'elsewhere'" in found({**SCRAPED, "prometheus": "elsewhere"})[0]
    assert "cannot be read at there" in found(TOLD, paths=["/api/v1/query"])[0]
    assert "says nothing about a label" in found({**SCRAPED, "errors": "errors_total{code}"})[0]
