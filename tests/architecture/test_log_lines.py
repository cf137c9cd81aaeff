"""What a line of the log is about has one name everywhere, and each event is a constant."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "interlock"
LEVELS = {"debug", "info", "warning", "error", "exception"}
ONE_NAME = {
    "run": "run_id",
    "number": "run_id",
    "state": "status",
    "outcome": "status",
    "duration": "latency",
    "duration_seconds": "latency",
    "took": "latency",
    "trace": "trace_id",
    "traceparent": "trace_id",
    "actor_id": "actor",
    "error_kind": "error_code",
    "token": "nothing: it is a secret",
    "password": "nothing: it is a secret",
}


def _lines() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
            ):
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node


LINES = dict(_lines())


def test_there_are_lines() -> None:
    assert len(LINES) > 30


@pytest.mark.parametrize("place", LINES)
def test_a_line_names_things_as_all_others_do(place: str) -> None:
    call = LINES[place]
    for word in call.keywords:
        assert word.arg not in ONE_NAME, f"{place}: call it {ONE_NAME[word.arg or '']}"
    constants = [node for node in ast.walk(call.args[0]) if isinstance(node, ast.Constant)]
    if place.startswith("bootstrap/assembly.py"):
        return  # an alarm of a part that must not know the log: it names the event
    assert constants, place
    for constant in constants:
        if isinstance(constant.value, str):
            assert re.fullmatch(r"[a-z]+(\.[a-z_]+)+", constant.value), place
