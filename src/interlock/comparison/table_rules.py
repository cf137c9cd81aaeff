"""A column's rule as an SQL condition over two cells of text, meaning what it means for a field of an answer."""

from __future__ import annotations

import math
from decimal import Decimal

from interlock.comparison.rules import ReadyRules, Way
from interlock.core.comparison import FieldRule
from interlock.core.errors import Invalid

PLACES = 18
"""Numbers are compared as DECIMAL(37,18): 19 digits before the point, 18 after it. What does not fit is text."""
MICROSECONDS_MAX = 2**62


def column_way(name: str, rules: ReadyRules, *, typed_json: bool) -> Way:
    """How a column is compared and graded; a column of JSON objects also as $[*].name."""
    way = rules.way((name,))
    if typed_json and way.rule is None and way.key is None:
        return rules.way(("$", 0, name))
    return way


def excuse_sql(rule: FieldRule | None, left: str, right: str) -> str | None:
    """A condition under which two texts that differ are equal for `rule`; None when nothing excuses a difference.

    `left` and `right` are SQL expressions of VARCHAR; nothing of what users wrote enters the SQL but as a literal.

    Raises: Invalid for a tolerance that is no number.
    """
    if rule is None:
        return None
    if rule.compare in {"absolute", "relative", "decimals", "time"}:
        return _within(rule, left, right)
    if rule.compare == "pattern":
        pattern = literal(rule.pattern or "")
        return f"(regexp_full_match({left}, {pattern}) AND regexp_full_match({right}, {pattern}))"
    if rule.compare == "missing_is_null":
        return f"(coalesce({left}, '') IN ('', 'null') AND coalesce({right}, '') IN ('', 'null'))"
    if rule.compare == "text":
        return f"{_folded(left)} = {_folded(right)}"
    if rule.compare in {"set", "multiset", "keyed"}:
        return _lists(rule, left, right)
    return None


def _within(rule: FieldRule, left: str, right: str) -> str:
    tolerance = rule.tolerance if rule.tolerance is not None else 0.0
    if not math.isfinite(tolerance):
        msg = f"the tolerance of {rule.path} is not a number"
        raise Invalid(msg, code="comparison.tolerance", fix="write a number")
    if rule.compare == "time":
        return f"abs({_moment(left)} - {_moment(right)}) <= {min(int(tolerance * 1e6), MICROSECONDS_MAX)}"
    one, other = number(left), number(right)
    if rule.compare == "decimals":
        places = min(int(tolerance), PLACES)
        return f"round_even({one}, {places}) = round_even({other}, {places})"
    text = f"{Decimal(repr(tolerance)):f}"
    if rule.compare == "absolute":
        return f"abs({one} - {other}) <= {text}::DECIMAL(38, {PLACES})" if tolerance < 10**19 else "true"
    return f"abs({one} - {other})::DOUBLE <= {text}::DOUBLE * greatest(abs({one}), abs({other}))::DOUBLE"


def _moment(cell: str) -> str:
    """Microseconds since 1970: of an ISO 8601 text (UTC where it does not say), or of a number of seconds."""
    seconds = f"CAST({number(cell)} * 1000000 AS BIGINT)"
    return f"coalesce(epoch_us(TRY_CAST({cell} AS TIMESTAMPTZ)), TRY({seconds}))"


def _lists(rule: FieldRule, left: str, right: str) -> str:
    """Lists written as JSON. A keyed list is equal when each element has its equal, which is what a multiset says."""
    made = "list_sort(list_distinct({}))" if rule.compare == "set" else "list_sort({})"
    both = f"json_valid({left}) AND json_valid({right})"
    elements = "TRY_CAST(json_extract({}, '$[*]') AS VARCHAR[])"
    types = f"json_type({left}) = 'ARRAY' AND json_type({right}) = 'ARRAY'"
    equal = f"{made.format(elements.format(left))} = {made.format(elements.format(right))}"
    return f"(CASE WHEN {both} THEN CASE WHEN {types} THEN {equal} ELSE false END ELSE false END)"


def number(cell: str) -> str:
    """A text as a number, or NULL."""
    return f"TRY_CAST({cell} AS DECIMAL(37, {PLACES}))"


def _folded(cell: str) -> str:
    return f"lower(nfc_normalize(trim(regexp_replace({cell}, '\\s+', ' ', 'g'))))"


def literal(text: str) -> str:
    """An SQL literal of any text."""
    return "'" + text.replace("'", "''").replace("\0", "") + "'"


def json_kind_sql(cell: str) -> str:
    """Which kind of JSON value a text is: 0 null, 1 text, 2 object, 3 list, 4 true or false, 5 number."""
    return (
        f"(CASE left({cell}, 1) WHEN 'n' THEN 0 WHEN '\"' THEN 1 WHEN '{{' THEN 2 WHEN '[' THEN 3 "
        "WHEN 't' THEN 4 WHEN 'f' THEN 4 ELSE 5 END)"
    )


def json_text_sql(cell: str) -> str:
    """What a JSON text says: a text without its quotes, everything else as it is written."""
    return f"(CASE WHEN left({cell}, 1) = '\"' THEN json_extract_string({cell}, '$') ELSE {cell} END)"


def exact_number_sql(left: str, right: str) -> str:
    """Two JSON numbers that are written differently and are the same: 1 and 1.0. Only such as fit without rounding."""
    plain = "'-?[0-9]{1,18}([.][0-9]{1,18})?'"
    both = f"regexp_full_match({left}, {plain}) AND regexp_full_match({right}, {plain})"
    return f"(CASE WHEN {both} THEN {number(left)} = {number(right)} ELSE false END)"
