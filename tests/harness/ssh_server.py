"""A real sshd on a loop-back port, whose only account's only key opens the small door."""

from __future__ import annotations

import getpass
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.resident import Resident

SSHD = Path("/usr/sbin/sshd")


@dataclass
class SshServer:
    """`authorized` is read anew for each connection; `policy` is what its door allows."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def user(self) -> str:
        return getpass.getuser()

    @property
    def host_key(self) -> str:
        return " ".join((self.folder / "host.pub").read_text().split()[:2])

    @property
    def policy(self) -> Path:
        return self.folder / "door.yaml"

    def let_in(self, public_key: str, command: str | None = None) -> None:
        """As `RemoteHost.authorized_line`, with this installation's program and the test's policy."""
        door = shlex.join([sys.executable, "-m", "interlock", "door", "--stdio", "--policy", str(self.policy)])
        (self.folder / "authorized").write_text(f'restrict,command="{command or door}" {public_key}\n')

    def hang_up(self) -> None:
        """Kill all connections, as a network that fails."""
        for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            os.kill(int(child), 9)


def why_absent() -> str | None:
    """Why there is no such server here."""
    if not SSHD.exists():
        return "there is no /usr/sbin/sshd"
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where it locks itself in before anybody is known
    return None


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """Until the end of the block."""
    subprocess.run(["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "host")], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder}/host",
        f"AuthorizedKeysFile {folder}/authorized",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "UsePAM no",
        "StrictModes no",
        "PidFile none",
        "MaxStartups 100",
        "PermitRootLogin forced-commands-only",
    ]
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    (folder / "authorized").write_text("")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
        )
    server = SshServer(folder, port, process)
    try:
        Resident.until(lambda: "listening on" in (folder / "log").read_text())
        yield server
    finally:
        process.kill()
        process.wait()
