"""Two answers field by field: what differs, what counts as equal by which rule, and how grave it is."""

from __future__ import annotations

import json
import time
from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from interlock.comparison.answers import FOUND_MAX, Answer, compare_answers, keys_in, unanswered
from interlock.comparison.rules import ReadyRules
from interlock.core.comparison import ComparisonRules, FieldRule, LinearPattern

TODAY = date(2026, 3, 1)
JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}


def _ready(*rules: dict[str, Any], keys: tuple[str, ...] = ()) -> ReadyRules:
    declared = ComparisonRules(rules=tuple(FieldRule.model_validate(rule) for rule in rules), key_fields=keys)
    return ReadyRules(declared, TODAY)


def _differences(
    stable: str, candidate: str, *rules: dict[str, Any], keys: tuple[str, ...] = ()
) -> list[tuple[str, str, str]]:
    found = compare_answers(
        Answer(200, JSON, stable.encode()), Answer(200, JSON, candidate.encode()), _ready(*rules, keys=keys)
    ).found
    return [(each.told().path, each.kind, each.grade) for each in found]


@pytest.mark.parametrize(
    ("stable", "candidate", "found"),
    [
        ('{"a": 1}', '{"a": 1.0}', []),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', []),
        ('{"a": 1}', '{"a": 2}', [("$.a", "changed", "warn")]),
        ('{"a": 1}', "{}", [("$.a", "removed", "block")]),
        ("{}", '{"a": 1}', [("$.a", "added", "warn")]),
        ('{"a": 1}', '{"a": "1"}', [("$.a", "type", "block")]),
        ('{"a": 1}', '{"a": true}', [("$.a", "type", "block")]),
        ('{"a": 1}', '{"a": null}', [("$.a", "type", "block")]),
        ('{"a": null}', '{"a": 1}', [("$.a", "changed", "warn")]),
        ('{"a": {"b": 1}}', '{"a": [1]}', [("$.a", "type", "block")]),
        ('{"a": 0.3}', '{"a": 0.30000000000000004}', [("$.a", "changed", "warn")]),
        ('{"a": 12345678901234567890}', '{"a": 12345678901234567891}', [("$.a", "changed", "warn")]),
        ('{"a": 1e400}', '{"a": 1e401}', [("$.a", "changed", "warn")]),
        ('{"a": 0}', '{"a": -0.0}', []),
        ("[1, 2, 3]", "[1, 2]", [("$[2]", "missing_row", "block")]),
        ("[1, 2]", "[1, 2, 3]", [("$[2]", "added_row", "warn")]),
        ("[1, 2, 3]", "[3, 1, 2]", [("$", "order", "warn")]),
        ("[1, 2]", "[1, 3]", [("$[1]", "changed", "warn")]),
        ('{"a": {"b": {"c": 1}}}', '{"a": {}}', [("$.a.b", "removed", "block")]),
    ],
)  # fmt: skip
def test_without_rules_what_is_gone_blocks_and_what_is_new_warns(stable: str, candidate: str, found: list[Any]) -> None:
    assert _differences(stable, candidate) == found


