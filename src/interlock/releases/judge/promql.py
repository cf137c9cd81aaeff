"""Questions to a Prometheus about one version, and the number in its answer."""

from __future__ import annotations

import json
import math

from interlock.core.errors import Invalid
from interlock.releases.judge.readings import Reading

ANSWER_MAX = 4 * 1024 * 1024


def query_of(query: str, version: str) -> str:
    """The question about one version: its name, in quotes of PromQL, where {version} stands."""
    return query.replace("{version}", version.replace("\\", "\\\\").replace('"', '\\"'))


def read_answer(body: bytes) -> float | None:
    """The sum of an instant query's vector, or its scalar; None where there is nothing, or no finite number.

    Raises Invalid when it is no answer of a Prometheus, with its own words where it gave any.
    """
    if len(body) > ANSWER_MAX:
        msg = f"the Prometheus answers {len(body)} bytes; at most {ANSWER_MAX} are read"
        raise Invalid(msg, code="release.metrics", fix="ask for a sum")
    try:
        told = json.loads(body)
        if told["status"] != "success":
            msg = f"the Prometheus says: {str(told.get('error', 'nothing'))[:300]}"
            raise Invalid(msg, code="release.metrics", fix="try the query in its own console")
        kind, result = told["data"]["resultType"], told["data"]["result"]
        if kind == "scalar":
            values = [float(result[1])]
        elif kind == "vector":
            values = [float(series["value"][1]) for series in result]
        else:
            msg = f"the query gives a {kind}, not one number at one moment"
            raise Invalid(msg, code="release.metrics", fix="ask for a sum, as sum(requests_total{...})")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as fault:
        msg = "that is no answer of a Prometheus to an instant query"
        raise Invalid(
            msg, code="release.metrics", fix="give the address before /api/v1, and look at what answers"
        ) from fault
    total = sum(values)
    return total if values and math.isfinite(total) else None


def reading_of(*, bad: bytes, total: bytes) -> Reading | None:
    """What a Prometheus tells of one version: the answers to `bad` and `total`.

    A counter of failures that does not exist yet is zero as soon as that of all exists. Raises Invalid.
    """
    seen, failed = read_answer(total), read_answer(bad)
    return None if seen is None else Reading(bad=failed or 0.0, total=seen)
