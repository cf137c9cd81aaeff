"""Text that somebody else wrote, as one line of Markdown that is text and nothing else."""

from __future__ import annotations

import re

_MEANS_SOMETHING = re.compile(r"[\\`|\[\]]")
_ENTITY = re.compile(r"&(?=#?\w+;)")
_BEGINS_SOMETHING = re.compile(r"^([#>~]|[*+-](?=[ -])|\d+(?=[.)](?: |$)))")


def plain_line(text: str) -> str:
    """One line in which nothing is a table's edge, code, a link, a picture, HTML or a heading (CommonMark 0.31, GFM).

    Emphasis stays as it was written: it changes how words look, and not what they say or where they lead.
    """
    line = " ".join(_ENTITY.sub("&amp;", text).replace("<", "&lt;").split())
    line = _MEANS_SOMETHING.sub(lambda found: f"\\{found.group()}", line)
    return _BEGINS_SOMETHING.sub(_harmless, line)


def _harmless(found: re.Match[str]) -> str:
    """A number is not escaped, but the dot behind it would be: it is told by its code instead."""
    first = found.group()
    return f"&#{ord(first[0])};{first[1:]}" if first[0].isdigit() else f"\\{first}"
