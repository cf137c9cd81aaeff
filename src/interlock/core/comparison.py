"""Which differences between two versions' answers count, and how much: rules as declared, differences as found."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from interlock.core.model import Frozen

Grade = Literal["block", "warn", "ignore"]
Kind = Literal["changed", "added", "removed", "type", "status", "order", "missing_row", "added_row"]
Comparator = Literal[
    "exact",
    "absolute",
    "relative",
    "decimals",
    "set",
    "multiset",
    "keyed",
    "pattern",
    "time",
    "missing_is_null",
    "text",
]
"""exact: equal. absolute, relative: numbers within `tolerance`. decimals: equal after rounding to `tolerance` places.
set, multiset: lists without order. keyed: lists of objects matched by `key`. pattern: both match the regular expression
`pattern`. time: moments within `tolerance` seconds. missing_is_null: a missing field equals null. text: case and white
space do not count."""

FieldPath = Annotated[str, Field(pattern=r"^(\$|\*|[^\s$].{0,499})$")]
"""`$.items[*].price` with `*` for any one part and `**` for any number of them; a column's name for tables."""


class FieldRule(Frozen):
    """How one field, or all that a path with stars names, is compared and graded; the last rule that fits counts."""

    path: FieldPath
    """Which fields: $.items[*].price, $.**.updated_at, or a column's name."""
    compare: Comparator = "exact"
    """What counts as equal."""
    tolerance: float | None = Field(default=None, ge=0)
    """How far apart, for absolute, relative, decimals and time."""
    key: str | None = Field(default=None, max_length=200)
    """By which field rows of a list are matched, for keyed."""
    pattern: str | None = Field(default=None, max_length=500)
    """What both must match, for pattern."""
    grade: Grade = "block"
    """block: it stops a release. warn: it is shown. ignore: it is not counted."""
    budget_percent: float = Field(default=0.0, ge=0, le=100)
    """Which part of the compared answers may differ here before the grade counts."""
    reason: str | None = Field(default=None, max_length=500)
    """Why; required for what is ignored."""
    expires: date | None = None
    """From this day on the rule no longer counts, and says so."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.compare in {"absolute", "relative", "decimals", "time"} and self.tolerance is None:
            msg = f"`compare: {self.compare}` needs a `tolerance`"
            raise ValueError(msg)
        if self.compare == "keyed" and self.key is None:
            msg = "`compare: keyed` needs a `key`"
            raise ValueError(msg)
        if self.compare == "pattern" and self.pattern is None:
            msg = "`compare: pattern` needs a `pattern`"
            raise ValueError(msg)
        if self.grade == "ignore" and self.reason is None:
            msg = "say with `reason` why these differences are ignored"
            raise ValueError(msg)
        return self


class ComparisonRules(Frozen):
    """Which differences count. Without rules a removed field, another type, another status and a key field that
    differs block; an added field and any other difference warn."""

    rules: tuple[FieldRule, ...] = Field(default=(), max_length=500)
    """Later ones win."""
    key_fields: tuple[FieldPath, ...] = Field(default=(), max_length=50)
    """The fields that matter most: a difference blocks, and agreement is counted for each of them."""
    keys: tuple[str, ...] = Field(default=(), max_length=20)
    """For tables: the columns whose values together name a row."""
    control_totals: tuple[str, ...] = Field(default=(), max_length=50)
    """For tables: number columns whose sums must be equal, exactly."""
    agreement_percent: float = Field(default=99.0, gt=0, le=100)
    """Which part of the compared answers must agree in their key fields: shown by a lower bound, not by a point."""
    confidence_percent: float = Field(default=99.0, gt=50, lt=100)
    """Of that bound."""


class Difference(Frozen):
    """One field that differs between the stable version's answer and the candidate's."""

    path: str
    kind: Kind
    stable: JsonValue
    candidate: JsonValue
    grade: Grade
    reason: str | None = None
    """The rule's, or what the default says."""
