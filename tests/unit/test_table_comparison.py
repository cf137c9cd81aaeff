"""Two tables are paired by key and compared as text: every difference is found, named, graded by rule, and counted."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import duckdb
import pytest

from interlock.comparison.table_differences import spreadsheet_text
from interlock.comparison.table_model import ColumnResult, TableComparison, TableKind
from interlock.comparison.tables import TableLimits, compare_tables
from interlock.core.comparison import ComparisonRules, FieldRule
from interlock.core.errors import Invalid, Transient

TODAY = date(2026, 3, 1)
HEADER = ("id", "amount", "name")
ROWS = (("1", "10.00", "Ann"), ("2", "0.10", "Bob"), ("3", "7.50", "Cem"))


def written(path: Path, rows: Iterable[Sequence[object]], header: Sequence[str] = HEADER, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


class Tables:
    """Writes the two tables and compares them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def compare(
        self,
        stable: Path,
        candidate: Path,
        rules: ComparisonRules | None = None,
        kind: TableKind = "csv",
        limits: TableLimits | None = None,
    ) -> TableComparison:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return compare_tables(
            stable,
            candidate,
            kind,
            rules or ComparisonRules(keys=("id",)),
            folder=work,
            today=TODAY,
            limits=limits or TableLimits(),
            differences=self.folder / "differences.csv",
        )

    def csv(
        self,
        stable: Iterable[Sequence[object]],
        candidate: Iterable[Sequence[object]],
        rules: ComparisonRules | None = None,
        header: Sequence[str] = HEADER,
        other_header: Sequence[str] | None = None,
    ) -> TableComparison:
        one = written(self.folder / "v1.csv", stable, header)
        other = written(self.folder / "v2.csv", candidate, other_header or header)
        return self.compare(one, other, rules)

    def rule(self, one: str, other: str, rule: FieldRule) -> ColumnResult:
        """What one rule says of one cell that differs."""
        found = self.csv([("1", one, "")], [("1", other, "")], ComparisonRules(keys=("id",), rules=(rule,)))
        return next(each for each in found.columns if each.name == "amount")


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def test_the_same_rows_in_another_order_are_identical(tables: Tables) -> None:
    found = tables.csv(ROWS, ROWS[::-1])
    assert (found.rows.identical, found.rows.changed, found.blocks, found.warns) == (3, 0, (), ())


def test_a_wrong_column_is_named_with_examples(tables: Tables) -> None:
    rules = ComparisonRules(keys=("id",), key_fields=("amount",))
    found = tables.csv(ROWS, [ROWS[0], ("2", "0.20", "Bob"), ROWS[2]], rules)
    assert found.differing_columns == ("amount",)
    assert found.blocks == ("amount differs in 1 of 3 rows (it is a key field)",)
    column = next(each for each in found.columns if each.name == "amount")
    assert [(one.key, one.stable, one.candidate) for one in column.examples] == [(("2",), "0.10", "0.20")]
    assert (tables.folder / "differences.csv").read_text().splitlines()[1] == "2,changed,amount,0.10,0.20,block"


def test_a_column_that_no_rule_names_only_warns(tables: Tables) -> None:
    found = tables.csv(ROWS, [*ROWS[:2], ("3", "7.50", "Cemal")])
    assert (found.blocks, found.warns) == (
        (),
        ("name differs in 1 of 3 rows (the value is another, and no rule speaks of it)",),
    )


def test_rows_that_are_gone_block_and_new_ones_warn(tables: Tables) -> None:
    found = tables.csv(ROWS, [*ROWS[:2], ("4", "1", "Dee")])
    assert (found.rows.missing, found.rows.added) == (1, 1)
    assert (found.missing_examples, found.added_examples) == ((("3",),), (("4",),))
    assert found.blocks == ("1 rows are missing",)
    assert found.warns == ("1 rows are new",)


def test_a_new_row_blocks_where_totals_are_declared(tables: Tables) -> None:
    found = tables.csv(ROWS, [*ROWS, ("4", "0", "Dee")], ComparisonRules(keys=("id",), control_totals=("amount",)))
    assert found.blocks == ("1 rows are new",)
    assert found.totals[0].equal


