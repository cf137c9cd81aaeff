"""A real resident process on a project of its own, and what speaks to it: as this account, or as another one."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from harness.databases import database
from harness.engine import PERMISSIVE
from interlock.core.errors import InterlockError
from interlock.interfaces.local.client import Connection

PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.02

# A client that imports everything before it changes its account, because the interpreter may lie in a folder that is
# closed to others. One JSON list of requests a line; the answer is the last frame of each.
STRANGER = """
import json, os, socket, sys
account, group, door = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.setgroups([]); os.setgid(group); os.setuid(account)
for line in sys.stdin:
    answers = []
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(door)
            client.settimeout(30)
            reader = client.makefile("rb")
            for request in json.loads(line):
                client.sendall(json.dumps(request).encode() + b"\\n")
                while "progress" in (answer := json.loads(reader.readline() or b"null") or {}):
                    pass
                answers.append(answer)
    except OSError as error:
        answers.append({"refused": type(error).__name__})
    print(json.dumps(answers), flush=True)
"""


@dataclass
class Resident:
    """A project folder with its resident process. `environment` is all that the process is given."""

    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None)
    serve_options: tuple[str, ...] = ("--no-http",)

    @property
    def door(self) -> Path:
        return self.folder / "run" / "door.sock"

    @property
    def state_folder(self) -> Path:
        return self.folder / "project" / ".interlock"

    @property
    def data(self) -> Path:
        """The folder that may be written."""
        return self.folder / "project" / "data"

    @property
    def log(self) -> str:
        """What the process said."""
        return (self.folder / "said").read_text(encoding="utf-8", errors="replace")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "interlock", *words]

    def spawn(self) -> subprocess.Popen[bytes]:
        """`interlock serve`, without waiting for it."""
        with (self.folder / "said").open("ab") as said:
            return subprocess.Popen(
                self.command("serve", *self.serve_options),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def start(self) -> Resident:
        """Start it, and wait until it answers."""
        self.process = self.spawn()
        return self.wait_until_ready()

    def wait_until_ready(self) -> Resident:
        self.until(self.answers)
        return self

    def answers(self) -> bool:
        """Whether somebody says hello at the door."""
        assert self.process is None or self.process.poll() is None, self.log
        try:
            self.ask("hello")
        except InterlockError:
            return False
        return True

    def ask(self, method: str, acting_as: str | None = None, **params: Any) -> dict[str, Any]:
        """One request as this account. Raises what it is answered with."""
        with Connection(self.door, trusted_uids=frozenset({os.geteuid()})) as connection:
            answer: dict[str, Any] = connection.call(method, params, acting_as=acting_as)
            return answer

    def submit(self, action: str, wait: float = 20.0, acting_as: str | None = None, **args: Any) -> dict[str, Any]:
        """A confirmed ask; the Run as it is when it rests or the wait is over."""
        ask = {"action": action, "args": args, "confirmed": True}
        run: dict[str, Any] = self.ask("submit", acting_as, ask=ask, wait_seconds=wait)["run"]
        return run

    def write(self, name: str, content: str, **options: Any) -> dict[str, Any]:
        """Write a file below `data`."""
        return self.submit("file.write", path=str(self.data / name), content=content, **options)

    def view(self, view: str, **args: Any) -> dict[str, Any]:
        data: dict[str, Any] = self.ask("view", name=view, args=args)["data"]
        return data

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """`interlock WORDS...`, by the command line."""
        return subprocess.run(
            self.command(*words),
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )

    def stop(self) -> None:
        """End it as `systemctl stop` does, and wait."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(PATIENCE_SECONDS) == 0, self.log
            self.process = None

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    @staticmethod
    def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> float:
        """Wait for a condition; returns how many seconds it took."""
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() < begun + seconds, f"not within {seconds} s"
            time.sleep(POLL_SECONDS)
        return time.monotonic() - begun


@contextmanager
def resident(
    endpoint: Any | None, policy: str = "small-team", *, open_to_all: bool = False, one_role: bool = False, **body: Any
) -> Iterator[Resident]:
    """A project whose `data` may be written, not yet served. `endpoint` None: on its own embedded database.

    `policy` is the name of a preset, or `permissive`.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="il-", dir="/tmp")))
        if open_to_all:
            folder.chmod(0o755)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "INTERLOCK_PROJECT": str(folder / "project"),
            "INTERLOCK_RUNTIME_FOLDER": str(folder / "run"),
        }
        if endpoint is not None:
            _, owner, app = stack.enter_context(database(endpoint))
            environment["INTERLOCK_DATABASE_URL"] = owner if one_role else app
            environment["INTERLOCK_DATABASE_OWNER_URL"] = owner
        made = Resident(folder, environment)
        write_project(made, policy, body)
        stack.callback(_end, made)
        yield made


def write_project(made: Resident, policy: str, body: dict[str, Any]) -> None:
    """interlock.yaml and, where policy is no preset, one policy that permits everything."""
    made.data.mkdir(parents=True, exist_ok=True)
    root = made.folder / "project"
    preset = "small-team" if policy == "permissive" else policy
    whole = {"version": 1, "preset": preset, "roots": {"read": ["data"], "write": ["data"]}, **body}
    (root / "interlock.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    if policy == "permissive":
        (root / "policies").mkdir(exist_ok=True)
        (root / "policies" / "test.cedar").write_text(PERMISSIVE, encoding="utf-8")


def _end(made: Resident) -> None:
    if made.process is not None:
        with contextlib.suppress(ProcessLookupError):
            made.process.terminate()
        try:
            made.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            made.process.kill()
            made.process.wait()


class Stranger:
    """A client that runs as another account of this machine."""

    def __init__(self, user: pwd.struct_passwd | int, door: Path) -> None:
        uid, gid = (user, user) if isinstance(user, int) else (user.pw_uid, user.pw_gid)
        command = [sys.executable, "-I", "-c", STRANGER, str(uid), str(gid), str(door)]
        self.name = str(user) if isinstance(user, int) else user.pw_name
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")

    def ask(self, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        """Each answer's last frame, over one connection."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        answers: list[dict[str, Any]] = json.loads(self._process.stdout.readline())
        return answers

    def call(self, method: str, acting_as: str | None = None, **params: Any) -> dict[str, Any]:
        """One request; the whole frame of its answer."""
        return self.ask({"id": 1, "method": method, "params": params, "as": acting_as})[0]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class RawLine:
    """Bytes to the door and back, as no client of ours would send them."""

    def __init__(self, door: Path, timeout_seconds: float = 20.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(door))  # it waits for its turn: with a time-out it would fail while many knock at once
        self.socket.settimeout(timeout_seconds)
        self._reader = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> dict[str, Any] | None:
        """The next frame; None when the other end hung up."""
        try:
            line = self._reader.readline()
        except ConnectionError:
            return None
        frame: dict[str, Any] | None = json.loads(line) if line else None
        return frame

    def ask(self, frame: object) -> dict[str, Any] | None:
        """Send one frame and read up to its last answer."""
        self.send(json.dumps(frame).encode() + b"\n")
        while (answer := self.read()) is not None and "progress" in answer:
            pass
        return answer

    def close(self) -> None:
        self._reader.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
