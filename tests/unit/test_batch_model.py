"""What is decided about batch jobs: who gets which version, what comparisons say together, what is kept how long."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from interlock.batch.model import chosen, criteria, key_of, overall, serving
from interlock.batch.pruning import prune_files
from interlock.core.batch import BatchComparison, BatchRouting, VersionPin
from interlock.core.comparison import ComparisonRules
from interlock.core.errors import Invalid
from interlock.core.workload import BatchWorkload
from interlock.interfaces.cli.verbs_batch import parameters

NOW = datetime(2026, 3, 1, tzinfo=UTC)
V1, V2 = VersionPin(version="v1", identity="sha256:1"), VersionPin(version="v2", identity="sha256:2")


def routing(share: int = 2000, *, candidate: VersionPin | None = V2, failures: int = 0) -> BatchRouting:
    return BatchRouting(
        workload="report",
        stable=V1,
        candidate=candidate,
        previous=VersionPin(version="v0", identity="sha256:0"),
        share=share,
        failures=failures,
        changed_by="person:alice",
        run=1,
        changed_at=NOW,
    )


def compared(run: int, *, pairs: int = 300, given: str = "a", blocks: tuple[str, ...] = ()) -> BatchComparison:
    return BatchComparison(
        run=run,
        workload="report",
        stable=V1,
        candidate=V2,
        input_sha256=given,
        verdict="no_go" if blocks else "not_yet",
        pairs=pairs,
        disagreeing=len(blocks),
        blocks=blocks,
        stable_seconds=1.0,
        candidate_seconds=2.0,
        folder="/",
        at=NOW,
    )


@given(st.text(max_size=20), st.integers(0, 10_000), st.integers(0, 10_000))
def test_nobody_drifts_back_as_the_share_rises(key: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    if chosen(routing(low), key) == "candidate":
        assert chosen(routing(high), key) == "candidate"
    assert chosen(routing(0), key) == "stable"
    assert chosen(routing(10_000), key) == "candidate"


def test_a_fifth_of_the_share_is_a_fifth_of_the_keys() -> None:
    keys = [key_of({"target_month": str(month)}) for month in range(5000)]
    assert 900 < sum(chosen(routing(2000), key) == "candidate" for key in keys) < 1100


def test_whoever_crossed_the_line_gets_nothing_from_that_moment() -> None:
    assert chosen(routing(10_000, failures=2), "x") == "stable"
    after = routing(0, candidate=None, failures=2)
    assert serving(after, "stable").version == "v0"
    assert serving(routing(0, candidate=None), "stable").version == "v1"


def test_the_same_values_are_the_same_invocation() -> None:
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"}) != key_of({"a": "12", "b": ""})


def test_comparisons_on_other_inputs_add_up_and_of_one_input_the_newest_counts() -> None:
    rules = ComparisonRules()
    assert overall(criteria([compared(1)], rules, slower_max=0.05, golden=())) == "not_yet"
    same = [compared(1), compared(2)]
    assert overall(criteria(same, rules, slower_max=0.05, golden=())) == "not_yet"
    two = [compared(1), compared(2, given="b")]
    assert overall(criteria(two, rules, slower_max=0.05, golden=())) == "go"
    mended = [compared(3, pairs=600), compared(2, pairs=600, blocks=("fee differs",))]
    assert overall(criteria(mended, rules, slower_max=0.05, golden=())) == "go"


def test_one_input_that_stops_it_stops_it() -> None:
    found = [compared(1, pairs=9000), compared(2, given="b", blocks=("fee differs",))]
    table = criteria(found, ComparisonRules(), slower_max=0.05, golden=())
    assert (overall(table), table[0].words) == ("no_go", "fee differs")


def test_a_golden_sample_that_differs_stops_it() -> None:
    found = [compared(1, pairs=9000)]
    assert overall(criteria(found, ComparisonRules(), slower_max=0.05, golden=[("february", False)])) == "no_go"


def test_time_is_told_and_keeps_nobody_waiting() -> None:
    table = criteria([compared(1, pairs=9000)], ComparisonRules(), slower_max=0.05, golden=())
    assert table[-1].verdict == "not_yet"
    assert overall(table) == "go"


@pytest.mark.parametrize(
    "changes",
    [
        {"command": ["x", "{target_month}"]},
        {"input": "data/{target_month}.csv"},
        {"input": "data/{output}.csv"},
        {"command": ["x", "{input}"]},
        {"command": ["x", "{port}"]},
        {"parameters": {"input": ".*"}},
        {"parameters": {"month": "(?=x)"}},
        {"source": {"image": "reports"}},
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    sound = {"command": ["x"], "source": {"folder": "v/{version}"}}
    BatchWorkload.model_validate(sound)
    with pytest.raises(ValidationError):
        BatchWorkload.model_validate({**sound, **changes})


def test_parameters_are_typed_as_options() -> None:
    assert parameters(["--target-month", "202602", "--kind=full"]) == {"target_month": "202602", "kind": "full"}
    for wrong in (["v2"], ["--target-month"], ["--target-month", "--kind"]):
        with pytest.raises(Invalid):
            parameters(wrong)


def test_old_comparisons_and_what_killed_runs_left_are_removed(tmp_path: Path) -> None:
    job = tmp_path / "report"
    for name in ("2026-02-01/run-1", "2026-02-28/run-2", "golden/objects", "rollback-7", "work/9-1", "work/10-1"):
        (job / name).mkdir(parents=True)
    long_ago = (NOW - timedelta(days=3)).timestamp()
    os.utime(job / "work/9-1", (long_ago, long_ago))
    os.utime(job / "work/10-1", (NOW.timestamp(), NOW.timestamp()))
    assert prune_files(tmp_path, NOW, 7) == (str(job / "2026-02-01"), str(job / "work/9-1"))
    assert prune_files(tmp_path / "nowhere", NOW, 7) == ()
