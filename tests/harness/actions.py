"""Actions whose every step does what the test wrote into its arguments, and leaves a line in a journal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

from interlock.core.action import Action, StepResult
from interlock.core.errors import Conflict, Denied, Invalid, NotFound, Permanent, Stale, Transient
from interlock.core.model import Frozen, JsonObject
from interlock.core.plan import Plan, Risk, Step, Target
from interlock.core.ports import ProcessSpec, StepContext

Outcome = Literal[
    "ok", "not_ok", "bug", "invalid", "not_found", "denied", "conflict", "stale", "permanent", "transient", "not_sent"
]
ERRORS: dict[str, Callable[[], Exception]] = {
    "invalid": lambda: Invalid("as told: invalid"),
    "not_found": lambda: NotFound("as told: not found"),
    "denied": lambda: Denied("as told: denied"),
    "conflict": lambda: Conflict("as told: conflict"),
    "stale": lambda: Stale("as told: stale"),
    "permanent": lambda: Permanent("as told: permanent"),
    "transient": lambda: Transient("as told: transient"),
    "not_sent": lambda: Transient("as told: not sent", effect_sent=False),
    "bug": lambda: ZeroDivisionError("as told: a bug"),
}
GATE_POLL_SECONDS = 0.005
GATE_SECONDS = 30.0
"""A test that failed must not wait for ever for its own step."""


class Does(Frozen):
    """What one direction of a step does: `outcome`, but only in the first `times` attempts; then it is `ok`.

    `gate` is a file that must exist before the step goes on. `checked` is what the check finds: `ok`, `not_ok`, or an
    error. `error` replaces the message; `{NUL}` and
    `{PAIR}` in it stand for what JSON text in a table cannot hold.
    """

    outcome: Outcome = "ok"
    times: int = 1_000_000
    gate: str | None = None
    checked: Outcome = "ok"
    deaf: bool = False
    error: str | None = None


class Told(Frozen):
    """One step of a plan, as the test wants it. Without `undo` it cannot be taken back."""

    target: str | None = None
    changes: bool = True
    repeatable: bool = False
    risk: Risk = "medium"
    timeout_seconds: float = 60.0
    do: Does = Does()
    undo: Does | None = None


class StepsArgs(Frozen):
    """`facts` is a file whose content is read for the plan."""

    journal: str
    steps: tuple[Told, ...] = (Told(),)
    facts: str | None = None


class Steps(Action):
    """Effects in this process: a line in the journal for each."""

    name: ClassVar[str] = "test.steps"
    summary: ClassVar[str] = "Do what the test says, in this process."
    example: ClassVar[JsonObject] = {"journal": "/tmp/journal"}
    Args: ClassVar[type[Frozen]] = StepsArgs

    def read_facts(self, args: StepsArgs) -> JsonObject:
        """The content of the facts file. Raises NotFound, or Transient where the test says so."""
        if args.facts is None:
            return {}
        text = Path(args.facts).read_text(encoding="utf-8")
        if text == "transient":
            msg = "the world does not answer"
            raise Transient(msg)
        return {"facts": text}

    def plan(self, args: StepsArgs, facts: JsonObject) -> Plan:
        """One step for each that the test told of."""
        steps = tuple(self._step(args, told) for told in args.steps)
        summary = f"{len(steps)} steps as told"
        return Plan(action=self.name, args=args.model_dump(mode="json"), summary=summary, steps=steps, facts=facts)

    def _step(self, args: StepsArgs, told: Told) -> Step:
        targets = () if told.target is None else (Target(kind="thing", id=told.target),)
        common = {"targets": targets, "risk": told.risk, "changes": told.changes, "repeatable": told.repeatable}
        undo = None
        if told.undo is not None:
            params = {"journal": args.journal, "word": "undo", **told.undo.model_dump(mode="json")}
            undo = Step(verb="undo", summary="take back", params=params, **common)
        params = {"journal": args.journal, "word": "do", **told.do.model_dump(mode="json")}
        return Step(
            verb="do",
            summary="as told",
            params=params,
            undo=undo,
            irreversible=None if undo else "the test wants it so",
            timeout_seconds=told.timeout_seconds,
            **common,
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Wait at the gate, leave a line, then end as told."""
        does = Does.model_validate({name: step.params[name] for name in Does.model_fields})
        end = time.monotonic() + GATE_SECONDS
        while does.gate is not None and not Path(does.gate).exists() and time.monotonic() < end:
            if context.cancelled and not does.deaf:
                msg = "the step heard that it shall end"
                raise Transient(msg, effect_sent=False)
            if not does.deaf:
                context.hold()
            time.sleep(GATE_POLL_SECONDS)
        context.hold()
        if does.outcome != "not_sent" or context.attempt > does.times:
            write_line(str(step.params["journal"]), f"{context.key} {step.params['word']} {context.attempt}")
        return _end(does.outcome if context.attempt <= does.times else "ok", does.error)

    def check(self, step: Step, context: StepContext) -> StepResult:
        """Find what the test says is found."""
        write_line(str(step.params["journal"]), f"{context.key} check-{step.params['word']} {context.attempt}")
        return _end(str(step.params["checked"]))


