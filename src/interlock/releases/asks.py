"""What a release asks for at the door while it goes its way: as whom, with which arguments, under which key; pure."""

from __future__ import annotations

from interlock.core.actor import SYSTEM, Actor
from interlock.core.ask import Ask
from interlock.core.model import JsonObject
from interlock.core.traffic import Mirror
from interlock.releases.model import Release, Wanted, wanted

REASON_CHARACTERS_MAX = 500
"""Of what stands in an order; the evidence has all of it."""
RETURNING = Actor(kind="system", name="rollback")
"""Whoever goes back asks under a name of his own: Runs at once are counted for each actor, and nothing that is being
built, started or probed may stand in his way."""


def asker(release: Release) -> Actor:
    """As whom the effects of a state are asked for."""
    return RETURNING if wanted(release).back else SYSTEM


def start_ask(release: Release) -> Ask:
    """The candidate is to run, and to be healthy."""
    args: JsonObject = {"version": release.candidate, "identity": release.identities.get(release.candidate)}
    return _ask(release, "start", "service.start", args, "start the candidate")


def golden_ask(release: Release) -> Ask:
    """The candidate is to be held against the golden samples of its workload."""
    return _ask(release, "golden", "golden.check", {"version": release.candidate}, "ask for the golden samples")


def route_ask(release: Release, want: Wanted, mirror: Mirror | None) -> Ask:
    """Users are to be shared between the versions as the release wants it where it stands."""
    args: JsonObject = {"shares": dict(want.shares or ()), "salt": release.salt}
    if mirror is not None:
        args["mirror"] = mirror.model_dump(mode="json")
    words = "go back" if want.back else f"{release.state}, step {release.step + 1}"
    return _ask(release, "route", "traffic.route", args, words)


def forget_ask(release: Release) -> Ask:
    """Nobody is to be answered any more: a first version is ended."""
    return _ask(release, "forget", "traffic.forget", {}, "end the first version")


def back_ask(release: Release, reason: str, evidence: JsonObject) -> Ask:
    """All users are to have the version before again; once in an epoch, whoever sees it first."""
    reason = reason[:REASON_CHARACTERS_MAX]
    args: JsonObject = {"workload": release.name, "release": release.number, "reason": reason, "evidence": evidence}
    key = f"release:{release.number}:{release.epoch}:back"
    return Ask(action="release.rollback", args=args, key=key, reason=reason, confirmed=True)


def _ask(release: Release, what: str, action: str, args: JsonObject, why: str) -> Ask:
    key = f"release:{release.number}:{release.epoch}:{what}:{release.attempt}"
    whole: JsonObject = {"workload": release.name, **args, "release": release.number}
    return Ask(action=action, args=whole, key=key, reason=f"release {release.number}: {why}", confirmed=True)
