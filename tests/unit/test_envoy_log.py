"""What Envoy writes is read once, line by line, whatever happens to the file meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from interlock.adapters.envoy_log import EnvoyLog
from interlock.core.traffic import Sample

LINE = "A 1795198941.966253 v2 v2 200 144 0 - 1686733568 24081e88209 -\n"
MANY = 1 << 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "web.log"


def statuses(log: EnvoyLog, bytes_max: int = MANY) -> list[int]:
    return [sample.status for sample in log.read(bytes_max)]


def line(status: int) -> str:
    return LINE.replace(" 200 ", f" {status} ")


def write(path: Path, text: str, mode: str = "a") -> None:
    with path.open(mode) as file:
        file.write(text)


def test_a_line_says_who_was_answered_how_by_whom_and_when(path: Path) -> None:
    write(path, LINE)
    (sample,) = EnvoyLog(path, from_end=False).read(MANY)
    assert sample == (1795198941.966253, "v2", 200, 0.000144, False, False, "1686733568", "24081e88209", False)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("A 1.5 v2 v1 200 300 0 - 7 r", Sample(1.5, "v1", 200, 0.0003, False, True, "7", "r")),
        ("A 1.5 v2 v2 503 300 0 - 7 r", Sample(1.5, "v2", 503, 0.0003, False, False, "7", "r")),
        ("A 1.5 v2 v2 0 - 12 UF 7 r", Sample(1.5, "v2", 0, 0.012, False, False, "7", "r")),
        ("A 1.5 v2 - 0 - 0 UO 7 r", Sample(1.5, "v2", 0, 0.0, False, False, "7", "r")),
        ("A 1.5 v2 v2 200 300 5 UC 7 r", Sample(1.5, "v2", 0, 0.0003, False, False, "7", "r")),
        ("E 1.5 v2 v2 504 - 300 UT 7 r", Sample(1.5, "v2", 0, 0.3, False, False, "7", "r")),
        ("E 1.5 v2 v2 0 - 300 DC 7 r", Sample(1.5, "v2", 0, 0.3, True, False, "7", "r")),
        ("E 1.5 v2 - 503 - 0 UH - -", Sample(1.5, "v2", 0, 0.0, False, False, "", "")),
        ("A 1.5 v2 v2 503 300 0 - 7 r chosen", Sample(1.5, "v2", 503, 0.0003, False, False, "7", "r", True)),
        ("E 1.5 v2 v2 504 - 300 UT 7 r chosen", Sample(1.5, "v2", 0, 0.3, False, False, "7", "r", True)),
    ],
)
def test_each_way_to_fail_is_told_apart(path: Path, written: str, expected: Sample) -> None:
    write(path, f"{written}\n")
    log = EnvoyLog(path, from_end=False)
    (found,) = log.read(MANY)
    assert found._replace(seconds=round(found.seconds, 9)) == expected
    assert log.unreadable == 0


def test_what_another_line_tells_is_not_counted_twice(path: Path) -> None:
    write(path, "A 1.5 v2 v2 0 - 300 - 7 r\nE 1.5 v2 v2 200 5 300 DC 7 r\n")
    log = EnvoyLog(path, from_end=False)
    assert (log.read(MANY), log.unreadable) == ([], 0)


@pytest.mark.parametrize(
    "garbage",
    [
        *("", "x", "A 1 v2", "\0" * 50, "Z 1.5 v2 v2 200 1 0 - 7 r", "A x v2 v2 200 1 0 - 7 r"),
        *("A 1.5 v2 v2 999 1 0 - 7 r", "A 1.5 v2 v2 2e2 1 0 - 7 r", "A 1.5 v2 v2 200 - - - 7 r"),
        *("A 1.5 v2 v2 200 1 0 - 7 r x", "A 1.5 v2 v2 200 1 0 - 7 r - x"),
    ],
)
def test_garbage_is_counted_and_not_guessed_at(path: Path, garbage: str) -> None:
    write(path, f"{LINE}{garbage}\n{line(404)}")
    log = EnvoyLog(path, from_end=False)
    assert statuses(log) == [200, 404]
    assert log.unreadable == 1


def test_a_line_of_which_a_part_was_written_waits_for_its_rest(path: Path) -> None:
    log = EnvoyLog(path, from_end=False)
    assert statuses(log) == []
    for at in range(1, len(LINE)):
        write(path, LINE[:at], "w" if at == 1 else "a")
        assert statuses(log) == []
        write(path, LINE[at:])
        assert statuses(log) == [200]
        log.close()
        path.unlink()
        log = EnvoyLog(path, from_end=False)
    assert log.unreadable == 0


def test_it_reads_on_in_small_pieces_to_the_same_end(path: Path) -> None:
    write(path, "".join(line(status) for status in range(200, 300)))
    log = EnvoyLog(path, from_end=False)
    found: list[int] = []
    while len(found) < 100:
        found += statuses(log, 7)
    assert found == [*range(200, 300)]


def test_from_the_end_only_whole_lines_that_come_then_count(path: Path) -> None:
    write(path, LINE + LINE[:20])
    log = EnvoyLog(path, from_end=True)
    write(path, LINE[20:] + line(404))
    assert (statuses(log), log.unreadable) == ([404], 0)


def test_rotation_loses_nothing(path: Path) -> None:
    write(path, line(201))
    log = EnvoyLog(path, from_end=False)
    assert statuses(log) == [201]
    write(path, line(202))
    path.rename(path.with_name("web.log.1"))
    write(path.with_name("web.log.1"), line(203))
    assert statuses(log) == [202, 203]
    assert statuses(log) == [], "the new file is not there yet"
    write(path.with_name("web.log.1"), line(204))
    write(path, line(205))
    assert statuses(log) + statuses(log) == [204, 205]
    for status in (206, 207):
        path.replace(path.with_name("web.log.1"))
        write(path, line(status))
    assert statuses(log) + statuses(log) == [206, 207], "also after two rotations"
    assert log.unreadable == 0


def test_nothing_is_read_after_the_end(path: Path) -> None:
    write(path, LINE)
    log = EnvoyLog(path, from_end=False)
    log.close()
    assert statuses(log) == []


def test_a_file_that_was_cut_short_is_read_from_its_beginning(path: Path) -> None:
    write(path, LINE * 3)
    log = EnvoyLog(path, from_end=True)
    write(path, line(404), "w")
    assert statuses(log) + statuses(log) == [404]


def test_a_line_without_end_is_counted_once_and_skipped(path: Path) -> None:
    write(path, "x" * 10_000)
    log = EnvoyLog(path, from_end=False)
    assert statuses(log, 3_000) + statuses(log, 3_000) + statuses(log, 9_000) == []
    write(path, f"more\n{LINE}")
    assert statuses(log) == [200]
    assert log.unreadable == 1


def test_a_line_costs_two_microseconds(path: Path) -> None:
    write(path, LINE * 20_000)
    best = 1.0
    for _ in range(4):
        log = EnvoyLog(path, from_end=False)
        begun = time.thread_time()
        count = len(log.read(16 * MANY))
        best = min(best, (time.thread_time() - begun) / count)
        log.close()
    assert best < 3e-6  # two on a machine that does nothing else; `make bench` says it exactly