@pytest.mark.parametrize(
    ("rule", "stable", "candidate", "equal"),
    [
        ({"compare": "absolute", "tolerance": 0.01}, "1.00", "1.01", True),
        ({"compare": "absolute", "tolerance": 0.01}, "1.00", "1.011", False),
        ({"compare": "absolute", "tolerance": 0.01}, '"1.00"', '"1.01"', True),
        ({"compare": "absolute", "tolerance": 1}, '"a"', '"b"', False),
        ({"compare": "relative", "tolerance": 0.1}, "100", "110", True),
        ({"compare": "relative", "tolerance": 0.1}, "110", "100", True),
        ({"compare": "relative", "tolerance": 0.1}, "100", "112", False),
        ({"compare": "decimals", "tolerance": 2}, "0.30000000000000004", "0.3", True),
        ({"compare": "decimals", "tolerance": 2}, "0.304", "0.31", False),
        ({"compare": "decimals", "tolerance": 0}, "1e400", "1e400", True),
        ({"compare": "set"}, "[1, 2, 2]", "[2, 1.0]", True),
        ({"compare": "set"}, "[1, 2]", "[1, 3]", False),
        ({"compare": "multiset"}, '[{"a": 1}, 2, 2]', '[2, {"a": 1.0}, 2]', True),
        ({"compare": "multiset"}, "[1, 2, 2]", "[1, 2]", False),
        ({"compare": "keyed", "key": "id"}, '[{"id": 1}, {"id": 2}]', '[{"id": 2}, {"id": 1}]', True),
        ({"compare": "keyed", "key": "id"}, '[{"id": 1, "p": 2}]', '[{"id": 1, "p": 3}]', False),
        ({"compare": "keyed", "key": "id"}, '[{"id": 1}, {"id": 1}]', '[{"id": 1}]', False),
        ({"compare": "keyed", "key": "id"}, "[3, {}]", "[3, {}]", True),
        ({"compare": "pattern", "pattern": "[0-9a-f]{8}"}, '"0123abcd"', '"ffffffff"', True),
        ({"compare": "pattern", "pattern": "[0-9a-f]{8}"}, '"0123abcd"', '"fffffff"', False),
        ({"compare": "time", "tolerance": 2}, '"2026-03-01T10:00:00Z"', '"2026-03-01T11:00:01+01:00"', True),
        ({"compare": "time", "tolerance": 2}, '"Sun, 01 Mar 2026 10:00:00 GMT"', '"2026-03-01T10:00:02"', True),
        ({"compare": "time", "tolerance": 2}, "1772359200", "1772359202.5", False),
        ({"compare": "time", "tolerance": 2}, '"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"', False),
        ({"compare": "text"}, '" Ab\\nc"', '"aB C "', True),
        ({"compare": "text"}, '"ab"', '"abc"', False),
        ({"grade": "ignore", "reason": "r"}, "1", '"x"', True),
        ({"grade": "ignore", "reason": "r"}, '{"deep": 1}', '{"deep": [2]}', True),
    ],
)
def test_each_comparator_says_what_is_equal(rule: dict[str, Any], stable: str, candidate: str, equal: bool) -> None:  # noqa: FBT001
    found = _differences(f'{{"a": {stable}}}', f'{{"a": {candidate}}}', {"path": "$.a", **rule})
    assert (found == []) is equal


def test_missing_is_null_lets_an_absent_field_be_null_and_nothing_else() -> None:
    rule = {"path": "$.a", "compare": "missing_is_null"}
    assert _differences('{"a": null}', "{}", rule) == []
    assert _differences("{}", '{"a": null}', rule) == []
    assert _differences('{"a": 1}', "{}", rule) == [("$.a", "removed", "block")]


def test_the_last_rule_that_fits_counts() -> None:
    rules = ({"path": "$.**", "grade": "ignore", "reason": "young"}, {"path": "$.total", "grade": "block"})
    assert _differences('{"a": 1, "total": 1}', '{"a": 2, "total": 2}', *rules) == [("$.total", "changed", "block")]
    assert _differences('{"a": 1, "total": 1}', '{"a": 2, "total": 2}', *reversed(rules)) == []


def test_a_key_field_blocks_unless_a_rule_names_something_in_it_more_closely() -> None:
    stable, candidate = '{"o": {"id": 1, "at": 1}}', '{"o": {"id": 2, "at": 2}}'
    everything = {"path": "$.**", "grade": "ignore", "reason": "young"}
    assert _differences(stable, candidate, everything, keys=("$.o",)) == [
        ("$.o.id", "changed", "block"),
        ("$.o.at", "changed", "block"),
    ]
    closer = {"path": "$.o.at", "grade": "ignore", "reason": "a clock"}
    assert _differences(stable, candidate, everything, closer, keys=("$.o",)) == [("$.o.id", "changed", "block")]


