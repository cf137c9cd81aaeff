"""Decides what happens to the instants that wait: asked for, kept waiting, missed or left out; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from interlock.core.schedule import Schedule
from interlock.schedules.model import Waiting

Word = Literal["submit", "queue", "wait", "missed", "overlapped"]


@dataclass(frozen=True)
class Verdict:
    """What happens to one instant, and why."""

    waiting: Waiting
    word: Word
    reason: str | None = None


def decide(waiting: Iterable[Waiting], schedule: Schedule, now: datetime, *, busy: bool) -> tuple[Verdict, ...]:
    """A verdict for each instant, in the order in which they are carried out.

    Late is what could not be asked for within its grace; `catch_up` says what is kept of it, and what is kept waits for
    its turn instead of being left out. `busy`: an earlier instant's Run is not finished. With `overlap: allow` nothing
    waits for anything.
    """
    ordered = sorted(waiting, key=lambda each: (each.due_at, each.instant))
    lost = {each.instant: reason for each, reason in _lost(ordered, schedule, now)}
    verdicts = [Verdict(each, "missed", lost[each.instant]) for each in ordered if each.instant in lost]
    queued = 0
    for each in ordered:
        if each.instant in lost:
            continue
        verdict = _turn(each, schedule, now, busy=busy, queued=queued)
        verdicts.append(verdict)
        retried = verdict.word == "wait" and each.retry_at is not None
        busy = schedule.overlap != "allow" and (busy or retried or verdict.word == "submit")
        queued += verdict.word == "queue"
    return tuple(verdicts)


def _is_late(each: Waiting, schedule: Schedule, now: datetime) -> bool:
    return each.state == "due" and now - each.due_at > timedelta(seconds=schedule.grace_seconds)


def _lost(ordered: Sequence[Waiting], schedule: Schedule, now: datetime) -> Iterable[tuple[Waiting, str]]:
    """What is late and not kept."""
    late = [each for each in ordered if _is_late(each, schedule, now)]
    kept = {"skip": 0, "once": 1, "all": schedule.backlog_max}[schedule.catch_up]
    for index, each in enumerate(late):
        if index < len(late) - kept:
            seconds = (now - each.due_at).total_seconds()
            yield each, f"it could not be asked for in time (late by {seconds:.0f} s, catch_up: {schedule.catch_up})"


def _turn(each: Waiting, schedule: Schedule, now: datetime, *, busy: bool, queued: int) -> Verdict:
    if now < each.ready_at:
        return Verdict(each, "wait")
    if schedule.overlap == "allow" or not busy:
        return Verdict(each, "submit")
    if schedule.overlap == "skip" and each.state == "due" and not _is_late(each, schedule, now):
        return Verdict(each, "overlapped", "the Run of an earlier instant is not finished (overlap: skip)")
    if each.state == "due" and queued >= schedule.backlog_max:
        return Verdict(each, "overlapped", f"{queued} earlier instants wait already (backlog_max)")
    return Verdict(each, "queue", "an earlier instant is not finished")
