"""The comparator as a process, between two real services: what it finds, what it survives, what it never does."""

from __future__ import annotations

import json
import resource
import shlex
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.comparing import RunningComparator, comparator
from harness.shop_service import RunningShop, free_port, shop_service
from interlock.comparison.shadow import (
    DIFFERENCES_NAME,
    SUMMARY_NAME,
    TASK_NAME,
    ShadowVerdict,
    differences_table,
    read_summary,
    shadow_verdict,
)
from interlock.core.comparison import ComparisonRules, FieldRule
from interlock.core.errors import Permanent

RULES = ComparisonRules(
    rules=(FieldRule(path="$.served_at", grade="ignore", reason="a clock"),), key_fields=("$.price", "$.id")
)
PAIRS = 40
SMALL = RULES.model_copy(update={"agreement_percent": 85.0})  # what 40 pairs can prove


@pytest.fixture(scope="module")
def stable() -> Iterator[RunningShop]:
    with shop_service(version="v1") as shop:
        yield shop


@pytest.fixture(scope="module")
def candidate() -> Iterator[RunningShop]:
    with shop_service(version="v2") as shop:
        yield shop


@pytest.fixture(autouse=True)
def well(stable: RunningShop, candidate: RunningShop) -> None:
    for shop in (stable, candidate):
        shop.control(error_percent=0, hang=False, wrong_field="", garbage=False, latency_ms=0)


def _items(count: int, first: int = 0) -> list[str]:
    return [f"/items/{number}" for number in range(first, first + count)]


def _verdict(running: RunningComparator, rules: ComparisonRules = SMALL) -> ShadowVerdict:
    return shadow_verdict(read_summary(running.folder), rules, PAIRS, datetime.now(UTC))


def test_an_equal_candidate_is_a_go_with_its_bound_and_the_noise_named(
    stable: RunningShop, candidate: RunningShop, tmp_path: Path
) -> None:
    rules = SMALL.model_copy(update={"rules": ()})
    with comparator(tmp_path, stable.address, candidate.address, rules=rules) as running:
        assert set(running.copies(*_items(PAIRS))) == {204}
        summary = running.await_summary(lambda summary: summary.pairs == PAIRS)
        verdict = _verdict(running, rules)
        assert verdict.verdict == "go", verdict.words
        assert summary.noise_fields == ("$.served_at",)
        assert "89.1" in verdict.words
        assert "noise in $.served_at" in verdict.words
        assert running.stop() == 0


def test_one_wrong_field_is_found_named_proven_and_can_be_seen_again(
    stable: RunningShop, candidate: RunningShop, tmp_path: Path
) -> None:
    candidate.control(wrong_field="price")
    with comparator(tmp_path, stable.address, candidate.address, rules=RULES) as running:
        running.copies("/items/7?page=2", headers={"x-request-id": "r-1", "accept-language": "de"})
        summary = running.await_summary(lambda summary: bool(summary.blocking))
        assert summary.pairs == 1, "a difference that repeats is proven by the first request that shows it"
        verdict = _verdict(running)
        assert (verdict.verdict, verdict.evidence["blocking"]) == ("no_go", ["$.price"])
        assert (
            "$.price differs in 1 of 1 answers of v2, never between two answers of v1: it is a key field"
            in verdict.words
        )
        assert '"6.88" became "not 6.88"' in verdict.words
        assert differences_table(summary).splitlines()[1].split()[:5] == ["block", "$.price", "1/1", "0", "proven"]
        (line,) = running.differences()
        assert (line["request"]["id"], line["difference"]["path"]) == ("r-1", "$.price")
        shown = [_run(line["replay"][name]) for name in ("v1", "v2")]
        assert [each["price"] for each in shown] == ["6.88", "not 6.88"]