@pytest.mark.parametrize("side", ["stable", "candidate", "both"])
def test_a_key_that_occurs_twice_is_said_and_never_paired(tables: Tables, side: str) -> None:
    twice = [*ROWS, ("2", "5", "Bobby")]
    found = tables.csv(ROWS if side == "candidate" else twice, ROWS if side == "stable" else twice)
    assert found.rows.repeated_stable == (1 if side == "candidate" else 2)
    assert found.rows.repeated_candidate == (1 if side == "stable" else 2)
    assert (found.rows.identical, found.rows.missing, found.rows.added) == (2, 0, 0)
    assert found.blocks[0].startswith("keys occur twice")
    assert found.repeated_examples == (("2",),)


def test_new_rows_with_one_key_are_repeated_and_not_new(tables: Tables) -> None:
    found = tables.csv(ROWS, [*ROWS, ("9", "1", "x"), ("9", "2", "y")])
    assert (found.rows.repeated_candidate, found.rows.added, found.rows.identical) == (2, 0, 3)


def test_a_key_in_every_row_is_no_reason_to_join_all_with_all(tables: Tables) -> None:
    rows = [("1", str(number), "x") for number in range(20_000)]
    found = tables.csv(rows, rows)
    assert (found.rows.repeated_stable, found.rows.repeated_candidate) == (20_000, 20_000)


def test_several_columns_name_a_row_together(tables: Tables) -> None:
    rows = [("a", "1", "x"), ("a", "2", "y"), ("b", "1", "z")]
    found = tables.csv(rows, [*rows[:2], ("b", "1", "other")], ComparisonRules(keys=("id", "amount")))
    assert (found.rows.identical, found.rows.changed) == (2, 1)
    assert found.columns[0].examples[0].key == ("b", "1")


def test_without_keys_one_is_guessed_and_said(tables: Tables) -> None:
    found = tables.csv(ROWS, [*ROWS[:2], ("3", "9", "Cem")], ComparisonRules())
    assert (found.keys, found.keys_guessed, found.rows.changed) == (("id",), True, 1)
    assert "which was guessed" in found.warns[0]


def test_where_no_column_names_rows_they_are_held_against_each_other_as_a_whole(tables: Tables) -> None:
    rows = [("1", "1", "x"), ("1", "1", "x"), ("2", "1", "x")]
    found = tables.csv(rows, [rows[0], rows[2], ("2", "2", "y")], ComparisonRules())
    assert (found.keys, found.rows.identical, found.rows.missing, found.rows.added) == ((), 2, 1, 1)


def test_a_column_that_is_gone_blocks_and_a_new_one_warns(tables: Tables) -> None:
    found = tables.csv(ROWS, [(one, other, "x") for one, other, _ in ROWS], other_header=("id", "amount", "note"))
    assert found.blocks == ("name: the column is gone",)
    assert found.warns == ("note: the column is new",)


def test_a_key_column_that_is_gone_blocks_and_leaves_whole_rows(tables: Tables) -> None:
    found = tables.csv(ROWS, ROWS, other_header=("number", "amount", "name"))
    assert "id: the column is gone" in found.blocks
    assert found.keys == ()


def test_a_key_that_the_stable_table_lacks_is_the_rules_fault(tables: Tables) -> None:
    with pytest.raises(Invalid, match="'number' is no column"):
        tables.csv(ROWS, ROWS, ComparisonRules(keys=("number",)))


@pytest.mark.parametrize(
    ("one", "other", "rule", "equal"),
    [
        ("0.10", "0.1", {"compare": "exact"}, False),
        ("0.10", "0.1", {"compare": "decimals", "tolerance": 2}, True),
        ("0.104", "0.1", {"compare": "decimals", "tolerance": 2}, True),
        ("0.105", "0.1", {"compare": "decimals", "tolerance": 2}, True),  # half to even
        ("0.115", "0.11", {"compare": "decimals", "tolerance": 2}, False),
        ("100.00", "100.01", {"compare": "absolute", "tolerance": 0.01}, True),
        ("100.00", "100.011", {"compare": "absolute", "tolerance": 0.01}, False),
        ("9999999999999999.99", "9999999999999999.98", {"compare": "absolute", "tolerance": 0.001}, False),
        ("100", "101", {"compare": "relative", "tolerance": 0.01}, True),
        ("100", "102", {"compare": "relative", "tolerance": 0.01}, False),
        ("n/a", "1", {"compare": "absolute", "tolerance": 5}, False),
        ("2026-01-01T00:00:00Z", "2026-01-01T01:00:01+01:00", {"compare": "time", "tolerance": 1}, True),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z", {"compare": "time", "tolerance": 1}, False),
        ("1767225600", "2026-01-01 00:00:00", {"compare": "time", "tolerance": 0}, True),
        ("RUN-12", "RUN-7", {"compare": "pattern", "pattern": "RUN-[0-9]+"}, True),
        ("RUN-12", "RUN-x", {"compare": "pattern", "pattern": "RUN-[0-9]+"}, False),
        ("it's", "it is", {"compare": "pattern", "pattern": "it'?.*s"}, True),
        ("Ann  Lee", " ann lee", {"compare": "text"}, True),
        ("", "null", {"compare": "missing_is_null"}, True),
        ("[1,2,2]", "[2,1]", {"compare": "set"}, True),
        ("[1,2,2]", "[2,1]", {"compare": "multiset"}, False),
        ("[1,2,2]", "[2,1,2]", {"compare": "multiset"}, True),
        ("[1", "[2", {"compare": "set"}, False),
    ],
)
def test_a_rule_decides_what_counts_as_equal(
    tables: Tables, one: str, other: str, rule: dict[str, object], *, equal: bool
) -> None:
    found = tables.rule(one, other, FieldRule.model_validate({"path": "amount", **rule}))
    assert (found.different, found.beyond) == (1, 0 if equal else 1)


