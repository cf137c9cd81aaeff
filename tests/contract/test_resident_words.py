"""What the resident process says most is said in the reader's language, and the tables hold nothing it never says."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.interfaces.messages import LANGUAGES, read_catalog, set_language
from interlock.interfaces.resident_words import CODES, TEXTS, error_in_words, text_in_words

SOURCE = Path(__file__).resolve().parents[2] / "src" / "interlock"
OURS = SOURCE / "interfaces" / "resident_words.py"
CODES_MIN = 40


def _constants() -> Iterator[str]:
    """Every text constant of the source, and the reasons and advice of the built-in policies."""
    for path in SOURCE.rglob("*.py"):
        if path != OURS:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value
    for path in (SOURCE / "policies").rglob("*.cedar"):
        yield from re.findall(r'^@(?:reason|instead)\("(.*)"\)$', path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def said() -> frozenset[str]:
    return frozenset(_constants())


@pytest.fixture(autouse=True)
def _english_afterwards() -> Iterator[None]:
    yield
    set_language("en")


def test_every_code_and_text_is_one_that_interlock_says(said: frozenset[str]) -> None:
    heads = {text.partition(": ")[0] for text in said}
    assert CODES.keys() - said == set()
    assert set(TEXTS) - said - heads == set()


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_the_commonest_are_translated_and_keep_their_names_and_numbers(language: str) -> None:
    set_language(language)
    catalog = read_catalog(language)
    for code, meaning in CODES.items():
        told = error_in_words(code, "there is no Run 999")
        assert told == f"{catalog[meaning]} (there is no Run 999)"
        assert not told.isascii()
    for text in TEXTS:
        assert text_in_words(text) == catalog[text]
        assert text_in_words(f"{text}: file:/srv/x") == f"{catalog[text]}: file:/srv/x"
        assert text_in_words(f"{text}; our own") == f"{catalog[text]}; our own"


def test_in_english_nothing_is_added() -> None:
    assert error_in_words("run.unknown", "there is no Run 999") == "there is no Run 999"
    assert text_in_words(TEXTS[0]) == TEXTS[0]


def test_what_is_not_known_stays_as_it_was_said() -> None:
    set_language("zh_Hans")
    assert error_in_words("of.a.newer.version", "it is so") == "it is so"
    assert error_in_words(None, "it is so") == "it is so"
    assert text_in_words("our own rule: ask Bob") == "our own rule: ask Bob"
