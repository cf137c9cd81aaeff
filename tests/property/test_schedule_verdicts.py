"""Whatever waits and however late it is: verdicts lose nothing in silence, keep the bounds, and ask one at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from interlock.core.actor import Actor
from interlock.core.schedule import Schedule
from interlock.schedules.model import Waiting, ask_of, due_at, instants
from interlock.schedules.verdict import decide

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ACTOR = Actor(kind="service", name="nightly")
SCHEDULES = st.builds(
    Schedule,
    action=st.just("file.write"),
    cron=st.just("* * * * *"),
    catch_up=st.sampled_from(["skip", "once", "all"]),
    overlap=st.sampled_from(["skip", "queue", "allow"]),
    backlog_max=st.integers(1, 5),
    grace_seconds=st.sampled_from([1, 60, 3600]),
    jitter_seconds=st.sampled_from([0, 90]),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Schedule, list[Waiting], bool]:
    """A schedule, distinct instants around now that wait, and whether an earlier one runs."""
    schedule = draw(SCHEDULES)
    minutes = draw(st.lists(st.integers(-300, 5), unique=True, max_size=12))
    waiting = []
    for each in minutes:
        instant = NOW + timedelta(minutes=each)
        tried = draw(st.none() | st.integers(-100, 100))
        retry_at = None if tried is None else NOW + timedelta(seconds=tried)
        state = draw(st.sampled_from(["due", "queued"]))
        due = due_at("job", schedule, instant)
        waiting.append(Waiting(instant, due, state, ACTOR, ask_of("job", schedule, instant), retry_at=retry_at))
    return schedule, waiting, draw(st.booleans())


@given(situations())
def test_every_instant_has_one_verdict_and_whatever_is_lost_has_a_reason(
    situation: tuple[Schedule, list[Waiting], bool],
) -> None:
    schedule, waiting, busy = situation
    verdicts = decide(waiting, schedule, NOW, busy=busy)
    assert sorted(verdict.waiting.instant for verdict in verdicts) == sorted(each.instant for each in waiting)
    assert all(verdict.reason for verdict in verdicts if verdict.word in {"missed", "overlapped", "queue"})
    assert decide(reversed(waiting), schedule, NOW, busy=busy) == verdicts


@given(situations())
def test_one_at_a_time_unless_overlap_is_allowed_and_nothing_before_its_time(
    situation: tuple[Schedule, list[Waiting], bool],
) -> None:
    schedule, waiting, busy = situation
    asked = [verdict.waiting for verdict in decide(waiting, schedule, NOW, busy=busy) if verdict.word == "submit"]
    assert all(each.ready_at <= NOW for each in asked)
    if schedule.overlap != "allow":
        assert len(asked) <= (0 if busy else 1)


@given(situations())
def test_late_ones_are_kept_as_catch_up_says(situation: tuple[Schedule, list[Waiting], bool]) -> None:
    schedule, waiting, busy = situation
    grace = timedelta(seconds=schedule.grace_seconds)
    late = sorted(each.due_at for each in waiting if each.state == "due" and NOW - each.due_at > grace)
    missed = sorted(v.waiting.due_at for v in decide(waiting, schedule, NOW, busy=busy) if v.word == "missed")
    kept = {"skip": 0, "once": 1, "all": schedule.backlog_max}[schedule.catch_up]
    assert missed == late[: max(0, len(late) - kept)], "the newest are kept"


@given(SCHEDULES, st.integers(0, 10_000))
def test_jitter_is_bounded_and_the_same_for_everybody(schedule: Schedule, minutes: int) -> None:
    instant = NOW + timedelta(minutes=minutes)
    due = due_at("job", schedule, instant)
    assert timedelta(0) <= due - instant <= timedelta(seconds=schedule.jitter_seconds)
    assert due == due_at("job", schedule, instant.astimezone())


def test_start_and_end_belong_to_a_schedule() -> None:
    begin, end = NOW, NOW + timedelta(minutes=3)
    schedule = Schedule(action="file.write", cron="* * * * *", start=begin, end=end)
    expected = [NOW + timedelta(minutes=minute) for minute in range(4)]
    assert list(instants(schedule, NOW - timedelta(days=1))) == expected
