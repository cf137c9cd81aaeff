"""How Argo Rollouts takes measurements by the provider `web`, and when it ends an analysis, as its documents say it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

ERROR_LIMIT_DEFAULT = 4


@dataclass
class Analysis:
    """One metric of an AnalysisTemplate: `args` are filled into it, `base` stands for its host."""

    metric: dict[str, Any]
    args: dict[str, str]
    base: str
    seen: Counter[str] = field(default_factory=Counter)
    errors_in_a_row: int = 0
    successes_in_a_row: int = 0
    values: list[object] = field(default_factory=list)

    def measure(self) -> str:
        """Take one measurement. Where neither condition holds it is inconclusive; no 2xx or no value is an error."""
        web = self.metric["provider"]["web"]
        url = re.sub(r"https://[^/]+", self.base, self._filled(web["url"]))
        headers = {each["key"]: self._filled(each["value"]) for each in web["headers"]}
        phase, value = "Error", None
        try:
            told = httpx.get(url, headers=headers, timeout=web["timeoutSeconds"])
            if told.is_success:
                value = _json_path(web["jsonPath"], told.json())
                phase = self._phase(value)
        except (httpx.HTTPError, json.JSONDecodeError, KeyError):
            phase = "Error"
        self.values.append(value)
        self.seen[phase] += 1
        self.errors_in_a_row = self.errors_in_a_row + 1 if phase == "Error" else 0
        self.successes_in_a_row = self.successes_in_a_row + 1 if phase == "Successful" else 0
        return phase

    def ended(self, *, before_1_8: bool = False) -> str | None:
        """How it ended, or None while it goes on. Versions before 1.8 know no consecutiveSuccessLimit."""
        metric, seen = self.metric, self.seen
        if self.errors_in_a_row > metric.get("consecutiveErrorLimit", ERROR_LIMIT_DEFAULT):
            return "Error"
        if seen["Inconclusive"] > metric.get("inconclusiveLimit", 0):
            return "Inconclusive"
        if seen["Failed"] > metric.get("failureLimit", 0):
            return "Failed"
        successes = 0 if before_1_8 else metric.get("consecutiveSuccessLimit", 0)
        if successes and self.successes_in_a_row >= successes:
            return "Successful"
        if "count" in metric and seen.total() - seen["Error"] >= metric["count"]:
            return "Inconclusive" if successes else "Successful"
        return None

    def _filled(self, text: str) -> str:
        return re.sub(r"\{\{\s*args\.([a-z-]+)\s*\}\}", lambda found: self.args[found[1]], text)

    def _phase(self, value: object) -> str:
        success, failure = (self._holds(self.metric[name], value) for name in ("successCondition", "failureCondition"))
        return "Failed" if failure else "Successful" if success else "Inconclusive"

    @staticmethod
    def _holds(condition: str, value: object) -> bool:
        found = re.fullmatch(r'result == "([a-z]+)"', condition)
        assert found is not None, condition
        return value == found[1]


def _json_path(path: str, told: Any) -> object:
    found = re.fullmatch(r"\{\$\.([a-z_]+)\}", path)
    assert found is not None, path
    value: object = told[found[1]]
    return value
