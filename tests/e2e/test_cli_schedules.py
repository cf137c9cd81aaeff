"""Schedules from the command line: listed, previewed, paused, run by hand, asked once; and check says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SCHEDULES = """
services:
  reports: {roles: [operator]}
schedules:
  nightly-report:
    action: command.exec
    args: {argv: [uptime]}
    cron: "15 2 * * *"
    timezone: Asia/Shanghai
    as: reports
  broken:
    action: command.exec
    args: {argv: []}
    cron: "0 0 1 1 *"
    as: reports
"""


@pytest.fixture(scope="module")
def shop(make_shop: Callable[[], Any]) -> Any:
    made = make_shop()
    made.set_up()
    file = made.folder / "interlock.yaml"
    file.write_text(file.read_text() + SCHEDULES)
    return made


def _words(*words: str) -> list[str]:
    return ["schedules", *words]


def test_the_list_and_the_preview_say_when_it_asks_next(shop: Any) -> None:
    listed = shop.run("schedules", "list")
    assert listed.returncode == 0, listed.stderr
    assert "nightly-report" in listed.stdout
    found = shop.run("schedules", "preview", "nightly-report", "--count", "3", "--output", "json")
    assert found.stdout.count("T02:15:00+08:00") == 3
    assert "02:15" in shop.run("schedules", "preview", "nightly-report").stdout
    assert shop.run("schedules", "show", "none").returncode == 3


def test_a_pause_is_shown_with_who_and_why_and_ends(shop: Any) -> None:
    paused = shop.run("schedules", "pause", "nightly-report", "--reason", "the disk is full", "--confirm")
    assert paused.returncode == 0, paused.stderr
    shown = shop.run("schedules", "show", "nightly-report")
    assert "the disk is full" in shown.stdout
    assert "paused" in shop.run("schedules", "list").stdout
    assert shop.run("schedules", "resume", "nightly-report", "--confirm").returncode == 0
    again = shop.run("schedules", "resume", "nightly-report", "--confirm")
    assert "is not paused" in again.stderr


def test_what_a_schedule_asks_for_is_asked_for_by_hand_as_oneself(shop: Any) -> None:
    done = shop.run("schedules", "run", "nightly-report")
    assert done.returncode == 0, done.stderr
    assert "load average" in done.stdout


def test_a_one_off_is_planned_and_taken_back(shop: Any) -> None:
    target = shop.folder / "data" / "later.txt"
    words = ["once", "later", "file.write", "--at", "2027-10-01T03:00:00+08:00"]
    words += ["--arg", f"path={target}", "--arg", "content=x"]
    made = shop.run(*_words(*words), "--confirm")
    assert made.returncode == 0, made.stderr
    assert "later" in shop.run("schedules", "list").stdout
    assert shop.run("schedules", "cancel", "later", "--confirm").returncode == 0
    assert "later" not in shop.run("schedules", "list").stdout
    assert not target.exists()


def test_check_names_the_schedule_that_cannot_be_planned(shop: Any) -> None:
    found = shop.run("check")
    assert "schedules.broken" in found.stdout + found.stderr
    assert "schedules.nightly-report" not in found.stdout + found.stderr