def test_what_is_ignored_is_not_looked_at(tables: Tables) -> None:
    rule = FieldRule(path="na*", grade="ignore", reason="made up")
    found = tables.csv(
        ROWS, [(one, other, "?") for one, other, _ in ROWS], ComparisonRules(keys=("id",), rules=(rule,))
    )
    assert (found.rows.identical, [each.name for each in found.columns]) == (3, ["amount"])


def test_an_expired_rule_no_longer_counts_and_is_said(tables: Tables) -> None:
    rule = FieldRule(path="name", grade="ignore", reason="made up", expires=TODAY)
    found = tables.csv(
        ROWS, [(one, other, "?") for one, other, _ in ROWS], ComparisonRules(keys=("id",), rules=(rule,))
    )
    assert found.rows.changed == 3
    assert found.warns[0] == "the rule for name expired on 2026-03-01 and no longer counts"


def test_few_differences_within_the_budget_do_not_count(tables: Tables) -> None:
    rows = [(str(number), "1", "x") for number in range(100)]
    rule = FieldRule(path="amount", budget_percent=1)
    rules = ComparisonRules(keys=("id",), rules=(rule,))
    assert tables.csv(rows, [("0", "2", "x"), *rows[1:]], rules).blocks == ()
    assert tables.csv(rows, [("0", "2", "x"), ("1", "2", "x"), *rows[2:]], rules).blocks != ()


def test_agreement_is_a_lower_bound_that_grows_with_rows(tables: Tables) -> None:
    rules = ComparisonRules(keys=("id",), key_fields=("amount",))
    few = [(str(number), "1", "x") for number in range(100)]
    many = [(str(number), "1", "x") for number in range(460)]
    assert (tables.csv(few, few, rules).agreement_bound or 0) < 0.99
    assert (tables.csv(many, many, rules).agreement_bound or 0) >= 0.99


def test_control_totals_are_exact(tables: Tables) -> None:
    rows = [(str(number), "0.1", "x") for number in range(10)]
    rules = ComparisonRules(keys=("id",), control_totals=("amount",))
    total = tables.csv(rows, [*rows[1:], ("0", "0.10", "x")], rules).totals[0]
    assert (total.stable, total.candidate, total.equal) == ("1", "1", True)
    found = tables.csv(rows, [*rows[1:], ("0", "0.1000000000000001", "x")], rules)
    assert found.totals[0].candidate == "1.0000000000000001"
    assert found.blocks == ("the control total of amount is 1.0000000000000001, and 1 in the stable version",)


@pytest.mark.parametrize("value", ["n/a", "1e400", "0x10"])
def test_a_cell_that_is_no_plain_number_leaves_no_total_unsaid(tables: Tables, value: str) -> None:
    rules = ComparisonRules(keys=("id",), control_totals=("amount",))
    found = tables.csv(ROWS, [*ROWS[:2], ("3", value, "Cem")], rules)
    assert found.totals[0].unreadable_candidate == 1
    assert not found.totals[0].equal


def test_a_sum_that_is_too_large_is_said(tables: Tables) -> None:
    rows = [(str(number), "9" * 38, "x") for number in range(3)]
    found = tables.csv(rows, rows, ComparisonRules(keys=("id",), control_totals=("amount",)))
    assert found.blocks == ("the control total of amount cannot be had: the sum has more than 38 digits",)


