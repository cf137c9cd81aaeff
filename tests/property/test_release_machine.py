"""A release takes only the ways that there are, never goes on by silence, never promises a way back that is none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.errors import Conflict
from interlock.core.release import ReleaseState
from interlock.core.traffic import WHOLE
from interlock.core.workload import CanaryStep, ReleaseSettings, ServiceWorkload, ShadowStep, Source, Traffic
from interlock.releases.live import Live
from interlock.releases.machine import TRANSITIONS, Order, advance, obey, watched
from interlock.releases.model import (
    MOVING,
    STOPPED,
    Next,
    Release,
    Seen,
    applied,
    fresh,
    gap_seconds_max,
    percent_of,
    wanted,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
STEPS = st.lists(
    st.one_of(
        st.builds(ShadowStep, shadow_percent=st.just(10.0), deadline_seconds=st.just(100.0)),
        st.builds(
            CanaryStep,
            weight_percent=st.sampled_from([5.0, 50.0, 100.0]),
            until=st.sampled_from(["go", "time"]),
            hold_seconds=st.sampled_from([0.0, 10.0]),
            deadline_seconds=st.just(100.0),
        ),
    ),
    max_size=4,
).map(tuple)
SETTINGS = st.builds(
    ReleaseSettings,
    steps=STEPS,
    undecided=st.sampled_from(["pause", "rollback", "promote"]),
    watch_seconds=st.sampled_from([0.0, 50.0]),
    irreversible=st.booleans(),
)
WORDS = st.sampled_from([None, "something"])
SEEN = st.builds(
    Seen,
    settled=st.booleans(),
    effect_failed=WORDS,
    waits_for=WORDS,
    verdict=st.sampled_from(["go", "no_go", "not_yet"]),
    words=st.just("the judge's words"),
    red_line=WORDS,
    shadow=st.sampled_from(["go", "no_go", "not_yet"]),
    shadow_words=st.just("the comparison's words"),
    quiet_seconds=st.sampled_from([0.0, 1000.0]),
    requests=st.sampled_from([0, 7]),
    gone=WORDS,
    elsewhere=WORDS,
)
ORDERS = st.sampled_from(get_args(Order))
FINE = Seen(settled=True, requests=10)


def release_of(release_settings: ReleaseSettings, **fields: Any) -> Release:
    """A release that has just begun."""
    workload = ServiceWorkload(
        command=("/srv/web",),
        source=Source(folder="/srv/{version}"),
        traffic=Traffic(listen="127.0.0.1:8080"),
        release=release_settings,
    )
    values: dict[str, Any] = {
        "number": 1,
        "name": "web",
        "state": "preparing",
        "stable": "v1",
        "candidate": "v2",
        "workload": workload,
        "identities": {},
        "salt": "r1",
        "looked_at": NOW,
        "started_by": "person:alice",
        "run": 1,
        "created_at": NOW,
        "state_at": NOW,
        **fields,
    }
    return Release(**values)


def look(release: Release, seen: Seen, seconds: float = 1.0) -> tuple[Release, Next]:
    """One look after so many seconds, carried out; the candidate was heard all that time unless it answered nobody."""
    release = replace(release, settled=release.epoch if seen.settled else release.settled)
    release = replace(release, watched_seconds=watched(release, seconds, seconds if seen.requests else 0.0))
    following = advance(release, seen)
    return applied(release, following, NOW), following


@settings(max_examples=300, deadline=None)
@given(SETTINGS, st.lists(st.one_of(SEEN, ORDERS), max_size=25), st.sampled_from(["v1", None]))
def test_every_way_is_one_of_the_table_and_every_end_is_closed(
    release_settings: ReleaseSettings, story: list[Seen | Order], stable: str | None
) -> None:
    release = release_of(release_settings, stable=stable)
    for event in story:
        before = release
        if isinstance(event, Seen):
            release, following = look(release, event, 60.0)
        else:
            try:
                following = obey(release, event, "as told")
            except Conflict:
                continue
            release = applied(release, following, NOW)
        if following.state is not None:
            assert release.state in TRANSITIONS[before.state], (before.state, release.state)
            assert release.epoch == before.epoch + 1
            assert following.notes, "every change is told"
        assert (release.closed_at is not None) == (not TRANSITIONS[release.state] or release.state == "released")
        assert -1 <= release.step <= len(release_settings.steps)
        shares = wanted(release).shares
        assert shares is None or sum(share for _, share in shares) == WHOLE
        assert (release.was is not None) == (release.state in STOPPED)


@settings(max_examples=200, deadline=None)
@given(SETTINGS, st.lists(SEEN, max_size=25))
def test_where_there_is_no_way_back_users_never_go_back_by_themselves(
    release_settings: ReleaseSettings, story: list[Seen]
) -> None:
    steps = (CanaryStep(weight_percent=5), *release_settings.steps)
    settings_of_it = release_settings.model_copy(update={"irreversible": True, "steps": steps})
    release = release_of(settings_of_it, state="canary", step=0, epoch=1, settled=1)
    for seen in story:
        reached = release.reached_users
        release, following = look(release, seen)
        assert not (reached and following.state == "going_back")


@settings(max_examples=200, deadline=None)
@given(SETTINGS, st.lists(st.floats(min_value=0.1, max_value=500), max_size=30))
def test_nothing_goes_on_by_silence(release_settings: ReleaseSettings, pauses: list[float]) -> None:
    """Nobody comes, no verdict, nothing is wrong: no step is passed but by what `undecided` says."""
    release = release_of(release_settings.model_copy(update={"undecided": "pause"}))
    release, _ = look(release, Seen(settled=True))
    step = release.step
    for seconds in pauses:
        release, _ = look(release, Seen(settled=True, quiet_seconds=10_000), seconds)
        assert release.step == step
        assert release.state in {"shadow", "canary", "paused", "watching"} or release_settings.watch_seconds == 0


@pytest.mark.parametrize("state", sorted(MOVING - {"preparing"}))
@pytest.mark.parametrize("wrong", [{"verdict": "no_go"}, {"red_line": "5 errors"}, {"gone": "it died"}])
def test_what_is_wrong_outweighs_all_that_is_finished(state: ReleaseState, wrong: dict[str, Any]) -> None:
    steps = (ShadowStep(shadow_percent=10),) if state == "shadow" else (CanaryStep(weight_percent=5, hold_seconds=0),)
    step = 1 if state == "watching" else 0
    release = release_of(ReleaseSettings(steps=steps, watch_seconds=0), state=state, step=step, epoch=3, settled=3)
    seen = replace(FINE, shadow="go", **wrong)
    _, following = look(release, seen)
    assert following.state == "going_back"


def test_what_a_freeze_holds_up_waits_and_says_so_once_and_still_goes_back() -> None:
    release = release_of(ReleaseSettings(steps=(CanaryStep(weight_percent=5, hold_seconds=0),)), state="canary", step=0)
    held, following = look(release, replace(FINE, settled=False, waits_for="changes are frozen"))
    assert following.state is None
    assert held.told == ("waits",)
    assert fresh(held, following.notes) == ()
    _, following = look(held, replace(FINE, settled=False, waits_for="changes are frozen", red_line="dead"))
    assert following.state == "going_back"


def test_a_clock_that_jumps_and_a_night_without_a_look_count_for_ten_seconds_at_most() -> None:
    release = release_of(ReleaseSettings(), state="shadow", step=0, epoch=1, settled=1)
    assert watched(release, timedelta(days=3).total_seconds(), 0) == pytest.approx(10)
    assert watched(release, -500, 0) == 0
    assert watched(release, 0.5, 0) == pytest.approx(0.5)
    assert watched(replace(release, settled=0), 1.0, 1.0) == 0, "not while its effects are on their way"


@pytest.mark.parametrize(("state", "step"), [("canary", 0), ("watching", 1)])
def test_where_time_alone_moves_it_on_only_time_with_answers_counts(state: ReleaseState, step: int) -> None:
    steps = (CanaryStep(weight_percent=5, hold_seconds=10),)
    release = release_of(ReleaseSettings(steps=steps, watch_seconds=10), state=state, step=step, epoch=1, settled=1)
    for _ in range(3):
        release, _ = look(release, FINE)
    for _ in range(500):
        release, following = look(release, replace(FINE, requests=0, quiet_seconds=400))
        assert following.state is None, "it had answers once, and has none now"
    assert "no_traffic" in release.told
    for _ in range(7):
        release, following = look(release, FINE)
    assert following.state in {"watching", "released"}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(min_value=0.0, max_value=100.0), max_size=40), st.floats(min_value=0.0, max_value=1e6))
def test_an_answer_vouches_for_no_more_than_its_gap_and_silence_for_nothing(gaps: list[float], silence: float) -> None:
    release = release_of(ReleaseSettings(steps=(CanaryStep(weight_percent=5, hold_seconds=60),)), step=0)
    live, now, most = Live(), 0.0, gap_seconds_max(release)
    for gap in gaps:
        now += gap
        live.hear(now, most)
    now += silence
    assert live.heard_seconds <= min(sum(gaps[1:]), most * max(0, len(gaps) - 1)) + 1e-6
    assert most == pytest.approx(10)


def test_a_first_version_is_watched_by_its_probes_alone() -> None:
    release = release_of(ReleaseSettings(watch_seconds=3, steps=()), stable=None, state="watching", step=0, settled=0)
    for _ in range(3):
        release, _ = look(release, Seen(settled=True))
    assert release.state == "released"


@pytest.mark.parametrize("state", ["watching", "frozen"])
def test_the_watch_of_a_first_version_is_ended_by_a_person_in_either_way(state: ReleaseState) -> None:
    was: dict[str, Any] = {"was": "watching", "watched_seconds": 2.0} if state == "frozen" else {}
    release = release_of(ReleaseSettings(steps=()), stable=None, state=state, step=0, settled=0, **was)
    assert applied(release, obey(release, "promote", "fine"), NOW).state == "released"
    ended = applied(release, obey(release, "abort", "wrong"), NOW)
    assert (ended.state, ended.goal) == ("going_back", "aborted")
    assert (wanted(ended).forget, wanted(ended).shares) == (True, None)
    gone, following = look(ended, Seen(settled=True))
    assert (gone.state, following.notes[0].text) == ("aborted", "nobody is answered any more")
    with pytest.raises(Conflict, match="no way back"):
        obey(release, "rollback", "where to?")


def test_a_watch_that_never_began_is_not_ended_as_released() -> None:
    release = release_of(ReleaseSettings(steps=()), stable=None, state="watching", step=0, epoch=2, settled=1)
    with pytest.raises(Conflict):
        obey(release, "promote", "please")


def test_what_nobody_had_is_not_called_taken_back() -> None:
    shadow = release_of(ReleaseSettings(), state="shadow", step=0, epoch=1, settled=1)
    assert advance(shadow, Seen(settled=True, shadow="no_go", shadow_words="differs")).goal == "failed"
    assert obey(shadow, "rollback", "no").goal == "aborted"
    unbound = release_of(
        ReleaseSettings(steps=(CanaryStep(weight_percent=5),)), state="canary", step=0, epoch=1, settled=0
    )
    refused = Seen(effect_failed="the address is taken")
    assert advance(unbound, refused).goal == "failed"
    assert advance(unbound, replace(refused, requests=1)).goal == "rolled_back"
    canary = (CanaryStep(weight_percent=5),)
    first = release_of(ReleaseSettings(steps=canary), stable=None, state="watching", step=1, epoch=1, settled=0)
    assert (advance(first, refused).state, advance(first, refused).goal) == ("going_back", "failed")


def test_what_is_not_in_force_yet_is_told_as_what_waits_and_counts_for_nobody() -> None:
    steps = (CanaryStep(weight_percent=5), CanaryStep(weight_percent=20))
    release = release_of(ReleaseSettings(steps=steps), state="canary", step=1, epoch=4, settled=3)
    assert percent_of(release) == 5
    assert percent_of(replace(release, settled=4)) == 20
    _, following = look(release, Seen(waits_for="changes are frozen"))
    assert following.notes[0].text == "step 2 of 2, 20 % of users are to get it: waits; changes are frozen"


def test_an_undecided_step_that_answered_nobody_is_not_promoted() -> None:
    step = CanaryStep(weight_percent=5, until="go", hold_seconds=0, deadline_seconds=5)
    release = release_of(ReleaseSettings(steps=(step,), undecided="promote"), state="canary", step=0, settled=0)
    assert look(replace(release, watched_seconds=9.0), replace(FINE, requests=0))[1].state == "paused"
    assert look(replace(release, watched_seconds=9.0), FINE)[1].state == "watching"


def test_the_timeline_says_what_was_ordered() -> None:
    release = release_of(ReleaseSettings(steps=(CanaryStep(weight_percent=5),)), state="canary", step=0, settled=0)
    texts = [obey(release, order, "odd log").notes[0].text for order in ("pause", "rollback", "abort")]
    assert texts == ["paused: odd log", "goes back: odd log", "is ended: odd log"]


def test_a_pause_keeps_what_the_step_was_watched_for() -> None:
    step = CanaryStep(weight_percent=5, hold_seconds=60)
    release = release_of(ReleaseSettings(steps=(step,)), state="canary", step=0, watched_seconds=42.0)
    paused = applied(release, obey(release, "pause", "lunch"), NOW)
    resumed = applied(paused, obey(paused, "resume", "coffee"), NOW)
    assert (paused.state, resumed.state, resumed.watched_seconds) == ("paused", "canary", 42.0)


def test_a_candidate_that_nobody_had_has_failed_and_one_that_users_had_is_rolled_back() -> None:
    begun = release_of(ReleaseSettings())
    assert advance(begun, Seen(effect_failed="never healthy")).goal == "failed"
    canary = replace(begun, state="canary", step=1)
    assert advance(canary, replace(FINE, verdict="no_go")).goal == "rolled_back"


def test_a_release_across_a_migration_freezes_and_only_an_accepting_person_takes_it_back() -> None:
    release = release_of(
        ReleaseSettings(irreversible=True, steps=(CanaryStep(weight_percent=5),)), state="canary", step=0
    )
    frozen = applied(release, advance(release, replace(FINE, verdict="no_go", words="errors")), NOW)
    assert (frozen.state, wanted(frozen).shares) == ("frozen", None)
    with pytest.raises(Conflict, match="no way back"):
        obey(frozen, "rollback", "please")
    assert obey(frozen, "rollback", "we looked", accept=True).state == "going_back"


def test_going_back_is_never_given_up() -> None:
    release = release_of(ReleaseSettings(), state="going_back", step=1, goal="rolled_back", epoch=4)
    stuck, following = look(release, Seen(effect_failed="the disk is full"))
    assert following.state is None
    assert stuck.told == ("stuck",)
    done, _ = look(stuck, Seen(settled=True))
    assert done.state == "rolled_back"
