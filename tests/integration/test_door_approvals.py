"""Who may say yes, to what, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from harness.engine import ALICE, BOB, CAROL, CLAUDE, SERVICE, Engine
from interlock.core.actor import Actor
from interlock.core.errors import Conflict, Denied, Invalid, NotFound, Stale
from interlock.core.run import Run, RunState

LEAD = Actor(kind="person", name="lea", roles=("lead",))
LEAD_TOO = Actor(kind="person", name="leo", roles=("lead", "operator"))

QUORUM = """
@id("all")
@reason("all")
@risk("none")
permit (principal, action, resource);

@id("two-leads")
@reason("two leads have to agree")
@risk("high")
@effect("approve")
@approvals("2")
@roles("lead")
forbid (principal, action, resource is Plan)
when { resource.changes }
unless { context.granted };
"""


@pytest.fixture
async def team(opened: Callable[..., Any]) -> Engine:
    """A small team."""
    started: Engine = await opened(policy="small-team")
    return started


@pytest.fixture
async def quorum(opened: Callable[..., Any]) -> Engine:
    """Every change needs two leads."""
    started: Engine = await opened(policy=QUORUM)
    return started


async def yes(engine: Engine, actor: Actor, run: Run, **options: Any) -> Run:
    """Say yes."""
    after, _ = await engine.approvals.decide(actor, run.number, verdict=True, reason=None, **options)
    return after


async def test_a_waiting_run_does_nothing_until_somebody_says_yes(team: Engine) -> None:
    run = await team.ask(CLAUDE, {"target": "a"})
    assert run.state is RunState.WAITING
    assert team.lines() == []
    await yes(team, BOB, run)
    assert (await team.rest(run.number)).state is RunState.SUCCEEDED
    used = await team.query("select used_at from approval where run = %s", run.number)
    assert used[0]["used_at"] is not None


async def test_the_asker_never_approves(quorum: Engine) -> None:
    run = await quorum.ask(LEAD, {})
    with pytest.raises(Denied) as refused:
        await yes(quorum, LEAD, run)
    assert refused.value.code == "approval.own_ask"


@pytest.mark.parametrize("actor", [CLAUDE, SERVICE, Actor(kind="system", name="interlock")])
async def test_only_people_approve(team: Engine, actor: Actor) -> None:
    run = await team.ask(Actor(kind="agent", name="other"), {})
    with pytest.raises(Denied) as refused:
        await yes(team, actor, run)
    assert refused.value.code == "approval.not_a_person"


async def test_the_agents_own_person_is_not_another_person_where_policy_wants_one(quorum: Engine) -> None:
    run = await quorum.ask(Actor(kind="agent", name="claude", on_behalf_of="person:lea"), {})
    with pytest.raises(Denied) as refused:
        await yes(quorum, LEAD, run)
    assert refused.value.code == "approval.does_not_count"
    assert (await yes(quorum, LEAD_TOO, run)).state is RunState.WAITING


async def test_a_quorum_is_of_distinct_people_with_the_role(quorum: Engine) -> None:
    run = await quorum.ask(ALICE, {})
    with pytest.raises(Denied) as refused:
        await yes(quorum, CAROL, run)
    assert refused.value.code == "approval.role"
    assert (await yes(quorum, LEAD, run)).state is RunState.WAITING
    with pytest.raises(Conflict) as again:
        await yes(quorum, LEAD, run)
    assert again.value.code == "approval.again"
    await yes(quorum, LEAD_TOO, run)
    assert (await quorum.rest(run.number)).state is RunState.SUCCEEDED


async def test_two_verdicts_at_the_same_moment_both_count(quorum: Engine) -> None:
    run = await quorum.ask(ALICE, {})
    await asyncio.gather(yes(quorum, LEAD, run), yes(quorum, LEAD_TOO, run))
    assert (await quorum.rest(run.number)).state is RunState.SUCCEEDED
    assert (await quorum.kinds(run.number)).count("approved") == 3  # with her own confirmation


async def test_one_no_ends_it(quorum: Engine) -> None:
    run = await quorum.ask(ALICE, {})
    await yes(quorum, LEAD, run)
    denied, _ = await quorum.approvals.decide(CAROL, run.number, verdict=False, reason="no")
    assert (denied.state, denied.state_code) == (RunState.DENIED, "denied.person")
    with pytest.raises(Conflict):
        await yes(quorum, LEAD_TOO, run)


async def test_an_approval_of_another_plan_is_refused(team: Engine) -> None:
    run = await team.ask(CLAUDE, {})
    with pytest.raises(Stale):
        await yes(team, BOB, run, digest="0" * 64)
    assert (await yes(team, BOB, run, digest=run.digest[:12])).state is not RunState.WAITING


async def test_an_empty_digest_is_not_the_beginning_of_every_digest(team: Engine) -> None:
    run = await team.ask(CLAUDE, {})
    with pytest.raises((Stale, Invalid)):
        await yes(team, BOB, run, digest="")


async def test_an_expired_run_is_not_approved_and_is_closed(team: Engine) -> None:
    run = await team.ask(CLAUDE, {})
    await team.execute("update run set expires_at = now() - interval '1 second' where number = %s", run.number)
    with pytest.raises(Stale) as refused:
        await yes(team, BOB, run)
    assert refused.value.code == "run.expired"
    assert await team.approvals.expire() == 1
    assert (await team.store.by_number(run.number)).state is RunState.EXPIRED
    assert team.lines() == []


async def test_an_approval_that_expired_before_the_run_began_does_not_count(team: Engine) -> None:
    first = await team.run({"do": {"outcome": "transient"}, "target": "a"})  # keeps the target
    run = await team.ask(CLAUDE, {"target": "a"})
    await yes(team, BOB, run)
    await team.execute("update approval set expires_at = now() - interval '1 second' where run = %s", run.number)
    await team.interventions.resolve(BOB, first.number, "skip", None)
    after = await team.rest(run.number)
    assert (after.state, after.state_code) == (RunState.STALE, "approval.missing")
    assert not [line for line in team.lines() if line.startswith(f"{run.number}:")]


@pytest.mark.parametrize("change", ["run = {other}", "digest = 'other'", "asker = 'agent:other'"])
async def test_a_verdict_counts_for_its_run_plan_and_asker_only(team: Engine, change: str) -> None:
    blocker = await team.run({"do": {"outcome": "transient"}, "target": "a"})
    other = await team.ask(CLAUDE, {"target": "b"})
    run = await team.ask(CLAUDE, {"target": "a"})
    await yes(team, BOB, run)
    await team.execute(f"update approval set {change.format(other=other.number)} where run = {run.number}")  # noqa: S608
    await team.interventions.resolve(BOB, blocker.number, "skip", None)
    assert (await team.rest(run.number)).state is RunState.STALE
    assert (await team.store.by_number(other.number)).state is RunState.WAITING


async def test_a_world_that_changed_while_a_run_waited_makes_it_stale(team: Engine) -> None:
    facts = team.folder / "facts"
    facts.write_text("before", encoding="utf-8")
    run = await team.ask(CLAUDE, {}, args={"facts": str(facts)})
    facts.write_text("after", encoding="utf-8")
    await yes(team, BOB, run)
    after = await team.rest(run.number)
    assert (after.state, after.state_code) == (RunState.STALE, "plan.changed")
    assert team.lines() == []


async def test_a_world_that_cannot_be_read_is_given_a_few_chances_then_the_run_is_stale(team: Engine) -> None:
    facts = team.folder / "facts"
    facts.write_text("before", encoding="utf-8")
    run = await team.ask(CLAUDE, {}, args={"facts": str(facts)})
    facts.write_text("transient", encoding="utf-8")
    await yes(team, BOB, run)
    assert (await team.rest(run.number, 8)).state is RunState.STALE
    assert team.lines() == []


async def test_a_policy_that_changed_while_a_run_waited_denies_it(team: Engine) -> None:
    run = await team.ask(CLAUDE, {"target": "a"})
    policies = team.parts.locations.project_folder / "policies"
    (policies / "no.cedar").write_text(
        '@id("no")\n@reason("not any more")\n@risk("high")\n@effect("forbid")\n'
        "forbid (principal, action, resource is Plan);",
        encoding="utf-8",
    )
    team.parts.book.reload()
    with pytest.raises(Denied):
        await yes(team, BOB, run)
    assert team.lines() == []


async def test_a_person_confirms_his_own_high_risk_change_twice(team: Engine) -> None:
    run = await team.ask(ALICE, {"risk": "high"})
    assert run.state is RunState.WAITING
    await yes(team, ALICE, run)
    assert (await team.rest(run.number)).state is RunState.SUCCEEDED


async def test_reasons_are_bounded_and_clean(team: Engine) -> None:
    run = await team.ask(CLAUDE, {})
    for reason in ("x" * 2001, "a \0 b", "half \ud800"):
        with pytest.raises(Invalid):
            await team.approvals.decide(BOB, run.number, verdict=False, reason=reason)
        with pytest.raises(Invalid):
            await team.interventions.cancel(ALICE, run.number, reason)
        with pytest.raises(Invalid):
            await team.interventions.resolve(ALICE, run.number, "skip", reason)
    with pytest.raises(NotFound):
        await team.approvals.decide(BOB, 999, verdict=True, reason=None)
