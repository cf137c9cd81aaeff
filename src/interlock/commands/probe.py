"""Asks a read-only program one question while a plan is made or checked: bounded, silent, in a clean environment."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping

from interlock.commands.model import Probe
from interlock.core.errors import Transient

PROBE_SECONDS = 10.0
ANSWER_BYTES_MAX = 64 * 1024


def holds(probe: Probe, binary: str, folder: str, environment: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the program's answer is what the probe expects, and the answer in a few words.

    Raises: Transient when it does not answer in time or cannot be started.
    """
    try:
        done = subprocess.run(
            probe.argv,
            executable=binary,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PROBE_SECONDS,
            check=False,
            close_fds=True,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"{probe.argv[0]} did not answer: {type(error).__name__}"
        raise Transient(msg, code="probe.silent", effect_sent=False) from error
    text = done.stdout[:ANSWER_BYTES_MAX].decode("utf-8", "replace")
    said = re.search(probe.output, text) is not None if probe.output is not None else True
    answer = text.strip().splitlines()[-1][:200] if text.strip() else ""
    return (
        done.returncode in probe.exit_codes and said,
        f"{' '.join(probe.argv)}: exit {done.returncode} {answer}".strip(),
    )
