"""Prose in the reader's language: the source holds English, gettext catalogues beside it hold the others.

Only prose is translated. What programs read (keys, codes, states, verbs) is English everywhere, and so is what the
resident process records and answers: the most common of that is translated here, by `resident_words.py`.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

CATALOGS = Path(__file__).parent / "catalogs"
LANGUAGES = ("en", "zh_Hans", "zh_Hant")


class _Current:
    language = "en"


def set_language(language: str) -> None:
    """Choose one of `LANGUAGES` for this process."""
    _Current.language = language


def say(text: str, /, **values: object) -> str:
    """`text` in the chosen language, with `{name}` filled in. A text without a translation stays English."""
    if _Current.language != "en":
        text = read_catalog(_Current.language).get(text, text)
    return text.format(**values) if values else text


def is_english() -> bool:
    """Whether nothing needs to be translated."""
    return _Current.language == "en"


def translated(text: str) -> str:
    """A text of the resident process in the chosen language; without a translation it stays English."""
    return text if is_english() else read_catalog(_Current.language).get(text, text)


@lru_cache(maxsize=len(LANGUAGES))
def read_catalog(language: str) -> dict[str, str]:
    """English text -> translation, from a gettext PO file; an untranslated entry is left out.

    Raises:
        ValueError: The file is not what it should be, with the line.
    """
    path = CATALOGS / f"{language}.po"
    entries: dict[str, str] = {}
    parts: dict[str, str] = {}
    field = ""
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], start=1):
        word, _, rest = line.strip().partition(" ")
        if not word or word.startswith("#"):
            if parts.get("msgid") and parts.get("msgstr"):
                entries[parts["msgid"]] = parts["msgstr"]
            parts, field = ({}, "") if not word else (parts, field)
        elif word in {"msgid", "msgstr"} and word not in parts:
            field = word
            parts[field] = _unquoted(rest, path, number)
        elif word.startswith('"') and field:
            parts[field] += _unquoted(line.strip(), path, number)
        else:
            msg = f"{path}:{number}: expected msgid, msgstr or a quoted line; entries are parted by empty lines"
            raise ValueError(msg)
    return entries


def _unquoted(text: str, path: Path, number: int) -> str:
    """PO strings are C strings; what of them is used here is the same in Python."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':  # noqa: PLR2004 - two quotes
        msg = f"{path}:{number}: expected text in double quotes"
        raise ValueError(msg)
    value = ast.literal_eval(text)
    if not isinstance(value, str):
        msg = f"{path}:{number}: expected one text in double quotes"
        raise TypeError(msg)
    return value
