"""A Docker engine of the tests' own: started where dockerd is installed and this is root, without any registry."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

START_SECONDS = 40.0
DOCKERD = shutil.which("dockerd", path="/usr/sbin:/usr/bin")
BUSYBOX = shutil.which("busybox", path="/usr/bin:/bin")


class RealEngine:
    """A Docker engine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket_path = str(folder / "docker.sock")

    def call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """One request that changes something: what the adapter itself never sends."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(30)
            channel.connect(self.socket_path)
            headers = (f"{method} {path} HTTP/1.0", f"Content-Type: {kind}", f"Content-Length: {len(raw)}", "", "")
            channel.sendall("\r\n".join(headers).encode() + raw)
            answer = b""
            while part := channel.recv(65536):
                answer += part
        status, _, content = answer.partition(b"\r\n")[0].split(b" ")[1], *answer.partition(b"\r\n\r\n")[1:]
        assert int(status) < 300, answer.decode(errors="replace")
        return json.loads(content) if content.strip() else None

    def create(self, name: str, **settings: Any) -> str:
        """A container that is not started; returns its id."""
        host = {"NetworkMode": "host", **settings.pop("HostConfig", {})}
        body = {"Image": "shop:v1", "Cmd": ["sleep", "1000"], "HostConfig": host, **settings}
        return str(self.call("POST", f"/containers/create?name={name}", body)["Id"])

    def import_image(self, name: str, files: Mapping[str, str]) -> str:
        """An image of busybox and these files; "busybox" is a link to it. Returns its id."""
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as archive:
            archive.add(str(BUSYBOX), "bin/busybox")
            for path, text in files.items():
                entry = tarfile.TarInfo(path)
                if text == "busybox":
                    entry.type, entry.linkname = tarfile.SYMTYPE, "/bin/busybox"
                    archive.addfile(entry)
                else:
                    entry.size = len(text.encode())
                    archive.addfile(entry, io.BytesIO(text.encode()))
        repository, _, tag = name.partition(":")
        path = f"/images/create?fromSrc=-&repo={repository}&tag={tag}"
        answer = self.call("POST", path, raw.getvalue(), "application/x-tar")
        return str(answer["status"])


def why_absent() -> str | None:
    """Why there can be no such engine here."""
    if os.geteuid() != 0 or DOCKERD is None or BUSYBOX is None:
        return "needs root, dockerd and busybox: apt-get install docker.io busybox-static"
    return None


def _wait_for(engine: RealEngine, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    pause = threading.Event()
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.skip(f"dockerd does not start here: {log.read_text(errors='replace')[-300:]}")
        try:
            engine.call("GET", "/version")
        except OSError:
            pause.wait(0.1)
        else:
            return
    pytest.skip("dockerd does not become ready here")


@contextmanager
def real_engine() -> Iterator[RealEngine]:
    """A running one; where it does not start the tests that ask for it are skipped."""
    with tempfile.TemporaryDirectory(prefix="il-docker-", dir="/tmp") as name:
        folder = Path(name)
        engine = RealEngine(folder)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(str(DOCKERD), "--data-root", folder / "data", "--exec-root", folder / "exec"),
                    *("--host", f"unix://{engine.socket_path}", "--pidfile", folder / "pid", "--storage-driver=vfs"),
                    *("--iptables=false", "--ip6tables=false", "--bridge=none"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            _wait_for(engine, process, folder / "log")
            yield engine
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
            for point in reversed([point for point in points if point.startswith(str(folder))]):
                subprocess.run(["/usr/bin/umount", point], check=True, timeout=10)
