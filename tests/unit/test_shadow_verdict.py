"""What is said of a comparison as it stands: go, no-go, or not yet, and what is missing."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from interlock.comparison.answers import Answer, compare_answers, keys_in
from interlock.comparison.rules import ReadyRules
from interlock.comparison.shadow import (
    ComparatorTask,
    ShadowSummary,
    ShadowVerdict,
    comparator_process,
    differences_table,
    shadow_verdict,
    write_task,
)
from interlock.comparison.tally import FIELDS_MAX, Tally, TallyState
from interlock.comparison.written import Journal
from interlock.core.comparison import ComparisonRules, FieldRule

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
JSON = {"content-type": "application/json"}
KEYED = ComparisonRules(key_fields=("$.total",))
PAIRS = 459

Triple = tuple[str, str, str]
EQUAL: Triple = ('{"total": 1}', '{"total": 1}', '{"total": 1}')


def _tally(rules: ComparisonRules, *counted: tuple[Triple, int]) -> Tally:
    ready = ReadyRules(rules, date(2026, 3, 1))
    tally = Tally(ready)
    for triple, times in counted:
        stable, again, candidate = (Answer(200, JSON, body.encode()) for body in triple)
        for _ in range(times):
            tally.add(
                compare_answers(stable, candidate, ready), compare_answers(stable, again, ready), keys_in(stable, ready)
            )
    return tally


def _summary(state: TallyState, **more: object) -> ShadowSummary:
    return ShadowSummary.model_validate(
        {
            "task": "0",
            "release": 7,
            "workload": "shop",
            "stable_version": "v1",
            "candidate_version": "v2",
            "pid": 1,
            "started_at": NOW,
            "updated_at": NOW,
            "tally": state.model_dump(),
            **more,
        }
    )


def _verdict(rules: ComparisonRules, *counted: tuple[Triple, int]) -> ShadowVerdict:
    return shadow_verdict(_summary(_tally(rules, *counted).state()), rules, PAIRS, NOW)


def test_459_equal_answers_are_a_go_and_458_are_not_yet() -> None:
    assert _verdict(KEYED, (EQUAL, PAIRS)).verdict == "go"
    few = _verdict(KEYED, (EQUAL, PAIRS - 1))
    assert (few.verdict, few.words) == ("not_yet", "458 of 459 answers are compared")


def test_without_traffic_it_neither_passes_nor_fails() -> None:
    assert shadow_verdict(None, KEYED, PAIRS, NOW).verdict == "not_yet"
    assert _verdict(KEYED).verdict == "not_yet"


def test_no_key_field_that_no_answer_had_is_taken_as_agreeing() -> None:
    verdict = _verdict(ComparisonRules(key_fields=("$.total", "$.seldom")), (EQUAL, 1000))
    assert verdict.verdict == "not_yet"
    assert "$.seldom: at least 0.00 % of 0 answers agree" in verdict.words


def test_one_difference_that_could_be_noise_holds_it_up_until_it_is_clear() -> None:
    once = (('{"total": 1}', '{"total": 1}', '{"total": 2}'), 1)
    tally = _tally(KEYED, (EQUAL, 3000), once)
    verdict = shadow_verdict(_summary(tally.state()), KEYED, PAIRS, NOW)
    assert verdict.verdict == "not_yet"
    assert "$.total differs in 1 of 3,001 answers of v2 (it is a key field); it is not clear yet" in verdict.words
    (row,) = tally.state().fields
    assert row.example is not None
    for repeated, expected in ((False, "go"), (True, "no_go")):
        asked = _tally(KEYED, (EQUAL, 3000), once)
        assert asked.wants_asking_again(row.example)
        asked.asked_again(row.example, repeated=repeated)
        assert shadow_verdict(_summary(asked.state()), KEYED, PAIRS, NOW).verdict == expected
        assert asked.wants_asking_again(row.example) is not repeated


def test_a_difference_in_each_answer_is_proven_by_a_dozen() -> None:
    wrong = ('{"total": 1}', '{"total": 1}', '{"total": 2}')
    assert _verdict(KEYED, (wrong, 5)).verdict == "not_yet"
    verdict = _verdict(KEYED, (wrong, 12))
    assert verdict.verdict == "no_go"
    assert verdict.words == (
        "$.total differs in 12 of 12 answers of v2, never between two answers of v1: it is a key field (1 became 2)"
    )


def test_a_key_field_that_is_noise_itself_shows_nothing_and_says_so() -> None:
    noise = ('{"total": 1}', '{"total": 2}', '{"total": 3}')
    verdict = _verdict(KEYED, (noise, 1000))
    assert verdict.verdict == "not_yet"
    assert "v1 differs from itself in 1,000 of 1,000 answers" in verdict.words


def test_noise_that_blocks_but_is_no_key_field_holds_nothing_up_and_is_named() -> None:
    """A list that is another one each time: known as noise from the first time it was seen to be."""
    triples = [
        (f'{{"total": 1, "a": [{"1," * i}1]}}', f'{{"total": 1, "a": [1{",1" * j}]}}') for i, j in ((3, 2), (2, 3))
    ]
    mixed = [((one, other, one), 300) for one, other in triples] + [((one, one, other), 300) for one, other in triples]
    summary = _summary(_tally(KEYED, *mixed).state())
    verdict = shadow_verdict(summary, KEYED, PAIRS, NOW)
    assert verdict.verdict != "no_go"
    assert "$.a[*]" in summary.noise_fields
    overall, key = summary.tally.agreements
    assert (overall.noise_only, overall.candidate_only, key.candidate_only) == (1, 0, 0)


def test_a_budget_lets_few_differences_pass() -> None:
    rules = ComparisonRules(rules=(FieldRule(path="$.note", budget_percent=5),))
    few = ('{"note": 1}', '{"note": 1}', '{"note": 2}')
    same = ('{"note": 1}', '{"note": 1}', '{"note": 1}')
    assert _verdict(rules, (same, 970), (few, 30)).verdict == "go"
    above = _verdict(rules, (same, 940), (few, 60))
    assert (above.verdict, "whether it keeps to 5 %" in above.words) == ("not_yet", True)
    assert _verdict(rules, (same, 300), (few, 300)).verdict == "no_go"


def test_a_blocking_difference_within_a_warning_field_counts_apart() -> None:
    gone = ('{"a": 1, "b": 1}', '{"a": 1, "b": 1}', '{"b": 2}')
    table = differences_table(_summary(_tally(ComparisonRules(), (gone, 12)).state()))
    assert [line.split()[:5] for line in table.splitlines()[1:]] == [
        ["block", "$.a", "12/12", "0", "proven"],
        ["warn", "$.b", "12/12", "0", "proven"],
    ]


def test_fields_without_end_are_counted_together() -> None:
    wild = [(f'{{"n{i}": 1}}', f'{{"n{i}": 1}}', f'{{"n{i}": 2}}') for i in range(FIELDS_MAX + 50)]
    state = _tally(ComparisonRules(), *((triple, 1) for triple in wild)).state()
    assert len(state.fields) == FIELDS_MAX + 1
    assert (state.fields[-1].field, state.fields[-1].candidate_only) == ("**", 50)


def test_expired_rules_and_what_was_shed_are_told() -> None:
    state = _tally(KEYED, (EQUAL, 3)).state()
    summary = _summary(state, expired_rules=["$.a"], shed={"queue": 40, "late": 2}, stable_failures={"timeout": 1})
    verdict = shadow_verdict(summary, KEYED, PAIRS, NOW)
    assert "42 copies were not compared (queue 40, late 2)" in verdict.words
    assert verdict.evidence["expired_rules"] == ["$.a"]
    json.dumps(verdict.evidence)


def _task(**more: object) -> ComparatorTask:
    given = {"release": 7, "workload": "shop", "stable_version": "v1", "candidate_version": "v2"}
    places = {"listen": "127.0.0.1:1", "stable": "127.0.0.1:2", "candidate": "127.0.0.1:3"}
    return ComparatorTask.model_validate({**given, **places, **more})


def test_the_process_is_told_all_by_one_file_and_has_no_environment(tmp_path: Path) -> None:
    kept = comparator_process(_task(), write_task(tmp_path, _task()), "/usr/bin/python3")
    assert kept.argv == ("/usr/bin/python3", "-P", "-m", "interlock.comparison", str(tmp_path / "shadow.json"))
    assert (kept.name, kept.environment) == ("comparator-shop-7", {})


def test_other_rules_or_versions_are_another_task_and_another_port_is_not() -> None:
    assert _task().digest == _task(candidate="127.0.0.1:9").digest
    assert _task().digest != _task(candidate_version="v3").digest
    assert _task().digest != _task(rules=KEYED.model_dump()).digest


def test_a_journal_is_bounded_and_mends_a_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"whole\nha")
    journal = Journal(path, bytes_max=100)
    for number in range(30):
        journal.add(f"line {number:04}".encode())
    journal.close()
    assert path.stat().st_size <= 100
    assert path.with_name("j.1").stat().st_size <= 100
    assert path.read_bytes().splitlines()[-1] == b"line 0029"
    assert {line[:4] for line in path.with_name("j.1").read_bytes().splitlines()} == {b"line"}


def test_a_journal_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("")
    (tmp_path / "j").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"):
        Journal(tmp_path / "j", bytes_max=100)
