"""Gates: what a release demands of a version that was built, before it is started; each under the guard, one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from interlock.core.model import JsonObject
from interlock.core.ports import ProcessResult, ProcessSpec, StepContext
from interlock.core.workload import Gate

OUTPUT_BYTES_MAX = 4 * 1024 * 1024
TAIL_CHARACTERS = 1000
"""Of the end of what a gate that failed said; all of it stands in the output of the Run."""
SENTENCE_CHARACTERS = 200


class GateResult(NamedTuple):
    """How one gate ended; `tail` is the redacted end of what it said, of one that failed."""

    name: str
    ok: bool
    words: str
    tail: str

    @property
    def sentence(self) -> str:
        """For the reason of a release."""
        said = " ".join(self.tail.split())[-SENTENCE_CHARACTERS:]
        return f"the gate {self.name} {self.words}{': ' if said else ''}{said}"

    def told(self) -> JsonObject:
        """As the release that asked for it reads it."""
        return {"name": self.name, "ok": self.ok, "words": self.words, "tail": self.tail}


def run_gates(
    gates: Sequence[Gate], program_of: Callable[[tuple[str, ...], float], ProcessSpec], context: StepContext
) -> tuple[GateResult, ...]:
    """All that a workload declares, up to the first that fails.

    `program_of` makes a program of a command and its longest time in seconds. Raises what that raises: NotFound for a
    program that is not there, say.
    """
    found: list[GateResult] = []
    for gate in gates:
        context.write_output(f"gate {gate.name}: $ {' '.join(gate.command)}\n")
        program = program_of(gate.command, gate.timeout_seconds)
        result = context.execute(program.model_copy(update={"output_bytes_max": OUTPUT_BYTES_MAX}))
        ok = result.exit_code == 0
        found.append(GateResult(gate.name, ok, _words(result), "" if ok else result.tail[-TAIL_CHARACTERS:]))
        if not ok:
            break
    return tuple(found)


def _words(result: ProcessResult) -> str:
    seconds = f"after {result.duration_seconds:.1f} s"
    if result.exit_code == 0:
        return f"passed {seconds}"
    if result.timed_out:
        return f"was ended {seconds}: it took too long"
    how = f"exit code {result.exit_code}" if result.signal is None else f"signal {result.signal}"
    return f"failed {seconds} with {how}"
