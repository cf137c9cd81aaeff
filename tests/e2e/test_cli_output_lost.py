"""Whoever stops listening is understood: lost output is one line and never a traceback, and a read ends with it."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import Any

import pytest

ANSWER_SECONDS = 30.0


@pytest.fixture(scope="module")
def shop(make_shop: Any) -> Any:
    """One project in which people look around."""
    made = make_shop()
    (made.folder / "interlock.yaml").write_text("version: 1\nname: shop\npreset: observe\nroots: {read: [.]}\n")
    (made.folder / "big").write_text("a line of some length\n" * 40_000)
    assert made.run("log").returncode == 0
    return made


def _in_shell(shop: Any, line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which `interlock` is this one."""
    script = f'interlock() {{ {" ".join(shop.command())} "$@"; }}; {line}'
    return subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=shop.folder,
        env=shop.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * ANSWER_SECONDS,
    )


def _newest(shop: Any, *, state: str) -> dict[str, Any]:
    """The newest Run, once it has this state."""
    end = time.monotonic() + ANSWER_SECONDS
    while (run := shop.json("log", "--limit", "1")["data"]["runs"][0])["state"] != state:
        assert time.monotonic() < end, run
    found: dict[str, Any] = run
    return found


@pytest.mark.parametrize(
    "words",
    [
        "log >/dev/full",
        "log --help >/dev/full",
        "log --output json >/dev/full",
        "log >&-",
        "exec -- cat big >/dev/full",
    ],
)
def test_output_that_cannot_be_written_is_said_in_one_line(shop: Any, words: str) -> None:
    done = _in_shell(shop, f"interlock {words}")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize("words", ["exec -- cat big", "log --output json --limit 500", "exec --help"])
def test_a_reader_who_has_seen_enough_ends_it_quietly(shop: Any, words: str) -> None:
    for _ in range(3):
        assert shop.run("exec", "--", "uptime").returncode == 0
    done = _in_shell(shop, f"interlock {words} | head -c 1; exit ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    assert done.returncode in {0, 141}  # 0 where all of it was in the pipe before the reader left
    if "big" in words:
        assert done.returncode == 141


def test_a_read_ends_when_its_reader_leaves(shop: Any) -> None:
    (shop.folder / "growing").touch()
    growing = "(for _ in $(seq 100); do echo more >> growing; sleep 0.1; done) 2>/dev/null & writer=$!; "
    line = "interlock exec -- tail -f growing | head -1; code=${PIPESTATUS[0]}; kill $writer; exit $code"
    done = _in_shell(shop, growing + line)
    assert (done.returncode, done.stdout) == (141, "more\n"), done.stderr
    assert _newest(shop, state="cancelled")["summary"].endswith("growing")


def test_ctrl_c_cancels_a_read_and_says_so(shop: Any) -> None:
    process = shop.start("exec", "--", "tail", "-f", "-n", "1", "big")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=ANSWER_SECONDS)
    assert process.returncode == 130
    run = _newest(shop, state="cancelled")
    assert f"Run {run['number']} only looked, and was cancelled" in told


def test_ctrl_c_while_following_another_ask_cancels_nothing(shop: Any) -> None:
    begun = shop.json("exec", "--no-wait", "--", "sleep", "20", code=8)
    number = str(begun["data"]["run"]["number"])
    process = shop.start("output", number, "--follow")
    assert process.stderr is not None
    process.stderr.readline()  # it says after a while what it waits for
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=ANSWER_SECONDS)
    assert (process.returncode, f"Run {number} goes on" in told) == (130, True)
    assert shop.json("show", number)["status"] == "running"
    assert shop.run("cancel", number).returncode == 0
