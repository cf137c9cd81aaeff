"""Canonical JSON gives RFC 8785's own results, and one text for one value."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from interlock.lib.canonical import canonical_bytes, digest_of, read_canonical

# RFC 8785 appendix B: IEEE 754 bits in hexadecimal, and the text.
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


@pytest.mark.parametrize(("bits", "text"), NUMBERS)
def test_numbers_are_written_as_appendix_b_says(bits: str, text: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert canonical_bytes(number).decode() == text


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf"), 2**53 + 1])
def test_numbers_that_a_double_cannot_carry_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_bytes(number)


def test_the_sample_of_section_3_2_2() -> None:
    sample = json.loads(
        r"""{
          "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
          "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
          "literals": [null, true, false]
        }"""
    )
    expected = (
        r"""{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"""
        r""""string":"€$\u000f\nA'B\"\\\\\"/"}"""
    )
    assert canonical_bytes(sample) == expected.encode()


def test_keys_are_sorted_by_utf_16_as_in_section_3_2_3() -> None:
    sample = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\x80": "Control",
        "\xf6": "Latin Small Letter O With Diaeresis",
    }
    order = [
        "Carriage Return",
        "One",
        "Control",
        "Latin Small Letter O With Diaeresis",
        "Euro Sign",
        "Emoji: Grinning Face",
        "Hebrew Letter Dalet With Dagesh",
    ]
    assert list(json.loads(canonical_bytes(sample)).values()) == order


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_bytes("\ud83d")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(VALUES)
def test_reading_it_back_gives_the_same_value_and_the_same_text(value: Any) -> None:
    text = canonical_bytes(value)
    again = json.loads(text, parse_int=float)  # RFC 8785 knows doubles only: 2**53 reads back as an integer otherwise
    assert again == value
    assert canonical_bytes(again) == text


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), VALUES, max_size=5), st.randoms())
def test_the_order_in_which_keys_were_put_does_not_matter(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert digest_of(dict(items)) == digest_of(value)


@given(VALUES)
def test_what_is_written_here_is_what_the_library_writes(value: Any) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 60.0, -7.0, 1e15, -1e15, 999999999999999.0, 1e21, 0.5, 2**53 - 1, True, (1, [2.0]), {"a": ()}]
)
def test_numbers_and_sequences_are_written_as_the_library_writes_them(value: Any) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [{1: 2}, {"a": {None: 1}}, {1, 2}, object(), [b"x"], {"\ud83d": 1}, ["\ud83d"]])
def test_what_is_not_json_is_refused_wherever_it_stands(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_bytes(value)


def by_the_library(text: bytes) -> Any:
    """What `read_canonical` says, said slowly: read with every number a double, written again by the library."""
    whole = text.decode()
    if rfc8785.dumps(json.loads(whole, parse_int=float)) != text:
        msg = "not canonical"
        raise ValueError(msg)
    return json.loads(whole)


@given(VALUES)
def test_a_canonical_text_is_read_as_it_is(value: Any) -> None:
    text = canonical_bytes(value)
    assert repr(read_canonical(text)) == repr(by_the_library(text))


@given(
    value=VALUES,
    separators=st.sampled_from([None, (",", ": "), (",", ":")]),
    in_order=st.booleans(),
    only_ascii=st.booleans(),
)
def test_a_text_is_read_exactly_when_the_library_would_have_written_it(
    *, value: Any, separators: tuple[str, str] | None, in_order: bool, only_ascii: bool
) -> None:
    text = json.dumps(value, separators=separators, sort_keys=in_order, ensure_ascii=only_ascii).encode()
    try:
        expected = by_the_library(text)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            read_canonical(text)
    else:
        assert repr(read_canonical(text)) == repr(expected)


@pytest.mark.parametrize(
    "text",
    [
        *("1.0", "1e16", "1e+16", "-0", "-0.0", "9007199254740993", "9007199254740991.0", "1E3", "0.50", "[1.0]"),
        *('{"b":1,"a":2}', '{"a":1,"a":1}', '{"a":{"c":1,"b":2}}', '[{"b":1,"a":2}]', '{"\ufb33":1,"\U0001f600":2}'),
        *(r'"\u0041"', r'"\/"', r'"\u000A"', r'"\u000a"', r'"\u007f"', r'"\ud83d"', r'{"a":"\ud83d"}'),
        *(" 1", "1 ", "[1, 2]", "[1,]", "", "NaN", "Infinity", "{1:2}", "'a'", "[" * 100_000, "\ufeff1", "01", "+1"),
    ],
)  # fmt: skip
def test_a_text_that_is_not_the_canonical_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_canonical(text.encode())


@pytest.mark.parametrize(
    "text",
    ["9007199254740992", "1e+21", '{"\U0001f600":1,"\ufb33":2}', "[" * 500 + "]" * 500, '{"\xe9":1}', "1e-7", "[]"],
)
def test_an_unusual_canonical_text_is_read_as_well(text: str) -> None:
    assert read_canonical(text.encode()) == json.loads(text)
