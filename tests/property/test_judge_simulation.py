"""The judge on simulated users, as `make bench` measures it with more of them: hardly ever wrong, and soon right."""

from __future__ import annotations

import numpy as np
import pytest
from bench.judged_traffic import World
from bench.judgement import LATE, NULLS, REGRESSIONS, Regression, simulate

RELEASES = 60


@pytest.mark.parametrize("world", NULLS, ids=lambda world: world.name)
def test_a_version_that_is_no_worse_is_not_sent_back(world: World) -> None:
    """At one in a hundred for each release, four of sixty would come with a probability of one in 300."""
    ours, _ = simulate(world, RELEASES, 3600.0, seed=7, tick_seconds=5.0, with_peers=False)
    assert np.isfinite(ours.fired_at).sum() < 4


@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda regression: regression.world.name)
def test_a_version_that_is_worse_is_sent_back_in_seconds(regression: Regression) -> None:
    ours, _ = simulate(regression.world, RELEASES, 90.0, seed=8, tick_seconds=1.0, with_peers=False)
    assert np.isfinite(ours.fired_at).all()
    assert float(np.median(ours.fired_at)) <= regression.limit + 3


def test_what_goes_wrong_late_is_found_nearly_as_soon() -> None:
    ours, _ = simulate(LATE.world, RELEASES, 1500.0, seed=9, tick_seconds=5.0, with_peers=False)
    after = ours.fired_at[ours.fired_at > 1200] - 1200
    assert len(after) >= RELEASES - 3
    assert float(np.median(after)) <= 40


def test_peers_see_what_we_see() -> None:
    """The rules of others are alive: each of them sends back a version of which a fifth of the answers are errors."""
    _, peers = simulate(REGRESSIONS[2].world, 5, 1500.0, seed=10, tick_seconds=5.0)
    assert {peer.name: bool(np.isfinite(peer.fired_at).all()) for peer in peers} == {peer.name: True for peer in peers}
    assert [float(np.median(peer.fired_at)) for peer in peers] == [300.0, 60.0, 1200.0, 120.0, 300.0]
