"""Values against a file of thresholds, at an interval: how often in a row which of them is beyond."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from interlock.core.errors import Invalid
from interlock.core.judgement import ThresholdMeasure
from interlock.core.model import Frozen, JsonObject
from interlock.lib.strict_yaml import YamlFault, read_yaml
from interlock.releases.judge.state import number, part, whole


class Threshold(Frozen):
    """What one value must not be above, or below."""

    max: float | None = Field(default=None, allow_inf_nan=False)
    min: float | None = Field(default=None, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.max is None and self.min is None:
            msg = "give `max`, `min` or both"
            raise ValueError(msg)
        return self


Thresholds = dict[str, Threshold]
_THRESHOLDS = TypeAdapter(Thresholds)


class ThresholdReading(NamedTuple):
    """What the file said and what the endpoint told, at one moment; no values when it could not be read."""

    thresholds: Thresholds
    values: Mapping[str, float]


def parse_thresholds(body: bytes) -> Thresholds:
    """The thresholds of a file: `p95_seconds: {max: 0.5}`, one line each. Raises Invalid, saying where it is wrong."""
    try:
        return _THRESHOLDS.validate_python(read_yaml(body).data)
    except YamlFault as fault:
        where = "" if fault.line is None else f", line {fault.line}"
        msg = f"the thresholds{where}: {fault.message}"
        raise Invalid(msg, code="release.thresholds", fix=fault.fix) from fault
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        msg = f"the thresholds, at {place or 'the top'}: {first['msg']}"
        fix = "write one line for each value, as `p95_seconds: {max: 0.5}`"
        raise Invalid(msg, code="release.thresholds", fix=fix) from fault


class ThresholdWatch:
    """How often in a row values were beyond their thresholds, looked at once in each interval."""

    def __init__(self, measure: ThresholdMeasure) -> None:
        self._measure = measure
        self._since = math.inf
        self._in_a_row: dict[str, int] = {}
        self.breach: str | None = None
        """What was beyond its threshold often enough; stays."""
        self.missing: tuple[str, ...] = ()
        """Which values nobody told, when it was last looked."""
        self.clear = False
        """Whether all were told and inside when it was last looked."""

    def take(self, reading: ThresholdReading | None, elapsed_seconds: float) -> None:
        """Hold the values against the thresholds, if it is time. A missing value neither passes nor fails."""
        self._since += elapsed_seconds
        if reading is None or self._since < self._measure.interval_seconds:
            return
        self._since = 0.0
        known = {name: value for name, value in reading.values.items() if math.isfinite(value)}
        self.missing = tuple(sorted(set(reading.thresholds) - set(known)))
        counted = {}
        for name, threshold in reading.thresholds.items():
            beyond = _beyond(name, known[name], threshold) if name in known else None
            if name not in known:
                counted[name] = self._in_a_row.get(name, 0)
            elif beyond is None:
                counted[name] = 0
            else:
                counted[name] = self._in_a_row.get(name, 0) + 1
                if counted[name] >= self._measure.breaches and self.breach is None:
                    self.breach = f"{beyond}, {counted[name]} times in a row"
        self._in_a_row = counted
        self.clear = not self.missing and not any(counted.values())

    def state(self) -> JsonObject:
        """What `restore` takes."""
        return {
            "since": min(self._since, 1e9),
            "in_a_row": {**self._in_a_row},
            "breach": self.breach,
            "clear": self.clear,
        }

    def restore(self, state: JsonObject) -> None:
        """Go on from a `state`. Raises Invalid."""
        self._since = number(state, "since")
        counted = part(state, "in_a_row")
        self._in_a_row = {name: whole(counted, name) for name in counted}
        self.clear = state.get("clear") is True
        breach = state.get("breach")
        self.breach = breach if isinstance(breach, str) else None


def _beyond(name: str, value: float, threshold: Threshold) -> str | None:
    if threshold.max is not None and value > threshold.max:
        return f"{name} is {value:g}, above {threshold.max:g}"
    if threshold.min is not None and value < threshold.min:
        return f"{name} is {value:g}, below {threshold.min:g}"
    return None
