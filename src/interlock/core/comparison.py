"""Which differences between two versions' answers count, and how much: rules as declared, differences as found."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, model_validator
from pydantic_core import SchemaError, SchemaValidator, core_schema

from interlock.core.model import Frozen
from interlock.lib.canonical import digest_of
from interlock.lib.field_path import FieldPattern

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

PATTERN_SUBJECT_CHARACTERS_MAX = 65_536


def _field_path(text: str) -> str:
    FieldPattern.parse(text)
    return text


FieldPath = Annotated[str, Field(max_length=500), AfterValidator(_field_path)]
"""`$.items[*].price` with `*` for any one part and `**` for any number of them; `$status`, `$header.etag`, `$body` (an
answer that is no JSON, as a whole); a column's name for tables, where `*` stands for any letters."""


class LinearPattern:
    """A regular expression that a whole text must match, tried in time linear in the text whatever it is.

    The engine is the one of Rust that pydantic brings along: finite automata, no backtracking, a bound on the size of
    what is compiled. So it knows neither lookaround nor back-references. Raises ValueError for those.
    """

    def __init__(self, pattern: str) -> None:
        try:
            _compiled(pattern)  # alone first: what closes our bracket and opens another is no regular expression
            self._validator = _compiled(rf"\A(?:{pattern})\z")
        except SchemaError as error:
            msg = f"{pattern!r} is no regular expression of the linear kind (no lookaround, no back-references)"
            raise ValueError(msg) from error

    def fits(self, text: str) -> bool:
        """Whether the whole text matches; one of more than 65,536 characters never does."""
        return self._validator.isinstance_python(text)


def _compiled(pattern: str) -> SchemaValidator:
    return SchemaValidator(
        core_schema.str_schema(
            pattern=pattern, strict=True, max_length=PATTERN_SUBJECT_CHARACTERS_MAX, regex_engine="rust-regex"
        )
    )


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
    """What the whole of both must match, for pattern: a regular expression without lookaround and back-references."""
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
        if self.pattern is not None:
            LinearPattern(self.pattern)
        if self.compare == "decimals" and (self.tolerance or 0) not in range(31):
            msg = "`compare: decimals` takes a whole number of places, 0 to 30, as its `tolerance`"
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
    """Where exactly: $.items[3].price."""
    field: str | None = None
    """The field it is about, whichever element of a list: $.items[*].price."""
    kind: Kind
    stable: JsonValue
    candidate: JsonValue
    grade: Grade
    reason: str | None = None
    """The rule's, or what the default says."""


GoldenName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256, lower-case hexadecimal."""
GOLDEN_BODY_BYTES_MAX = 1024 * 1024


class GoldenRequest(Frozen):
    """A safe request as it was sent; credentials are never part of it."""

    method: Literal["GET", "HEAD"] = "GET"
    target: str = Field(pattern=r"^/[!-~]{0,8000}$")
    headers: dict[str, str] = {}


class GoldenAnswer(Frozen):
    """The answer that was accepted."""

    status: int = Field(ge=100, le=599)
    headers: dict[str, str] = {}
    body: str = Field(default="", max_length=GOLDEN_BODY_BYTES_MAX * 4 // 3 + 4)
    """Base64: an answer need not be text."""


class GoldenFiles(Frozen):
    """Files by their names below a folder, each with the digest under which its bytes are kept, and what was given."""

    files: dict[str, Digest] = Field(default={}, max_length=10_000)
    arguments: dict[str, str] = {}
    """What stood in the command's places, as target_month."""


class GoldenSample(Frozen):
    """An input whose output a person accepted: every later version is held against it.

    Of a service: `request` and `answer`. Of a batch job: `input` and `output`.
    """

    workload: str
    name: GoldenName
    request: GoldenRequest | None = None
    answer: GoldenAnswer | None = None
    input: GoldenFiles | None = None
    output: GoldenFiles | None = None
    noise: tuple[FieldPath, ...] = Field(default=(), max_length=500)
    """Fields that were seen to differ each time when it was accepted; they are not compared."""
    accepted_by: str = Field(min_length=1, max_length=200)
    accepted_at: datetime
    reason: str = Field(min_length=1, max_length=500)
    """Why this output is right."""

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        service = (self.request is not None, self.answer is not None)
        batch = (self.input is not None, self.output is not None)
        if (service, batch) not in {((True, True), (False, False)), ((False, False), (True, True))}:
            msg = "a golden sample is a `request` and its `answer`, or an `input` and its `output`"
            raise ValueError(msg)
        return self

    @property
    def digest(self) -> str:
        """SHA-256 over its canonical form: who accepted what, and when."""
        return digest_of(self.model_dump(mode="json"))