def test_text_between_quotes_may_hold_anything(tables: Tables) -> None:
    hostile = [("1", 'a"b,c\r\nd', "'; DROP TABLE s; --"), ("2", "=cmd|' /C calc'!A0", "x\0y".replace("\0", ""))]
    found = tables.csv(hostile, hostile)
    assert found.rows.identical == 2
    changed = tables.csv(hostile, [hostile[0], ("2", "@SUM(A1)", "x")], ComparisonRules(keys=("id",)))
    assert changed.rows.changed == 1
    assert "'@SUM(A1)" in (tables.folder / "differences.csv").read_text()


def test_a_column_may_be_called_anything(tables: Tables) -> None:
    header = ("id", "a\"); ATTACH 'x' AS y; --", "c1")
    found = tables.csv(ROWS, [("1", "x", "Ann"), *ROWS[1:]], header=header)
    assert found.differing_columns == (header[1],)


@pytest.mark.parametrize("name", ["glob*[a]?.csv", "quote'.csv", "-dash.csv", "空.csv"])
def test_a_file_may_be_called_anything(tables: Tables, name: str) -> None:
    one = written(tables.folder / name, ROWS)
    assert tables.compare(one, one).rows.identical == 3


def test_spreadsheets_do_not_compute_what_a_cell_says() -> None:
    assert spreadsheet_text("=1+1") == "'=1+1"
    assert spreadsheet_text("-12.5") == "-12.5"
    assert spreadsheet_text("-12+cmd") == "'-12+cmd"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"id,amount\n1,2\n3\n", "Line: 3"),
        (b"id,amount\n1,\xff\n", "not utf-8"),
        (b"id,id\n1,2\n", "two columns are called 'id'"),
        (b'id,amount\n1,"a"b\n', "quote"),
        (b"", "0 columns"),
    ],
)
def test_what_is_no_table_is_said_with_its_line(tables: Tables, text: bytes, why: str) -> None:
    one = written(tables.folder / "v1.csv", ROWS, HEADER)
    other = tables.folder / "v2.csv"
    other.write_bytes(text)
    with pytest.raises(Invalid, match=why) as raised:
        tables.compare(one, other)
    assert raised.value.code == "comparison.unreadable"
    assert raised.value.message.startswith("v2.csv")


def test_a_link_is_not_followed(tables: Tables) -> None:
    one = written(tables.folder / "v1.csv", ROWS)
    link = tables.folder / "v2.csv"
    link.symlink_to(one)
    with pytest.raises(Invalid, match="no plain file"):
        tables.compare(one, link)


def test_semicolons_and_a_byte_order_mark_are_read_and_another_delimiter_blocks(tables: Tables) -> None:
    one = written(tables.folder / "v1.csv", ROWS, delimiter=";")
    one.write_bytes(b"\xef\xbb\xbf" + one.read_bytes())
    assert tables.compare(one, one).rows.identical == 3
    found = tables.compare(one, written(tables.folder / "v2.csv", ROWS))
    assert found.blocks == ("(delimiter): values are separated otherwise",)
    assert found.rows.identical == 3


