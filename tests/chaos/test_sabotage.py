"""The tests that prove an invariant are proven: each guard that is taken away turns its test red."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

ROOT = Path(__file__).resolve().parents[2]
SABOTAGES = yaml.safe_load((ROOT / "tests" / "sabotage" / "sabotages.yaml").read_text(encoding="utf-8"))
FAILED, PASSED = 1, 0
SECONDS = "30"


def run_tests(source: Path, tests: list[str]) -> subprocess.CompletedProcess[str]:
    """Run tests against a copy of the source, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "--show-capture=no", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, f"--timeout={SECONDS}", *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source that may be spoilt."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "src"


def test_without_sabotage_every_named_test_is_green(source: Path) -> None:
    done = run_tests(source, sorted({sabotage["red"] for sabotage in SABOTAGES}))
    assert done.returncode == PASSED, done.stdout[-3000:]


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage["name"])
def test_a_guard_that_is_taken_away_turns_its_test_red(source: Path, sabotage: dict[str, str]) -> None:
    file = source / "interlock" / sabotage["file"]
    text = file.read_text(encoding="utf-8")
    assert text.count(sabotage["find"]) == 1, f"{sabotage['name']} no longer fits {sabotage['file']}: write it anew"
    file.write_text(text.replace(sabotage["find"], sabotage["replace"]), encoding="utf-8")
    done = run_tests(source, [sabotage["red"]])
    assert done.returncode == FAILED, done.stdout[-3000:]
    assert "1 failed" in done.stdout, done.stdout[-3000:]