class Unchecked(Steps):
    """The same, but nobody looks afterwards."""

    name: ClassVar[str] = "test.unchecked"
    check = Action.check


class LedgerArgs(Frozen):
    """`repeatable` and `content` for each step; `script` runs in /bin/sh before the ledger is told."""

    fifo: str
    target: str | None = None
    repeatable: tuple[bool, ...] = (False,)
    script: str = ""
    undo: bool = False
    timeout_seconds: float = 60.0


class Ledger(Action):
    """Effects in a process of their own, which tells a ledger kept by somebody else; every step has a guard."""

    name: ClassVar[str] = "test.ledger"
    summary: ClassVar[str] = "Tell the ledger, from a process of its own."
    example: ClassVar[JsonObject] = {"fifo": "/tmp/ledger"}
    Args: ClassVar[type[Frozen]] = LedgerArgs
    guarded: ClassVar[bool] = True

    def plan(self, args: LedgerArgs, facts: JsonObject) -> Plan:
        """One step for each entry of `repeatable`."""
        steps = tuple(self._step(args, index) for index in range(len(args.repeatable)))
        return Plan(action=self.name, args=args.model_dump(mode="json"), summary="tell the ledger", steps=steps)

    def _step(self, args: LedgerArgs, index: int) -> Step:
        targets = () if args.target is None else (Target(kind="thing", id=args.target),)
        common = {"targets": targets, "risk": "medium", "timeout_seconds": args.timeout_seconds}
        params: JsonObject = {"fifo": args.fifo, "script": args.script, "content": f"content-{index}"}
        undo = None
        if args.undo:
            undo = Step(verb="undo", summary="untell", params={**params, "content": f"undo-{index}"}, **common)
        return Step(
            verb="tell",
            summary="tell the ledger",
            params=params,
            repeatable=args.repeatable[index],
            undo=undo,
            irreversible=None if undo else "the ledger forgets nothing",
            **common,
        )

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """One line for the ledger, atomic because it is short (pipe(7))."""
        script = f'{step.params["script"]}\nprintf \'%s %s\\n\' "$1" "$2" > "$0"'
        spec = ProcessSpec(
            path="/bin/sh",
            argv=("sh", "-c", script, str(step.params["fifo"]), context.key, str(step.params["content"])),
            environment={"PATH": "/usr/bin:/bin"},
            timeout_seconds=step.timeout_seconds,
        )
        result = context.execute(spec)
        ended = f"exit {result.exit_code}" if result.signal is None else f"signal {result.signal}"
        return StepResult(ok=result.exit_code == 0, summary=ended, data={"exit_code": result.exit_code})


class KeepArgs(Frozen):
    """`size` bytes, made of `seed`."""

    seed: str
    size: int = 1000


class Keep(Action):
    """Keeps a body in the blob store: what fills a disk."""

    name: ClassVar[str] = "test.keep"
    summary: ClassVar[str] = "Keep a body."
    example: ClassVar[JsonObject] = {"seed": "a"}
    Args: ClassVar[type[Frozen]] = KeepArgs

    def plan(self, args: KeepArgs, facts: JsonObject) -> Plan:
        """One repeatable step."""
        params = args.model_dump(mode="json")
        step = Step(verb="keep", summary="keep a body", params=params, repeatable=True, irreversible="kept")
        return Plan(action=self.name, args=args.model_dump(mode="json"), summary="keep a body", steps=(step,))

    def perform(self, step: Step, context: StepContext) -> StepResult:
        """Put it."""
        body = (str(step.params["seed"]).encode() + os.urandom(16)).ljust(int(str(step.params["size"])), b"x")
        return StepResult(ok=True, summary="kept", data={"blob": context.blobs.put(body)})


def write_line(path: str, line: str) -> None:
    """Append a line in one write, so that lines of several processes never mix."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def _end(outcome: str, message: str | None = None) -> StepResult:
    if outcome in ERRORS:
        error = ERRORS[outcome]()
        if message is not None:
            message = message.replace("{NUL}", "\0").replace("{PAIR}", "\ud800")
            error.args = (message,)
            error.message = message  # type: ignore[attr-defined]
        raise error
    return StepResult(ok=outcome == "ok", summary=f"as told: {outcome}")


ACTIONS: tuple[type[Action], ...] = (Steps, Unchecked, Ledger, Keep)
