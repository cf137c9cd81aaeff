"""What whoever drives a rollout is told: one of three words, and everything it stands on; pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from interlock.core.judgement import Verdict
from interlock.core.model import JsonObject
from interlock.core.rollout_judge import RolloutJudge
from interlock.judges.store import Session
from interlock.judges.verdict import fresh_seconds
from interlock.lib.clock import rfc3339

Status = Literal["success", "failure", "inconclusive"]
STATUSES: Mapping[Verdict, Status] = {"go": "success", "no_go": "failure", "not_yet": "inconclusive"}
"""The three outcomes that Argo Rollouts knows of a measurement."""


def answer_of(session: Session, declared: RolloutJudge | None, now: datetime) -> JsonObject:
    """What is known of a session. GO counts only while it is fresh; NO-GO stays as long as the session does."""
    judgement = session.judgement or {}
    verdict, words = _verdict(judgement.get("verdict")), str(judgement.get("summary") or "")
    at_seconds = judgement.get("at_seconds")
    age_seconds = now.timestamp() - at_seconds if isinstance(at_seconds, int | float) else None
    if age_seconds is None:
        words = "not yet: the first reading is on its way"
    elif verdict == "go" and (
        declared is None or age_seconds > fresh_seconds(declared) or session.ended_at is not None
    ):
        verdict, words = "not_yet", f"not yet: it was GO {age_seconds:.0f} s ago, and nothing newer is known"
    return {
        "status": STATUSES[verdict],
        "verdict": verdict,
        "summary": words,
        "seconds_to_go": judgement.get("seconds_to_go"),
        "measures": judgement.get("measures") or [],
        "notes": judgement.get("notes") or [],
        "judge": session.judge,
        "session": session.session,
        "stable": session.stable,
        "begun_by": session.begun_by,
        "begun_at": rfc3339(session.begun_at),
        "asked_at": rfc3339(session.asked_at),
        "read_seconds_ago": round(age_seconds, 1) if age_seconds is not None else None,
        "trouble": session.trouble,
        "ended_at": rfc3339(session.ended_at) if session.ended_at is not None else None,
        "ended_because": session.ended_because,
    }


def _verdict(told: object) -> Verdict:
    return "go" if told == "go" else "no_go" if told == "no_go" else "not_yet"


def answer_of_release(release: JsonObject, judgement: JsonObject | None) -> JsonObject:
    """The same of a release of our own, as the view `releases` tells it: when it is over, how it ended."""
    verdict, state, known = _verdict(release.get("verdict")), release.get("state"), judgement or {}
    if state == "released":
        verdict = "go"
    elif state in {"going_back", "frozen", "rolled_back", "failed", "aborted"}:
        verdict = "no_go"
    words = release.get("reason") if verdict == "no_go" else None
    return {
        "status": STATUSES[verdict],
        "verdict": verdict,
        "summary": str(words or release.get("judge_words") or release.get("step_words") or f"it is {state}"),
        "seconds_to_go": release.get("seconds_to_go"),
        "measures": known.get("measures") or [],
        "notes": known.get("notes") or [],
        "release": release.get("number"),
        "workload": release.get("workload"),
        "state": state,
    }
