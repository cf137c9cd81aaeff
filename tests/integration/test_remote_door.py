"""The small door of another machine, asked as sshd would: little is allowed, and who goes takes his command along."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.resident import Resident
from interlock.bootstrap.remote_door import RemoteDoor, read_door_policy
from interlock.core.errors import Denied, InterlockError, Invalid, Stale
from interlock.core.remote_host import DoorRequest
from interlock.hosts.door_policy import DoorPolicy
from interlock.interfaces import remote_door

until = Resident.until


class Door:
    """Starts `interlock door --stdio` with a policy of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = folder / "door.yaml"
        self.started: list[subprocess.Popen[bytes]] = []

    def allow(self, text: str) -> None:
        self.policy.write_text(text)
        self.policy.chmod(0o600)

    def open(self, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "interlock", "door", "--stdio", "--policy", str(self.policy)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self.started.append(process)
        return process

    def ask(self, body: bytes, **environment: str) -> list[dict[str, Any]]:
        """All frames; our end stays open until the answer is there, as the relay keeps it."""
        process = self.open(**environment)
        assert process.stdin is not None
        assert process.stdout is not None
        frames = [json.loads(process.stdout.readline())]
        process.stdin.write(body)
        process.stdin.flush()
        frames += [json.loads(line) for line in process.stdout]
        process.stdin.close()
        assert process.wait(20) == 0
        return frames

    def do(self, *argv: str, **fields: Any) -> list[dict[str, Any]]:
        request = {"version": 1, "id": "7:0", "do": "plan", "argv": [*argv], **fields}
        return self.ask(json.dumps(request).encode() + b"\n")

    def run(self, *argv: str, **fields: Any) -> list[dict[str, Any]]:
        """Planned, then performed as planned."""
        planned = self.do(*argv)
        assert "plan" in planned[-1], planned[-1]
        return self.do(*argv, **{"do": "run", "digest": planned[-1]["digest"], **fields})


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    found = Door(tmp_path)
    yield found
    for process in found.started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None and not stream.closed:
                stream.close()


def printed(frames: list[dict[str, Any]]) -> str:
    return "".join(frame.get("output", "") for frame in frames)


def refusal(frames: list[dict[str, Any]]) -> str:
    return str(frames[-1]["error"]["code"])


def test_what_tells_nothing_and_changes_nothing_runs_without_a_policy(door: Door) -> None:
    frames = door.run("uptime")
    assert frames[0] == {"ready": 1}
    assert "load average" in printed(frames)
    result = frames[-1]["result"]
    assert (result["ok"], result["data"]["exit_code"]) == (True, 0)


def test_what_sshd_was_asked_for_is_not_looked_at(door: Door) -> None:
    made = door.folder / "made"
    request = json.dumps({"version": 1, "id": "1", "do": "plan", "argv": ["uptime"]}).encode() + b"\n"
    assert "plan" in door.ask(request, SSH_ORIGINAL_COMMAND=f"touch {made}")[-1]
    assert not made.exists()


@pytest.fixture(scope="module")
def untold() -> RemoteDoor:
    """A machine without a policy."""
    return RemoteDoor(DoorPolicy())


@pytest.mark.parametrize(
    "argv",
    [
        ("cat", "/etc/hostname"),
        ("cat", "/etc/shadow"),
        ("mkdir", "/srv/x"),
        ("chmod", "700", "/srv"),
        ("sh", "-c", "id"),
        ("/bin/sh", "-c", "id"),
        ("python3", "-c", "print(1)"),
        ("sudo", "uptime"),
        ("env", "uptime"),
    ],
)
def test_without_a_policy_nothing_else_runs(untold: RemoteDoor, argv: tuple[str, ...]) -> None:
    with pytest.raises(InterlockError):
        untold.plan(DoorRequest(id="1", do="plan", argv=argv))
    request = DoorRequest(id="1", do="run", argv=argv, digest="0" * 64)
    with pytest.raises(InterlockError):
        untold.run(request, print, lambda _: None)


def test_a_refusal_is_an_answer(door: Door) -> None:
    assert refusal(door.do("cat", "/etc/shadow", do="run", digest="0" * 64)) == "door.refused"


def test_contents_are_shown_beneath_the_roots_where_the_policy_says_so(door: Door) -> None:
    real = Path(os.path.realpath(door.folder))
    (real / "logs").mkdir()
    (real / "logs/app.log").write_text("one\ntwo\n")
    (real / "other").write_text("precious")
    door.allow(f"version: 1\ndiscloses: content\nroots: {{read: [{real}/logs]}}\n")
    assert printed(door.run("tail", "-n", "1", str(real / "logs/app.log"))) == "two\n"
    assert refusal(door.do("cat", str(real / "other"))) == "door.refused"
    assert refusal(door.do("cat", "/etc/shadow")) == "door.refused"


def test_a_listed_program_changes_what_is_not_protected(door: Door) -> None:
    real = Path(os.path.realpath(door.folder))
    for name in ("free", "kept"):
        (real / name).mkdir()
    door.allow(f"version: 1\nchanges: [mkdir]\nroots: {{write: [{real}]}}\nprotected: ['file:{real}/kept/**']\n")
    frames = door.run("mkdir", str(real / "free/new"))
    assert frames[-1]["result"]["ok"], frames
    assert (real / "free/new").is_dir()
    here = RemoteDoor(read_door_policy(door.policy))
    for argv in (("mkdir", f"{real}/kept/new"), ("rmdir", f"{real}/free/new"), ("mkdir", "/etc/ssh/new")):
        with pytest.raises(Denied):
            here.plan(DoorRequest(id="1", do="plan", argv=argv))


def test_what_was_not_planned_is_not_run(untold: RemoteDoor) -> None:
    digest = untold.plan(DoorRequest(id="1", do="plan", argv=("uptime",))).digest
    for argv, given in ((("uptime",), "0" * 64), (("uptime",), None), (("df", "-h"), digest)):
        with pytest.raises(Stale):
            untold.run(DoorRequest(id="1", do="run", argv=argv, digest=given), print, lambda _: None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"not json\n",
        b"[]\n",
        b"{}\n",
        b'{"version": 2, "id": "1", "do": "plan", "argv": ["uptime"]}\n',
        b'{"version": 1, "id": "1", "do": "plan", "argv": "uptime"}\n',
        b'{"version": 1, "id": "1", "do": "plan", "argv": ["uptime"], "more": 1}\n',
        b'{"version": 1, "id": "../..", "do": "plan", "argv": ["uptime"]}\n',
        b"[" * 100_000 + b"\n",
        b'{"a": "' + b"x" * (1024 * 1024) + b'"}\n',
    ],
)
def test_a_request_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "request").write_bytes(body)
    with (tmp_path / "request").open("rb") as file, pytest.raises(Invalid) as caught:
        remote_door._request(file.fileno())
    assert caught.value.code in {"door.request", "args.invalid"}