def test_a_wrong_field_that_is_no_key_field_warns(stable: RunningShop, candidate: RunningShop, tmp_path: Path) -> None:
    candidate.control(wrong_field="name")
    with comparator(tmp_path, stable.address, candidate.address, rules=SMALL) as running:
        running.copies(*_items(PAIRS))
        summary = running.await_summary(lambda summary: summary.pairs == PAIRS)
        assert [(row.field, row.grade, row.is_proven) for row in summary.tally.fields] == [("$.name", "warn", True)]
        assert _verdict(running).verdict == "go"


def _run(command: str) -> Any:
    """What a person sees who pastes a line of the differences."""
    words = shlex.split(command)
    assert words[0] == "curl"
    done = subprocess.run([shutil.which("curl") or "curl", *words[1:]], capture_output=True, timeout=20, check=True)
    return json.loads(done.stdout.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize(
    ("broken", "why"), [({"garbage": True}, None), ({"error_percent": 100}, None), ({"hang": True}, "timeout")]
)
def test_a_candidate_that_answers_garbage_errors_or_nothing_is_blamed(
    broken: dict[str, Any], why: str | None, stable: RunningShop, candidate: RunningShop, tmp_path: Path
) -> None:
    candidate.control(**broken)
    with comparator(tmp_path, stable.address, candidate.address, rules=RULES, timeout_seconds=0.3) as running:
        assert set(running.copies(*_items(8))) == {204}
        summary = running.await_summary(lambda summary: bool(summary.blocking))
        assert _verdict(running).verdict == "no_go"
        assert set(summary.candidate_failures) == ({why} if why else set())
        assert summary.stable_failures == {}


def test_a_stable_version_that_is_down_or_errs_by_chance_is_not_the_candidates_fault(
    stable: RunningShop, candidate: RunningShop, tmp_path: Path
) -> None:
    with comparator(tmp_path, f"127.0.0.1:{free_port()}", candidate.address, rules=SMALL) as running:
        running.copies(*_items(60))
        summary = running.await_summary(
            lambda summary: sum(summary.shed.values()) + sum(summary.stable_failures.values()) >= 60
        )
        assert (summary.pairs, summary.tally.fields) == (0, ())
        assert summary.shed["stable_away"] >= 20
        assert "v1 itself gave no answer" in _verdict(running).words or "stable_away" in _verdict(running).words
    stable.control(error_percent=20)
    candidate.control(error_percent=20)
    (tmp_path / "both").mkdir()
    with comparator(tmp_path / "both", stable.address, candidate.address, rules=SMALL) as running:
        running.copies(*_items(100))
        summary = running.await_summary(lambda summary: summary.pairs == 100)
        assert summary.blocking == ()
        assert "$status" in summary.noise_fields


def test_what_is_not_safe_is_never_sent_on_and_credentials_never_are(
    stable: RunningShop, candidate: RunningShop, tmp_path: Path
) -> None:
    """The shop's /echo says what it was sent, and both its answers are kept as a difference."""
    before = [shop.control()["requests"] for shop in (stable, candidate)]
    with comparator(tmp_path, stable.address, candidate.address, rules=ComparisonRules()) as running:
        assert set(running.copies("/orders", "/items/1", method="POST")) == {204}
        assert set(running.copies("/items/1", method="DELETE")) == {204}
        summary = running.await_summary(lambda summary: summary.received == 3)
        assert summary.shed == {"unsafe": 3}
        assert [shop.control()["requests"] for shop in (stable, candidate)] == before
        secrets = {
            "Authorization": "Bearer hunter2hunter2",
            "Cookie": "sid=hunter2hunter2",
            "X-Api-Key": "hunter2hunter2",
            "X-My-Auth": "hunter2hunter2",
            "X-Envoy-Expected-Rq-Timeout-Ms": "15",
            "If-None-Match": "1",
        }
        running.copies("/echo?access_token=hunter2hunter2&page=1", headers={**secrets, "Accept-Language": "de"})
        running.await_summary(lambda summary: summary.pairs == 1)
        running.stop()
    sent = json.loads(_asked(stable, "/echo"))
    assert sent["requests"] > before[0]
    left = (tmp_path / DIFFERENCES_NAME).read_text() + (tmp_path / SUMMARY_NAME).read_text()
    assert "hunter2" not in left
    assert "page=1" in left
    (line, *_) = [json.loads(line) for line in (tmp_path / DIFFERENCES_NAME).read_text().splitlines()]
    assert line["request"]["blotted"]


def _asked(shop: RunningShop, target: str) -> bytes:
    with socket.create_connection(("127.0.0.1", shop.port), timeout=5) as connection:
        connection.sendall(f"GET {target} HTTP/1.0\r\nhost: x\r\n\r\n".encode())
        whole = b""
        while piece := connection.recv(65536):
            whole += piece
    return whole.partition(b"\r\n\r\n")[2]


def test_kill_9_goes_on_from_what_was_counted(stable: RunningShop, candidate: RunningShop, tmp_path: Path) -> None:
    candidate.control(wrong_field="stock")
    with comparator(tmp_path, stable.address, candidate.address, rules=RULES) as running:
        running.copies(*_items(10))
        before = running.await_summary(lambda summary: summary.pairs == 10)
        with (tmp_path / DIFFERENCES_NAME).open("ab") as file:
            file.write(b'{"half a li')
        running.kill()
        candidate.control(wrong_field="")
        running.copies(*_items(5))
        after = running.await_summary(lambda summary: summary.pairs == 15)
        assert after.started_at == before.started_at
        (row,) = after.tally.fields
        assert (row.field, row.candidate_only) == ("$.stock", 10)
        assert after.received == 15


def test_it_sheds_what_is_too_much_and_counts_it(stable: RunningShop, candidate: RunningShop, tmp_path: Path) -> None:
    stable.control(hang=True)
    bounds = {"in_flight_max": 2, "waiting_max": 5, "timeout_seconds": 1.0}
    with comparator(tmp_path, stable.address, candidate.address, rules=RULES, **bounds) as running:
        assert set(running.copies(*_items(50))) == {204}
        summary = running.await_summary(lambda summary: summary.shed.get("queue", 0) > 0)
        assert summary.shed["queue"] == 50 - 2 - 5
        stable.control(hang=False)
        running.await_summary(lambda summary: sum(summary.shed.values()) + summary.pairs + 2 >= 50)


def test_requests_that_are_none_end_the_connection_and_nothing_else(
    stable: RunningShop, candidate: RunningShop, tmp_path: Path
) -> None:
    hostile = [
        b"\x16\x03\x01\x00\xff" * 20 + b"\r\n\r\n",
        b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nbroken\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n",
        b"x" * 100_000,
    ]
    with comparator(tmp_path, stable.address, candidate.address, rules=RULES) as running:
        host, port = running.task.listen.split(":")
        for raw in hostile:
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(raw)
                assert connection.recv(100).startswith(b"HTTP/1.1 400")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(
                b"GET /items/1 HTTP/1.1\r\n\r\nGET /items/2 HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc" * 2
            )
            got = b""
            while got.count(b"204") < 4:
                got += connection.recv(1000)
        running.await_summary(lambda summary: summary.pairs == 4 and summary.shed == {"malformed": len(hostile)})


@contextmanager
def _answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A service that answers each connection's first request by hand."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65536)
                        answer(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _says(raw: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(raw)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"garbage\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf", "broke_off"),
        (b"", "broke_off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", "garbage"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, "garbage"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n" + b"x" * 3_000_000, None),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 3_000_000, None),
    ],
)
def test_half_huge_and_garbled_answers_of_the_candidate_are_its_own(
    raw: bytes, why: str | None, stable: RunningShop, tmp_path: Path
) -> None:
    with _answering(_says(raw)) as address, comparator(tmp_path, stable.address, address, rules=RULES) as running:
        running.copies("/items/1")
        summary = running.await_summary(lambda summary: bool(summary.blocking))
        assert set(summary.candidate_failures) == ({why} if why else set())
        assert running.process.poll() is None


def test_chunked_answers_and_head_requests_are_compared(
    stable: RunningShop, candidate: RunningShop, tmp_path: Path
) -> None:
    body = json.dumps({"id": "1", "price": "6.12", "name": "item 1", "stock": 3, "tags": ["new", "sale"]}).encode()
    chunks = b"5;x=y\r\n" + body[:5] + b"\r\n" + f"{len(body) - 5:x}\r\n".encode() + body[5:] + b"\r\n0\r\nt: 1\r\n\r\n"
    early, kind = b"HTTP/1.1 103 Early\r\n\r\n", b"content-type: application/json\r\n"
    raw = early + b"HTTP/1.1 200 OK\r\n" + kind + b"transfer-encoding: chunked\r\n\r\n"
    with (
        _answering(_says(raw + chunks)) as address,
        comparator(tmp_path, stable.address, address, rules=RULES) as running,
    ):
        running.copies("/items/1")
        summary = running.await_summary(lambda summary: summary.pairs == 1)
        assert [row for row in summary.tally.fields if row.grade == "block"] == [], differences_table(summary)
    (tmp_path / "head").mkdir()
    with comparator(tmp_path / "head", stable.address, candidate.address, rules=RULES) as running:
        running.copies("/items/1", method="HEAD")
        assert running.await_summary(lambda summary: summary.pairs == 1).tally.fields == ()


def test_its_files_are_for_their_owner_alone(stable: RunningShop, candidate: RunningShop, tmp_path: Path) -> None:
    with comparator(tmp_path, stable.address, candidate.address, rules=RULES) as running:
        for name in (TASK_NAME, SUMMARY_NAME, DIFFERENCES_NAME):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert running.kept.environment == {}
        assert {path.name for path in tmp_path.iterdir()} >= {TASK_NAME, SUMMARY_NAME, DIFFERENCES_NAME}


def test_a_full_disk_stops_neither_comparing_nor_the_process(
    stable: RunningShop, candidate: RunningShop, tmp_path: Path
) -> None:
    candidate.control(wrong_field="price")
    with comparator(tmp_path, stable.address, candidate.address, rules=RULES) as running:
        before = running.await_summary(lambda summary: True)
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        running.copies(*_items(3))
        asked = candidate.control()["requests"]
        while candidate.control()["requests"] < asked + 3:
            assert running.process.poll() is None
        resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        after = running.await_summary(lambda summary: summary.pairs == 3)
        assert after.pid == before.pid
        assert after.unwritten + len(running.differences()) == 3
        assert [path for path in tmp_path.iterdir() if path.name.endswith(".draft")] == []


def test_a_comparator_that_is_silent_is_no_go_ahead(
    stable: RunningShop, candidate: RunningShop, tmp_path: Path
) -> None:
    with comparator(tmp_path, stable.address, candidate.address, rules=SMALL) as running:
        running.copies(*_items(PAIRS))
        running.await_summary(lambda summary: summary.pairs == PAIRS)
    summary = read_summary(tmp_path)
    assert shadow_verdict(summary, SMALL, PAIRS, datetime.now(UTC)).verdict == "go"
    later = shadow_verdict(summary, SMALL, PAIRS, datetime.now(UTC) + timedelta(minutes=1))
    assert (later.verdict, "silent" in later.words) == ("not_yet", True)


def test_a_summary_that_cannot_be_read_is_told_and_begun_anew(
    stable: RunningShop, candidate: RunningShop, tmp_path: Path
) -> None:
    assert read_summary(tmp_path) is None
    assert shadow_verdict(None, RULES, PAIRS, datetime.now(UTC)).verdict == "not_yet"
    (tmp_path / SUMMARY_NAME).write_text("{")
    with pytest.raises(Permanent, match="cannot be read"):
        read_summary(tmp_path)
