"""Keeps text that others wrote from steering the reader's terminal, or from reading otherwise than it is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

_INVISIBLE = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"  # C0 and C1 controls but tab and newline
    # Category Cf: marks that reorder or hide what follows (Unicode TR9, TR36), and tags.
    "\\xad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e"
    "\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb\\U000110bd\\U000110cd\\U00013430-\\U0001343f\\U0001bca0-\\U0001bca3"
    "\\U0001d173-\\U0001d17a\\U000e0000-\\U000e0fff"
    "\\u034f\\u115f\\u1160\\u17b4\\u17b5\\u3164\\uffa0\\ufe00-\\ufe0f"  # fillers and variation selectors
    "\\ud800-\\udfff"  # lone surrogates, which no stream in UTF-8 takes
)
_UNSEEN = re.compile(f"[{_INVISIBLE}]")
_UNSEEN_IN_LINE = re.compile(f"[{_INVISIBLE}\\t\\n]")
_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,60}m")
_BEGUN = re.compile(r"\x1b(\[[0-9;:]{0,60})?\Z")
_LATIN_1_MAX = 0xFF
_ASCII_MAX = 0x7F
_UTF_16_UNIT_MAX = 0xFFFF


def visible(text: str) -> str:
    r"""The text with every unseen character written out: an escape as `\x1b`, a right-to-left override as `\u202e`.

    Newlines and tabs stay: this is for text of many lines, each of which is indented where it is shown.
    """
    return _UNSEEN.sub(lambda found: _written(found[0]), text)


def visible_line(text: str) -> str:
    r"""As `visible`, but one line: a newline becomes `\n` and a tab `\t`, so that no text begins a line of its own."""
    return _UNSEEN_IN_LINE.sub(lambda found: _written(found[0]), text)


def visible_command(argv: Sequence[str]) -> str:
    r"""An argument vector as a shell would take it, on one line; words with unseen characters as `$'...\n'`.

    No two vectors look alike: `$'\n'` is a newline, and `'\n'` are the two characters.
    """
    return " ".join(_quoted(word) for word in argv)


def visible_json(text: str) -> str:
    r"""JSON text with every unseen character as the JSON escape it may be written as, which says the same."""
    return _UNSEEN.sub(lambda found: _utf_16(found[0]), text)


def _quoted(word: str) -> str:
    if not _UNSEEN_IN_LINE.search(word):
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{_UNSEEN_IN_LINE.sub(lambda found: _written_wide(found[0]), escaped)}'"


def _written_wide(character: str) -> str:
    r"""As `_written`, but a shell reads `\x9b` as one byte and `\u009b` as the character."""
    code = ord(character)
    return f"\\u{code:04x}" if _ASCII_MAX < code <= _LATIN_1_MAX else _written(character)


def _utf_16(character: str) -> str:
    code = ord(character)
    if code <= _UTF_16_UNIT_MAX:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def _written(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class TerminalText:
    """What a program printed, on its way to a terminal in pieces: colours pass, every other command is written out.

    Carriage returns and backspaces pass too: programs that show progress need them.
    """

    def __init__(self) -> None:
        self._kept = ""

    def feed(self, piece: str) -> str:
        """What may be shown now; the beginning of an unfinished sequence is kept back."""
        text = self._kept + piece
        begun = _BEGUN.search(text)
        self._kept = text[begun.start() :] if begun else ""
        return self._clean(text[: begun.start()] if begun else text)

    def finish(self) -> str:
        """What was kept back, when nothing follows."""
        text, self._kept = self._kept, ""
        return self._clean(text)

    def _clean(self, text: str) -> str:
        shown, end = [], 0
        for colour in _COLOUR.finditer(text):
            shown += [self._written_out(text[end : colour.start()]), colour[0]]
            end = colour.end()
        return "".join([*shown, self._written_out(text[end:])])

    @staticmethod
    def _written_out(text: str) -> str:
        return _UNSEEN.sub(lambda found: found[0] if found[0] in "\r\b" else _written(found[0]), text)
