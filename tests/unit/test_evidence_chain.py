"""The chain of one Run holds together, and whatever is changed, dropped or added in it is named."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from harness import sealed_runs
from interlock.core.evidence import DATA_BYTES_MAX, GENESIS, Evidence, EvidenceKind, evidence_line, leaf_hash
from interlock.engine.audit.chain import ChainRow, ChainWalk, RunTale
from interlock.engine.audit.findings import FINDINGS_MAX, Findings
from interlock.engine.audit.runs import compare_run

AT = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
DIGEST, OTHER = "d" * 64, "e" * 64
Row = dict[str, Any]


def chain(run: int = 7, *, first_leaf: int = 0, closed: str | None = "succeeded") -> list[Row]:
    rows = sealed_runs.evidence_of(sealed_runs.asked(run), closed)
    return [row_of(row, first_leaf + row.seq - 1) for row in rows]


def row_of(evidence: Evidence, index: int | None) -> Row:
    return {
        "run": evidence.run,
        "seq": evidence.seq,
        "kind": evidence.kind.value,
        "line": evidence.line,
        "hash": evidence.hash,
        "index": index,
        "unsealed": index is None,
    }


def rehash(row: Row, line: str) -> Row:
    return row | {"line": line, "hash": leaf_hash(line.encode())}


def run_row(**changes: Any) -> Row:
    state = changes.get("state", "succeeded")
    return sealed_runs.row_of(sealed_runs.asked(7), state) | changes


def take(walk: ChainWalk, rows: list[Row]) -> list[RunTale]:
    names = ("run", "seq", "kind", "line", "hash", "index", "unsealed")
    return walk.take([cast("ChainRow", tuple(row[name] for name in names)) for row in rows])


def findings_of(rows: list[Row], told: Row | None = None, *, compare: bool = True) -> list[str]:
    findings = Findings()
    walk = ChainWalk(findings)
    tales = [*take(walk, rows), *walk.finish()]
    if compare:
        for tale in tales:
            compare_run(findings, tale, told or run_row())
    return [finding.code for finding in findings.kept]


def test_a_row_is_a_leaf_and_a_link() -> None:
    evidence = evidence_line(7, 1, EvidenceKind.ASKED, AT, {"b": 1, "a": "报表"}, GENESIS)
    assert evidence.line == (
        '{"at":"2026-03-01T09:30:00.000000Z","data":{"a":"报表","b":1},"kind":"asked",'
        f'"prev":"{GENESIS}","run":7,"seq":1,"v":1}}'
    )
    assert evidence.hash == leaf_hash(evidence.line.encode())


def test_bodies_do_not_fit_into_evidence() -> None:
    with pytest.raises(ValueError, match="put the body into a blob"):
        evidence_line(7, 1, EvidenceKind.ASKED, AT, {"body": "x" * DATA_BYTES_MAX}, GENESIS)


def test_an_honest_chain_has_no_findings() -> None:
    assert findings_of(chain()) == []


def test_an_open_run_has_no_findings() -> None:
    assert findings_of(chain(closed=None), run_row(state="running")) == []


def test_rows_of_many_runs_arrive_in_any_portions() -> None:
    rows = [row for run in range(1, 6) for row in chain(run, first_leaf=run * 10)]
    for size in range(1, 8):
        findings = Findings()
        walk = ChainWalk(findings)
        tales = [tale for start in range(0, len(rows), size) for tale in take(walk, rows[start : start + size])]
        assert [tale.run for tale in [*tales, *walk.finish()]] == [1, 2, 3, 4, 5]
        assert findings.count == 0
        assert walk.rows == len(rows)


def test_a_changed_line_is_found_by_its_hash() -> None:
    rows = chain()
    rows[2] = rows[2] | {"line": rows[2]["line"].replace("true", "false")}
    assert findings_of(rows) == ["row.hash"]


def test_a_changed_line_with_a_new_hash_is_found_by_the_next_row() -> None:
    rows = chain()
    rows[2] = rehash(rows[2], rows[2]["line"].replace("true", "false"))
    assert findings_of(rows) == ["row.prev"]


def test_a_dropped_row_is_found() -> None:
    rows = chain()
    del rows[1]
    assert "row.missing" in findings_of(rows)


def test_a_run_without_its_first_row_is_found() -> None:
    codes = findings_of(chain()[1:])
    assert codes[0] == "row.missing"


def test_a_run_that_begins_with_something_else_is_found() -> None:
    evidence = evidence_line(7, 1, EvidenceKind.DONE, AT, {}, GENESIS)
    assert findings_of([row_of(evidence, 0)], run_row(state="running")) == ["run.asked"]


def test_an_ask_without_a_digest_is_found() -> None:
    evidence = evidence_line(7, 1, EvidenceKind.ASKED, AT, {}, GENESIS)
    assert findings_of([row_of(evidence, 0)], run_row(state="running")) == ["run.asked"]


@pytest.mark.parametrize(
    ("column", "value"), [("kind", "approved"), ("seq", 9), ("run", 8)], ids=["kind", "seq", "run"]
)
def test_a_column_that_contradicts_its_line_is_found(column: str, value: object) -> None:
    rows = chain()
    rows[-1] = rows[-1] | {column: value}
    assert "row.columns" in findings_of(rows)


def test_an_unknown_kind_is_found() -> None:
    rows = chain(closed=None)
    rows[-1] = rehash(rows[-1], rows[-1]["line"].replace('"done"', '"dreamt"')) | {"kind": "dreamt"}
    assert "row.kind" in findings_of(rows, run_row(state="running"))


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        '{"at":"x"}',
        "[" * 100_000,
        json.dumps(json.loads(chain()[0]["line"])),
        chain()[0]["line"].replace('"run":7', '"run":7,"run":7'),
        chain()[0]["line"].replace('"data":{', '"data":{"\\ud800":1,'),
    ],
    ids=["text", "array", "fields", "deep", "spaces", "twice", "surrogate"],
)
def test_a_line_that_is_not_canonical_evidence_is_found(line: str) -> None:
    assert "row.line" in findings_of([rehash(chain()[0], line)], run_row(state="running"))


def test_numbers_and_keys_that_need_the_exact_form_are_accepted() -> None:
    data: dict[str, Any] = {"digest": DIGEST, "small": 1e-7, "big": 1e21, "\U0001f600": 1, "\ufb33": 2}
    evidence = evidence_line(7, 1, EvidenceKind.ASKED, AT, data, GENESIS)
    assert findings_of([row_of(evidence, 0)], compare=False) == []


def test_only_notes_follow_the_end() -> None:
    rows = chain()
    note = evidence_line(7, 5, EvidenceKind.NOTED, AT, {"note": "pruned"}, rows[-1]["hash"])
    assert findings_of([*rows, row_of(note, 4)]) == []
    effect = evidence_line(7, 5, EvidenceKind.DONE, AT, {"step": 1}, rows[-1]["hash"])
    assert findings_of([*rows, row_of(effect, 4)]) == ["row.after_closed"]


def test_a_row_outside_the_tree_must_be_waiting() -> None:
    rows = chain()
    rows[-1] = rows[-1] | {"index": None, "unsealed": True}
    assert findings_of(rows) == []
    rows[-1] = rows[-1] | {"unsealed": False}
    assert findings_of(rows) == ["row.unnumbered"]


def test_a_row_is_not_both_in_the_tree_and_waiting() -> None:
    rows = chain()
    rows[-1] = rows[-1] | {"unsealed": True}
    assert findings_of(rows) == ["row.twice"]


def test_leaves_stand_in_the_order_of_the_chain() -> None:
    rows = chain()
    rows[1], rows[2] = rows[1] | {"index": rows[2]["index"]}, rows[2] | {"index": rows[1]["index"]}
    assert findings_of(rows) == ["leaf.order"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"state": "failed"}, "run.state"),
        ({"state": "running"}, "run.state"),
        ({"digest": OTHER}, "run.digest"),
        ({"key": "another"}, "run.key"),
        ({"actor_id": "person:bob"}, "run.actor"),
        ({"closed_at": None}, "run.closed_at"),
    ],
)
def test_an_edited_run_table_is_found(changes: dict[str, str], code: str) -> None:
    assert findings_of(chain(), run_row() | changes) == [code]


def test_a_final_state_without_evidence_is_found() -> None:
    assert findings_of(chain(closed=None), run_row(state="denied")) == ["run.state"]


def test_a_run_missing_from_the_table_is_found() -> None:
    findings = Findings()
    walk = ChainWalk(findings)
    take(walk, chain())
    compare_run(findings, walk.finish()[0], None)
    assert [finding.code for finding in findings.kept] == ["run.lost"]


def test_a_decision_on_another_plan_is_found() -> None:
    rows = chain(closed=None)[:1]
    decided = evidence_line(7, 2, EvidenceKind.DECIDED, AT, {"digest": OTHER}, rows[0]["hash"])
    assert findings_of([*rows, row_of(decided, 1)], run_row(state="running")) == ["row.digest", "run.decision"]


def test_findings_are_counted_and_kept_within_bounds() -> None:
    rows = [row | {"hash": GENESIS} for run in range(1, 200) for row in chain(run)]
    findings = Findings()
    take(ChainWalk(findings), rows)
    assert len(findings.kept) == FINDINGS_MAX
    assert findings.count > 796
