"""Numbers about versions over real HTTP: what answers is read, and what hangs, ends or floods is said and left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from interlock.adapters import metric_source
from interlock.adapters.metric_source import HttpMetricSource
from interlock.core.errors import InterlockError, Invalid, NotFound, Transient
from interlock.core.judgement import ExpositionMeasure, JudgeSettings, ThresholdMeasure
from interlock.core.traffic import Arm, Routing
from interlock.lib.clock import SystemClock
from interlock.releases.judge.judge import Judge
from interlock.releases.measuring import Measuring


class Version(BaseHTTPRequestHandler):
    """Tells more jobs each time it is asked; one of two fails on the candidate's port."""

    asked: int = 0

    def do_GET(self) -> None:
        kind = self.path.partition("?")[0]
        if kind == "/moved":
            self.send_response(302)
            self.send_header("location", "/metrics")
            self.end_headers()
            return
        if kind in {"/hang", "/drip"}:
            self._dawdle(drips=kind == "/drip")
            return
        body = b"x" * 4096 if kind == "/flood" else b'{"queue": 11}'
        if kind == "/metrics":
            type(self).asked += 1
            body = b'jobs_total{result="failed"} %d\njobs_total{result="done"} %d\n' % (
                50 * self.asked * self.server.server_port % 2,
                100 * self.asked,
            )
        self.send_response(503 if kind == "/ill" else 200)
        self.send_header("content-length", str(len(body) + (10 if kind == "/short" else 0)))
        self.end_headers()
        self.wfile.write(body)

    def _dawdle(self, *, drips: bool) -> None:
        """Until whoever asked has gone, or two seconds are over."""
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        gone = threading.Event()
        for _ in range(40):
            gone.wait(0.05)
            try:
                self.wfile.write(b"x" if drips else b"")
            except OSError:
                return

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Version) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.02,))
        thread.start()
        yield f"127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture
def source() -> Iterator[HttpMetricSource]:
    opened = HttpMetricSource(SystemClock())
    yield opened
    opened.close()


def test_what_answers_is_read(server: str, source: HttpMetricSource) -> None:
    assert source.fetch(f"http://{server}/stats") == b'{"queue": 11}'


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("/ill", Transient, "answers 503"),
        ("/moved", Transient, "answers 302"),
        ("/short", Transient, "does not answer"),
        ("/flood", Invalid, "more than 1000 bytes"),
    ],
)
def test_what_is_no_good_answer_is_said(
    server: str,
    source: HttpMetricSource,
    path: str,
    kind: type[InterlockError],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metric_source, "ANSWER_BYTES_MAX", 1000)
    with pytest.raises(kind, match=words) as caught:
        source.fetch(f"http://{server}{path}?token=secret")
    assert "secret" not in str(caught.value)


def test_nobody_there_and_no_url_are_said(source: HttpMetricSource) -> None:
    with pytest.raises(Transient, match="does not answer"):
        source.fetch("http://127.0.0.1:1/metrics")
    with pytest.raises(InterlockError):
        source.fetch("http://[::1/metrics")
    with pytest.raises(InterlockError):
        source.fetch("file:///etc/passwd")


@pytest.mark.parametrize("path", ["/hang", "/drip"])
def test_what_hangs_or_only_drips_is_not_waited_for(server: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_source, "ANSWER_SECONDS_MAX", 0.2)
    clock = SystemClock()
    source = HttpMetricSource(clock)
    began = clock.monotonic()
    with pytest.raises(Transient):
        source.fetch(f"http://{server}{path}")
    source.close()
    assert clock.monotonic() - began < 2


def test_a_file_is_read_and_one_that_is_too_long_or_missing_is_said(source: HttpMetricSource, tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_bytes(b"queue: {max: 10}")
    assert source.read(str(path)) == b"queue: {max: 10}"
    path.write_bytes(b"#" * (metric_source.FILE_BYTES_MAX + 1))
    with pytest.raises(Invalid, match="more than"):
        source.read(str(path))
    with pytest.raises(NotFound, match="no such file"):
        source.read(str(tmp_path / "none"))
    with pytest.raises(NotFound):
        source.read(str(tmp_path))


async def test_declared_measures_reach_the_judge(
    server: str, source: HttpMetricSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A threshold that is broken twice sends back; the version that is not there is named."""
    monkeypatch.setattr("interlock.releases.measuring.ASK_SECONDS", 0.01)
    limits = tmp_path / "limits.yaml"
    limits.write_text("queue: {max: 10}")
    settings = JudgeSettings(
        measures=(
            ExpositionMeasure(name="jobs", bad='jobs_total{result="failed"}', total="jobs_total"),
            ThresholdMeasure(
                source="threshold",
                name="limits",
                url="http://127.0.0.1:{port}/stats",
                file=str(limits),
                interval_seconds=0.5,
            ),
        )
    )
    arms = (Arm(name="v1", address="127.0.0.1:1", share=5000), Arm(name="v2", address=server, share=5000))

    async def routing() -> Routing | None:
        return Routing(workload="web", listen="127.0.0.1:8080", arms=arms)

    measuring = Measuring(settings, "v1", "v2", source)
    judge = Judge(settings, "v1", "v2")
    asking = asyncio.create_task(measuring.run(routing))
    try:
        async with asyncio.timeout(20):
            number = 0
            while True:
                collected = measuring.take()
                if collected.readings:
                    number += 1
                    judgement = judge.tick(number * 1.0, [], collected.readings, problems=collected.problems)
                    if judgement.verdict == "no_go":
                        break
                await asyncio.sleep(0.01)
    finally:
        asking.cancel()
    assert judgement.breaches == ("limits: queue is 11, above 10, 2 times in a row",)
    assert any(note.startswith("jobs: http://127.0.0.1:1/metrics does not answer") for note in judgement.notes)


async def test_versions_that_nobody_routes_to_are_said_and_without_measures_nothing_is_asked(
    source: HttpMetricSource,
) -> None:
    async def nowhere() -> Routing | None:
        return None

    await asyncio.wait_for(Measuring(JudgeSettings(), "v1", "v2", source).run(nowhere), 1)
    measure = ExpositionMeasure(name="jobs", bad="bad", total="total")
    measuring = Measuring(JudgeSettings(measures=(measure,)), "v1", "v2", source)
    asking = asyncio.create_task(measuring.run(nowhere))
    for _ in range(5):
        await asyncio.sleep(0)
    asking.cancel()
    assert measuring.take().problems == ("nobody knows where v1 listens", "nobody knows where v2 listens")
