"""When two values count as equal: exactly, within a tolerance, or after both were brought into one form."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic import JsonValue

from interlock.core.comparison import FieldRule, LinearPattern

NUMBER_CHARACTERS_MAX = 400
EXPONENT_MAX = 6000
SHOWN_CHARACTERS_MAX = 200
INTEGER_SHOWN_MAX = 2**53

_ARITHMETIC = Context(prec=NUMBER_CHARACTERS_MAX * 2, rounding=ROUND_HALF_EVEN, traps=[])
"""Nothing is raised: what cannot be computed is not a number, and so equal to nothing."""

Equal = Callable[[Any, Any], bool]


class Literal(str):
    """A number that is written too long to be computed with, or that JSON does not know: NaN, Infinity."""

    __slots__ = ()


def read_number(text: str) -> Decimal | Literal:
    """A JSON number, exactly as it is written: neither large integers nor 0.1 are rounded to a double."""
    if len(text) > NUMBER_CHARACTERS_MAX:
        return Literal(text)
    number = _ARITHMETIC.create_decimal(text)
    return number if number.is_finite() and abs(number.adjusted()) <= EXPONENT_MAX else Literal(text)


def kind_of(value: Any) -> str:
    """null, boolean, number, text, list or object; 1 and 1.0 are of one kind, 1 and true are not."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, Decimal | int | float | Literal):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else "object"


def canonical_text(value: Any) -> str:
    """One text for each value, whatever the order of names and the way numbers are written: equal texts are equal.

    Raises: RecursionError for what is nested too deeply.
    """
    return json.dumps(value, sort_keys=True, ensure_ascii=True, default=_canonical_number)


def _canonical_number(number: Any) -> dict[str, str]:
    """Called for what JSON's own writer does not know: Decimal. No document holds a name like this one."""
    if not isinstance(number, Decimal):
        msg = f"{type(number).__name__} is no part of a document"
        raise TypeError(msg)
    return {"\0number": _plain(number)}


def _plain(number: Decimal) -> str:
    """1, 1.0 and 1e0 are one number, and so are 0 and -0."""
    return str(number.normalize(_ARITHMETIC)) if number else "0"


def shown(value: Any) -> JsonValue:
    """A value as JSON can carry it to people, cut to a bounded length; exact numbers stay readable."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Decimal):
        return _shown_number(value)
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=_shown_number)
    except RecursionError:
        text = "[nested too deeply to be shown]"
    whole = text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[:SHOWN_CHARACTERS_MAX]}…"
    return whole.encode(errors="replace").decode()  # half of a surrogate pair is no text that can be written down


def _shown_number(value: Decimal) -> JsonValue:
    if value == value.to_integral_value() and abs(value) < INTEGER_SHOWN_MAX:
        return int(value)
    near = float(value)
    return near if Decimal(repr(near)) == value else str(value)[:SHOWN_CHARACTERS_MAX]


def equality(rule: FieldRule | None) -> Equal:
    """The test that a rule asks for, for values that are neither lists nor objects, and of one kind."""
    if rule is None:
        return is_exact
    if rule.compare == "pattern":
        pattern = LinearPattern(rule.pattern or "")
        return lambda one, other: is_exact(one, other) or (pattern.fits(str(one)) and pattern.fits(str(other)))
    if rule.compare == "text":
        return lambda one, other: is_exact(one, other) or _folded(one) == _folded(other)
    if rule.compare in {"absolute", "relative", "decimals", "time"}:
        within = _WITHIN[rule.compare]
        tolerance = Decimal(repr(rule.tolerance or 0.0))
        return lambda one, other: is_exact(one, other) or within(one, other, tolerance)
    return is_exact


def is_exact(one: Any, other: Any) -> bool:
    """Equal and of one kind: 1 is not true, and 0.1 + 0.2 as doubles have it is not 0.3."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _folded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return " ".join(unicodedata.normalize("NFC", value.casefold()).split())


def _numbers(one: Any, other: Any) -> tuple[Decimal, Decimal] | None:
    """Both as numbers; text that says a number is one, for money is often sent as text."""
    first, second = _number(one), _number(other)
    return None if first is None or second is None else (first, second)


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float | str) or isinstance(value, Literal):
        return None
    text = value.strip() if isinstance(value, str) else repr(value) if isinstance(value, float) else None
    if text is None:
        return Decimal(value)
    if len(text) > NUMBER_CHARACTERS_MAX:
        return None
    number = _ARITHMETIC.create_decimal(text)
    return number if number.is_finite() and abs(number.adjusted()) <= EXPONENT_MAX else None


def _is_absolute(one: Any, other: Any, tolerance: Decimal) -> bool:
    pair = _numbers(one, other)
    return pair is not None and _distance(*pair) <= tolerance


def _is_relative(one: Any, other: Any, tolerance: Decimal) -> bool:
    """Of the larger of the two, so that neither side is privileged."""
    pair = _numbers(one, other)
    if pair is None:
        return False
    return _distance(*pair) <= _ARITHMETIC.multiply(tolerance, max(abs(pair[0]), abs(pair[1])))


def _distance(one: Decimal, other: Decimal) -> Decimal:
    return _ARITHMETIC.abs(_ARITHMETIC.subtract(one, other))


def _is_rounded(one: Any, other: Any, places: Decimal) -> bool:
    pair = _numbers(one, other)
    if pair is None:
        return False
    unit = Decimal(1).scaleb(-int(places))
    return _ARITHMETIC.quantize(pair[0], unit) == _ARITHMETIC.quantize(pair[1], unit)


def _is_near_in_time(one: Any, other: Any, seconds: Decimal) -> bool:
    first, second = _moment(one), _moment(other)
    return first is not None and second is not None and abs(first - second) <= seconds


def _moment(value: Any) -> Decimal | None:
    """Seconds since 1970: of ISO 8601 and RFC 9110 dates (UTC where they do not say), or of a number of seconds."""
    if not isinstance(value, str) or isinstance(value, Literal):
        return _number(value)
    try:
        moment = datetime.fromisoformat(value.strip()[:64])
    except ValueError:
        try:
            moment = parsedate_to_datetime(value[:64])
        except ValueError:
            return _number(value)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    difference = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return Decimal(difference.days * 86_400 + difference.seconds) + Decimal(difference.microseconds) / 1_000_000


_WITHIN: dict[str, Callable[[Any, Any, Decimal], bool]] = {
    "absolute": _is_absolute,
    "relative": _is_relative,
    "decimals": _is_rounded,
    "time": _is_near_in_time,
}
