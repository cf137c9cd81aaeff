"""What a step gives to a runtime of services: programs run as under the guard, and what was said to whom is kept."""

from __future__ import annotations

import subprocess
from typing import Any

from interlock.core.ports import ProcessResult, ProcessSpec


class Guarded:
    """What a step gives to a runtime: it runs programs as the guard does, and remembers what was said to whom."""

    run, key, attempt, cancelled = 1, "1:0", 1, False
    blobs: Any = None

    def __init__(self) -> None:
        self.held = 0
        self.ran: list[tuple[str, ...]] = []
        self.said = ""

    def hold(self) -> None:
        self.held += 1

    def execute(self, spec: ProcessSpec) -> ProcessResult:
        self.ran.append(spec.argv)
        done = subprocess.run(
            [spec.path, *spec.argv[1:]],
            env=spec.environment,
            cwd=spec.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        tail = done.stdout.decode(errors="replace")
        self.said += tail
        return ProcessResult(
            exit_code=done.returncode,
            signal=None,
            timed_out=False,
            output_bytes=len(tail),
            truncated=False,
            output_sha256="0" * 64,
            tail=tail,
            duration_seconds=0.0,
        )

    def write_output(self, text: str) -> None:
        raise AssertionError(text)

    def arrange(self, name: str, payload: Any) -> Any:
        raise AssertionError((name, payload))
