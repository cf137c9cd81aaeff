"""Every error that Interlock raises has a code in the reference, and says what to do where the caller can do it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from interlock.core.errors import ERRORS

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "interlock"
REFERENCE = ROOT / "docs" / "reference" / "errors.md"
KINDS = {cls.__name__ for cls in ERRORS.values()}
CALLER_CAN_ACT = {"Invalid", "Denied", "Conflict", "Stale"}
ROOMS = ("engine", "commands", "files", "databases", "control")

# Codes of errors that speak of Interlock's own doing or of an archive's bytes, where nobody who asked can do anything.
WITHOUT_FIX = {
    "blob.digest",
    "guard.token",
    "process.malformed",
    "process.relative",
    "process.timeout",
    "process.too_large",
    "reason.characters",
    "reason.long",
}


class Raised(NamedTuple):
    """One place in the source where an error is made."""

    place: str
    kind: str
    code: str | None
    has_fix: bool


def _raised() -> Iterator[Raised]:
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            node.targets[0].id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in KINDS:
                continue
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            code = given.get("code")
            text = code.value if isinstance(code, ast.Constant) else None
            if isinstance(code, ast.Name):
                text = constants.get(code.id)
            place = f"{path.relative_to(SOURCE)}:{node.lineno}"
            yield Raised(place, node.func.id, text if isinstance(text, str) else None, "fix" in given or None in given)


ALL = tuple(_raised())


def test_the_source_raises_errors_by_these_names() -> None:
    assert len(ALL) > 200
    assert {each.kind for each in ALL} == KINDS


def test_every_code_is_in_the_reference() -> None:
    reference = REFERENCE.read_text(encoding="utf-8")
    missing = sorted({f"{each.place} {each.code}" for each in ALL if each.code and f"`{each.code}`" not in reference})
    assert not missing, "run `make docs`: " + ", ".join(missing)


@pytest.mark.parametrize("room", ROOMS)
def test_whoever_can_act_is_told_how(room: str) -> None:
    silent = [
        f"{each.place} {each.kind} {each.code}"
        for each in ALL
        if each.place.startswith(f"{room}/")
        and each.kind in CALLER_CAN_ACT
        and not each.has_fix
        and each.code not in WITHOUT_FIX
    ]
    assert not silent, "\n".join(silent)


def test_no_exception_outlives_its_reason() -> None:
    codes = {each.code for each in ALL if each.kind in CALLER_CAN_ACT and not each.has_fix}
    assert not WITHOUT_FIX - codes
