"""The state machine, what evidence says about progress, and what approvals are missing, against plain models."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.approval import Approval, missing
from interlock.core.decision import Requirement
from interlock.core.errors import Conflict
from interlock.core.evidence import Chain, Evidence, EvidenceKind
from interlock.core.model import JsonObject
from interlock.core.run import FINAL_STATES, OPEN_STATES, TRANSITIONS, RunState, require_transition
from interlock.engine.progress import read_progress

NOW = datetime(2026, 3, 1, tzinfo=UTC)
STEPS = 4
PEOPLE = ("person:alice", "person:bob", "person:carol")
ROLES = ("lead", "operator")


@given(st.lists(st.sampled_from(RunState), min_size=1, max_size=20))
def test_a_walk_goes_only_where_the_machine_goes_and_never_out_of_an_end(wishes: list[RunState]) -> None:
    state = RunState.WAITING
    for wish in wishes:
        if wish in TRANSITIONS[state]:
            require_transition(state, wish)
            state = wish
        else:
            with pytest.raises(Conflict):
                require_transition(state, wish)
        assert state.is_final == (state in FINAL_STATES) == (not TRANSITIONS[state])


@given(st.sampled_from(sorted(OPEN_STATES)))
def test_every_open_run_can_still_come_to_an_end(state: RunState) -> None:
    reached, edge = {state}, [state]
    while edge:
        further = TRANSITIONS[edge.pop()] - reached
        reached |= further
        edge += sorted(further)
    assert reached & FINAL_STATES


class Script:
    """A Run that does steps as drawn, writing evidence as the engine does and keeping a plain model beside it."""

    def __init__(self) -> None:
        self.chain = Chain(1)
        self.rows: list[Evidence] = []
        self.done: set[int] = set()
        self.undone: set[int] = set()
        self.undo_from: int | None = None
        self.open: int | None = None

    def write(self, kind: EvidenceKind, **data: object) -> None:
        """One row."""
        body: JsonObject = dict(data)  # type: ignore[arg-type]
        self.rows.append(self.chain.extend(kind, NOW, body))

    def candidates(self) -> list[int]:
        """The steps that may be started now."""
        if self.undo_from is None:
            return [index for index in range(STEPS) if index not in self.done][:1]
        return sorted(({*self.done, self.undo_from}) - self.undone, reverse=True)[:1]

    def step(self, how: str) -> None:
        """Go one step further, in one of the ways in which a step can go."""
        todo = self.candidates()
        if not todo:
            return
        index = todo[0]
        forward = self.undo_from is None
        ended = self.done if forward else self.undone
        kind = EvidenceKind.DONE if forward else EvidenceKind.UNDONE
        worker = {"host": "h", "pid": 1}
        direction = "do" if forward else "undo"
        self.write(EvidenceKind.STARTED, step=index, attempt=1, direction=direction, worker=worker)
        self.open = index
        if how == "dies":
            return
        if how == "dies_guarded":
            self.write(EvidenceKind.NOTED, note="guard", guard={"pid": 2})
            return
        if how == "not_started":
            self.write(EvidenceKind.NOTED, note="not_started", step=index, reason="", code=None)
        elif how == "dies_unchecked":
            self.write(kind, step=index, ok=True, to_check=True)
            return
        elif how in ("checked", "check_fails"):
            self.write(kind, step=index, ok=True, to_check=True)
            self.write(EvidenceKind.CHECKED, step=index, ok=how == "checked")
        else:
            self.write(kind, step=index, ok=how == "ok")
        self.open = None
        if how in ("ok", "checked"):
            ended.add(index)

    def turn_back(self) -> None:
        """The engine gives up on the step that is next."""
        if self.undo_from is None and self.open is None and (todo := self.candidates()):
            self.undo_from = todo[0]
            self.write(EvidenceKind.NOTED, note="undoing", step=todo[0], reason="r", code=None)

    def resolve(self, how: str) -> None:
        """A person decides about the disputed step."""
        index = read_progress(self.rows).disputed(STEPS)
        self.write(EvidenceKind.NOTED, note="resolved", step=index, resolution=how, by="person:bob", reason=None)
        ended = self.done if self.undo_from is None else self.undone
        if how == "repeat":
            ended.discard(index)
            return
        self.open = None
        if how == "skip":
            ended.add(index)
        elif self.undo_from is None:
            self.undo_from = index


WAYS = ("ok", "not_ok", "checked", "check_fails", "not_started", "dies", "dies_guarded", "dies_unchecked")
MOVES = st.one_of(
    st.sampled_from([("step", way) for way in WAYS]),
    st.just(("turn_back", "")),
    st.sampled_from([("resolve", way) for way in ("repeat", "skip", "undo")]),
)


@given(st.lists(MOVES, max_size=25))
def test_evidence_alone_says_where_a_run_stands(moves: list[tuple[str, str]]) -> None:
    script = Script()
    for move, how in moves:
        if move == "step":
            script.step(how)
        elif move == "turn_back":
            script.turn_back()
        else:
            script.resolve(how)
        progress = read_progress(script.rows)
        assert (progress.done, progress.undone, progress.undo_from) == (script.done, script.undone, script.undo_from)
        assert (None if progress.open is None else progress.open.step) == script.open
        assert progress.direction == ("do" if script.undo_from is None else "undo")
        assert 0 <= progress.disputed(STEPS) < STEPS
        assert [progress.next_step(STEPS) if script.undo_from is None else progress.next_undo()] == (
            script.candidates() or [None]
        )


APPROVALS = st.builds(
    Approval,
    run=st.sampled_from((1, 2)),
    digest=st.sampled_from(("d", "e")),
    asker=st.sampled_from(("agent:claude", "person:alice")),
    approver=st.sampled_from((*PEOPLE, "agent:claude")),
    roles=st.lists(st.sampled_from(ROLES), unique=True).map(tuple),
    kind=st.sampled_from(("approval", "confirmation")),
    verdict=st.booleans(),
    reason=st.none(),
    at=st.just(NOW),
    expires_at=st.sampled_from((NOW - timedelta(seconds=1), NOW, NOW + timedelta(seconds=1))),
)
REQUIREMENTS = st.builds(
    Requirement,
    policy=st.just("p"),
    approvals=st.integers(0, 3),
    confirmations=st.integers(0, 2),
    roles=st.lists(st.sampled_from(ROLES), unique=True).map(tuple),
)


@given(REQUIREMENTS, st.lists(APPROVALS, max_size=8))
def test_only_distinct_other_people_with_a_valid_yes_count(wanted: Requirement, given_: list[Approval]) -> None:
    asker, principals = "agent:claude", frozenset({"agent:claude", "person:alice"})
    people, confirmations = set(), 0
    for each in given_:
        if not each.verdict or each.run != 1 or each.digest != "d" or each.asker != asker or each.expires_at <= NOW:
            continue
        if each.kind == "confirmation":
            confirmations += each.approver == asker
        elif each.approver not in principals and (not wanted.roles or set(wanted.roles) & set(each.roles)):
            people.add(each.approver)
    left = missing((wanted,), tuple(given_), run=1, digest="d", asker=asker, asker_principals=principals, now=NOW)
    met = len(people) >= wanted.approvals and confirmations >= wanted.confirmations
    assert (left == ()) == met


@given(st.lists(APPROVALS, max_size=8), APPROVALS)
def test_one_more_verdict_never_asks_for_more(given_: list[Approval], one_more: Approval) -> None:
    wanted = Requirement(policy="p", approvals=2, confirmations=1)

    def count(approvals: list[Approval]) -> int:
        left = missing(
            (wanted,), tuple(approvals), run=1, digest="d", asker="agent:claude",
            asker_principals=frozenset({"agent:claude"}), now=NOW,
        )  # fmt: skip
        return sum(each.approvals + each.confirmations for each in left)

    assert count([*given_, one_more]) <= count(given_)
