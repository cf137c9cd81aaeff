"""The resident process as its clients see it: started on demand, stopped, replaced, killed while somebody waits."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from interlock import __version__
from interlock.engine.identity import start_time_ticks

SLOW = """\
#!/bin/sh
echo begun
while [ ! -e {folder}/go-on ]; do sleep 0.05; done
echo ended
"""


@pytest.fixture(scope="module")
def shop(make_shop: Callable[[], Any]) -> Any:
    made = make_shop()
    made.set_up()
    return made


@pytest.fixture
def slow(shop: Any) -> Iterator[str]:
    """A program that prints a word, waits for a file, and prints another."""
    script = shop.folder / "slow.sh"
    (shop.folder / "go-on").unlink(missing_ok=True)
    if not script.exists():
        script.write_text(SLOW.format(folder=shop.folder))
        script.chmod(0o755)
        done = shop.run("adopt", str(script), "--name", "job.slow", "--repeatable", "--confirm")
        assert done.returncode == 0, done.stderr
    yield "job.slow"
    (shop.folder / "go-on").touch()


def _pid(shop: Any) -> int:
    return int(shop.json("status")["data"]["resident"]["pid"])


def _read_until(stream: IO[str], word: str) -> str:
    """What is read until a line with `word` has come; the test's own time-out bounds it."""
    seen = ""
    while word not in seen:
        line = stream.readline()
        assert line, seen
        seen += line
    return seen


