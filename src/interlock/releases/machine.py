"""Decides what becomes of a release: from where it stands and what is seen, and from what a person orders; pure.

The order of the questions is the order of their weight: what is wrong comes before what is finished, and a release
never goes on by silence.
"""

from __future__ import annotations

from typing import Literal

from interlock.core.errors import Conflict
from interlock.core.release import ReleaseState
from interlock.core.workload import CanaryStep, ShadowStep
from interlock.releases.model import (
    LOOK_SECONDS_MAX,
    MOVING,
    STOPPED,
    Cause,
    Ending,
    Next,
    Note,
    Release,
    Seen,
    ends_by_time,
    first_step,
    state_at_step,
)

Order = Literal["pause", "resume", "promote", "abort", "rollback"]

TRANSITIONS: dict[ReleaseState, frozenset[ReleaseState]] = {
    "preparing": frozenset({"shadow", "canary", "watching", "paused", "going_back"}),
    "shadow": frozenset({"shadow", "canary", "watching", "paused", "going_back"}),
    "canary": frozenset({"shadow", "canary", "watching", "paused", "frozen", "going_back"}),
    "watching": frozenset({"released", "paused", "frozen", "going_back"}),
    "paused": frozenset({"preparing", "shadow", "canary", "watching", "frozen", "going_back", "released"}),
    "frozen": frozenset({"shadow", "canary", "watching", "going_back", "released"}),
    "going_back": frozenset({"rolled_back", "failed", "aborted"}),
    "released": frozenset({"going_back"}),
    "rolled_back": frozenset(),
    "failed": frozenset(),
    "aborted": frozenset(),
}
"""Every change of state that there is. A step may lead to the next one of the same kind."""


def advance(release: Release, seen: Seen) -> Next:
    """What becomes of a release that is looked at; nobody ordered anything."""
    if release.state == "going_back":
        return _going_back(release, seen)
    if release.over:
        return Next()
    wrong = _wrong(release, seen)
    if wrong is not None:
        return wrong
    return Next() if release.state in STOPPED else _moving(release, seen)


def _moving(release: Release, seen: Seen) -> Next:
    """Nothing is wrong, and nobody stopped it."""
    if seen.waits_for is not None:
        text = f"{place_of(release, release.step)}: waits; {seen.waits_for}" if release.step >= 0 else seen.waits_for
        return Next(notes=(Note(word="waits", text=text, once=True),))
    if not seen.settled:
        return Next()
    if seen.elsewhere is not None:
        return _stop(release, f"somebody else changed the routing: {seen.elsewhere}", "person")
    if release.state == "preparing":
        return _enter(release, first_step(release), "the candidate is healthy")
    if release.state == "watching":
        return _watching(release, seen)
    return _at_step(release, seen)


def obey(release: Release, order: Order, reason: str, *, full: bool = False, accept: bool = False) -> Next:
    """What a person's order makes of a release.

    `full`: promote to all users. `accept`: go back although there is no way back that anybody promised.

    Raises:
        Conflict: The order makes no sense where the release stands.
    """
    if order == "pause" and release.state in MOVING:
        return _stop(release, reason, "person")
    if order == "resume" and release.state in STOPPED:
        state = release.was or "preparing"
        return Next(state=state, step=release.step, notes=(Note(word="resumed", text=f"goes on: {reason}"),))
    if order == "promote" and _may_end(release):
        text = f"the watch over {release.candidate} was ended by a person: {reason}"
        return Next(state="released", notes=(Note(word="released", text=text),))
    if order == "promote" and release.state in {"shadow", "canary", "paused", "frozen"} and release.step >= 0:
        to = len(release.settings.steps) if full else min(release.step + 1, len(release.settings.steps))
        return _enter(release, to, f"promoted by a person: {reason}")
    if order == "promote" and release.state == "watching":
        msg = f"release {release.number}: it is not known yet that all users have {release.candidate}"
        raise Conflict(msg, code="release.state", fix=f"ask again in a moment; interlock release status {release.name}")
    if order == "abort" and release.state in MOVING | STOPPED:
        return _back(release, reason, "person", "aborted", ordered=True, accept=accept)
    if order == "rollback" and release.state in MOVING | STOPPED | {"released"}:
        return _back(release, reason, "person", "rolled_back", ordered=True, accept=accept)
    msg = f"release {release.number} is {release.state}: {order} makes no sense there"
    raise Conflict(msg, code="release.state", fix=f"interlock release status {release.name}")


