"""A program for the keeper's tests: it starts children that try to get away, and says in its folder who is who.

Usage: python kept_program.py [--stubborn] [--lines N] [--children] [--hidden]. It writes `main`, and with --children
`child` and `orphan` (each a pid) into its working folder, prints N lines, and then sleeps until it is ended. With
--stubborn it ignores SIGTERM. With --hidden the orphan has an empty environment.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def _write(name: str) -> None:
    new = Path(f"{name}.new")
    new.write_text(str(os.getpid()))
    new.rename(name)


def main(arguments: list[str]) -> None:
    if "--stubborn" in arguments:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "--children" in arguments:
        if os.fork() == 0:
            _write("child")
            signal.pause()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:  # an orphan in a session of its own
                _write("orphan")
                if "--hidden" in arguments:
                    os.execve("/bin/sleep", ["sleep", "600"], {})  # noqa: S606 - a shell is not wanted
                signal.pause()
            os._exit(0)
        os.wait()
    _write("main")
    if "--lines" in arguments:
        for number in range(int(arguments[arguments.index("--lines") + 1])):
            sys.stdout.write(f"line {number:09}\n")
        sys.stdout.flush()
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
