"""What of a table comparison stops a release and what is only told, as sentences.

They hold counts and sums, and no key and no cell of any row: they are recorded where rows are not.
"""

from __future__ import annotations

from interlock.comparison.rules import GRADE_WITHOUT_RULE, ReadyRules
from interlock.comparison.table_model import TableComparison
from interlock.core.comparison import Grade


class _Said:
    """Sentences by grade."""

    def __init__(self) -> None:
        self.of: dict[Grade, list[str]] = {"block": [], "warn": [], "ignore": []}

    def say(self, grade: Grade, sentence: str) -> None:
        self.of[grade].append(sentence)


def conclude(found: TableComparison, rules: ReadyRules) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sentences that block, and those that warn."""
    said = _Said()
    for rule in rules.expired:
        said.say("warn", f"the rule for {rule.path} expired on {rule.expires} and no longer counts")
    for difference in found.schema_differences:
        said.say(difference.grade, f"{difference.path}: {difference.reason}")
    _rows(found, rules, said)
    for column in found.columns:
        if column.counts:
            sentence = f"{column.name} differs in {column.beyond} of {found.rows.paired} rows ({column.reason})"
            if column.is_noise:
                sentence += f"; the stable version differs from itself in {column.noise}"
            said.say("block" if column.blocks else "warn", sentence)
    for total in found.totals:
        if not total.equal:
            said.say("block", _total(total.column, total.stable, total.candidate, total.trouble))
    return tuple(said.of["block"]), tuple(said.of["warn"])


def _rows(found: TableComparison, rules: ReadyRules, said: _Said) -> None:
    rows, keys = found.rows, ", ".join(found.keys)
    if found.keys_guessed:
        said.say("warn", f"rows are paired by {keys}, which was guessed: declare it under `keys`")
    if not found.keys:
        said.say("warn", "no column names each row: rows were held against each other as a whole; declare `keys`")
    if rows.missing:
        said.say(GRADE_WITHOUT_RULE["missing_row"][0], f"{rows.missing} rows are missing")
    if rows.added:
        # Where totals are declared the number of rows is one of them.
        counted = rules.declared.control_totals and rows.stable != rows.candidate
        grade: Grade = "block" if counted else GRADE_WITHOUT_RULE["added_row"][0]
        said.say(grade, f"{rows.added} rows are new")
    if rows.repeated_candidate or rows.repeated_stable:
        where = f"{rows.repeated_stable} rows of the stable version, {rows.repeated_candidate} of the candidate"
        sentence = f"keys occur twice, and these rows were not compared: {where}"
        said.say("block", sentence)
    if rows.without_key_stable or rows.without_key_candidate:
        where = f"{rows.without_key_stable} of the stable version, {rows.without_key_candidate} of the candidate"
        said.say("block", f"rows without a key were not compared: {where}")


def _total(column: str, stable: str | None, candidate: str | None, trouble: str | None) -> str:
    if trouble is not None:
        return f"the control total of {column} cannot be had: {trouble}"
    if stable == candidate:
        return f"the control total of {column} leaves out cells that are no numbers, and not the same number of them"
    return f"the control total of {column} is {candidate}, and {stable} in the stable version"