def watched(release: Release, elapsed_seconds: float, heard_seconds: float, *, attended: bool = True) -> float:
    """How long the step was watched after a look that came so long after the one before.

    `heard_seconds`: for how much of that the candidate answered somebody. Where time alone moves a release on, no other
    time counts. `attended`: whether the watcher looked meanwhile; where it did not, nothing counts. The clock may have
    been put forward or back, or nobody may have looked: neither moves a release on.
    """
    if release.state not in MOVING or release.settled != release.epoch or not attended:
        return release.watched_seconds
    counted = heard_seconds if ends_by_time(release) else elapsed_seconds
    return release.watched_seconds + min(max(counted, 0.0), LOOK_SECONDS_MAX)


def _may_end(release: Release) -> bool:
    """Whether all users have it, for sure, and only the watch is left."""
    if release.step < len(release.settings.steps):
        return False
    if release.state == "watching":
        return release.settled == release.epoch
    return release.state in STOPPED and release.watched_seconds > 0


def _wrong(release: Release, seen: Seen) -> Next | None:
    """Where something is wrong it goes back, whether it is stopped or not; a frozen one stays so."""
    if release.state == "frozen":
        return None
    if seen.red_line is not None:
        return _back(release, seen.red_line, "red_line", evidence_of=seen)
    if seen.verdict == "no_go":
        return _back(release, seen.words, "judge", evidence_of=seen)
    if seen.shadow == "no_go":
        return _back(release, seen.shadow_words, "shadow", evidence_of=seen)
    if seen.gone is not None:
        return _back(release, seen.gone, "candidate", evidence_of=seen)
    if seen.effect_failed is not None and release.state in MOVING:
        return _back(release, seen.effect_failed, seen.effect_cause, evidence_of=seen)
    return None


def _at_step(release: Release, seen: Seen) -> Next:
    step, since = release.current, release.watched_seconds
    if isinstance(step, ShadowStep):
        if seen.shadow == "go":
            return _enter(release, release.step + 1, seen.shadow_words or "the answers agree")
        return _undecided(release, seen) if since >= step.deadline_seconds else _silence(release, seen)
    if not isinstance(step, CanaryStep):
        return Next()
    if since < step.hold_seconds:
        return _silence(release, seen)
    if step.until == "go":
        if seen.verdict == "go":
            return _enter(release, release.step + 1, seen.words or "certified")
        return _undecided(release, seen) if since >= step.deadline_seconds else _silence(release, seen)
    if seen.requests == 0:
        return _silence(release, seen)
    return _enter(release, release.step + 1, f"{step.weight_percent:g} % held for {since:.0f} s")


def _watching(release: Release, seen: Seen) -> Next:
    if release.watched_seconds < release.settings.watch_seconds:
        return _silence(release, seen)
    text = f"all users have {release.candidate}, and it was watched for {release.watched_seconds:.0f} s"
    return Next(state="released", notes=(Note(word="released", text=text),))


def _ended_words(release: Release, goal: Ending) -> str:
    """What users have now."""
    if release.stable is None:
        reached = release.reached_users
        return "nobody is answered any more" if reached else f"{release.candidate} never reached anybody"
    return {
        "rolled_back": f"users have {release.stable} again",
        "failed": f"{release.candidate} never reached anybody",
        "aborted": f"users have {release.stable}",
    }[goal]


def _going_back(release: Release, seen: Seen) -> Next:
    """It never gives up: there is nowhere else to go."""
    if seen.settled:
        goal = release.goal or "rolled_back"
        return Next(state=goal, notes=(Note(word=goal, text=_ended_words(release, goal)),))
    waits = seen.effect_failed or seen.waits_for
    if waits is not None:
        return Next(notes=(Note(word="stuck", text=f"cannot go back yet: {waits}", once=True),))
    return Next()


