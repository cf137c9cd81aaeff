"""Asks the programs of this machine for their versions, each for a bounded time."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_SECONDS = 3.0
_WORDS = {"openssl": ("version",), "ssh": ("-V",)}
_CHARACTERS_MAX = 80


def tool_versions(names: Iterable[str]) -> dict[str, str | None]:
    """The first line of what each says of its version; None where it is not there, "" where it says nothing."""
    return {name: _version(name) for name in names}


def installer() -> str:
    """How packages are installed on this machine."""
    known = (("apt-get", "apt-get install -y"), ("dnf", "dnf install -y"), ("apk", "apk add"), ("zypper", "zypper in"))
    return next((words for program, words in known if shutil.which(program, path=PATH)), "apt-get install -y")


def _version(name: str) -> str | None:
    program = shutil.which(name, path=PATH)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *_WORDS.get(name, ("--version",))],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_SECONDS,
            env={"PATH": PATH, "LC_ALL": "C"},
            cwd="/",
        )
    except (subprocess.TimeoutExpired, OSError):
        return ""
    lines = (done.stdout or done.stderr).decode(errors="replace").strip().splitlines()
    return lines[0][:_CHARACTERS_MAX] if lines else ""
