"""Policies come into force by a Run: planned, sound, recorded, checked, and taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.engine import ALICE, BOB, CLAUDE, PERMISSIVE, Engine
from interlock.core.ask import Ask
from interlock.core.errors import Conflict, InterlockError, Invalid, Permanent
from interlock.core.policy_set import POLICY_SETS
from interlock.core.run import Run, RunState
from interlock.engine.policy.load import write_preset
from interlock.engine.proposal import Proposal

from .conftest import OpenEngine

NO_SLOW = """
@id("team.no-slow") @reason("nothing is called slow") @risk("low") @effect("forbid")
forbid (principal, action == Action::"test.steps", resource is Plan)
when { resource.targets.contains("thing:slow") };
"""
SLOW: Any = {"target": "slow"}


def _policies(engine: Engine) -> Path:
    folder: Path = engine.parts.locations.project_folder / "policies"
    return folder


def _write(engine: Engine, text: str, name: str = "test.cedar") -> None:
    path = _policies(engine) / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


async def _apply(engine: Engine, **args: Any) -> Run:
    run = await engine.door.submit(ALICE, Ask(action="policy.apply", args=args, confirmed=True))
    assert isinstance(run, Run), run
    return await engine.rest(run.number)


def _desk(engine: Engine) -> Any:
    return engine.parts.catalog.action("policy.apply").ports.outside[POLICY_SETS]


def _troubles(engine: Engine) -> list[Any]:
    return [each.code for each in engine.parts.reconcilers.troubles]


async def _slow(engine: Engine) -> RunState:
    run = await engine.run(SLOW)
    state: RunState = run.state
    return state


async def test_what_was_applied_counts_whatever_lies_on_disk_until_it_is_taken_back(open_apart: OpenEngine) -> None:
    async with open_apart() as engine:
        assert await _slow(engine) is RunState.SUCCEEDED
        _write(engine, PERMISSIVE + NO_SLOW)
        before = engine.parts.book.current.digest
        run = await _apply(engine)
        assert run.state is RunState.SUCCEEDED, run.state_reason
        assert await _slow(engine) is RunState.DENIED
        (_policies(engine) / "test.cedar").unlink()
        assert engine.parts.project.reload(engine.parts.catalog, engine.parts.book).pinned
        assert await _slow(engine) is RunState.DENIED, "a reload does not change what was applied"
    async with open_apart() as engine:
        assert await _slow(engine) is RunState.DENIED, "nor does a start"
        undo = await engine.interventions.undo(ALICE, run.number, Ask(action="-", confirmed=True))
        assert isinstance(undo, Run)
        assert (await engine.rest(undo.number)).state is RunState.SUCCEEDED
        assert engine.parts.book.current.digest == before, "from the kept texts: the file is gone"
        assert await _slow(engine) is RunState.SUCCEEDED
        assert (await engine.verify()).intact


async def test_the_plan_shows_every_difference_and_the_digest_of_the_set(open_apart: OpenEngine) -> None:
    async with open_apart() as engine:
        _write(engine, PERMISSIVE.replace("tests of the engine permit", "all is permitted:") + NO_SLOW)
        proposal = await engine.door.propose(ALICE, Ask(action="policy.apply", args={}))
        facts: Any = proposal.plan.facts["proposal"]
        assert (facts["added"], facts["changed"], facts["removed"]) == (["team.no-slow"], ["everything"], [])
        assert [each["name"] for each in facts["files"]] == ["policies/test.cedar"]
        preview = proposal.plan.preview or ""
        assert '+@id("team.no-slow")' in preview
        assert "-@reason(" in preview
        assert proposal.plan.steps[0].params["digest"] == facts["digest"]


async def test_under_strict_another_person_agrees_to_exactly_these_texts(open_apart: OpenEngine) -> None:
    people = {"alice": {"roles": ["operator"]}, "bob": {"roles": ["operator"]}}
    async with open_apart("strict", {"people": people}) as engine:
        write_preset(_policies(engine), "strict")
        _write(engine, NO_SLOW, "more.cedar")
        run = await engine.door.submit(ALICE, Ask(action="policy.apply", args={}, confirmed=True))
        assert isinstance(run, Run)
        assert run.state is RunState.WAITING
        _write(engine, NO_SLOW.replace("slow", "fast"), "more.cedar")
        await engine.approvals.decide(BOB, run.number, verdict=True, reason=None, digest=run.digest)
        assert (await engine.rest(run.number)).state is RunState.STALE
        again = await engine.door.submit(ALICE, Ask(action="policy.apply", args={}, confirmed=True))
        assert isinstance(again, Run)
        await engine.approvals.decide(BOB, again.number, verdict=True, reason=None, digest=again.digest)
        assert (await engine.rest(again.number)).state is RunState.SUCCEEDED
        assert "team.no-fast" in engine.parts.book.current.rules


async def test_a_replay_of_these_very_policies_is_part_of_the_plan(open_apart: OpenEngine) -> None:
    async with open_apart() as engine:
        _write(engine, PERMISSIVE + NO_SLOW)
        store = _desk(engine)._store
        digest = (await engine.door.propose(ALICE, Ask(action="policy.apply", args={}))).plan.steps[0].params["digest"]
        summary = {"since": "a", "until": "b", "decided": 9, "different": 2, "unreplayable": 0, "groups": ["x (added)"]}
        number, other = await store.keep_replay(digest, summary), await store.keep_replay("0" * 64, summary)
        shown = await engine.door.propose(ALICE, Ask(action="policy.apply", args={"replay": number}))
        assert "of 9 Runs 2 would be answered otherwise" in (shown.plan.preview or "")
        assert shown.plan.facts["replay"] == summary
        with pytest.raises(Conflict, match="other policies"):
            await engine.door.propose(ALICE, Ask(action="policy.apply", args={"replay": other}))


HARD = '@reason("r") @risk("low") @effect("forbid")'
HOSTILE = {
    "nonsense": ("forbid (principal, action, resource) when { resource.nosuch };", "policies/bad.cedar:2"),
    "no id": ("permit (principal, action, resource);", "policies/bad.cedar:2"),
    "an invariant's name": (
        '@id("invariant.own") @reason("r") @risk("low") permit (principal, action, resource);',
        "policies/bad.cedar:2",
    ),
    "no end": ('@id("x") @reason("r") @risk("low") permit (principal, action, resource)', "policies/bad.cedar:2"),
    "a soft forbid that stays": (
        '@id("x") @reason("r") @risk("low") @effect("approve") @approvals("1") forbid (principal, action, resource);',
        "policies/bad.cedar:2",
    ),
    "a way of no return": (
        f'@id("x") {HARD} forbid (principal, action == Action::"policy.apply", resource);',
        "after this nobody could put other policies in force: x: r",
    ),
}


@pytest.mark.parametrize(("text", "message"), HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_set_is_refused_and_the_old_one_stays(open_apart: OpenEngine, text: str, message: str) -> None:
    async with open_apart() as engine:
        before = engine.parts.book.current
        _write(engine, f"// first line\n{text}\n", "bad.cedar")
        with pytest.raises(Invalid) as caught:
            await engine.door.submit(ALICE, Ask(action="policy.apply", args={}, confirmed=True))
        assert message in caught.value.message
        assert engine.parts.book.current is before
        assert await engine.query("select 1 as found from policy_in_force") == []


async def test_a_set_whose_decision_tables_do_not_hold_is_refused_by_row(open_apart: OpenEngine) -> None:
    async with open_apart() as engine:
        _write(engine, PERMISSIVE + NO_SLOW)
        rows = """
