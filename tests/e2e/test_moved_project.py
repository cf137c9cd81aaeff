"""A project folder that is moved under its resident process: clients are told at once, and the process ends."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Shop


def test_a_moved_folder_is_told_who_serves_it_and_the_process_ends_by_itself(make_shop: Callable[[], Shop]) -> None:
    shop = make_shop()
    old, new = shop.folder / "old", shop.folder / "new"
    old.mkdir()
    shop.folder = old
    # Where sockets lie follows from the project's path, as it does without INTERLOCK_RUNTIME_FOLDER.
    shop.environment["INTERLOCK_RUNTIME_FOLDER"] = str(old.parent / "run-old")
    shop.set_up()
    pid = shop.json("status")["data"]["resident"]["pid"]
    lock = json.loads((old / ".interlock" / "serve.lock").read_text())
    assert (lock["pid"], lock["door"]) == (pid, f"{old.parent}/run-old/door.sock")
    # Held still, so that what clients are told does not depend on how soon it notices.
    os.kill(pid, signal.SIGSTOP)
    old.rename(new)
    shop.folder = new
    shop.environment["INTERLOCK_RUNTIME_FOLDER"] = str(old.parent / "run-new")
    began = time.monotonic()
    for words in (("status",), ("stop",), ("exec", "--", "uptime")):
        error = shop.json(*words, code=5)["data"]["error"] if words[0] != "exec" else None
        if error is not None:
            assert (error["code"], f"pid {pid}" in error["message"]) == ("resident.elsewhere", True)
            assert error["fix"] == f"stop it with: kill {pid}"
        else:
            assert shop.run(*words).returncode == 5
    assert time.monotonic() - began < 30, "nobody waits for what will not come"
    with open(os.pidfd_open(pid), "rb", buffering=0) as gone:  # noqa: PTH123
        os.kill(pid, signal.SIGCONT)
        assert select.select([gone], [], [], 30)[0], "it ends by itself"
    assert shop.run("exec", "--", "uptime").returncode == 0
