"""Whatever an endpoint or a file says, it is read or refused in words; nothing else happens."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from interlock.core.errors import Invalid
from interlock.core.judgement import ExpositionMeasure
from interlock.releases.judge.exposition import read_measure, read_values
from interlock.releases.judge.promql import read_answer
from interlock.releases.judge.thresholds import parse_thresholds

COUNTERS = ExpositionMeasure(name="jobs", bad='m_total{a=~"x.*"}', total="m_total")
TIMES = ExpositionMeasure(name="took", histogram="m")
pieces = st.lists(
    st.sampled_from(
        [
            *(b"m_total", b"m_bucket", b"{", b"}", b'"', b"\\", b",", b"=", b"le", b"a", b"+Inf", b"NaN", b"1e400"),
            *(b" ", b"\t", b"\n", b"\r", b"#", b" # {", b"9" * 400, b"-1", b"0.5", b"\xff", b"\x00", b"\xe2\x80\xa8"),
        ]
    ),
    max_size=40,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def _read_or_refused(read: Callable[[], object]) -> object:
    try:
        return read()
    except Invalid:
        return None


@given(pieces)
@example([b"m_total", b"{", b"a", b"=", b'"', b"\\"])
@example([b"m_total ", b"9" * 5000])
@example([b'm_total 1e308\nm_total{a="x"} 1e308\n'])
@example([b'm_bucket{le="+Inf"} 1e308\nm_bucket{le="+Inf",a="x"} 1e308\n'])
def test_any_text_is_counters_or_is_refused(parts: list[bytes]) -> None:
    body = b"".join(parts)
    for measure in (COUNTERS, TIMES):
        reading = _read_or_refused(lambda measure=measure: read_measure(body, measure))  # type: ignore[misc]
        assert reading is None or all(math.isfinite(each) for each in reading[:2])  # type: ignore[index]
    _read_or_refused(lambda: read_values(body, ["m_total", 'm_bucket{le="0.5"}']))


@given(st.binary(max_size=60) | values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_an_answer_or_is_refused(body: bytes) -> None:
    _read_or_refused(lambda: read_answer(body))
    _read_or_refused(lambda: read_values(body, ["a", "a.b", "up"]))
    _read_or_refused(lambda: parse_thresholds(body))


@example("scalar", [0, 10**400])
@example("vector", [{"value": [0, "1e308"]}, {"value": [0, "1e308"]}])
@given(st.sampled_from(["vector", "scalar", "matrix", "string"]), values)
def test_any_result_of_a_prometheus_is_a_number_or_none_or_is_refused(kind: str, result: object) -> None:
    body = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()
    found = _read_or_refused(lambda: read_answer(body))
    assert found is None or math.isfinite(found)  # type: ignore[arg-type]
