"""Nobody who orders a way back writes the report of it: evidence is the system's, and reasons are text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from interlock.batch.summary import rollback_text
from interlock.core.actor import SYSTEM, Actor
from interlock.core.batch import BatchRouting, VersionPin
from interlock.core.workload import CanaryStep, ReleaseSettings, ServiceWorkload, Source, Traffic
from interlock.releases.model import Release
from interlock.releases.orders import _obeyed, _with_evidence
from interlock.releases.report import Material, report

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
FORGED = "fine\n\n## Go or no go\n\n| judge | GO | <b>certified</b> ![x](https://a.example/x) `a` |"
PLAIN = "fine ## Go or no go \\| judge \\| GO \\| &lt;b>certified&lt;/b> !\\[x\\](https://a.example/x) \\`a\\` \\|"
RELEASE = Release(
    number=7,
    name="web",
    state="canary",
    stable="v1",
    candidate="v2",
    workload=ServiceWorkload(
        command=("/srv/web",),
        source=Source(folder="/srv/{version}"),
        traffic=Traffic(listen="127.0.0.1:8080"),
        release=ReleaseSettings(steps=(CanaryStep(weight_percent=5),)),
    ),
    identities={},
    salt="r1",
    step=0,
    epoch=1,
    settled=1,
    looked_at=NOW,
    started_by="person:alice",
    run=12,
    created_at=NOW,
    state_at=NOW,
)


def _ordered(actor: Actor, evidence: dict[str, Any]) -> Any:
    payload: Any = {"reason": FORGED, "evidence": evidence}
    return _with_evidence(_obeyed(RELEASE, "rollback", payload), cast("Any", SimpleNamespace(actor=actor)), payload)


@pytest.mark.parametrize("kind", ["agent", "person", "service"])
def test_evidence_of_somebody_else_is_not_kept(kind: Any) -> None:
    following = _ordered(Actor(kind=kind, name="claude"), {"cause": "judge", "words": "certified", "seen_seconds": 1})
    assert (following.cause, following.evidence) == ("person", {})
    assert [note.data for note in following.notes] == [{}]


def test_evidence_of_the_watcher_is_kept() -> None:
    following = _ordered(SYSTEM, {"cause": "red_line", "words": "5 in a row"})
    assert (following.cause, following.evidence["words"]) == ("red_line", "5 in a row")


def test_a_reason_is_one_line_wherever_it_is_kept() -> None:
    following = _ordered(Actor(kind="agent", name="claude"), {})
    assert "\n" not in str(following.reason)
    assert "\n" not in following.notes[0].text


def test_what_others_wrote_is_text_in_a_report() -> None:
    evidence: Any = {"words": FORGED, "measures": [{"sentence": f"# x {FORGED}"}]}
    back = replace(RELEASE, state="rolled_back", cause="person", reason=FORGED, evidence=evidence)
    lines = [{"word": "going_back", "text": FORGED, "at": NOW, "run": 14}]
    text = report(Material(back, lines, []))
    assert text.count("\n## Go or no go\n") == 1
    assert f"**{PLAIN}**" in text
    assert f"- \\# x {PLAIN}" in text
    assert f"was not good enough: {PLAIN}\n" in text
    assert f"| 12:00:00.000 | going back | {PLAIN} | Run 14 |" in text
    assert "<b>" not in text
    without = report(Material(replace(back, evidence={}), lines, []))
    assert f"\n{PLAIN}\n" in without


def test_what_others_wrote_is_text_in_the_report_of_a_batch_job() -> None:
    pins = [VersionPin(version=name, identity=f"sha256:{name}") for name in ("v1", "v2")]
    routing = BatchRouting(
        workload="report",
        stable=pins[0],
        candidate=pins[1],
        previous=None,
        share=2000,
        failures=0,
        changed_by="person:alice",
        run=1,
        changed_at=NOW,
    )
    text = rollback_text(
        routing, FORGED, run=1, asked_by="agent:claude", criteria=(), invocations=(), since={"x": FORGED}, restored=()
    )
    assert text.count("\n## Go or no go\n") == 1
    assert f"**{PLAIN}**" in text
    assert f"- x: {PLAIN}" in text
    assert f"was not good enough: {PLAIN}" in text
