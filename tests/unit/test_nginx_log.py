"""What a line of nginx tells of versions, and a reader that follows its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interlock.adapters.log_tail import LogTail
from interlock.adapters.nginx_log import NginxLog, samples_of
from interlock.core.assignment import unit_hash

FIELDS = {
    "format": "2",
    "ended": "1000.500",
    "lasted": "0.250",
    "status": "200",
    "completion": "OK",
    "method": "GET",
    "request": "r1",
    "arm": "v2",
    "pool": "interlock_web_1_or_0",
    "stable": "v1 127.0.0.1:1",
    "addresses": "127.0.0.1:2",
    "statuses": "200",
    "headers": "0.020",
    "times": "0.030",
    "length": "100",
    "declared": "100",
    "unit": "s:u",
    "asked": "",
}


def line(**fields: str) -> str:
    return "\t".join({**FIELDS, **fields}.values())


def shown(**fields: str) -> list[tuple[Any, ...]]:
    return [(each.arm, each.status, each.client_left, each.fell_back) for each in samples_of(line(**fields))]


def test_a_line_tells_who_answered_whom_and_how_soon() -> None:
    (sample,) = samples_of(line())
    assert (sample.at_seconds, sample.seconds, sample.request) == (1000.25, 0.02, "r1")
    assert sample.unit == str(unit_hash("s", "u"))
    assert shown() == [("v2", 200, False, False)]


def test_a_fallback_is_two_attempts_of_one_request() -> None:
    both = {"addresses": "127.0.0.1:2, 127.0.0.1:1", "times": "0.1, 0.2"}
    refused = shown(**both, statuses="502, 200", headers="-, 0.2")
    assert refused == [("v2", 0, False, False), ("v1", 200, False, True)]
    assert shown(**both, statuses="503, 500", headers="0.1, 0.2", status="500")[0][1] == 503


def test_a_connection_that_had_been_idle_is_no_failure() -> None:
    both = {"addresses": "127.0.0.1:2, 127.0.0.1:2", "statuses": "502, 200", "headers": "-, 0.1", "times": "0, 0.1"}
    assert shown(**both, pool="interlock_web_1") == [("v2", 200, False, False)]
    assert shown(**both) == [("v2", 200, False, False)]


def test_a_stable_version_that_is_known_by_name_is_known_by_its_turn() -> None:
    both = {"addresses": "10.0.0.2:2, 10.0.0.1:1", "statuses": "502, 200", "headers": "-, 0.1", "times": "0, 0.1"}
    assert [each[0] for each in shown(**both, stable="v1 shop.example:1")] == ["v2", "v1"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"length": "50"}, 0),
        ({"length": "50", "method": "HEAD"}, 200),
        ({"length": "0", "statuses": "304"}, 304),
        ({"length": "50", "declared": ""}, 200),
        ({"length": "150"}, 200),
    ],
)
def test_an_answer_that_was_cut_short_is_none(fields: dict[str, str], expected: int) -> None:
    assert shown(**fields)[0][1] == expected


def test_a_client_that_left_is_no_fault_of_the_version() -> None:
    assert shown(status="499", completion="", statuses="-", headers="-") == [("v2", 0, True, False)]
    assert shown(completion="", length="50") == [("v2", 200, True, False)]


def test_who_asks_for_a_version_is_told_apart_also_beside_lines_of_before() -> None:
    assert [samples_of(line(asked=asked))[0].chosen for asked in ("", "0", "1")] == [False, True, True]
    before = line(format="1").rpartition("\t")[0]
    assert samples_of(before) == samples_of(line())


def test_what_nginx_answered_by_itself_is_no_sample() -> None:
    nothing = dict.fromkeys(("addresses", "statuses", "headers", "times", "arm"), "")
    assert shown(**nothing, status="400") == []


@pytest.mark.parametrize(
    "text",
    ["", "1\t2", line(format="1"), line(format="3"), line(statuses="200, 200"), line(statuses="abc"), line(ended="x")],
)
def test_what_is_no_line_is_counted_and_never_guessed_at(tmp_path: Path, text: str) -> None:
    path = tmp_path / "web.log"
    path.write_text(f"{text}\n{line()}\n")
    log = NginxLog(path, from_end=False)
    assert len(log.read(1 << 20)) == 1
    assert log.unreadable == 1
    log.close()


def test_a_reader_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = LogTail(path, from_end=False, line_bytes_max=100)
    assert tail.read(100) == []
    path.write_bytes(b"one\ntw")
    assert tail.read(100) == [b"one"]
    with path.open("ab") as file:
        file.write(b"o\n")
    assert tail.read(100) == [b"two"]
    path.write_bytes(b"new\n")
    assert tail.read(100) == [b"new"]
    tail.close()


def test_from_the_end_the_rest_of_a_line_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old\nbeg")
    tail = LogTail(path, from_end=True, line_bytes_max=100)
    with path.open("ab") as file:
        file.write(b"un\nnew\n")
    assert tail.read(100) == [b"new"]
    tail.close()


def test_a_line_without_an_end_is_passed_over_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 300 + b"\nnew\n")
    tail = LogTail(path, from_end=False, line_bytes_max=100)
    found = [tail.read(64) for _ in range(6)]
    assert [each for lines in found for each in lines] == [b"new"]
    assert tail.broken == 1
    tail.close()


def test_what_is_written_to_a_file_that_was_rotated_away_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    tail = LogTail(path, from_end=False, line_bytes_max=100)
    assert tail.read(100) == [b"one"]
    old = path.rename(tmp_path / "log.1")
    path.write_bytes(b"three\n")
    assert tail.read(100) == []
    with old.open("ab") as file:
        file.write(b"two\n")
    assert [each for _ in range(3) for each in tail.read(100)] == [b"two", b"three"]
    assert tail.broken == 0
    tail.close()
