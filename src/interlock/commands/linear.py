"""Regular expressions that need time in proportion to the text, for patterns that somebody types with an ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import SchemaError


def linear_match(pattern: str) -> Callable[[str], bool]:
    """Whether a whole text matches `pattern`.

    Python's own engine may take for ever with some patterns, and nothing else goes on in the process meanwhile.
    Pydantic's cannot; it knows no look-around and no back-references, which would need more than linear time.

    Raises: ValueError when the pattern is none to that engine.
    """
    try:
        # By itself first, so that what is put around it cannot be closed from within.
        TypeAdapter(Annotated[str, Field(pattern=pattern)])
        whole = TypeAdapter(Annotated[str, Field(pattern=rf"\A(?:{pattern})\z", strict=True)])
    except SchemaError as error:
        msg = f"the pattern {pattern!r} is none that is matched in linear time (no look-around, no back-references)"
        raise ValueError(msg) from error

    def accepts(text: str) -> bool:
        try:
            whole.validate_python(text)
        except ValidationError:
            return False
        return True

    return accepts
