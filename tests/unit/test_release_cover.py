"""What a release covers, what it asks for and under which key, and what check says of steps that make no sense."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from interlock.core.comparison import ComparisonRules
from interlock.core.project import Project
from interlock.core.traffic import WHOLE, Arm, Mirror, Routing
from interlock.core.workload import (
    CanaryStep,
    ReleaseSettings,
    ReleaseStep,
    ServiceWorkload,
    ShadowStep,
    Source,
    Traffic,
)
from interlock.releases.asks import REASON_CHARACTERS_MAX, RETURNING, asker, back_ask, route_ask, start_ask
from interlock.releases.effects import in_force
from interlock.releases.inspection import inspect_releases
from interlock.releases.model import Release, percent_of, wanted
from interlock.releases.records import uncovered

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def service(*steps: ReleaseStep, **settings: Any) -> ServiceWorkload:
    return ServiceWorkload(
        command=("/srv/web",),
        source=Source(folder="/srv/{version}"),
        traffic=Traffic(listen="127.0.0.1:8080"),
        release=ReleaseSettings(steps=steps, **settings),
    )


RELEASE = Release(
    number=7,
    name="web",
    state="canary",
    stable="v1",
    candidate="v2",
    workload=service(ShadowStep(shadow_percent=10), CanaryStep(weight_percent=5)),
    identities={"v2": "sha256:abc"},
    salt="r1",
    step=1,
    epoch=4,
    looked_at=NOW,
    started_by="person:alice",
    run=12,
    created_at=NOW,
    state_at=NOW,
)
SHARES = {"v1": 9500, "v2": 500}


@pytest.mark.parametrize(
    ("change", "workload", "versions", "shares", "why"),
    [
        ({}, "web", ("v2",), None, None),
        ({}, "web", ("v1", "v2"), SHARES, None),
        ({}, "shop", ("v2",), None, "it is of web"),
        ({}, "web", ("v3",), None, "it is not about v3"),
        ({}, "web", ("v1", "v2"), {"v1": 0, "v2": WHOLE}, "wants other shares"),
        ({"state": "paused", "was": "canary"}, "web", ("v1", "v2"), SHARES, "wants other shares"),
        ({"state": "going_back"}, "web", ("v1",), {"v1": WHOLE}, None),
        ({"state": "going_back"}, "web", ("v2",), {"v2": WHOLE}, "wants other shares"),
        ({"state": "rolled_back"}, "web", ("v2",), None, "it is over"),
        ({"state": "rolled_back", "warm_until": NOW}, "web", ("v2",), None, None),
        ({"state": "rolled_back", "warm_until": NOW}, "web", ("v2",), {"v2": WHOLE}, "wants other shares"),
        ({"state": "released", "step": 2, "warm_until": NOW}, "web", ("v2",), {"v2": WHOLE}, None),
        ({"state": "released", "step": 2, "warm_until": NOW}, "web", ("v1",), {"v1": WHOLE}, "wants other shares"),
    ],
)
def test_a_release_covers_its_own_versions_and_the_shares_of_where_it_stands(
    change: dict[str, Any], workload: str, versions: tuple[str, ...], shares: dict[str, int] | None, why: str | None
) -> None:
    fault = uncovered(replace(RELEASE, **change), workload, versions, shares)
    assert (fault is None) is (why is None), fault
    assert why is None or why in str(fault)


def test_the_same_place_asks_under_the_same_key_and_another_attempt_under_another() -> None:
    ask = route_ask(RELEASE, wanted(RELEASE), None)
    assert ask.key == "release:7:4:route:0"
    assert ask.args == {"workload": "web", "shares": SHARES, "salt": "r1", "release": 7}
    assert route_ask(replace(RELEASE, attempt=1), wanted(RELEASE), None).key != ask.key
    assert start_ask(RELEASE).args["identity"] == "sha256:abc", "what was approved, and nothing else"
    assert asker(replace(RELEASE, state="going_back")) == RETURNING != asker(RELEASE)


def test_an_order_to_go_back_fits_however_much_was_seen() -> None:
    assert len(str(back_ask(RELEASE, "x" * 5000, {}).args["reason"])) == REASON_CHARACTERS_MAX


def test_a_routing_is_what_is_wanted_only_with_the_same_shares_and_copies() -> None:
    arms = (Arm(name="v1", address="127.0.0.1:1", share=9500), Arm(name="v2", address="127.0.0.1:2", share=500))
    routing = Routing(workload="web", listen="127.0.0.1:8080", arms=arms)
    assert in_force(routing, wanted(RELEASE), None)
    assert not in_force(None, wanted(RELEASE), None)
    assert not in_force(routing, wanted(RELEASE), Mirror(address="127.0.0.1:9", share=1))
    assert not in_force(routing, wanted(replace(RELEASE, state="watching", step=2)), None)


@pytest.mark.parametrize(
    ("state", "was", "step", "percent"),
    [("canary", None, 1, 5), ("paused", "canary", 1, 5), ("shadow", None, 0, 0), ("watching", None, 2, 100)],
)
def test_the_part_of_the_users_who_have_it_follows_from_where_it_stands(
    state: Any, was: Any, step: int, percent: float
) -> None:
    assert percent_of(replace(RELEASE, state=state, was=was, step=step, settled=RELEASE.epoch)) == percent


class _Policies:
    """No policy speaks of releases."""

    sources = ()


def test_check_warns_of_steps_out_of_order_and_of_policies_that_know_no_release() -> None:
    odd = service(CanaryStep(weight_percent=50), ShadowStep(shadow_percent=5), CanaryStep(weight_percent=5))
    found = list(inspect_releases(Project(workloads={"web": odd}), _Policies()))  # type: ignore[arg-type]
    messages = " ".join(str(each["message"]) for each in found if each["level"] == "warning")
    for words in ("no policy speaks of release.step", "fewer users than the one before", "shadow comes after"):
        assert words in messages, messages
    assert list(inspect_releases(Project(), _Policies())) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("percent", "words"),
    [(99, "99 % agreement at 99 % confidence takes 459"), (100, "no number of answers proves 100")],
)
def test_check_warns_of_a_number_of_comparisons_that_cannot_be_enough(percent: float, words: str) -> None:
    few = service(ShadowStep(shadow_percent=5, pairs=50))
    few = few.model_copy(update={"comparison": ComparisonRules(agreement_percent=percent)})
    found = [str(each["message"]) for each in inspect_releases(Project(workloads={"web": few}), _Policies())]  # type: ignore[arg-type]
    assert any(words in each for each in found), found
    enough = service(ShadowStep(shadow_percent=5))
    found = [str(each["message"]) for each in inspect_releases(Project(workloads={"web": enough}), _Policies())]  # type: ignore[arg-type]
    assert not any("agreement" in each for each in found)
