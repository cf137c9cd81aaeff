"""How a Run goes when its steps go well, badly, or not at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from harness.engine import ALICE, Engine
from interlock.core.ask import Ask
from interlock.core.evidence import EvidenceKind
from interlock.core.run import Run, RunState

UNDO: dict[str, Any] = {"undo": {}}


async def test_steps_are_done_in_order_and_each_is_written_down_before_and_after(engine: Engine) -> None:
    run = await engine.run({}, {}, {})
    assert run.state is RunState.SUCCEEDED
    assert [line for line in engine.lines() if "check" not in line] == [f"{run.number}:{step} do" for step in range(3)]
    step = ["started", "done", "checked"]
    assert await engine.kinds(run.number) == ["asked", "decided", "approved", *step, *step, *step, "closed"]
    assert (await engine.verify()).findings == ()


async def test_a_step_is_written_down_before_it_happens(engine: Engine) -> None:
    gate = engine.folder / "gate"
    run = await engine.ask(ALICE, {"do": {"gate": str(gate)}})
    try:
        async with asyncio.timeout(2):
            while "started" not in await engine.kinds(run.number):  # noqa: ASYNC110 - a table tells nobody
                await asyncio.sleep(0.02)
    finally:
        gate.touch()
    await engine.rest(run.number)


async def test_a_permanent_error_takes_the_earlier_steps_back_in_reverse(engine: Engine) -> None:
    run = await engine.run(UNDO, UNDO, {"do": {"outcome": "invalid"}})
    assert run.state is RunState.UNDONE
    undone = [line for line in engine.lines() if line.endswith(" undo")]
    assert undone == [f"{run.number}:1 undo", f"{run.number}:0 undo"]


async def test_a_permanent_error_of_a_step_that_may_have_had_an_effect_takes_that_step_back_too(engine: Engine) -> None:
    run = await engine.run(UNDO, {"do": {"outcome": "permanent"}, **UNDO})
    assert run.state is RunState.UNDONE
    undone = [line for line in engine.lines() if line.endswith(" undo")]
    assert undone == [f"{run.number}:1 undo", f"{run.number}:0 undo"]


@pytest.mark.parametrize("outcome", ["invalid", "not_found", "denied", "conflict", "stale"])
async def test_a_step_that_refused_leaves_a_failed_run_and_nothing_applied(engine: Engine, outcome: str) -> None:
    run = await engine.run({"do": {"outcome": outcome}})
    assert run.state is RunState.FAILED
    assert run.state_reason is not None
    assert run.state_reason.startswith("as told")


@pytest.mark.parametrize(("outcome", "repeatable"), [("transient", True), ("not_sent", True), ("not_sent", False)])
async def test_what_may_be_repeated_is_tried_again(engine: Engine, outcome: str, *, repeatable: bool) -> None:
    run = await engine.run({"do": {"outcome": outcome, "times": 2}, "repeatable": repeatable})
    assert run.state is RunState.SUCCEEDED
    started = await engine.data(run.number, EvidenceKind.STARTED)
    assert [row["attempt"] for row in started] == [1, 2, 3]


async def test_attempts_are_counted(engine: Engine) -> None:
    run = await engine.run({"do": {"outcome": "not_sent"}})
    assert run.state is RunState.FAILED
    assert len(await engine.data(run.number, EvidenceKind.STARTED)) == 4


async def test_an_unrepeatable_step_that_broke_off_is_unresolved_and_not_repeated(engine: Engine) -> None:
    run = await engine.run({"do": {"outcome": "transient", "times": 1}})
    assert run.state is RunState.UNRESOLVED
    assert engine.lines() == [f"{run.number}:0 do"]


@pytest.mark.parametrize(
    ("undo", "state"), [(False, RunState.UNRESOLVED), (True, RunState.UNDONE)], ids=["without-undo", "with-undo"]
)
async def test_an_unrepeatable_program_that_runs_out_of_time_is_not_repeated(
    engine: Engine, *, undo: bool, state: RunState
) -> None:
    told = engine.folder / "told"
    script = 'case "$2" in content*) sleep 20;; esac'
    args = {"fifo": str(told), "repeatable": [False], "undo": undo, "script": script, "timeout_seconds": 0.5}
    run = await engine.door.submit(ALICE, Ask(action="test.ledger", args=args, confirmed=True))
    assert isinstance(run, Run)
    assert (await engine.rest(run.number)).state is state
    assert len([row for row in await engine.data(run.number, EvidenceKind.STARTED) if row["direction"] == "do"]) == 1


async def test_a_bug_is_loud_and_never_repeated(engine: Engine) -> None:
    run = await engine.run({"do": {"outcome": "bug"}, "repeatable": True})
    assert run.state is RunState.UNRESOLVED
    assert run.state_code == "bug"
    assert "ZeroDivisionError" in str(run.state_reason)
    assert engine.lines() == [f"{run.number}:0 do"]
    told = await engine.query("select data from event where kind = 'run.unresolved'")
    assert [event["data"]["code"] for event in told] == ["bug"]


async def test_a_message_of_any_length_and_content_ends_a_run(engine: Engine) -> None:
    for message in ("x" * 40_000, "a {NUL} in between", "half a {PAIR}", "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 40_000):
        for outcome in ("permanent", "bug", "not_sent"):
            run = await engine.ask(ALICE, UNDO, {"do": {"outcome": outcome, "error": message}, **UNDO})
            run = await engine.rest(run.number, 5)
            assert run.state is (RunState.UNRESOLVED if outcome == "bug" else RunState.UNDONE), (outcome, message[:20])
    assert (await engine.verify()).findings == ()


async def test_a_check_that_fails_takes_the_step_back(engine: Engine) -> None:
    run = await engine.run({"do": {"checked": "not_ok"}, **UNDO})
    assert run.state is RunState.UNDONE
    assert [line.split(" ")[1] for line in engine.lines()] == ["do", "check-do", "undo", "check-undo"]


async def test_a_check_that_cannot_be_made_leaves_the_run_unresolved(engine: Engine) -> None:
    run = await engine.run({"do": {"checked": "transient"}, **UNDO}, {})
    assert run.state is RunState.UNRESOLVED


async def test_skip_after_a_failed_check_goes_on_behind_that_step_and_not_behind_the_next(engine: Engine) -> None:
    run = await engine.run({"do": {"checked": "transient"}}, {})
    await engine.interventions.resolve(ALICE, run.number, "skip", "I looked")
    assert (await engine.rest(run.number)).state is RunState.SUCCEEDED
    assert [line for line in engine.lines() if line.endswith(" do")] == [f"{run.number}:0 do", f"{run.number}:1 do"]


async def test_repeat_after_a_failed_check_repeats_that_step(engine: Engine) -> None:
    run = await engine.run({"do": {"checked": "not_ok"}}, {})
    assert run.state is RunState.UNRESOLVED
    await engine.interventions.resolve(ALICE, run.number, "repeat", None)
    again = await engine.rest(run.number)
    assert again.state is RunState.UNRESOLVED
    assert [line for line in engine.lines() if line.endswith(" do")] == [f"{run.number}:0 do"] * 2


async def test_an_undo_that_fails_is_unresolved_and_may_be_repeated(engine: Engine) -> None:
    undo = {"undo": {"outcome": "invalid"}}
    run = await engine.run(UNDO, undo, {"do": {"outcome": "invalid"}})
    assert run.state is RunState.UNRESOLVED
    await engine.interventions.resolve(ALICE, run.number, "repeat", None)
    await engine.rest(run.number)
    undone = [line for line in engine.lines() if line.endswith(" undo")]
    assert undone == [f"{run.number}:1 undo"] * 2


async def test_an_undo_that_fails_may_be_skipped(engine: Engine) -> None:
    undo = {"undo": {"outcome": "invalid"}}
    run = await engine.run(UNDO, undo, {"do": {"outcome": "invalid"}})
    await engine.interventions.resolve(ALICE, run.number, "skip", "by hand")
    settled = await engine.rest(run.number)
    assert settled.state is RunState.UNDONE
    undone = [line for line in engine.lines() if line.endswith(" undo")]
    assert undone == [f"{run.number}:1 undo", f"{run.number}:0 undo"]


async def test_resolve_undo_takes_back_what_is_applied(engine: Engine) -> None:
    run = await engine.run(UNDO, {"do": {"outcome": "transient"}, **UNDO})
    assert run.state is RunState.UNRESOLVED
    await engine.interventions.resolve(ALICE, run.number, "undo", None)
    assert (await engine.rest(run.number)).state is RunState.UNDONE
    undone = [line for line in engine.lines() if line.endswith(" undo")]
    assert undone == [f"{run.number}:1 undo", f"{run.number}:0 undo"]


async def test_resolve_repeat_and_skip(engine: Engine) -> None:
    run = await engine.run({"do": {"outcome": "transient", "times": 1}}, {})
    await engine.interventions.resolve(ALICE, run.number, "skip", None)
    assert (await engine.rest(run.number)).state is RunState.SUCCEEDED
    assert len([line for line in engine.lines() if line.endswith(" do")]) == 2


async def test_an_unresolved_run_keeps_its_target(engine: Engine) -> None:
    run = await engine.run({"do": {"outcome": "transient"}, "target": "a"})
    later = await engine.ask(ALICE, {"target": "a"})
    held = await engine.query("select run from run_target where holding and target = 'thing:a'")
    assert [row["run"] for row in held] == [run.number]
    assert (await engine.store.by_number(later.number)).state is RunState.QUEUED
    await engine.interventions.resolve(ALICE, run.number, "skip", None)
    assert (await engine.rest(later.number)).state is RunState.SUCCEEDED
