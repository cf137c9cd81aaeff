"""What people read of a release: a plan that could be approved, a report with numbers, a picture without scripts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from interlock.core.comparison import ComparisonRules
from interlock.core.model import JsonObject
from interlock.core.workload import CanaryStep, ReleaseSettings, ServiceWorkload, ShadowStep, Source, Traffic
from interlock.releases.chart import Line, Mark, Panel, draw
from interlock.releases.model import Release
from interlock.releases.plan_text import duration, release_text
from interlock.releases.plots import plot
from interlock.releases.report import Material, criteria, follow_up, report, report_name, totals

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def workload(**settings: Any) -> ServiceWorkload:
    steps = (ShadowStep(shadow_percent=10), CanaryStep(weight_percent=5), CanaryStep(weight_percent=50, until="go"))
    return ServiceWorkload(
        command=("/srv/web",),
        source=Source(folder="/srv/{version}"),
        build=(("make", "test"),),
        traffic=Traffic(listen="127.0.0.1:8080"),
        release=ReleaseSettings(**{"steps": steps, **settings}),
    )


RELEASE = Release(
    number=7,
    name="web",
    state="rolled_back",
    stable="v1",
    candidate="v2",
    workload=workload(),
    identities={"v2": "sha256:abc"},
    salt="r1",
    step=1,
    looked_at=NOW,
    started_by="person:alice",
    run=12,
    created_at=NOW,
    state_at=NOW + timedelta(seconds=61),
    closed_at=NOW + timedelta(seconds=61),
    cause="red_line",
    reason="5 requests | in a row",
    evidence={"words": "5 requests | in a row", "seen_seconds": NOW.timestamp() + 60, "seen_after_seconds": 0.042},
)


def tick(second: float, *, errors: int = 0, p95: float = 0.1) -> JsonObject:
    arm: JsonObject = {"n": 100, "errors": 0, "p50": 0.05, "p95": 0.1, "p99": 0.2}
    arms: JsonObject = {"v1": arm, "v2": {**arm, "errors": errors, "p95": p95}}
    return {"at_seconds": NOW.timestamp() + second, "arms": arms, "percent": 5.0, "log10_evidence": -1.0}


LINES = [
    {"word": "started", "text": "from v1 to v2", "at": NOW, "run": 12},
    {"word": "canary", "text": "step 2 of 3", "at": NOW + timedelta(seconds=5), "run": None},
    {"word": "going_back", "text": "5 requests | in a row", "at": NOW + timedelta(seconds=60), "run": 14},
    {"word": "routed_back", "text": "all users get v1 again", "at": NOW + timedelta(seconds=60.08), "run": None},
]
MATERIAL = Material(RELEASE, LINES, [tick(second, errors=5, p95=0.2) for second in range(10, 60)], plot_name="plot.svg")


def test_a_plan_says_who_gets_it_when_what_is_watched_and_how_it_goes_back() -> None:
    text = release_text(workload(), "v1", "v2", {"v2": "sha256:0123456789abcdef0123456789"})
    for words in (
        "from          v1",
        "to            v2  sha256:0123456789abcdef012",
        "5 % of users",
        "459 answers compared",
        "the judge certifies it",
        "make test",
        "at most 1.00 %",
        "all users get v1 again",
        "v1 stays running for 24 h",
    ):
        assert words in text, text


def test_a_plan_warns_of_two_versions_that_are_the_same() -> None:
    assert "v2 is the same as v1" in release_text(workload(), "v1", "v2", {"v1": "sha256:01", "v2": "sha256:01"})
    for others in ({"v1": "sha256:01", "v2": "sha256:02"}, {"v2": "sha256:02"}, {}):
        assert "is the same as" not in release_text(workload(), "v1", "v2", others)


def test_a_first_version_is_offered_no_way_back() -> None:
    first = replace(RELEASE, stable=None, state="released")
    assert "interlock rollback" not in report(replace(MATERIAL, release=first))
    assert "interlock rollback web" in report(replace(MATERIAL, release=replace(RELEASE, state="released")))


def test_a_plan_names_as_many_comparisons_as_the_agreement_takes_whatever_pairs_says() -> None:
    def said(pairs: int, percent: float = 99) -> str:
        declared = workload(steps=(ShadowStep(shadow_percent=10, pairs=pairs),))
        rules = ComparisonRules(agreement_percent=percent)
        return release_text(declared.model_copy(update={"comparison": rules}), "v1", "v2", {})

    assert "459 answers compared, and agreed (so many prove 99 %" in said(50)
    assert "1000 answers compared, and agreed" in said(1000)
    assert "never: no number of answers proves 100 %" in said(50, 100)


def test_no_way_back_is_promised_where_there_is_none() -> None:
    text = release_text(workload(irreversible=True), "v1", "v2", {})
    assert "NONE once users have it" in text
    assert "at once: all users get v1" not in text
    assert "there is no version before" in release_text(workload(), None, "v2", {})


@pytest.mark.parametrize(
    ("seconds", "text"), [(60, "60 s"), (90, "90 s"), (120, "2 min"), (7200, "2 h"), (1.5, "1.5 s")]
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_report_says_what_was_seen_when_and_what_is_to_be_done() -> None:
    text = report(MATERIAL)
    assert text.startswith("# web: v1 → v2, release 7: ROLLED BACK")
    assert "| time to detect | - | 42 ms from the first bad answer of the row |" in text, "told, not judged"
    assert "| time to go back | - | 80 ms" in text
    assert "| errors | 0 (0.00 %) | 250 (5.00 %) |" in text
    assert "- [ ] find out why v2 of web was not good enough" in text
    assert "5 requests \\| in a row" in text, "what somebody wrote does not break the table"
    assert "interlock release compare web --release 7" in text
    assert report_name(RELEASE) == "rollback_report.md"


def test_a_report_says_what_users_met_where_the_stable_version_answered_for_the_candidate() -> None:
    arms: JsonObject = {"v1": {"n": 4, "errors": 1, "rescued": 0}, "v2": {"n": 9, "errors": 8, "rescued": 6}}
    text = report(replace(MATERIAL, ticks=[{"at_seconds": NOW.timestamp() + 10, "arms": arms}]))
    assert "| requests | 4 | 9 |" in text
    assert "| errors | 1 (25.00 %) | 8 (88.89 %) |" in text
    assert "Users met 3 failed answers in 13 requests; v1 answered 6 requests that v2 had failed." in text
    assert "had failed" not in report(MATERIAL)
    assert "Users met 250 failed answers in 10,000 requests." in report(MATERIAL)


def test_the_table_of_go_and_no_go_names_a_latency_beyond_the_margin() -> None:
    found = {each.name: each for each in criteria(MATERIAL)}
    assert found["P95"].verdict == "no_go"
    assert found["agreement"].verdict == "go", "the shadow step was passed"
    assert found["judge"].verdict == "no_go"


def test_the_baseline_is_what_users_met_before_anybody_had_the_candidate() -> None:
    text = report(replace(MATERIAL, ticks=[tick(second) for second in range(1, 60)]))
    assert "Baseline, v1 before any user had v2: 500 requests in 4 s (125.0 a second), 0 errors (0.00 %)" in text


def test_what_there_was_before_stands_in_the_report() -> None:
    routing: JsonObject = {"arms": [{"name": "v1", "share": 10_000}]}
    versions: JsonObject = {"versions": [{"version": "v1", "stage": "running"}], "configuration": "d1"}
    snapshot: JsonObject = {"routing": routing, **versions, "schedules_paused_by": {"nightly": "person:bob"}}
    text = report(replace(MATERIAL, release=replace(RELEASE, snapshot=snapshot)))
    assert "| routing | v1 100 % |" in text
    assert "| schedules | nightly paused by person:bob |" in text


def test_a_release_that_went_well_leaves_nothing_to_do() -> None:
    well = replace(RELEASE, state="released", step=3, cause=None, reason=None, evidence={})
    text = report(Material(well, LINES[:2], [tick(1)]))
    assert follow_up(well) is None
    assert "To do" not in text
    assert "interlock rollback web" in text
    assert report_name(well) == "release_report.md"


def test_nothing_seen_is_told_as_nothing_seen() -> None:
    assert "No request was seen." in report(Material(RELEASE, [], []))
    assert totals([], "v1").p95 is None


def test_the_picture_is_xml_without_scripts_and_with_every_panel() -> None:
    root = ET.fromstring(plot(RELEASE, MATERIAL.ticks, LINES))  # noqa: S314 - ours
    assert root.tag == f"{SVG}svg"
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg",
        "style",
        "text",
        "line",
        "rect",
        "path",
    }
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"Errors", "Latency", "Users with the candidate", "back"} <= set(texts)
    assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")


def test_the_picture_shows_every_share_that_was_routed_also_where_nobody_asked_anything() -> None:
    lines = [
        {"word": "shadow", "at": NOW + timedelta(seconds=1), "data": {"step": 0}},
        {"word": "canary", "at": NOW + timedelta(seconds=20), "data": {"step": 1}},
        {"word": "canary", "at": NOW + timedelta(seconds=40), "data": {"step": 2}},
        {"word": "watching", "at": NOW + timedelta(seconds=50), "data": {"step": 3}},
        {"word": "routed_back", "at": NOW + timedelta(seconds=60), "data": {}},
    ]
    root = ET.fromstring(plot(RELEASE, [tick(5)], lines))  # noqa: S314 - ours
    assert {"shadow", "5 %", "50 %", "all", "back"} <= {element.text for element in root.iter(f"{SVG}text")}
    shares = [each.get("d", "") for each in root.iter(f"{SVG}path")][-1]
    assert len({point.split()[1] for point in shares.replace("M", "L").split("L") if point}) == 4, "0, 5, 50 and 100 %"
    marks = [each for each in root.iter(f"{SVG}line") if each.get("class") == "event"]
    legends = [float(each.get("y", 0)) for each in root.iter(f"{SVG}text") if each.text in {"v1", "share", "v1 P95"}]
    crossed = [y for y in legends for each in marks if float(each.get("y1", 0)) <= y <= float(each.get("y2", 0))]
    assert (len(legends), crossed) == (3, []), "no mark runs through what says which line is which"


@pytest.mark.parametrize("values", [[], [0.0], [float("nan"), 1.0], [1e-12], [1e15, -3.0], [5.0] * 5000])
def test_a_picture_can_be_drawn_of_whatever_was_seen(values: list[float]) -> None:
    line = Line("x <&\"'\x00", "other", [(float(at), value) for at, value in enumerate(values)])
    text = draw("t <&>", [Panel("p", (line,), below_zero=True, limit=0.0)], [Mark(0.5, "<m>")], 0.0, 0.0)
    ET.fromstring(text)  # noqa: S314 - ours
    assert "NaN" not in text
    assert "nan" not in text
    assert text.count("L") < 5000


def test_a_report_shows_what_the_candidate_said_last_and_what_shows_more() -> None:
    data = {"said": ["starting", "boom | bang"], "more": "interlock service log web v2"}
    line = {"word": "said", "text": "v2 said last: boom", "data": data, "at": NOW, "run": None}
    text = report(replace(MATERIAL, lines=[*LINES, line]))
    assert "## What v2 said last\n\n    starting\n    boom | bang\n\nMore of it: `interlock service log web v2`" in text
    assert "said last" not in report(MATERIAL)