rows:
  - name: everybody may
    actor: person:alice
    plan: {action: test.steps, changes: true, risk: low, operations: [test.do], targets: ["thing:slow"]}
    expect: permit
"""
        _write(engine, rows, "tests/team.yaml")
        with pytest.raises(Invalid, match=r"team\.yaml:3: everybody may: expected permit"):
            await engine.door.propose(ALICE, Ask(action="policy.apply", args={}))


async def test_only_a_person_may_and_only_what_differs(open_apart: OpenEngine) -> None:
    project = {"agents": {"claude": {"on_behalf_of": "alice"}}, "people": {"alice": {"roles": ["operator"]}}}
    async with open_apart(project=project) as engine:
        _write(engine, PERMISSIVE + NO_SLOW)
        asked = await engine.door.submit(CLAUDE, Ask(action="policy.apply", args={}, confirmed=True))
        assert isinstance(asked, Run)
        assert asked.state is RunState.DENIED
        assert asked.decision.reasons[0].policy == "invariant.governance"
        applied = await _apply(engine)
        undo = await engine.interventions.undo(CLAUDE, applied.number, Ask(action="-", confirmed=True))
        assert not isinstance(undo, Proposal)
        assert undo.state is RunState.DENIED
        with pytest.raises(Conflict, match="are in force"):
            await _apply(engine)


async def test_an_older_run_is_not_taken_back_over_a_newer_one(open_apart: OpenEngine) -> None:
    async with open_apart() as engine:
        _write(engine, PERMISSIVE + NO_SLOW)
        first = await _apply(engine)
        _write(engine, PERMISSIVE.replace("tests of", "all tests of"))
        second = await _apply(engine)
        assert second.state is RunState.SUCCEEDED
        undo = await engine.interventions.undo(ALICE, first.number, Ask(action="-", confirmed=True))
        assert isinstance(undo, Run)
        rested = await engine.rest(undo.number)
        assert rested.state is not RunState.SUCCEEDED
        assert "another set is in force" in (rested.state_reason or "")
        assert await _slow(engine) is RunState.SUCCEEDED


async def test_what_lies_on_disk_can_be_followed_again(open_apart: OpenEngine) -> None:
    async with open_apart() as engine:
        _write(engine, PERMISSIVE + NO_SLOW)
        await _apply(engine)
        followed = await _apply(engine, pinned=False)
        assert followed.state is RunState.SUCCEEDED, followed.state_reason
        _write(engine, PERMISSIVE)
        assert not engine.parts.project.reload(engine.parts.catalog, engine.parts.book).pinned
        assert await _slow(engine) is RunState.SUCCEEDED
        _write(engine, PERMISSIVE + NO_SLOW)
        assert (await _apply(engine)).state is RunState.SUCCEEDED


async def test_drift_is_told_and_goes_when_it_is_gone(open_apart: OpenEngine) -> None:
    async with open_apart() as engine:
        _write(engine, PERMISSIVE + NO_SLOW)
        await _apply(engine)
        assert "policy.drift" not in _troubles(engine)
        _write(engine, PERMISSIVE)
        await _desk(engine).look()
        assert "policy.drift" in _troubles(engine)
        await _apply(engine)
        assert "policy.drift" not in _troubles(engine)


async def test_kept_texts_that_somebody_changed_open_nothing(open_apart: OpenEngine) -> None:
    async with open_apart() as engine:
        _write(engine, PERMISSIVE + NO_SLOW)
        await _apply(engine)
        await engine.execute("update policy_set set sources = replace(sources, 'team.no-slow', 'team.no-snow')")
    with pytest.raises(InterlockError) as caught:
        async with open_apart():
            pass
    assert isinstance(caught.value, Permanent)
    assert caught.value.code == "policy.kept_changed"


async def test_a_kept_set_that_does_not_fit_the_project_any_more_stops_the_start(open_apart: OpenEngine) -> None:
    async with open_apart() as engine:
        _write(engine, PERMISSIVE + NO_SLOW)
        await _apply(engine)
        text = engine.parts.locations.project_file.read_text(encoding="utf-8")
        _write(engine, PERMISSIVE, "strict.cedar")
        engine.parts.locations.project_file.write_text(text.replace("small-team", "strict"), encoding="utf-8")
        (_policies(engine) / "test.cedar").unlink()
        await _apply_again_as_strict(engine)
        engine.parts.locations.project_file.write_text(text, encoding="utf-8")
    with pytest.raises(Invalid, match=r"policies/strict\.cedar is another one"):
        async with open_apart():
            pass


async def _apply_again_as_strict(engine: Engine) -> None:
    engine.parts.project.reload(engine.parts.catalog, engine.parts.book)
    assert (await _apply(engine)).state is RunState.SUCCEEDED
