"""Keeps text that others wrote from steering the reader's terminal, or from reading otherwise than it is."""

from __future__ import annotations

import re

# C0 and C1 controls but tab and newline, and the marks that reorder or hide what follows (Unicode TR9, TR36).
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]{0,60}m")
_BEGUN = re.compile(r"\x1b(\[[0-9;:]{0,60})?\Z")


def visible(text: str) -> str:
    r"""The text with every unseen character written out: an escape as `\x1b`, a right-to-left override as `\u202e`."""
    return _UNSEEN.sub(lambda found: _written(found[0]), text)


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