def test_what_holds_a_key_field_counts_for_it_as_well() -> None:
    rules = _ready({"path": "$.o", "grade": "warn"}, keys=("$.o.id", "$.o", "$.o.items[*].price", "$.**.deep"))
    gone = compare_answers(Answer(200, JSON, b'{"o": {"id": 1}}'), Answer(200, JSON, b"{}"), rules)
    assert [(each.grade, each.way.keys) for each in gone.found] == [("block", (1, 0, 2))]
    inside = compare_answers(
        Answer(200, JSON, b'{"o": {"id": 1, "items": [{"price": 1}]}}'),
        Answer(200, JSON, b'{"o": {"id": 1, "items": []}}'),
        rules,
    )
    assert [(each.field, each.way.keys) for each in inside.found] == [("$.o.items[*]", (1, 2))]
    nothing = unanswered(Answer(200, JSON, b'{"o": {"id": 1}}'), "no answer in time", rules)
    assert [(each.grade, set(each.way.keys)) for each in nothing.found] == [("block", {0, 1})]


def test_an_expired_rule_no_longer_counts_and_is_told() -> None:
    rule = {"path": "$.a", "grade": "ignore", "reason": "until the move", "expires": TODAY.isoformat()}
    assert _differences('{"a": 1}', '{"a": 2}', rule) == [("$.a", "changed", "warn")]
    assert [each.path for each in _ready(rule).expired] == ["$.a"]
    assert _ready({**rule, "expires": "2026-03-02"}).expired == ()


def test_rules_for_elements_and_for_names_like_identifiers_tell_them_apart() -> None:
    rule = {"path": "$.years.2026", "grade": "ignore", "reason": "runs"}
    stable, candidate = '{"years": {"2025": 1, "2026": 1}}', '{"years": {"2025": 2, "2026": 2}}'
    assert _differences(stable, candidate, rule) == [("$.years.2025", "changed", "warn")]


def test_status_and_content_type_count_and_other_headers_when_a_rule_names_them() -> None:
    one = Answer(200, {**JSON, "etag": "1", "date": "x"}, b"{}")
    other = Answer(500, {"content-type": "text/html; charset=utf-8", "etag": "2", "date": "y"}, b"{}")
    found = compare_answers(one, other, _ready())
    assert [(each.field, each.grade) for each in found.found] == [
        ("$status", "block"),
        ("$header.content-type", "block"),
    ]
    found = compare_answers(one, other, _ready({"path": "$header.etag", "grade": "warn"}))
    assert ("$header.etag", "warn") in [(each.field, each.grade) for each in found.found]
    same = Answer(200, {"content-type": "Application/JSON"}, b"{}")
    assert compare_answers(one, same, _ready()).found == ()


@pytest.mark.parametrize(
    ("stable", "candidate", "kind"),
    [
        (b'{"a": 1}', b"<html>", "type"),
        (b'{"a": 1}', b'{"a": 1', "type"),
        (b'{"a": 1}', b"", "removed"),
        (b"", b'{"a": 1}', "added"),
        (b"one\ntwo", b"one\nthree", "changed"),
        (b"\xff\x00", b"\xff\x01", "changed"),
        (b"[" * 100_000, b"[" * 100_001, "changed"),
    ],
)
def test_bodies_that_are_no_json_are_compared_as_a_whole(stable: bytes, candidate: bytes, kind: str) -> None:
    (found,) = compare_answers(Answer(200, JSON, stable), Answer(200, JSON, candidate), _ready()).found
    assert found.kind == kind


def test_the_first_line_that_differs_is_told() -> None:
    (found,) = compare_answers(Answer(200, TEXT, b"a\nb\nc"), Answer(200, TEXT, b"a\nx\nc"), _ready()).found
    assert (found.told().stable, found.told().candidate) == ("line 2: b", "line 2: x")


