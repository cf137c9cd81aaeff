"""A release with where it stands, what it wants of the world there, and what is seen of the world; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from interlock.core.judgement import Verdict
from interlock.core.model import JsonObject
from interlock.core.release import RELEASE_OVER, ReleaseRecord, ReleaseState
from interlock.core.traffic import WHOLE
from interlock.core.workload import CanaryStep, ReleaseSettings, ReleaseStep, ServiceWorkload, ShadowStep

Ending = Literal["rolled_back", "failed", "aborted"]
"""What going back ends in: users had it and no longer have it; nobody ever had it; a person did not want it."""

Cause = Literal["judge", "red_line", "shadow", "gate", "effect", "candidate", "undecided", "person"]
"""What sent a release back, or froze it. `effect`: something that Interlock did for it failed. `candidate`: it died."""

MOVING: frozenset[ReleaseState] = frozenset({"preparing", "shadow", "canary", "watching"})
"""States that end by themselves. The others wait for a person, go back, or are over."""
STOPPED: frozenset[ReleaseState] = frozenset({"paused", "frozen"})
NOTHING: JsonObject = {}

GAP_SECONDS_MAX, GAP_TICKS, GAP_SHARE = 10.0, 3, 6
"""So much time one answer of the candidate vouches for: ten seconds, less in a shorter step, but some ticks."""
LOOK_SECONDS_MAX = 10.0
"""So much time a look may add: what nobody watched does not count, be it that the clock was put forward."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release as its row has it.

    `workload` is the declaration it was planned with; a change of interlock.yaml does not reach a release on its way.
    `step` counts from 0 and equals the number of steps once all users have the candidate. `epoch` rises with every
    state and step: effects are asked for once in each. `settled` is the last epoch whose effects all happened.
    `attempt` counts how often the effects of this epoch were asked for anew. `watched_seconds` is how long this step
    was watched, which is not how long ago it began: pauses, stops of Interlock and jumps of the clock do not count.
    `was` is where a stopped release goes on. `goal` is what going back ends in.
    """

    number: int
    name: str
    state: ReleaseState
    stable: str | None
    candidate: str
    workload: ServiceWorkload
    identities: Mapping[str, str]
    salt: str
    snapshot: JsonObject = field(default_factory=dict)
    step: int = -1
    epoch: int = 0
    settled: int = -1
    attempt: int = 0
    watched_seconds: float = 0.0
    looked_at: datetime
    was: ReleaseState | None = None
    goal: Ending | None = None
    cause: Cause | None = None
    reason: str | None = None
    evidence: JsonObject = field(default_factory=dict)
    told: tuple[str, ...] = ()
    started_by: str
    run: int
    created_at: datetime
    state_at: datetime
    """When it came to this state and step."""
    closed_at: datetime | None = None
    warm_until: datetime | None = None
    """Of one that is over: from then on the version that users do not have is stopped. None when that was done."""

    @property
    def settings(self) -> ReleaseSettings:
        """How it goes on and what sends it back."""
        return self.workload.release

    @property
    def over(self) -> bool:
        """Whether it has ended. A released one may still be taken back while the version before is warm."""
        return self.state in RELEASE_OVER

    @property
    def current(self) -> ReleaseStep | None:
        """The step it is at, None before the first and after the last."""
        steps = self.settings.steps
        return steps[self.step] if 0 <= self.step < len(steps) else None

    @property
    def reached_users(self) -> bool:
        """Whether users may have the candidate, or may have had it. Only a step back is sure that none has."""
        steps = self.settings.steps
        return self.step >= len(steps) or any(isinstance(each, CanaryStep) for each in steps[: max(self.step + 1, 0)])

    @property
    def irreversible(self) -> bool:
        """Whether nothing is promised once users have it."""
        return self.settings.irreversible or self.stable is None

    @property
    def revocable(self) -> bool:
        """Whether users can have the version before at once: it is on its way, or that version is kept running."""
        return not self.over or (self.state == "released" and self.warm_until is not None)

    @property
    def record(self) -> ReleaseRecord:
        """As others may know it."""
        return ReleaseRecord(
            number=self.number,
            workload=self.name,
            state=self.state,
            stable=self.stable,
            candidate=self.candidate,
            can_go_back=not (self.irreversible and self.reached_users),
        )


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a release wants of the world at this place.

    `start`: the candidate runs and is healthy. `shares`: version -> basis points, None where the routing is left as it
    is. `mirror`: which share of safe requests is copied to the comparator. `back`: it is a return to what was before,
    and permitted as such. `forget`: nobody is answered any more, because there was nothing before.
    """

    start: bool = False
    shares: tuple[tuple[str, int], ...] | None = None
    mirror: int | None = None
    back: bool = False
    forget: bool = False


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is known of the world at one look.

    `settled`: the effects of this epoch happened; `effect_failed` says why they cannot, and `effect_cause` whether that
    speaks against the candidate (`gate`). `waits_for` says what they wait
    for: a person's yes, the end of a freeze, a window. `verdict` and `words` are the judge's; `red_line` is a hard
    failure. `quiet_seconds`: since the last request of anybody, and `requests` how many the candidate answered in this
    step. `gone` is why the candidate does not run any more. `elsewhere`: the routing is not what this release put in
    force.
    """

    settled: bool = False
    effect_failed: str | None = None
    effect_cause: Cause = "effect"
    waits_for: str | None = None
    verdict: Verdict = "not_yet"
    words: str = ""
    evidence: JsonObject = field(default_factory=dict)
    red_line: str | None = None
    shadow: Verdict = "not_yet"
    shadow_words: str = ""
    quiet_seconds: float = 0.0
    requests: int = 0
    gone: str | None = None
    elsewhere: str | None = None


@dataclass(frozen=True, kw_only=True)
class Note:
    """A line of the timeline. `once` keeps it from being said again in the same epoch."""

    word: str
    text: str
    data: JsonObject = field(default_factory=dict)
    once: bool = False


@dataclass(frozen=True, kw_only=True)
class Next:
    """What becomes of a release. `state` None: it stays where it is, in the same epoch."""

    state: ReleaseState | None = None
    step: int | None = None
    goal: Ending | None = None
    cause: Cause | None = None
    reason: str | None = None
    evidence: JsonObject = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def applied(release: Release, following: Next, now: datetime) -> Release:
    """The release after a decision; one that changes nothing but what was said leaves it in the same epoch."""
    told = tuple(dict.fromkeys((*release.told, *(note.word for note in following.notes if note.once))))
    if following.state is None:
        return replace(release, told=told)
    state = following.state
    step = release.step if following.step is None else following.step
    stops = state in STOPPED
    same_place = step == release.step and (stops or release.state in STOPPED)
    over = state in RELEASE_OVER
    return replace(
        release,
        state=state,
        step=step,
        epoch=release.epoch + 1,
        attempt=0,
        told=(),
        watched_seconds=release.watched_seconds if same_place else 0.0,
        looked_at=now,
        state_at=now,
        was=(release.state if release.state in MOVING else release.was) if stops else None,
        goal=following.goal if state == "going_back" else release.goal,
        cause=following.cause or (None if state in MOVING else release.cause),
        reason=following.reason or (None if state in MOVING else release.reason),
        evidence=following.evidence or ({} if state in MOVING else release.evidence),
        closed_at=now if over else None,
        warm_until=_warm_until(release, state, now),
    )


def _warm_until(release: Release, state: ReleaseState, now: datetime) -> datetime | None:
    if state == "released":
        kept = timedelta(hours=release.settings.keep_warm_hours)
        return now + kept if release.stable is not None else None
    return now if state in RELEASE_OVER else None


def fresh(release: Release, notes: tuple[Note, ...]) -> tuple[Note, ...]:
    """The notes that were not said yet where the release stands."""
    return tuple(note for note in notes if not note.once or note.word not in release.told)


def wanted(release: Release) -> Wanted:
    """What it wants of the world in its state; the empty answer where it wants everything to stay as it is."""
    step = release.current
    if release.state == "preparing":
        return Wanted(start=True)
    if release.state == "shadow" and isinstance(step, ShadowStep) and release.stable is not None:
        return Wanted(shares=((release.stable, WHOLE),), mirror=basis_points(step.shadow_percent))
    if release.state == "canary" and isinstance(step, CanaryStep) and release.stable is not None:
        share = basis_points(step.weight_percent)
        return Wanted(shares=((release.stable, WHOLE - share), (release.candidate, share)))
    if release.state == "watching":
        before = ((release.stable, 0),) if release.stable is not None else ()
        return Wanted(shares=(*before, (release.candidate, WHOLE)))
    if release.state == "going_back":
        back = ((release.stable, WHOLE),) if release.stable is not None and release.step >= 0 else None
        return Wanted(shares=back, back=True, forget=release.stable is None and release.reached_users)
    return Wanted()


def basis_points(percent: float) -> int:
    """The share in hundredths of a percent, at least one."""
    return max(1, min(WHOLE, round(percent * 100)))


def state_at_step(release: Release, step: int) -> ReleaseState:
    """The state of a release that comes to a step, or behind the last one."""
    steps = release.settings.steps
    if step >= len(steps):
        return "watching"
    return "shadow" if isinstance(steps[step], ShadowStep) else "canary"


def first_step(release: Release) -> int:
    """The step that follows the preparation: nothing to compare with means that all get it at once."""
    return 0 if release.stable is not None else len(release.settings.steps)


def ends_by_time(release: Release) -> bool:
    """Whether time alone moves it on where it stands; then only time counts in which the candidate answers.

    A first version is watched by its probes: nobody needs to come, and nobody could be sent back.
    """
    if release.state == "watching":
        return release.stable is not None
    step = release.current
    return release.state == "canary" and isinstance(step, CanaryStep) and step.until == "time"


def gap_seconds_max(release: Release) -> float:
    """For how much of the time since the answer before it an answer of the candidate vouches."""
    step = release.current
    whole = step.hold_seconds if isinstance(step, CanaryStep) else release.settings.watch_seconds
    return min(GAP_SECONDS_MAX, max(GAP_TICKS * release.settings.judge.tick_seconds, whole / GAP_SHARE))


def percent_of(release: Release) -> float:
    """Which part of the users have the candidate, where the release stands; what is not in force yet does not count."""
    stopped = release.state in STOPPED
    state = release.was if stopped and release.was is not None else release.state
    if state not in {"canary", "watching", "released"}:
        return 0.0
    came = stopped or state == "released" or release.settled == release.epoch
    if not came and release.stable is None:
        return 0.0
    steps = release.settings.steps
    place = release.step if came else release.step - 1
    if place >= len(steps):
        return 100.0
    step = steps[place] if place >= 0 else None
    return step.weight_percent if isinstance(step, CanaryStep) else 0.0


def waiting_words(release: Release) -> str:
    """Where a release is that is at no step, for people."""
    return {
        "preparing": f"{release.candidate} is built, started and probed",
        "watching": f"all users have {release.candidate}; the judge still looks",
        "going_back": _back_words(release),
    }.get(release.state, "")


def _back_words(release: Release) -> str:
    """What becomes of users while it goes back."""
    if release.stable is None:
        return f"{release.candidate} is ended"
    return f"users get {release.stable} again" if release.reached_users else f"users keep {release.stable}"
