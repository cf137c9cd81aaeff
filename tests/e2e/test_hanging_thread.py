"""A thread that hangs for ever does not keep the resident process from ending."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from harness.resident import RawLine, resident

# As a mount that never answers would do it: reading the facts of a command does not come back.
HANGS = """
import os, pathlib, time
from interlock.__main__ import main
from interlock.commands.actions import CommandExec
def hang(self, args):
    pathlib.Path(os.environ["HOME"], "hanging").touch()
    time.sleep(600)
CommandExec.read_facts = hang
main()
"""


def test_a_thread_that_hangs_does_not_keep_the_process_from_ending(postgres_endpoint: Any) -> None:
    with resident(postgres_endpoint, "permissive") as made:
        (made.folder / "hangs.py").write_text(HANGS)
        with (made.folder / "said").open("ab") as said:
            command = [sys.executable, str(made.folder / "hangs.py"), "serve", "--no-http"]
            made.process = subprocess.Popen(command, env=made.environment, stdout=said, stderr=said)
        made.wait_until_ready()
        with RawLine(made.door) as line:
            ask = {"action": "command.exec", "args": {"argv": ["uptime"]}, "confirmed": True}
            line.send(json.dumps({"id": 1, "method": "submit", "params": {"ask": ask}}).encode() + b"\n")
            made.until((made.folder / "hanging").exists, 20)
            made.stop()
        assert "serve.threads_hang" in made.log