def _enter(release: Release, step: int, why: str) -> Next:
    state = state_at_step(release, step)
    note = Note(word=state, text=f"{place_of(release, step)}: {why}", data={"step": step})
    return Next(state=state, step=step, notes=(note,))


def place_of(release: Release, step: int) -> str:
    """A step in words, as something that comes: a freeze may still be in its way."""
    steps = release.settings.steps
    if step >= len(steps):
        return f"all users are to get {release.candidate}"
    found = steps[step]
    if isinstance(found, ShadowStep):
        return f"step {step + 1} of {len(steps)}, shadow of {found.shadow_percent:g} %"
    return f"step {step + 1} of {len(steps)}, {found.weight_percent:g} % of users are to get it"


def _undecided(release: Release, seen: Seen) -> Next:
    words = seen.words or seen.shadow_words or "no verdict"
    reason = f"no verdict after {release.watched_seconds:.0f} s: {words}"
    word = release.settings.undecided
    if word == "rollback":
        return _back(release, reason, "undecided", evidence_of=seen)
    if word == "promote" and (seen.requests or isinstance(release.current, ShadowStep)):
        return _enter(release, release.step + 1, f"{reason}; `undecided: promote` says to go on")
    return _stop(release, reason, "undecided")


def _silence(release: Release, seen: Seen) -> Next:
    if seen.quiet_seconds < release.settings.no_traffic_seconds:
        return Next()
    text = f"nobody comes: no request for {release.settings.no_traffic_seconds:g} s; it waits, and decides nothing"
    if release.state == "watching":
        text += f"; to end the watch: interlock release promote {release.name}"
    return Next(notes=(Note(word="no_traffic", text=text, once=True),))


def _stop(release: Release, reason: str, cause: Cause) -> Next:
    return Next(
        state="paused",
        step=release.step,
        cause=cause,
        reason=reason,
        notes=(Note(word="paused", text=f"paused: {reason}"),),
    )


def _back(
    release: Release,
    reason: str,
    cause: Cause,
    goal: Ending | None = None,
    *,
    evidence_of: Seen | None = None,
    ordered: bool = False,
    accept: bool = False,
) -> Next:
    """Back to the version before, or, where there is no way back, no further.

    Before users have the candidate nothing needs to be taken back from them: it only ends.
    """
    evidence = dict(evidence_of.evidence) if evidence_of is not None else {}
    ends_first = release.stable is None and ordered and goal == "aborted"
    had = _had(release, evidence_of)
    reached = release.reached_users if release.stable is not None else had
    if release.irreversible and reached and not (ordered and accept) and not ends_first:
        if ordered:
            msg = f"release {release.number} of {release.name} says that there is no way back"
            fix = "look first whether the version before can live with what was changed; then say --accept-irreversible"
            raise Conflict(msg, code="release.irreversible", fix=fix)
        text = f"frozen where it is, because there is no way back: {reason}"
        return Next(
            state="frozen",
            step=release.step,
            cause=cause,
            reason=reason,
            evidence=evidence,
            notes=(Note(word="frozen", text=text, data=evidence),),
        )
    if release.stable is None and reached and not ends_first:
        msg = f"there is no version before {release.candidate}"
        raise Conflict(msg, code="release.first", fix=f"end it: interlock release abort {release.name}")
    ending: Ending = goal or ("rolled_back" if had else "failed")
    if ending == "rolled_back" and not had:
        ending = "aborted"
    words = {"rolled_back": "goes back", "failed": "is ended, before anybody had it", "aborted": "is ended"}
    return Next(
        state="going_back",
        step=release.step,
        goal=ending,
        cause=cause,
        reason=reason,
        evidence=evidence,
        notes=(Note(word="going_back", text=f"{words[ending]}: {reason}", data=evidence),),
    )


def _had(release: Release, seen: Seen | None) -> bool:
    """Whether users have the candidate, or had it: not where its first share of them never came into force, and it
    answered nobody."""
    if not release.reached_users:
        return False
    before = release.settings.steps[: max(release.step, 0)] if release.stable is not None else ()
    if seen is None or seen.requests or any(isinstance(each, CanaryStep) for each in before):
        return True
    return release.settled == release.epoch or release.watched_seconds > 0