def test_a_request_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_door, "REQUEST_SECONDS", 0.1)
    ours, theirs = os.pipe()
    try:
        with pytest.raises(Invalid):
            remote_door._request(ours)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_policy_that_others_may_write_or_that_does_not_fit_lets_nothing_run(door: Door) -> None:
    door.allow("version: 1\nchange: [systemctl]\n")
    assert refusal(door.do("uptime")) == "door.policy"
    door.allow("version: 1\n")
    door.policy.chmod(0o666)
    with pytest.raises(Invalid) as caught:
        read_door_policy(door.policy)
    assert caught.value.code == "file.writable"


class Files:
    """A folder on that machine, in which its door may write."""

    def __init__(self, door: Door) -> None:
        self.folder = Path(os.path.realpath(door.folder)) / "site"
        self.folder.mkdir()
        self.path = self.folder / "motd"
        self._door = door

    def ask(self, do: str, *, path: Path | None = None, content: str | None = None, **fields: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"version": 1, "id": "7:0", "do": do, "path": str(path or self.path), **fields}
        if content is None:
            given["action"] = "file.remove"
        else:
            given |= {"action": "file.write", "content_base64": base64.b64encode(content.encode()).decode()}
        return self._door.ask(json.dumps(given).encode() + b"\n")[-1]


