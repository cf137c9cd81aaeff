"""Whatever two services answer, comparing, telling and writing it down never fails and stays within bounds."""

from __future__ import annotations

import json
from datetime import date

from hypothesis import example, given
from hypothesis import strategies as st

from interlock.comparison.answers import Answer, compare_answers, keys_in
from interlock.comparison.rules import ReadyRules
from interlock.comparison.safe_request import safe_request, without_secret_parameters
from interlock.comparison.tally import Tally
from interlock.core.comparison import ComparisonRules, FieldRule

READY = ReadyRules(
    ComparisonRules(
        rules=(
            FieldRule(path="$.s", compare="set"),
            FieldRule(path="$.k", compare="keyed", key="id"),
            FieldRule(path="$.**.t", compare="time", tolerance=1),
            FieldRule(path="$.**.n", compare="relative", tolerance=0.1),
            FieldRule(path="$.**.d", compare="decimals", tolerance=2),
        ),
        key_fields=("$.**.x", "$.k[*].id"),
    ),
    date(2026, 1, 1),
)
NAMES = st.sampled_from(["s", "k", "t", "n", "d", "x", "id", "", "a b", '"', "\ud800", "1", "é" * 300])
NUMBERS = ["1e999", "-0", "1e-7000", "9" * 500, "NaN", "Infinity", "1E400", "0.1", "true", "null", '"\\ud800"', '"1_0"']
RAW = st.recursive(
    st.sampled_from(NUMBERS) | st.text(max_size=5).map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(NAMES, inner), max_size=4).map(
            lambda pairs: "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs) + "}"
        )
    ),
    max_leaves=10,
)
BODIES = RAW.map(str.encode) | st.binary(max_size=20)
KINDS = st.sampled_from(["application/json", "text/html", "application/x-ndjson", "", "a/json;charset=\xff"])


def _answer(status: int, kind: str, body: bytes, *, is_cut: bool) -> Answer:
    return Answer(status, {"content-type": kind} if kind else {}, body, is_cut=is_cut)


ANSWERS = st.builds(_answer, st.sampled_from([200, 404, 500]), KINDS, BODIES, is_cut=st.booleans())
DEEP = _answer(200, "application/json", b"[" * 900 + b"]" * 900, is_cut=False)
DEEPER = _answer(200, "application/json", b"[" * 900 + b"1" + b"]" * 900, is_cut=False)


@given(ANSWERS, ANSWERS, ANSWERS)
@example(DEEP, DEEPER, DEEP)
@example(DEEP, _answer(200, "application/json", b"{}", is_cut=False), DEEPER)
def test_no_answers_break_the_comparison(stable: Answer, again: Answer, candidate: Answer) -> None:
    tally = Tally(READY)
    keys = keys_in(stable, READY)
    for difference in tally.add(compare_answers(stable, candidate, READY), compare_answers(stable, again, READY), keys):
        assert len(json.dumps(difference.model_dump(mode="json"), ensure_ascii=False).encode()) < 8000
        tally.wants_asking_again(difference)
    state = tally.state()
    assert Tally(READY, type(state).model_validate_json(state.model_dump_json())).state() == state


@given(
    st.sampled_from(["GET", "HEAD", "POST", "get"]),
    st.text(max_size=30) | st.from_regex(r"/[!-~]{0,30}", fullmatch=True),
    st.lists(
        st.tuples(st.text(max_size=12) | st.sampled_from(["Cookie", "Host", "x-a"]), st.text(max_size=12)), max_size=4
    ),
)
def test_what_is_sent_on_is_one_request_and_nothing_else(
    method: str, target: str, headers: list[tuple[str, str]]
) -> None:
    request = safe_request(method, target, headers)
    if request is None:
        return
    raw = request.encoded("127.0.0.1:80").decode("latin-1")
    assert raw.count("\r\n\r\n") == 1
    assert raw.endswith("\r\n\r\n")
    first, *lines = raw.removesuffix("\r\n\r\n").split("\r\n")
    assert first == f"{method} {target} HTTP/1.1"
    assert method in {"GET", "HEAD"}
    assert not any(line.lower().startswith("cookie:") for line in lines)
    assert "\n" not in "".join(lines)
    assert "\r" not in "".join(lines)


def test_parameters_named_like_secrets_are_blotted_out() -> None:
    assert without_secret_parameters("/a?page=1&access_token=x&y=2") == "/a?page=1&access_token=[redacted]&y=2"
    assert without_secret_parameters("/a?code=x&zipcode=1") == "/a?code=[redacted]&zipcode=1"
