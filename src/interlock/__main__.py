"""The program `interlock`."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:]
    if words in (["--version"], ["-V"]):
        from interlock import __version__

        sys.stdout.write(f"interlock {__version__}\n")
        return 0
    from interlock.interfaces.cli.app import run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
