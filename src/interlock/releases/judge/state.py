"""Arrays and numbers of a judge to JSON and back, exactly, and nothing that is not what was written."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from pydantic import JsonValue

from interlock.core.errors import Invalid
from interlock.core.model import JsonObject

Floats = npt.NDArray[np.float64]


def to_json(values: Floats) -> list[JsonValue]:
    """A flat list; minus infinity, which JSON does not know, is null."""
    return [None if value == -math.inf else value for value in values.ravel().tolist()]


def from_json(state: JsonObject, name: str, shape: tuple[int, ...], *, largest: float = math.inf) -> Floats:
    """The array that was written. Raises Invalid when it has another size or holds what no judge writes."""
    found = state.get(name)
    if not isinstance(found, list):
        raise invalid_state(name)
    values = np.array([-math.inf if value is None else value for value in found], dtype=np.float64)
    if values.size != math.prod(shape) or not np.all(values <= largest) or np.any(values == math.inf):
        raise invalid_state(name)
    return values.reshape(shape)


def number(state: JsonObject, name: str) -> float:
    """A finite number. Raises Invalid."""
    found = state.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        raise invalid_state(name)
    return float(found)


def whole(state: JsonObject, name: str) -> int:
    """A whole number that is not negative. Raises Invalid."""
    found = state.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise invalid_state(name)
    return found


def part(state: JsonObject, name: str) -> JsonObject:
    """A part of the state. Raises Invalid."""
    found = state.get(name)
    if not isinstance(found, dict):
        raise invalid_state(name)
    return found


def texts(state: JsonObject, name: str) -> list[str]:
    """A list of texts. Raises Invalid."""
    found = state.get(name)
    if not isinstance(found, list):
        raise invalid_state(name)
    return [str(each) for each in found]


def invalid_state(name: str) -> Invalid:
    """What is wrong with a state of which this part is not as it was written."""
    return Invalid(
        f"the judge's state is of other measures or settings: {name!r} is not what it was",
        code="release.judge_state",
        fix="begin the judgement anew; what was seen so far does not count",
    )
