"""A pattern is passed over only where it could not match: text comes out the same without the quick look."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.lib import redact
from interlock.lib.redact import Redactor

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----"
PIECES = st.sampled_from(
    [
        KEY,
        KEY[:31],
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "ASIA" + "0123456789ABCDEF",
        "ilk_" + "a" * 12 + "_" + "b" * 43,
        *(f"gh{letter}_" + "a" * 36 for letter in "pousr"),
        "github_pat_" + "a" * 40,
        "glpat-" + "b" * 20,
        *(f"xox{letter}-1234567890" for letter in "abprs"),
        "sk-proj-" + "c" * 24,
        "123456789:AA" + "d" * 33,
        "eyJ" + "a" * 10 + ".eyJ" + "b" * 10 + "." + "c" * 10,
        "postgres://app:hunter22@db/shop",
        "AUTHORIZATION: bearer abcdef123456",
        "author\u0131zation: token abcdef123456",
        "PassWord=swordfish",
        "pa\u017f\u017fwd: swordfish",
        "\u017fecret=swordfish",
        "API-\u212aEY=0123456789abcdef",
        "acce\u017fs_to\u212aen='0123456789'",
        "auth token: 0123456789",
        "auth-token: 0123456789",
        "private_key=0123456789",
        "passwd=",
        "\u00df",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=3) | st.sampled_from([" ", "\n", '"', "=", ": "]), max_size=8).map("".join)


def _without_looking(text: str) -> tuple[str | None, str]:
    found = None
    redacted = text
    for name, _, pattern in redact._PATTERNS:
        if found is None and re.search(pattern, text, re.DOTALL):
            found = name
        redacted = re.sub(pattern, redact._blot, redacted, flags=re.DOTALL)
    return found, redacted


@given(TEXTS)
def test_the_quick_look_changes_nothing(text: str) -> None:
    redactor = Redactor()
    assert (redactor.find(text), redactor.redact(text)) == _without_looking(text)


@pytest.mark.parametrize("letter", sorted(set("authorpasswsecretkeytoken")))
def test_whatever_matches_a_letter_of_a_mark_folds_to_it(letter: str) -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert {each.casefold() for each in re.findall(letter, everything, re.IGNORECASE)} == {letter}