def test_two_who_start_it_at_once_end_up_with_one(shop: Any) -> None:
    shop.run("stop")
    both = [shop.start("status", "--output", "json") for _ in range(2)]
    told = [process.communicate(timeout=90)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert len({json.loads(text)["data"]["resident"]["pid"] for text in told}) == 1


def test_what_it_says_and_keeps_is_its_owners_alone(shop: Any) -> None:
    shop.run("status")
    for path in (shop.folder / ".interlock", shop.folder / "run"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o066 == 0
    for name in ("serve.log", "serve.lock"):
        assert stat.S_IMODE((shop.folder / ".interlock" / name).stat().st_mode) == 0o600


def test_stop_waits_until_it_is_gone_and_stopping_twice_is_no_error(shop: Any) -> None:
    pid = _pid(shop)
    assert shop.run("stop").returncode == 0
    assert start_time_ticks(pid) is None
    again = shop.run("stop")
    assert again.returncode == 0
    assert "does not run" in again.stderr


def test_a_second_one_in_the_foreground_gives_way(shop: Any) -> None:
    shop.run("status")
    second = shop.json("serve", "--no-http", code=5)
    assert second["data"]["error"]["code"] == "resident.running"


def test_one_in_the_foreground_says_where_it_serves_and_stops_at_ctrl_c(shop: Any) -> None:
    shop.run("stop")
    process = shop.start("serve", "--no-http")
    assert process.stderr is not None
    _read_until(process.stderr, "interlock stop")
    assert shop.run("exec", "--", "uptime").returncode == 0
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_project_that_cannot_be_read_is_said_with_its_line_by_every_verb(shop: Any) -> None:
    shop.run("stop")
    file = shop.folder / "interlock.yaml"
    text = file.read_text()
    file.write_text(text + "peeple: {}\n")
    try:
        told = shop.json("status", code=2)["data"]["error"]
        assert told["code"] == "project.invalid"
        assert f"interlock.yaml:{len(text.splitlines()) + 1}" in told["message"]
    finally:
        file.write_text(text)


def test_whoever_stops_waiting_stops_nothing(shop: Any, slow: str) -> None:
    process = shop.start("exec", "--confirm", "--", slow)
    assert process.stdout is not None
    _read_until(process.stdout, "begun")
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    number = re.search(r"Run (\d+) goes on", told)
    assert number is not None
    assert f"interlock output {number[1]} --follow" in told
    assert shop.json("show", number[1])["status"] == "running"
    (shop.folder / "go-on").touch()
    followed = shop.run("output", number[1], "--follow")
    assert followed.stdout == "begun\nended\n"


def test_who_follows_a_run_while_the_resident_process_is_killed_hears_the_end(shop: Any, slow: str) -> None:
    process = shop.start("exec", "--confirm", "--", slow)
    assert process.stdout is not None
    _read_until(process.stdout, "begun")
    os.kill(_pid(shop), signal.SIGKILL)
    (shop.folder / "go-on").touch()
    rest, told = process.communicate(timeout=90)
    assert process.returncode == 0, told
    assert rest.endswith("ended\n")


def test_an_older_one_is_replaced(shop: Any) -> None:
    shop.run("stop")
    door = shop.folder / "run" / "door.sock"
    process = _old_resident(door)
    try:
        done = shop.run("exec", "--", "uptime")
    finally:
        process.kill()
        process.communicate()
    assert done.returncode == 0, done.stderr
    assert f"Interlock 0.0.1 still runs; replacing it by {__version__}" in done.stderr
    assert "load average" in done.stdout


def _old_resident(door: Path) -> subprocess.Popen[str]:
    """A process that speaks the protocol, says that it is 0.0.1, and ends when it is told to."""
    program = f"""
import json, os, socket
listener = socket.socket(socket.AF_UNIX)
listener.bind({str(door)!r})
listener.listen()
print("listening", flush=True)
connection, _ = listener.accept()
for line in connection.makefile("rb"):
    request = json.loads(line)
    if request["method"] == "stop":
        os.unlink({str(door)!r})
    answer = {{"version": "0.0.1", "protocol": 1}}
    connection.sendall(json.dumps({{"id": request["id"], "result": answer}}).encode() + b"\\n")
    if request["method"] == "stop":
        break
"""
    door.unlink(missing_ok=True)
    process = subprocess.Popen(["/usr/bin/env", "python3", "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    threading.Thread(target=process.wait, daemon=True).start()  # as init would, so that it does not stay a zombie
    return process


def test_a_hold_runs_ones_own_command_while_it_holds(shop: Any) -> None:
    target = f"file:{shop.folder}/data/held"
    done = shop.run(
        "hold", target, "--reason", "by hand", "--confirm", "--", "sh", "-c", "echo mine; echo $0 -x", "word"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "mine\nword -x\n"
    assert shop.json("log", "--action", "target.hold", "--limit", "1")["data"]["runs"][0]["state"] == "succeeded"


def test_nothing_else_touches_what_is_held_and_it_goes_on_afterwards(shop: Any) -> None:
    path = shop.folder / "data" / "queued"
    gate = shop.folder / "gate"
    holder = shop.start(
        "hold", f"file:{path}", "--confirm", "--", "sh", "-c", f"echo held; while [ ! -e {gate} ]; do sleep 0.05; done"
    )
    assert holder.stdout is not None
    _read_until(holder.stdout, "held")
    waiting = shop.json("exec", "--confirm", "--no-wait", "--", "touch", str(path), code=8)
    assert waiting["status"] == "queued"
    assert not path.exists()
    gate.touch()
    holder.communicate(timeout=30)
    assert holder.returncode == 0
    number = str(waiting["data"]["run"]["number"])
    assert shop.run("output", number, "--follow").returncode == 0
    assert shop.json("show", number)["status"] == "succeeded"
    assert path.exists()


def test_a_hold_that_is_cancelled_ends_the_command(shop: Any) -> None:
    holder = shop.start("hold", f"file:{shop.folder}/data/c", "--confirm", "--", "sh", "-c", "echo $$; exec sleep 600")
    assert holder.stdout is not None
    command = int(holder.stdout.readline())
    number = str(shop.json("log", "--action", "target.hold", "--limit", "1")["data"]["runs"][0]["number"])
    assert shop.run("cancel", number).returncode == 0
    holder.communicate(timeout=30)
    assert holder.returncode != 0
    assert start_time_ticks(command) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another account")
def test_a_process_of_another_account_behind_the_socket_is_not_spoken_to(shop: Any) -> None:
    shop.run("stop")
    door = shop.folder / "run" / "door.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(door))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # who calls listen() is whom SO_PEERCRED names to the client
        os.setuid(65534)
        listener.listen()
        os.write(writer, b"!")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(reader, 1) == b"!"
        assert shop.json("status", code=4)["data"]["error"]["code"] == "door.impostor"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
        listener.close()
        door.unlink()


def test_a_restore_never_writes_over_what_is_there(shop: Any) -> None:
    assert shop.run("backup", "all.tar.gz").returncode == 0
    archive = shop.folder / "all.tar.gz"
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert shop.json("restore", str(archive), "--yes", code=5)["data"]["error"]["code"] == "restore.running"
    shop.run("stop")
    assert shop.run("restore", str(archive)).returncode == 8
    assert shop.json("restore", str(archive), "--yes", code=5)["data"]["error"]["code"] == "restore.occupied"
    assert shop.json("restore", "no-such-file", "--yes", code=3)["status"] == "not_found"