@pytest.fixture
def files(door: Door) -> Files:
    found = Files(door)
    door.allow(
        "version: 1\ndiscloses: content\nchanges: [file.write, file.remove]\n"
        f"roots: {{write: [{found.folder}]}}\nprotected: ['file:{found.folder}/kept']\n"
    )
    return found


def test_a_file_is_written_as_planned_and_its_original_told_before(files: Files) -> None:
    files.path.write_text("old\n")
    planned = files.ask("plan", content="new\n")
    assert "-old\n+new" in planned["plan"]["preview"]
    assert base64.b64decode(files.ask("read", content="new\n")["original"]) == b"old\n"
    assert files.ask("run", content="new\n", digest=planned["digest"])["result"]["ok"]
    assert files.path.read_text() == "new\n"


def test_a_file_is_removed_as_planned(files: Files) -> None:
    files.path.write_text("old\n")
    planned = files.ask("plan")
    assert files.ask("run", digest=planned["digest"])["result"]["ok"]
    assert not files.path.exists()
    assert files.ask("plan")["error"]["kind"] == "not_found"


def test_a_file_that_changed_since_is_not_written(files: Files) -> None:
    planned = files.ask("plan", content="new\n")
    files.path.write_text("somebody was here\n")
    assert files.ask("run", content="new\n", digest=planned["digest"])["error"]["code"] == "door.stale"
    assert files.path.read_text() == "somebody was here\n"


def test_files_are_written_beneath_its_roots_only_and_never_what_is_protected(files: Files) -> None:
    (files.folder / "kept").write_text("precious")
    (files.folder / "out").symlink_to("/etc")
    for path in (files.folder / "kept", files.folder / "out/motd", files.folder.parent / "beside"):
        for do in ("plan", "read"):
            assert files.ask(do, path=path, content="new\n")["error"]["kind"] == "denied", (do, path)


def test_no_file_is_written_or_read_where_the_policy_lists_no_action_on_files(files: Files, door: Door) -> None:
    files.path.write_text("old\n")
    door.allow(f"version: 1\ndiscloses: content\nroots: {{write: [{files.folder}]}}\n")
    for do in ("plan", "read"):
        assert files.ask(do, content="new\n")["error"]["code"] == "door.refused"
    door.allow(f"version: 1\nchanges: [file.write]\nroots: {{write: [{files.folder}]}}\n")
    assert files.ask("read", content="new\n")["error"]["code"] == "door.refused"


def test_output_is_bounded_and_says_so(door: Door) -> None:
    real = Path(os.path.realpath(door.folder))
    (real / "long.log").write_text("x" * 999 + "\n" + "y" * 99_000)
    door.allow(f"version: 1\ndiscloses: content\nroots: {{read: [{real}]}}\n")
    frames = door.run("cat", str(real / "long.log"), output_bytes_max=1000)
    assert len(printed(frames)) == 1000
    assert frames[-1]["result"]["data"]["truncated"] is True


def test_a_secret_in_what_is_printed_is_blotted_out(door: Door) -> None:
    real = Path(os.path.realpath(door.folder))
    (real / "app.log").write_text("password=hunter2hunter2\n")
    door.allow(f"version: 1\ndiscloses: content\nroots: {{read: [{real}]}}\n")
    assert printed(door.run("cat", str(real / "app.log"))) == "password=[redacted]\n"


def test_whoever_goes_takes_his_command_along(door: Door) -> None:
    real = Path(os.path.realpath(door.folder))
    (real / "app.log").write_text("first\n")
    door.allow(f"version: 1\ndiscloses: content\nroots: {{read: [{real}]}}\n")
    argv = ["tail", "-n", "1", "-f", str(real / "app.log")]
    digest = door.do(*argv)[-1]["digest"]
    process = door.open()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    request = {"version": 1, "id": "1", "do": "run", "argv": argv, "digest": digest}
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["output"] == "first\n"
    process.stdin.close()
    process.wait(20)
    gone: Callable[[], bool] = lambda: not _running(str(real / "app.log"))  # noqa: E731
    until(gone)


def _running(word: str) -> bool:
    for place in Path("/proc").iterdir():
        try:
            if place.name.isdigit() and word.encode() in (place / "cmdline").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False
