"""The demo tells its story to the end, and leaves a shop in which its commands work; another one takes its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interlock.bootstrap import remove_database
from interlock.settings import PROJECT_FILE_NAME, Settings, locate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TOLD = (
    "failed: none",
    "INTACT: every row, checkpoint and file is what was signed.",
    "TAMPERED: this is not what was signed.",
    "NO-GO for v1.1: errors",
    "NO-GO for v1.2: latency",
    "all users are to get v1.3",
    "settlement.csv: fee differs in 294 of 600 rows",
    "GO  601 of 601 agree",
)


class Demo:
    """`interlock demo` in a folder of its own, with a home of its own and no database but the one it makes."""

    def __init__(self, folder: Path) -> None:
        self.shop = folder / "shop"
        kept = {name: value for name, value in os.environ.items() if not name.startswith("INTERLOCK_")}
        self.environment = {**kept, "HOME": str(folder), "LANG": "C.UTF-8", "TMPDIR": "/tmp"}

    def run(self, *words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "interlock", *words],
            cwd=folder or self.shop,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    made = Demo(tmp_path)
    yield made
    made.run("do", "traffic.forget", "--arg", "workload=web", "--confirm")
    (run, *_) = json.loads(made.run("log", "--limit", "1", "--output", "json").stdout)["data"]["runs"]
    made.run("approve", str(run["number"]), "--yes", "--wait")
    made.run("service", "stop", "web", "v1.0", "--confirm")
    left = json.loads(made.run("service", "list", "--output", "json").stdout)["data"]["services"]
    made.run("stop")
    remove_database(locate(made.shop / PROJECT_FILE_NAME, Settings(), os.geteuid()))
    assert left == []


def test_the_demo_tells_its_story_to_the_end(demo: Demo, tmp_path: Path) -> None:
    done = demo.run("demo", str(demo.shop), folder=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for words in TOLD:
        assert words in done.stdout, words
    assert demo.run("release", "report", "web").returncode == 0