def jsonl(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_json_lines_are_compared_by_value_and_kind(tables: Tables) -> None:
    one = jsonl(tables.folder / "v1.ndjson", ['{"id":"a","n":1.0,"t":"x"}\n', '{"id":"b","n":0.1,"t":null}\n'])
    other = jsonl(tables.folder / "v2.ndjson", ['{"t":"x","n":1,"id":"a"}\n', '{"id":"b","n":"0.1","t":null}\n'])
    found = tables.compare(one, other, kind="ndjson")
    assert (found.rows.excused, found.rows.changed) == (1, 1)
    column = next(each for each in found.columns if each.name == "n")
    assert (column.types_changed, column.grade) == (1, "block")


def test_numbers_of_json_are_not_made_doubles(tables: Tables) -> None:
    one = jsonl(tables.folder / "v1.ndjson", ['{"id":1,"n":9007199254740993}\n'])
    other = jsonl(tables.folder / "v2.ndjson", ['{"id":1,"n":9007199254740992}\n'])
    assert tables.compare(one, other, kind="ndjson").rows.changed == 1


def test_a_field_that_is_gone_from_json_rows_blocks(tables: Tables) -> None:
    one = jsonl(tables.folder / "v1.ndjson", [{"id": 1, "t": "x"}, {"id": 2, "t": "y"}])
    other = jsonl(tables.folder / "v2.ndjson", [{"id": 1, "t": "x"}, {"id": 2}])
    found = tables.compare(one, other, kind="ndjson")
    assert found.blocks == ("t differs in 1 of 2 rows (what users of the answer rely on is gone)",)


def test_a_json_array_is_a_table(tables: Tables) -> None:
    rows = [{"id": number, "deep": {"b": [1, {"a": number}], "a": "x" * 1000}} for number in range(3000)]
    one, other = tables.folder / "v1.json", tables.folder / "v2.json"
    one.write_text(json.dumps(rows))
    rows[1717]["deep"]["b"][1]["a"] = -1  # type: ignore[index]
    other.write_text(json.dumps(rows[::-1], indent=1))
    found = tables.compare(one, other, kind="json")
    assert (found.rows.identical, found.rows.changed) == (2999, 1)
    assert found.columns[0].examples[0].key == ("1717",)


@pytest.mark.parametrize(
    "text", ["{}", "[1]", '[{"a":1}', '[{"a":1}]x', '[{"a":1 "b":2}]', "[" * 100_000, '[{"a":NaN}]']
)
def test_what_is_no_array_of_objects_is_said(tables: Tables, text: str) -> None:
    one, other = tables.folder / "v1.json", tables.folder / "v2.json"
    one.write_text('[{"a":1}]')
    other.write_text(text)
    with pytest.raises(Invalid) as raised:
        tables.compare(one, other, ComparisonRules(keys=("a",)), kind="json")
    assert raised.value.code == "comparison.unreadable"


def test_parquet_keeps_its_types(tables: Tables) -> None:
    one, other = tables.folder / "v1.parquet", tables.folder / "v2.parquet"
    with duckdb.connect() as made:
        sql = 'COPY (SELECT range AS id, (range / 4)::{} AS "n""q" FROM range(100)) TO \'{}\''
        made.execute(sql.format("DECIMAL(12,2)", one))
        made.execute(sql.format("DOUBLE", other))
    found = tables.compare(one, other, kind="parquet")
    assert found.blocks[0] == 'n"q: the column is of another type: DOUBLE, was DECIMAL(12,2)'
    assert tables.compare(one, one, kind="parquet").rows.identical == 100


def test_tables_larger_than_the_memory_allowed_go_to_disk(tables: Tables) -> None:
    rows = [(f"{number:06}", f"{number * 7919}.{number % 100:02}", "text " * 40) for number in range(60_000)]
    other = [(key, amount, f"{name}!") for key, amount, name in reversed(rows)]
    limits = TableLimits(memory_bytes=64 * 1024 * 1024)
    one = written(tables.folder / "v1.csv", rows)
    found = tables.compare(one, written(tables.folder / "v2.csv", other), limits=limits)
    assert found.rows.changed == 60_000


def test_columns_that_differ_everywhere_hide_no_rare_difference_beside_them(tables: Tables) -> None:
    rows = [(f"{number:05}", "1.00", f"at {number}") for number in range(5000)]
    other = [(key, "1.01" if key == "04711" else amount, f"{name} UTC") for key, amount, name in reversed(rows)]
    rules = ComparisonRules(keys=("id",), key_fields=("amount",))
    found = tables.csv(rows, other[:-1], rules)
    assert (found.rows.changed, found.rows.missing, found.disagreeing) == (4999, 1, 1)
    amount, name = found.columns
    assert (amount.beyond, name.beyond) == (1, 4999)
    assert amount.examples[0].key == ("04711",)


def test_when_the_disk_is_not_enough_that_is_said(tables: Tables) -> None:
    rows = [(f"{number:06}", "1", "text " * 40) for number in range(60_000)]
    one = written(tables.folder / "v1.csv", rows)
    other = written(tables.folder / "v2.csv", [(key, "2", f"{name}!") for key, _, name in rows])
    with pytest.raises(Transient, match="too large"):
        tables.compare(one, other, limits=TableLimits(memory_bytes=24 * 1024 * 1024, temporary_bytes=1024 * 1024))


def test_every_single_changed_character_is_found(tables: Tables) -> None:
    """One character in one column of each row, another place in each: none hides behind a hash."""
    header = [f"c{number}" for number in range(20)]
    rows = [[f"{number:05}", *(f"v{number}-{column}" for column in range(19))] for number in range(5000)]
    other = [list(row) for row in rows]
    for number, row in enumerate(other):
        column = 1 + number % 19
        row[column] = row[column][:-1] + ("x" if row[column][-1] != "x" else "y")
    found = tables.csv(rows, other, ComparisonRules(keys=("c0",)), header=header)
    assert found.rows.changed == 5000
    assert sum(each.beyond for each in found.columns) == 5000
