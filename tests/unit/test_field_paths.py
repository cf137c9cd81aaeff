"""Paths with stars: what they fit, what they cover, what is no path, and that no path takes long."""

from __future__ import annotations

import time

import pytest

from interlock.lib.field_path import FieldPattern, Parts, Row, generalised, render

ITEM: Parts = ("$", "items", 3, "price")


@pytest.mark.parametrize(
    ("text", "parts", "fits"),
    [
        ("$", ("$",), True),
        ("$.items[*].price", ITEM, True),
        ("$.items.*.price", ITEM, True),
        ("$.items[3].price", ITEM, True),
        ("$.items[2].price", ITEM, False),
        ("$.items[*]", ITEM, False),
        ("$.**", ITEM, True),
        ("$.**.price", ITEM, True),
        ("$.**.price", ("$", "price"), True),
        ("$.**.price.**.net", ("$", "a", "price", "b", "price", "net"), True),
        ("$.items.**", ("$", "items"), True),
        ("$.items[*].price", ("$", "items", Row("id=7"), "price"), True),
        ("**", ("$status",), True),
        ("*", ("$header", "etag"), True),
        ("$.**", ("$status",), False),
        ("$status", ("$status",), True),
        ("$header.etag", ("$header", "etag"), True),
        ('$["a b"].c', ("$", "a b", "c"), True),
        ("$.3", ("$", 3), False),
        ("amount", ("amount",), True),
        ("amount", ("amounts",), False),
        ("amount_*", ("amount_net",), True),
        ("*_at", ("updated_at",), True),
        ("a*a", ("a",), False),
        ("a*b*c", ("a-b-c",), True),
    ],
)
def test_a_path_fits_what_it_names(text: str, parts: Parts, fits: bool) -> None:  # noqa: FBT001
    assert FieldPattern.parse(text).fits(parts) is fits


def test_a_path_covers_what_lies_below() -> None:
    assert FieldPattern.parse("$.items").covers(ITEM)
    assert FieldPattern.parse("$.items[*].price").covers(ITEM)
    assert not FieldPattern.parse("$.items[*].price.net").covers(ITEM)
    assert not FieldPattern.parse("$.price").covers(ITEM)


@pytest.mark.parametrize(
    "text", ["", " $.a", "$items", "$.a..b", "$.a[x]", "$.a[", '$["a]', "$.a b", "$.a[-1]", "$" + "a" * 600]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|begins"):
        FieldPattern.parse(text)


def test_many_stars_take_no_longer_than_their_number_times_the_depth() -> None:
    pattern = FieldPattern.parse("$" + ".**.a" * 90 + ".b")
    begun = time.perf_counter()
    assert not pattern.fits(("$", *["a"] * 2000))
    assert time.perf_counter() - begun < 2


def test_elements_and_identifiers_are_one_field() -> None:
    assert render(generalised(ITEM)) == "$.items[*].price"
    assert render(generalised(("$", "users", "81213", "name"))) == "$.users[*].name"
    assert render(generalised(("$", "by", "0f8fad5b-d9cb-469f-a165-70867728950e"))) == "$.by[*]"
    assert render(("$", "items", Row("id=7"), "a.b")) == '$.items[id=7]["a.b"]'
