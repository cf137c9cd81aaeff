"""What worker and guard say to each other: read back as it was said, and garbage never as an order to go on."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from interlock.engine.guard.effect import Effect, decode_effect, encode_effect
from interlock.engine.guard.process import parse_order
from interlock.engine.guard.supervise import _parse_report

texts = st.binary(max_size=40)


@given(texts, st.lists(texts, min_size=1), st.lists(texts), texts, st.floats(min_value=0, allow_infinity=False))
def test_an_effect_is_read_as_it_was_written(
    path: bytes, argv: list[bytes], environment: list[bytes], folder: bytes, timeout_seconds: float
) -> None:
    effect = Effect(
        path=path,
        argv=argv,
        environment=environment,
        folder=folder,
        sha256="ab",
        timeout_seconds=timeout_seconds,
    )
    read = decode_effect(encode_effect(effect))
    assert [getattr(read, name) for name in Effect.__slots__] == [getattr(effect, name) for name in Effect.__slots__]


@given(texts, st.integers(min_value=0))
def test_a_damaged_effect_is_an_error_and_never_another_one(argument: bytes, cut: int) -> None:
    effect = Effect(path=b"/a", argv=[argument], environment=[], folder=b"/", sha256="", timeout_seconds=1.0)
    encoded = encode_effect(effect)
    damaged = encoded[: cut % len(encoded)]
    try:
        decode_effect(damaged)
    except ValueError:
        return
    msg = f"{damaged!r} was accepted"
    raise AssertionError(msg)


@given(st.binary(max_size=60) | st.from_regex(rb"(go|deadline) [-+0-9a-z._]{0,12}", fullmatch=True))
def test_an_order_is_finite_or_means_kill(record: bytes) -> None:
    order, seconds = parse_order(record)
    assert order == "kill" or (order in ("go", "deadline") and record.startswith(order.encode() + b" "))
    assert math.isfinite(seconds)
    assert seconds >= 0


@given(st.floats(min_value=0, allow_infinity=False, allow_nan=False))
def test_a_deadline_arrives_to_the_last_bit(seconds: float) -> None:
    assert parse_order(f"deadline {seconds!r}".encode()) == ("deadline", seconds)


@given(st.text(max_size=80) | st.from_regex(r"exited [-0-9]{1,6} [0-9.e]{1,5} [0-9] [0-9,]{0,5}", fullmatch=True))
def test_a_report_is_whole_or_an_error(words: str) -> None:
    try:
        report = _parse_report(words)
    except (ValueError, KeyError):
        return
    assert words.startswith(report.ended_by)
    assert report.exit_code is None or report.signal is None