def test_a_body_that_was_cut_is_not_equal_to_one_that_ended_there() -> None:
    whole, cut = Answer(200, TEXT, b"ab"), Answer(200, TEXT, b"ab", is_cut=True)
    assert compare_answers(whole, cut, _ready()).found
    assert not compare_answers(cut, Answer(200, TEXT, b"ab", is_cut=True), _ready()).found


def test_differences_fields_depth_and_values_are_bounded() -> None:
    many = [json.dumps({f"n{i}": value for i in range(1000)}) for value in (1, 2)]
    found = compare_answers(Answer(200, JSON, many[0].encode()), Answer(200, JSON, many[1].encode()), _ready())
    assert (len(found.found), found.more) == (FOUND_MAX, 1000 - FOUND_MAX)
    deep = ["[" * 500 + inner + "]" * 500 for inner in ("1", "2")]
    assert len(_differences(*deep)) == 1
    (long,) = compare_answers(
        Answer(200, JSON, json.dumps({"a": "x" * 10_000}).encode()), Answer(200, JSON, b'{"a": "y"}'), _ready()
    ).found
    assert len(str(long.told().stable)) < 300


def test_many_small_differences_hide_no_grave_one() -> None:
    stable = json.dumps({"rows": [{"at": i} for i in range(1000)], "total": 1})
    candidate = json.dumps({"rows": [{"at": -i - 1} for i in range(1000)]})
    assert ("$.total", "removed", "block") in _differences(stable, candidate)


def test_a_hostile_pair_takes_no_long_time() -> None:
    """Two megabytes of elements that all differ, and nests of lists in another order."""
    begun = time.perf_counter()
    _differences(json.dumps([0] * 300_000), json.dumps([1] * 300_000))
    nest: Any = [[i, -i] for i in range(20_000)]
    for _ in range(60):
        nest = [nest, 1]
    text = json.dumps(nest)
    _differences(text, text.replace("[1, -1]", "[-1, 1]").replace("[7, -7]", "[-7, 7]"))
    assert time.perf_counter() - begun < 10


def test_ndjson_is_compared_line_by_line() -> None:
    kind = {"content-type": "application/x-ndjson"}
    (found,) = compare_answers(
        Answer(200, kind, b'{"a": 1}\n{"a": 2}\n'), Answer(200, kind, b'{"a": 1}\n{"a": 3}'), _ready()
    ).found
    assert found.told().path == "$[1].a"


def test_a_key_field_is_counted_where_the_answer_has_it() -> None:
    rules = _ready(keys=("$.total", "$.items[*].id", "$status", "$header.etag", "$.**.deep"))
    assert keys_in(Answer(200, JSON, b'{"total": 1, "items": []}'), rules) == {0, 2}
    assert keys_in(Answer(200, {**JSON, "etag": "1"}, b'{"items": [{"id": 1}], "a": [{"deep": null}]}'), rules) == {
        1,
        2,
        3,
        4,
    }


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(", "a)|(b", "(a{1000}){1000}"])
def test_a_pattern_that_no_linear_engine_knows_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="linear"):
        FieldRule(path="$.a", compare="pattern", pattern=pattern)


def test_a_pattern_takes_linear_time() -> None:
    begun = time.perf_counter()
    assert not LinearPattern("(a+)+b").fits("a" * 60_000)
    assert time.perf_counter() - begun < 1
    assert not LinearPattern("a*").fits("a" * 70_000)
    assert not LinearPattern("a").fits("a\n")


@pytest.mark.parametrize(
    "rule",
    [
        {"path": "$.a..b"},
        {"path": "$.a", "compare": "absolute"},
        {"path": "$.a", "compare": "decimals", "tolerance": 1.5},
        {"path": "$.a", "compare": "keyed"},
        {"path": "$.a", "grade": "ignore"},
    ],
)
def test_a_rule_that_cannot_be_followed_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FieldRule.model_validate(rule)
